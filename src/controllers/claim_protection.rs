//! Claims stay while a Pod uses them, and say whether one does.
//!
//! Owns: the finalizer `kubernetes.io/pvc-protection` and the condition Unused (KEP-5541).
//! Called by: the driver.
//! Never: looks at volumes; lets a claim go because its cache knows of no Pod that uses it.

use std::sync::Arc;

use jiff::Timestamp;
use minik_api::resources::{PERSISTENTVOLUMECLAIMS, PODS};
use minik_api::volume_binding::{self as binding, Use};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Object, Plan, Question, Reconciler, View};
use serde_json::{Value, json};

use crate::conditions;
use crate::fields::{list, text, time};
use crate::pods::is_terminal;

const FINALIZER: &str = "kubernetes.io/pvc-protection";
const UNUSED: &str = "Unused";

pub(crate) struct ClaimProtection;

impl Reconciler for ClaimProtection {
    fn name(&self) -> &'static str {
        "pvc-protection"
    }

    fn watches(&self) -> &'static [ResourceId] {
        &[PERSISTENTVOLUMECLAIMS, PODS]
    }

    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource == PERSISTENTVOLUMECLAIMS {
            return vec![change.key.clone()];
        }
        let how = |pod: &Arc<Object>| (text(&pod["spec"]["nodeName"]).is_empty(), is_terminal(pod), is_shut_down(pod));
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && object::uid(old) == object::uid(new)
            && how(old) == how(new)
        {
            return Vec::new();
        }
        let claims = change.sides().flat_map(|pod| binding::claims_of(pod));
        let mut keys: Vec<ObjectKey> =
            claims.map(|(name, _)| ObjectKey::new(change.key.namespace.clone(), name)).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(claim) = view.get_key(PERSISTENTVOLUMECLAIMS, key) else { return Plan::nothing() };
        let protected = object::finalizers(claim).any(|f| f == FINALIZER);
        let deleting = object::is_deleting(claim);
        let pods = || view.list(PODS, &key.namespace);
        if deleting {
            let free = protected && !pods().any(|pod| keeps(pod, claim));
            return if free { free_if_unused(claim) } else { Plan::nothing() };
        }
        let action = if !protected {
            with_finalizer(PERSISTENTVOLUMECLAIMS, claim, FINALIZER)
        } else if claim["status"]["phase"] == "Bound" {
            tell_use(claim, pods().any(|pod| refers(pod, claim)), now)
        } else {
            None
        };
        Plan::of(action.into_iter().collect())
    }
}

/// With the claim goes its data, so that the API server is asked for a Pod that the cache does not show yet.
fn free_if_unused(claim: &Arc<Object>) -> Plan {
    let path = format!("/api/v1/namespaces/{}/pods", object::namespace(claim));
    let claim = claim.clone();
    Plan::asking(vec![Question::Get { path }], move |answers, now| {
        let Some(Ok(pods)) = answers.first() else { return Plan::until_seen(now) };
        if list(&pods["items"]).iter().any(|pod| keeps(pod, &claim)) {
            return Plan::until_seen(now);
        }
        Plan::of(without_finalizer(PERSISTENTVOLUMECLAIMS, &claim, FINALIZER).into_iter().collect())
    })
}

/// The kubelet is done with it, or it was removed by force.
fn is_shut_down(pod: &Value) -> bool {
    object::is_deleting(pod) && pod["metadata"]["deletionGracePeriodSeconds"] == 0
}

/// A Pod on a Node holds its claims, even when it has ended; kubelets start none whose claim is being deleted.
fn keeps(pod: &Value, claim: &Value) -> bool {
    let uses = |(name, how): (String, Use)| {
        name == object::name(claim)
            && match how {
                Use::Named => true,
                Use::Ephemeral => !is_shut_down(pod) && binding::check_made_for(pod, claim).is_ok(),
            }
    };
    !text(&pod["spec"]["nodeName"]).is_empty() && binding::claims_of(pod).any(uses)
}

fn refers(pod: &Value, claim: &Value) -> bool {
    let uses = |(name, how): (String, Use)| {
        name == object::name(claim) && (how == Use::Named || binding::check_made_for(pod, claim).is_ok())
    };
    !is_terminal(pod) && binding::claims_of(pod).any(uses)
}

