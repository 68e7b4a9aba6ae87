//! PersistentVolumeClaims: finding each its volume, or somebody who makes one.
//!
//! Owns: the claim's half of a binding, its phase, and what its owner is told while it waits.
//! Called by: the driver.
//! Never: makes a volume; it asks the provisioner of the claim's class by an annotation.

use jiff::Timestamp;
use minik_api::resources::{PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, STORAGECLASSES};
use minik_api::volume_binding::{
    self as binding, BETA_STORAGE_PROVISIONER, BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE, STORAGE_PROVISIONER,
    Seeker,
};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, EventType, Object, Plan, Reconciler, View};
use serde_json::Value;

use crate::fields::text;
use crate::pods::is_terminal;

pub(crate) struct ClaimBinder;

impl Reconciler for ClaimBinder {
    fn name(&self) -> &'static str {
        "persistentvolumeclaim-binder"
    }

    fn watches(&self) -> &'static [ResourceId] {
        &[PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, STORAGECLASSES, PODS]
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        match change.resource {
            PERSISTENTVOLUMECLAIMS => vec![change.key.clone()],
            PERSISTENTVOLUMES => keys_of_volume(view, change),
            STORAGECLASSES => pending(view).map(|c| c.key()).collect(),
            _ => keys_of_pod(view, change),
        }
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some(claim) = view.get_key(PERSISTENTVOLUMECLAIMS, key) else { return Plan::nothing() };
        let step = Step { view, claim };
        if object::annotation(claim, BIND_COMPLETED).is_some() {
            Plan::of(step.keep())
        } else if binding::volume_name(claim).is_empty() {
            Plan::of(step.find())
        } else {
            Plan::of(step.take_requested())
        }
    }
}

fn pending(view: &View) -> impl Iterator<Item = &std::sync::Arc<Object>> {
    view.list(PERSISTENTVOLUMECLAIMS, "").filter(|c| object::annotation(c, BIND_COMPLETED).is_none())
}

/// The claim a volume refers to, before and after; and all that still look for one, if it is free.
fn keys_of_volume(view: &View, change: &Change) -> Vec<ObjectKey> {
    let mut keys: Vec<ObjectKey> = change.sides().filter_map(|v| claim_key(v)).collect();
    let free = change.new.as_ref().is_some_and(|v| v["spec"]["claimRef"].is_null());
    let taken_or_new = match (&change.old, &change.new) {
        (Some(old), Some(new)) => old["spec"]["claimRef"] != new["spec"]["claimRef"],
        (None, _) | (_, None) => true,
    };
    if free || taken_or_new {
        // Claims that ask for it by name wait for it to appear, or must hear that it is taken.
        let concerned = |c: &&std::sync::Arc<Object>| free || binding::volume_name(c) == change.key.name;
        keys.extend(pending(view).filter(concerned).map(|c| c.key()));
    }
    keys.sort();
    keys.dedup();
    keys
}

/// The claim a volume refers to.
pub(crate) fn claim_key(volume: &Value) -> Option<ObjectKey> {
    let reference = &volume["spec"]["claimRef"];
    reference.is_object().then(|| ObjectKey::new(text(&reference["namespace"]), text(&reference["name"])))
}

/// A Pod matters while it waits for a Node: its claims then say what they wait for.
fn keys_of_pod(view: &View, change: &Change) -> Vec<ObjectKey> {
    let Some(pod) = &change.new else { return Vec::new() };
    if change.old.as_ref().is_some_and(|old| old["spec"]["nodeName"] == pod["spec"]["nodeName"]) {
        return Vec::new();
    }
    let keys = binding::claims_of(pod).map(|(name, _)| ObjectKey::new(object::namespace(pod), name));
    let waits = |key: &ObjectKey| {
        let claim = view.get_key(PERSISTENTVOLUMECLAIMS, key);
        claim.is_some_and(|c| object::annotation(c, BIND_COMPLETED).is_none())
    };
    keys.filter(waits).collect()
}

/// One step of one claim. Every write of an object comes back as a change, which brings the next step.
struct Step<'a> {
    view: &'a View,
    claim: &'a Object,
}

