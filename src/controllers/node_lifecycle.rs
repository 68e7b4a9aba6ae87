//! Nodes whose kubelet went silent: marks them, taints them, and takes their Pods out of Services.
//!
//! Owns: when a silent Node counts as unreachable; the taints that follow from conditions and from cordoning.
//! Called by: the driver.
//! Never: evicts a Pod; that follows from the taints, in `taint_eviction`.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use minik_api::resources::{LEASES, NODES, PODS};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, EventType, Object, Plan, Reconciler, View};
use serde_json::{Value, json};

use crate::conditions::{self, find};
use crate::fields::{list, parse_time, text, time};

const LEASE_NAMESPACE: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition, the status that taints, the taint.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
const KUBELETS_CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

pub(crate) struct NodeLifecycle {
    /// Silence before that is not held against a Node: after a stop of the whole cluster all leases are old.
    pub started: Timestamp,
    /// How long a kubelet may be silent.
    pub grace: SignedDuration,
}

impl Reconciler for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[NODES, LEASES, PODS]
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        match change.resource {
            NODES => vec![change.key.clone()],
            // A renewal only matters to a Node that was given up; the deadline of the others finds the newest by itself.
            LEASES if change.key.namespace == LEASE_NAMESPACE => {
                let given_up = |n: &Arc<Object>| find(&n["status"], "Ready").is_none_or(|c| c["status"] == "Unknown");
                let node = view.get(NODES, "", &change.key.name).filter(|n| given_up(n));
                node.map(|n| n.key()).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(node) = view.get_key(NODES, key) else { return Plan::nothing() };
        let mut plan = Plan::nothing();
        let heard = self.last_heard(view, node);
        let silent = now.duration_since(heard) > self.grace;
        let mut status = node["status"].clone();
        if silent {
            give_up(&mut status, now);
            plan.actions.extend(Action::set_status(NODES, node, &status));
        } else {
            plan.requeue_at = Some(heard + self.grace + SignedDuration::from_millis(1));
        }
        let was_ready = conditions::is_true(&node["status"], "Ready");
        if was_ready && !conditions::is_true(&status, "Ready") {
            let message = format!("Node {} status is now: NodeNotReady", object::name(node));
            plan.push(Action::event(node, EventType::Normal, "NodeNotReady", message));
        }
        if silent {
            plan.actions.extend(mark_pods_unready(view, node, now));
        }
        let taints = taints(node, &status, now);
        if !crate::fields::same(&taints, &node["spec"]["taints"]) {
            if status == node["status"] {
                plan.push(Action::merge(NODES, "", node, json!({"spec": {"taints": taints}})));
            } else {
                // The write of the status moves the version this patch would name: taints come with the next plan.
                plan.requeue_by(now);
            }
        }
        plan
    }
}

impl NodeLifecycle {
    fn last_heard(&self, view: &View, node: &Object) -> Timestamp {
        let lease = view.get(LEASES, LEASE_NAMESPACE, object::name(node));
        let renewed = lease.and_then(|l| parse_time(&l["spec"]["renewTime"]));
        let heartbeat = find(&node["status"], "Ready").filter(|c| c["status"] != "Unknown");
        let heartbeat = heartbeat.and_then(|c| parse_time(&c["lastHeartbeatTime"]));
        let created = parse_time(&node["metadata"]["creationTimestamp"]);
        [renewed, heartbeat, created].into_iter().flatten().fold(self.started, Timestamp::max)
    }
}

