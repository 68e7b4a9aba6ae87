//! ValidatingAdmissionPolicy: rules in CEL, without a program to call.
//!
//! Owns: which policies a write meets through which bindings, their parameters and variables, and what is said when
//! a rule fails.
//! Called by: the admission chain, before validating webhooks.
//! Never: changes an object, or type-checks a policy; the policy's controller tells about that in its status.

use std::sync::Arc;

use minik_api::selector::LabelSelector;
use minik_api::status::{Cause, Details};
use minik_api::{Status, object, resources};
use serde_json::Value;

use super::expression::{self, Variables, to_cel};
use super::plugin::World;
use super::webhook::{conditions_hold, variables};
use super::{Review, rules};

/// Upstream's limit on a computed message.
const MESSAGE_BYTES_MAX: usize = 5 << 10;

/// One rule that did not hold, under one binding.
struct Failure {
    policy: String,
    binding: String,
    actions: Value,
    message: String,
    reason: String,
}

pub fn validate(review: &Review, world: &World) -> Result<(), Status> {
    if rules::is_exempt(review) {
        return Ok(());
    }
    let bindings = world.objects.list(resources::VALIDATINGADMISSIONPOLICYBINDINGS, "");
    if bindings.is_empty() {
        return Ok(());
    }
    let mut denied = Vec::new();
    for failure in failures(review, world, &bindings) {
        let acts = |action: &str| failure.actions.as_array().is_some_and(|a| a.iter().any(|v| v == action));
        if acts("Warn") {
            let Failure { policy, binding, message, .. } = &failure;
            let text = format!(
                "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {message}"
            );
            review.warn(text);
        }
        if acts("Deny") {
            denied.push(failure);
        }
    }
    match denied.first() {
        None => Ok(()),
        Some(first) => Err(refusal(review, first, &denied)),
    }
}

