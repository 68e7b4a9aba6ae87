//! Rules of storage.k8s.io: classes, attachments, and what CSI drivers say about themselves.
//!
//! Owns: those kinds.
//! Called by: `validation`.
//! Never: looks at a volume or claim.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;

use super::check::{At, Errors};
use super::core;
use crate::names;

/// Parameters of a class are stored with each volume made from it; upstream's limits.
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
const DRIVER_NAME_BYTES_MAX: usize = 63;
/// CSI's own limit for a node id.
const NODE_ID_BYTES_MAX: usize = 256;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

pub fn create(kind: &str, object: &At<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    match kind {
        "StorageClass" => storage_class(object, errors),
        "VolumeAttributesClass" => attributes_class(object, errors),
        "VolumeAttachment" => volume_attachment(&spec, errors),
        "CSIDriver" => driver(&spec, errors),
        "CSINode" => drivers_of_node(&spec.get("drivers"), errors),
        "CSIStorageCapacity" => storage_capacity(object, errors),
        _ => {}
    }
}

pub fn update(kind: &str, object: &At<'_>, old: &Value, errors: &mut Errors) {
    let spec = object.get("spec");
    match kind {
        "StorageClass" => {
            create(kind, object, errors);
            for field in ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"] {
                // Upstream declares these, and its declarations show no value.
                if object.get(field).value != &old[field] {
                    errors.immutable_by_declaration(&object.get(field), "null".into());
                }
            }
            return;
        }
        "VolumeAttributesClass" => {
            for field in ["driverName", "parameters"] {
                if object.get(field).value != &old[field] {
                    errors.forbidden(&object.get(field), format!("updates to {field} are forbidden."));
                }
            }
        }
        "VolumeAttachment" => errors.immutable(&spec, &old["spec"]),
        "CSIDriver" => {
            create(kind, object, errors);
            errors.immutable(
                &spec.get("attachedRequired").showing(spec.get("attachRequired").value),
                &old["spec"]["attachRequired"],
            );
            return errors.immutable(&spec.get("volumeLifecycleModes"), &old["spec"]["volumeLifecycleModes"]);
        }
        "CSINode" => node_drivers_stay(&spec.get("drivers"), &old["spec"]["drivers"], errors),
        "CSIStorageCapacity" => {
            for field in ["nodeTopology", "storageClassName"] {
                errors.immutable(&object.get(field), &old[field]);
            }
            return;
        }
        _ => {}
    }
    create(kind, object, errors);
}

fn storage_class(object: &At<'_>, errors: &mut Errors) {
    let provisioner = object.get("provisioner");
    if provisioner.text().is_empty() {
        errors.required_by_declaration(&provisioner);
    } else {
        lower_case_name(&provisioner, errors);
    }
    parameters(&object.get("parameters"), errors);
    let (policy, mode) = (object.get("reclaimPolicy"), object.get("volumeBindingMode"));
    if !policy.text().is_empty() {
        errors.one_of_if_set(&policy, &["Delete", "Retain"]);
    }
    if mode.is_null() {
        errors.required(&mode, "");
    } else {
        errors.one_of_if_set(&mode, &["Immediate", "WaitForFirstConsumer"]);
    }
    topologies(&object.get("allowedTopologies"), errors);
}

/// Case does not matter in names of provisioners.
fn lower_case_name(at: &At<'_>, errors: &mut Errors) {
    let lower: Value = at.text().to_lowercase().into();
    errors.qualified_name(&at.showing(&lower));
}

fn attributes_class(object: &At<'_>, errors: &mut Errors) {
    let driver = object.get("driverName");
    if driver.text().is_empty() {
        errors.required(&driver, "");
    } else {
        lower_case_name(&driver, errors);
    }
    let given = object.get("parameters");
    parameters(&given, errors);
    if given.len() == 0 {
        errors.required(&given, "must contain at least one key/value pair");
    }
}

fn parameters(at: &At<'_>, errors: &mut Errors) {
    if at.len() > PARAMETERS_MAX {
        return errors.too_long(at, PARAMETERS_MAX);
    }
    let mut bytes = 0;
    for (key, value) in at.entries() {
        if key.is_empty() {
            errors.invalid(&at.showing(&key.into()), "field can not be empty.");
        }
        bytes += key.len() + value.text().len();
    }
    if bytes > PARAMETERS_BYTES_MAX {
        errors.too_long(at, PARAMETERS_BYTES_MAX);
    }
}

