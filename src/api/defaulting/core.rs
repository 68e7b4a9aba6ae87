//! Defaults of the other core kinds: Services, Secrets, volumes, namespaces, nodes, limits.
//!
//! Owns: those kinds, and fields that are two spellings of one thing.
//! Called by: the walk in `defaulting`.
//! Never: allocates addresses or ports.

use base64::Engine;
use serde_json::{Map, Value, json};

use super::{Object, each, if_absent, if_empty, inside, is_empty, text};

pub(super) fn complete(name: &str, object: &mut Object) {
    match name {
        "Service" => service(object),
        "Secret" => secret(object),
        "ReplicationController" => replication_controller(object),
        "PersistentVolume" => {
            if_empty(inside(object, "status"), "phase", "Pending");
            let spec = inside(object, "spec");
            if_empty(spec, "persistentVolumeReclaimPolicy", "Retain");
            if_absent(spec, "volumeMode", "Filesystem");
        }
        "PersistentVolumeClaim" => if_empty(inside(object, "status"), "phase", "Pending"),
        "PersistentVolumeClaimSpec" => if_absent(object, "volumeMode", "Filesystem"),
        "EndpointSubset" => each(object, "ports").for_each(|port| if_empty(port, "protocol", "TCP")),
        "Namespace" => namespace(object),
        "NamespaceStatus" => if_empty(object, "phase", "Active"),
        "NodeSpec" => node_spec(object),
        "NodeStatus" => {
            if let (true, Some(capacity)) = (is_empty(object, "allocatable"), object.get("capacity").cloned()) {
                object.insert("allocatable".into(), capacity);
            }
        }
        "LimitRangeItem" => limit_range_item(object),
        _ => {}
    }
}

fn service(service: &mut Object) {
    let spec = inside(service, "spec");
    if_empty(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            // Three hours.
            if_absent(inside(inside(spec, "sessionAffinityConfig"), "clientIP"), "timeoutSeconds", 10_800);
        }
        _ => {}
    }
    if_empty(spec, "type", "ClusterIP");
    for port in each(spec, "ports") {
        if_empty(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or(0.into());
        if_empty(port, "targetPort", number);
    }
    let kind = text(spec, "type").to_string();
    let outside =
        matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && !is_empty(spec, "externalIPs"));
    if outside {
        if_empty(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        if_absent(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        if_absent(spec, "allocateLoadBalancerNodePorts", true);
        if let Some(Value::Object(status)) = service.get_mut("status") {
            for ingress in each(inside(status, "loadBalancer"), "ingress") {
                if !is_empty(ingress, "ip") {
                    if_absent(ingress, "ipMode", "VIP");
                }
            }
        }
    }
}

/// `stringData` is write-only: it lands in `data`.
fn secret(secret: &mut Object) {
    if_empty(secret, "type", "Opaque");
    if let Some(Value::Object(plain)) = secret.remove("stringData") {
        let data = inside(secret, "data");
        for (key, value) in plain {
            let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, encoded.into());
        }
        if data.is_empty() {
            secret.remove("data");
        }
    }
}

fn replication_controller(controller: &mut Object) {
    let labels = controller.get("spec").map(|s| s["template"]["metadata"]["labels"].clone()).unwrap_or_default();
    if labels.as_object().is_none_or(Map::is_empty) {
        return;
    }
    if_empty(inside(controller, "spec"), "selector", labels.clone());
    if_empty(inside(controller, "metadata"), "labels", labels);
}

fn namespace(namespace: &mut Object) {
    let metadata = inside(namespace, "metadata");
    let name = text(metadata, "name").to_string();
    if !name.is_empty() {
        inside(metadata, "labels").insert("kubernetes.io/metadata.name".into(), name.into());
    }
}

fn node_spec(spec: &mut Object) {
    let first = spec.get("podCIDRs").and_then(|c| c[0].as_str()).unwrap_or("").to_string();
    match text(spec, "podCIDR").to_string() {
        single if single.is_empty() && !first.is_empty() => {
            spec.insert("podCIDR".into(), first.into());
        }
        single if single != first => {
            spec.insert("podCIDRs".into(), json!([single]));
        }
        _ => {}
    }
}

fn limit_range_item(item: &mut Object) {
    if text(item, "type") != "Container" {
        return;
    }
    let list = |item: &Object, field: &str| item.get(field).and_then(Value::as_object).cloned().unwrap_or_default();
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let source = list(item, from);
        if !source.is_empty() {
            let target = inside(item, to);
            for (resource, amount) in source {
                target.entry(resource).or_insert(amount);
            }
        }
    }
}
