//! ValidatingAdmissionPolicy: rules in CEL, without a program to call.
//!
//! Owns: evaluating a policy's rules and audit annotations, and what is said when a rule fails.
//! Called by: the admission chain, before validating webhooks.
//! Never: changes an object.

use minik_api::status::{Cause, Details};
use minik_api::{Status, resources};
use minik_cel::policy::Programs;
use minik_cel::{Scope, Value as Cel};
use serde_json::{Value, json};

use super::super::Review;
use super::super::expression::{Budget, Compiled, Facts, POLICY_COST_MAX, conditions_hold};
use super::super::plugin::World;
use super::{Met, met, params};

/// Upstream's limits on a computed message and on an audit annotation.
const MESSAGE_BYTES_MAX: usize = 5 << 10;
const ANNOTATION_BYTES_MAX: usize = 10 << 10;

/// Where failures are told to the audit log.
const FAILURE_ANNOTATION: &str = "validation.policy.admission.k8s.io/validation_failure";

/// One rule that did not hold, under one binding.
struct Failure {
    policy: String,
    binding: String,
    actions: Value,
    /// Place of the rule in the policy; none for what concerns the policy as a whole.
    index: Option<usize>,
    message: String,
    reason: String,
}

impl Failure {
    fn acts(&self, action: &str) -> bool {
        self.actions.as_array().is_some_and(|actions| actions.iter().any(|known| known == action))
    }
}

pub fn validate(review: &Review, world: &World) -> Result<(), Status> {
    let met = met(resources::VALIDATINGADMISSIONPOLICIES, resources::VALIDATINGADMISSIONPOLICYBINDINGS, review, world);
    if met.is_empty() {
        return Ok(());
    }
    let facts = Facts::of(review, world);
    let mut judged = Judged { review, failures: Vec::new(), annotations: Vec::new() };
    for met in &met {
        judge(met, &facts, world, &mut judged);
    }
    let Judged { failures, annotations, .. } = judged;
    annotate(review, &failures, annotations);
    for failure in failures.iter().filter(|failure| failure.acts("Warn")) {
        let Failure { policy, binding, message, .. } = failure;
        review.warn(format!(
            "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {message}"
        ));
    }
    let denied: Vec<&Failure> = failures.iter().filter(|failure| failure.acts("Deny")).collect();
    match denied.first() {
        None => Ok(()),
        Some(first) => Err(refusal(review, first, &denied)),
    }
}

fn refusal(review: &Review, first: &Failure, denied: &[&Failure]) -> Status {
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

/// Tells the audit log what failed under bindings with the action `Audit`, and what policies annotate.
fn annotate(review: &Review, failures: &[Failure], annotations: Vec<(String, String)>) {
    let audited: Vec<Value> = failures
        .iter()
        .filter(|failure| failure.acts("Audit"))
        .map(|f| {
            json!({"message": f.message, "policy": f.policy, "binding": f.binding,
                "expressionIndex": f.index.unwrap_or(0), "validationActions": f.actions})
        })
        .collect();
    if !audited.is_empty() {
        review.annotate(FAILURE_ANNOTATION, Value::Array(audited).to_string());
    }
    let mut keys: Vec<&String> = annotations.iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let values: Vec<&str> = annotations.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).collect();
        review.annotate(key, values.join(", "));
    }
}

/// What came of all policies.
struct Judged<'r> {
    review: &'r Review,
    failures: Vec<Failure>,
    annotations: Vec<(String, String)>,
}

impl Judged<'_> {
    fn fail(&mut self, met: &Met, index: Option<usize>, message: String, reason: &str) {
        self.failures.push(Failure {
            policy: met.policy_name().into(),
            binding: met.binding_name().into(),
            actions: met.binding["spec"]["validationActions"].clone(),
            index,
            message,
            reason: reason.into(),
        });
    }

    /// A fault of the policy itself, which counts unless the policy says otherwise. Upstream refuses for it whatever
    /// the binding's actions are.
    fn fault(&mut self, met: &Met, message: String) {
        if !met.is_lenient() {
            self.fail(met, None, message, "");
            if let Some(failure) = self.failures.last_mut() {
                failure.actions = json!(["Deny"]);
            }
        }
    }
}

fn judge(met: &Met, facts: &Facts<'_>, world: &World, judged: &mut Judged<'_>) {
    let given = match params(met, judged.review, world) {
        Ok(given) => given,
        Err(why) => return judged.fault(met, format!("failed to configure binding: {why}")),
    };
    for param in given {
        let scope = facts.scope(&judged.review.object, param.as_deref());
        match conditions_hold(&met.policy["spec"], met.takes_params(), &scope) {
            Ok(true) => evaluate(met, scope.with_composed(&met.programs.variables), judged),
            Ok(false) => {}
            Err(error) => judged.fault(met, error),
        }
    }
}

fn evaluate(met: &Met, scope: Scope<'_>, judged: &mut Judged<'_>) {
    let (spec, programs) = (&met.policy["spec"], met.programs.as_ref());
    let mut budget = Budget::new(POLICY_COST_MAX);
    for (index, rule) in spec["validations"].as_array().into_iter().flatten().enumerate() {
        let text = rule["expression"].as_str().unwrap_or("");
        match run(programs, &programs.validations[index], text, &scope, &mut budget) {
            Ok(Cel::Bool(true)) => {}
            Ok(_) => {
                let message = message(rule, programs.messages[index].as_ref(), &scope, &mut budget);
                judged.fail(met, Some(index), message, rule["reason"].as_str().unwrap_or(""));
            }
            Err(_) if met.is_lenient() => {}
            Err(error) => {
                judged.fail(met, Some(index), format!("expression '{text}' resulted in error: {error}"), "");
            }
        }
    }
    for (index, annotation) in spec["auditAnnotations"].as_array().into_iter().flatten().enumerate() {
        let text = annotation["valueExpression"].as_str().unwrap_or("");
        match run(programs, &programs.annotations[index], text, &scope, &mut budget) {
            Ok(Cel::String(value)) if !value.trim().is_empty() => {
                let key = format!("{}/{}", met.policy_name(), annotation["key"].as_str().unwrap_or(""));
                let end = value.len().min(ANNOTATION_BYTES_MAX);
                let cut = (0..=end).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
                judged.annotations.push((key, value[..cut].to_string()));
            }
            Ok(_) => {}
            Err(error) => {
                judged.fault(met, format!("valueExpression '{text}' resulted in error: {error}"));
            }
        }
    }
}

fn run<'a>(
    programs: &Programs,
    compiled: &Compiled,
    text: &str,
    scope: &Scope<'a>,
    budget: &mut Budget,
) -> Result<Cel<'a>, String> {
    match compiled {
        Ok(program) => budget.evaluate(program, scope).map_err(|failure| failure.to_string()),
        Err(error) => {
            // An expression that uses a variable which is no program is told what is wrong with the variable.
            let uses = |(name, _): &&(String, String)| text.contains(&format!("variables.{name}"));
            Err(match programs.broken.iter().find(uses) {
                Some((name, fault)) => format!("composited variable {name:?} fails to compile: {fault}"),
                None => format!("compilation error: {error}"),
            })
        }
    }
}

fn message(rule: &Value, computed: Option<&Compiled>, scope: &Scope<'_>, budget: &mut Budget) -> String {
    if let Some(Ok(program)) = computed
        && let Ok(Cel::String(computed)) = budget.evaluate(program, scope)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::Operation;
    use super::super::super::fixture::{review, world};
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
