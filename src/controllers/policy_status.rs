//! ValidatingAdmissionPolicy: its status tells what does not fit the types that the policy is about.
//!
//! Owns: `status.observedGeneration` and `status.typeChecking`, which is there once a generation is checked; which kinds
//! a policy is about.
//! Called by: the driver.
//! Never: keeps a policy from being evaluated; these are warnings.

use std::collections::BTreeMap;

use jiff::Timestamp;
use minik_api::resources::VALIDATINGADMISSIONPOLICIES;
use minik_api::{ObjectKey, ResourceId, object};
use minik_cel::Type;
use minik_cel::openapi::Document;
use minik_cel::policy::{Types, warnings};
use minik_client::{Action, Answer, Change, Patch, Plan, Question, Reconciler, View};
use serde_json::{Value, json};

use crate::fields::int;

const MANAGER: &str = "validatingadmissionpolicy-status";
/// Upstream checks against no more kinds than this.
const KINDS_MAX: usize = 10;

pub(crate) struct PolicyStatus;

impl Reconciler for PolicyStatus {
    fn name(&self) -> &'static str {
        MANAGER
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[VALIDATINGADMISSIONPOLICIES]
    }
    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        vec![change.key.clone()]
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some(policy) = view.get_key(VALIDATINGADMISSIONPOLICIES, key) else { return Plan::nothing() };
        if object::generation(policy) <= int(&policy["status"]["observedGeneration"], 0) {
            return Plan::nothing();
        }
        let (policy, key) = (Value::clone(policy), key.clone());
        let mut versions: Vec<GroupVersion> = targets(&policy).into_iter().map(|(version, _)| version).collect();
        versions.extend(param_version(&policy));
        versions.sort();
        versions.dedup();
        let path = |(group, version): &GroupVersion| Question::Get { path: Document::path(group, version) };
        Plan::asking(versions.iter().map(path).collect(), move |answers, _| {
            checked(&policy, key, &versions.into_iter().zip(answers).collect())
        })
    }
}

/// Group and version.
type GroupVersion = (String, String);

/// The resources that the policy's rules name without wildcards.
fn targets(policy: &Value) -> Vec<(GroupVersion, String)> {
    let mut found = Vec::new();
    let rules = policy["spec"]["matchConstraints"]["resourceRules"].as_array();
    for rule in rules.into_iter().flatten() {
        let texts = |field: &str| -> Vec<&str> {
            let mut texts: Vec<&str> = rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            texts.sort_unstable();
            texts
        };
        let (groups, versions) = (texts("apiGroups"), texts("apiVersions"));
        if groups.iter().chain(&versions).any(|name| name.contains('*')) {
            continue;
        }
        for group in &groups {
            for version in &versions {
                // What subresources take is of another kind.
                for resource in texts("resources").into_iter().filter(|r| !r.contains(['*', '/'])) {
                    found.push(((group.to_string(), version.to_string()), resource.to_string()));
                }
            }
        }
    }
    found
}

fn param_version(policy: &Value) -> Option<GroupVersion> {
    let version = policy["spec"]["paramKind"]["apiVersion"].as_str()?;
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    Some((group.into(), version.into()))
}

/// `documents` are the OpenAPI documents of the group versions; nothing is known of those that are not there.
fn checked(policy: &Value, key: ObjectKey, documents: &BTreeMap<GroupVersion, Answer>) -> Plan {
    let document = |of: &GroupVersion| {
        let ((group, version), answer) = documents.get_key_value(of)?;
        Some(Document::of(answer.as_ref().ok()?, group, version))
    };
    let kind = policy["spec"]["paramKind"]["kind"].as_str().unwrap_or("");
    let params = param_version(policy).and_then(|version| document(&version)?.type_of(kind)).unwrap_or(Type::Dyn);
    let mut types = BTreeMap::new();
    for (of, resource) in targets(policy) {
        let Some(document) = document(&of).filter(|_| types.len() < KINDS_MAX) else { continue };
        let Some(kind) = document.kind_of(&resource) else { continue };
        let (group, version) = of;
        if let Some(object) = document.type_of(kind) {
            types.insert((group, version, kind.to_string()), Types { object, params: params.clone() });
        }
    }
    let named = |((group, version, kind), types): ((String, String, String), Types)| {
        let version = if group.is_empty() { version } else { format!("{group}/{version}") };
        (format!("{version}, Kind={kind}"), types)
    };
    let warnings = warnings(policy, &types.into_iter().map(named).collect::<Vec<_>>());
    let mut checking = json!({});
    if !warnings.is_empty() {
        checking["expressionWarnings"] = warnings.into();
    }
    let body = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": key.name, "uid": object::uid(policy)},
        "status": {"observedGeneration": object::generation(policy), "typeChecking": checking},
    });
    let patch = Patch::Apply { manager: MANAGER.into(), force: true, body };
    Plan::of(vec![Action::Patch { resource: VALIDATINGADMISSIONPOLICIES, key, sub: "status", patch }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(observed: i64) -> Value {
        let rule =
            json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments", "deployments/scale"]});
        let any = json!({"apiGroups": ["*"], "apiVersions": ["v1"], "resources": ["pods"]});
        json!({"metadata": {"name": "p", "uid": "u", "generation": 2}, "status": {"observedGeneration": observed},
            "spec": {"matchConstraints": {"resourceRules": [rule, any]}, "validations": [{"expression": "object.n > 1"}]}})
    }

    fn plan(observed: i64) -> Plan {
        let view = View::of([(VALIDATINGADMISSIONPOLICIES, policy(observed))]);
        PolicyStatus.plan(&view, &ObjectKey::new("", "p"), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn each_generation_is_looked_at_once() {
        assert!(plan(2).ask.is_none());
        let ask = plan(1).ask.expect("the types are asked for");
        assert_eq!(ask.questions, [Question::Get { path: "/openapi/v3/apis/apps/v1".into() }]);
    }

    #[test]
    fn what_does_not_fit_is_told_and_what_nobody_describes_fits() {
        let told = |answer: Value| {
            let ask = plan(1).ask.expect("the types are asked for");
            (ask.then)(vec![Ok(answer)], Timestamp::UNIX_EPOCH).to_string()
        };
        assert!(
            told(json!({})).contains(r#""status":{"observedGeneration":2,"typeChecking":{}}"#),
            "{}",
            told(json!({}))
        );
        let kind = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
        let document = json!({
            "paths": {"/apis/apps/v1/deployments": {"get": {"x-kubernetes-group-version-kind": kind}}},
            "components": {"schemas": {"D": {"type": "object", "x-kubernetes-group-version-kind": [kind],
                "properties": {"n": {"type": "string"}}}}},
        });
        let warned = told(document);
        assert!(warned.contains("spec.validations[0].expression"), "{warned}");
        assert!(
            warned.contains("apps/v1, Kind=Deployment: ERROR: <input>:1:10: found no matching overload"),
            "{warned}"
        );
    }
}
