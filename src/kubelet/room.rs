//! Which pod has which part of this node: amounts of resources, and ports of the node's addresses.
//!
//! Owns: what the pods let in hold, and whether one more fits, by the rules the scheduler has too.
//! Called by: the pod worker, before anything of a pod exists and when nothing of it runs any more; the dispatcher, for
//! pods that ran here before this kubelet did.
//! Never: ends a pod to make room.

use std::collections::HashMap;

use minik_api::node_affinity::NodeWants;
use minik_api::pod_resources::{Amounts, amounts, of_pod};
use minik_api::quantity::Quantity;
use minik_api::taints::{Effect, taints, tolerations};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::admission::Refusal;
use crate::pod::Pod;

const PODS: &str = "pods";
const ANY_ADDRESS: &str = "0.0.0.0";
/// Amounts every node has; what it does not list of these it has none of.
const NATIVE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    address: String,
    protocol: String,
    number: i32,
}

impl Port {
    fn conflicts(&self, other: &Port) -> bool {
        let meet = self.address == other.address || [&self.address, &other.address].iter().any(|a| *a == ANY_ADDRESS);
        self.number == other.number && self.protocol == other.protocol && meet
    }
}

#[derive(Clone, Debug)]
struct Share {
    amounts: Amounts,
    ports: Vec<Port>,
}

#[derive(Default)]
pub struct Room(Mutex<HashMap<String, Share>>);

impl Room {
    /// A pod that runs here already, whatever the rules say of it.
    pub fn keep(&self, pod: &Pod) {
        self.0.lock().entry(pod.uid.clone()).or_insert_with(|| share(pod, &spec_of(pod)));
    }

    /// `node` is the Node object, or nothing while it is not known; `allocatable` is what counts then.
    pub fn enter(&self, pod: &Pod, node: &Value, allocatable: &Value) -> Result<(), Refusal> {
        let spec = spec_of(pod);
        let wanted = share(pod, &spec);
        let mut all = self.0.lock();
        if all.contains_key(&pod.uid) {
            return Ok(());
        }
        let there =
            if node["status"]["allocatable"].is_object() { &node["status"]["allocatable"] } else { allocatable };
        enough(&wanted, all.values(), &amounts(there))?;
        if node.is_object() {
            welcome(&spec, node)?;
        }
        let taken = |p: &Port| all.values().any(|s| s.ports.iter().any(|held| held.conflicts(p)));
        if wanted.ports.iter().any(taken) {
            return Err(predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports"));
        }
        tolerant(&spec, node)?;
        all.insert(pod.uid.clone(), wanted);
        Ok(())
    }

    pub fn leave(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

fn spec_of(pod: &Pod) -> Value {
    serde_json::to_value(&pod.spec).unwrap_or_default()
}

fn share(pod: &Pod, spec: &Value) -> Share {
    let containers = pod.spec.containers.iter().chain(pod.spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|c| c.ports.iter().flatten()).filter_map(|p| {
        let address = p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| ANY_ADDRESS.into());
        let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
        p.host_port.filter(|n| *n > 0).map(|number| Port { address, protocol, number })
    });
    Share { amounts: of_pod(&json!({"spec": spec}), "requests"), ports: ports.collect() }
}

fn predicate(name: &str, why: &str) -> Refusal {
    Refusal { reason: name.into(), message: format!("Predicate {name} failed: {why}") }
}

fn enough<'a>(wanted: &Share, others: impl Iterator<Item = &'a Share> + Clone, there: &Amounts) -> Result<(), Refusal> {
    let lacking = |name: &str, requested: i64, used: i64, capacity: i64| Refusal {
        reason: format!("OutOf{name}"),
        message: format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        ),
    };
    let count = others.clone().count() as i64;
    let places = there.get(PODS).map_or(i64::MAX, |q| q.value());
    if count + 1 > places {
        return Err(lacking(PODS, 1, count, places));
    }
    for (name, amount) in wanted.amounts.iter().filter(|(_, a)| a.signum() > 0) {
        // What this node has never heard of was given by somebody who knows better.
        let Some(capacity) =
            there.get(name).copied().or_else(|| NATIVE.contains(&name.as_str()).then_some(Quantity::ZERO))
        else {
            continue;
        };
        let used = others.clone().filter_map(|s| s.amounts.get(name)).fold(Quantity::ZERO, |sum, a| sum.add(*a));
        if used.add(*amount) > capacity {
            let number = |q: Quantity| if name == "cpu" { q.milli_value() } else { q.value() };
            return Err(lacking(name, number(*amount), number(used), number(capacity)));
        }
    }
    Ok(())
}

