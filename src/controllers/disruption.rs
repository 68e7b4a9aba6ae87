//! PodDisruptionBudget: how many Pods may go just now.
//!
//! Owns: the status that the eviction subresource counts down.
//! Called by: the driver.
//! Never: evicts.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use minik_api::resources::{
    DEPLOYMENTS, PODDISRUPTIONBUDGETS, PODS, REPLICASETS, REPLICATIONCONTROLLERS, STATEFULSETS,
};
use minik_api::selector::LabelSelector;
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, EventType, Object, Plan, Reconciler, View};
use serde_json::{Map, Value, json};

use crate::conditions::{self, Repeat};
use crate::fields::{Round, int, int_or_percent, parse_time, seconds, text};
use crate::pods::{is_ready, is_terminal};

/// An evicted Pod that was not deleted after so long is no longer counted as going.
const EVICTION_SECONDS_MAX: i64 = 120;

pub(crate) struct Disruption;

fn selector(budget: &Value) -> LabelSelector {
    LabelSelector::from_object(&budget["spec"]["selector"]).unwrap_or_else(|_| LabelSelector::nothing())
}

impl Reconciler for Disruption {
    fn name(&self) -> &'static str {
        "disruption"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[PODDISRUPTIONBUDGETS, PODS, DEPLOYMENTS, REPLICASETS, REPLICATIONCONTROLLERS, STATEFULSETS]
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        let budgets = view.list(PODDISRUPTIONBUDGETS, &change.key.namespace);
        match change.resource {
            PODDISRUPTIONBUDGETS => vec![change.key.clone()],
            PODS => {
                let covers = |b: &&Arc<Object>| {
                    let selector = selector(b);
                    change.sides().any(|p| selector.matches(&p["metadata"]["labels"]))
                };
                budgets.filter(covers).map(|b| b.key()).collect()
            }
            // The size of what owns the Pods is what a percentage is of.
            _ => {
                let size = |o: &Option<Arc<Object>>| o.as_ref().map(|o| o["spec"]["replicas"].clone());
                if size(&change.old) == size(&change.new) {
                    return Vec::new();
                }
                budgets.map(|b| b.key()).collect()
            }
        }
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(budget) = view.get_key(PODDISRUPTIONBUDGETS, key) else { return Plan::nothing() };
        let selector = selector(budget);
        let covered = |p: &&Arc<Object>| selector.matches(&p["metadata"]["labels"]) && !is_terminal(p);
        let pods: Vec<&Arc<Object>> = view.list(PODS, &key.namespace).filter(covered).collect();
        let mut plan = Plan::nothing();
        if pods.is_empty() {
            // Told once: when the status is first written.
            if budget["status"]["observedGeneration"].is_null() {
                plan.push(Action::event(budget, EventType::Normal, "NoPods", "No matching pods found"));
            }
        }
        let (expected, wanted) = counts(view, budget, &pods);
        let mut going = Map::new();
        for (name, since) in budget["status"]["disruptedPods"].as_object().into_iter().flatten() {
            let pod = pods.iter().find(|p| object::name(p) == name && !object::is_deleting(p));
            let until = parse_time(since).map(|at| at + seconds(EVICTION_SECONDS_MAX));
            if let (Some(_), Some(until)) = (pod, until.filter(|u| *u > now)) {
                going.insert(name.clone(), since.clone());
                plan.requeue_by(until);
            }
        }
        let healthy =
            |p: &&&Arc<Object>| is_ready(p) && !object::is_deleting(p) && !going.contains_key(object::name(p));
        let healthy = pods.iter().filter(healthy).count() as i64;
        let allowed = if expected <= 0 { 0 } else { (healthy - wanted).max(0) };
        let mut status = json!({
            "currentHealthy": healthy, "desiredHealthy": wanted, "expectedPods": expected,
            "disruptionsAllowed": allowed, "observedGeneration": object::generation(budget),
        });
        if !going.is_empty() {
            status["disruptedPods"] = going.into();
        }
        if budget["status"]["conditions"].is_array() {
            status["conditions"] = budget["status"]["conditions"].clone();
        }
        let (value, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        conditions::set(&mut status, "DisruptionAllowed", value, reason, "", now, Repeat::Updates);
        if let Some(condition) = conditions::find(&status, "DisruptionAllowed") {
            let mut condition = condition.clone();
            condition["message"] = "".into();
            condition["observedGeneration"] = object::generation(budget).into();
            conditions::put(&mut status, condition);
        }
        plan.actions.extend(Action::set_status(PODDISRUPTIONBUDGETS, budget, &status));
        plan
    }
}

