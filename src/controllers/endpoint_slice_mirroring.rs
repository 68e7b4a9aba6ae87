//! Endpoints that somebody wrote by hand, mirrored as EndpointSlices, because kube-proxy reads only those.
//!
//! Owns: the mirrors of Endpoints whose Service has no selector.
//! Called by: the driver.
//! Never: mirrors what asks not to be (`endpointslice.kubernetes.io/skip-mirror`) or what a controller made.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use minik_api::resources::{ENDPOINTS, ENDPOINTSLICES, SERVICES};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Object, Plan, Reconciler, View};
use serde_json::{Value, json};

use crate::endpoint_slices::{MANAGED_BY, SERVICE_NAME};
use crate::fields::{list, same, text};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Addresses mirrored of one subset; upstream's number.
const ADDRESSES_MAX: usize = 1000;

pub(crate) struct EndpointSliceMirroring;

impl Reconciler for EndpointSliceMirroring {
    fn name(&self) -> &'static str {
        "endpointslicemirroring"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[ENDPOINTS, SERVICES, ENDPOINTSLICES]
    }
    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource != ENDPOINTSLICES {
            return vec![change.key.clone()];
        }
        let ours = |s: &&Arc<Object>| object::label(s, MANAGED_BY) == Some(MANAGER);
        let mut sides = change.sides().filter(ours);
        let name = sides.find_map(|s| object::label(s, SERVICE_NAME));
        name.map(|n| ObjectKey::new(&change.key.namespace, n)).into_iter().collect()
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let ours = |s: &&Arc<Object>| {
            object::label(s, MANAGED_BY) == Some(MANAGER) && object::label(s, SERVICE_NAME) == Some(&key.name)
        };
        let existing: Vec<&Arc<Object>> = view.list(ENDPOINTSLICES, &key.namespace).filter(ours).collect();
        let wanted = match (view.get_key(ENDPOINTS, key), view.get_key(SERVICES, key)) {
            (Some(endpoints), Some(service)) if is_mirrored(endpoints, service) => slices(endpoints),
            _ => Vec::new(),
        };
        let mut actions = Vec::new();
        let mut left = existing;
        for slice in wanted {
            let fits =
                |s: &&Arc<Object>| s["addressType"] == slice["addressType"] && same(&s["ports"], &slice["ports"]);
            match left.iter().position(fits) {
                None => actions.push(Action::create(ENDPOINTSLICES, slice)),
                Some(at) => {
                    let old = left.remove(at);
                    let mut changed = old.value().clone();
                    changed["endpoints"] = slice["endpoints"].clone();
                    changed["metadata"]["labels"] = slice["metadata"]["labels"].clone();
                    if !same(&changed, old) {
                        actions.extend(Action::replace(ENDPOINTSLICES, "", old, changed));
                    }
                }
            }
        }
        actions.extend(left.into_iter().map(|s| Action::delete(ENDPOINTSLICES, s)));
        Plan::of(actions)
    }
}

fn is_mirrored(endpoints: &Value, service: &Value) -> bool {
    object::label(endpoints, SKIP) != Some("true")
        && object::annotation(endpoints, "control-plane.alpha.kubernetes.io/leader").is_none()
        && !service["spec"]["selector"].is_object()
        && !object::is_deleting(endpoints)
}

/// One for each subset and family of addresses.
fn slices(endpoints: &Object) -> Vec<Value> {
    let mut slices = Vec::new();
    for subset in list(&endpoints["subsets"]) {
        let mut families: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        let ready = list(&subset["addresses"]).iter().map(|a| (a, true));
        let unready = list(&subset["notReadyAddresses"]).iter().map(|a| (a, false));
        for (address, ready) in ready.chain(unready).take(ADDRESSES_MAX) {
            let family = if text(&address["ip"]).contains(':') { "IPv6" } else { "IPv4" };
            families.entry(family).or_default().push(endpoint(address, ready));
        }
        let port = |p: &Value| {
            let mut port = p.clone();
            port["name"] = text(&p["name"]).into();
            port
        };
        let ports: Vec<Value> = list(&subset["ports"]).iter().map(port).collect();
        for (family, all) in families {
            slices.push(slice(endpoints, family, all, &ports));
        }
    }
    slices
}

fn endpoint(address: &Value, ready: bool) -> Value {
    let mut endpoint = json!({"addresses": [address["ip"]], "conditions": {"ready": ready}});
    for field in ["hostname", "nodeName", "targetRef"] {
        if !address[field].is_null() {
            endpoint[field] = address[field].clone();
        }
    }
    endpoint
}

fn slice(endpoints: &Object, family: &str, all: Vec<Value>, ports: &[Value]) -> Value {
    let mut labels = endpoints["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), object::name(endpoints).into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let owner = json!({
        "apiVersion": "v1", "kind": "Endpoints", "name": object::name(endpoints), "uid": object::uid(endpoints),
        "controller": true, "blockOwnerDeletion": true,
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": {"namespace": object::namespace(endpoints), "generateName": format!("{}-", object::name(endpoints)),
                     "labels": labels, "ownerReferences": [owner]},
        "endpoints": all, "ports": ports,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(selector: Value) -> String {
        let endpoints = json!({"metadata": {"namespace": "d", "name": "out", "uid": "e"},
            "subsets": [{"addresses": [{"ip": "1.2.3.4"}, {"ip": "fd00::1"}], "ports": [{"port": 80}]}]});
        let service = json!({"metadata": {"namespace": "d", "name": "out"}, "spec": {"selector": selector}});
        let view = View::of([(ENDPOINTS, endpoints), (SERVICES, service)]);
        EndpointSliceMirroring.plan(&view, &ObjectKey::new("d", "out"), Timestamp::UNIX_EPOCH).to_string()
    }

    #[test]
    fn each_family_has_a_mirror_unless_the_service_selects_pods() {
        assert_eq!(plan(Value::Null), "create endpointslices d/out-*\ncreate endpointslices d/out-*\n");
        assert_eq!(plan(json!({"a": "b"})), "");
    }
}
