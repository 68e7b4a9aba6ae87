//! What a request may ask for besides its object.
//!
//! Owns: the spelling of query parameters, delete options and patch media types.
//! Called by: `verbs`.
//! Never: sends anything.

use serde_json::{Map, Value, json};

#[derive(Clone, Debug, Default)]
pub struct ListParams {
    pub label_selector: String,
    pub field_selector: String,
    /// 0 = no paging.
    pub limit: u32,
    pub continue_token: String,
    /// Empty = most recent; `0` = whatever the server has at hand.
    pub resource_version: String,
}

#[derive(Clone, Debug, Default)]
pub struct WatchParams {
    pub label_selector: String,
    pub field_selector: String,
    /// Empty = from now on, preceded by the current state.
    pub resource_version: String,
    pub bookmarks: bool,
    /// Ask for the current state as events, ended by a bookmark (WatchList).
    pub send_initial_events: bool,
    /// 0 = the server's own limit.
    pub timeout_seconds: u32,
    /// Only `metadata` of each object (PartialObjectMetadata).
    pub metadata_only: bool,
}

/// One page of a list, or all of it.
#[derive(Clone, Debug, Default)]
pub struct List {
    pub resource_version: String,
    pub continue_token: String,
    pub items: Vec<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// `metav1.DeleteOptions`; the default lets the resource decide.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteParams {
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

impl DeleteParams {
    /// Deletes this very object and not a later one of the same name.
    pub fn of_uid(uid: impl Into<String>) -> Self {
        Self { uid: Some(uid.into()), ..Self::default() }
    }

    pub fn to_json(&self) -> Value {
        let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let Some(seconds) = self.grace_period_seconds {
            options["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(propagation) = self.propagation {
            options["propagationPolicy"] = format!("{propagation:?}").into();
        }
        let mut preconditions = Map::new();
        if let Some(uid) = &self.uid {
            preconditions.insert("uid".into(), uid.clone().into());
        }
        if let Some(version) = &self.resource_version {
            preconditions.insert("resourceVersion".into(), version.clone().into());
        }
        if !preconditions.is_empty() {
            options["preconditions"] = preconditions.into();
        }
        options
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own, which merges lists by their keys.
    Strategic(Value),
    /// Server-side apply.
    Apply { manager: String, force: bool, body: Value },
}

impl Patch {
    pub fn media_type(&self) -> &'static str {
        match self {
            Patch::Json(_) => "application/json-patch+json",
            Patch::Merge(_) => "application/merge-patch+json",
            Patch::Strategic(_) => "application/strategic-merge-patch+json",
            Patch::Apply { .. } => "application/apply-patch+yaml",
        }
    }
    pub fn body(&self) -> &Value {
        match self {
            Patch::Json(body) | Patch::Merge(body) | Patch::Strategic(body) | Patch::Apply { body, .. } => body,
        }
    }
}

/// Collects `name=value` pairs, percent-encoded; empty values are left out.
#[derive(Default)]
pub(crate) struct Query(String);

impl Query {
    pub(crate) fn add(mut self, name: &str, value: &str) -> Self {
        if value.is_empty() {
            return self;
        }
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        percent_encode(value, &mut self.0);
        self
    }
    pub(crate) fn flag(self, name: &str, on: bool) -> Self {
        self.add(name, if on { "true" } else { "" })
    }
    pub(crate) fn number(self, name: &str, n: u32) -> Self {
        if n == 0 { self } else { self.add(name, &n.to_string()) }
    }
    pub(crate) fn finish(self) -> String {
        self.0
    }
}

fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_percent_encoded_and_empty_values_left_out() {
        let query = Query::default().add("labelSelector", "a=b,c in (d)").add("fieldSelector", "").number("limit", 5);
        assert_eq!(query.finish(), "?labelSelector=a%3Db%2Cc%20in%20%28d%29&limit=5");
    }

    #[test]
    fn delete_options_name_only_what_was_asked() {
        let params = DeleteParams { propagation: Some(Propagation::Orphan), ..DeleteParams::of_uid("u1") };
        assert_eq!(
            params.to_json(),
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Orphan", "preconditions": {"uid": "u1"}})
        );
    }
}
