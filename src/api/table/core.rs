//! Rows of nodes, namespaces, configuration, storage and events.
//!
//! Owns: their cells.
//! Called by: `render`.
//! Never: shows a Secret's data, only how much there is.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{NONE, Row, UNKNOWN, UNSET, condition, count, items, number, text, text_or};
use crate::object;

pub(super) fn print(kind: &str, row: &mut Row<'_>) -> bool {
    match kind {
        "Node" => node(row),
        "Namespace" => {
            row.name();
            row.push(text(&row.object["status"]["phase"]));
            row.age();
        }
        "ConfigMap" => {
            row.name();
            row.push(count(&row.object["data"]) + count(&row.object["binaryData"]));
            row.age();
        }
        "Secret" => {
            row.name();
            row.push(text(&row.object["type"]));
            row.push(count(&row.object["data"]));
            row.age();
        }
        "ServiceAccount" => {
            row.name();
            row.age();
        }
        "Event" => event(row),
        "PersistentVolume" => volume(row),
        "PersistentVolumeClaim" => claim(row),
        "ResourceQuota" => quota(row),
        "ComponentStatus" => component_status(row),
        _ => return false,
    }
    true
}

fn roles(node: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in node["metadata"]["labels"].as_object().into_iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/") {
            roles.insert(role);
        } else if key == "kubernetes.io/role" {
            roles.insert(text(value));
        }
    }
    let roles: Vec<&str> = roles.into_iter().filter(|r| !r.is_empty()).collect();
    if roles.is_empty() { NONE.into() } else { roles.join(",") }
}

fn node(row: &mut Row<'_>) {
    let node = row.object;
    let (info, status) = (&node["status"]["nodeInfo"], &node["status"]);
    let ready =
        condition(node, "Ready").map_or("Unknown", |c| if c["status"] == "True" { "Ready" } else { "NotReady" });
    let cordoned = if node["spec"]["unschedulable"] == true { ",SchedulingDisabled" } else { "" };
    let address = |kind: &str| {
        let found = items(&status["addresses"]).iter().find(|a| a["type"] == kind);
        found.map_or(NONE, |a| text(&a["address"])).to_string()
    };
    let mut kernel = text_or(&info["kernelVersion"], UNKNOWN);
    if let Some(architecture) = info["architecture"].as_str().filter(|a| !a.is_empty()) {
        kernel.push_str(&format!(" ({architecture})"));
    }
    row.name();
    row.push(format!("{ready}{cordoned}"));
    row.push(roles(node));
    row.age();
    row.push(text(&info["kubeletVersion"]));
    row.push(address("InternalIP"));
    row.push(address("ExternalIP"));
    row.push(text_or(&info["osImage"], UNKNOWN));
    row.push(kernel);
    row.push(text_or(&info["containerRuntimeVersion"], UNKNOWN));
}

/// The first of these fields that says something: events.k8s.io names them differently.
fn either<'a>(event: &'a Value, fields: [&str; 2]) -> &'a Value {
    let first = &event[fields[0]];
    if first.is_null() { &event[fields[1]] } else { first }
}

fn event(row: &mut Row<'_>) {
    let event = row.object;
    let involved = either(event, ["involvedObject", "regarding"]);
    let source = either(event, ["source", "deprecatedSource"]);
    let first = either(event, ["firstTimestamp", "deprecatedFirstTimestamp"]);
    let last = either(event, ["lastTimestamp", "deprecatedLastTimestamp"]);
    let first = row.since(if first.is_null() { &event["eventTime"] } else { first });
    let mut seen = if last.is_null() { first.clone() } else { row.since(last) };
    let mut times = number(either(event, ["count", "deprecatedCount"])).max(1);
    if event["series"].is_object() {
        seen = row.since(&event["series"]["lastObservedTime"]);
        times = number(&event["series"]["count"]);
    }
    let kind = text(&involved["kind"]).to_lowercase();
    let target = match text(&involved["name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = text_or(&source["component"], text(either(event, ["reportingComponent", "reportingController"])));
    let host = text_or(&source["host"], text(&event["reportingInstance"]));
    row.push(seen);
    row.push(text(&event["type"]));
    row.push(text(&event["reason"]));
    row.push(target);
    row.push(text(&involved["fieldPath"]));
    row.push(if host.is_empty() { component } else { format!("{component}, {host}") });
    row.push(text(either(event, ["message", "note"])).trim());
    row.push(first);
    row.push(times);
    row.push(object::name(event));
}

fn access_modes(modes: &Value) -> String {
    let all =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| items(modes).iter().any(|m| m == mode);
    all.into_iter().filter(|(mode, _)| has(mode)).map(|(_, short)| short).collect::<Vec<_>>().join(",")
}

/// The class by its old annotation, else by its field.
fn class(object: &Value) -> String {
    let old = object::annotation(object, "volume.beta.kubernetes.io/storage-class");
    old.unwrap_or(text(&object["spec"]["storageClassName"])).to_string()
}

fn phase(object: &Value) -> String {
    if object::is_deleting(object) { "Terminating".into() } else { text(&object["status"]["phase"]).into() }
}

fn volume(row: &mut Row<'_>) {
    let volume = row.object;
    let (spec, claim) = (&volume["spec"], &volume["spec"]["claimRef"]);
    row.name();
    row.push(text_or(&spec["capacity"]["storage"], "0"));
    row.push(access_modes(&spec["accessModes"]));
    row.push(text(&spec["persistentVolumeReclaimPolicy"]));
    row.push(phase(volume));
    let claim =
        if claim.is_null() { String::new() } else { format!("{}/{}", text(&claim["namespace"]), text(&claim["name"])) };
    row.push(claim);
    row.push(class(volume));
    row.push(text_or(&spec["volumeAttributesClassName"], UNSET));
    row.push(text(&volume["status"]["reason"]));
    row.age();
    row.push(text_or(&spec["volumeMode"], UNSET));
}

fn claim(row: &mut Row<'_>) {
    let claim = row.object;
    let (spec, status) = (&claim["spec"], &claim["status"]);
    let volume = text(&spec["volumeName"]);
    row.name();
    row.push(phase(claim));
    row.push(volume);
    row.push(if volume.is_empty() { String::new() } else { text_or(&status["capacity"]["storage"], "0") });
    row.push(if volume.is_empty() { String::new() } else { access_modes(&status["accessModes"]) });
    row.push(class(claim));
    row.push(text_or(&spec["volumeAttributesClassName"], UNSET));
    row.age();
    row.push(text_or(&spec["volumeMode"], UNSET));
}

fn quota(row: &mut Row<'_>) {
    let status = &row.object["status"];
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in status["hard"].as_object().into_iter().flatten() {
        let used = text_or(&status["used"][resource], "0");
        let cell = format!("{resource}: {used}/{}", text(hard));
        if resource.starts_with("limits.") { limits.push(cell) } else { requests.push(cell) }
    }
    row.name();
    row.push(requests.join(", "));
    row.push(limits.join(", "));
    row.age();
}

fn component_status(row: &mut Row<'_>) {
    let healthy = items(&row.object["conditions"]).iter().find(|c| c["type"] == "Healthy");
    row.name();
    row.push(healthy.map_or("Unknown", |c| if c["status"] == "True" { "Healthy" } else { "Unhealthy" }));
    row.push(healthy.map_or("", |c| text(&c["message"])));
    row.push(healthy.map_or("", |c| text(&c["error"])));
}
