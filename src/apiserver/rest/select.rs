//! Which objects of a list or watch a client means.
//!
//! Owns: the selectors of a request, which fields a resource can be selected by, and how a field reads as text.
//! Called by: list, watch, deletion of collections.
//! Never: decodes more of an object than the selectors ask about.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use minik_api::registry::Resource;
use minik_api::selector::{FieldSelector, LabelSelector};
use minik_api::{Status, selectable};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::call::Call;
use crate::catalog::Served;
use crate::reply;

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
        let name = &call.info.name;
        if !name.is_empty() && !fields.is_everything() && fields.exact("metadata.name") != Some(name.as_str()) {
            return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
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

    /// Whether a stored object is meant.
    pub fn matches(&self, served: &Served, value: &Bytes) -> bool {
        if self.is_everything() {
            return true;
        }
        let parts: Parts<'_> = serde_json::from_slice(value).unwrap_or_default();
        if !self.labels_match(&parts) {
            return false;
        }
        let row = &served.row;
        if self.fields.requirements().iter().all(|r| is_plain(row, &r.path)) {
            return self.fields.matches_with(|path| Some(Cow::Owned(field(&parts, path))));
        }
        let tree = reply::served(served, value);
        self.fields.matches_with(|path| Some(selectable::value(row, &tree, path)))
    }

    fn labels_match(&self, parts: &Parts<'_>) -> bool {
        if self.labels.is_everything() {
            return true;
        }
        let metadata: Parts<'_> =
            parts.get("metadata").and_then(|m| serde_json::from_str(m.get()).ok()).unwrap_or_default();
        let labels: Value = metadata.get("labels").and_then(|l| serde_json::from_str(l.get()).ok()).unwrap_or_default();
        self.labels.matches(&labels)
    }
}

fn check_supported(row: &Resource, path: &str) -> Result<(), Status> {
    selectable::check(row, path).map_err(Status::bad_request)
}

/// Fields that every watch of a kubelet asks about stand where their names say, so the object need not be read whole.
fn is_plain(row: &Resource, path: &str) -> bool {
    matches!(path, "metadata.name" | "metadata.namespace")
        || (row.group.is_empty() && row.kind == "Pod" && matches!(path, "spec.nodeName" | "status.phase"))
}

/// A plain field, found in the text.
fn field(parts: &Parts<'_>, path: &str) -> String {
    let mut steps = path.split('.');
    let mut at: Option<&RawValue> = steps.next().and_then(|s| parts.get(s).copied());
    for step in steps {
        at = at.and_then(|raw| child(raw, step));
    }
    at.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

fn child<'a>(raw: &'a RawValue, step: &str) -> Option<&'a RawValue> {
    let parts: Parts<'a> = serde_json::from_str(raw.get()).ok()?;
    parts.get(step).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(fields: &str, labels: &str, expected: bool) {
        let catalog = crate::catalog::Catalog::built_in();
        let served = catalog.lookup("", "v1", "pods").expect("pods");
        let pod = json!({"metadata": {"name": "a", "namespace": "d", "labels": {"app": "x"}},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        let selector = Selector {
            labels: LabelSelector::parse(labels).expect("labels"),
            fields: FieldSelector::parse(fields).expect("fields"),
        };
        assert_eq!(selector.matches(&served, &Bytes::from(pod.to_string())), expected, "{fields} {labels}");
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
}
