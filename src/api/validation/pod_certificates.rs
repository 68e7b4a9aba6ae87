//! Rules of trust bundles, pod certificate requests, and the projected sources that use them.
//!
//! Owns: names of signers, what a request says about itself, which statuses may follow each other.
//! Called by: `validation`.
//! Never: reads a certificate; the API server's admission has the tools for that.

use serde_json::Value;

use super::check::{At, Errors};
use crate::names;
use crate::status::FieldError;

const MAX_EXPIRATION_MIN: i64 = 3600;
const UID_MAX: usize = 128;
/// Total of keys and values.
const ANNOTATIONS_MAX: usize = 256 * 1024;
const KEY_TYPES: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
/// What a request can end in.
const OUTCOMES: [&str; 3] = ["Issued", "Denied", "Failed"];

pub fn create(kind: &str, object: &At<'_>, errors: &mut Errors) {
    if kind == "ClusterTrustBundle" { trust_bundle(object, errors) } else { request(object, errors) }
}

/// A request's spec stays as it is; a bundle stays its signer's.
pub fn update(kind: &str, object: &At<'_>, old: &Value, errors: &mut Errors) {
    let spec = object.get("spec");
    if kind != "ClusterTrustBundle" {
        return errors.immutable(&spec, &old["spec"]);
    }
    let (metadata, signer) = (object.get("metadata"), spec.get("signerName"));
    let name = metadata.get("name");
    errors.faults(&name, bundle_name(name.text(), signer.text()));
    trust_bundle(object, errors);
    errors.immutable(&spec.get("signerName"), &old["spec"]["signerName"]);
}

/// 91 days, and a day for signers of the Kubernetes project.
fn max_expiration_max(signer: &str) -> i64 {
    let domain = signer.split('/').next().unwrap_or("");
    let kubernetes = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    if kubernetes { 24 * 3600 } else { 91 * 24 * 3600 }
}

fn signer_name(at: &At<'_>, errors: &mut Errors) {
    if at.text().is_empty() {
        return errors.required(at, "");
    }
    let [domain, path] = at.text().split('/').collect::<Vec<_>>()[..] else {
        let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(at, form);
    };
    let segment = |text: &str, check: fn(&str) -> Vec<String>, errors: &mut Errors| {
        let wrong = text.split('.').find_map(|label| Some(check(label)).filter(|f| !f.is_empty()).map(|f| (label, f)));
        if let Some((label, faults)) = wrong {
            let faults = faults.into_iter().map(|f| format!("validating label {label:?}: {f}")).collect();
            errors.faults(&at.showing(&text.into()), faults);
        }
    };
    segment(domain, names::dns1123_label, errors);
    if !domain.contains('.') {
        errors.invalid(&at.showing(&domain.into()), "should be a domain with at least two segments separated by dots");
    }
    segment(path, names::dns1123_subdomain, errors);
}

/// Bundles of a signer carry its name before their own.
pub fn bundle_name(name: &str, signer: &str) -> Vec<String> {
    if signer.is_empty() {
        if name.contains(':') {
            return vec!["ClusterTrustBundle without signer name must not have \":\" in its name".into()];
        }
        return names::dns1123_subdomain(name);
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&prefix) {
        Some(rest) => names::dns1123_subdomain(rest),
        None => vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}")],
    }
}

fn trust_bundle(object: &At<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    let signer = spec.get("signerName");
    if !signer.text().is_empty() {
        signer_name(&signer, errors);
    }
}

fn user_annotations(at: &At<'_>, errors: &mut Errors) {
    for (key, _) in at.entries() {
        let key = Value::from(key.to_lowercase());
        let shown = at.showing(&key);
        let faults = names::qualified_name(shown.text());
        if faults.is_empty() && !shown.text().contains('/') {
            errors.invalid(&shown, "must be a domain-prefixed key (such as \"acme.io/foo\")");
        }
        errors.faults(&shown, faults);
    }
    if at.entries().map(|(key, value)| key.len() + value.text().len()).sum::<usize>() > ANNOTATIONS_MAX {
        errors.too_long(at, ANNOTATIONS_MAX);
    }
}

