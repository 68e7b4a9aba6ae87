//! Removes Pods nobody else will: of Nodes that are gone, never placed and being deleted, and too many that have ended.
//!
//! Owns: when such a Pod may be taken away without its kubelet.
//! Called by: the driver: one key a Pod, and one for the count of ended Pods.
//! Never: touches a Pod whose kubelet may still be running it, unless its Node is declared out of service.

use std::sync::Arc;

use jiff::Timestamp;
use minik_api::resources::{NODES, PODS};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, DeleteParams, Object, Plan, Reconciler, View};
use serde_json::Value;

use crate::conditions::{self, Repeat};
use crate::fields::{list, parse_time, seconds, text};
use crate::pods::is_terminal;

/// A Node that vanished may be coming back under its name; upstream's number.
const GONE_SECONDS: i64 = 40;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// The key under which ended Pods are counted; no namespace has this name.
const COUNT: &str = "*ended";

pub(crate) struct PodGc {
    /// Ended Pods kept before the oldest go.
    pub ended_max: usize,
    pub started: Timestamp,
    pub gone: parking_lot::Mutex<std::collections::HashMap<String, Timestamp>>,
}

impl PodGc {
    pub(crate) fn new(started: Timestamp) -> PodGc {
        PodGc { ended_max: 12_500, started, gone: Default::default() }
    }
}

impl Reconciler for PodGc {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[PODS, NODES]
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource == NODES {
            let of_node = |p: &&Arc<Object>| p["spec"]["nodeName"] == change.key.name.as_str();
            match &change.new {
                Some(node) => {
                    self.gone.lock().remove(&change.key.name);
                    if !is_out_of_service(node) {
                        return Vec::new();
                    }
                }
                None => drop(self.gone.lock().insert(change.key.name.clone(), Timestamp::now())),
            }
            return view.list(PODS, "").filter(of_node).map(|p| p.key()).collect();
        }
        let mut keys = vec![change.key.clone()];
        if change.new.as_ref().is_some_and(|p| is_terminal(p)) && view.count(PODS) > self.ended_max {
            keys.push(ObjectKey::new("", COUNT));
        }
        keys
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        if key.name == COUNT {
            return self.trim_ended(view);
        }
        let Some(pod) = view.get_key(PODS, key) else { return Plan::nothing() };
        let node_name = text(&pod["spec"]["nodeName"]);
        if node_name.is_empty() {
            return if object::is_deleting(pod) { Plan::of(vec![force(pod)]) } else { Plan::nothing() };
        }
        match view.get(NODES, "", node_name) {
            Some(node) if object::is_deleting(pod) && is_out_of_service(node) => {
                Plan::of(fail_and_force(pod, "DeletionByPodGC", "PodGC: node is out of service", now))
            }
            Some(_) => Plan::nothing(),
            None => {
                let since = self.gone.lock().get(node_name).copied().unwrap_or(self.started);
                let at = since + seconds(GONE_SECONDS);
                if at > now {
                    return Plan { requeue_at: Some(at), ..Plan::nothing() };
                }
                let gone =
                    Action::ConfirmGone { resource: NODES, key: ObjectKey::new("", node_name), uid: String::new() };
                let mut actions = vec![gone];
                actions.extend(fail_and_force(pod, "DeletionByPodGC", "PodGC: node no longer exists", now));
                Plan::of(actions)
            }
        }
    }
}

impl PodGc {
    fn trim_ended(&self, view: &View) -> Plan {
        let mut ended: Vec<&Arc<Object>> = view.list(PODS, "").filter(|p| is_terminal(p)).collect();
        let surplus = ended.len().saturating_sub(self.ended_max);
        ended.sort_by_key(|p| parse_time(&p["metadata"]["creationTimestamp"]));
        Plan::of(ended.into_iter().take(surplus).map(|p| force(p)).collect())
    }
}

fn is_out_of_service(node: &Value) -> bool {
    list(&node["spec"]["taints"]).iter().any(|t| t["key"] == OUT_OF_SERVICE)
}

fn force(pod: &Object) -> Action {
    let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::of_uid(object::uid(pod)) };
    Action::Delete { resource: PODS, key: pod.key(), params, narration: None }
}

fn fail_and_force(pod: &Object, reason: &str, message: &str, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    if !is_terminal(pod) {
        let mut status = pod["status"].clone();
        status["phase"] = "Failed".into();
        conditions::set(&mut status, "DisruptionTarget", "True", reason, message, now, Repeat::Updates);
        actions.extend(Action::set_status(PODS, pod, &status));
    }
    actions.push(force(pod));
    actions
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan(pod: Value, node: Option<Value>, now: &str) -> String {
        let gc = PodGc::new("2026-01-01T00:00:00Z".parse().unwrap());
        let view = View::of(node.map(|n| (NODES, n)).into_iter().chain([(PODS, pod)]));
        let plan = gc.plan(&view, &ObjectKey::new("d", "p"), now.parse().unwrap());
        plan.actions
            .iter()
            .map(|a| a.to_string())
            .chain(plan.requeue_at.map(|t| t.to_string()))
            .collect::<Vec<_>>()
            .join("; ")
    }
    fn pod(node: &str) -> Value {
        json!({"metadata": {"namespace": "d", "name": "p", "uid": "p"}, "spec": {"nodeName": node}, "status": {"phase": "Failed"}})
    }

    #[test]
    fn a_pod_of_a_vanished_node_goes_after_a_while() {
        assert_eq!(plan(pod("n"), None, "2026-01-01T00:00:10Z"), "2026-01-01T00:00:40Z");
        assert_eq!(plan(pod("n"), None, "2026-01-01T00:01:00Z"), "confirm nodes n is gone; delete pods d/p");
        assert_eq!(plan(pod("n"), Some(json!({"metadata": {"name": "n"}})), "2026-01-01T00:01:00Z"), "");
    }

    #[test]
    fn a_pod_that_was_never_placed_needs_no_kubelet_to_be_deleted() {
        let mut p = pod("");
        assert_eq!(plan(p.clone(), None, "2026-01-01T00:01:00Z"), "");
        p["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(plan(p, None, "2026-01-01T00:01:00Z"), "delete pods d/p");
    }
}