impl Step<'_> {
    /// The claim does not care which volume it gets.
    fn find(&self) -> Vec<Action> {
        let class = self.view.get(STORAGECLASSES, "", binding::class_of(self.claim));
        let delayed = class.is_some_and(|c| binding::waits_for_consumer(c));
        let seeker = if delayed { Seeker::BinderWaiting } else { Seeker::Binder };
        let volumes = self.view.list(PERSISTENTVOLUMES, "").map(|v| v.value());
        if let Some(found) = binding::best_match(self.claim, volumes, seeker) {
            return self.bind(object::name(found));
        }
        if let Some(action) = self.assign_default_class() {
            return vec![action];
        }
        if delayed && object::annotation(self.claim, SELECTED_NODE).is_none() {
            return self.wait_for_consumer();
        }
        if !binding::class_of(self.claim).is_empty() {
            return self.provision(class.map(|c| c.value()));
        }
        let message = "no persistent volumes available for this claim and no storage class is set";
        self.stay_pending(EventType::Normal, "FailedBinding", message.into())
    }

    /// The claim names its volume.
    fn take_requested(&self) -> Vec<Action> {
        let name = binding::volume_name(self.claim);
        let Some(volume) = self.view.get(PERSISTENTVOLUMES, "", name) else {
            return self.set_status("Pending", None).into_iter().collect();
        };
        if binding::is_bound_to(volume, self.claim) {
            return self.bind(name);
        }
        if !volume["spec"]["claimRef"].is_null() {
            let message = format!("volume {name:?} already bound to a different claim.");
            return self.stay_pending(EventType::Warning, "FailedBinding", message);
        }
        match binding::mismatch(volume, self.claim) {
            None => self.bind(name),
            Some(why) => {
                let message = format!("Cannot bind to requested volume {name:?}: {why}");
                self.stay_pending(EventType::Warning, "VolumeMismatch", message)
            }
        }
    }

    /// The binding was complete once.
    fn keep(&self) -> Vec<Action> {
        let name = binding::volume_name(self.claim);
        if name.is_empty() {
            let message = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
            return self.lose("ClaimLost", message);
        }
        let Some(volume) = self.view.get(PERSISTENTVOLUMES, "", name) else {
            return self.lose("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
        };
        let reference = &volume["spec"]["claimRef"];
        if reference.is_null() || reference["uid"] == object::uid(self.claim) {
            return self.bind(name);
        }
        let message = "Two claims are bound to the same volume, this one is bound incorrectly";
        self.lose("ClaimMisbound", message)
    }

    /// Volume first, so that nobody else takes it; then the claim; then the claim's phase.
    fn bind(&self, volume: &str) -> Vec<Action> {
        let Some(volume) = self.view.get(PERSISTENTVOLUMES, "", volume) else { return Vec::new() };
        if let Some(action) = Action::replace(PERSISTENTVOLUMES, "", volume, binding::bound(volume, self.claim)) {
            return vec![action];
        }
        let mut claim = self.claim.value().clone();
        if binding::volume_name(&claim) != object::name(volume) {
            claim["spec"]["volumeName"] = object::name(volume).into();
            claim["metadata"]["annotations"][BOUND_BY_CONTROLLER] = "yes".into();
        }
        claim["metadata"]["annotations"][BIND_COMPLETED] = "yes".into();
        if let Some(action) = Action::replace(PERSISTENTVOLUMECLAIMS, "", self.claim, claim) {
            return vec![action];
        }
        self.set_status("Bound", Some(volume)).into_iter().collect()
    }

    /// A claim older than the default class gets it too (KEP-3333).
    fn assign_default_class(&self) -> Option<Action> {
        if binding::names_class(self.claim) {
            return None;
        }
        let class = binding::default_class(self.view.list(STORAGECLASSES, "").map(|c| c.value()))?;
        let mut claim = self.claim.value().clone();
        claim["spec"]["storageClassName"] = object::name(class).into();
        Action::replace(PERSISTENTVOLUMECLAIMS, "", self.claim, claim)
    }

    fn wait_for_consumer(&self) -> Vec<Action> {
        let namespace = object::namespace(self.claim);
        let name = object::name(self.claim);
        let waiting = |pod: &&std::sync::Arc<Object>| {
            text(&pod["spec"]["nodeName"]).is_empty()
                && !is_terminal(pod)
                && binding::claims_of(pod).any(|(claim, _)| claim == name)
        };
        let pods: Vec<&str> = self.view.list(PODS, namespace).filter(waiting).map(|p| object::name(p)).collect();
        let (reason, message) = match pods[..] {
            [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_string()),
            [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
            _ => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", pods.join(","))),
        };
        self.stay_pending(EventType::Normal, reason, message)
    }

    fn provision(&self, class: Option<&Value>) -> Vec<Action> {
        let failed = |message: String| vec![self.event(EventType::Warning, "ProvisioningFailed", message)];
        let Some(class) = class else {
            let name = binding::class_of(self.claim);
            return failed(format!("storageclass.storage.k8s.io {name:?} not found"));
        };
        let provisioner = text(&class["provisioner"]);
        if provisioner.starts_with("kubernetes.io/") {
            // Those were parts of Kubernetes once; drivers of their own took their place.
            return failed(format!("no volume plugin matched name: {provisioner}"));
        }
        let mut claim = self.claim.value().clone();
        for annotation in [BETA_STORAGE_PROVISIONER, STORAGE_PROVISIONER] {
            claim["metadata"]["annotations"][annotation] = provisioner.into();
        }
        if let Some(action) = Action::replace(PERSISTENTVOLUMECLAIMS, "", self.claim, claim) {
            return vec![action];
        }
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        vec![self.event(EventType::Normal, "ExternalProvisioning", message)]
    }

    fn event(&self, kind: EventType, reason: &'static str, message: String) -> Action {
        Action::event(self.claim, kind, reason, message)
    }

    fn stay_pending(&self, kind: EventType, reason: &'static str, message: String) -> Vec<Action> {
        let status = self.set_status("Pending", None);
        std::iter::once(self.event(kind, reason, message)).chain(status).collect()
    }

    /// Lost is told once, when it happens.
    fn lose(&self, reason: &'static str, message: &str) -> Vec<Action> {
        if self.claim["status"]["phase"] == "Lost" {
            return Vec::new();
        }
        let status = self.set_status("Lost", None);
        status.into_iter().chain([self.event(EventType::Warning, reason, message.into())]).collect()
    }

    fn set_status(&self, phase: &str, volume: Option<&Object>) -> Option<Action> {
        let mut changed = self.claim.value().clone();
        let status = &mut changed["status"];
        let before = text(&status["phase"]).to_string();
        status["phase"] = phase.into();
        match volume {
            Some(volume) => {
                let spec = &volume["spec"];
                status["accessModes"] = spec["accessModes"].clone();
                // Later differences are a resize under way, which is not the binder's business.
                if before != phase {
                    status["capacity"] = spec["capacity"].clone();
                    if spec["volumeAttributesClassName"].is_string() {
                        status["currentVolumeAttributesClassName"] = spec["volumeAttributesClassName"].clone();
                    }
                }
            }
            None => {
                for field in ["accessModes", "capacity", "currentVolumeAttributesClassName"] {
                    status.as_object_mut().and_then(|s| s.remove(field));
                }
            }
        }
        Action::replace(PERSISTENTVOLUMECLAIMS, "status", self.claim, changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::json;

    fn claim(spec: Value, annotations: Value) -> Value {
        let mut claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"namespace": "d", "name": "data", "uid": "u-data", "resourceVersion": "7", "annotations": annotations},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"phase": "Pending"},
        });
        claim["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        claim
    }
    fn volume(name: &str, more: Value) -> (ResourceId, Value) {
        let mut volume = json!({
            "metadata": {"name": name, "uid": name, "resourceVersion": "3"},
            "spec": {"capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Available"},
        });
        volume["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (PERSISTENTVOLUMES, volume)
    }
    fn class(name: &str, mode: &str, provisioner: &str, default: bool) -> (ResourceId, Value) {
        let annotations = json!({"storageclass.kubernetes.io/is-default-class": default.to_string()});
        let body = json!({"metadata": {"name": name, "annotations": annotations}, "volumeBindingMode": mode, "provisioner": provisioner});
        (STORAGECLASSES, body)
    }
    fn check(claim: Value, others: impl IntoIterator<Item = (ResourceId, Value)>, wanted: Expect) {
        let key = ObjectKey::of(&claim);
        let view = View::of(others.into_iter().chain([(PERSISTENTVOLUMECLAIMS, claim)]));
        wanted.assert_eq(&ClaimBinder.plan(&view, &key, Timestamp::UNIX_EPOCH).to_string());
    }
    fn to_claim() -> Value {
        json!({"claimRef": {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": "d", "name": "data", "uid": "u-data", "resourceVersion": "7"}})
    }

    #[test]
    fn a_binding_is_written_volume_first_then_claim_then_phase() {
        check(
            claim(json!({}), json!({})),
            [volume("a", json!({}))],
            expect![[r#"
            update persistentvolumes a {"metadata":{"annotations":{"pv.kubernetes.io/bound-by-controller":"yes"}},"spec":{"claimRef":{"apiVersion":"v1","kind":"PersistentVolumeClaim","name":"data","namespace":"d","resourceVersion":"7","uid":"u-data"}}}
        "#]],
        );
        check(
            claim(json!({}), json!({})),
            [volume("a", to_claim())],
            expect![[r#"
            update persistentvolumeclaims d/data {"metadata":{"annotations":{"pv.kubernetes.io/bind-completed":"yes","pv.kubernetes.io/bound-by-controller":"yes"}},"spec":{"volumeName":"a"}}
        "#]],
        );
        let done = json!({BIND_COMPLETED: "yes", BOUND_BY_CONTROLLER: "yes"});
        check(
            claim(json!({"volumeName": "a"}), done),
            [volume("a", to_claim())],
            expect![[r#"
            update persistentvolumeclaims/status d/data {"status":{"accessModes":["ReadWriteOnce"],"capacity":{"storage":"2Gi"},"phase":"Bound"}}
        "#]],
        );
    }

    #[test]
    fn a_claim_of_a_delayed_class_waits_for_its_pod_and_then_asks_the_provisioner() {
        let delayed = || class("standard", "WaitForFirstConsumer", "minik.dev/local-path", false);
        let spec = || json!({"storageClassName": "standard"});
        check(
            claim(spec(), json!({})),
            [delayed(), volume("a", spec())],
            expect![[r#"
            event Normal WaitForFirstConsumer: waiting for first consumer to be created before binding
        "#]],
        );
        let pod = json!({"metadata": {"namespace": "d", "name": "web"}, "spec": {"volumes": [
            {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}});
        check(
            claim(spec(), json!({})),
            [delayed(), (PODS, pod)],
            expect![[r#"
            event Normal WaitForPodScheduled: waiting for pod web to be scheduled
        "#]],
        );
        let selected = json!({SELECTED_NODE: "n1"});
        check(
            claim(spec(), selected.clone()),
            [delayed()],
            expect![[r#"
            update persistentvolumeclaims d/data {"metadata":{"annotations":{"volume.beta.kubernetes.io/storage-provisioner":"minik.dev/local-path","volume.kubernetes.io/storage-provisioner":"minik.dev/local-path"}}}
        "#]],
        );
        let by_hand = class("standard", "WaitForFirstConsumer", binding::NO_PROVISIONER, false);
        check(
            claim(spec(), selected),
            [by_hand],
            expect![[r#"
            event Warning ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner
        "#]],
        );
    }

    #[test]
    fn without_a_class_the_default_is_assigned_unless_none_is_wanted() {
        let default = || class("standard", "WaitForFirstConsumer", "p", true);
        check(
            claim(json!({}), json!({})),
            [default()],
            expect![[r#"
            update persistentvolumeclaims d/data {"spec":{"storageClassName":"standard"}}
        "#]],
        );
        check(
            claim(json!({"storageClassName": ""}), json!({})),
            [default()],
            expect![[r#"
            event Normal FailedBinding: no persistent volumes available for this claim and no storage class is set
        "#]],
        );
        check(
            claim(json!({"storageClassName": "gone"}), json!({})),
            [default()],
            expect![[r#"
            event Warning ProvisioningFailed: storageclass.storage.k8s.io "gone" not found
        "#]],
        );
    }

    #[test]
    fn a_volume_asked_for_by_name_must_fit_and_be_free() {
        let asks = || claim(json!({"volumeName": "a"}), json!({}));
        let small = volume("a", json!({"capacity": {"storage": "1Mi"}}));
        check(
            asks(),
            [small],
            expect![[r#"
            event Warning VolumeMismatch: Cannot bind to requested volume "a": requested PV is too small
        "#]],
        );
        let taken = volume("a", json!({"claimRef": {"namespace": "d", "name": "other", "uid": "x"}}));
        check(
            asks(),
            [taken],
            expect![[r#"
            event Warning FailedBinding: volume "a" already bound to a different claim.
        "#]],
        );
        check(asks(), [], expect![[""]]);
    }

    #[test]
    fn a_claim_whose_volume_is_gone_is_lost_for_good() {
        let done = json!({BIND_COMPLETED: "yes"});
        check(
            claim(json!({"volumeName": "a"}), done),
            [],
            expect![[r#"
            update persistentvolumeclaims/status d/data {"status":{"phase":"Lost"}}
            event Warning ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!
        "#]],
        );
    }
}
