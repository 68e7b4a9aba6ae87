//! EndpointSlices: the addresses behind a Service, in pieces.
//!
//! Owns: the slices of each Service with a selector: what is in them and how few of them change.
//! Called by: the driver.
//! Never: touches a slice that another manager made.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use minik_api::resources::{ENDPOINTSLICES, NODES, PODS, SERVICES};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Object, Plan, Reconciler, View};
use serde_json::{Map, Value, json};

use crate::fields::{controller_ref, is_controlled_by, list, same, text};
use crate::pods::is_ready;
use crate::service_pods::{
    HEADLESS, ZONE, addresses, families, hostname, is_headless, keys, pods, publishes_unready, selector, target_port,
    target_ref,
};

pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Endpoints in one slice; upstream's default.
const ENDPOINTS_MAX: usize = 100;

pub(crate) struct EndpointSlices;

impl Reconciler for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpointslice"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[SERVICES, PODS, NODES, ENDPOINTSLICES]
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource != ENDPOINTSLICES {
            return keys(view, change);
        }
        let service = |slice: &Arc<Object>| {
            let ours = object::label(slice, MANAGED_BY) == Some(MANAGER);
            let name = object::label(slice, SERVICE_NAME).filter(|_| ours)?;
            Some(ObjectKey::new(object::namespace(slice), name))
        };
        let mut keys: Vec<ObjectKey> = change.sides().filter_map(service).collect();
        keys.dedup();
        keys
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let ours = |s: &&Arc<Object>| {
            object::label(s, SERVICE_NAME) == Some(&key.name) && object::label(s, MANAGED_BY) == Some(MANAGER)
        };
        // Slices of a Service that is gone are the garbage collector's.
        let Some(service) = view.get_key(SERVICES, key) else { return Plan::nothing() };
        let Some(selector) = selector(service) else { return Plan::nothing() };
        if object::is_deleting(service) {
            return Plan::nothing();
        }
        let existing: Vec<&Arc<Object>> = view.list(ENDPOINTSLICES, &key.namespace).filter(ours).collect();
        let pods = pods(view, service, &selector);
        let families = families(service);
        let mut actions = Vec::new();
        for family in &families {
            let of_family = |s: &&&Arc<Object>| s["addressType"] == **family;
            let existing: Vec<_> = existing.iter().filter(of_family).copied().collect();
            actions.extend(plan_family(view, service, &pods, &existing, family));
        }
        let other = |s: &&&Arc<Object>| !families.contains(&text(&s["addressType"]));
        actions.extend(existing.iter().filter(other).map(|s| Action::delete(ENDPOINTSLICES, s)));
        // What is new is written before what is old is taken away: a Service should not look empty in between.
        actions.sort_by_key(|a| matches!(a, Action::Delete { .. }));
        Plan::of(actions)
    }
}

/// Endpoints that share their ports.
#[derive(Default)]
struct Group {
    ports: Vec<Value>,
    /// Uid of the Pod -> its endpoint.
    endpoints: BTreeMap<String, Value>,
}

fn plan_family(
    view: &View,
    service: &Arc<Object>,
    pods: &[&Arc<Object>],
    existing: &[&Arc<Object>],
    family: &str,
) -> Vec<Action> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for pod in pods {
        let ports = ports(service, pod);
        let Some(endpoint) = endpoint(view, service, pod, family) else { continue };
        let group = groups.entry(Value::from(ports.clone()).to_string()).or_default();
        group.ports = ports;
        group.endpoints.insert(object::uid(pod).to_string(), endpoint);
    }
    if groups.is_empty() {
        // A Service without endpoints has one empty slice, so that its readers know it was looked at.
        groups.insert("[]".into(), Group::default());
    }
    let mut actions = Vec::new();
    let mut claimed: Vec<&str> = Vec::new();
    for group in groups.values_mut() {
        let matching = |s: &&&Arc<Object>| {
            same_ports(&s["ports"], &group.ports)
                && is_controlled_by(s, object::uid(service))
                && !object::is_deleting(s)
        };
        let slices: Vec<&Arc<Object>> = existing.iter().filter(matching).copied().collect();
        claimed.extend(slices.iter().map(|s| object::name(s)));
        actions.extend(plan_group(service, group, &slices, family));
    }
    let unclaimed = |s: &&&Arc<Object>| !claimed.contains(&object::name(s)) && !object::is_deleting(s);
    actions.extend(existing.iter().filter(unclaimed).map(|s| Action::delete(ENDPOINTSLICES, s)));
    actions
}

