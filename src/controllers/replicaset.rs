//! ReplicaSet and ReplicationController: as many Pods as asked for.
//!
//! Owns: how many Pods are made or removed, which, and the status of both kinds.
//! Called by: the driver.
//! Never: updates a Pod to a new template; that is Deployment's business.

use jiff::Timestamp;
use minik_api::resources::{PODS, REPLICASETS, REPLICATIONCONTROLLERS};
use minik_api::selector::LabelSelector;
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Object, Plan, Reconciler, View};
use serde_json::{Value, json};

use crate::conditions::{self, Repeat};
use crate::fields::int;
use crate::pods::{
    Availability, Claimed, availability, claim, concerned, from_template, generate_name, is_active, is_ready,
    is_terminal, narrate_create, narrate_delete, rank_for_deletion,
};

/// Made or removed in one plan; upstream's number.
const BURST: usize = 500;

pub(crate) enum ReplicaSet {
    Set,
    Controller,
}

impl ReplicaSet {
    fn resource(&self) -> ResourceId {
        match self {
            ReplicaSet::Set => REPLICASETS,
            ReplicaSet::Controller => REPLICATIONCONTROLLERS,
        }
    }
    fn kind(&self) -> &'static str {
        match self {
            ReplicaSet::Set => "ReplicaSet",
            ReplicaSet::Controller => "ReplicationController",
        }
    }
    fn selector(&self, object: &Value) -> LabelSelector {
        let selector = &object["spec"]["selector"];
        match self {
            ReplicaSet::Set => LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing()),
            ReplicaSet::Controller => LabelSelector::from_map(selector),
        }
    }
}

impl Reconciler for ReplicaSet {
    fn name(&self) -> &'static str {
        match self {
            ReplicaSet::Set => "replicaset",
            ReplicaSet::Controller => "replicationcontroller",
        }
    }

    fn watches(&self) -> &'static [ResourceId] {
        match self {
            ReplicaSet::Set => &[REPLICASETS, PODS],
            ReplicaSet::Controller => &[REPLICATIONCONTROLLERS, PODS],
        }
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource == self.resource() {
            return vec![change.key.clone()];
        }
        let candidates = view.list(self.resource(), &change.key.namespace);
        concerned(change, self.kind(), candidates, |o| self.selector(o))
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(set) = view.get_key(self.resource(), key) else { return Plan::nothing() };
        let Claimed { pods, actions } = claim(view, self.resource(), set, &self.selector(set));
        let mut plan = Plan::of(actions);
        let terminating = pods.iter().filter(|p| object::is_deleting(p) && !is_terminal(p)).count();
        let active: Vec<_> = pods.into_iter().filter(|p| is_active(p)).collect();
        let wanted = int(&set["spec"]["replicas"], 1).max(0) as usize;
        if !object::is_deleting(set) {
            if active.len() < wanted {
                let missing = (wanted - active.len()).min(BURST);
                plan.actions.extend((0..missing).map(|_| create(set)));
            } else if active.len() > wanted {
                let surplus = (active.len() - wanted).min(BURST);
                let mut ranked = active.clone();
                rank_for_deletion(&mut ranked, now);
                let delete = |pod| Action::delete(PODS, pod).narrated(narrate_delete(set));
                plan.actions.extend(ranked.iter().take(surplus).map(|pod| delete(pod)));
            }
        }
        let (mut status, again) = self.status(set, &active, now);
        if matches!(self, ReplicaSet::Set) {
            status["terminatingReplicas"] = terminating.into();
        }
        // Pods made or removed above come back as changes; until then this is what is.
        plan.actions.extend(Action::set_status(self.resource(), set, &status));
        plan.requeue_at = again;
        plan.if_failed = Some(self.report_failure(set.clone(), status, active.len() < wanted));
        plan
    }
}

fn create(set: &Object) -> Action {
    let mut pod = from_template(&set["spec"]["template"], set);
    pod["metadata"]["generateName"] = generate_name(set).into();
    Action::create(PODS, pod).narrated(narrate_create(set))
}

impl ReplicaSet {
    fn status(&self, set: &Object, active: &[std::sync::Arc<Object>], now: Timestamp) -> (Value, Option<Timestamp>) {
        let min_ready = int(&set["spec"]["minReadySeconds"], 0);
        let template = LabelSelector::from_map(&set["spec"]["template"]["metadata"]["labels"]);
        let count = |f: &dyn Fn(&Value) -> bool| active.iter().filter(|p| f(p)).count() as i64;
        let mut again = None;
        let mut available = 0;
        for pod in active {
            match availability(pod, min_ready, now) {
                Availability::Yes => available += 1,
                Availability::At(at) => again = Some(again.map_or(at, |known: Timestamp| known.min(at))),
                Availability::No => {}
            }
        }
        let mut status = json!({"replicas": active.len(), "observedGeneration": object::generation(set)});
        // Zeros are left out, as Go's omitempty leaves them out.
        for (field, number) in [
            ("fullyLabeledReplicas", count(&|p| template.matches(&p["metadata"]["labels"]))),
            ("readyReplicas", count(&is_ready)),
            ("availableReplicas", available),
        ] {
            if number > 0 {
                status[field] = number.into();
            }
        }
        let conditions = &set["status"]["conditions"];
        if !conditions.is_null() {
            status["conditions"] = conditions.clone();
            conditions::remove(&mut status, "ReplicaFailure");
        }
        (status, again)
    }

