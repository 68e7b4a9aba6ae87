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
use minik_client::{Action, Answer, Change, EventType, Object, Plan, Question, Reconciler, View};
use serde_json::{Map, Value, json};

use crate::conditions::{self, Repeat};
use crate::discovery::{Watched, scale_path};
use crate::fields::{Round, int, int_or_percent, parse_time, seconds, text, time};
use crate::pods::{is_ready, is_terminal};

/// An evicted Pod that was not deleted after so long is no longer counted as going.
const EVICTION_SECONDS_MAX: i64 = 120;

const ANNOUNCED: &str = "DisruptionTarget";
const ANNOUNCED_SECONDS_MAX: i64 = 120;

pub(crate) struct Disruption {
    pub discovered: Watched,
}

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
        let pods: Vec<Arc<Object>> = view.list(PODS, &key.namespace).filter(covered).cloned().collect();
        let look = Look { budget: budget.clone(), pods };
        if !look.is_of_sizes() {
            return look.judge(Ok(look.pods.len() as i64), now);
        }
        let (mut sizes, mut questions) = (Sizes::default(), Vec::new());
        for pod in &look.pods {
            let Some(owner) = object::controller_of(pod) else {
                sizes.unmanaged = true;
                continue;
            };
            match self.size_of(view, &key.namespace, owner) {
                Size::Known(uid, size) => drop(sizes.known.insert(uid, size)),
                Size::Asked(question) if questions.contains(&question) => {}
                Size::Asked(question) => {
                    sizes.asked.push(object::name(pod).to_string());
                    questions.push(question);
                }
                Size::Nowhere => sizes.lost = Some(object::name(pod).to_string()),
            }
        }
        if questions.is_empty() {
            return look.judge(sizes.sum(&[]), now).with(look.unmanaged(&sizes));
        }
        Plan::asking(questions, move |answers, now| look.judge(sizes.sum(&answers), now).with(look.unmanaged(&sizes)))
    }
}

/// Where the size of what a Pod belongs to is to be found.
enum Size {
    Known(String, i64),
    Asked(Question),
    Nowhere,
}

/// The sizes of the controllers that Pods belong to, each counted once.
#[derive(Default)]
struct Sizes {
    known: BTreeMap<String, i64>,
    /// A Pod of each controller that has to be asked for.
    asked: Vec<String>,
    /// A Pod whose controller is not there.
    lost: Option<String>,
    unmanaged: bool,
}

