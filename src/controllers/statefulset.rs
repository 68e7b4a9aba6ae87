//! StatefulSet: Pods with names, one after another.
//!
//! Owns: the order in which Pods are made, replaced and removed; their identity and their claims.
//! Called by: the driver.
//! Never: deletes a claim: that follows from owner references, which say what the retention policy asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use minik_api::resources::{CONTROLLERREVISIONS, PERSISTENTVOLUMECLAIMS, PODS, STATEFULSETS};
use minik_api::selector::LabelSelector;
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, EventType, Narration, Object, Plan, Reconciler, Regarding, View};
use serde_json::{Value, json};

use crate::fields::{Round, controller_ref, int, int_or_percent, list, text};
use crate::pods::{Availability, availability, claim, concerned, from_template, is_ready, is_terminal, phase};
use crate::revisions::{self, History, POD_HASH, Revision};

pub(crate) struct StatefulSet;

fn selector(set: &Value) -> LabelSelector {
    LabelSelector::from_object(&set["spec"]["selector"]).unwrap_or_else(|_| LabelSelector::nothing())
}

impl Reconciler for StatefulSet {
    fn name(&self) -> &'static str {
        "statefulset"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[STATEFULSETS, PODS, PERSISTENTVOLUMECLAIMS, CONTROLLERREVISIONS]
    }
    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        match change.resource {
            STATEFULSETS => vec![change.key.clone()],
            // Only the loss of a claim matters: its Pod waits for a new one.
            PERSISTENTVOLUMECLAIMS if change.new.is_some() => Vec::new(),
            PERSISTENTVOLUMECLAIMS => view.list(STATEFULSETS, &change.key.namespace).map(|s| s.key()).collect(),
            _ => concerned(change, "StatefulSet", view.list(STATEFULSETS, &change.key.namespace), selector),
        }
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(set) = view.get_key(STATEFULSETS, key) else { return Plan::nothing() };
        let history = revisions::history(view, STATEFULSETS, set);
        let claimed = claim(view, STATEFULSETS, set, &selector(set));
        let current = current_revision(set, &history);
        let mut look =
            Look { view, set, now, current, history, replicas: BTreeMap::new(), condemned: Vec::new(), again: None };
        let (start, end) = look.range();
        for pod in claimed.pods {
            match ordinal(set, &pod) {
                Some(n) if (start..end).contains(&n) => drop(look.replicas.insert(n, pod)),
                Some(_) => look.condemned.push(pod),
                None => {}
            }
        }
        // Highest first: that is the order they go in.
        look.condemned.sort_by_key(|p| std::cmp::Reverse(ordinal(set, p)));
        let mut plan = Plan::of(std::mem::take(&mut look.history.actions));
        plan.actions.extend(claimed.actions);
        if !object::is_deleting(set) && !look.history.collided {
            plan.actions.extend(look.steps());
        }
        plan.actions.extend(Action::set_status(STATEFULSETS, set, &look.status()));
        let live = |r: &Revision| {
            let has = |p: &Arc<Object>| object::label(p, POD_HASH) == Some(&r.name);
            r.name == look.current.name || look.replicas.values().chain(&look.condemned).any(has)
        };
        plan.actions.extend(revisions::clean_up(set, &look.history, live));
        plan.requeue_at = look.again;
        plan
    }
}

/// The revision most Pods still have; the newest when nothing is being replaced.
fn current_revision(set: &Value, history: &History) -> Revision {
    let name = text(&set["status"]["currentRevision"]);
    let known = history.known.iter().find(|r| object::name(r) == name);
    known.map_or_else(|| copy(&history.update), |r| revisions::revision_of(r))
}

fn copy(revision: &Revision) -> Revision {
    Revision { name: revision.name.clone(), hash: revision.hash.clone(), template: revision.template.clone() }
}

/// `web-3` -> 3.
fn ordinal(set: &Value, pod: &Value) -> Option<i64> {
    object::name(pod).strip_prefix(object::name(set))?.strip_prefix('-')?.parse().ok()
}

