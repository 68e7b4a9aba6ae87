//! Rules of configuration, namespaces, nodes, storage, endpoints and quotas.
//!
//! Owns: the core kinds that are neither Pods, controllers nor Services.
//! Called by: `validation`.
//! Never: looks whether what is named exists.

use base64::Engine;
use serde_json::Value;

use super::check::{At, Errors};
use super::{core_type, scheduling, service};
use crate::quantity::Quantity;
use crate::status::FieldError;
use crate::{go_json, names};

/// A ConfigMap or a Secret holds at most this many bytes.
const DATA_BYTES_MAX: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

pub fn create(kind: &str, object: &At<'_>, errors: &mut Errors) {
    match kind {
        "ConfigMap" => config_map(object, errors),
        "Secret" => secret(object, errors),
        "Namespace" => namespace(object, errors),
        "Node" => node(object, errors),
        "PersistentVolume" => volume(object, errors),
        "PersistentVolumeClaim" => claim_spec(&object.get("spec"), errors),
        "Endpoints" => endpoints(object, errors),
        "LimitRange" => limit_range(&object.get("spec"), errors),
        "ResourceQuota" => quota(&object.get("spec"), errors),
        "PodTemplate" => super::pod::template(&object.get("template"), errors),
        _ => {}
    }
}

pub fn update(kind: &str, object: &At<'_>, old: &Value, errors: &mut Errors) {
    match kind {
        "ConfigMap" => frozen(object, old, &["data", "binaryData"], errors),
        "Secret" => {
            errors.immutable(&object.get("type"), &old["type"]);
            frozen(object, old, &["data"], errors);
        }
        _ => {}
    }
    create(kind, object, errors);
    match kind {
        "Node" => node_update(object, old, errors),
        "PersistentVolume" => volume_update(object, old, errors),
        "PersistentVolumeClaim" => claim_update(object, old, errors),
        "ResourceQuota" => errors.immutable(&object.get("spec").get("scopes"), &old["spec"]["scopes"]),
        _ => {}
    }
}

fn frozen(object: &At<'_>, old: &Value, fields: &[&str], errors: &mut Errors) {
    if old["immutable"] != true {
        return;
    }
    if !object.get("immutable").is_true() {
        errors.forbidden(&object.get("immutable"), FROZEN);
    }
    for field in fields {
        if object.get(field).value != &old[*field] {
            errors.forbidden(&object.get(field), FROZEN);
        }
    }
}

