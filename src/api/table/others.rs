//! Rows of access rules, certificates, storage classes, admission, flow control, devices and other cluster kinds.
//!
//! Owns: their cells.
//! Called by: `render`.
//! Never: needs another object.

use serde_json::Value;

use super::{NONE, Row, UNSET, condition, count, human_duration, items, join, labels, number, text, text_or};
use crate::object;

pub(super) fn print(kind: &str, row: &mut Row<'_>) -> bool {
    match kind {
        "RoleBinding" | "ClusterRoleBinding" => role_binding(row),
        "CertificateSigningRequest" => signing_request(row),
        "ClusterTrustBundle" => {
            row.name();
            row.push(text_or(&row.object["spec"]["signerName"], NONE));
        }
        "PodCertificateRequest" => pod_certificate(row),
        "Lease" => {
            row.name();
            row.push(text(&row.object["spec"]["holderIdentity"]));
            row.age();
        }
        "PriorityClass" => {
            row.name();
            row.push(number(&row.object["value"]));
            row.push(row.object["globalDefault"] == true);
            row.age();
            row.push(text(&row.object["preemptionPolicy"]));
        }
        "RuntimeClass" => {
            row.name();
            row.push(text(&row.object["handler"]));
            row.age();
        }
        "FlowSchema" => flow_schema(row),
        "PriorityLevelConfiguration" => priority_level(row),
        "APIService" => api_service(row),
        "StorageVersionMigration" => storage_migration(row),
        _ => return storage(kind, row) || admission(kind, row) || devices(kind, row),
    }
    true
}

fn role_binding(row: &mut Row<'_>) {
    let role = &row.object["roleRef"];
    let of = |kind: &str| {
        let subjects = items(&row.object["subjects"]).iter().filter(|s| s["kind"] == kind);
        let name = |s: &Value| match kind {
            "ServiceAccount" => format!("{}/{}", text(&s["namespace"]), text(&s["name"])),
            _ => text(&s["name"]).to_string(),
        };
        Value::from(subjects.map(name).collect::<Vec<_>>().join(", "))
    };
    let subjects = [of("User"), of("Group"), of("ServiceAccount")];
    row.name();
    row.push(format!("{}/{}", text(&role["kind"]), text(&role["name"])));
    row.age();
    row.extend(subjects);
}

fn signing_request(row: &mut Row<'_>) {
    let request = row.object;
    let spec = &request["spec"];
    let decision = match () {
        _ if condition(request, "Denied").is_some() => "Denied",
        _ if condition(request, "Approved").is_some() => "Approved",
        _ => "Pending",
    };
    let failed = if condition(request, "Failed").is_some() { ",Failed" } else { "" };
    let issued = if text(&request["status"]["certificate"]).is_empty() { "" } else { ",Issued" };
    row.name();
    row.age();
    row.push(text_or(&spec["signerName"], NONE));
    row.push(text(&spec["username"]));
    row.push(spec["expirationSeconds"].as_i64().map_or_else(|| NONE.to_string(), human_duration));
    row.push(format!("{decision}{failed}{issued}"));
}

fn pod_certificate(row: &mut Row<'_>) {
    let spec = &row.object["spec"];
    let mut state = "Pending";
    for found in items(&row.object["status"]["conditions"]) {
        if let known @ ("Issued" | "Denied" | "Failed") = text(&found["type"]) {
            state = known;
        }
    }
    row.name();
    for field in ["podName", "serviceAccountName", "nodeName", "signerName"] {
        row.push(text(&spec[field]));
    }
    row.push(state);
    row.push(labels(&spec["unverifiedUserAnnotations"]));
}

fn flow_schema(row: &mut Row<'_>) {
    let spec = &row.object["spec"];
    row.name();
    row.push(text(&spec["priorityLevelConfiguration"]["name"]));
    row.push(number(&spec["matchingPrecedence"]));
    row.push(text_or(&spec["distinguisherMethod"]["type"], NONE));
    row.age();
    row.push(condition(row.object, "Dangling").map_or("?", |c| text(&c["status"])));
}

fn priority_level(row: &mut Row<'_>) {
    let spec = &row.object["spec"];
    let or_none = |value: &Value| if value.is_null() { Value::from(NONE) } else { value.clone() };
    let limited = &spec["limited"];
    let queuing = &limited["limitResponse"]["queuing"];
    row.name();
    row.push(text(&spec["type"]));
    row.push(or_none(&limited["nominalConcurrencyShares"]));
    for field in ["queues", "handSize", "queueLengthLimit"] {
        row.push(or_none(&queuing[field]));
    }
    row.age();
}

fn api_service(row: &mut Row<'_>) {
    let service = &row.object["spec"]["service"];
    let available = condition(row.object, "Available").map_or("Unknown".to_string(), |c| {
        let (status, reason) = (text(&c["status"]), text(&c["reason"]));
        if status == "True" || reason.is_empty() { status.into() } else { format!("{status} ({reason})") }
    });
    row.name();
    row.push(if service.is_null() {
        "Local".to_string()
    } else {
        format!("{}/{}", text(&service["namespace"]), text(&service["name"]))
    });
    row.push(available);
    row.age();
}

fn storage_migration(row: &mut Row<'_>) {
    let resource = &row.object["spec"]["resource"];
    let parts = [text(&resource["resource"]), text(&resource["group"])];
    let mut state = "Unknown";
    for found in items(&row.object["status"]["conditions"]).iter().filter(|c| c["status"] == "True") {
        if let known @ ("Running" | "Failed" | "Succeeded") = text(&found["type"]) {
            state = known;
        }
    }
    row.name();
    row.push(parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("."));
    row.push(state);
}

