//! The error every API client sees: `Status`, as Kubernetes would answer it.
//!
//! Owns: reasons, codes, causes and the one place where a message about a missing or conflicting object is spelt.
//! Called by: the API server to answer, the client to read an answer, validation to report fields.
//! Never: knows HTTP beyond the number of the code.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// `metav1.Status` of a failed request. Boxed in `Result`s because it is large and rare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub code: u16,
    /// Machine-readable, such as `NotFound`; empty when Kubernetes leaves it empty.
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// `metav1.StatusDetails`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

/// `metav1.StatusCause`: one field and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What kind of fault a field has; the words are those of apimachinery's `field.Error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    TooFew,
    Internal,
    TypeInvalid,
}

/// One field's fault: `spec.containers[0].name: Required value: must be set`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub kind: FieldErrorType,
    /// Path as kubectl prints it: `spec.template.spec.containers[0].ports[1].name`, keys as `labels[a/b]`.
    pub path: String,
    /// The offending value as Kubernetes prints it (strings quoted, structs as JSON); `None` where it prints none.
    pub value: Option<String>,
    pub detail: String,
}

impl FieldError {
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorType::Required, path: path.into(), value: None, detail: detail.into() }
    }
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorType::Forbidden, path: path.into(), value: None, detail: detail.into() }
    }
    pub fn invalid(path: impl Into<String>, value: &Value, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorType::Invalid, path: path.into(), value: Some(value.to_string()), detail: detail.into() }
    }
    pub fn duplicate(path: impl Into<String>, value: &Value) -> Self {
        Self {
            kind: FieldErrorType::Duplicate,
            path: path.into(),
            value: Some(value.to_string()),
            detail: String::new(),
        }
    }
    pub fn not_found(path: impl Into<String>, value: &Value) -> Self {
        Self {
            kind: FieldErrorType::NotFound,
            path: path.into(),
            value: Some(value.to_string()),
            detail: String::new(),
        }
    }
    /// `supported` is printed in the order given.
    pub fn not_supported(path: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let detail = if list.is_empty() { String::new() } else { format!("supported values: {}", list.join(", ")) };
        Self { kind: FieldErrorType::NotSupported, path: path.into(), value: Some(value.to_string()), detail }
    }

    /// Text before the value, and the `reason` of the cause.
    fn words(&self) -> (&'static str, &'static str) {
        match self.kind {
            FieldErrorType::NotFound => ("Not found", "FieldValueNotFound"),
            FieldErrorType::Required => ("Required value", "FieldValueRequired"),
            FieldErrorType::Duplicate => ("Duplicate value", "FieldValueDuplicate"),
            FieldErrorType::Invalid => ("Invalid value", "FieldValueInvalid"),
            FieldErrorType::NotSupported => ("Unsupported value", "FieldValueNotSupported"),
            FieldErrorType::Forbidden => ("Forbidden", "FieldValueForbidden"),
            FieldErrorType::TooLong => ("Too long", "FieldValueTooLong"),
            FieldErrorType::TooMany => ("Too many", "FieldValueTooMany"),
            FieldErrorType::TooFew => ("Too few", "FieldValueTooFew"),
            FieldErrorType::Internal => ("Internal error", "InternalError"),
            FieldErrorType::TypeInvalid => ("Invalid value", "FieldValueTypeInvalid"),
        }
    }

    /// The message without the path, as it stands in a cause.
    pub fn body(&self) -> String {
        let (words, _) = self.words();
        let mut text = words.to_string();
        if let Some(value) = &self.value {
            text.push_str(": ");
            text.push_str(value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl Status {
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), message: message.into(), details: None }
    }

    /// `resource` is the qualified plural, such as `pods` or `deployments.apps`.
    fn about(code: u16, reason: &str, resource: &str, name: &str, message: String) -> Self {
        let (kind, group) = resource.split_once('.').unwrap_or((resource, ""));
        let details = Details { name: name.into(), kind: kind.into(), group: group.into(), ..Details::default() };
        Self { code, reason: reason.into(), message, details: Some(details) }
    }

    pub fn not_found(resource: &str, name: &str) -> Self {
        Self::about(404, "NotFound", resource, name, format!("{resource} {name:?} not found"))
    }
    pub fn already_exists(resource: &str, name: &str) -> Self {
        Self::about(409, "AlreadyExists", resource, name, format!("{resource} {name:?} already exists"))
    }
    pub fn conflict(resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::about(409, "Conflict", resource, name, message)
    }
    pub fn forbidden(resource: &str, name: &str, why: &str) -> Self {
        let message = if resource.is_empty() {
            format!("forbidden: {why}")
        } else if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} {name:?} is forbidden: {why}")
        };
        Self::about(403, "Forbidden", resource, name, message)
    }
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }
    pub fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        let cause = Cause { message: message.clone(), ..Cause::default() };
        let details = Details { causes: vec![cause], ..Details::default() };
        Self {
            details: Some(details),
            ..Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
        }
    }
    /// 410: the resource version asked for is compacted away.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }
    pub fn method_not_allowed(resource: &str, verb: &str) -> Self {
        let (kind, group) = resource.split_once('.').unwrap_or((resource, ""));
        let details = Details { kind: kind.into(), group: group.into(), ..Details::default() };
        let message = format!("{verb} is not supported on resources of kind {resource:?}");
        Self { details: Some(details), ..Self::new(405, "MethodNotAllowed", message) }
    }
    /// The path exists and does not know the method at all.
    pub fn method_unknown() -> Self {
        Self::of_route(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }
    /// No resource has this path.
    pub fn path_unknown() -> Self {
        Self::of_route(404, "NotFound", "the server could not find the requested resource")
    }
    /// What is said before anybody knows which object is meant.
    pub fn of_route(code: u16, reason: &str, message: &str) -> Self {
        Self { details: Some(Details::default()), ..Self::new(code, reason, message) }
    }
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let details = Details { retry_after_seconds, ..Details::default() };
        Self { details: Some(details), ..Self::new(429, "TooManyRequests", message) }
    }

    /// 422 with one cause a field; `kind` is the Kind, `group` its group.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let causes = errors
            .iter()
            .map(|e| Cause { reason: e.words().1.into(), message: e.body(), field: e.path.clone() })
            .collect();
        // Each layer that found a fault is a cause; the sentence says it once.
        let mut said = HashSet::new();
        let texts = errors.iter().map(|e| format!("{}: {}", e.path, e.body()));
        let texts: Vec<String> = texts.filter(|text| said.insert(text.clone())).collect();
        let joined = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let qualified = if group.is_empty() { kind.to_string() } else { format!("{kind}.{group}") };
        let details =
            Details { name: name.into(), group: group.into(), kind: kind.into(), causes, ..Details::default() };
        let message = format!("{qualified} {name:?} is invalid: {joined}");
        Self { details: Some(details), ..Self::new(422, "Invalid", message) }
    }

    /// The body that goes on the wire.
    pub fn to_json(&self) -> Value {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            body["reason"] = self.reason.clone().into();
        }
        if let Some(details) = &self.details {
            body["details"] = serde_json::to_value(details).expect("details are plain strings and numbers");
        }
        body
    }

    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }
    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }
    /// A patch named the uid of an object that has gone; another has its name now.
    pub fn is_of_another_object(&self) -> bool {
        let causes = self.details.iter().flat_map(|details| &details.causes);
        self.reason == "Invalid" && causes.into_iter().any(|cause| cause.field == "metadata.uid")
    }
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}
