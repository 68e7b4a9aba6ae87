//! PersistentVolumes: the phase of each, and what becomes of it when its claim is gone.
//!
//! Owns: the volume's half of a binding's end, and its reclaim policy.
//! Called by: the driver.
//! Never: removes data; provisioners do, who are asked by the phase Released.

use jiff::Timestamp;
use minik_api::resources::{PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES};
use minik_api::volume_binding::{self as binding, BOUND_BY_CONTROLLER, PROVISIONED_BY};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, EventType, Object, Plan, Reconciler, View};
use serde_json::Value;

use crate::claim_binder::claim_key;
use crate::fields::text;

pub(crate) struct VolumeBinder;

impl Reconciler for VolumeBinder {
    fn name(&self) -> &'static str {
        "persistentvolume-binder"
    }

    fn watches(&self) -> &'static [ResourceId] {
        &[PERSISTENTVOLUMES, PERSISTENTVOLUMECLAIMS]
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource == PERSISTENTVOLUMES {
            return vec![change.key.clone()];
        }
        let named = |c: &Value| Some(binding::volume_name(c)).filter(|n| !n.is_empty()).map(|n| ObjectKey::new("", n));
        let mut keys: Vec<ObjectKey> = change.sides().filter_map(|c| named(c)).collect();
        let decided = match (&change.old, &change.new) {
            (_, None) => true,
            (Some(old), Some(new)) => binding::volume_name(old) != binding::volume_name(new),
            (None, Some(_)) => false,
        };
        if decided {
            // Volumes that were made or kept for it are free now.
            let refers = |v: &&std::sync::Arc<Object>| claim_key(v).as_ref() == Some(&change.key);
            keys.extend(view.list(PERSISTENTVOLUMES, "").filter(refers).map(|v| v.key()));
        }
        keys.sort();
        keys.dedup();
        keys
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some(volume) = view.get_key(PERSISTENTVOLUMES, key) else { return Plan::nothing() };
        Plan::of(step(view, volume))
    }
}

fn step(view: &View, volume: &Object) -> Vec<Action> {
    let uid = text(&volume["spec"]["claimRef"]["uid"]);
    let Some(key) = claim_key(volume).filter(|_| !uid.is_empty()) else {
        // Free, or reserved for a claim that has not taken it yet.
        return set_phase(volume, "Available").into_iter().collect();
    };
    let claim = view.get_key(PERSISTENTVOLUMECLAIMS, &key).filter(|c| object::uid(c) == uid);
    let Some(claim) = claim else { return release(volume, &key, uid) };
    match binding::volume_name(claim) {
        "" if !binding::same_volume_mode(volume, claim) => mode_mismatch(volume, claim),
        // The claim's own step completes the binding.
        "" => Vec::new(),
        name if name == object::name(volume) => set_phase(volume, "Bound").into_iter().collect(),
        _ if object::annotation(volume, PROVISIONED_BY).is_some() && policy(volume) == "Delete" => {
            reclaim_after(volume, Vec::new())
        }
        _ => unbind(volume),
    }
}

fn policy(volume: &Value) -> &str {
    text(&volume["spec"]["persistentVolumeReclaimPolicy"])
}

fn set_phase(volume: &Object, phase: &str) -> Option<Action> {
    with_phase(volume, phase, "")
}

fn with_phase(volume: &Object, phase: &str, message: &str) -> Option<Action> {
    if volume["status"]["phase"] == phase {
        return None;
    }
    let mut changed = volume.value().clone();
    changed["status"]["phase"] = phase.into();
    match message {
        "" => drop(changed["status"].as_object_mut().and_then(|s| s.remove("message"))),
        _ => changed["status"]["message"] = message.into(),
    }
    Action::replace(PERSISTENTVOLUMES, "status", volume, changed)
}

/// The claim is gone, unless the cache is only behind: the API server is asked before anything is lost.
fn release(volume: &Object, claim: &ObjectKey, uid: &str) -> Vec<Action> {
    let confirm = Action::ConfirmGone { resource: PERSISTENTVOLUMECLAIMS, key: claim.clone(), uid: uid.into() };
    reclaim_after(volume, vec![confirm])
}

fn reclaim_after(volume: &Object, mut before: Vec<Action>) -> Vec<Action> {
    if !matches!(text(&volume["status"]["phase"]), "Released" | "Failed") {
        before.extend(set_phase(volume, "Released"));
        return before;
    }
    let Some(end) = reclaim(volume) else { return Vec::new() };
    match end {
        Reclaim::Delete if object::is_deleting(volume) => return Vec::new(),
        Reclaim::Delete => before.push(Action::delete(PERSISTENTVOLUMES, volume)),
        Reclaim::Fail { reason, message } => {
            let Some(failed) = with_phase(volume, "Failed", &message) else { return Vec::new() };
            before.extend([failed, Action::event(volume, EventType::Warning, reason, message)]);
        }
    }
    before
}