fn storage(kind: &str, row: &mut Row<'_>) -> bool {
    let spec = &row.object["spec"];
    match kind {
        "StorageClass" => {
            let class = row.object;
            row.name();
            row.push(text(&class["provisioner"]));
            row.push(text_or(&class["reclaimPolicy"], "Delete"));
            row.push(text_or(&class["volumeBindingMode"], "Immediate"));
            row.push(class["allowVolumeExpansion"] == true);
            row.age();
        }
        "VolumeAttributesClass" => {
            row.name();
            row.push(text(&row.object["driverName"]));
            row.age();
        }
        "VolumeAttachment" => {
            row.name();
            row.push(text(&spec["attacher"]));
            row.push(text(&spec["source"]["persistentVolumeName"]));
            row.push(text(&spec["nodeName"]));
            row.push(row.object["status"]["attached"] == true);
            row.age();
        }
        "CSINode" => {
            row.name();
            row.push(count(&spec["drivers"]));
            row.age();
        }
        "CSIDriver" => {
            let audiences: Vec<&str> = items(&spec["tokenRequests"]).iter().map(|t| text(&t["audience"])).collect();
            let modes = join(&spec["volumeLifecycleModes"]);
            row.name();
            row.push(spec["attachRequired"] != false);
            row.push(spec["podInfoOnMount"] == true);
            row.push(spec["storageCapacity"] == true);
            row.push(if spec["tokenRequests"].is_null() { UNSET.into() } else { audiences.join(",") });
            row.push(spec["requiresRepublish"] == true);
            row.push(if modes.is_empty() { NONE.into() } else { modes });
            row.age();
        }
        _ => return false,
    }
    true
}

/// A selector as the `String` method of upstream's generated type writes it.
fn selector_as_go_prints(selector: &Value) -> String {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let labels: String = labels.map(|(key, value)| format!("{key}: {},", text(value))).collect();
    let one = |e: &Value| {
        let values: Vec<&str> = items(&e["values"]).iter().map(text).collect();
        let (key, operator) = (text(&e["key"]), text(&e["operator"]));
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},", values.join(" "))
    };
    let expressions: String = items(&selector["matchExpressions"]).iter().map(one).collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

fn admission(kind: &str, row: &mut Row<'_>) -> bool {
    let spec = &row.object["spec"];
    match kind {
        "CustomResourceDefinition" => {
            let names = &spec["names"];
            let served = items(&spec["versions"]).iter().filter(|v| v["served"] == true);
            let stored = |v: &Value| if v["storage"] == true { "(storage)" } else { "" };
            let mut versions: Vec<String> = served.map(|v| format!("{}{}", text(&v["name"]), stored(v))).collect();
            versions.sort();
            row.name();
            row.push(text(&spec["scope"]));
            row.push(versions.join(","));
            row.push(row.object["metadata"]["creationTimestamp"].clone());
            row.push(text(&spec["group"]));
            row.push(text(&names["kind"]));
            row.push(join(&names["shortNames"]));
            row.push(condition(row.object, "Established").is_some_and(|c| c["status"] == "True"));
            return true;
        }
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            row.name();
            row.push(count(&row.object["webhooks"]));
        }
        "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" => {
            let kind = &spec["paramKind"];
            let rules =
                if row.object["spec"]["mutations"].is_null() { &spec["validations"] } else { &spec["mutations"] };
            row.name();
            row.push(count(rules));
            row.push(if kind.is_null() {
                UNSET.to_string()
            } else {
                format!("{}/{}", text(&kind["apiVersion"]), text(&kind["kind"]))
            });
        }
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => {
            let parameter = &spec["paramRef"];
            row.name();
            row.push(text(&spec["policyName"]));
            row.push(match (text(&parameter["name"]), text(&parameter["namespace"])) {
                ("", _) if parameter["selector"].is_object() => selector_as_go_prints(&parameter["selector"]),
                ("", _) => UNSET.to_string(),
                (name, "") => format!("*/{name}"),
                (name, namespace) => format!("{namespace}/{name}"),
            });
        }
        _ => return false,
    }
    row.age();
    true
}

fn devices(kind: &str, row: &mut Row<'_>) -> bool {
    let spec = &row.object["spec"];
    match kind {
        "DeviceClass" | "ResourceClaimTemplate" => row.name(),
        "ResourceClaim" => {
            let (deleting, status) = (object::is_deleting(row.object), &row.object["status"]);
            let mut states = Vec::new();
            if deleting {
                states.push("deleted");
            }
            if status["allocation"].is_null() {
                if !deleting {
                    states.push("pending");
                }
            } else {
                states.push("allocated");
                if !items(&status["reservedFor"]).is_empty() {
                    states.push("reserved");
                }
            }
            row.name();
            row.push(states.join(","));
        }
        "ResourceSlice" => {
            row.name();
            row.push(text(&spec["nodeName"]));
            row.push(text(&spec["driver"]));
            row.push(text(&spec["pool"]["name"]));
        }
        "DeviceTaintRule" => {
            let taint = &spec["taint"];
            row.name();
            for field in ["key", "value", "effect"] {
                row.push(text(&taint[field]));
            }
            let added = &taint["timeAdded"];
            row.push(if added.is_null() { String::new() } else { row.since(added) });
        }
        _ => return false,
    }
    row.age();
    true
}
