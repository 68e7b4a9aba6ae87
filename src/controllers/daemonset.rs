//! DaemonSet: one Pod on each Node that fits.
//!
//! Owns: on which Nodes, the replacement of Pods of an older template, the status.
//! Called by: the driver.
//! Never: binds a Pod: its node affinity names the Node, the scheduler does the rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use minik_api::node_affinity::NodeWants;
use minik_api::resources::{CONTROLLERREVISIONS, DAEMONSETS, NODES, PODS};
use minik_api::selector::LabelSelector;
use minik_api::taints::{Effect, taints, tolerations};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, EventType, Object, Plan, Reconciler, View};
use serde_json::{Value, json};

use crate::fields::{Round, int, int_or_percent, list, seconds, text};
use crate::pods::{
    Availability, availability, claim, concerned, from_template, generate_name, is_ready, narrate_create,
    narrate_delete, phase,
};
use crate::revisions::{self, POD_HASH};

/// Pods made or removed in one plan; upstream's number.
const BURST: usize = 250;
/// A Pod that failed is replaced no sooner after its creation: a Node that rejects it would be asked without end.
const REPLACE_AFTER_SECONDS: i64 = 5;
/// What Pods of a DaemonSet bear of their Node's troubles.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";

pub(crate) struct DaemonSet;

fn selector(set: &Value) -> LabelSelector {
    LabelSelector::from_object(&set["spec"]["selector"]).unwrap_or_else(|_| LabelSelector::nothing())
}

impl Reconciler for DaemonSet {
    fn name(&self) -> &'static str {
        "daemonset"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[DAEMONSETS, PODS, NODES, CONTROLLERREVISIONS]
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        match change.resource {
            DAEMONSETS => vec![change.key.clone()],
            NODES => {
                let fit = |n: &Option<Arc<Object>>| {
                    n.as_ref().map(|n| (n["metadata"]["labels"].clone(), n["spec"]["taints"].clone()))
                };
                if fit(&change.old) == fit(&change.new) {
                    return Vec::new();
                }
                view.list(DAEMONSETS, "").map(|s| s.key()).collect()
            }
            _ => concerned(change, "DaemonSet", view.list(DAEMONSETS, &change.key.namespace), selector),
        }
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(set) = view.get_key(DAEMONSETS, key) else { return Plan::nothing() };
        if selector(set).is_everything() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            return Plan::of(vec![Action::event(set, EventType::Warning, "SelectingAll", message)]);
        }
        if object::is_deleting(set) {
            return Plan::nothing();
        }
        let mut history = revisions::history(view, DAEMONSETS, set);
        let mut plan = Plan::of(std::mem::take(&mut history.actions));
        let mut look = Look::new(view, set, &history, now);
        plan.actions.append(&mut look.claims);
        if !history.collided {
            look.manage();
            if set["spec"]["updateStrategy"]["type"] != "OnDelete" {
                look.roll();
            }
            look.deletions.truncate(BURST);
            look.creations.truncate(BURST);
            let narrated = |p: &Arc<Object>| Action::delete(PODS, p).narrated(narrate_delete(set));
            plan.actions.append(&mut look.events);
            plan.actions.extend(look.creations.iter().map(|node| look.pod(node)));
            plan.actions.extend(look.deletions.iter().map(narrated));
            let used = |r: &revisions::Revision| look.pods.iter().any(|p| object::label(p, POD_HASH) == Some(&r.hash));
            plan.actions.extend(revisions::clean_up(set, &history, used));
        }
        plan.actions.extend(Action::set_status(DAEMONSETS, set, &look.status(history.collisions)));
        plan.requeue_at = look.requeue_at;
        plan
    }
}

/// Whether a Node should get the Pod, and whether one that is there may stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Fit {
    run: bool,
    stay: bool,
}

struct Look<'a> {
    set: &'a Arc<Object>,
    hash: &'a str,
    hashes: &'a [String],
    now: Timestamp,
    pods: Vec<Arc<Object>>,
    claims: Vec<Action>,
    /// Every Node's Pods and whether it fits; Pods of Nodes that are gone are the Pod collector's.
    nodes: BTreeMap<String, (Fit, Vec<Arc<Object>>)>,
    creations: Vec<String>,
    deletions: Vec<Arc<Object>>,
    events: Vec<Action>,
    requeue_at: Option<Timestamp>,
}

/// The Node a Pod is on or is meant for.
fn node_of(pod: &Value) -> &str {
    let bound = text(&pod["spec"]["nodeName"]);
    if !bound.is_empty() {
        return bound;
    }
    let terms = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let fields = list(&terms["nodeSelectorTerms"]).iter().flat_map(|t| list(&t["matchFields"]));
    fields.filter(|f| f["key"] == "metadata.name").find_map(|f| f["values"][0].as_str()).unwrap_or("")
}

