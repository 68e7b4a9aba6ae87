//! Claims stay while a Pod uses them, and say whether one does.
//!
//! Owns: the finalizer `kubernetes.io/pvc-protection` and the condition Unused (KEP-5541).
//! Called by: the driver.
//! Never: looks at volumes.

use std::sync::Arc;

use jiff::Timestamp;
use minik_api::resources::{PERSISTENTVOLUMECLAIMS, PODS};
use minik_api::volume_binding::{self as binding, Use};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Object, Plan, Reconciler, View};
use serde_json::{Value, json};

use crate::conditions;
use crate::fields::{text, time};
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
        let action = if deleting && protected {
            (!pods().any(|pod| keeps(pod, claim))).then(|| without_finalizer(PERSISTENTVOLUMECLAIMS, claim, FINALIZER))
        } else if !deleting && !protected {
            Some(with_finalizer(PERSISTENTVOLUMECLAIMS, claim, FINALIZER))
        } else if !deleting && claim["status"]["phase"] == "Bound" {
            Some(tell_use(claim, pods().any(|pod| refers(pod, claim)), now))
        } else {
            None
        };
        Plan::of(action.flatten().into_iter().collect())
    }
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
        let mut claim = json!({"metadata": {"namespace": "d", "name": "data", "uid": "u", "finalizers": [FINALIZER]},
            "status": {"phase": "Bound"}});
        if deleting {
            claim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        let pods = pods.iter().map(|p| (PODS, p.clone()));
        let view = View::of(pods.chain([(PERSISTENTVOLUMECLAIMS, claim)]));
        let plan = ClaimProtection.plan(&view, &ObjectKey::new("d", "data"), Timestamp::UNIX_EPOCH);
        wanted.assert_eq(&plan.to_string());
    }
    fn pod(node: &str, phase: &str) -> Value {
        json!({"metadata": {"namespace": "d", "name": "p"}, "status": {"phase": phase}, "spec": {"nodeName": node,
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}})
    }

    #[test]
    fn a_claim_being_deleted_goes_when_no_pod_on_a_node_uses_it() {
        check(true, &[pod("n1", "Running")], expect![[""]]);
        check(true, &[pod("n1", "Succeeded")], expect![[""]]);
        let gone = || {
            expect![[r#"
                update persistentvolumeclaims d/data {"metadata":{"finalizers":[]}}
            "#]]
        };
        check(true, &[pod("", "Pending")], gone());
        check(true, &[], gone());
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