fn decoded_length(value: &Value) -> usize {
    let text = value.as_str().unwrap_or("");
    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn config_map(object: &At<'_>, errors: &mut Errors) {
    let (data, binary) = (object.get("data"), object.get("binaryData"));
    let mut size = 0;
    for (key, value) in data.entries() {
        let shown: Value = key.into();
        let at = value.showing(&shown);
        errors.faults(&at, names::config_map_key(key));
        if !binary.get(key).is_null() {
            errors.invalid(&at, "duplicate of key present in binaryData");
        }
        size += value.text().len();
    }
    for (key, value) in binary.entries() {
        errors.faults(&value.showing(&key.into()), names::config_map_key(key));
        size += decoded_length(value.value);
    }
    if size > DATA_BYTES_MAX {
        errors.too_long(&At::root(object.value), DATA_BYTES_MAX);
    }
}

fn secret(object: &At<'_>, errors: &mut Errors) {
    let data = object.get("data");
    let mut size = 0;
    for (key, value) in data.entries() {
        errors.faults(&value.showing(&key.into()), names::config_map_key(key));
        size += decoded_length(value.value);
    }
    if size > DATA_BYTES_MAX {
        errors.too_long(&data, DATA_BYTES_MAX);
    }
    let need = |key: &str, errors: &mut Errors| {
        if data.key(key).is_null() {
            errors.required(&data.key(key), "");
        }
    };
    match object.get("type").text() {
        "kubernetes.io/service-account-token" => {
            let metadata = object.get("metadata");
            let annotations = metadata.get("annotations");
            let account = annotations.key("kubernetes.io/service-account.name");
            if account.text().is_empty() {
                errors.required(&account, "");
            }
        }
        "kubernetes.io/dockercfg" => docker_config(&data.key(".dockercfg"), errors),
        "kubernetes.io/dockerconfigjson" => docker_config(&data.key(".dockerconfigjson"), errors),
        "kubernetes.io/basic-auth" if data.key("username").is_null() && data.key("password").is_null() => {
            need("username", errors);
            need("password", errors);
        }
        "kubernetes.io/ssh-auth" => need("ssh-privatekey", errors),
        "kubernetes.io/tls" => {
            need("tls.crt", errors);
            need("tls.key", errors);
        }
        _ => {}
    }
}

fn docker_config(at: &At<'_>, errors: &mut Errors) {
    if at.is_null() {
        return errors.required(at, "");
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(at.text()).unwrap_or_default();
    if let Err(fault) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        errors.invalid(&at.showing(&"<secret contents redacted>".into()), fault.to_string());
    }
}

fn namespace(object: &At<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    let list = spec.get("finalizers");
    for finalizer in list.items() {
        errors.faults(&list.showing(finalizer.value), names::qualified_name(finalizer.text()));
        if !finalizer.text().contains('/') && finalizer.text() != "kubernetes" {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(&list.showing(finalizer.value), detail);
        }
    }
}

fn node_resources(node: &At<'_>, errors: &mut Errors) {
    let status = node.get("status");
    for field in ["capacity", "allocatable"] {
        let list = status.get(field);
        for (resource, _) in list.entries() {
            errors.non_negative_quantity(&list.get(resource));
        }
    }
}

fn node(object: &At<'_>, errors: &mut Errors) {
    let (metadata, spec) = (object.get("metadata"), object.get("spec"));
    // Upstream reports taints below metadata.
    scheduling::taints(&metadata.get("taints").showing(spec.get("taints").value), errors);
    node_resources(object, errors);
    let ranges = spec.get("podCIDRs");
    for range in ranges.items() {
        errors.faults(&range, names::cidr(range.text()));
    }
    let dual = ranges.items().filter(|r| r.text().contains(':')).count() == 1 && ranges.len() == 2;
    if ranges.len() > 1 && !dual {
        errors.invalid(&ranges, "may specify no more than one CIDR for each IP family");
    }
}

fn node_update(object: &At<'_>, old: &Value, errors: &mut Errors) {
    let (spec, before) = (object.get("spec"), &old["spec"]);
    let status = object.get("status");
    let addresses = status.get("addresses");
    let mut seen = Vec::new();
    for address in addresses.items() {
        if seen.contains(&address.value) {
            errors.duplicate(&address);
        }
        seen.push(address.value);
    }
    let known = before["podCIDRs"].as_array().is_some_and(|r| !r.is_empty());
    if known && before["podCIDRs"] != spec.value["podCIDRs"] {
        errors.forbidden(&spec.get("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid");
    }
    let (then, now) = (before["providerID"].as_str().unwrap_or(""), spec.get("providerID"));
    if !then.is_empty() && now.text() != then {
        let cleared = now.text().is_empty();
        let detail = if cleared { "field cannot be cleared once set" } else { "field cannot be modified once set" };
        errors.invalid(&now.showing(&Value::Null), detail);
    }
}

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub(super) fn access_modes(modes: &At<'_>, errors: &mut Errors) {
    let known = |mode: &str| ACCESS_MODES.contains(&mode);
    for mode in modes.items().filter(|m| !known(m.text())) {
        errors.not_supported(&modes.showing(mode.value), &ACCESS_MODES);
    }
    let has = |wanted: bool| modes.items().any(|m| known(m.text()) && (m.text() == "ReadWriteOncePod") == wanted);
    if has(true) && has(false) {
        errors.forbidden(modes, "may not use ReadWriteOncePod with other access modes");
    }
}

fn storage_amount(at: &At<'_>, errors: &mut Errors) {
    if at.is_null() {
        return errors.required(at, "");
    }
    if Quantity::from_json(at.value).is_ok_and(|q| q.signum() <= 0) {
        errors.invalid(at, "must be greater than zero");
    }
}

pub fn claim_spec(spec: &At<'_>, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.len() == 0 {
        errors.required(&modes, "at least 1 access mode is required");
    }
    errors.label_selector(&spec.get("selector"));
    access_modes(&modes, errors);
    let resources = spec.get("resources");
    let requests = resources.get("requests");
    storage_amount(&resources.key("storage").showing(requests.get("storage").value), errors);
    let class_name = |field: &'static str, errors: &mut Errors| {
        if !spec.get(field).text().is_empty() {
            errors.subdomain(&spec.get(field));
        }
    };
    class_name("storageClassName", errors);
    errors.one_of_if_set(&spec.get("volumeMode"), &["Block", "Filesystem"]);
    data_sources(spec, errors);
    class_name("volumeAttributesClassName", errors);
}