fn tell_use(claim: &Object, used: bool, now: Timestamp) -> Option<Action> {
    let (status, reason, message) = match used {
        true => ("False", "PodUsingPVC", "A pod is currently referencing this PVC"),
        false => ("True", "NoPodsUsingPVC", "No pods are currently referencing this PVC"),
    };
    let known = conditions::find(&claim["status"], UNUSED);
    if known.is_some_and(|c| c["status"] == status) {
        return None;
    }
    let mut changed = claim.value().clone();
    let condition = json!({
        "type": UNUSED, "status": status, "reason": reason, "message": message, "lastTransitionTime": time(now),
    });
    conditions::put(&mut changed["status"], condition);
    Action::replace(PERSISTENTVOLUMECLAIMS, "status", claim, changed)
}

pub(crate) fn with_finalizer(resource: ResourceId, object: &Object, finalizer: &str) -> Option<Action> {
    let finalizers: Vec<&str> = object::finalizers(object).chain([finalizer]).collect();
    let mut changed = object.value().clone();
    changed["metadata"]["finalizers"] = json!(finalizers);
    Action::replace(resource, "", object, changed)
}

pub(crate) fn without_finalizer(resource: ResourceId, object: &Object, finalizer: &str) -> Option<Action> {
    let left: Vec<&str> = object::finalizers(object).filter(|f| *f != finalizer).collect();
    let mut changed = object.value().clone();
    changed["metadata"]["finalizers"] = json!(left);
    Action::replace(resource, "", object, changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(deleting: bool, pods: &[Value], wanted: Expect) {
        wanted.assert_eq(&plan(deleting, pods).to_string());
    }
    /// Of a claim being deleted that no Pod in the cache uses, when the API server has these.
    fn check_asked(pods: &[Value], wanted: Expect) {
        let answers = vec![Ok(json!({"items": pods}))];
        wanted.assert_eq(&plan(true, &[]).answered(answers, Timestamp::UNIX_EPOCH).to_string());
    }
    fn plan(deleting: bool, pods: &[Value]) -> Plan {
        let mut claim = json!({"metadata": {"namespace": "d", "name": "data", "uid": "u", "finalizers": [FINALIZER]},
            "status": {"phase": "Bound"}});
        if deleting {
            claim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        let pods = pods.iter().map(|p| (PODS, p.clone()));
        let view = View::of(pods.chain([(PERSISTENTVOLUMECLAIMS, claim)]));
        ClaimProtection.plan(&view, &ObjectKey::new("d", "data"), Timestamp::UNIX_EPOCH)
    }
    fn pod(node: &str, phase: &str) -> Value {
        json!({"metadata": {"namespace": "d", "name": "p"}, "status": {"phase": phase}, "spec": {"nodeName": node,
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}})
    }

    #[test]
    fn a_claim_being_deleted_goes_when_no_pod_on_a_node_uses_it() {
        check(true, &[pod("n1", "Running")], expect![[""]]);
        check(true, &[pod("n1", "Succeeded")], expect![[""]]);
        let asks = || expect![["ask /api/v1/namespaces/d/pods\n"]];
        check(true, &[pod("", "Pending")], asks());
        check(true, &[], asks());
        let gone = || {
            expect![[r#"
                update persistentvolumeclaims d/data {"metadata":{"finalizers":[]}}
            "#]]
        };
        check_asked(&[], gone());
        check_asked(&[pod("", "Pending")], gone());
    }

    /// Regression: where the watch of Pods lagged behind that of claims, a claim went with its data while a Pod used it.
    #[test]
    fn a_pod_that_the_cache_does_not_show_keeps_its_claim() {
        check_asked(&[pod("n1", "Running")], expect![["again at 1970-01-01T00:00:05Z\n"]]);
    }

    #[test]
    fn a_bound_claim_says_whether_it_is_used() {
        check(
            false,
            &[pod("n1", "Running")],
            expect![[r#"
            update persistentvolumeclaims/status d/data {"status":{"conditions":[{"lastTransitionTime":"1970-01-01T00:00:00Z","message":"A pod is currently referencing this PVC","reason":"PodUsingPVC","status":"False","type":"Unused"}]}}
        "#]],
        );
        check(
            false,
            &[pod("n1", "Succeeded")],
            expect![[r#"
            update persistentvolumeclaims/status d/data {"status":{"conditions":[{"lastTransitionTime":"1970-01-01T00:00:00Z","message":"No pods are currently referencing this PVC","reason":"NoPodsUsingPVC","status":"True","type":"Unused"}]}}
        "#]],
        );
    }
}
