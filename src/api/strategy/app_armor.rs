//! Profiles of AppArmor that annotations of a Pod name, as was done before there were fields.
//!
//! Owns: what such an annotation means, and that new Pods have it as a field too (KEP-24).
//! Called by: `strategy::pod`, and `warnings` for templates, which keep their annotations.
//! Never: refuses a profile.

use serde_json::{Value, json};

use crate::pod_annotations::APP_ARMOR;

pub(crate) const DEPRECATED: &str = r#"deprecated since v1.30; use the "appArmorProfile" field instead"#;
/// A path less its terminating zero.
const PROFILE_BYTES_MAX: usize = 4095;

/// The key of the annotation about a container.
pub(crate) fn annotation(container: &str) -> String {
    [APP_ARMOR, container].concat()
}

/// The field that says the same; none when no field may.
pub(crate) fn profile(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        _ => {
            let local = annotation.strip_prefix("localhost/")?;
            let fits = !local.is_empty() && local.trim() == local && local.len() <= PROFILE_BYTES_MAX;
            fits.then(|| json!({"type": "Localhost", "localhostProfile": local}))
        }
    }
}

/// Gives each container without a profile the one its annotation names, unless it has that of the Pod already.
/// Answers with what is to be said about it.
pub(super) fn to_fields(pod: &mut Value) -> Vec<String> {
    let mut warnings = Vec::new();
    if pod["spec"]["os"]["name"] == "windows" || !pod["metadata"]["annotations"].is_object() {
        return warnings;
    }
    let annotations = pod["metadata"]["annotations"].clone();
    let of_pod = pod["spec"]["securityContext"]["appArmorProfile"].clone();
    for list in ["initContainers", "containers"] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let key = annotation(container["name"].as_str().unwrap_or(""));
            let Some(text) = annotations[&key].as_str() else { continue };
            if !container["securityContext"]["appArmorProfile"].is_null() {
                continue;
            }
            let said = profile(text);
            if said.as_ref() == Some(&of_pod) {
                continue;
            }
            warnings.push(format!("metadata.annotations[{key}]: {DEPRECATED}"));
            if let Some(profile) = said {
                container["securityContext"]["appArmorProfile"] = profile;
            }
        }
    }
    warnings
}