/// What a claim is filled from, in both ways to say it.
fn data_sources(spec: &At<'_>, errors: &mut Errors) {
    let (older, newer) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    for source in [&older, &newer].into_iter().filter(|s| !s.is_null()) {
        for field in ["name", "kind"] {
            if source.get(field).text().is_empty() {
                errors.required(&source.get(field), "");
            }
        }
        let (group, kind) = (source.get("apiGroup"), source.get("kind"));
        if !group.text().is_empty() {
            errors.subdomain(&group);
        } else if kind.text() != "PersistentVolumeClaim" {
            let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.invalid(&source.showing(&kind.text().into()), why);
        }
    }
    let namespace = newer.get("namespace");
    if !namespace.text().is_empty() {
        errors.label(&namespace);
    }
    let same = |field: &str| older.get(field).text() == newer.get(field).text();
    let why = match (older.is_null() || newer.is_null(), namespace.text().is_empty()) {
        (false, false) => "may not be specified when dataSourceRef.namespace is specified",
        (false, true) if !["apiGroup", "kind", "name"].into_iter().all(same) => "must match dataSourceRef",
        _ => return,
    };
    // Upstream quotes the path, of which JSON shows nothing.
    errors.invalid_shown(spec, "{}".into(), why);
}

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

fn claim_update(object: &At<'_>, old: &Value, errors: &mut Errors) {
    let (spec, mut before, mut now) = (object.get("spec"), old["spec"].clone(), object.value["spec"].clone());
    if before["volumeName"].as_str().unwrap_or("").is_empty() {
        before["volumeName"] = now["volumeName"].clone();
    }
    let class = |claim: &Value| claim["metadata"]["annotations"][BETA_CLASS].as_str().map(String::from);
    let (annotated, annotated_now) = (class(old), class(object.value));
    let named = now["storageClassName"].as_str().map(String::from);
    let was_named = !before["storageClassName"].is_null();
    // The class may move from the annotation that named it before there was a field.
    let moved = annotated.is_some() && annotated == named && annotated_now.is_none_or(|c| Some(c) == annotated);
    if moved && !was_named {
        now["storageClassName"] = Value::Null;
    } else {
        let metadata = object.get("metadata");
        let annotations = metadata.get("annotations");
        let at = annotations.get(BETA_CLASS);
        if annotated.as_deref().unwrap_or("") != at.text() {
            errors.invalid(&at.showing(&at.text().into()), "field is immutable");
        }
        if named.is_some() && !was_named && annotated.is_none_or(|class| Some(class) == named) {
            now["storageClassName"] = Value::Null;
        }
    }
    if object.value["status"]["phase"] == "Bound" {
        if let Some(requests) = now["resources"]["requests"].as_object_mut() {
            requests.insert("storage".into(), before["resources"]["requests"]["storage"].clone());
        }
        now["volumeAttributesClassName"] = before["volumeAttributesClassName"].clone();
    }
    if without_nulls(&before) != without_nulls(&now) {
        let difference = go_json::difference(core_type("PersistentVolumeClaimSpec"), &before, &now);
        let rule =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.forbidden(&spec, format!("{rule}\n{difference}"));
    }
    let size =
        |o: &Value| Quantity::from_json(&o["spec"]["resources"]["requests"]["storage"]).unwrap_or(Quantity::ZERO);
    let capacity = Quantity::from_json(&old["status"]["capacity"]["storage"]).unwrap_or(Quantity::ZERO);
    if size(object.value) < size(old) && size(object.value) <= capacity {
        let resources = spec.get("resources");
        let requests = resources.get("requests");
        errors.forbidden(&requests.get("storage"), "field can not be less than status.capacity");
    }
    let root = At::root(spec.value);
    errors.immutable(&root.get("volumeMode"), &old["spec"]["volumeMode"]);
    claim_keeps_attributes_class(&spec, old, errors);
}

