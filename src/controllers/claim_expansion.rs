//! Claims that ask for more than their volume has: who is expected to make it grow.
//!
//! Owns: telling the claim's owner that an external controller is waited for.
//! Called by: the driver.
//! Never: grows a volume: every kind left in Kubernetes is grown by its own driver.

use jiff::Timestamp;
use minik_api::quantity::Quantity;
use minik_api::resources::{PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES};
use minik_api::volume_binding as binding;
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, EventType, Plan, Reconciler, View};
use serde_json::Value;

pub(crate) struct ClaimExpansion;

impl Reconciler for ClaimExpansion {
    fn name(&self) -> &'static str {
        "volume-expand"
    }

    fn watches(&self) -> &'static [ResourceId] {
        &[PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES]
    }

    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource != PERSISTENTVOLUMECLAIMS {
            return Vec::new();
        }
        let grows = match (&change.old, &change.new) {
            (Some(old), Some(new)) => binding::requested(new) > binding::requested(old),
            (None, Some(new)) => new["status"]["phase"] == "Bound",
            (_, None) => false,
        };
        grows.then(|| change.key.clone()).into_iter().collect()
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some(claim) = view.get_key(PERSISTENTVOLUMECLAIMS, key) else { return Plan::nothing() };
        let volume = view.get(PERSISTENTVOLUMES, "", binding::volume_name(claim));
        let bound = volume.is_some_and(|v| v["spec"]["claimRef"]["uid"] == object::uid(claim));
        if !bound || claim["status"]["phase"] != "Bound" || binding::requested(claim) <= capacity_now(claim) {
            return Plan::nothing();
        }
        let message = "waiting for an external controller to expand this PVC";
        Plan::of(vec![Action::event(claim, EventType::Normal, "ExternalExpanding", message)])
    }
}

fn capacity_now(claim: &Value) -> Quantity {
    Quantity::from_json(&claim["status"]["capacity"]["storage"]).unwrap_or(Quantity::ZERO)
}
