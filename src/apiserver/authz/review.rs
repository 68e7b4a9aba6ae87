//! The reviews that ask what somebody may do.
//!
//! Owns: SubjectAccessReview, LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview.
//! Called by: the pipeline for a create of these kinds; nothing is stored.
//! Never: answers differently from the authorization of a request.

use std::collections::BTreeMap;

use minik_api::selector::{FieldOperator, FieldRequirement, FieldSelector, LabelSelector, Requirement};
use minik_api::{FieldError, Status};
use serde_json::{Value, json};

use super::{Attributes, Authorizer, ResourceTarget, Target};
use crate::authn::UserInfo;

const GROUP: &str = "authorization.k8s.io";

/// Answers a review of `resource` (`subjectaccessreviews`, ...) that `user` has posted.
pub fn create(
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    resource: &str,
    namespace: &str,
    mut review: Value,
) -> Result<Value, Status> {
    if resource == "selfsubjectrulesreviews" {
        return rules_review(authorizer, user, review);
    }
    let asks_for_another = resource != "selfsubjectaccessreviews";
    let mut errors = check_spec(&review["spec"], asks_for_another);
    if resource == "localsubjectaccessreviews" {
        check_local(&review, namespace, &mut errors);
    }
    if !errors.is_empty() {
        // Upstream names no kind here.
        return Err(Status::invalid(GROUP, "", "", &errors));
    }
    let subject = if asks_for_another { subject(&review["spec"]) } else { user.clone() };
    review["status"] = decide(authorizer, &subject, &review["spec"]);
    Ok(review)
}

fn check_spec(spec: &Value, asks_for_another: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (resource, path) = (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object());
    if resource == path {
        let value = if path { go_path(&spec["nonResourceAttributes"]) } else { Value::Null };
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(FieldError::invalid("spec", &value, detail));
    }
    let empty = |key: &str| spec[key].as_str().unwrap_or("").is_empty();
    if asks_for_another && empty("user") && spec["groups"].as_array().is_none_or(Vec::is_empty) {
        errors.push(FieldError::invalid("spec.user", &json!(""), "at least one of user or group must be specified"));
    }
    errors
}

fn check_local(review: &Value, namespace: &str, errors: &mut Vec<FieldError>) {
    let attributes = &review["spec"]["resourceAttributes"];
    if attributes.is_object() && attributes["namespace"].as_str().unwrap_or("") != namespace {
        let path = "spec.resourceAttributes.namespace";
        errors.push(FieldError::invalid(
            path,
            &json!(attributes["namespace"].as_str().unwrap_or("")),
            "must match metadata.namespace",
        ));
    }
    let path = &review["spec"]["nonResourceAttributes"];
    if path.is_object() {
        errors.push(FieldError::invalid(
            "spec.nonResourceAttributes",
            &go_path(path),
            "disallowed on this kind of request",
        ));
    }
}

/// Messages show the internal struct's field names.
fn go_path(attributes: &Value) -> Value {
    json!({"Path": attributes["path"].as_str().unwrap_or(""), "Verb": attributes["verb"].as_str().unwrap_or("")})
}

fn subject(spec: &Value) -> UserInfo {
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
    };
    let extra: BTreeMap<String, Vec<String>> =
        spec["extra"].as_object().into_iter().flatten().map(|(k, v)| (k.to_lowercase(), texts(v))).collect();
    UserInfo {
        name: spec["user"].as_str().unwrap_or("").into(),
        uid: spec["uid"].as_str().unwrap_or("").into(),
        groups: texts(&spec["groups"]),
        extra,
    }
}

fn decide(authorizer: &dyn Authorizer, subject: &UserInfo, spec: &Value) -> Value {
    let attributes = &spec["resourceAttributes"];
    let text = |key: &str| attributes[key].as_str().unwrap_or("");
    let (fields, labels) = (fields(&attributes["fieldSelector"]), labels(&attributes["labelSelector"]));
    let path = &spec["nonResourceAttributes"];
    let (verb, target) = if attributes.is_object() {
        let target = ResourceTarget {
            group: text("group"),
            version: text("version"),
            resource: text("resource"),
            subresource: text("subresource"),
            namespace: text("namespace"),
            name: text("name"),
            fields: &fields,
            labels: &labels,
        };
        (text("verb"), Target::Resource(target))
    } else {
        (path["verb"].as_str().unwrap_or(""), Target::Path(path["path"].as_str().unwrap_or("")))
    };
    let decision = authorizer.authorize(&Attributes { user: subject, verb, target });
    let mut status = json!({"allowed": decision.is_allowed()});
    if let super::Decision::Deny(_) = decision {
        status["denied"] = true.into();
    }
    if !decision.reason().is_empty() {
        status["reason"] = decision.reason().into();
    }
    status
}