/// Once its attributes come from a class, a claim has one.
fn claim_keeps_attributes_class(spec: &At<'_>, old: &Value, errors: &mut Errors) {
    let class = spec.get("volumeAttributesClassName");
    if class.value == &old["spec"]["volumeAttributesClassName"]
        || old["status"]["currentVolumeAttributesClassName"].is_null()
        || !class.text().is_empty()
    {
        return;
    }
    let to = if class.is_null() { "nil" } else { "empty string" };
    let why = "is forbidden when status.currentVolumeAttributesClassName is not nil";
    errors.forbidden(&class, format!("update to {to} {why}"));
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let present = map.iter().filter(|(_, value)| !value.is_null());
            present.map(|(key, value)| (key.clone(), without_nulls(value))).collect()
        }
        Value::Array(list) => list.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

const VOLUME_SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

fn volume(object: &At<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    let modes = spec.get("accessModes");
    if modes.len() == 0 {
        errors.required(&modes, "");
    }
    access_modes(&modes, errors);
    let capacity = spec.get("capacity");
    if capacity.len() == 0 {
        errors.required(&capacity, "");
    }
    if capacity.get("storage").is_null() || capacity.len() > 1 {
        let error = crate::FieldError::not_supported(capacity.path(), capacity.value, &["storage"]);
        errors.0.push(error);
    } else {
        storage_amount(&capacity.key("storage"), errors);
    }
    errors.one_of_if_set(&spec.get("persistentVolumeReclaimPolicy"), &["Delete", "Recycle", "Retain"]);
    let required = spec.get("nodeAffinity");
    let selector = required.get("required");
    if !selector.is_null() {
        scheduling::node_selector(&selector, errors);
    } else if !required.is_null() {
        errors.required(&selector, "must specify required node constraints");
    }
    volume_source(&spec, errors);
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if policy.text() == "Recycle" && spec.value["hostPath"]["path"] == "/" {
        errors.forbidden(&policy, "may not be 'recycle' for a hostPath mount of '/'");
    }
    if !spec.get("storageClassName").text().is_empty() {
        errors.subdomain(&spec.get("storageClassName"));
    }
    errors.one_of_if_set(&spec.get("volumeMode"), &["Block", "Filesystem"]);
}

/// One of what may be behind a volume.
pub(super) fn volume_source(spec: &At<'_>, errors: &mut Errors) {
    let mut sources = VOLUME_SOURCES.iter().filter(|s| !spec.get(s).is_null());
    match sources.next() {
        None => errors.required(spec, "must specify a volume type"),
        Some(source) => {
            super::volumes::persistent_source(source, &spec.get(source), errors);
            let place = spec.get("nodeAffinity");
            if *source == "local" && place.is_null() {
                errors.required(&place, "Local volume requires node affinity");
            }
        }
    }
    for more in sources {
        errors.forbidden(&spec.get(more), "may not specify more than 1 volume type");
    }
}

fn volume_update(object: &At<'_>, old: &Value, errors: &mut Errors) {
    let spec = object.get("spec");
    let source = |s: &Value| VOLUME_SOURCES.iter().map(|f| s[*f].clone()).collect::<Vec<_>>();
    let mut now = spec.value.clone();
    // A volume may get the secret that its driver expands it with.
    if old["spec"]["csi"].is_object()
        && old["spec"]["csi"]["controllerExpandSecretRef"].is_null()
        && let Some(csi) = now["csi"].as_object_mut()
    {
        csi.remove("controllerExpandSecretRef");
    }
    if source(&without_nulls(&now)) != source(&without_nulls(&old["spec"])) {
        let difference = go_json::difference(core_type("PersistentVolumeSource"), &old["spec"], &now);
        let rule = "spec.persistentvolumesource is immutable after creation";
        errors.forbidden(&spec.get("persistentvolumesource"), format!("{rule}\n{difference}"));
    }
    // Upstream names these two without their place in `spec`.
    let root = At::root(spec.value);
    errors.immutable(&root.get("volumeMode"), &old["spec"]["volumeMode"]);
    let (affinity, before) = (root.get("nodeAffinity"), &old["spec"]["nodeAffinity"]);
    if !before.is_null() && affinity.value != before {
        let shown = go_json::internal(core_type("VolumeNodeAffinity"), affinity.value);
        errors.invalid_shown(&affinity, shown, "field is immutable, except for updating from beta label to GA");
    }
}

