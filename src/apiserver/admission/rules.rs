//! Which writes a webhook or a policy is about.
//!
//! Owns: rules with operations and resources, the selectors for namespaces and objects, and what is never matched.
//! Called by: webhooks and admission policies.
//! Never: evaluates an expression.

use minik_api::resources;
use minik_api::selector::LabelSelector;
use serde_json::Value;

use super::plugin::World;
use super::{Operation, Review};

/// Objects that configure admission itself are never judged by it, or nobody could mend a broken configuration.
pub fn is_exempt(review: &Review) -> bool {
    review.group == "admissionregistration.k8s.io"
        && matches!(
            review.resource.as_str(),
            "validatingwebhookconfigurations"
                | "mutatingwebhookconfigurations"
                | "validatingadmissionpolicies"
                | "validatingadmissionpolicybindings"
                | "mutatingadmissionpolicies"
                | "mutatingadmissionpolicybindings"
        )
}

fn items(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// One `RuleWithOperations`, with `resourceNames` where the rule has them.
pub fn rule_matches(rule: &Value, review: &Review) -> bool {
    let has = |list: &Value, wanted: &str| items(list).any(|v| v == "*" || v == wanted);
    let resource = items(&rule["resources"]).any(|pattern| {
        let (resource, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
        (resource == "*" || resource == review.resource) && (subresource == "*" || subresource == review.subresource)
    });
    let is_namespace = review.group.is_empty() && review.resource == "namespaces";
    let scope = match rule["scope"].as_str() {
        Some("Namespaced") => !is_namespace && !review.namespace.is_empty(),
        Some("Cluster") => is_namespace || review.namespace.is_empty(),
        _ => true,
    };
    let names = rule["resourceNames"].as_array().map_or(&[][..], Vec::as_slice);
    has(&rule["operations"], review.operation.as_str())
        && has(&rule["apiGroups"], &review.group)
        && has(&rule["apiVersions"], &review.version)
        && resource
        && scope
        && (names.is_empty() || names.iter().any(|n| *n == *review.name))
}

/// `namespaceSelector` of `of`: about the namespace of the object, or the object itself when it is one.
pub fn namespace_selected(of: &Value, review: &Review, world: &World) -> bool {
    let selector = &of["namespaceSelector"];
    if selector.as_object().is_none_or(serde_json::Map::is_empty) {
        return true;
    }
    let Ok(selector) = LabelSelector::from_object(selector) else { return false };
    if review.group.is_empty() && review.resource == "namespaces" {
        let object = if review.operation == Operation::Delete { review.old.as_ref() } else { &review.object };
        return selector.matches(&object["metadata"]["labels"]);
    }
    if review.namespace.is_empty() {
        return true;
    }
    let namespace = world.objects.get(resources::NAMESPACES, "", &review.namespace);
    namespace.is_some_and(|namespace| selector.matches(&namespace["metadata"]["labels"]))
}

/// `objectSelector` of `of`: either the new or the old object is enough.
pub fn object_selected(of: &Value, review: &Review) -> bool {
    let selector = &of["objectSelector"];
    if selector.as_object().is_none_or(serde_json::Map::is_empty) {
        return true;
    }
    let Ok(selector) = LabelSelector::from_object(selector) else { return false };
    [&review.object, review.old.as_ref()]
        .iter()
        .any(|object| object["metadata"].is_object() && selector.matches(&object["metadata"]["labels"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{review, world};
    use super::*;

    fn rule(resources: &[&str], scope: &str) -> Value {
        json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": resources, "scope": scope})
    }

    #[test]
    fn a_rule_says_what_it_is_about() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}});
        let mut write = review(Operation::Create, pod);
        assert!(rule_matches(&rule(&["pods"], "*"), &write));
        assert!(rule_matches(&rule(&["*"], "Namespaced"), &write));
        assert!(!rule_matches(&rule(&["*"], "Cluster"), &write));
        assert!(!rule_matches(&rule(&["services"], "*"), &write));
        write.subresource = "status".into();
        assert!(!rule_matches(&rule(&["pods", "*"], "*"), &write));
        assert!(rule_matches(&rule(&["pods/*"], "*"), &write) && rule_matches(&rule(&["*/status"], "*"), &write));
        write.operation = Operation::Delete;
        assert!(!rule_matches(&rule(&["*/*"], "*"), &write));
    }

    #[test]
    fn selectors_look_at_the_namespace_and_at_both_objects() {
        let world = world(vec![json!({"kind": "Namespace", "metadata": {"name": "a", "labels": {"team": "x"}}})]);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a", "labels": {"app": "web"}}});
        let write = review(Operation::Create, pod);
        let of = |team: &str, app: &str| json!({"namespaceSelector": {"matchLabels": {"team": team}}, "objectSelector": {"matchLabels": {"app": app}}});
        assert!(namespace_selected(&of("x", ""), &write, &world));
        assert!(!namespace_selected(&of("y", ""), &write, &world));
        assert!(object_selected(&of("", "web"), &write));
        assert!(!object_selected(&of("", "db"), &write));
        assert!(namespace_selected(&json!({}), &write, &world) && object_selected(&json!({}), &write));
    }
}
