//! Deletes Pods from Nodes with a NoExecute taint, when their toleration ends.
//!
//! Owns: when a Pod must go.
//! Called by: the driver, one key a Pod.
//! Never: sets a taint.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use minik_api::resources::{NODES, PODS};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, EventType, Object, Plan, Reconciler, View};
use parking_lot::Mutex;
use serde_json::Value;

use crate::conditions::{self, Repeat};
use crate::fields::{list, seconds, text};
use crate::pods::is_terminal;

#[derive(Default)]
pub(crate) struct TaintEviction {
    /// When a Pod was first seen on a tainted Node: uid -> time. Taints set by hand carry no time of their own.
    since: Mutex<HashMap<String, Timestamp>>,
}

fn executing(node: &Value) -> Vec<&Value> {
    list(&node["spec"]["taints"]).iter().filter(|t| t["effect"] == "NoExecute").collect()
}

impl Reconciler for TaintEviction {
    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[NODES, PODS]
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource == PODS {
            if change.new.is_none() {
                self.since.lock().remove(object::uid(change.object()));
                return Vec::new();
            }
            return vec![change.key.clone()];
        }
        let taints = |n: &Option<Arc<Object>>| n.as_ref().map(|n| n["spec"]["taints"].clone()).unwrap_or_default();
        if taints(&change.old) == taints(&change.new) {
            return Vec::new();
        }
        view.list(PODS, "").filter(|p| p["spec"]["nodeName"] == change.key.name.as_str()).map(|p| p.key()).collect()
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(pod) = view.get_key(PODS, key) else { return Plan::nothing() };
        let node = view.get(NODES, "", text(&pod["spec"]["nodeName"]));
        let taints = node.map(|n| executing(n)).unwrap_or_default();
        let uid = object::uid(pod);
        if taints.is_empty() || object::is_deleting(pod) || is_terminal(pod) {
            self.since.lock().remove(uid);
            return Plan::nothing();
        }
        let since = *self.since.lock().entry(uid.to_string()).or_insert(now);
        match leaves_at(pod, &taints, since) {
            Leaves::Never => Plan::nothing(),
            Leaves::At(at) if at > now => Plan { requeue_at: Some(at), ..Plan::nothing() },
            Leaves::At(_) => evict(pod, now),
        }
    }
}

enum Leaves {
    Never,
    At(Timestamp),
}

fn leaves_at(pod: &Value, taints: &[&Value], since: Timestamp) -> Leaves {
    let mut shortest: Option<i64> = None;
    for taint in taints {
        let matching = |t: &&Value| tolerates(t, taint);
        let Some(toleration) = list(&pod["spec"]["tolerations"]).iter().find(matching) else {
            return Leaves::At(since);
        };
        if let Some(limit) = toleration["tolerationSeconds"].as_i64() {
            shortest = Some(shortest.map_or(limit, |s| s.min(limit)).max(0));
        }
    }
    shortest.map_or(Leaves::Never, |limit| Leaves::At(since + seconds(limit)))
}

fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let (key, effect) = (text(&toleration["key"]), text(&toleration["effect"]));
    let value = || text(&toleration["value"]) == text(&taint["value"]);
    (effect.is_empty() || effect == "NoExecute")
        && (key.is_empty() || taint["key"] == key)
        && (toleration["operator"] == "Exists" || (!key.is_empty() && value()))
}

fn evict(pod: &Object, now: Timestamp) -> Plan {
    let message = format!("Marking for deletion Pod {}", pod.key());
    let mut actions = vec![Action::event(pod, EventType::Normal, "TaintManagerEviction", message)];
    let mut status = pod["status"].clone();
    let why = "Taint manager: deleting due to NoExecute taint";
    conditions::set(&mut status, "DisruptionTarget", "True", "DeletionByTaintManager", why, now, Repeat::Updates);
    actions.extend(Action::set_status(PODS, pod, &status));
    actions.push(Action::delete(PODS, pod));
    Plan::of(actions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan(tolerations: Value, taints: Value) -> String {
        let pod = json!({"metadata": {"namespace": "d", "name": "p", "uid": "p"},
            "spec": {"nodeName": "n", "tolerations": tolerations}, "status": {}});
        let node = json!({"metadata": {"name": "n"}, "spec": {"taints": taints}});
        let view = View::of([(PODS, pod), (NODES, node)]);
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        TaintEviction::default().plan(&view, &ObjectKey::new("d", "p"), now).to_string()
    }

    #[test]
    fn a_pod_leaves_at_once_later_or_never_as_its_tolerations_say() {
        let taint = json!([{"key": "k", "effect": "NoExecute"}]);
        assert!(plan(json!([]), taint.clone()).ends_with("delete pods d/p\n"));
        let five = json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}]);
        assert_eq!(plan(five, taint.clone()), "again at 2026-01-01T00:05:00Z\n");
        assert_eq!(plan(json!([{"operator": "Exists"}]), taint), "");
        assert_eq!(plan(json!([]), json!([{"key": "k", "effect": "NoSchedule"}])), "");
    }
}