fn endpoints(object: &At<'_>, errors: &mut Errors) {
    let subsets = object.get("subsets");
    for subset in subsets.items() {
        let (ready, unready) = (subset.get("addresses"), subset.get("notReadyAddresses"));
        if ready.len() + unready.len() == 0 {
            errors.required(&subset, "must specify `addresses` or `notReadyAddresses`");
        }
        for list in [&ready, &unready] {
            for address in list.items() {
                let ip = address.get("ip");
                errors.faults(&ip, names::ip(ip.text()));
                service::special_ip(&ip, errors);
                if !address.get("hostname").text().is_empty() {
                    errors.label(&address.get("hostname"));
                }
            }
        }
        let ports = subset.get("ports");
        for port in ports.items() {
            let name = port.get("name");
            if ports.len() > 1 && name.text().is_empty() {
                errors.required(&name, "");
            } else if !name.text().is_empty() {
                errors.label(&name);
            }
            errors.port_number(&port.get("port"));
            errors.one_of(&port.get("protocol"), &["SCTP", "TCP", "UDP"]);
        }
    }
}

fn limit_range(spec: &At<'_>, errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for limit in spec.get("limits").items() {
        let kind = limit.get("type");
        limit_type(&kind, errors);
        if seen.iter().any(|s| s == kind.text()) {
            errors.duplicate(&kind);
        }
        seen.push(kind.text().to_string());
        if kind.text() == "Pod" {
            for field in ["default", "defaultRequest"] {
                if limit.get(field).len() > 0 {
                    errors.forbidden(&limit.get(field), "may not be specified when `type` is 'Pod'");
                }
            }
        }
        limit_bounds(&limit, errors);
    }
}

fn limit_type(kind: &At<'_>, errors: &mut Errors) {
    // An absent type is an empty one.
    let said = Value::from(kind.text());
    let kind = kind.showing(&said);
    let faults = names::qualified_name(kind.text());
    let is_standard = matches!(kind.text(), "Pod" | "Container" | "PersistentVolumeClaim");
    if faults.is_empty() && !is_standard && !kind.text().contains('/') {
        errors.invalid(&kind, "must be a standard limit type or fully qualified");
    }
    errors.faults(&kind, faults);
}

fn limit_bounds(limit: &At<'_>, errors: &mut Errors) {
    let amount = |field: &str, resource: &str| Quantity::from_json(limit.value.get(field)?.get(resource)?).ok();
    let fields = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
    let mut resources: Vec<&str> = fields
        .iter()
        .flat_map(|f| limit.value[*f].as_object().into_iter().flatten().map(|(k, _)| k.as_str()))
        .collect();
    resources.sort_unstable();
    resources.dedup();
    // Each pair must be in order: what is said, at the lower one, when it is not.
    let pairs = [
        ("min", "max", "min", "max"),
        ("min", "defaultRequest", "min", "default request"),
        ("defaultRequest", "max", "default request", "max"),
        ("min", "default", "min", "default"),
        ("default", "max", "default", "max"),
        ("defaultRequest", "default", "default request", "default limit"),
    ];
    for resource in resources {
        for (low, high, low_name, high_name) in pairs {
            if let (Some(lower), Some(upper)) = (amount(low, resource), amount(high, resource))
                && lower > upper
            {
                // Where the minimum is above a default, the default is to blame.
                let blamed = if low == "min" && high != "max" { high } else { low };
                let list = limit.get(blamed);
                let at = list.key(resource);
                // One of upstream's messages shows the minimum at the default's place.
                let minimum = limit.value.get("min").and_then(|m| m.get(resource)).unwrap_or(&Value::Null);
                let at = if blamed == "default" && low == "min" { at.showing(minimum) } else { at };
                errors.invalid(&at, format!("{low_name} value {lower} is greater than {high_name} value {upper}"));
            }
        }
    }
}

/// How much of each resource a quota grants or counts.
pub fn quota_amounts(amounts: &At<'_>, errors: &mut Errors) {
    for (resource, amount) in amounts.entries() {
        let shown: Value = resource.into();
        let at = amount.showing(&shown);
        errors.faults(&at, names::qualified_name(resource));
        let plain = !resource.contains('/');
        let standard = super::containers::is_standard(resource);
        if plain && !standard {
            errors.invalid(&at, "must be a standard resource type or fully qualified");
        }
        if plain && (!standard || resource == "storage") {
            errors.invalid(&at, "must be a standard resource for quota");
        }
        errors.non_negative_quantity(&amount);
    }
}

