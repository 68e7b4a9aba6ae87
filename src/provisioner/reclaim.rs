//! Volumes whose claim is gone.
//!
//! Owns: removing their data and then the volume, when their reclaim policy says so.
//! Called by: the driver.
//! Never: removes the data of a volume that is kept, or that is still bound.

use std::path::PathBuf;

use jiff::Timestamp;
use minik_api::resources::{NODES, PERSISTENTVOLUMES};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, EventType, Object, Plan, Reconciler, View};
use serde_json::{Value, json};

use crate::volume::{self, FINALIZER};

pub(crate) struct Reclaim {
    pub node: String,
    pub root: PathBuf,
}

impl Reconciler for Reclaim {
    fn name(&self) -> &'static str {
        "reclaim"
    }

    fn watches(&self) -> &'static [ResourceId] {
        &[PERSISTENTVOLUMES, NODES]
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource == PERSISTENTVOLUMES {
            return vec![change.key.clone()];
        }
        let on_it = |v: &&std::sync::Arc<Object>| volume::node_of(v) == Some(&change.key.name);
        let gone = change.new.is_none();
        view.list(PERSISTENTVOLUMES, "").filter(|_| gone).filter(on_it).map(|v| v.key()).collect()
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some(known) = view.get_key(PERSISTENTVOLUMES, key) else { return Plan::nothing() };
        let Some(data) = self.data_of(view, known) else { return Plan::nothing() };
        let released = matches!(known["status"]["phase"].as_str(), Some("Released" | "Failed"));
        let deletes = known["spec"]["persistentVolumeReclaimPolicy"] == "Delete";
        let deleting = object::is_deleting(known);
        if deleting && (!deletes || known["status"]["phase"] == "Available") {
            // Kept, or never used by the claim it was made for: nothing holds the object.
            return Plan::of(let_go(known).into_iter().collect());
        }
        if !released || !deletes {
            return Plan::nothing();
        }
        let mut plan = Plan::nothing();
        match data {
            Data::Here(path) => plan.push(Action::RemoveDirectory { path }),
            Data::GoneWithItsNode => {}
        }
        if deleting {
            plan.actions.extend(let_go(known));
        } else {
            plan.push(Action::delete(PERSISTENTVOLUMES, known));
        }
        let about = known.clone();
        plan.if_failed = Some(Box::new(move |failure, _| {
            vec![Action::event(&about, EventType::Warning, "VolumeFailedDelete", failure.error.chain())]
        }));
        plan
    }
}

enum Data {
    Here(PathBuf),
    GoneWithItsNode,
}

impl Reclaim {
    /// Where the volume's data lies, if it is this node's to remove.
    fn data_of(&self, view: &View, known: &Value) -> Option<Data> {
        let node = volume::node_of(known)?;
        if node == self.node {
            return volume::directory_of(&self.root, known).map(Data::Here);
        }
        // One of the nodes that are left clears away what a removed one had; its disk went with it.
        let first = view.list(NODES, "").next().is_some_and(|n| object::name(n) == self.node);
        (first && view.get(NODES, "", node).is_none()).then_some(Data::GoneWithItsNode)
    }
}

/// Takes the finalizer off.
fn let_go(known: &Object) -> Option<Action> {
    let left: Vec<&str> = object::finalizers(known).filter(|f| *f != FINALIZER).collect();
    let mut changed = known.value().clone();
    changed["metadata"]["finalizers"] = json!(left);
    object::finalizers(known).any(|f| f == FINALIZER).then(|| Action::replace(PERSISTENTVOLUMES, "", known, changed))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::PROVISIONER;
    use expect_test::{Expect, expect};
    use minik_api::volume_binding::PROVISIONED_BY;

    fn check(node: &str, phase: &str, policy: &str, deleting: bool, wanted: Expect) {
        let mut volume = json!({
            "metadata": {"name": "pvc-u", "annotations": {PROVISIONED_BY: PROVISIONER, "minik.dev/node": node},
                         "finalizers": ["kubernetes.io/pv-protection", FINALIZER]},
            "spec": {"local": {"path": "/data/pvc-u_d_data"}, "persistentVolumeReclaimPolicy": policy},
            "status": {"phase": phase},
        });
        if deleting {
            volume["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        let node = |name: &str| (NODES, json!({"metadata": {"name": name}}));
        let view = View::of([(PERSISTENTVOLUMES, volume), node("n1"), node("n2")]);
        let reclaim = Reclaim { node: "n1".into(), root: "/data".into() };
        wanted.assert_eq(&reclaim.plan(&view, &ObjectKey::new("", "pvc-u"), Timestamp::UNIX_EPOCH).to_string());
    }

    #[test]
    fn released_data_is_removed_before_the_volume() {
        check(
            "n1",
            "Released",
            "Delete",
            false,
            expect![[r#"
            remove directory /data/pvc-u_d_data
            delete persistentvolumes pvc-u
        "#]],
        );
        check(
            "n1",
            "Released",
            "Delete",
            true,
            expect![[r#"
            remove directory /data/pvc-u_d_data
            update persistentvolumes pvc-u {"metadata":{"finalizers":["kubernetes.io/pv-protection"]}}
        "#]],
        );
    }

    #[test]
    fn what_is_bound_or_kept_or_elsewhere_stays() {
        check("n1", "Bound", "Delete", true, expect![[""]]);
        check("n1", "Released", "Retain", false, expect![[""]]);
        check("n2", "Released", "Delete", false, expect![[""]]);
        check(
            "n1",
            "Released",
            "Retain",
            true,
            expect![[r#"
            update persistentvolumes pvc-u {"metadata":{"finalizers":["kubernetes.io/pv-protection"]}}
        "#]],
        );
    }

    #[test]
    fn the_volumes_of_a_removed_node_are_cleared_away() {
        check(
            "gone",
            "Released",
            "Delete",
            false,
            expect![[r#"
            delete persistentvolumes pvc-u
        "#]],
        );
    }
}