fn topologies(terms: &At<'_>, errors: &mut Errors) {
    for term in terms.items() {
        let mut keys = HashSet::new();
        for expression in term.get("matchLabelExpressions").items() {
            let values = expression.get("values");
            if values.len() == 0 {
                errors.required(&values, "");
            }
            let mut seen = HashSet::new();
            values.items().filter(|v| !seen.insert(v.text().to_string())).for_each(|v| errors.duplicate(&v));
            errors.qualified_name(&expression.get("key"));
            if !keys.insert(expression.get("key").text().to_string()) {
                errors.duplicate(&expression.get("key"));
            }
        }
        let mine = wanted(term.value);
        let earlier = terms.items().take_while(|t| t.path() != term.path()).filter(|t| wanted(t.value) == mine).count();
        // Upstream compares with as many empty terms as there are terms, besides the earlier ones.
        let empty = if mine.is_empty() { terms.len() } else { 0 };
        for _ in 0..earlier + empty {
            errors.duplicate(&term.get("matchLabelExpressions").showing(&Value::String(String::new())));
        }
    }
}

/// What a term asks for: the values of each key.
fn wanted<'t>(term: &'t Value) -> BTreeMap<&'t str, BTreeSet<&'t str>> {
    let expressions = term["matchLabelExpressions"].as_array().into_iter().flatten();
    let values = |one: &'t Value| one["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    expressions.map(|one| (one["key"].as_str().unwrap_or(""), values(one))).collect()
}