fn quota(spec: &At<'_>, errors: &mut Errors) {
    quota_amounts(&spec.get("hard"), errors);
    let scopes = spec.get("scopes");
    for scope in scopes.items() {
        if !SCOPES.contains(&scope.text()) {
            errors.invalid(&scopes, "unsupported scope");
        }
        if misapplied(scope.text(), &spec.get("hard")) {
            errors.invalid(&scopes, MISAPPLIED);
        }
    }
    if conflict(scopes.items().map(|s| s.value.as_str().unwrap_or_default())) {
        errors.invalid(&scopes, "conflicting scopes");
    }
    let selector = spec.get("scopeSelector");
    let expressions = selector.get("matchExpressions");
    for expression in expressions.items() {
        // Upstream's path names the list and not the element.
        let at = |field: &'static str| expressions.get(field);
        scope_expression(&expression, at, errors);
        if misapplied(expression.get("scopeName").text(), &spec.get("hard")) {
            let fault = FieldError::invalid(expressions.path(), &Value::Null, MISAPPLIED);
            errors.0.push(FieldError { value: Some(as_go(selector.value)), ..fault });
        }
        scope_values(&expression, at, errors);
    }
    if conflict(expressions.items().map(|e| e.value["scopeName"].as_str().unwrap_or_default())) {
        errors.invalid(&expressions.showing(&Value::Null), "conflicting scopes");
    }
}

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

fn conflict<'a>(scopes: impl Iterator<Item = &'a str>) -> bool {
    let all: Vec<&str> = scopes.collect();
    let both = |a: &str, b: &str| all.contains(&a) && all.contains(&b);
    both("BestEffort", "NotBestEffort") || both("Terminating", "NotTerminating")
}

const MISAPPLIED: &str = "unsupported scope applied to resource";

fn misapplied(scope: &str, hard: &At<'_>) -> bool {
    hard.entries().any(|(resource, _)| !counts_in(scope, resource))
}

/// A selector of scopes under the names its fields have in upstream's program, where it is quoted whole.
fn as_go(selector: &Value) -> String {
    let expression = |e: &Value| {
        let said = |field: &str| Value::from(e[field].as_str().unwrap_or_default());
        let values = &e["values"];
        format!("{{\"ScopeName\":{},\"Operator\":{},\"Values\":{values}}}", said("scopeName"), said("operator"))
    };
    let list: Vec<String> = selector["matchExpressions"].as_array().into_iter().flatten().map(expression).collect();
    format!("{{\"MatchExpressions\":[{}]}}", list.join(","))
}

/// Whether a scope can tell apart objects that use this resource. Of qualified names nobody knows, and of scopes that
/// are none it is said elsewhere.
fn counts_in(scope: &str, resource: &str) -> bool {
    match (scope, resource) {
        (_, qualified) if qualified.contains('/') => true,
        (unknown, _) if !SCOPES.contains(&unknown) => true,
        ("VolumeAttributesClass", "persistentvolumeclaims" | "requests.storage") => true,
        ("VolumeAttributesClass", _) => false,
        (_, "pods") => true,
        ("BestEffort", _) => false,
        (_, "cpu" | "memory" | "limits.cpu" | "limits.memory" | "requests.cpu" | "requests.memory") => true,
        _ => false,
    }
}

fn scope_expression<'a>(expression: &At<'_>, at: impl Fn(&'static str) -> At<'a>, errors: &mut Errors) {
    let scope = Value::from(expression.get("scopeName").text());
    if !SCOPES.iter().any(|known| scope == *known) {
        errors.invalid(&at("scopeName").showing(&scope), "unsupported scope");
    }
}

fn scope_values<'a>(expression: &At<'_>, at: impl Fn(&'static str) -> At<'a>, errors: &mut Errors) {
    let (scope, values) = (expression.get("scopeName"), expression.get("values"));
    let operator = Value::from(expression.get("operator").text());
    let place = at("operator");
    let operated = place.showing(&operator);
    let takes_values =
        !SCOPES.contains(&scope.text()) || matches!(scope.text(), "PriorityClass" | "VolumeAttributesClass");
    if !takes_values && operator != "Exists" {
        errors.invalid(
            &operated,
            "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
             ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
             ResourceQuotaScopeCrossNamespacePodAffinity",
        );
    }
    match operated.text() {
        "In" | "NotIn" if values.len() == 0 => {
            let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.required(&at("values"), why);
        }
        "Exists" | "DoesNotExist" if values.len() > 0 => {
            let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.invalid(&at("values").showing(values.value), why);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => errors.invalid(&operated, "not a valid selector operator"),
    }
}