/// Keeps every endpoint in the slice it is in, fills gaps, and only then makes new slices.
fn plan_group(service: &Arc<Object>, group: &mut Group, slices: &[&Arc<Object>], family: &str) -> Vec<Action> {
    let mut contents: Vec<Vec<Value>> = Vec::new();
    for slice in slices {
        let mut kept = Vec::new();
        for old in list(&slice["endpoints"]) {
            if let Some(endpoint) = group.endpoints.remove(text(&old["targetRef"]["uid"])) {
                kept.push(endpoint);
            }
        }
        contents.push(kept);
    }
    let mut new = std::mem::take(&mut group.endpoints).into_values().peekable();
    for content in &mut contents {
        while content.len() < ENDPOINTS_MAX && new.peek().is_some() {
            content.extend(new.next());
        }
    }
    while new.peek().is_some() || contents.is_empty() {
        contents.push(new.by_ref().take(ENDPOINTS_MAX).collect());
    }
    let some = contents.iter().any(|c| !c.is_empty());
    let mut actions = Vec::new();
    for (at, content) in contents.into_iter().enumerate() {
        match slices.get(at) {
            // Of several, empty ones go; of only empty ones, the first stays.
            Some(slice) if content.is_empty() && (some || at > 0) => {
                actions.push(Action::delete(ENDPOINTSLICES, slice));
            }
            Some(slice) => {
                let mut changed = slice.value().clone();
                changed["endpoints"] = content.into();
                changed["ports"] = group.ports.clone().into();
                changed["metadata"]["labels"] = labels(service);
                if !same(&changed, slice) {
                    actions.extend(Action::replace(ENDPOINTSLICES, "", slice, changed));
                }
            }
            None => actions.push(Action::create(ENDPOINTSLICES, slice(service, &group.ports, content, family))),
        }
    }
    actions
}

fn slice(service: &Object, ports: &[Value], endpoints: Vec<Value>, family: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": {
            "namespace": object::namespace(service), "generateName": format!("{}-", object::name(service)),
            "labels": labels(service), "ownerReferences": [controller_ref(service)],
        },
        "endpoints": endpoints, "ports": ports,
    })
}

fn labels(service: &Value) -> Value {
    let own = service["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let reserved = |k: &str| [SERVICE_NAME, MANAGED_BY, HEADLESS].contains(&k);
    let mut labels: Map<String, Value> = own.into_iter().filter(|(k, _)| !reserved(k)).collect();
    labels.insert(SERVICE_NAME.into(), object::name(service).into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), "".into());
    }
    labels.into()
}

fn ports(service: &Value, pod: &Value) -> Vec<Value> {
    let port = |p: &Value| {
        let protocol = p["protocol"].as_str().unwrap_or("TCP");
        let mut port = json!({"name": text(&p["name"]), "port": target_port(pod, p)?, "protocol": protocol});
        if !text(&p["appProtocol"]).is_empty() {
            port["appProtocol"] = p["appProtocol"].clone();
        }
        Some(port)
    };
    list(&service["spec"]["ports"]).iter().filter_map(port).collect()
}

fn same_ports(a: &Value, b: &[Value]) -> bool {
    let sorted = |ports: &[Value]| {
        let mut texts: Vec<String> = ports.iter().map(Value::to_string).collect();
        texts.sort();
        texts
    };
    sorted(list(a)) == sorted(b)
}