fn welcome(spec: &Value, node: &Value) -> Result<(), Refusal> {
    let (name, labels) = (node["metadata"]["name"].as_str().unwrap_or_default(), &node["metadata"]["labels"]);
    if NodeWants::parse(spec).accepts(name, labels) {
        return Ok(());
    }
    Err(predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"))
}

/// Only taints that would drive the pod out again count: who was bound here by hand may ignore the others.
fn tolerant(spec: &Value, node: &Value) -> Result<(), Refusal> {
    let tolerations = tolerations(&spec["tolerations"]);
    let drives_out = taints(&node["spec"]["taints"]).into_iter().filter(|t| t.effect == Effect::NoExecute);
    for taint in drives_out {
        if !tolerations.iter().any(|t| t.tolerates(&taint)) {
            return Err(predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::pod;

    fn named(uid: &str, spec: &str) -> Pod {
        let mut pod = pod(spec);
        pod.uid = uid.into();
        pod
    }
    fn node() -> Value {
        json!({
            "metadata": {"name": "n1", "labels": {"disk": "ssd"}},
            "spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}, {"key": "down", "effect": "NoExecute"}]},
            "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "3"}},
        })
    }
    const TOLERANT: &str = "tolerations: [{key: down, operator: Exists}]";

    fn said(room: &Room, pod: &Pod) -> String {
        match room.enter(pod, &node(), &Value::Null) {
            Ok(()) => "let in".into(),
            Err(refusal) => format!("{}: {}", refusal.reason, refusal.message),
        }
    }

    #[test]
    fn amounts_are_counted_until_a_pod_leaves() {
        let room = Room::default();
        let asks = |uid: &str, cpu: &str| {
            named(uid, &format!("{{{TOLERANT}, containers: [{{name: c, resources: {{requests: {{cpu: {cpu}}}}}}}]}}"))
        };
        assert_eq!(said(&room, &asks("a", "600m")), "let in");
        assert_eq!(
            said(&room, &asks("b", "600m")),
            "OutOfcpu: Node didn't have enough resource: cpu, requested: 600, used: 600, capacity: 1000"
        );
        room.leave("a");
        assert_eq!(said(&room, &asks("b", "600m")), "let in");
        room.keep(&asks("c", "900m"));
        room.keep(&asks("d", "900m"));
        assert_eq!(
            said(&room, &asks("e", "0")),
            "OutOfpods: Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"
        );
    }

    #[test]
    fn a_port_of_the_node_is_given_once() {
        let room = Room::default();
        let asks = |uid: &str, port: &str| {
            named(uid, &format!("{{{TOLERANT}, containers: [{{name: c, ports: [{{containerPort: 80, {port}}}]}}]}}"))
        };
        assert_eq!(said(&room, &asks("a", "hostPort: 80, hostIP: 127.0.0.1")), "let in");
        assert_eq!(said(&room, &asks("b", "hostPort: 80, hostIP: 127.0.0.2")), "let in");
        assert_eq!(said(&room, &asks("c", "hostPort: 80, protocol: UDP")), "let in");
        room.leave("c");
        assert_eq!(
            said(&room, &asks("d", "hostPort: 80")),
            "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
        );
    }

    #[test]
    fn a_pod_that_this_node_would_drive_out_is_not_let_in() {
        let room = Room::default();
        let pod = |spec: &str| named("a", spec);
        assert_eq!(
            said(&room, &pod("{containers: []}")),
            "TaintToleration: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"
        );
        assert_eq!(
            said(&room, &pod(&format!("{{{TOLERANT}, nodeSelector: {{disk: hdd}}, containers: []}}"))),
            "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
        );
        assert_eq!(
            said(&room, &pod(&format!("{{{TOLERANT}, nodeSelector: {{disk: ssd}}, containers: []}}"))),
            "let in"
        );
    }

    #[test]
    fn labels_and_taints_are_worth_a_second_look_and_amounts_are_not() {
        let late = |spec: &str| {
            let refused = Room::default().enter(&named("a", spec), &node(), &Value::Null);
            refused.expect_err("refused").is_about_the_node()
        };
        assert!(late("{containers: []}"));
        assert!(late(&format!("{{{TOLERANT}, nodeSelector: {{disk: hdd}}, containers: []}}")));
        assert!(!late(&format!("{{{TOLERANT}, containers: [{{name: c, resources: {{requests: {{cpu: 2}}}}}}]}}")));
    }
}
