//! ValidatingAdmissionPolicy: its status tells which generation was looked at.
//!
//! Owns: `status.observedGeneration` and `status.typeChecking`, which is there once the check is over.
//! Called by: the driver.
//! Never: finds faults in types: expressions are checked as they are evaluated, so the list of warnings stays empty.

use jiff::Timestamp;
use minik_api::resources::VALIDATINGADMISSIONPOLICIES;
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Patch, Plan, Reconciler, View};
use serde_json::json;

use crate::fields::int;

const MANAGER: &str = "validatingadmissionpolicy-status";

pub(crate) struct PolicyStatus;

impl Reconciler for PolicyStatus {
    fn name(&self) -> &'static str {
        MANAGER
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[VALIDATINGADMISSIONPOLICIES]
    }
    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        vec![change.key.clone()]
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some(policy) = view.get_key(VALIDATINGADMISSIONPOLICIES, key) else { return Plan::nothing() };
        let generation = object::generation(policy);
        if generation <= int(&policy["status"]["observedGeneration"], 0) {
            return Plan::nothing();
        }
        let body = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": key.name, "uid": object::uid(policy)},
            "status": {"observedGeneration": generation, "typeChecking": {}},
        });
        let patch = Patch::Apply { manager: MANAGER.into(), force: true, body };
        let (resource, key) = (VALIDATINGADMISSIONPOLICIES, key.clone());
        Plan::of(vec![Action::Patch { resource, key, sub: "status", patch }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_generation_is_looked_at_once() {
        let plan = |observed: i64| {
            let policy = json!({"metadata": {"name": "p", "uid": "u", "generation": 2},
                "status": {"observedGeneration": observed}});
            let view = View::of([(VALIDATINGADMISSIONPOLICIES, policy)]);
            PolicyStatus.plan(&view, &ObjectKey::new("", "p"), Timestamp::UNIX_EPOCH).to_string()
        };
        assert!(plan(1).contains(r#""status":{"observedGeneration":2,"typeChecking":{}}"#), "{}", plan(1));
        assert_eq!(plan(2), "");
    }
}
