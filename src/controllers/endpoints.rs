//! Endpoints: the older list of addresses behind a Service.
//!
//! Owns: one Endpoints object for each Service with a selector.
//! Called by: the driver.
//! Never: touches the Endpoints of a Service without a selector: those are somebody's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use minik_api::resources::{ENDPOINTS, NODES, PODS, SERVICES};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Object, Plan, Reconciler, View};
use serde_json::{Map, Value, json};

use crate::fields::{list, same, text};
use crate::pods::is_ready;
use crate::service_pods::{
    HEADLESS, addresses, families, hostname, is_headless, keys, pods, publishes_unready, selector, target_port,
    target_ref,
};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// More are left out and the object says so; upstream's number.
const ADDRESSES_MAX: usize = 1000;

pub(crate) struct Endpoints;

impl Reconciler for Endpoints {
    fn name(&self) -> &'static str {
        "endpoints"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[SERVICES, PODS, NODES, ENDPOINTS]
    }
    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        match change.resource {
            ENDPOINTS => vec![change.key.clone()],
            NODES => Vec::new(),
            _ => keys(view, change),
        }
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let current = view.get_key(ENDPOINTS, key);
        let Some(service) = view.get_key(SERVICES, key) else {
            // Only what this controller made follows its Service; leader election locks are Endpoints too.
            let ours = |e: &&Arc<Object>| object::label(e, MANAGED_BY).is_some();
            return Plan::of(current.filter(ours).map(|e| Action::delete(ENDPOINTS, e)).into_iter().collect());
        };
        let Some(selector) = selector(service) else { return Plan::nothing() };
        let mut subsets = subsets(service, &pods(view, service, &selector));
        let truncated = truncate(&mut subsets);
        let mut labels = service["metadata"]["labels"].as_object().cloned().unwrap_or_default();
        labels.insert(MANAGED_BY.into(), "endpoint-controller".into());
        if is_headless(service) {
            labels.insert(HEADLESS.into(), "".into());
        }
        let mut wanted = current.map_or_else(
            || {
                let metadata = json!({"namespace": key.namespace, "name": key.name});
                json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata})
            },
            |e| e.value().clone(),
        );
        wanted["metadata"]["labels"] = labels.into();
        wanted["subsets"] = subsets.into();
        if truncated {
            wanted["metadata"]["annotations"][OVER_CAPACITY] = "truncated".into();
        }
        let action = match current {
            None => Some(Action::create(ENDPOINTS, wanted)),
            Some(e) if same(&wanted, e) => None,
            Some(e) => Action::replace(ENDPOINTS, "", e, wanted),
        };
        Plan::of(action.into_iter().collect())
    }
}

fn ports(service: &Value, pod: &Value) -> Vec<Value> {
    let port = |p: &Value| {
        let mut port = json!({"port": target_port(pod, p)?, "protocol": p["protocol"].as_str().unwrap_or("TCP")});
        for field in ["name", "appProtocol"] {
            if !text(&p[field]).is_empty() {
                port[field] = p[field].clone();
            }
        }
        Some(port)
    };
    let mut ports: Vec<Value> = list(&service["spec"]["ports"]).iter().filter_map(port).collect();
    ports.sort_by_key(Value::to_string);
    ports
}

/// Pods with the same ports.
#[derive(Default)]
struct Group {
    ready: Vec<Value>,
    unready: Vec<Value>,
    ports: Vec<Value>,
}

/// Each group makes one subset.
fn subsets(service: &Value, pods: &[&Arc<Object>]) -> Vec<Value> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let family = families(service)[0];
    for pod in pods {
        let leaving = object::is_deleting(pod) && !publishes_unready(service);
        let Some(ip) = addresses(pod, family).into_iter().next().filter(|_| !leaving) else { continue };
        let ports = ports(service, pod);
        if ports.is_empty() && !list(&service["spec"]["ports"]).is_empty() {
            continue;
        }
        let mut address = Map::new();
        address.insert("ip".into(), ip.into());
        if let Some(name) = hostname(pod, service) {
            address.insert("hostname".into(), name.into());
        }
        if !text(&pod["spec"]["nodeName"]).is_empty() {
            address.insert("nodeName".into(), pod["spec"]["nodeName"].clone());
        }
        address.insert("targetRef".into(), target_ref(pod));
        let key = Value::from(ports.clone()).to_string();
        let group = groups.entry(key).or_insert_with(|| Group { ports, ..Group::default() });
        let ready = is_ready(pod) || publishes_unready(service);
        let to = if ready { &mut group.ready } else { &mut group.unready };
        to.push(address.into());
    }
    let subset = |Group { mut ready, mut unready, ports }: Group| {
        let mut subset = Map::new();
        for (field, addresses) in [("addresses", &mut ready), ("notReadyAddresses", &mut unready)] {
            addresses.sort_by_key(|a| text(&a["ip"]).to_string());
            if !addresses.is_empty() {
                subset.insert(field.into(), std::mem::take(addresses).into());
            }
        }
        if !ports.is_empty() {
            subset.insert("ports".into(), ports.into());
        }
        subset.into()
    };
    groups.into_values().map(subset).collect()
}

/// Ready ones stay before others.
fn truncate(subsets: &mut [Value]) -> bool {
    let mut left = ADDRESSES_MAX;
    let mut truncated = false;
    for field in ["addresses", "notReadyAddresses"] {
        for subset in subsets.iter_mut() {
            if let Some(addresses) = subset[field].as_array_mut() {
                truncated |= addresses.len() > left;
                addresses.truncate(left);
                left -= addresses.len();
            }
        }
        for subset in subsets.iter_mut() {
            let empty = subset.get(field).is_some_and(|a| list(a).is_empty());
            if empty && let Some(map) = subset.as_object_mut() {
                map.remove(field);
            }
        }
    }
    truncated
}
