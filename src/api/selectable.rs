//! What a field selector sees of an object.
//!
//! Owns: which fields of a kind can be selected by, their values as text, and the refusal of all others.
//! Called by: list and watch, with the selectors that `selector` has parsed.
//! Never: parses a selector.

use std::borrow::Cow;

use serde_json::Value;

use crate::registry::Resource;

/// Refuses a field that cannot be selected by, in the words of the kind.
pub fn check(resource: &Resource, field: &str) -> Result<(), String> {
    // Kinds with fields of their own say whether they have a namespace; the others do not look.
    let has_own = !resource.selectable_fields.is_empty() || is_custom(resource);
    let known = match field {
        "metadata.name" => true,
        "metadata.namespace" if has_own && resource.kind == "PodCertificateRequest" => false,
        "metadata.namespace" => resource.is_namespaced() || !has_own,
        _ => resource.selectable_fields.iter().any(|f| f == field),
    };
    if known {
        return Ok(());
    }
    Err(match resource.kind.as_ref() {
        _ if !has_own => {
            format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        }
        "Job" if resource.group == "batch" => format!("field label {field:?} not supported for Job"),
        "ResourceSlice" if resource.group == "resource.k8s.io" => {
            let version = resource.api_version();
            format!("field label not supported for {version}, Kind=ResourceSlice: {field}")
        }
        _ => format!("field label not supported: {field}"),
    })
}

fn is_custom(resource: &Resource) -> bool {
    resource.id().is_none()
}

/// The value a selector compares with; what is not set reads as empty, except where Go has a zero to print.
pub fn value<'o>(resource: &Resource, object: &'o Value, field: &str) -> Cow<'o, str> {
    let zero = match field {
        "spec.hostNetwork" | "spec.unschedulable" => "false",
        "status.replicas" | "status.successful" => "0",
        _ => "",
    };
    match (resource.kind.as_ref(), field) {
        ("Pod", "spec.host") => text(&object["spec"]["nodeName"], ""),
        ("Pod", "status.podIP") => text(&object["status"]["podIPs"][0]["ip"], ""),
        // Accepted, but no pod has it.
        ("Pod", "status.podIPs") => "".into(),
        ("Job", "status.successful") => text(&object["status"]["succeeded"], zero),
        ("Secret" | "Event", "type" | "reason") => text(&object[field], ""),
        ("Event", "source") => match text(&object["source"]["component"], "") {
            component if component.is_empty() => text(&object["reportingComponent"], ""),
            component => component,
        },
        // Events are stored in their older form, and asked for in both.
        ("Event", _) if object.get("involvedObject").is_some() => {
            let older = field.replacen("regarding.", "involvedObject.", 1);
            let older = if older == "reportingController" { "reportingComponent" } else { &older };
            text(at(object, older), zero)
        }
        _ => text(at(object, field), zero),
    }
}

fn at<'o>(object: &'o Value, field: &str) -> &'o Value {
    // Custom resources write a path with a dot before it.
    field.split('.').filter(|part| !part.is_empty()).fold(object, |value, part| &value[part])
}

fn text<'o>(value: &'o Value, zero: &'static str) -> Cow<'o, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Bool(_) | Value::Number(_) => Cow::Owned(value.to_string()),
        _ => Cow::Borrowed(zero),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::lookup;

    fn row(group: &str, plural: &str) -> &'static Resource {
        lookup(group, "v1", plural).expect("a built-in resource")
    }

    #[test]
    fn a_field_nobody_can_select_by_is_refused_in_the_words_of_its_kind() {
        let refused = |group, plural, field| check(row(group, plural), field).expect_err("not selectable");
        assert_eq!(refused("", "pods", "foo"), "field label not supported: foo");
        let plain = r#""foo" is not a known field selector: only "metadata.name", "metadata.namespace""#;
        assert_eq!(refused("", "configmaps", "foo"), plain);
        assert_eq!(refused("batch", "jobs", "foo"), r#"field label "foo" not supported for Job"#);
        let slice = "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: foo";
        assert_eq!(refused("resource.k8s.io", "resourceslices", "foo"), slice);
        assert_eq!(refused("", "nodes", "metadata.namespace"), "field label not supported: metadata.namespace");
        assert_eq!(check(row("rbac.authorization.k8s.io", "clusterroles"), "metadata.namespace"), Ok(()));
    }

    #[test]
    fn values_are_text_and_unset_ones_are_gos_zero() {
        let pods = row("", "pods");
        let pod = json!({"spec": {"nodeName": "n"}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}});
        assert_eq!(value(pods, &pod, "spec.nodeName"), "n");
        assert_eq!(value(pods, &pod, "spec.hostNetwork"), "false");
        assert_eq!(value(pods, &pod, "status.podIP"), "10.0.0.1");
        assert_eq!(value(pods, &pod, "status.phase"), "");
        let event = json!({"involvedObject": {"name": "a"}, "reportingComponent": "c", "type": "Normal"});
        assert_eq!(value(row("", "events"), &event, "source"), "c");
        assert_eq!(value(row("", "events"), &event, "involvedObject.name"), "a");
        let newer = row("events.k8s.io", "events");
        assert_eq!(value(newer, &event, "regarding.name"), "a");
        assert_eq!(value(newer, &event, "reportingController"), "c");
        assert_eq!(value(row("batch", "jobs"), &json!({}), "status.successful"), "0");
    }
}
