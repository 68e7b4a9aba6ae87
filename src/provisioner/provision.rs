//! Claims that ask for a volume on this node.
//!
//! Owns: which claims are this node's, what cannot be provided, growing a volume.
//! Called by: the driver.
//! Never: decides where a Pod goes; a claim that waits for its consumer names the Node the scheduler chose.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use minik_api::node_affinity::NodeTerm;
use minik_api::resources::{NODES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, STORAGECLASSES};
use minik_api::volume_binding::{self as binding, SELECTED_NODE, STORAGE_PROVISIONER};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, EventType, IfFailed, Object, Plan, Reconciler, View};
use serde_json::{Value, json};

use crate::volume::{self, PROVISIONER};

/// Open to every user, as the volumes of minikube and kind are: who uses it is the Pod's business.
const DIRECTORY_MODE: u32 = 0o777;

pub(crate) struct Provision {
    pub node: String,
    pub root: PathBuf,
}

impl Reconciler for Provision {
    fn name(&self) -> &'static str {
        "provision"
    }

    fn watches(&self) -> &'static [ResourceId] {
        &[PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, STORAGECLASSES, NODES]
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        match change.resource {
            PERSISTENTVOLUMECLAIMS => change.new.iter().filter(|c| asks(c)).map(|c| c.key()).collect(),
            // A volume that has grown: its claim is told next.
            PERSISTENTVOLUMES => change.new.iter().filter_map(|v| claim_of(v)).collect(),
            NODES if !opens(change) => Vec::new(),
            // Whoever could not be served before.
            _ => {
                let open = |c: &&Arc<Object>| asks(c) && binding::volume_name(c).is_empty();
                view.list(PERSISTENTVOLUMECLAIMS, "").filter(open).map(|c| c.key()).collect()
            }
        }
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some(claim) = view.get_key(PERSISTENTVOLUMECLAIMS, key) else { return Plan::nothing() };
        if !binding::volume_name(claim).is_empty() {
            return Plan::of(self.grow(view, claim).into_iter().collect());
        }
        let class = view.get(STORAGECLASSES, "", binding::class_of(claim));
        let Some(class) = class.filter(|c| c["provisioner"] == PROVISIONER) else { return Plan::nothing() };
        let made = view.get(PERSISTENTVOLUMES, "", &volume::name(claim)).is_some();
        if made || object::is_deleting(claim) || self.chosen(view, claim, class).as_deref() != Some(&self.node) {
            return Plan::nothing();
        }
        self.provision(view, claim, class)
    }
}

impl Provision {
    /// The Node a claim's volume belongs on.
    fn chosen(&self, view: &View, claim: &Value, class: &Value) -> Option<String> {
        if let Some(node) = object::annotation(claim, SELECTED_NODE) {
            return Some(node.into());
        }
        if binding::waits_for_consumer(class) {
            return None;
        }
        // Bound at once, without a Pod: spread over the Nodes, and every Node comes to the same answer.
        let open = |n: &&Arc<Object>| is_open(n) && in_topology(n, class);
        let nodes: Vec<&str> = view.list(NODES, "").filter(open).map(|n| object::name(n)).collect();
        let sum: usize = object::uid(claim).bytes().map(usize::from).sum();
        nodes.get(sum.checked_rem(nodes.len())?).map(ToString::to_string)
    }

    fn provision(&self, view: &View, claim: &Arc<Object>, class: &Arc<Object>) -> Plan {
        let class_name = object::name(class).to_string();
        if let Some(why) = unsupported(claim) {
            let message = format!("failed to provision volume with StorageClass {class_name:?}: {why}");
            return Plan::of(vec![Action::event(claim, EventType::Warning, "ProvisioningFailed", message)]);
        }
        let labels = view.get(NODES, "", &self.node).map_or(Value::Null, |n| n["metadata"]["labels"].clone());
        let directory = volume::directory(&self.root, claim);
        let body = volume::body(claim, class, &self.node, &labels, &directory);
        let name = object::name(&body).to_string();
        let begun = format!("External provisioner is provisioning volume for claim {:?}", claim.key().to_string());
        let mut plan = Plan::of(vec![
            Action::event(claim, EventType::Normal, "Provisioning", begun),
            Action::MakeDirectory { path: directory, mode: DIRECTORY_MODE },
            Action::create(PERSISTENTVOLUMES, body),
            Action::event(
                claim,
                EventType::Normal,
                "ProvisioningSucceeded",
                format!("Successfully provisioned volume {name}"),
            ),
        ]);
        plan.if_failed = Some(report_failure(claim.clone(), class_name));
        plan
    }

