//! Which Pods stand behind a Service, and on which ports.
//!
//! Owns: selection, the resolution of target ports, the addresses by family, which changes matter.
//! Called by: the controllers of Endpoints and EndpointSlices.
//! Never: writes either.

use std::sync::Arc;

use minik_api::resources::{NODES, PODS, SERVICES};
use minik_api::selector::LabelSelector;
use minik_api::{ObjectKey, object};
use minik_client::{Change, Object, View};
use serde_json::{Value, json};

use crate::fields::{list, text};
use crate::pods::{is_ready, is_terminal};

pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

/// The Service's selector, unless it has none or is only a name for something outside.
pub(crate) fn selector(service: &Value) -> Option<LabelSelector> {
    let map = &service["spec"]["selector"];
    let selects = map.is_object() && service["spec"]["type"] != "ExternalName";
    selects.then(|| LabelSelector::from_map(map))
}

pub(crate) fn is_headless(service: &Value) -> bool {
    matches!(text(&service["spec"]["clusterIP"]), "" | "None")
}

/// Pods with an address that have not ended, in order of name.
pub(crate) fn pods<'a>(view: &'a View, service: &'a Value, selector: &LabelSelector) -> Vec<&'a Arc<Object>> {
    let in_it = |pod: &&Arc<Object>| {
        selector.matches(&pod["metadata"]["labels"]) && !is_terminal(pod) && !text(&pod["status"]["podIP"]).is_empty()
    };
    view.list(PODS, object::namespace(service)).filter(in_it).collect()
}

/// Services a change concerns.
pub(crate) fn keys(view: &View, change: &Change) -> Vec<ObjectKey> {
    match change.resource {
        SERVICES => vec![change.key.clone()],
        PODS => {
            if let (Some(old), Some(new)) = (&change.old, &change.new)
                && same_behind_a_service(old, new)
            {
                return Vec::new();
            }
            let selected = |service: &&Arc<Object>| {
                let Some(selector) = selector(service) else { return false };
                change.sides().any(|pod| selector.matches(&pod["metadata"]["labels"]))
            };
            view.list(SERVICES, &change.key.namespace).filter(selected).map(|s| s.key()).collect()
        }
        NODES => {
            let zone = |n: &Option<Arc<Object>>| n.as_ref().map(|n| n["metadata"]["labels"][ZONE].clone());
            if zone(&change.old) == zone(&change.new) {
                return Vec::new();
            }
            view.list(SERVICES, "").filter(|s| selector(s).is_some()).map(|s| s.key()).collect()
        }
        _ => Vec::new(),
    }
}

fn same_behind_a_service(old: &Value, new: &Value) -> bool {
    let parts = |pod: &Value| {
        let status = &pod["status"];
        let names = (pod["spec"]["nodeName"].clone(), pod["spec"]["hostname"].clone(), object::uid(pod).to_string());
        let flags = (is_ready(pod), is_terminal(pod), object::is_deleting(pod));
        (names, flags, status["podIPs"].clone(), status["podIP"].clone(), pod["metadata"]["labels"].clone())
    };
    parts(old) == parts(new)
}

/// The number a Service's port has on this Pod: `targetPort`, by number or by the name of a container's port.
pub(crate) fn target_port(pod: &Value, port: &Value) -> Option<i64> {
    match &port["targetPort"] {
        Value::Number(n) if n.as_i64() != Some(0) => n.as_i64(),
        Value::String(name) => {
            let sidecar = |c: &&Value| c["restartPolicy"] == "Always";
            let sidecars = list(&pod["spec"]["initContainers"]).iter().filter(sidecar);
            let ports = list(&pod["spec"]["containers"]).iter().chain(sidecars).flat_map(|c| list(&c["ports"]));
            let protocol = |p: &Value| p["protocol"].as_str().unwrap_or("TCP").to_string();
            let named = |p: &&Value| p["name"] == name.as_str() && protocol(p) == protocol(port);
            ports.into_iter().find(named)?["containerPort"].as_i64()
        }
        _ => port["port"].as_i64(),
    }
}

/// Addresses of one family, `IPv4` or `IPv6`.
pub(crate) fn addresses(pod: &Value, family: &str) -> Vec<String> {
    let of_family = |ip: &&str| ip.contains(':') == (family == "IPv6");
    let all = list(&pod["status"]["podIPs"]).iter().filter_map(|p| p["ip"].as_str());
    let ips: Vec<String> = all.filter(of_family).map(String::from).collect();
    if !ips.is_empty() {
        return ips;
    }
    pod["status"]["podIP"].as_str().iter().filter(|ip| of_family(ip)).map(|ip| (*ip).to_string()).collect()
}

pub(crate) fn families(service: &Value) -> Vec<&str> {
    let families: Vec<&str> = list(&service["spec"]["ipFamilies"]).iter().filter_map(Value::as_str).collect();
    if families.is_empty() { vec!["IPv4"] } else { families }
}

pub(crate) fn hostname<'a>(pod: &'a Value, service: &Value) -> Option<&'a str> {
    let name = text(&pod["spec"]["hostname"]);
    (!name.is_empty() && pod["spec"]["subdomain"] == object::name(service)).then_some(name)
}

pub(crate) fn target_ref(pod: &Value) -> Value {
    json!({"kind": "Pod", "namespace": object::namespace(pod), "name": object::name(pod), "uid": object::uid(pod)})
}

pub(crate) fn publishes_unready(service: &Value) -> bool {
    service["spec"]["publishNotReadyAddresses"] == true
}
