//! Generic ephemeral volumes: a claim for each, which lives as long as its Pod.
//!
//! Owns: making those claims.
//! Called by: the driver.
//! Never: removes them; their owner's end does.

use jiff::Timestamp;
use minik_api::resources::{PERSISTENTVOLUMECLAIMS, PODS};
use minik_api::volume_binding::{self as binding, Use};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, EventType, Object, Plan, Reconciler, View};
use serde_json::{Value, json};

use crate::fields::{controller_ref, list, text};

pub(crate) struct EphemeralVolumes;

impl Reconciler for EphemeralVolumes {
    fn name(&self) -> &'static str {
        "ephemeral-volume"
    }

    fn watches(&self) -> &'static [ResourceId] {
        &[PODS, PERSISTENTVOLUMECLAIMS]
    }

    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource == PODS {
            // A Pod's volumes never change: only its beginning matters.
            let begins = change.old.is_none() && change.new.as_ref().is_some_and(|p| has_ephemeral(p));
            return begins.then(|| change.key.clone()).into_iter().collect();
        }
        // A claim that was taken away while its Pod needs it is made again.
        let owner = change.new.is_none().then(|| object::controller_of(change.object())).flatten();
        let pod = owner.filter(|o| o["kind"] == "Pod");
        pod.map(|o| ObjectKey::new(change.key.namespace.clone(), text(&o["name"]))).into_iter().collect()
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some(pod) = view.get_key(PODS, key).filter(|p| !object::is_deleting(p)) else { return Plan::nothing() };
        let mut plan = Plan::nothing();
        for volume in list(&pod["spec"]["volumes"]).iter().filter(|v| v["ephemeral"].is_object()) {
            let volume_name = text(&volume["name"]);
            let name = binding::ephemeral_claim_name(pod, volume_name);
            let Some(claim) = view.get(PERSISTENTVOLUMECLAIMS, &key.namespace, &name) else {
                plan.push(create(pod, volume, &name));
                continue;
            };
            if let Err(why) = binding::check_made_for(pod, claim) {
                let message = format!("ephemeral volume {volume_name}: {why}");
                plan.push(Action::event(pod, EventType::Warning, "FailedBinding", message));
            }
        }
        plan.if_failed = Some(report_failure(pod.clone()));
        plan
    }
}

fn has_ephemeral(pod: &Value) -> bool {
    binding::claims_of(pod).any(|(_, how)| how == Use::Ephemeral)
}

fn create(pod: &Object, volume: &Value, name: &str) -> Action {
    let template = &volume["ephemeral"]["volumeClaimTemplate"];
    let mut metadata = json!({
        "namespace": object::namespace(pod), "name": name, "ownerReferences": [controller_ref(pod)],
    });
    for field in ["labels", "annotations"] {
        if template["metadata"][field].is_object() {
            metadata[field] = template["metadata"][field].clone();
        }
    }
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": template["spec"],
    });
    Action::create(PERSISTENTVOLUMECLAIMS, claim)
}

fn report_failure(pod: std::sync::Arc<Object>) -> minik_client::IfFailed {
    Box::new(move |failure, _| {
        let name = failure.action.rsplit('/').next().unwrap_or_default();
        let volume = name.strip_prefix(&format!("{}-", object::name(&pod))).unwrap_or(name);
        let message = format!("ephemeral volume {volume}: create PVC {name}: {}", failure.error);
        vec![Action::event(&pod, EventType::Warning, "FailedBinding", message)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn pod() -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "d", "name": "web", "uid": "u"}, "spec": {"volumes": [
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"a": "b"}},
                "spec": {"accessModes": ["ReadWriteOnce"]}}}}]}})
    }
    fn plan(claim: Option<Value>) -> Plan {
        let claims = claim.into_iter().map(|c| (PERSISTENTVOLUMECLAIMS, c));
        let view = View::of(claims.chain([(PODS, pod())]));
        EphemeralVolumes.plan(&view, &ObjectKey::new("d", "web"), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_claim_is_made_from_the_template_and_owned_by_the_pod() {
        let made = plan(None);
        let Action::Create { body, .. } = &made.actions[0] else { panic!("{made}") };
        assert_eq!(body["metadata"]["name"], "web-scratch");
        assert_eq!(body["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(body["spec"]["accessModes"][0], "ReadWriteOnce");
    }

    #[test]
    fn a_claim_of_that_name_that_is_somebody_elses_is_not_taken() {
        let other = json!({"metadata": {"namespace": "d", "name": "web-scratch"}});
        expect![[r#"
            event Warning FailedBinding: ephemeral volume scratch: PVC d/web-scratch was not created for pod d/web (pod is not owner)
        "#]]
        .assert_eq(&plan(Some(other)).to_string());
    }
}