/// How many Pods there should be, and how many of them healthy.
fn counts(view: &View, budget: &Value, pods: &[&Arc<Object>]) -> (i64, i64) {
    let spec = &budget["spec"];
    if !spec["maxUnavailable"].is_null() {
        let expected = expected(view, pods);
        let unavailable = int_or_percent(&spec["maxUnavailable"], expected, Round::Up);
        return (expected, (expected - unavailable).max(0));
    }
    match &spec["minAvailable"] {
        Value::String(_) => {
            let expected = expected(view, pods);
            (expected, int_or_percent(&spec["minAvailable"], expected, Round::Up))
        }
        number => (pods.len() as i64, int(number, 0)),
    }
}

/// The sizes of the controllers the Pods belong to, each counted once.
fn expected(view: &View, pods: &[&Arc<Object>]) -> i64 {
    let mut sizes: BTreeMap<String, i64> = BTreeMap::new();
    for pod in pods {
        let Some(owner) = object::controller_of(pod) else { continue };
        if let Some((uid, size)) = size_of(view, object::namespace(pod), owner) {
            sizes.insert(uid, size);
        }
    }
    sizes.values().sum()
}

fn size_of(view: &View, namespace: &str, owner: &Value) -> Option<(String, i64)> {
    let name = text(&owner["name"]);
    let of = |resource: ResourceId| {
        view.get(resource, namespace, name).map(|o| (object::uid(o).to_string(), int(&o["spec"]["replicas"], 1)))
    };
    match text(&owner["kind"]) {
        "ReplicaSet" => {
            let set = view.get(REPLICASETS, namespace, name)?;
            match object::controller_of(set).filter(|o| o["kind"] == "Deployment") {
                Some(deployment) => {
                    let deployment = view.get(DEPLOYMENTS, namespace, text(&deployment["name"]))?;
                    Some((object::uid(deployment).into(), int(&deployment["spec"]["replicas"], 1)))
                }
                None => of(REPLICASETS),
            }
        }
        "ReplicationController" => of(REPLICATIONCONTROLLERS),
        "StatefulSet" => of(STATEFULSETS),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(spec: Value, ready: usize, unready: usize) -> i64 {
        let mut budget = json!({"metadata": {"namespace": "d", "name": "b"}, "spec": spec});
        budget["spec"]["selector"] = json!({"matchLabels": {"a": "b"}});
        let set =
            json!({"metadata": {"namespace": "d", "name": "s", "uid": "s"}, "spec": {"replicas": ready + unready}});
        let pod = |i: usize| {
            let status = if i < ready { "True" } else { "False" };
            json!({"metadata": {"namespace": "d", "name": format!("p{i}"), "labels": {"a": "b"},
                "ownerReferences": [{"controller": true, "kind": "StatefulSet", "name": "s", "uid": "s"}]},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}})
        };
        let pods = (0..ready + unready).map(|i| (PODS, pod(i)));
        let view = View::of(pods.chain([(PODDISRUPTIONBUDGETS, budget), (STATEFULSETS, set)]));
        let plan = Disruption.plan(&view, &ObjectKey::new("d", "b"), Timestamp::UNIX_EPOCH);
        let Some(Action::Replace { body, .. }) = plan.actions.first() else { panic!("no status") };
        body["status"]["disruptionsAllowed"].as_i64().unwrap()
    }

    #[test]
    fn a_budget_allows_what_is_healthy_beyond_what_it_wants() {
        assert_eq!(allowed(json!({"minAvailable": 2}), 3, 0), 1);
        assert_eq!(allowed(json!({"minAvailable": "50%"}), 3, 0), 1);
        assert_eq!(allowed(json!({"maxUnavailable": 1}), 3, 0), 1);
        assert_eq!(allowed(json!({"maxUnavailable": 1}), 2, 1), 0);
        assert_eq!(allowed(json!({"maxUnavailable": "30%"}), 3, 1), 1);
    }
}