fn fields(selector: &Value) -> Vec<FieldRequirement> {
    if let Some(raw) = selector["rawSelector"].as_str() {
        return FieldSelector::parse(raw).map(|s| s.requirements().to_vec()).unwrap_or_default();
    }
    let requirements = selector["requirements"].as_array().into_iter().flatten();
    requirements
        .filter_map(|r| {
            let operator = match r["operator"].as_str()? {
                "In" => FieldOperator::Equals,
                "NotIn" => FieldOperator::NotEquals,
                _ => return None,
            };
            let [value] = r["values"].as_array()?.as_slice() else { return None };
            Some(FieldRequirement { path: r["key"].as_str()?.into(), operator, value: value.as_str()?.into() })
        })
        .collect()
}

fn labels(selector: &Value) -> Vec<Requirement> {
    if let Some(raw) = selector["rawSelector"].as_str() {
        return LabelSelector::parse(raw).map(|s| s.requirements().to_vec()).unwrap_or_default();
    }
    let object = json!({"matchExpressions": selector["requirements"]});
    LabelSelector::from_object(&object).map(|s| s.requirements().to_vec()).unwrap_or_default()
}

fn rules_review(authorizer: &dyn Authorizer, user: &UserInfo, mut review: Value) -> Result<Value, Status> {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or("").to_string();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let rules = authorizer.rules(user, &namespace);
    // The answer repeats nothing of the question.
    review["metadata"] = json!({});
    review["spec"] = json!({});
    review["status"] = json!({
        "resourceRules": rules.resource_rules, "nonResourceRules": rules.non_resource_rules,
        "incomplete": !rules.incomplete.is_empty(),
    });
    if !rules.incomplete.is_empty() {
        review["status"]["evaluationError"] = rules.incomplete.into();
    }
    Ok(review)
}

#[cfg(test)]
mod tests {
    use super::super::AlwaysAllow;
    use super::*;

    fn check(resource: &str, spec: Value) -> Result<Value, String> {
        let user = UserInfo::new("jane", &[]);
        let review = json!({"kind": "x", "metadata": {}, "spec": spec});
        create(&AlwaysAllow, &user, resource, "default", review).map(|r| r["status"].clone()).map_err(|s| s.message)
    }

    #[test]
    fn a_review_without_exactly_one_question_is_invalid() {
        assert_eq!(
            check("subjectaccessreviews", json!({})),
            Err(".authorization.k8s.io \"\" is invalid: [spec: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified, spec.user: Invalid value: \"\": at least one of user or group must be specified]".into())
        );
        assert_eq!(
            check("localsubjectaccessreviews", json!({"user": "u", "resourceAttributes": {"namespace": "x"}})),
            Err(".authorization.k8s.io \"\" is invalid: spec.resourceAttributes.namespace: Invalid value: \"x\": must match metadata.namespace".into())
        );
        assert_eq!(
            check("localsubjectaccessreviews", json!({"user": "u", "nonResourceAttributes": {"path": "/x", "verb": "get"}})),
            Err(".authorization.k8s.io \"\" is invalid: spec.nonResourceAttributes: Invalid value: {\"Path\":\"/x\",\"Verb\":\"get\"}: disallowed on this kind of request".into())
        );
    }

    #[test]
    fn an_answer_says_allowed_and_no_more_than_it_knows() {
        let spec =
            json!({"user": "u", "resourceAttributes": {"verb": "get", "resource": "nodes", "subresource": "stats"}});
        assert_eq!(check("subjectaccessreviews", spec), Ok(json!({"allowed": true})));
        assert_eq!(check("selfsubjectrulesreviews", json!({})), Err("no namespace on request".into()));
    }
}