fn endpoint(view: &View, service: &Value, pod: &Object, family: &str) -> Option<Value> {
    let addresses = addresses(pod, family);
    if addresses.is_empty() {
        return None;
    }
    let (serving, terminating) = (is_ready(pod), object::is_deleting(pod));
    let ready = publishes_unready(service) || (serving && !terminating);
    let mut endpoint = json!({
        "addresses": addresses,
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": target_ref(pod),
    });
    if let Some(name) = hostname(pod, service) {
        endpoint["hostname"] = name.into();
    }
    let node = text(&pod["spec"]["nodeName"]);
    if !node.is_empty() {
        endpoint["nodeName"] = node.into();
    }
    let zone = view.get(NODES, "", node).and_then(|n| object::label(n, ZONE)).filter(|z| !z.is_empty());
    if let Some(zone) = zone {
        endpoint["zone"] = zone.into();
    }
    if ready {
        let hints = match text(&service["spec"]["trafficDistribution"]) {
            "PreferClose" | "PreferSameZone" => zone.map(|zone| json!({"forZones": [{"name": zone}]})),
            "PreferSameNode" if !node.is_empty() => {
                let mut hints = json!({"forNodes": [{"name": node}]});
                if let Some(zone) = zone {
                    hints["forZones"] = json!([{"name": zone}]);
                }
                Some(hints)
            }
            _ => None,
        };
        if let Some(hints) = hints {
            endpoint["hints"] = hints;
        }
    }
    Some(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::Endpoints;
    use expect_test::{Expect, expect};
    use minik_api::resources::ENDPOINTS;

    fn service() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "d", "name": "web", "uid": "s"},
            "spec": {"clusterIP": "10.96.0.5", "selector": {"app": "web"}, "ipFamilies": ["IPv4"],
                     "ports": [{"port": 80, "targetPort": "http", "protocol": "TCP"}]},
        })
    }
    fn pod(name: &str, ip: &str, ready: bool) -> Value {
        let ready = if ready { "True" } else { "False" };
        json!({
            "metadata": {"namespace": "d", "name": name, "uid": name, "labels": {"app": "web"}},
            "spec": {"nodeName": "n", "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"podIP": ip, "phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
        })
    }
    fn view(service: Value, pods: &[Value], more: &[(ResourceId, Value)]) -> View {
        let pods = pods.iter().map(|p| (PODS, p.clone()));
        View::of(pods.chain(more.iter().cloned()).chain([(SERVICES, service)]))
    }
    fn bodies(of: &dyn Reconciler, view: &View) -> String {
        let plan = of.plan(view, &ObjectKey::new("d", "web"), Timestamp::UNIX_EPOCH);
        let text = |a: &Action| match a {
            Action::Create { body, .. } => match body["endpoints"].as_array() {
                Some(all) => format!("create {} endpoints, ports {}\n{}", all.len(), body["ports"], joined(all)),
                None => format!("create {}\n", body["subsets"]),
            },
            other => format!("{other}\n"),
        };
        plan.actions.iter().map(text).collect()
    }
    fn joined(endpoints: &[Value]) -> String {
        endpoints.iter().take(3).map(|e| format!("{} {}\n", e["addresses"], e["conditions"])).collect()
    }
    fn check(view: &View, expected: Expect) {
        expected.assert_eq(&bodies(&EndpointSlices, view));
    }

    #[test]
    fn ready_and_unready_pods_are_endpoints_with_their_conditions() {
        let pods = [pod("a", "10.0.0.1", true), pod("b", "10.0.0.2", false), pod("c", "", false)];
        check(
            &view(service(), &pods, &[]),
            expect![[r#"
            create 2 endpoints, ports [{"name":"","port":8080,"protocol":"TCP"}]
            ["10.0.0.1"] {"ready":true,"serving":true,"terminating":false}
            ["10.0.0.2"] {"ready":false,"serving":false,"terminating":false}
        "#]],
        );
    }

    #[test]
    fn a_pod_that_is_going_serves_but_is_not_ready() {
        let mut leaving = pod("a", "10.0.0.1", true);
        leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        check(
            &view(service(), &[leaving], &[]),
            expect![[r#"
            create 1 endpoints, ports [{"name":"","port":8080,"protocol":"TCP"}]
            ["10.0.0.1"] {"ready":false,"serving":true,"terminating":true}
        "#]],
        );
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        check(
            &view(service(), &[], &[]),
            expect![[r#"
            create 0 endpoints, ports []
        "#]],
        );
    }

    #[test]
    fn more_than_a_hundred_are_cut_into_slices() {
        let pods: Vec<Value> = (0..150).map(|i| pod(&format!("p{i:03}"), &format!("10.0.0.{i}"), true)).collect();
        let text = bodies(&EndpointSlices, &view(service(), &pods, &[]));
        assert!(text.contains("create 100 endpoints") && text.contains("create 50 endpoints"), "{text}");
    }

    #[test]
    fn a_slice_that_is_right_is_left_alone_and_an_endpoint_stays_in_its_slice() {
        let pods = [pod("a", "10.0.0.1", true), pod("b", "10.0.0.2", true)];
        let with_pods = view(service(), &pods, &[]);
        let plan = EndpointSlices.plan(&with_pods, &ObjectKey::new("d", "web"), Timestamp::UNIX_EPOCH);
        let Action::Create { body, .. } = &plan.actions[0] else { panic!("nothing made") };
        let mut slice = body.clone();
        slice["metadata"]["name"] = "web-1".into();
        check(&view(service(), &pods, &[(ENDPOINTSLICES, slice.clone())]), expect![""]);
        let text = bodies(&EndpointSlices, &view(service(), &pods[..1], &[(ENDPOINTSLICES, slice)]));
        assert!(text.starts_with("update endpointslices d/web-1"), "{text}");
    }

    #[test]
    fn endpoints_hold_ready_and_unready_addresses_apart() {
        let pods = [pod("a", "10.0.0.1", true), pod("b", "10.0.0.2", false)];
        let text = bodies(&Endpoints, &view(service(), &pods, &[]));
        expect![[r#"
            create [{"addresses":[{"ip":"10.0.0.1","nodeName":"n","targetRef":{"kind":"Pod","name":"a","namespace":"d","uid":"a"}}],"notReadyAddresses":[{"ip":"10.0.0.2","nodeName":"n","targetRef":{"kind":"Pod","name":"b","namespace":"d","uid":"b"}}],"ports":[{"port":8080,"protocol":"TCP"}]}]
        "#]]
        .assert_eq(&text);
        let orphan = json!({"metadata": {"namespace": "d", "name": "web", "labels": {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}}});
        let without = View::of([(ENDPOINTS, orphan)]);
        assert_eq!(bodies(&Endpoints, &without), "delete endpoints d/web\n");
    }
}