impl<'a> Look<'a> {
    fn new(view: &View, set: &'a Arc<Object>, history: &'a revisions::History, now: Timestamp) -> Look<'a> {
        let claimed = claim(view, DAEMONSETS, set, &selector(set));
        let mut look = Look {
            set,
            hash: &history.update.hash,
            hashes: &history.hashes,
            now,
            pods: claimed.pods,
            claims: claimed.actions,
            nodes: BTreeMap::new(),
            creations: Vec::new(),
            deletions: Vec::new(),
            events: Vec::new(),
            requeue_at: None,
        };
        let spec = with_tolerations(&set["spec"]["template"]["spec"]);
        let wants = NodeWants::parse(&spec);
        for node in view.list(NODES, "") {
            look.nodes.insert(object::name(node).into(), (fit(&spec, &wants, node), Vec::new()));
        }
        for pod in &look.pods {
            if let Some((_, pods)) = look.nodes.get_mut(node_of(pod)) {
                pods.push(pod.clone());
            }
        }
        look
    }

    fn is_new(&self, pod: &Value) -> bool {
        object::label(pod, POD_HASH).is_some_and(|hash| self.hashes.iter().any(|h| h == hash))
    }

    fn is_available(&self, pod: &Value) -> bool {
        availability(pod, int(&self.set["spec"]["minReadySeconds"], 0), self.now) == Availability::Yes
    }

    fn surge(&self) -> i64 {
        self.limit("maxSurge", 0)
    }

    fn limit(&self, field: &str, default: i64) -> i64 {
        let desired = self.nodes.values().filter(|(fit, _)| fit.run).count() as i64;
        match &self.set["spec"]["updateStrategy"]["rollingUpdate"][field] {
            Value::Null => default,
            value => int_or_percent(value, desired, Round::Up),
        }
    }

    /// The right number on each Node, whatever their template.
    fn manage(&mut self) {
        let surges = self.surge() > 0;
        let nodes = std::mem::take(&mut self.nodes);
        for (name, (fit, pods)) in &nodes {
            if fit.run && pods.is_empty() {
                self.creations.push(name.clone());
            } else if !fit.stay {
                self.deletions.extend(pods.iter().filter(|p| !object::is_deleting(p)).cloned());
            } else {
                self.manage_node(name, *fit, pods, surges);
            }
        }
        self.nodes = nodes;
    }

    fn manage_node(&mut self, name: &str, fit: Fit, pods: &[Arc<Object>], surges: bool) {
        let mut running = Vec::new();
        for pod in pods.iter().filter(|p| !object::is_deleting(p)) {
            match phase(pod) {
                "Failed" => self.replace_failed(name, pod),
                "Succeeded" => {
                    let key = pod.key();
                    let message = format!("Found succeeded daemon pod {key} on node {name}, will try to delete it");
                    self.events.push(Action::event(self.set, EventType::Normal, "SucceededDaemonPod", message));
                    self.deletions.push(pod.clone());
                }
                _ => running.push(pod.clone()),
            }
        }
        running.sort_by_key(|p| (text(&p["spec"]["nodeName"]).is_empty(), crate::deployment::created(p)));
        if !surges {
            self.deletions.extend(running.into_iter().skip(1));
            return;
        }
        if running.is_empty() && fit.run {
            self.creations.push(name.to_string());
        }
        // One new and one old may be side by side until the new one is available.
        let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|p| self.is_new(p));
        self.deletions.extend(new.iter().skip(1).chain(old.iter().skip(1)).cloned());
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!is_ready(old) || self.is_available(new))
        {
            self.deletions.push(old.clone());
        }
    }

    fn replace_failed(&mut self, name: &str, pod: &Arc<Object>) {
        let created = crate::fields::parse_time(&pod["metadata"]["creationTimestamp"]).unwrap_or(self.now);
        let at = created + seconds(REPLACE_AFTER_SECONDS);
        if at > self.now {
            self.requeue_at = Some(self.requeue_at.map_or(at, |known| known.min(at)));
            return;
        }
        let message = format!("Found failed daemon pod {} on node {name}, will try to kill it", pod.key());
        self.events.push(Action::event(self.set, EventType::Warning, "FailedDaemonPod", message));
        self.deletions.push(pod.clone());
    }

    /// Pods of an older template are replaced, as many at a time as may be missing or surplus.
    fn roll(&mut self) {
        let surge = self.surge();
        let unavailable_max = self.limit("maxUnavailable", if surge > 0 { 0 } else { 1 });
        let (mut unavailable, mut surging) = (0, 0);
        let (mut at_once, mut candidates) = (Vec::new(), Vec::new());
        for (name, (fit, pods)) in &self.nodes {
            let alive: Vec<_> = pods.iter().filter(|p| !object::is_deleting(p)).collect();
            let new = alive.iter().find(|p| self.is_new(p));
            let old = alive.iter().find(|p| !self.is_new(p));
            match (new, old) {
                (None, None) => unavailable += i64::from(fit.run || !pods.is_empty()),
                (Some(new), None) => unavailable += i64::from(!self.is_available(new)),
                (Some(_), Some(_)) => {
                    unavailable += 1;
                    surging += 1;
                }
                (None, Some(old)) if !self.is_available(old) => {
                    unavailable += 1;
                    at_once.push((name.clone(), (*old).clone(), *fit));
                }
                (None, Some(old)) => candidates.push((name.clone(), (*old).clone(), *fit)),
            }
        }
        let room = if surge > 0 { surge - surging } else { unavailable_max - unavailable };
        let chosen = at_once.into_iter().chain(candidates.into_iter().take(room.max(0) as usize));
        for (name, old, fit) in chosen.collect::<Vec<_>>() {
            if surge > 0 {
                if fit.run && !self.creations.contains(&name) {
                    self.creations.push(name);
                }
            } else if !self.deletions.iter().any(|d| object::uid(d) == object::uid(&old)) {
                self.deletions.push(old);
            }
        }
    }

    fn pod(&self, node: &str) -> Action {
        let mut pod = from_template(&self.set["spec"]["template"], self.set);
        pod["metadata"]["generateName"] = generate_name(self.set).into();
        pod["metadata"]["labels"][POD_HASH] = self.hash.into();
        if let Some(generation) = object::annotation(self.set, "deprecated.daemonset.template.generation") {
            pod["metadata"]["labels"]["pod-template-generation"] = generation.into();
        }
        pod["spec"] = with_tolerations(&pod["spec"]);
        let name = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
        pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!({"nodeSelectorTerms": name});
        Action::create(PODS, pod).narrated(narrate_create(self.set))
    }

    fn status(&mut self, collisions: i64) -> Value {
        let min_ready = int(&self.set["spec"]["minReadySeconds"], 0);
        let [mut desired, mut current, mut strays, mut ready, mut updated, mut available] = [0_i64; 6];
        for (fit, pods) in self.nodes.values() {
            let there: Vec<_> = pods.iter().filter(|p| !object::is_deleting(p)).collect();
            if !fit.run {
                strays += i64::from(!pods.is_empty());
                continue;
            }
            desired += 1;
            current += i64::from(!pods.is_empty());
            let Some(pod) = there.iter().min_by_key(|p| crate::deployment::created(p)) else { continue };
            updated += i64::from(there.iter().any(|p| self.is_new(p)));
            ready += i64::from(is_ready(pod));
            match availability(pod, min_ready, self.now) {
                Availability::Yes => available += 1,
                Availability::At(at) => self.requeue_at = Some(self.requeue_at.map_or(at, |known| known.min(at))),
                Availability::No => {}
            }
        }
        let mut status = json!({
            "currentNumberScheduled": current, "numberMisscheduled": strays, "desiredNumberScheduled": desired,
            "numberReady": ready, "observedGeneration": object::generation(self.set),
        });
        for (field, number) in [
            ("updatedNumberScheduled", updated),
            ("numberAvailable", available),
            ("numberUnavailable", desired - available),
        ] {
            if number > 0 {
                status[field] = number.into();
            }
        }
        if collisions > 0 {
            status["collisionCount"] = collisions.into();
        }
        // Upstream sets none of its own, but keeps what others wrote.
        if !self.set["status"]["conditions"].is_null() {
            status["conditions"] = self.set["status"]["conditions"].clone();
        }
        status
    }
}