fn request(object: &At<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    signer_name(&spec.get("signerName"), errors);
    user_annotations(&spec.get("unverifiedUserAnnotations"), errors);
    for (name, uid) in [("podName", "podUID"), ("serviceAccountName", "serviceAccountUID"), ("nodeName", "nodeUID")] {
        errors.subdomain(&spec.get(name));
        let uid = spec.get(uid);
        if uid.text().is_empty() {
            errors.invalid(&uid.showing(&"".into()), "must not be empty");
        }
        if uid.text().len() > UID_MAX {
            errors.too_long(&uid, UID_MAX);
        }
    }
    let seconds = spec.get("maxExpirationSeconds");
    let max = max_expiration_max(spec.get("signerName").text());
    match seconds.number() {
        None => return errors.required(&seconds, "must be set"),
        Some(s) if !(MAX_EXPIRATION_MIN..=max).contains(&s) => {
            errors.invalid(&seconds, format!("must be in the range [{MAX_EXPIRATION_MIN}, {max}]"));
        }
        Some(_) => {}
    }
    if spec.get("stubPKCS10Request").text().is_empty() {
        let rule = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
        errors.0.push(without_value(&spec, rule));
    }
}

fn without_value(at: &At<'_>, detail: &str) -> FieldError {
    FieldError { value: None, ..FieldError::invalid(at.path(), &Value::Null, detail) }
}

/// The status of a request: empty until it is issued, denied or failed, and final from then on.
pub fn request_status(object: &At<'_>, old: &Value, errors: &mut Errors) {
    let status = object.get("status");
    let conditions = status.get("conditions");
    for (index, condition) in conditions.items().enumerate() {
        let kind = condition.get("type");
        if !OUTCOMES.contains(&kind.text()) {
            errors.not_supported(&kind, &OUTCOMES);
            continue;
        }
        if index > 0 {
            let rule = r#"There may be at most one condition with type "Issued", "Denied", or "Failed""#;
            errors.invalid(&kind, rule);
        }
        if condition.get("status").text() != "True" {
            errors.not_supported(&condition.get("status"), &["True"]);
        }
        for field in ["lastTransitionTime", "reason"] {
            if condition.get(field).text().is_empty() {
                errors.required(&condition.get(field), "");
            }
        }
    }
    if !errors.0.is_empty() {
        return;
    }
    let rule = match (outcome(&old["status"]), outcome(status.value)) {
        (Some(_), _) if status.value != &old["status"] => {
            "immutable after PodCertificateRequest is issued, denied, or failed"
        }
        (None, Some("Denied" | "Failed")) if has_more_than_conditions(status.value) => {
            "non-condition status fields must be empty when denying or failing the PodCertificateRequest"
        }
        (None, None) if is_set(status.value) != is_set(&old["status"]) => {
            r#"status is immutable unless transitioning to "Issued", "Denied", or "Failed""#
        }
        _ => return,
    };
    errors.0.push(without_value(&status, rule));
}

/// What a request has ended in.
pub fn outcome(status: &Value) -> Option<&str> {
    let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let of_type = |name: &str| conditions.iter().any(|c| c["type"] == name && c["status"] == "True");
    OUTCOMES.into_iter().find(|name| of_type(name))
}

fn is_set(status: &Value) -> bool {
    status.as_object().is_some_and(|s| s.values().any(|v| !v.is_null() && v != "" && v.as_array() != Some(&vec![])))
}

fn has_more_than_conditions(status: &Value) -> bool {
    ["certificateChain", "notBefore", "notAfter", "beginRefreshAt"]
        .iter()
        .any(|f| !status[f].is_null() && status[f] != "")
}

/// A source of a projected volume; answers the paths it writes to.
pub fn projected_bundle<'a>(at: &At<'a>, errors: &mut Errors) -> Vec<&'a str> {
    let (name, signer, selector) = (at.get("name"), at.get("signerName"), at.get("labelSelector"));
    match (name.is_null(), signer.is_null()) {
        (false, false) => errors.invalid(at, "only one of name and signerName may be used"),
        (false, true) => {
            if name.text().is_empty() {
                errors.required(&name, "must be a valid object name");
            }
            let signer = name.text().rsplit_once(':').map_or(String::new(), |(s, _)| s.replace(':', "/"));
            let faults = bundle_name(name.text(), &signer).into_iter();
            errors.faults(&name, faults.map(|f| format!("not a valid clustertrustbundlename: {f}")).collect());
            if !selector.is_null() {
                errors.invalid(&selector, "labelSelector must be unset if name is specified");
            }
        }
        (true, false) => {
            if signer.text().is_empty() {
                errors.required(&signer, "must be a valid signer name");
            }
            signer_name(&signer, errors);
            errors.label_selector(&selector);
        }
        (true, true) => errors.required(at, "either name or signerName must be specified"),
    }
    if at.get("path").text().is_empty() {
        errors.required(&at.get("path"), "");
    }
    super::volumes::local_path(&at.get("path"), errors);
    vec![at.value["path"].as_str().unwrap_or("")]
}

