//! Volumes stay while they are bound, and VolumeAttributesClasses while a volume or claim names them.
//!
//! Owns: the finalizers `kubernetes.io/pv-protection` and `kubernetes.io/vac-protection`.
//! Called by: the driver.
//! Never: deletes.

use jiff::Timestamp;
use minik_api::resources::{PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, VOLUMEATTRIBUTESCLASSES};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Object, Plan, Reconciler, View};
use serde_json::Value;

use crate::claim_protection::{with_finalizer, without_finalizer};
use crate::fields::text;

const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";
const CLASS_FINALIZER: &str = "kubernetes.io/vac-protection";

pub(crate) struct VolumeProtection;

impl Reconciler for VolumeProtection {
    fn name(&self) -> &'static str {
        "pv-protection"
    }

    fn watches(&self) -> &'static [ResourceId] {
        &[PERSISTENTVOLUMES]
    }

    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        vec![change.key.clone()]
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some(volume) = view.get_key(PERSISTENTVOLUMES, key) else { return Plan::nothing() };
        let in_use = || volume["status"]["phase"] == "Bound";
        Plan::of(protect(PERSISTENTVOLUMES, volume, VOLUME_FINALIZER, in_use).into_iter().collect())
    }
}

pub(crate) struct AttributesClassProtection;

impl Reconciler for AttributesClassProtection {
    fn name(&self) -> &'static str {
        "volumeattributesclass-protection"
    }

    fn watches(&self) -> &'static [ResourceId] {
        &[VOLUMEATTRIBUTESCLASSES, PERSISTENTVOLUMES, PERSISTENTVOLUMECLAIMS]
    }

    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource == VOLUMEATTRIBUTESCLASSES {
            return vec![change.key.clone()];
        }
        // Who begins to name a class changes nothing; who stops may set it free.
        let named_now = change.new.as_ref().map(|o| classes_named(o).map(String::from).collect::<Vec<_>>());
        let gone = |name: &&str| named_now.as_ref().is_none_or(|now| !now.iter().any(|n| n == name));
        let before = change.old.iter().flat_map(|o| classes_named(o));
        before.filter(gone).map(|name| ObjectKey::new("", name)).collect()
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some(class) = view.get_key(VOLUMEATTRIBUTESCLASSES, key) else { return Plan::nothing() };
        let in_use = || {
            let named = |o: &std::sync::Arc<Object>| classes_named(o).any(|name| name == key.name);
            view.list(PERSISTENTVOLUMES, "").any(named) || view.list(PERSISTENTVOLUMECLAIMS, "").any(named)
        };
        Plan::of(protect(VOLUMEATTRIBUTESCLASSES, class, CLASS_FINALIZER, in_use).into_iter().collect())
    }
}

/// Of a volume or claim: the class asked for, the one in effect, and the one being changed to.
fn classes_named(object: &Value) -> impl Iterator<Item = &str> {
    let status = &object["status"];
    [
        &object["spec"]["volumeAttributesClassName"],
        &status["currentVolumeAttributesClassName"],
        &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
    ]
    .into_iter()
    .map(text)
    .filter(|name| !name.is_empty())
}

fn protect(resource: ResourceId, object: &Object, finalizer: &str, in_use: impl Fn() -> bool) -> Option<Action> {
    let protected = object::finalizers(object).any(|f| f == finalizer);
    match (object::is_deleting(object), protected) {
        (true, true) if !in_use() => without_finalizer(resource, object, finalizer),
        (false, false) => with_finalizer(resource, object, finalizer),
        (true, _) | (false, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_bound_volume_that_is_deleted_waits_for_its_release() {
        let volume = |phase: &str| {
            let metadata =
                json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [VOLUME_FINALIZER]});
            View::of([(PERSISTENTVOLUMES, json!({"metadata": metadata, "status": {"phase": phase}}))])
        };
        let plan = |phase: &str| {
            VolumeProtection.plan(&volume(phase), &ObjectKey::new("", "a"), Timestamp::UNIX_EPOCH).to_string()
        };
        assert_eq!(plan("Bound"), "");
        assert_eq!(plan("Released"), "update persistentvolumes a {\"metadata\":{\"finalizers\":[]}}\n");
    }

    #[test]
    fn an_attributes_class_stays_while_a_claim_names_it() {
        let class = json!({"metadata": {"name": "gold", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [CLASS_FINALIZER]}});
        let claim = json!({"metadata": {"namespace": "d", "name": "c"}, "status": {"currentVolumeAttributesClassName": "gold"}});
        let key = ObjectKey::new("", "gold");
        let used = View::of([(VOLUMEATTRIBUTESCLASSES, class.clone()), (PERSISTENTVOLUMECLAIMS, claim)]);
        assert!(AttributesClassProtection.plan(&used, &key, Timestamp::UNIX_EPOCH).is_empty());
        let free = View::of([(VOLUMEATTRIBUTESCLASSES, class)]);
        assert!(!AttributesClassProtection.plan(&free, &key, Timestamp::UNIX_EPOCH).is_empty());
    }
}