fn give_up(status: &mut Value, now: Timestamp) {
    for kind in KUBELETS_CONDITIONS {
        let old = find(status, kind).cloned();
        let (reason, message) = match &old {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let heartbeat = old.as_ref().map_or(Value::Null, |o| o["lastHeartbeatTime"].clone());
        if old.is_some_and(|o| o["status"] == "Unknown") {
            continue;
        }
        let heartbeat = if heartbeat.is_null() { time(now).into() } else { heartbeat };
        conditions::put(
            status,
            json!({
                "type": kind, "status": "Unknown", "reason": reason, "message": message,
                "lastHeartbeatTime": heartbeat, "lastTransitionTime": time(now),
            }),
        );
    }
}

fn mark_pods_unready(view: &View, node: &Object, now: Timestamp) -> Vec<Action> {
    let name = object::name(node);
    let on_it = |p: &&Arc<Object>| p["spec"]["nodeName"] == name && conditions::is_true(&p["status"], "Ready");
    let mark = |pod: &Arc<Object>| {
        let mut status = pod["status"].clone();
        let mut ready = find(&status, "Ready")?.clone();
        ready["status"] = "False".into();
        ready["lastTransitionTime"] = time(now).into();
        conditions::put(&mut status, ready);
        let event = Action::event(pod, EventType::Warning, "NodeNotReady", "Node is not ready");
        Some([Action::set_status(PODS, pod, &status)?, event])
    };
    view.list(PODS, "").filter(on_it).filter_map(mark).flatten().collect()
}

/// The Node's own taints without those that follow from conditions, and those that follow now.
fn taints(node: &Value, status: &Value, now: Timestamp) -> Value {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (kind, value, taint) in BY_CONDITION {
        if find(status, kind).is_some_and(|c| c["status"] == value) {
            wanted.push((taint, "NoSchedule"));
            if kind == "Ready" {
                wanted.push((taint, "NoExecute"));
            }
        }
    }
    // A Node without a condition yet was tainted not-ready by admission when it registered; that stays until it is ready.
    let unreported = find(status, "Ready").is_none();
    if node["spec"]["unschedulable"] == true {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |t: &Value| {
        let key = text(&t["key"]);
        let effect = text(&t["effect"]);
        let known = key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(_, _, taint)| *taint == key);
        let executes = effect == "NoExecute" && (key == NOT_READY || key == UNREACHABLE);
        known && (effect == "NoSchedule" || executes) && !(unreported && key == NOT_READY)
    };
    let is = |t: &Value, (key, effect): &(&str, &str)| t["key"] == *key && t["effect"] == *effect;
    let old = list(&node["spec"]["taints"]);
    let mut taints: Vec<Value> = old.iter().filter(|t| !ours(t) || wanted.iter().any(|w| is(t, w))).cloned().collect();
    for want in &wanted {
        if !old.iter().any(|t| is(t, want)) {
            taints.push(json!({"key": want.0, "effect": want.1, "timeAdded": time(now)}));
        }
    }
    if taints.is_empty() { Value::Null } else { taints.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn node(ready: &str, taints: Value) -> (ResourceId, Value) {
        (
            NODES,
            json!({
                "metadata": {"name": "n", "uid": "n"}, "spec": {"taints": taints},
                "status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]},
            }),
        )
    }
    fn lease(renewed: &str) -> (ResourceId, Value) {
        (LEASES, json!({"metadata": {"namespace": LEASE_NAMESPACE, "name": "n"}, "spec": {"renewTime": renewed}}))
    }
    fn check(objects: Vec<(ResourceId, Value)>, now: &str, expected: Expect) {
        let started = "2026-01-01T00:00:00Z".parse().unwrap();
        let lifecycle = NodeLifecycle { started, grace: SignedDuration::from_secs(40) };
        let plan = lifecycle.plan(&View::of(objects), &ObjectKey::new("", "n"), now.parse().unwrap());
        expected.assert_eq(&plan.to_string());
    }

    #[test]
    fn a_node_that_renews_its_lease_is_left_alone_until_the_next_deadline() {
        check(
            vec![node("True", Value::Null), lease("2026-01-01T00:01:00.000000Z")],
            "2026-01-01T00:01:30Z",
            expect![[r#"
                again at 2026-01-01T00:01:40.001Z
            "#]],
        );
    }

    #[test]
    fn a_silent_node_becomes_unknown_and_its_ready_pods_unready() {
        let pod = json!({"metadata": {"namespace": "d", "name": "p", "uid": "p"}, "spec": {"nodeName": "n"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        check(
            vec![node("True", Value::Null), lease("2026-01-01T00:00:00.000000Z"), (PODS, pod)],
            "2026-01-01T00:00:41Z",
            expect![[r#"
                update nodes/status n {"status":{"conditions":[{"lastHeartbeatTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:41Z","message":"Kubelet stopped posting node status.","reason":"NodeStatusUnknown","status":"Unknown","type":"Ready"},{"lastHeartbeatTime":"2026-01-01T00:00:41Z","lastTransitionTime":"2026-01-01T00:00:41Z","message":"Kubelet never posted node status.","reason":"NodeStatusNeverUpdated","status":"Unknown","type":"MemoryPressure"},{"lastHeartbeatTime":"2026-01-01T00:00:41Z","lastTransitionTime":"2026-01-01T00:00:41Z","message":"Kubelet never posted node status.","reason":"NodeStatusNeverUpdated","status":"Unknown","type":"DiskPressure"},{"lastHeartbeatTime":"2026-01-01T00:00:41Z","lastTransitionTime":"2026-01-01T00:00:41Z","message":"Kubelet never posted node status.","reason":"NodeStatusNeverUpdated","status":"Unknown","type":"PIDPressure"}]}}
                event Normal NodeNotReady: Node n status is now: NodeNotReady
                update pods/status d/p {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:41Z","status":"False","type":"Ready"}]}}
                event Warning NodeNotReady: Node is not ready
                again at 2026-01-01T00:00:41Z
            "#]],
        );
    }

    #[test]
    fn taints_follow_the_conditions_and_others_stay() {
        let own = json!({"key": "mine", "effect": "NoExecute"});
        let old = json!({"key": NOT_READY, "effect": "NoSchedule"});
        check(
            vec![node("True", json!([own, old])), lease("2026-01-01T00:01:00Z")],
            "2026-01-01T00:01:00Z",
            expect![[r#"
                patch nodes n {"spec":{"taints":[{"effect":"NoExecute","key":"mine"}]}}
                again at 2026-01-01T00:01:40.001Z
            "#]],
        );
        check(
            vec![node("False", json!([own])), lease("2026-01-01T00:01:00Z")],
            "2026-01-01T00:01:00Z",
            expect![[r#"
                patch nodes n {"spec":{"taints":[{"effect":"NoExecute","key":"mine"},{"effect":"NoSchedule","key":"node.kubernetes.io/not-ready","timeAdded":"2026-01-01T00:01:00Z"},{"effect":"NoExecute","key":"node.kubernetes.io/not-ready","timeAdded":"2026-01-01T00:01:00Z"}]}}
                again at 2026-01-01T00:01:40.001Z
            "#]],
        );
    }
}
