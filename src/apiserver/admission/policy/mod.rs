//! Admission policies: rules and changes in CEL, without a program to call.
//!
//! Owns: which policies a write meets through which bindings, their parameters, and their programs.
//! Called by: the admission chain.
//! Never: decides what a policy's outcome means; `validating` and `mutating` do.

mod faults;
mod mutating;
mod programs;
mod validating;

pub use faults::{faults, webhook_faults};
pub use mutating::{Rounds, mutate};
pub use validating::validate;

use std::sync::Arc;

use minik_api::selector::LabelSelector;
use minik_api::{ResourceId, object};
use minik_cel::policy::Programs;
use serde_json::Value;

use super::expression::Params;
use super::plugin::World;
use super::{Review, rules};

/// A policy that a write meets through a binding.
struct Met {
    policy: Arc<Value>,
    binding: Arc<Value>,
    programs: Arc<Programs>,
}

impl Met {
    fn policy_name(&self) -> &str {
        object::name(&self.policy)
    }
    fn binding_name(&self) -> &str {
        object::name(&self.binding)
    }
    fn is_lenient(&self) -> bool {
        self.policy["spec"]["failurePolicy"] == "Ignore"
    }
    fn takes_params(&self) -> Params {
        if self.policy["spec"]["paramKind"].is_object() { Params::Known } else { Params::None }
    }
}

/// Policies by their name, each with the bindings that apply.
fn met(policies: ResourceId, bindings: ResourceId, review: &Review, world: &World) -> Vec<Met> {
    let bindings = if rules::is_exempt(review) { Vec::new() } else { world.objects.list(bindings, "") };
    if bindings.is_empty() {
        return Vec::new();
    }
    let mut policies = world.objects.list(policies, "");
    policies.sort_by(|a, b| object::name(a).cmp(object::name(b)));
    let mut found = Vec::new();
    for policy in policies {
        let constraints = &policy["spec"]["matchConstraints"];
        if !constraints.is_object() || !matches(constraints, review, world) {
            continue;
        }
        for binding in bindings.iter().filter(|b| b["spec"]["policyName"] == object::name(&policy)) {
            let limits = &binding["spec"]["matchResources"];
            if !limits.is_object() || matches(limits, review, world) {
                let programs = programs::of_policy(&policy);
                found.push(Met { policy: policy.clone(), binding: binding.clone(), programs });
            }
        }
    }
    found
}

/// `MatchResources`: no rule at all means every resource.
fn matches(of: &Value, review: &Review, world: &World) -> bool {
    let list = |field: &str| of[field].as_array().map_or(&[][..], Vec::as_slice);
    let any = |rules: &[Value]| rules.iter().any(|rule| rules::rule_matches(rule, review));
    let included = list("resourceRules");
    (included.is_empty() || any(included))
        && !any(list("excludeResourceRules"))
        && rules::namespace_selected(of, review, world)
        && rules::object_selected(of, review)
}

/// The objects a binding gives the policy as `params`; `None` stands for no parameter at all.
fn params(met: &Met, review: &Review, world: &World) -> Result<Vec<Option<Arc<Value>>>, String> {
    let (kind, reference) = (&met.policy["spec"]["paramKind"], &met.binding["spec"]["paramRef"]);
    if !kind.is_object() || !reference.is_object() {
        return Ok(vec![None]);
    }
    let text = |value: &Value| value.as_str().unwrap_or("").to_string();
    let (api_version, name) = (text(&kind["apiVersion"]), text(&kind["kind"]));
    let own = text(&reference["namespace"]);
    let namespace = if own.is_empty() { review.namespace.clone() } else { own };
    let list = world.objects.list_kind(&api_version, &name, &namespace);
    let list =
        list.ok_or_else(|| format!("failed to find resource referenced by paramKind: '{api_version}, Kind={name}'"))?;
    if list.namespaced && namespace.is_empty() {
        return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
    }
    let wanted = text(&reference["name"]);
    let selector = LabelSelector::from_object(&reference["selector"]).unwrap_or_else(|_| LabelSelector::nothing());
    let fits = |o: &Arc<Value>| {
        if wanted.is_empty() { selector.matches(&o["metadata"]["labels"]) } else { object::name(o) == wanted }
    };
    let found: Vec<Option<Arc<Value>>> = list.objects.into_iter().filter(fits).map(Some).collect();
    if found.is_empty() && reference["parameterNotFoundAction"] == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(found)
}