    /// A directory has no size: what was asked for is what it has.
    fn grow(&self, view: &View, claim: &Object) -> Option<Action> {
        let known = view.get(PERSISTENTVOLUMES, "", binding::volume_name(claim))?;
        if volume::node_of(known) != Some(&self.node) || !binding::is_bound_to(known, claim) {
            return None;
        }
        let wanted = &claim["spec"]["resources"]["requests"]["storage"];
        if binding::capacity(known) < binding::requested(claim) {
            let mut changed = known.value().clone();
            changed["spec"]["capacity"]["storage"] = wanted.clone();
            return Action::replace(PERSISTENTVOLUMES, "", known, changed);
        }
        let has = minik_api::quantity::Quantity::from_json(&claim["status"]["capacity"]["storage"]).ok()?;
        if claim["status"]["phase"] != "Bound" || has >= binding::requested(claim) {
            return None;
        }
        let mut changed = claim.value().clone();
        changed["status"]["capacity"] = json!({"storage": known["spec"]["capacity"]["storage"]});
        Action::replace(PERSISTENTVOLUMECLAIMS, "status", claim, changed)
    }
}

fn asks(claim: &Value) -> bool {
    object::annotation(claim, STORAGE_PROVISIONER) == Some(PROVISIONER)
}

/// The claim of a volume of this provisioner.
fn claim_of(known: &Value) -> Option<ObjectKey> {
    let reference = &known["spec"]["claimRef"];
    let text = |field: &str| reference[field].as_str().unwrap_or("").to_string();
    volume::node_of(known).map(|_| ObjectKey::new(text("namespace"), text("name")))
}

/// Heartbeats of Nodes open nothing.
fn opens(change: &Change) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return true };
    old["spec"] != new["spec"] || old["metadata"]["labels"] != new["metadata"]["labels"]
}

fn unsupported(claim: &Value) -> Option<&'static str> {
    let spec = &claim["spec"];
    match () {
        () if spec["volumeMode"] == "Block" => Some("only file systems can be provided, no block devices"),
        () if !spec["selector"].is_null() => Some("claim.Spec.Selector is not supported"),
        () if !spec["dataSource"].is_null() || !spec["dataSourceRef"].is_null() => {
            Some("claims cannot be filled from a data source")
        }
        () => None,
    }
}

/// Takes Pods that tolerate nothing.
fn is_open(node: &Value) -> bool {
    let keeps_away = |t: &Value| matches!(t["effect"].as_str(), Some("NoSchedule" | "NoExecute"));
    node["spec"]["unschedulable"] != true && !node["spec"]["taints"].as_array().into_iter().flatten().any(keeps_away)
}

/// `allowedTopologies`: any term, all of its expressions.
fn in_topology(node: &Value, class: &Value) -> bool {
    let Some(terms) = class["allowedTopologies"].as_array().filter(|t| !t.is_empty()) else { return true };
    let matches = |term: &Value| {
        let expressions = term["matchLabelExpressions"].as_array().into_iter().flatten();
        let expressions: Vec<Value> =
            expressions.map(|e| json!({"key": e["key"], "operator": "In", "values": e["values"]})).collect();
        NodeTerm::parse(&json!({"matchExpressions": expressions}))
            .matches(object::name(node), &node["metadata"]["labels"])
    };
    terms.iter().any(matches)
}