fn refusal(review: &Review, first: &Failure, denied: &[Failure]) -> Status {
    let text = |f: &Failure| {
        format!("ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {}", f.policy, f.binding, f.message)
    };
    let mut status = review.forbid(&text(first));
    status.code = match first.reason.as_str() {
        "Unauthorized" => 401,
        "Forbidden" => 403,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    status.reason = if first.reason.is_empty() { "Invalid".into() } else { first.reason.clone() };
    let causes = denied.iter().map(|f| Cause { message: text(f), ..Cause::default() });
    status.details.get_or_insert_with(Details::default).causes.extend(causes);
    status
}

fn failures(review: &Review, world: &World, bindings: &[Arc<Value>]) -> Vec<Failure> {
    let mut policies = world.objects.list(resources::VALIDATINGADMISSIONPOLICIES, "");
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
                let faults = judge(&policy, binding, review, world);
                found.extend(faults.into_iter().map(|(message, reason)| Failure {
                    policy: object::name(&policy).into(),
                    binding: object::name(binding).into(),
                    actions: binding["spec"]["validationActions"].clone(),
                    message,
                    reason,
                }));
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

/// Message and reason of each rule that does not hold.
fn judge(policy: &Value, binding: &Value, review: &Review, world: &World) -> Vec<(String, String)> {
    let spec = &policy["spec"];
    let lenient = spec["failurePolicy"] == "Ignore";
    let fault = |message: String| if lenient { vec![] } else { vec![(message, String::new())] };
    let params = match params(spec, binding, review, world) {
        Ok(params) => params,
        Err(why) => return fault(format!("failed to configure binding: {why}")),
    };
    let namespace = world.objects.get(resources::NAMESPACES, "", &review.namespace);
    let namespace = namespace.map_or(cel::Value::Null, |n| to_cel(&n));
    let base = variables(review, world).with("namespaceObject", namespace);
    let mut found = Vec::new();
    for param in params {
        let known = base.clone().with("params", param.map_or(cel::Value::Null, |p| to_cel(&p)));
        match conditions_hold(spec, &known) {
            Ok(true) => found.extend(evaluate(spec, known, lenient)),
            Ok(false) => {}
            Err(error) => found.extend(fault(error)),
        }
    }
    found
}

fn evaluate(spec: &Value, known: Variables, lenient: bool) -> Vec<(String, String)> {
    let (known, broken) = with_variables(spec, known);
    let mut found = Vec::new();
    for rule in spec["validations"].as_array().into_iter().flatten() {
        let text = rule["expression"].as_str().unwrap_or("");
        match expression::evaluate(text, &known) {
            Ok(cel::Value::Bool(true)) => {}
            Ok(_) => found.push((message(rule, &known), rule["reason"].as_str().unwrap_or("").to_string())),
            Err(_) if lenient => {}
            Err(error) => {
                let error = explain(error, text, &broken);
                found.push((format!("expression '{text}' resulted in error: {error}"), String::new()));
            }
        }
    }
    found
}

/// Name and fault of a variable that could not be computed.
type Broken = (String, String);

/// Each variable may use those before it. One that fails is left out: whoever uses it fails, nobody else does.
fn with_variables(spec: &Value, mut known: Variables) -> (Variables, Vec<Broken>) {
    let mut values: Vec<(String, cel::Value)> = Vec::new();
    let mut broken = Vec::new();
    known = known.with("variables", expression::map_of(values.clone()));
    for variable in spec["variables"].as_array().into_iter().flatten() {
        let (name, text) = (variable["name"].as_str().unwrap_or(""), variable["expression"].as_str().unwrap_or(""));
        match expression::evaluate(text, &known) {
            Ok(value) => {
                values.push((name.into(), value));
                known = known.with("variables", expression::map_of(values.clone()));
            }
            Err(error) => broken.push((name.into(), explain(error, text, &broken))),
        }
    }
    (known, broken)
}

/// An expression that misses a variable is told what is wrong with the variable.
fn explain(error: String, text: &str, broken: &[Broken]) -> String {
    let missed = error.strip_prefix("no such key: ");
    match broken.iter().find(|(name, _)| missed == Some(name) && text.contains(&format!("variables.{name}"))) {
        Some((name, fault)) => format!("composited variable {name:?} fails to evaluate: {fault}"),
        None => error,
    }
}

fn message(rule: &Value, known: &Variables) -> String {
    if let Some(text) = rule["messageExpression"].as_str()
        && let Ok(cel::Value::String(computed)) = expression::evaluate(text, known)
    {
        let computed = computed.trim();
        if !computed.is_empty() && computed.len() <= MESSAGE_BYTES_MAX && !computed.contains('\n') {
            return computed.to_string();
        }
    }
    match rule["message"].as_str().map(str::trim).filter(|m| !m.is_empty()) {
        Some(message) => message.to_string(),
        None => format!("failed expression: {}", rule["expression"].as_str().unwrap_or("").trim()),
    }
}

/// The objects a binding gives the policy as `params`; `None` stands for no parameter at all.
fn params(spec: &Value, binding: &Value, review: &Review, world: &World) -> Result<Vec<Option<Arc<Value>>>, String> {
    let (kind, reference) = (&spec["paramKind"], &binding["spec"]["paramRef"]);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Operation;
    use super::super::fixture::{review, world};
    use super::*;

    fn policy(extra: Value) -> Value {
        let mut spec = json!({"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [
            {"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]},
            "validations": [{"expression": "object.spec.replicas <= 5"}]});
        for (key, value) in extra.as_object().expect("fields") {
            spec[key.as_str()] = value.clone();
        }
        json!({"kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"}, "spec": spec})
    }

    fn binding(extra: Value) -> Value {
        let mut spec = json!({"policyName": "p", "validationActions": ["Deny"]});
        for (key, value) in extra.as_object().expect("fields") {
            spec[key.as_str()] = value.clone();
        }
        json!({"kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "b"}, "spec": spec})
    }

    fn check(policy: Value, binding: Value, replicas: i64) -> Result<Vec<String>, (u16, String)> {
        let world = world(vec![
            policy,
            binding,
            json!({"kind": "Namespace", "metadata": {"name": "a", "labels": {"env": "test"}}}),
            json!({"kind": "ConfigMap", "metadata": {"name": "limits", "namespace": "a"}, "data": {"max": "3"}}),
        ]);
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "a"},
            "spec": {"replicas": replicas}});
        let review = review(Operation::Create, deployment);
        validate(&review, &world).map_err(|s| (s.code, s.message))?;
        Ok(review.warnings.into_inner())
    }

    fn denied(message: &str) -> String {
        format!(
            r#"deployments.apps "web" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: {message}"#
        )
    }

    #[test]
    fn a_rule_that_does_not_hold_refuses() {
        assert_eq!(check(policy(json!({})), binding(json!({})), 5), Ok(vec![]));
        assert_eq!(
            check(policy(json!({})), binding(json!({})), 6),
            Err((422, denied("failed expression: object.spec.replicas <= 5")))
        );
        let said = json!({"validations": [{"expression": "object.spec.replicas <= 5", "reason": "Forbidden",
            "messageExpression": "'at most 5, not ' + string(object.spec.replicas)"}]});
        assert_eq!(check(policy(said), binding(json!({})), 6), Err((403, denied("at most 5, not 6"))));
    }

    #[test]
    fn a_binding_may_warn_instead_and_limit_where() {
        assert_eq!(
            check(policy(json!({})), binding(json!({"validationActions": ["Warn"]})), 6),
            Ok(vec!["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': failed expression: object.spec.replicas <= 5".into()])
        );
        let elsewhere = json!({"matchResources": {"namespaceSelector": {"matchLabels": {"env": "prod"}}}});
        assert_eq!(check(policy(json!({})), binding(elsewhere), 6), Ok(vec![]));
    }

    #[test]
    fn parameters_and_variables_are_known_to_rules() {
        let with_params = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "variables": [{"name": "max", "expression": "int(params.data.max)"}, {"name": "twice", "expression": "variables.max * 2"}],
            "validations": [{"expression": "object.spec.replicas <= variables.twice", "message": "too many"}]});
        let reference = |name: &str| binding(json!({"paramRef": {"name": name, "parameterNotFoundAction": "Deny"}}));
        assert_eq!(check(policy(with_params.clone()), reference("limits"), 6), Ok(vec![]));
        assert_eq!(check(policy(with_params.clone()), reference("limits"), 7), Err((422, denied("too many"))));
        assert_eq!(
            check(policy(with_params), reference("gone"), 1),
            Err((
                422,
                denied(
                    "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
                )
            ))
        );
    }

    #[test]
    fn a_broken_rule_fails_as_the_policy_says() {
        let broken = json!({"validations": [{"expression": "object.spec.gone == 1"}]});
        assert_eq!(
            check(policy(broken.clone()), binding(json!({})), 1),
            Err((422, denied("expression 'object.spec.gone == 1' resulted in error: no such key: gone")))
        );
        let variable = json!({"variables": [{"name": "bad", "expression": "object.spec.gone"}],
            "validations": [{"expression": "variables.bad == 1"}]});
        assert_eq!(
            check(policy(variable), binding(json!({})), 1),
            Err((
                422,
                denied(
                    "expression 'variables.bad == 1' resulted in error: composited variable \"bad\" fails to evaluate: no such key: gone"
                )
            ))
        );
        let mut lenient = broken;
        lenient["failurePolicy"] = "Ignore".into();
        assert_eq!(check(policy(lenient), binding(json!({})), 1), Ok(vec![]));
    }

    #[test]
    fn a_rule_may_ask_what_the_writer_may_do() {
        let asks = |expression: &str| policy(json!({"validations": [{"expression": expression, "message": "no"}]}));
        let allowed = "authorizer.group('apps').resource('deployments').namespace('a').check('scale').allowed()";
        assert_eq!(check(asks(allowed), binding(json!({})), 1), Ok(vec![]));
        let own = "authorizer.requestResource.check('x').allowed() && authorizer.path('/x').check('get').allowed()";
        assert_eq!(check(asks(own), binding(json!({})), 1), Ok(vec![]));
        let reason = "authorizer.group('').resource('pods').check('get').reason() != ''";
        assert_eq!(check(asks(reason), binding(json!({})), 1), Err((422, denied("no"))));
    }

    #[test]
    fn conditions_and_the_namespace_narrow_a_policy() {
        let narrowed = json!({"matchConditions": [{"name": "n", "expression": "request.operation == 'DELETE'"}]});
        assert_eq!(check(policy(narrowed), binding(json!({})), 6), Ok(vec![]));
        let by_namespace = json!({"validations": [{"expression": "namespaceObject.metadata.labels.env == 'test'"}]});
        assert_eq!(check(policy(by_namespace), binding(json!({})), 6), Ok(vec![]));
    }
}