struct Look<'a> {
    view: &'a View,
    set: &'a Arc<Object>,
    now: Timestamp,
    current: Revision,
    history: History,
    /// Pods whose ordinal is wanted.
    replicas: BTreeMap<i64, Arc<Object>>,
    /// Pods whose ordinal is not.
    condemned: Vec<Arc<Object>>,
    again: Option<Timestamp>,
}

impl Look<'_> {
    fn range(&self) -> (i64, i64) {
        let start = int(&self.set["spec"]["ordinals"]["start"], 0);
        (start, start + int(&self.set["spec"]["replicas"], 1))
    }

    fn is_ordered(&self) -> bool {
        self.set["spec"]["podManagementPolicy"] != "Parallel"
    }

    fn is_available(&mut self, pod: &Value) -> bool {
        if phase(pod) != "Running" || object::is_deleting(pod) {
            return false;
        }
        match availability(pod, int(&self.set["spec"]["minReadySeconds"], 0), self.now) {
            Availability::Yes => true,
            Availability::At(at) => {
                self.again = Some(self.again.map_or(at, |known| known.min(at)));
                false
            }
            Availability::No => false,
        }
    }

    /// First whose the claims are; then the Pods.
    fn steps(&mut self) -> Vec<Action> {
        let condemned = self.condemned.iter().filter_map(|p| Some((ordinal(self.set, p)?, p)));
        let pods = self.replicas.iter().map(|(n, p)| (*n, p)).chain(condemned);
        let mut actions: Vec<Action> = pods.flat_map(|(n, pod)| self.bequeath_claims(pod, n)).collect();
        actions.extend(self.steps_of_pods());
        actions
    }

    /// First everything that is wanted, in order; then what is not, backwards; then replacements.
    fn steps_of_pods(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        let (start, end) = self.range();
        for n in start..end {
            let Some(pod) = self.replicas.get(&n).cloned() else {
                actions.extend(self.create(n));
                if self.is_ordered() {
                    return actions;
                }
                continue;
            };
            if is_terminal(&pod) && !object::is_deleting(&pod) {
                actions.extend(self.replace_ended(&pod));
                if self.is_ordered() {
                    return actions;
                }
                continue;
            }
            actions.extend(self.missing_claims(n));
            actions.extend(self.restore_identity(&pod, n));
            if self.is_ordered() && !self.is_available(&pod) {
                return actions;
            }
        }
        let blocked = self.remove_condemned(&mut actions);
        if blocked || (self.is_ordered() && !actions.is_empty()) {
            return actions;
        }
        self.roll(&mut actions);
        actions
    }

    fn replace_ended(&self, pod: &Arc<Object>) -> Vec<Action> {
        let (reason, word) = if phase(pod) == "Failed" {
            ("RecreatingFailedPod", "failed")
        } else {
            ("RecreatingTerminatedPod", "terminated")
        };
        let (namespace, set) = (object::namespace(self.set), object::name(self.set));
        let message = format!("StatefulSet {namespace}/{set} is recreating {word} Pod {}", object::name(pod));
        let kind = if word == "failed" { EventType::Warning } else { EventType::Normal };
        vec![Action::event(self.set, kind, reason, message), self.delete(pod)]
    }

    /// True if nothing further may happen now.
    fn remove_condemned(&mut self, actions: &mut Vec<Action>) -> bool {
        let condemned = self.condemned.clone();
        let ordered = self.is_ordered();
        let mut first_unavailable = None;
        for pod in condemned.iter().rev() {
            if first_unavailable.is_none() && !self.is_available(pod) {
                first_unavailable = Some(object::uid(pod).to_string());
            }
        }
        for pod in &condemned {
            if object::is_deleting(pod) {
                if ordered {
                    return true;
                }
                continue;
            }
            let first = first_unavailable.as_deref() == Some(object::uid(pod));
            if ordered && !self.is_available(pod) && !first {
                return true;
            }
            actions.push(self.delete(pod));
            if ordered {
                return true;
            }
        }
        false
    }

    /// The highest Pods of an older revision, as many as may be missing at a time.
    fn roll(&mut self, actions: &mut Vec<Action>) {
        if self.set["spec"]["updateStrategy"]["type"] == "OnDelete" {
            return;
        }
        let rolling = &self.set["spec"]["updateStrategy"]["rollingUpdate"];
        let partition = int(&rolling["partition"], 0);
        let wanted = int(&self.set["spec"]["replicas"], 1);
        let allowed = match &rolling["maxUnavailable"] {
            Value::Null => 1,
            value => int_or_percent(value, wanted, Round::Down).max(1),
        };
        let replicas: Vec<(i64, Arc<Object>)> = self.replicas.iter().map(|(n, p)| (*n, p.clone())).collect();
        let (start, end) = self.range();
        let missing = (end - start) - replicas.len() as i64;
        let mut unavailable = missing;
        for (_, pod) in &replicas {
            unavailable += i64::from(!self.is_available(pod));
        }
        let mut room = allowed - unavailable;
        for (n, pod) in replicas.iter().rev() {
            let old = object::label(pod, POD_HASH) != Some(self.history.update.name.as_str());
            if *n < start + partition || !old || object::is_deleting(pod) {
                continue;
            }
            // One that does not work is replaced even when no more may be missing: it is missing already.
            let broken = !self.is_available(pod);
            if room <= 0 && !broken {
                continue;
            }
            let above_broken = replicas.iter().filter(|(m, _)| m > n).any(|(_, p)| !is_ready(p));
            if broken && above_broken && self.is_ordered() {
                return;
            }
            actions.push(self.delete(pod));
            room -= i64::from(!broken);
            if self.is_ordered() && allowed == 1 {
                return;
            }
        }
    }

    fn delete(&self, pod: &Object) -> Action {
        Action::delete(PODS, pod).narrated(Narration {
            regarding: Regarding::of(self.set),
            done: ("SuccessfulDelete", "delete Pod {} in StatefulSet {owner} successful"),
            failed: ("FailedDelete", "delete Pod {} in StatefulSet {owner} failed error: "),
        })
    }

    /// Which template an ordinal gets: below the partition the current one.
    fn revision_for(&self, n: i64) -> &Revision {
        let strategy = &self.set["spec"]["updateStrategy"];
        let (start, _) = self.range();
        let partition = match &strategy["rollingUpdate"] {
            Value::Null => int(&self.set["status"]["currentReplicas"], 0),
            rolling => int(&rolling["partition"], 0),
        };
        let keeps = strategy["type"] != "OnDelete" && n < start + partition;
        if keeps { &self.current } else { &self.history.update }
    }

    fn create(&self, n: i64) -> Vec<Action> {
        if self.waits_for_claims(n) {
            return Vec::new();
        }
        let mut actions = self.missing_claims(n);
        let revision = self.revision_for(n);
        let name = format!("{}-{n}", object::name(self.set));
        let mut pod = from_template(&revision.template, self.set);
        pod["metadata"]["name"] = name.clone().into();
        pod["metadata"]["labels"][POD_HASH] = revision.name.clone().into();
        set_identity(&mut pod, &name, n);
        pod["spec"]["hostname"] = name.into();
        pod["spec"]["subdomain"] = self.set["spec"]["serviceName"].clone();
        self.mount_claims(&mut pod, n);
        actions.push(Action::create(PODS, pod).narrated(Narration {
            regarding: Regarding::of(self.set),
            done: ("SuccessfulCreate", "create Pod {} in StatefulSet {owner} successful"),
            failed: ("FailedCreate", "create Pod in StatefulSet {owner} failed error: "),
        }));
        actions
    }

    fn restore_identity(&self, pod: &Object, n: i64) -> Option<Action> {
        let name = object::name(pod);
        let right = object::label(pod, "statefulset.kubernetes.io/pod-name") == Some(name)
            && object::label(pod, "apps.kubernetes.io/pod-index") == Some(&n.to_string());
        if right || object::is_deleting(pod) {
            return None;
        }
        let mut changed = pod.value().clone();
        set_identity(&mut changed, name, n);
        Action::replace(PODS, "", pod, changed)
    }

    fn claim_name(&self, template: &Value, n: i64) -> String {
        format!("{}-{}-{n}", object::name(template), object::name(self.set))
    }

    fn claims(&self, n: i64) -> impl Iterator<Item = &Arc<Object>> {
        let namespace = object::namespace(self.set);
        let templates = list(&self.set["spec"]["volumeClaimTemplates"]).iter();
        templates.filter_map(move |t| self.view.get(PERSISTENTVOLUMECLAIMS, namespace, &self.claim_name(t, n)))
    }

    fn deletes_claims(&self, when: &str) -> bool {
        self.set["spec"]["persistentVolumeClaimRetentionPolicy"][when] == "Delete"
    }

    /// A claim that goes, or that was to go with an earlier Pod of the name, is not for a new one.
    fn waits_for_claims(&self, n: i64) -> bool {
        let pod = format!("{}-{n}", object::name(self.set));
        let of_earlier = |c: &Object| {
            self.deletes_claims("whenScaled")
                && object::owner_references(c).iter().any(|r| r["kind"] == "Pod" && r["name"] == pod.as_str())
        };
        self.claims(n).any(|claim| object::is_deleting(claim) || of_earlier(claim))
    }

    /// Makes a claim go with the set, with its Pod that is scaled away, or with nobody (KEP-1847).
    fn bequeath_claims(&self, pod: &Object, n: i64) -> Vec<Action> {
        let (start, end) = self.range();
        let scaled_away = !(start..end).contains(&n);
        let heir = if scaled_away && self.deletes_claims("whenScaled") {
            Some(controller_ref(pod))
        } else if self.deletes_claims("whenDeleted") {
            Some(controller_ref(self.set))
        } else {
            None
        };
        let ours = |r: &Value| {
            let is = |kind: &str, of: &Object| r["kind"] == kind && r["name"] == object::name(of);
            is("StatefulSet", self.set) || is("Pod", pod)
        };
        let bequeath = |claim: &Arc<Object>| {
            let mut owners: Vec<Value> = object::owner_references(claim).iter().filter(|r| !ours(r)).cloned().collect();
            // What somebody else controls is not ours to give.
            if !owners.iter().any(|r| r["controller"] == true) {
                owners.extend(heir.clone());
            }
            let uids = |all: &[Value]| all.iter().map(|r| r["uid"].clone()).collect::<Vec<_>>();
            if uids(&owners) == uids(list(&claim["metadata"]["ownerReferences"])) {
                return None;
            }
            let mut changed = claim.value().clone();
            changed["metadata"]["ownerReferences"] = owners.into();
            Action::replace(PERSISTENTVOLUMECLAIMS, "", claim, changed)
        };
        self.claims(n).filter_map(bequeath).collect()
    }

    fn missing_claims(&self, n: i64) -> Vec<Action> {
        let namespace = object::namespace(self.set);
        let mut actions = Vec::new();
        for template in list(&self.set["spec"]["volumeClaimTemplates"]) {
            let name = self.claim_name(template, n);
            if self.view.get(PERSISTENTVOLUMECLAIMS, namespace, &name).is_some() {
                continue;
            }
            let mut claim = template.clone();
            claim["apiVersion"] = "v1".into();
            claim["kind"] = "PersistentVolumeClaim".into();
            claim["metadata"]["name"] = name.into();
            claim["metadata"]["namespace"] = namespace.into();
            for (key, value) in self.set["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten() {
                claim["metadata"]["labels"][key] = value.clone();
            }
            if let Some(map) = claim.as_object_mut() {
                map.remove("status");
            }
            if self.deletes_claims("whenDeleted") {
                claim["metadata"]["ownerReferences"] = json!([controller_ref(self.set)]);
            }
            actions.push(Action::create(PERSISTENTVOLUMECLAIMS, claim));
        }
        actions
    }

    fn mount_claims(&self, pod: &mut Value, n: i64) {
        let templates = list(&self.set["spec"]["volumeClaimTemplates"]);
        if templates.is_empty() {
            return;
        }
        let volume =
            |t: &Value| json!({"name": object::name(t), "persistentVolumeClaim": {"claimName": self.claim_name(t, n)}});
        let mut volumes: Vec<Value> = templates.iter().map(volume).collect();
        let replaced = |v: &&Value| templates.iter().any(|t| v["name"] == object::name(t));
        volumes.extend(list(&pod["spec"]["volumes"]).iter().filter(|v| !replaced(v)).cloned());
        pod["spec"]["volumes"] = volumes.into();
    }

    fn status(&mut self) -> Value {
        let pods: Vec<Arc<Object>> = self.replicas.values().chain(&self.condemned).cloned().collect();
        let update = self.history.update.name.clone();
        let has = |p: &Value, name: &str| object::label(p, POD_HASH) == Some(name);
        let count = |f: &dyn Fn(&Value) -> bool| pods.iter().filter(|p| f(p)).count() as i64;
        let alive = |p: &Value| !object::is_deleting(p) && !phase(p).is_empty();
        let ready = count(&|p| phase(p) == "Running" && is_ready(p));
        let mut current = count(&|p| alive(p) && has(p, &self.current.name));
        let updated = count(&|p| alive(p) && has(p, &update));
        let replicas = count(&|p| !phase(p).is_empty());
        let mut available = 0;
        for pod in &pods {
            available += i64::from(self.is_available(pod));
        }
        let wanted = int(&self.set["spec"]["replicas"], 1);
        let mut revision = self.current.name.clone();
        let rolling = self.set["spec"]["updateStrategy"]["type"] != "OnDelete";
        if rolling && [updated, ready, replicas] == [wanted; 3] {
            (current, revision) = (updated, update.clone());
        }
        let mut status = json!({
            "observedGeneration": object::generation(self.set), "replicas": replicas, "availableReplicas": available,
            "currentRevision": revision, "updateRevision": update, "collisionCount": self.history.collisions,
        });
        for (field, number) in [("readyReplicas", ready), ("currentReplicas", current), ("updatedReplicas", updated)] {
            if number > 0 {
                status[field] = number.into();
            }
        }
        let conditions = &self.set["status"]["conditions"];
        if conditions.is_array() {
            status["conditions"] = conditions.clone();
        }
        status
    }
}