fn volume_attachment(spec: &At<'_>, errors: &mut Errors) {
    let attacher = spec.get("attacher");
    if attacher.text().is_empty() {
        errors.required_by_declaration(&attacher);
    } else {
        if attacher.text().len() > DRIVER_NAME_BYTES_MAX {
            errors.too_long(&attacher, DRIVER_NAME_BYTES_MAX);
        }
        errors.faults_by_declaration(&attacher, names::caseless_dns1123_subdomain(attacher.text()));
    }
    let source = spec.get("source");
    let volume = source.get("persistentVolumeName");
    match (source.get("inlineVolumeSpec").is_null(), volume.is_null()) {
        (true, true) => {
            errors.required(&source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName")
        }
        (false, false) => {
            errors.forbidden(&source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
        }
        (true, false) if volume.text().is_empty() => {
            errors.required(&volume, "must specify non empty persistentVolumeName");
        }
        (true, false) => {}
        (false, true) => inline_volume(&source.get("inlineVolumeSpec"), errors),
    }
    errors.subdomain(&spec.get("nodeName"));
    if !volume.is_null() {
        errors.subdomain(&volume);
    }
}

/// A volume that stands in an attachment instead of being an object.
fn inline_volume(spec: &At<'_>, errors: &mut Errors) {
    const NOT_INLINE: &str = "may not be specified in the context of inline volumes";
    for field in ["claimRef", "capacity"] {
        let at = spec.get(field);
        if !at.is_null() && at.len() > 0 {
            errors.forbidden(&at, NOT_INLINE);
        }
    }
    if spec.get("csi").is_null() {
        errors.required(&spec.get("csi"), "has to be specified in the context of inline volumes");
    }
    let (modes, policy, place) =
        (spec.get("accessModes"), spec.get("persistentVolumeReclaimPolicy"), spec.get("nodeAffinity"));
    if modes.len() == 0 {
        errors.required(&modes, "");
    }
    core::access_modes(&modes, errors);
    if !matches!(policy.text(), "" | "Retain") {
        errors.forbidden(&policy, "may only be Retain in the context of inline volumes");
    }
    if !place.is_null() {
        errors.forbidden(&place, NOT_INLINE);
    }
    core::volume_source(spec, errors);
    let (class, mode) = (spec.get("storageClassName"), spec.get("volumeMode"));
    if !class.text().is_empty() {
        errors.forbidden(&class, NOT_INLINE);
    }
    if !mode.is_null() && mode.text() != "Filesystem" {
        errors.forbidden(&mode, "may not specify volumeMode other than Filesystem in the context of inline volumes");
    }
}

/// Case does not matter in names of drivers.
pub fn driver_name(at: &At<'_>, errors: &mut Errors) {
    let name = at.text();
    if name.is_empty() {
        return errors.required(at, "");
    }
    if name.len() > DRIVER_NAME_BYTES_MAX {
        errors.too_long(at, DRIVER_NAME_BYTES_MAX);
    }
    errors.faults(at, names::dns1123_subdomain(&name.to_lowercase()));
}

fn driver(spec: &At<'_>, errors: &mut Errors) {
    if spec.get("attachRequired").is_null() {
        errors.required(&spec.get("attachedRequired"), "");
    }
    for field in ["podInfoOnMount", "storageCapacity"] {
        if spec.get(field).is_null() {
            errors.required(&spec.get(field), "");
        }
    }
    errors.one_of_if_set(&spec.get("fsGroupPolicy"), &["File", "None", "ReadWriteOnceWithFSType"]);
    let requests = spec.get("tokenRequests");
    token_requests(&requests, errors);
    for mode in spec.get("volumeLifecycleModes").items() {
        if !matches!(mode.text(), "Persistent" | "Ephemeral") {
            errors.not_supported(&spec.get("volumeLifecycleModes").showing(mode.value), &["Persistent", "Ephemeral"]);
        }
    }
    if spec.get("seLinuxMount").is_null() {
        errors.required(&spec.get("seLinuxMount"), "");
    }
    let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
    if period.number().is_some_and(|p| p < 10) {
        errors.invalid(&period, "must be greater than or equal to 10 seconds");
    }
    let in_secrets = spec.get("serviceAccountTokenInSecrets");
    if !in_secrets.is_null() && requests.len() == 0 {
        errors.invalid(&in_secrets, "serviceAccountTokenInSecrets is set but no tokenRequests are specified");
    }
}

fn token_requests(requests: &At<'_>, errors: &mut Errors) {
    let mut audiences = HashSet::new();
    for request in requests.items() {
        let (audience, seconds) = (request.get("audience"), request.get("expirationSeconds"));
        if !audiences.insert(audience.text().to_string()) {
            errors.duplicate(&audience);
            continue;
        }
        match seconds.number() {
            Some(n) if n < TOKEN_SECONDS_MIN => {
                errors.invalid(&seconds, "may not specify a duration less than 10 minutes");
            }
            Some(n) if n > TOKEN_SECONDS_MAX => {
                errors.invalid(&seconds, "may not specify a duration larger than 2^32 seconds");
            }
            Some(_) | None => {}
        }
    }
}

fn drivers_of_node(drivers: &At<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for driver in drivers.items() {
        driver_name(&driver.get("name"), errors);
        let id = driver.get("nodeID");
        if id.text().is_empty() {
            errors.required(&id, "");
        }
        if id.text().len() > NODE_ID_BYTES_MAX {
            errors.invalid(&id, format!("must be {NODE_ID_BYTES_MAX} characters or less"));
        }
        errors.non_negative(&driver.get("allocatable").get("count"));
        if !seen.insert(driver.get("name").text().to_string()) {
            errors.duplicate(&driver.get("name"));
        }
        let mut keys = HashSet::new();
        for key in driver.get("topologyKeys").items() {
            let shown = driver.showing(key.value);
            if key.text().is_empty() {
                errors.required(&shown, "");
            }
            if !keys.insert(key.text().to_string()) {
                errors.duplicate(&shown);
            }
            errors.qualified_name(&shown);
        }
    }
}

/// A driver that is registered may change how much it can attach, and nothing else (KEP-4876).
fn node_drivers_stay(drivers: &At<'_>, old: &Value, errors: &mut Errors) {
    let fixed = |d: &Value| {
        let mut driver = d.as_object().cloned().unwrap_or_default();
        driver.remove("allocatable");
        driver
    };
    for before in old.as_array().into_iter().flatten() {
        for driver in drivers.items().filter(|d| d.get("name").value == &before["name"]) {
            if fixed(driver.value) != fixed(before) {
                errors.invalid(&drivers.showing(driver.value), "field is immutable");
            }
        }
    }
}

fn storage_capacity(object: &At<'_>, errors: &mut Errors) {
    errors.label_selector(&object.get("nodeTopology"));
    errors.subdomain(&object.get("storageClassName"));
    errors.non_negative_quantity(&object.get("capacity"));
}
