//! Validation that must understand what a field carries: expressions that compile, certificates that parse.
//!
//! Owns: which kinds carry such things.
//! Called by: creates, updates and writes of a status, after the plain validation of the kind.
//! Never: evaluates an expression or verifies a chain.

use minik_api::FieldError;
use minik_api::registry::GroupVersionKind;
use serde_json::Value;

use crate::rest::face::Face;
use crate::{admission, custom, device_selectors};

/// Adds what is wrong inside the fields of `new` to what is wrong with them. What `old` had already is not judged anew.
pub fn check(kind: &GroupVersionKind, face: Face, new: &Value, old: Option<&Value>, faults: &mut Vec<FieldError>) {
    match (&*kind.group, &*kind.kind, face) {
        ("certificates.k8s.io", kind, face) => {
            // Upstream reads them right after the metadata.
            let at = faults.iter().position(|f| !f.path.starts_with("metadata")).unwrap_or(faults.len());
            let (request, others): (Vec<_>, Vec<_>) = admission::certificate_faults(kind, face.subresource(), new, old)
                .into_iter()
                .partition(|f| f.path == "spec.request");
            faults.splice(at..at, request);
            faults.extend(others);
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition", Face::Whole) => {
            let more = custom::faults(new, old, faults);
            faults.extend(more);
        }
        (
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration",
            Face::Whole,
        ) => faults.extend(admission::webhook_faults(new, old)),
        ("admissionregistration.k8s.io", kind, Face::Whole) => faults.extend(admission::policy_faults(kind, new, old)),
        ("resource.k8s.io", kind, Face::Whole) => faults.extend(device_selectors::faults(kind, new, old)),
        _ => {}
    }
}