fn set_identity(pod: &mut Value, name: &str, n: i64) {
    pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] = name.into();
    pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] = n.to_string().into();
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn set(replicas: i64, image: &str) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"namespace": "d", "name": "db", "uid": "s", "resourceVersion": "1"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "serviceName": "db",
                     "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                     "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"image": image}]}}},
        })
    }
    fn revision(image: &str, number: i64) -> (ResourceId, Value) {
        let view = View::of([(STATEFULSETS, set(1, image))]);
        let history = revisions::history(&view, STATEFULSETS, view.get(STATEFULSETS, "d", "db").unwrap());
        let Some(Action::Create { mut body, .. }) = history.actions.into_iter().next() else { panic!("no revision") };
        body["revision"] = number.into();
        (CONTROLLERREVISIONS, body)
    }
    fn pod(n: i64, image: &str, ready: bool) -> (ResourceId, Value) {
        let name = format!("db-{n}");
        let ready = if ready { "True" } else { "False" };
        (
            PODS,
            json!({
                "metadata": {"namespace": "d", "name": name, "uid": name,
                    "labels": {"a": "b", POD_HASH: object::name(&revision(image, 1).1),
                               "statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": n.to_string()},
                    "ownerReferences": [{"uid": "s", "controller": true, "kind": "StatefulSet", "name": "db"}]},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
            }),
        )
    }
    fn check(set: Value, others: Vec<(ResourceId, Value)>, expected: &[&str]) {
        let current = object::name(&revision("1", 1).1).to_string();
        let mut set = set;
        set["status"] = json!({"currentRevision": current});
        let view = View::of(others.into_iter().chain([revision("1", 1), revision("2", 2), (STATEFULSETS, set)]));
        let plan = StatefulSet.plan(&view, &ObjectKey::new("d", "db"), NOW.parse().unwrap());
        let lines: Vec<String> = plan.actions.iter().map(|a| a.to_string()).collect();
        let kept: Vec<&str> = lines.iter().map(String::as_str).filter(|l| l.contains(" pods ")).collect();
        assert_eq!(kept, expected);
    }

    #[test]
    fn pods_are_made_one_after_another_each_when_the_last_is_ready() {
        check(set(3, "2"), vec![], &["create pods d/db-0"]);
        check(set(3, "2"), vec![pod(0, "2", false)], &[]);
        check(set(3, "2"), vec![pod(0, "2", true)], &["create pods d/db-1"]);
        let mut parallel = set(2, "2");
        parallel["spec"]["podManagementPolicy"] = "Parallel".into();
        check(parallel, vec![], &["create pods d/db-0", "create pods d/db-1"]);
    }

    #[test]
    fn the_highest_go_first_when_it_shrinks() {
        check(set(1, "2"), vec![pod(0, "2", true), pod(1, "2", true), pod(2, "2", true)], &["delete pods d/db-2"]);
        check(set(1, "2"), vec![pod(0, "2", false), pod(1, "2", true)], &[]);
    }

    #[test]
    fn a_new_template_replaces_from_the_top_and_stops_at_the_partition() {
        let pods = || vec![pod(0, "1", true), pod(1, "1", true), pod(2, "1", true)];
        check(set(3, "2"), pods(), &["delete pods d/db-2"]);
        check(set(3, "2"), vec![pod(0, "1", true), pod(1, "1", true), pod(2, "2", false)], &[]);
        check(set(3, "2"), vec![pod(0, "1", true), pod(1, "1", true), pod(2, "2", true)], &["delete pods d/db-1"]);
        let mut partition = set(3, "2");
        partition["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = 3.into();
        check(partition, pods(), &[]);
    }

    #[test]
    fn a_pod_has_its_claims_and_its_name() {
        let mut with_claims = set(1, "2");
        with_claims["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {}}]);
        let view = View::of([(STATEFULSETS, with_claims)]);
        let plan = StatefulSet.plan(&view, &ObjectKey::new("d", "db"), NOW.parse().unwrap());
        assert!(plan.to_string().contains("create persistentvolumeclaims d/data-db-0\ncreate pods d/db-0"), "{plan}");
    }

    #[test]
    fn a_claim_goes_with_whom_the_policy_says() {
        let check = |policy: Value, replicas: i64, expected: &[&str]| {
            let mut set = set(replicas, "1");
            set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {}}]);
            set["spec"]["persistentVolumeClaimRetentionPolicy"] = policy;
            let claim = |n: i64| {
                let name = format!("data-db-{n}");
                (PERSISTENTVOLUMECLAIMS, json!({"metadata": {"namespace": "d", "name": name}}))
            };
            let mut pods = vec![pod(0, "1", true), pod(1, "1", true)];
            pods.iter_mut().for_each(|(_, p)| p["kind"] = "Pod".into());
            let view = View::of(pods.into_iter().chain([claim(0), claim(1), revision("1", 1), (STATEFULSETS, set)]));
            let plan = StatefulSet.plan(&view, &ObjectKey::new("d", "db"), NOW.parse().unwrap());
            let heir = |a: &Action| match a {
                Action::Replace { resource: PERSISTENTVOLUMECLAIMS, body, .. } => {
                    let owner = &body["metadata"]["ownerReferences"][0];
                    Some(format!("{} {} {}", object::name(body), text(&owner["kind"]), text(&owner["name"])))
                }
                _ => None,
            };
            assert_eq!(plan.actions.iter().filter_map(heir).collect::<Vec<_>>(), expected, "{replicas}");
        };
        check(json!({"whenDeleted": "Retain", "whenScaled": "Retain"}), 1, &[]);
        check(
            json!({"whenDeleted": "Delete", "whenScaled": "Retain"}),
            1,
            &["data-db-0 StatefulSet db", "data-db-1 StatefulSet db"],
        );
        check(json!({"whenDeleted": "Retain", "whenScaled": "Delete"}), 1, &["data-db-1 Pod db-1"]);
        check(
            json!({"whenDeleted": "Delete", "whenScaled": "Delete"}),
            1,
            &["data-db-0 StatefulSet db", "data-db-1 Pod db-1"],
        );
    }
}