enum Reclaim {
    Delete,
    Fail { reason: &'static str, message: String },
}

/// What the binder itself does about a released volume: nothing for those with a provisioner, or that are to be kept.
fn reclaim(volume: &Value) -> Option<Reclaim> {
    let fail = |reason, message: String| Some(Reclaim::Fail { reason, message });
    let name = object::name(volume);
    match policy(volume) {
        "Retain" => None,
        "Delete" => match (object::annotation(volume, PROVISIONED_BY), volume["spec"]["hostPath"]["path"].as_str()) {
            (Some(by), _) if by.starts_with("kubernetes.io/") => {
                fail("VolumeFailedDelete", format!("no volume plugin matched name: {by}"))
            }
            (Some(_), _) => None,
            (None, _) if volume["spec"]["csi"].is_object() => None,
            // The path is one of a node's; the control plane has nothing to remove.
            (None, Some(path)) if path.len() > "/tmp/".len() && path.starts_with("/tmp/") => Some(Reclaim::Delete),
            (None, Some(path)) => {
                let message = format!("host_path deleter only supports /tmp/.+ but received provided {path}");
                fail("VolumeFailedDelete", message)
            }
            (None, None) => fail(
                "VolumeFailedDelete",
                format!("error getting deleter volume plugin for volume {name:?}: no deletable volume plugin matched"),
            ),
        },
        "Recycle" => fail("VolumeFailedRecycle", "No recycler plugin found for the volume!".into()),
        _ => fail("VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy".into()),
    }
}

/// Its claim has another volume. What a controller reserved is free again; what a user did stays reserved.
fn unbind(volume: &Object) -> Vec<Action> {
    let mut changed = volume.value().clone();
    if object::annotation(volume, BOUND_BY_CONTROLLER).is_some() {
        changed["spec"].as_object_mut().and_then(|spec| spec.remove("claimRef"));
        changed["metadata"]["annotations"].as_object_mut().and_then(|a| a.remove(BOUND_BY_CONTROLLER));
    } else {
        let reference = changed["spec"]["claimRef"].as_object_mut();
        reference.and_then(|r| r.remove("uid"));
    }
    Action::replace(PERSISTENTVOLUMES, "", volume, changed).into_iter().collect()
}

fn mode_mismatch(volume: &Object, claim: &Object) -> Vec<Action> {
    let of_volume = format!(
        "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} due to incompatible volumeMode.",
        object::name(claim)
    );
    let of_claim = format!(
        "Cannot bind PersistentVolume {:?} to requested PersistentVolumeClaim due to incompatible volumeMode.",
        object::name(volume)
    );
    vec![
        Action::event(volume, EventType::Warning, "VolumeMismatch", of_volume),
        Action::event(claim, EventType::Warning, "VolumeMismatch", of_claim),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::json;

    fn check(phase: &str, spec: Value, annotations: Value, claim: Option<Value>, wanted: Expect) {
        let volume = json!({"metadata": {"name": "a", "uid": "u-a", "annotations": annotations}, "spec": spec, "status": {"phase": phase}});
        let claim = claim.map(|spec| {
            (PERSISTENTVOLUMECLAIMS, json!({"metadata": {"namespace": "d", "name": "data", "uid": "u"}, "spec": spec}))
        });
        let view = View::of(claim.into_iter().chain([(PERSISTENTVOLUMES, volume)]));
        let plan = VolumeBinder.plan(&view, &ObjectKey::new("", "a"), Timestamp::UNIX_EPOCH);
        wanted.assert_eq(&plan.to_string());
    }
    fn claimed(policy: &str) -> Value {
        json!({"claimRef": {"namespace": "d", "name": "data", "uid": "u"}, "persistentVolumeReclaimPolicy": policy})
    }

    #[test]
    fn a_free_volume_is_available_and_a_claimed_one_bound() {
        let available = expect![[r#"
            update persistentvolumes/status a {"status":{"phase":"Available"}}
        "#]];
        check("Pending", json!({}), json!({}), None, available);
        let bound = expect![[r#"
            update persistentvolumes/status a {"status":{"phase":"Bound"}}
        "#]];
        check("Available", claimed("Retain"), json!({}), Some(json!({"volumeName": "a"})), bound);
    }

    #[test]
    fn a_volume_without_its_claim_is_released_and_left_to_its_provisioner() {
        let released = expect![[r#"
            confirm persistentvolumeclaims d/data is gone
            update persistentvolumes/status a {"status":{"phase":"Released"}}
        "#]];
        check("Bound", claimed("Delete"), json!({}), None, released);
        check("Released", claimed("Retain"), json!({}), None, expect![[""]]);
        check("Released", claimed("Delete"), json!({PROVISIONED_BY: "minik.dev/local-path"}), None, expect![[""]]);
        let failed = expect![[r#"
            confirm persistentvolumeclaims d/data is gone
            update persistentvolumes/status a {"status":{"message":"error getting deleter volume plugin for volume \"a\": no deletable volume plugin matched","phase":"Failed"}}
            event Warning VolumeFailedDelete: error getting deleter volume plugin for volume "a": no deletable volume plugin matched
        "#]];
        check("Released", claimed("Delete"), json!({}), None, failed);
    }

    #[test]
    fn a_volume_whose_claim_took_another_is_given_back() {
        let by_controller = json!({BOUND_BY_CONTROLLER: "yes"});
        let free = expect![[r#"
            update persistentvolumes a {"metadata":{"annotations":{"pv.kubernetes.io/bound-by-controller":null}},"spec":{"claimRef":null}}
        "#]];
        check("Bound", claimed("Retain"), by_controller, Some(json!({"volumeName": "b"})), free);
        let reserved = expect![[r#"
            update persistentvolumes a {"spec":{"claimRef":{"uid":null}}}
        "#]];
        check("Bound", claimed("Retain"), json!({}), Some(json!({"volumeName": "b"})), reserved);
    }
}
