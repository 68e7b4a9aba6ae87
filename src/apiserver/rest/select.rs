//! Which objects of a list or watch a client means.
//!
//! Owns: the selectors of a request, which fields a resource can be selected by, and how a field reads as text.
//! Called by: list, watch, deletion of collections.
//! Never: decodes more of an object than the selectors ask about.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use minik_api::Status;
use minik_api::registry::Resource;
use minik_api::selector::{FieldSelector, LabelSelector};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::call::Call;

#[derive(Debug, Default)]
pub struct Selector {
    labels: LabelSelector,
    fields: FieldSelector,
}

/// The parts of a stored object, each still as text.
type Parts<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

impl Selector {
    pub fn of(call: &Call) -> Result<Self, Status> {
        let labels = LabelSelector::parse(call.query.get("labelSelector")).map_err(Status::bad_request)?;
        let fields = FieldSelector::parse(call.query.get("fieldSelector")).map_err(Status::bad_request)?;
        for requirement in fields.requirements() {
            check_supported(&call.served.row, &requirement.path)?;
        }
        Ok(Self { labels, fields })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The one name that is meant, when there is one.
    pub fn name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    pub fn matches(&self, row: &Resource, value: &Bytes) -> bool {
        if self.is_everything() {
            return true;
        }
        let parts: Parts<'_> = serde_json::from_slice(value).unwrap_or_default();
        self.labels_match(&parts) && self.fields.matches_with(|path| Some(Cow::Owned(field(row, &parts, path))))
    }

    fn labels_match(&self, parts: &Parts<'_>) -> bool {
        if self.labels.is_everything() {
            return true;
        }
        let metadata: Parts<'_> = parts.get("metadata").and_then(|m| serde_json::from_str(m.get()).ok()).unwrap_or_default();
        let labels: Value = metadata.get("labels").and_then(|l| serde_json::from_str(l.get()).ok()).unwrap_or_default();
        self.labels.matches(&labels)
    }
}

fn check_supported(row: &Resource, path: &str) -> Result<(), Status> {
    if path == "metadata.name" || (path == "metadata.namespace" && row.is_namespaced()) {
        return Ok(());
    }
    if row.selectable_fields.iter().any(|f| f == path) {
        return Ok(());
    }
    if row.selectable_fields.is_empty() {
        let message = format!("{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"");
        return Err(Status::bad_request(message));
    }
    Err(Status::bad_request(format!("field label not supported: {path}")))
}

/// Where a selectable field stands in the stored object, when that is not where its name says.
fn stored_path<'a>(row: &Resource, path: &'a str) -> &'a str {
    match (row.kind.as_ref(), path) {
        ("Pod", "spec.host") => "spec.nodeName",
        ("Pod", "spec.hostNetwork") => "spec.hostNetwork",
        ("Pod", "status.podIPs") => "status.podIP",
        ("Job", "status.successful") => "status.succeeded",
        ("Event", "source") => "source.component",
        // Events of events.k8s.io are stored as core ones, under other names.
        ("Event", "reportingController") => "reportingComponent",
        ("Event", other) => other,
        _ => path,
    }
}

/// What an absent field reads as.
fn absent(path: &str) -> &'static str {
    match path {
        "spec.unschedulable" | "spec.hostNetwork" => "false",
        "status.replicas" | "status.successful" => "0",
        _ => "",
    }
}

fn field(row: &Resource, parts: &Parts<'_>, path: &str) -> String {
    let mut stored = Cow::Borrowed(stored_path(row, path));
    if row.kind == "Event" && stored.starts_with("regarding.") {
        stored = Cow::Owned(stored.replacen("regarding.", "involvedObject.", 1));
    }
    let mut steps = stored.split('.');
    let mut at: Option<&RawValue> = steps.next().and_then(|s| parts.get(s).copied());
    for step in steps {
        at = at.and_then(|raw| child(raw, step));
    }
    let value: Value = at.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    match value {
        Value::String(text) => text,
        Value::Null => absent(path).into(),
        other => other.to_string(),
    }
}

fn child<'a>(raw: &'a RawValue, step: &str) -> Option<&'a RawValue> {
    let parts: Parts<'a> = serde_json::from_str(raw.get()).ok()?;
    parts.get(step).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik_api::registry;
    use serde_json::json;

    fn check(fields: &str, labels: &str, expected: bool) {
        let row = registry::lookup("", "v1", "pods").expect("pods");
        let pod = json!({"metadata": {"name": "a", "namespace": "d", "labels": {"app": "x"}},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        let selector = Selector {
            labels: LabelSelector::parse(labels).expect("labels"),
            fields: FieldSelector::parse(fields).expect("fields"),
        };
        assert_eq!(selector.matches(row, &Bytes::from(pod.to_string())), expected, "{fields} {labels}");
    }

    #[test]
    fn selectors_look_at_labels_and_fields_of_the_stored_text() {
        check("", "", true);
        check("spec.nodeName=n1,status.phase!=Failed", "app in (x,y)", true);
        check("spec.host=n1,metadata.namespace=d", "", true);
        check("spec.nodeName=", "", false);
        check("spec.hostNetwork=false", "", true);
        check("", "app!=x", false);
    }

    #[test]
    fn a_field_that_cannot_be_selected_is_refused_in_upstreams_words() {
        let message = |plural: &str, path: &str| {
            let row = registry::lookup("", "v1", plural).expect("a row");
            check_supported(row, path).map_or_else(|s| s.message, |()| "ok".into())
        };
        assert_eq!(message("pods", "spec.foo"), "field label not supported: spec.foo");
        let known = "\"spec.foo\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"";
        assert_eq!(message("configmaps", "spec.foo"), known);
    }
}