fn with_tolerations(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let network = (spec["hostNetwork"] == true).then_some((NETWORK_UNAVAILABLE, "NoSchedule"));
    if !spec["tolerations"].is_array() {
        spec["tolerations"] = json!([]);
    }
    let all = spec["tolerations"].as_array_mut().expect("made above");
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let toleration = json!({"key": key, "operator": "Exists", "effect": effect});
        let same = |t: &Value| t["key"] == key && t["effect"] == effect;
        match all.iter_mut().find(|t| same(t)) {
            Some(slot) => *slot = toleration,
            None => all.push(toleration),
        }
    }
    spec
}

fn fit(spec: &Value, wants: &NodeWants, node: &Object) -> Fit {
    let named = text(&spec["nodeName"]);
    let wrong_name = !named.is_empty() && named != object::name(node);
    if wrong_name || !wants.accepts(object::name(node), &node["metadata"]["labels"]) {
        return Fit { run: false, stay: false };
    }
    let tolerations = tolerations(&spec["tolerations"]);
    let keeps_away = |effects: &[Effect]| {
        let strict = taints(&node["spec"]["taints"]).into_iter().filter(|t| effects.contains(&t.effect));
        strict.into_iter().any(|taint| !tolerations.iter().any(|t| t.tolerates(&taint)))
    };
    Fit { run: !keeps_away(&[Effect::NoSchedule, Effect::NoExecute]), stay: !keeps_away(&[Effect::NoExecute]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn set(image: &str) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"namespace": "d", "name": "log", "uid": "s", "resourceVersion": "1"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "updateStrategy": {"type": "RollingUpdate"},
                     "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"image": image}]}}},
        })
    }
    fn node(name: &str, taint: &str) -> (ResourceId, Value) {
        let taints = if taint.is_empty() { json!([]) } else { json!([{"key": "k", "effect": taint}]) };
        (NODES, json!({"metadata": {"name": name}, "spec": {"taints": taints}}))
    }
    fn pod(name: &str, node: &str, hash: &str, ready: bool) -> (ResourceId, Value) {
        let ready = if ready { "True" } else { "False" };
        (
            PODS,
            json!({
                "metadata": {"namespace": "d", "name": name, "uid": name, "labels": {"a": "b", POD_HASH: hash},
                             "ownerReferences": [{"uid": "s", "controller": true, "kind": "DaemonSet", "name": "log"}]},
                "spec": {"nodeName": node},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
            }),
        )
    }
    fn revision(image: &str, number: i64) -> (ResourceId, Value) {
        let view = View::of([(DAEMONSETS, set(image))]);
        let history = revisions::history(&view, DAEMONSETS, view.get(DAEMONSETS, "d", "log").unwrap());
        let Some(Action::Create { body, .. }) = history.actions.into_iter().next() else { panic!("no revision") };
        let mut body = body;
        body["revision"] = number.into();
        (CONTROLLERREVISIONS, body)
    }
    fn hash(image: &str) -> String {
        object::label(&revision(image, 1).1, POD_HASH).unwrap().to_string()
    }
    fn check(set: Value, others: Vec<(ResourceId, Value)>, expected: Expect) {
        let view = View::of(others.into_iter().chain([(DAEMONSETS, set)]));
        let plan = DaemonSet.plan(&view, &ObjectKey::new("d", "log"), NOW.parse().unwrap());
        let lines: Vec<String> = plan.actions.iter().map(|a| a.to_string()).collect();
        let kept: Vec<&str> = lines.iter().map(String::as_str).filter(|l| !l.contains("daemonsets/status")).collect();
        expected.assert_eq(&kept.join("\n"));
    }

    #[test]
    fn each_node_that_fits_gets_one() {
        let nodes = vec![node("a", ""), node("b", "NoSchedule"), node("c", "")];
        check(
            set("1"),
            nodes,
            expect![[r#"
                create controllerrevisions d/log-69b6868f99
                create pods d/log-*
                create pods d/log-*"#]],
        );
    }

    #[test]
    fn a_pod_stays_beside_a_noschedule_taint_but_not_a_noexecute_taint() {
        let h = hash("1");
        let objects = vec![
            revision("1", 1),
            node("a", "NoSchedule"),
            node("b", "NoExecute"),
            pod("pa", "a", &h, true),
            pod("pb", "b", &h, true),
        ];
        check(set("1"), objects, expect!["delete pods d/pb"]);
    }

    #[test]
    fn a_second_revision_of_the_same_template_restarts_nothing() {
        let mut twin = revision("1", 2);
        twin.1["metadata"]["name"] = "log-twin".into();
        twin.1["metadata"]["labels"] = json!({POD_HASH: "twin"});
        let objects = vec![revision("1", 1), twin, node("a", ""), pod("pa", "a", &hash("1"), true)];
        check(set("1"), objects, expect![""]);
    }

    #[test]
    fn a_new_template_replaces_one_at_a_time() {
        let h = hash("1");
        let objects = vec![
            revision("1", 1),
            revision("2", 2),
            node("a", ""),
            node("b", ""),
            pod("pa", "a", &h, true),
            pod("pb", "b", &h, true),
        ];
        check(set("2"), objects, expect!["delete pods d/pa"]);
        let objects = vec![
            revision("1", 1),
            revision("2", 2),
            node("a", ""),
            node("b", ""),
            pod("pa", "a", &hash("2"), false),
            pod("pb", "b", &h, true),
        ];
        check(set("2"), objects, expect![""]);
    }

    #[test]
    fn the_pod_names_its_node_and_bears_its_troubles() {
        let view = View::of([(DAEMONSETS, set("1")), node("a", "")]);
        let plan = DaemonSet.plan(&view, &ObjectKey::new("d", "log"), NOW.parse().unwrap());
        let made = plan.actions.iter().find_map(|a| match a {
            Action::Create { resource: PODS, body, .. } => Some(body),
            _ => None,
        });
        assert_eq!(node_of(made.unwrap()), "a");
        assert_eq!(list(&made.unwrap()["spec"]["tolerations"]).len(), 6);
    }
}
