//! Rules of disruption budgets, leases, priorities and other kinds of their own.
//!
//! Owns: those kinds.
//! Called by: `validation`.
//! Never: looks at another object.

use serde_json::Value;

use super::check::{At, Errors};
use super::{core_type, definition};
use crate::{go_json, names};

pub fn create(kind: &str, object: &At<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    match kind {
        "PodDisruptionBudget" => disruption_budget(&spec, errors),
        "Lease" => lease(&spec, errors),
        "PriorityClass" => priority_class(object, errors),
        "RuntimeClass" => {
            errors.required_name(&object.get("handler"), names::dns1123_label);
            let scheduling = object.get("scheduling");
            for_nodes(&scheduling, errors);
        }
        "StorageVersionMigration" => {
            let resource = spec.get("resource");
            let (group, plural) = (resource.get("group"), resource.get("resource"));
            if plural.text().is_empty() {
                errors.required(&plural, "resource is required to be set");
            } else {
                errors.faults(&plural, names::dns1035_label(plural.text()));
            }
            if !group.text().is_empty() {
                errors.subdomain(&group);
            }
        }
        "APIService" => api_service(object, errors),
        "CustomResourceDefinition" => definition::create(object, errors),
        "Scale" => errors.non_negative(&spec.get("replicas")),
        _ => {}
    }
}

pub fn update(kind: &str, object: &At<'_>, old: &Value, errors: &mut Errors) {
    match kind {
        "PriorityClass" => {
            if object.get("value").value != &old["value"] {
                errors.forbidden(&object.get("value"), "may not be changed in an update.");
            }
            return errors.immutable(&object.get("preemptionPolicy"), &old["preemptionPolicy"]);
        }
        "CustomResourceDefinition" => return definition::update(object, old, errors),
        "RuntimeClass" => errors.immutable(&object.get("handler"), &old["handler"]),
        _ => {}
    }
    create(kind, object, errors);
}

/// On which nodes Pods of a runtime class may be.
fn for_nodes(scheduling: &At<'_>, errors: &mut Errors) {
    let selector = scheduling.get("nodeSelector");
    for (key, value) in selector.entries() {
        errors.faults(&selector.showing(&key.into()), names::qualified_name(key));
        errors.faults(&selector.showing(value.value), names::label_value(value.text()));
    }
    let tolerations = scheduling.get("tolerations");
    super::scheduling::tolerations(&tolerations, errors);
    for (i, toleration) in tolerations.items().enumerate() {
        if tolerations.items().take(i).any(|other| other.value == toleration.value) {
            errors.duplicate_shown(&toleration, go_json::internal(core_type("Toleration"), toleration.value));
        }
    }
}

/// The aggregator's own limits: its group precedes all others.
const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1000;

/// What an APIService must be called.
pub fn api_service_name(object: &Value) -> String {
    let text = |field: &str| object["spec"][field].as_str().unwrap_or("");
    format!("{}.{}", text("version"), text("group"))
}

fn api_service(object: &At<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    let (group, version) = (spec.get("group"), spec.get("version"));
    if group.text().is_empty() {
        if version.text() != "v1" {
            errors.required(&group, "only v1 may have an empty group and it better be legacy kube");
        }
    } else {
        errors.subdomain(&group);
    }
    errors.faults(&version.showing(&version.text().into()), names::dns1035_label(version.text()));
    for (field, max) in [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)] {
        let (at, number) = (spec.get(field), spec.get(field).number().unwrap_or(0));
        if number <= 0 || number > max {
            errors.invalid(&at.showing(&number.into()), format!("must be positive and less than {max}"));
        }
    }
    let (bundle, insecure, service) = (spec.get("caBundle"), spec.get("insecureSkipTLSVerify"), spec.get("service"));
    if service.is_null() {
        if !bundle.text().is_empty() {
            let shown = format!("{} bytes", decoded_length(bundle.text()));
            errors.invalid(&bundle.showing(&shown.into()), "local APIServices may not have a caBundle");
        }
        if insecure.is_true() {
            errors.invalid(&insecure, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    for field in ["namespace", "name"] {
        if service.get(field).text().is_empty() {
            errors.required(&service.get(field), "");
        }
    }
    let port = service.get("port");
    for fault in names::port_number(port.number().unwrap_or(0)) {
        errors.invalid(&port, format!("port is not valid: {fault}"));
    }
    if insecure.is_true() && !bundle.text().is_empty() {
        errors.invalid(&insecure, "may not be true if caBundle is present");
    }
}

/// What base64 of this length holds.
fn decoded_length(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

fn disruption_budget(spec: &At<'_>, errors: &mut Errors) {
    let (available, unavailable) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    if !available.is_null() && !unavailable.is_null() {
        let [selector, policy] = ["selector", "unhealthyPodEvictionPolicy"].map(|f| &spec.value[f]);
        let shown = format!(
            "{{\"MinAvailable\":{},\"Selector\":{selector},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{policy}}}",
            available.value, unavailable.value
        );
        errors.invalid_shown(spec, shown, "minAvailable and maxUnavailable cannot be both set");
    }
    for at in [&available, &unavailable] {
        if !at.is_null() {
            errors.int_or_percent(at);
            errors.at_most_all(at);
        }
    }
    errors.label_selector(&spec.get("selector"));
    errors.one_of_if_set(&spec.get("unhealthyPodEvictionPolicy"), &["AlwaysAllow", "IfHealthyBudget"]);
}

fn lease(spec: &At<'_>, errors: &mut Errors) {
    let (duration, transitions) = (spec.get("leaseDurationSeconds"), spec.get("leaseTransitions"));
    if duration.number().is_some_and(|d| d <= 0) {
        errors.invalid(&duration, "must be greater than 0");
    }
    if transitions.number().is_some_and(|t| t < 0) {
        errors.invalid(&transitions, "must be greater than or equal to 0");
    }
    if !spec.get("preferredHolder").text().is_empty() && spec.get("strategy").text().is_empty() {
        errors.forbidden(&spec.get("preferredHolder"), "may only be specified if `strategy` is defined");
    }
}

/// The highest priority that is not the system's own.
const PRIORITY_MAX: i64 = 1_000_000_000;

fn priority_class(object: &At<'_>, errors: &mut Errors) {
    let name = crate::object::name(object.value);
    let system = matches!(name, "system-node-critical" | "system-cluster-critical");
    let value = object.get("value");
    if !system && name.starts_with("system-") {
        let metadata = object.get("metadata");
        let rule = "priority class names with 'system-' prefix are reserved for system use only. error: ";
        errors.forbidden(&metadata.get("name"), format!("{rule}{name} is not a known system priority class"));
    } else if !system && value.number().is_some_and(|v| v > PRIORITY_MAX) {
        let rule = format!("maximum allowed value of a user defined priority is {PRIORITY_MAX}");
        errors.forbidden(&value, rule);
    }
    let preemption = object.get("preemptionPolicy");
    if !preemption.is_null() {
        errors.one_of(&preemption, &["PreemptLowerPriority", "Never"]);
    }
}