fn report_failure(claim: Arc<Object>, class: String) -> IfFailed {
    Box::new(move |failure, _| {
        let error = failure.error.chain();
        let message = format!("failed to provision volume with StorageClass {class:?}: {error}");
        vec![Action::event(&claim, EventType::Warning, "ProvisioningFailed", message)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn claim(annotations: Value, spec: Value) -> Value {
        let mut claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"namespace": "d", "name": "data", "uid": "u", "resourceVersion": "1", "annotations": annotations},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "standard",
                     "resources": {"requests": {"storage": "1Gi"}}},
        });
        claim["metadata"]["annotations"][STORAGE_PROVISIONER] = PROVISIONER.into();
        claim["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        claim
    }
    fn plan(mode: &str, claim: Value, more: &[(ResourceId, Value)]) -> Plan {
        let class = json!({"metadata": {"name": "standard"}, "provisioner": PROVISIONER, "volumeBindingMode": mode});
        let node =
            |name: &str| (NODES, json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}));
        let key = ObjectKey::of(&claim);
        let all = [(PERSISTENTVOLUMECLAIMS, claim), (STORAGECLASSES, class), node("n1"), node("n2")];
        let view = View::of(all.into_iter().chain(more.iter().cloned()));
        let provision = |name: &str| Provision { node: name.into(), root: "/data".into() };
        provision("n1").plan(&view, &key, Timestamp::UNIX_EPOCH)
    }
    fn check(mode: &str, claim: Value, more: &[(ResourceId, Value)], wanted: Expect) {
        wanted.assert_eq(&plan(mode, claim, more).to_string());
    }

    #[test]
    fn the_selected_node_makes_the_directory_and_then_the_volume() {
        check(
            "WaitForFirstConsumer",
            claim(json!({SELECTED_NODE: "n1"}), json!({})),
            &[],
            expect![[r#"
            event Normal Provisioning: External provisioner is provisioning volume for claim "d/data"
            make directory /data/pvc-u_d_data
            create persistentvolumes pvc-u
            event Normal ProvisioningSucceeded: Successfully provisioned volume pvc-u
        "#]],
        );
        check("WaitForFirstConsumer", claim(json!({SELECTED_NODE: "n2"}), json!({})), &[], expect![[""]]);
        check("WaitForFirstConsumer", claim(json!({}), json!({})), &[], expect![[""]]);
    }

    #[test]
    fn a_volume_bound_at_once_is_made_by_exactly_one_node() {
        // The sum of the uid's bytes is odd for "u", even for "v".
        assert!(plan("Immediate", claim(json!({}), json!({})), &[]).is_empty());
        let mut other = claim(json!({}), json!({}));
        other["metadata"]["uid"] = "v".into();
        assert!(!plan("Immediate", other, &[]).is_empty());
    }

    #[test]
    fn what_a_directory_cannot_be_is_refused_with_the_reason() {
        check(
            "WaitForFirstConsumer",
            claim(json!({SELECTED_NODE: "n1"}), json!({"volumeMode": "Block"})),
            &[],
            expect![[r#"
            event Warning ProvisioningFailed: failed to provision volume with StorageClass "standard": only file systems can be provided, no block devices
        "#]],
        );
    }

    #[test]
    fn a_claim_that_grows_takes_its_volume_along() {
        let annotations = json!({PROVISIONED: PROVISIONER, "minik.dev/node": "n1"});
        let volume = |size: &str| {
            (
                PERSISTENTVOLUMES,
                json!({"metadata": {"name": "pvc-u", "annotations": annotations},
                "spec": {"capacity": {"storage": size}, "claimRef": {"namespace": "d", "name": "data", "uid": "u"}}}),
            )
        };
        let mut grown = claim(json!({}), json!({"volumeName": "pvc-u"}));
        grown["status"] = json!({"phase": "Bound", "capacity": {"storage": "500Mi"}});
        check(
            "Immediate",
            grown.clone(),
            &[volume("500Mi")],
            expect![[r#"
            update persistentvolumes pvc-u {"spec":{"capacity":{"storage":"1Gi"}}}
        "#]],
        );
        check(
            "Immediate",
            grown,
            &[volume("1Gi")],
            expect![[r#"
            update persistentvolumeclaims/status d/data {"status":{"capacity":{"storage":"1Gi"}}}
        "#]],
        );
    }
    const PROVISIONED: &str = minik_api::volume_binding::PROVISIONED_BY;
}