impl Sizes {
    fn sum(&self, answers: &[Answer]) -> Result<i64, String> {
        let mut sum: i64 = self.known.values().sum();
        let lost = |pod: &str| Err(format!("found no controllers for pod {pod:?}"));
        if let Some(pod) = &self.lost {
            return lost(pod);
        }
        for (pod, answer) in self.asked.iter().zip(answers) {
            match answer {
                Ok(scale) => sum += int(&scale["spec"]["replicas"], 0),
                Err(error) if error.is_not_found() => return lost(pod),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(sum)
    }
}

impl Disruption {
    fn size_of(&self, view: &View, namespace: &str, owner: &Value) -> Size {
        let (name, kind) = (text(&owner["name"]), text(&owner["kind"]));
        let of = |resource: ResourceId| match view.get(resource, namespace, name) {
            Some(o) if object::uid(o) == text(&owner["uid"]) => {
                Size::Known(object::uid(o).into(), int(&o["spec"]["replicas"], 1))
            }
            _ => Size::Nowhere,
        };
        match kind {
            "ReplicaSet" => {
                let set = view.get(REPLICASETS, namespace, name);
                let deployment = set.and_then(|s| object::controller_of(s)).filter(|o| o["kind"] == "Deployment");
                let deployment = deployment.and_then(|o| view.get(DEPLOYMENTS, namespace, text(&o["name"])));
                match deployment {
                    Some(d) => Size::Known(object::uid(d).into(), int(&d["spec"]["replicas"], 1)),
                    None => of(REPLICASETS),
                }
            }
            "ReplicationController" => of(REPLICATIONCONTROLLERS),
            "StatefulSet" => of(STATEFULSETS),
            // Anything with a scale, custom resources included.
            _ => match self.discovered.borrow().by_kind(text(&owner["apiVersion"]), kind) {
                Some(known) => Size::Asked(Question::Get { path: scale_path(known.id, namespace, name) }),
                None => Size::Nowhere,
            },
        }
    }
}

/// One look at one budget.
struct Look {
    budget: Arc<Object>,
    pods: Vec<Arc<Object>>,
}

impl Look {
    /// Whether the budget is a part of how many Pods there should be, and not only of those there are.
    fn is_of_sizes(&self) -> bool {
        !self.budget["spec"]["maxUnavailable"].is_null() || self.budget["spec"]["minAvailable"].is_string()
    }

    fn unmanaged(&self, sizes: &Sizes) -> Option<Action> {
        let selector = LabelSelector::from_object(&self.budget["spec"]["selector"]);
        let message = format!(
            "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the \
             status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for \
             these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
            selector.map(|s| s.to_string()).unwrap_or_default()
        );
        sizes.unmanaged.then(|| Action::event(&self.budget, EventType::Warning, "UnmanagedPods", message))
    }

    fn judge(&self, expected: Result<i64, String>, now: Timestamp) -> Plan {
        let budget = &self.budget;
        let mut plan = Plan::nothing();
        if self.pods.is_empty() {
            // Told once: when the status is first written.
            if budget["status"]["observedGeneration"].is_null() {
                plan.push(Action::event(budget, EventType::Normal, "NoPods", "No matching pods found"));
            }
        }
        let expected = match expected {
            Ok(expected) => expected,
            Err(why) => return self.fail(plan, &why, now),
        };
        let wanted = self.wanted(expected);
        let going = self.going(&mut plan, now);
        let healthy = |p: &&Arc<Object>| is_ready(p) && !object::is_deleting(p) && !going.contains_key(object::name(p));
        let healthy = self.pods.iter().filter(healthy).count() as i64;
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
        self.set(&mut status, value, reason, "", now);
        plan.actions.extend(Action::set_status(PODDISRUPTIONBUDGETS, budget, &status));
        plan
    }

    /// What cannot be counted must not be disrupted.
    fn fail(&self, mut plan: Plan, why: &str, now: Timestamp) -> Plan {
        let budget = &self.budget;
        let mut status = if budget["status"].is_object() { budget["status"].clone() } else { json!({}) };
        status["disruptionsAllowed"] = 0.into();
        self.set(&mut status, "False", "SyncFailed", why, now);
        if let Some(action) = Action::set_status(PODDISRUPTIONBUDGETS, budget, &status) {
            let message = format!("Failed to calculate the number of expected pods: {why}");
            plan.push(Action::event(budget, EventType::Warning, "CalculateExpectedPodCountFailed", message));
            plan.push(action);
        }
        plan
    }

    fn set(&self, status: &mut Value, value: &str, reason: &str, message: &str, now: Timestamp) {
        conditions::set(status, "DisruptionAllowed", value, reason, message, now, Repeat::Updates);
        if let Some(condition) = conditions::find(status, "DisruptionAllowed") {
            let mut condition = condition.clone();
            condition["message"] = message.into();
            condition["observedGeneration"] = object::generation(&self.budget).into();
            conditions::put(status, condition);
        }
    }

    /// How many Pods must be healthy.
    fn wanted(&self, expected: i64) -> i64 {
        let spec = &self.budget["spec"];
        match (&spec["maxUnavailable"], &spec["minAvailable"]) {
            (Value::Null, least @ Value::String(_)) => int_or_percent(least, expected, Round::Up),
            (Value::Null, least) => int(least, 0),
            (most, _) => (expected - int_or_percent(most, expected, Round::Up)).max(0),
        }
    }

    /// Pods whose eviction was granted and that are still there, not for too long.
    fn going(&self, plan: &mut Plan, now: Timestamp) -> Map<String, Value> {
        let mut going = Map::new();
        for (name, since) in self.budget["status"]["disruptedPods"].as_object().into_iter().flatten() {
            let alive = |p: &&Arc<Object>| object::name(p) == name && !object::is_deleting(p);
            let Some(pod) = self.pods.iter().find(alive) else { continue };
            match parse_time(since).map(|at| at + seconds(EVICTION_SECONDS_MAX)).filter(|until| *until > now) {
                Some(until) => {
                    going.insert(name.clone(), since.clone());
                    plan.requeue_by(until);
                }
                None => {
                    let budget = self.budget.key();
                    let message = format!("Pod was expected by PDB {budget} to be deleted but it wasn't");
                    plan.push(Action::event(pod, EventType::Warning, "NotDeleted", message));
                }
            }
        }
        going
    }
}

/// Takes back the announcement of a Pod's end that did not come: the condition DisruptionTarget. The key is the Pod's.
pub(crate) struct StaleDisruption;

impl Reconciler for StaleDisruption {
    fn name(&self) -> &'static str {
        "stale-pod-disruption"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[PODS]
    }
    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        let announced = |p: &Arc<Object>| conditions::is_true(&p["status"], ANNOUNCED);
        change.new.iter().filter(|p| announced(p)).map(|p| p.key()).collect()
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let pod = view.get_key(PODS, key).filter(|p| !object::is_deleting(p) && !is_terminal(p));
        let announced = pod.and_then(|p| Some((p, conditions::find(&p["status"], ANNOUNCED)?)));
        let Some((pod, condition)) = announced else { return Plan::nothing() };
        // A kubelet may take any time until it ends a Pod.
        if condition["status"] != "True" || condition["reason"] == "TerminationByKubelet" {
            return Plan::nothing();
        }
        let until = parse_time(&condition["lastTransitionTime"]).unwrap_or(now) + seconds(ANNOUNCED_SECONDS_MAX);
        if until > now {
            return Plan { requeue_at: Some(until), ..Plan::nothing() };
        }
        let mut changed = pod.value().clone();
        let taken_back = json!({"type": ANNOUNCED, "status": "False", "lastTransitionTime": time(now)});
        conditions::put(&mut changed["status"], taken_back);
        Plan::of(Action::replace(PODS, "status", pod, changed).into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::{Discovered, Known};

    fn controller() -> Disruption {
        let known = Known {
            id: ResourceId::new("x.io", "v1", "widgets"),
            kind: "Widget".into(),
            namespaced: true,
            verbs: vec![],
        };
        let discovered = Discovered { resources: vec![known], failed: vec![] };
        Disruption { discovered: tokio::sync::watch::channel(Arc::new(discovered)).1 }
    }
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
        let plan = controller().plan(&view, &ObjectKey::new("d", "b"), Timestamp::UNIX_EPOCH);
        let status = plan.actions.iter().find(|a| matches!(a, Action::Replace { .. }));
        let Some(Action::Replace { body, .. }) = status else { panic!("no status") };
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

    fn half(owner: Value) -> Plan {
        let budget = json!({"metadata": {"namespace": "d", "name": "b"},
            "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}});
        let pod = json!({"metadata": {"namespace": "d", "name": "p", "labels": {"a": "b"}, "ownerReferences": [owner]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let view = View::of([(PODDISRUPTIONBUDGETS, budget), (PODS, pod)]);
        controller().plan(&view, &ObjectKey::new("d", "b"), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn anything_with_a_scale_has_a_size() {
        let widget = json!({"controller": true, "apiVersion": "x.io/v1", "kind": "Widget", "name": "w", "uid": "w"});
        let plan = half(widget);
        assert_eq!(plan.to_string(), "ask /apis/x.io/v1/namespaces/d/widgets/w/scale\n");
        let scale = json!({"spec": {"replicas": 4}});
        let text = plan.answered(vec![Ok(scale)], Timestamp::UNIX_EPOCH).to_string();
        assert!(text.contains(r#""desiredHealthy":2,"disruptionsAllowed":0,"expectedPods":4"#), "{text}");
    }

    #[test]
    fn what_cannot_be_counted_is_not_disrupted() {
        let robot = json!({"controller": true, "apiVersion": "y.io/v1", "kind": "Robot", "name": "r", "uid": "r"});
        let text = half(robot).to_string();
        assert!(text.contains(r#"Failed to calculate the number of expected pods: found no controllers for pod "p""#));
        assert!(text.contains(r#""reason":"SyncFailed","status":"False""#), "{text}");
    }

    #[test]
    fn an_announcement_that_came_to_nothing_is_taken_back() {
        let plan = |reason: &str, now: &str| {
            let condition = json!({"type": ANNOUNCED, "status": "True", "reason": reason,
                "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let pod = json!({"metadata": {"namespace": "d", "name": "p"},
                "status": {"phase": "Running", "conditions": [condition]}});
            let view = View::of([(PODS, pod)]);
            StaleDisruption.plan(&view, &ObjectKey::new("d", "p"), now.parse().unwrap()).to_string()
        };
        assert_eq!(plan("PreemptionByScheduler", "2026-01-01T00:01:00Z"), "again at 2026-01-01T00:02:00Z\n");
        assert!(plan("PreemptionByScheduler", "2026-01-01T00:02:00Z").contains(r#""status":"False""#));
        assert_eq!(plan("TerminationByKubelet", "2026-01-01T00:02:00Z"), "");
    }
}
