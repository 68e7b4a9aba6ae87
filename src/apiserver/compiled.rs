//! Validation that compiles expressions: the rules of definitions, the expressions of policies and
//! webhooks, the selectors of devices.
//!
//! Owns: which kinds have expressions.
//! Called by: creates and updates, after the plain validation of the kind.
//! Never: evaluates one.

use minik_api::FieldError;
use minik_api::registry::GroupVersionKind;
use serde_json::Value;

use crate::{admission, custom, device_selectors};

/// What is wrong with the expressions of `new`. What `old` had already is not judged anew.
pub fn faults(kind: &GroupVersionKind, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    match (&*kind.group, &*kind.kind) {
        ("apiextensions.k8s.io", "CustomResourceDefinition") => custom::faults(new, old),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration") => {
            admission::webhook_faults(new, old)
        }
        ("admissionregistration.k8s.io", kind) => admission::policy_faults(kind, new, old),
        ("resource.k8s.io", kind) => device_selectors::faults(kind, new, old),
        _ => Vec::new(),
    }
}