    fn report_failure(&self, set: std::sync::Arc<Object>, status: Value, creating: bool) -> minik_client::IfFailed {
        let resource = self.resource();
        Box::new(move |failure, now| {
            let mut status = status.clone();
            let reason = if creating { "FailedCreate" } else { "FailedDelete" };
            let message = failure.error.to_string();
            let old = conditions::find(&set["status"], "ReplicaFailure");
            if let Some(old) = old.filter(|o| o["reason"] == reason) {
                conditions::put(&mut status, old.clone());
            } else {
                conditions::set(&mut status, "ReplicaFailure", "True", reason, &message, now, Repeat::Keeps);
            }
            Action::set_status(resource, &set, &status).into_iter().collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn set(replicas: i64) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"namespace": "d", "name": "web", "uid": "u-web", "resourceVersion": "1", "generation": 1},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                     "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}},
            "status": {"replicas": 0, "observedGeneration": 1, "terminatingReplicas": 0},
        })
    }
    fn pod(name: &str, owner: &str, app: &str, ready: bool) -> Value {
        let status = if ready { "True" } else { "False" };
        let owners = if owner.is_empty() {
            json!([])
        } else {
            json!([{"uid": owner, "controller": true, "kind": "ReplicaSet", "name": "web"}])
        };
        json!({
            "metadata": {"namespace": "d", "name": name, "uid": name, "labels": {"app": app}, "ownerReferences": owners,
                         "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n"},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        })
    }
    fn check(set: Value, pods: &[Value], expected: Expect) {
        let objects = pods.iter().map(|p| (PODS, p.clone())).chain([(REPLICASETS, set)]);
        let plan = ReplicaSet::Set.plan(&View::of(objects), &ObjectKey::new("d", "web"), NOW.parse().unwrap());
        expected.assert_eq(&plan.to_string());
    }

    #[test]
    fn missing_pods_are_made() {
        check(
            set(2),
            &[pod("a", "u-web", "web", true)],
            expect![[r#"
            create pods d/web-*
            update replicasets/status d/web {"status":{"availableReplicas":1,"fullyLabeledReplicas":1,"readyReplicas":1,"replicas":1}}
        "#]],
        );
    }

    #[test]
    fn the_unready_pod_is_removed_first() {
        let pods = [pod("a", "u-web", "web", true), pod("b", "u-web", "web", false)];
        check(
            set(1),
            &pods,
            expect![[r#"
            delete pods d/b
            update replicasets/status d/web {"status":{"availableReplicas":1,"fullyLabeledReplicas":2,"readyReplicas":1,"replicas":2}}
        "#]],
        );
    }

    #[test]
    fn free_pods_that_match_are_adopted_and_own_ones_that_do_not_are_released() {
        let pods =
            [pod("free", "", "web", true), pod("lost", "u-web", "other", true), pod("theirs", "u-2", "web", true)];
        check(
            set(1),
            &pods,
            expect![[r#"
                patch pods d/lost {"metadata":{"ownerReferences":[{"$patch":"delete","uid":"u-web"}]}}
                confirm replicasets d/web lives
                patch pods d/free {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"web","uid":"u-web"}]}}
                update replicasets/status d/web {"status":{"availableReplicas":1,"fullyLabeledReplicas":1,"readyReplicas":1,"replicas":1}}
            "#]],
        );
    }

    #[test]
    fn a_set_being_deleted_makes_nothing() {
        let mut set = set(2);
        set["metadata"]["deletionTimestamp"] = NOW.into();
        check(set, &[], expect![""]);
    }

    #[test]
    fn a_pod_that_is_ready_but_not_for_long_enough_is_looked_at_again() {
        let mut set = set(1);
        set["spec"]["minReadySeconds"] = 7200.into();
        check(
            set,
            &[pod("a", "u-web", "web", true)],
            expect![[r#"
            update replicasets/status d/web {"status":{"fullyLabeledReplicas":1,"readyReplicas":1,"replicas":1}}
            again at 2026-01-01T02:00:00Z
        "#]],
        );
    }

    #[test]
    fn pods_on_their_way_out_are_counted_and_replaced() {
        let mut leaving = pod("a", "u-web", "web", true);
        leaving["metadata"]["deletionTimestamp"] = NOW.into();
        check(
            set(1),
            &[leaving],
            expect![[r#"
            create pods d/web-*
            update replicasets/status d/web {"status":{"terminatingReplicas":1}}
        "#]],
        );
    }
}
