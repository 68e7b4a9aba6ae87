//! Rules of roles and bindings.
//!
//! Owns: the four RBAC kinds.
//! Called by: `validation`.
//! Never: checks for escalation, which needs the caller's own rights.

use serde_json::{Value, json};

use super::check::{At, Errors};
use crate::names;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn create(kind: &str, object: &At<'_>, errors: &mut Errors) {
    match kind {
        "Role" => rules(object, true, errors),
        "ClusterRole" => {
            rules(object, false, errors);
            aggregation(&object.get("aggregationRule"), errors);
        }
        "RoleBinding" => binding(object, &["Role", "ClusterRole"], true, errors),
        "ClusterRoleBinding" => binding(object, &["ClusterRole"], false, errors),
        _ => {}
    }
}

pub fn update(kind: &str, object: &At<'_>, old: &Value, errors: &mut Errors) {
    create(kind, object, errors);
    if kind.ends_with("Binding") {
        let role = object.get("roleRef");
        if role.value != &old["roleRef"] {
            // Declared upstream, on a type whose fields have no other names than Go's.
            let said = |field: &str| json!(role.get(field).text());
            let shown =
                format!(r#"{{"APIGroup":{},"Kind":{},"Name":{}}}"#, said("apiGroup"), said("kind"), said("name"));
            errors.immutable_by_declaration(&role, shown);
        }
    }
}

fn rules(object: &At<'_>, namespaced: bool, errors: &mut Errors) {
    for rule in object.get("rules").items() {
        if rule.get("verbs").len() == 0 {
            errors.required_by_declaration(&rule.get("verbs"));
        }
        let urls = rule.get("nonResourceURLs");
        let (groups, resources) = (rule.get("apiGroups"), rule.get("resources"));
        if urls.len() > 0 {
            if namespaced {
                errors.invalid(&urls, "namespaced rules cannot apply to non-resource URLs");
            }
            if groups.len() + resources.len() + rule.get("resourceNames").len() > 0 {
                errors.invalid(&urls, "rules cannot apply to both regular resources and non-resource URLs");
            }
            continue;
        }
        if groups.len() == 0 {
            errors.required(&groups, "resource rules must supply at least one api group");
        }
        if resources.len() == 0 {
            errors.required(&resources, "resource rules must supply at least one resource");
        }
    }
}

fn aggregation(at: &At<'_>, errors: &mut Errors) {
    if at.is_null() {
        return;
    }
    let selectors = at.get("clusterRoleSelectors");
    if selectors.len() == 0 {
        errors.required(&selectors, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for selector in selectors.items() {
        let before = errors.0.len();
        errors.label_selector(&selector);
        if errors.0.len() > before {
            errors.invalid(&selector.showing(&Value::Null), "invalid label selector.");
        }
    }
}

fn binding(object: &At<'_>, kinds: &[&str], namespaced: bool, errors: &mut Errors) {
    let role = object.get("roleRef");
    if role.get("apiGroup").text() != GROUP {
        errors.not_supported(&role.get("apiGroup"), &[GROUP]);
    }
    if !kinds.contains(&role.get("kind").text()) {
        errors.not_supported(&role.get("kind"), kinds);
    }
    let name = role.get("name");
    if name.text().is_empty() {
        errors.required_by_declaration(&name);
    } else {
        errors.faults(&name, names::path_segment(name.text()));
    }
    for subject in object.get("subjects").items() {
        one_subject(&subject, namespaced, errors);
    }
}

fn one_subject(subject: &At<'_>, namespaced: bool, errors: &mut Errors) {
    let (name, group) = (subject.get("name"), subject.get("apiGroup"));
    if name.text().is_empty() {
        errors.required_by_declaration(&name);
    }
    match subject.get("kind").text() {
        "ServiceAccount" => {
            if !name.text().is_empty() {
                errors.subdomain(&name);
            }
            if !group.text().is_empty() {
                errors.not_supported(&group, &[""]);
            }
            if !namespaced && subject.get("namespace").text().is_empty() {
                errors.required(&subject.get("namespace"), "");
            }
        }
        "User" | "Group" if group.text() != GROUP => errors.not_supported(&group, &[GROUP]),
        "User" | "Group" => {}
        _ => errors.not_supported(&subject.get("kind"), &["ServiceAccount", "User", "Group"]),
    }
}
