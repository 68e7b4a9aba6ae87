//! Rules of CertificateSigningRequests.
//!
//! Owns: what may be asked for, and who may add which condition under which path.
//! Called by: `validation`.
//! Never: reads a request or a certificate; the API server checks their signatures.

use std::collections::BTreeSet;

use serde_json::Value;

use super::check::{At, Errors};
use crate::names;

/// In upstream's order, which is that of the alphabet.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const SIGNER_BYTES_MAX: usize = 571;

pub fn create(_: &str, object: &At<'_>, errors: &mut Errors) {
    rules(object, &Value::Null, errors);
}

/// The spec and the status stay as they are; only metadata changes here.
pub fn update(_: &str, object: &At<'_>, old: &Value, errors: &mut Errors) {
    rules(object, old, errors);
}

/// A write to `approval` or `status`.
pub fn update_decision(subresource: &str, object: &At<'_>, old: &Value, errors: &mut Errors) {
    rules(object, old, errors);
    let status = object.get("status");
    let conditions = status.get("conditions");
    let of = |list: &Value, kind: &str| -> Vec<Value> {
        let all = list.as_array().into_iter().flatten();
        all.filter(|c| c["type"] == kind).cloned().collect()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        let (before, now) = (of(&old["status"]["conditions"], kind), of(conditions.value, kind));
        if now.len() < before.len() {
            errors.forbidden(&conditions, format!("updates may not remove a condition of type {kind:?}"));
        }
    }
    if subresource == "approval" {
        return;
    }
    for kind in DECISIONS {
        let (before, now) = (of(&old["status"]["conditions"], kind), of(conditions.value, kind));
        if now.len() > before.len() {
            errors.forbidden(&conditions, format!("updates may not add a condition of type {kind:?}"));
        } else if now.len() == before.len() && now != before {
            errors.forbidden(&conditions, format!("updates may not modify a condition of type {kind:?}"));
        }
    }
    let had = old["status"]["certificate"].as_str().unwrap_or("");
    let certificate = status.get("certificate");
    if !had.is_empty() && certificate.text() != had {
        errors.forbidden(&certificate, "updates may not modify existing certificate content");
    }
}

/// What is wrong with `old` already is let be.
fn rules(object: &At<'_>, old: &Value, errors: &mut Errors) {
    let spec = object.get("spec");
    let usages = spec.get("usages");
    if usages.len() == 0 {
        errors.required(&usages, "");
    }
    if old["spec"]["usages"] != *usages.value {
        for usage in usages.items().filter(|u| !USAGES.contains(&u.text())) {
            errors.not_supported(&usage, &USAGES);
        }
        let mut seen = BTreeSet::new();
        for usage in usages.items().filter(|u| !seen.insert(u.text())) {
            errors.duplicate(&usage);
        }
    }
    signer_name(&spec.get("signerName"), old, errors);
    let seconds = spec.get("expirationSeconds");
    if seconds.number().is_some_and(|s| s < 600) {
        errors.invalid(&seconds, "may not specify a duration less than 600 seconds (10 minutes)");
    }
    conditions(&object.get("status").get("conditions"), errors);
}

fn signer_name(signer: &At<'_>, old: &Value, errors: &mut Errors) {
    const LEGACY: &str = "kubernetes.io/legacy-unknown";
    if signer.text() == LEGACY && old["spec"]["signerName"] != LEGACY {
        return errors.invalid(signer, "the legacy signerName is not allowed via this API version");
    }
    if signer.text().is_empty() {
        return errors.required(signer, "");
    }
    let Some((domain, path)) = signer.text().split_once('/').filter(|(_, path)| !path.contains('/')) else {
        return errors
            .invalid(signer, "must be a fully qualified domain and path of the form 'example.com/signer-name'");
    };
    errors.faults(signer, names::dns1123_subdomain(domain));
    if !domain.contains('.') {
        errors.invalid(signer, "should be a domain with at least two segments separated by dots");
    }
    for segment in path.split('.') {
        errors.faults(signer, names::dns1123_label(segment));
    }
    if signer.text().len() > SIGNER_BYTES_MAX {
        errors.too_long(signer, SIGNER_BYTES_MAX);
    }
}

fn conditions(all: &At<'_>, errors: &mut Errors) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for condition in all.items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        if kind.text().is_empty() {
            errors.required(&kind, "");
        }
        let decided = ["Approved", "Denied", "Failed"].contains(&kind.text());
        let allowed: &[&str] = if decided { &["True"] } else { &STATUSES };
        errors.one_of(&status, allowed);
        let other = match kind.text() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if seen.contains(other) {
            errors.invalid(&all.showing(&kind.text().into()), "Approved and Denied conditions are mutually exclusive");
        }
        if !seen.insert(kind.text().into()) {
            errors.duplicate(&kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{create as create_any, update_subresource};
    use super::*;

    const GROUP: &str = "certificates.k8s.io";
    const KIND: &str = "CertificateSigningRequest";

    fn request(signer: &str, usages: &[&str], conditions: Value) -> Value {
        json!({"metadata": {"name": "r", "resourceVersion": "1"}, "spec": {"signerName": signer, "usages": usages},
            "status": {"conditions": conditions}})
    }
    fn texts(faults: Vec<crate::FieldError>) -> Vec<String> {
        faults.into_iter().map(|f| format!("{}: {}", f.path, f.body())).collect()
    }

    #[test]
    fn usages_and_signers_are_known_ones() {
        let check = |signer: &str, usages: &[&str]| {
            let object = request(signer, usages, Value::Null);
            let texts = texts(create_any(GROUP, "v1", KIND, &object));
            texts.into_iter().map(|t| t.chars().take(70).collect::<String>()).collect::<Vec<_>>()
        };
        assert_eq!(check("example.com/mine", &["client auth"]), [""; 0]);
        assert_eq!(
            check("example.com/mine", &["tea"]),
            ["spec.usages[0]: Unsupported value: \"tea\": supported values: \"any\", \"ce"]
        );
        assert_eq!(
            check("kubernetes.io/legacy-unknown", &["any", "any"]),
            [
                "spec.usages[1]: Duplicate value: \"any\"",
                "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the le"
            ]
        );
    }

    #[test]
    fn decisions_are_made_under_approval_alone_and_stay() {
        let approved = json!([{"type": "Approved", "status": "True"}]);
        let (open, closed) = (request("e.io/x", &["any"], Value::Null), request("e.io/x", &["any"], approved.clone()));
        let change = |sub, new: &Value, old: &Value| texts(update_subresource(GROUP, "v1", KIND, sub, new, old));
        assert_eq!(change("approval", &closed, &open), [""; 0]);
        assert_eq!(
            change("status", &closed, &open),
            ["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]
        );
        assert_eq!(
            change("approval", &open, &closed),
            ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
        );
        let both = json!([{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]);
        assert_eq!(
            change("approval", &request("e.io/x", &["any"], both), &closed),
            ["status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"]
        );
    }
}