/// As `projected_bundle`.
pub fn projected_certificate<'a>(at: &At<'a>, errors: &mut Errors) -> Vec<&'a str> {
    signer_name(&at.get("signerName"), errors);
    user_annotations(&at.get("userAnnotations"), errors);
    if !KEY_TYPES.contains(&at.get("keyType").text()) {
        errors.not_supported(&at.get("keyType"), &KEY_TYPES);
    }
    let seconds = at.get("maxExpirationSeconds");
    let max = max_expiration_max(at.get("signerName").text());
    match seconds.number() {
        Some(s) if s < MAX_EXPIRATION_MIN => {
            errors.invalid(&seconds, format!("if provided, maxExpirationSeconds must be >= {MAX_EXPIRATION_MIN}"));
        }
        Some(s) if s > max => {
            errors.invalid(&seconds, format!("if provided, maxExpirationSeconds must be <= {max}"));
        }
        _ => {}
    }
    let mut paths = Vec::new();
    for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let path = at.value[field].as_str().unwrap_or("");
        if !path.is_empty() {
            super::volumes::local_path(&at.get(field), errors);
            paths.push(path);
        }
    }
    if paths.is_empty() {
        errors.required(at, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath");
    }
    paths
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(object: &Value, check: impl Fn(&At<'_>, &mut Errors)) -> Vec<String> {
        let mut errors = Errors::default();
        check(&At::root(object), &mut errors);
        errors.into_list().iter().map(|e| format!("{}: {}", e.path, e.detail)).collect()
    }

    #[test]
    fn a_bundle_of_a_signer_is_named_after_it() {
        let check = bundle_name;
        assert_eq!(check("a", ""), Vec::<String>::new());
        assert_eq!(check("x.io:s:a", "x.io/s"), Vec::<String>::new());
        let rule = "ClusterTrustBundle for signerName x.io/s must be named with prefix x.io:s:";
        assert_eq!(check("a", "x.io/s"), [rule]);
        assert_eq!(check("x:a", ""), [r#"ClusterTrustBundle without signer name must not have ":" in its name"#]);
    }

    #[test]
    fn an_answered_request_is_final() {
        let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "R", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let check = |new: Value, old: Value| {
            faults(&json!({"status": new}), |at, errors| request_status(at, &json!({"status": old}), errors))
        };
        let denied = json!({"conditions": [condition("Denied")]});
        assert_eq!(check(denied.clone(), json!({})), Vec::<String>::new());
        assert_eq!(
            check(json!({}), denied.clone()),
            ["status: immutable after PodCertificateRequest is issued, denied, or failed"]
        );
        assert_eq!(
            check(json!({"conditions": [condition("Denied")], "certificateChain": "x"}), json!({})),
            ["status: non-condition status fields must be empty when denying or failing the PodCertificateRequest"]
        );
        assert_eq!(
            check(json!({"certificateChain": "x"}), json!({})),
            [r#"status: status is immutable unless transitioning to "Issued", "Denied", or "Failed""#]
        );
    }

    #[test]
    fn a_projected_certificate_lasts_from_an_hour_to_91_days() {
        let check = |seconds: i64| {
            let source =
                json!({"signerName": "x.io/s", "keyType": "ED25519", "keyPath": "k", "maxExpirationSeconds": seconds});
            faults(&source, |at, errors| drop(projected_certificate(at, errors)))
        };
        assert_eq!(check(3600), Vec::<String>::new());
        assert_eq!(check(3599), ["maxExpirationSeconds: if provided, maxExpirationSeconds must be >= 3600"]);
        assert_eq!(check(7_862_401), ["maxExpirationSeconds: if provided, maxExpirationSeconds must be <= 7862400"]);
    }
}
