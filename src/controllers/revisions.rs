//! The history of a DaemonSet's or StatefulSet's template: ControllerRevisions.
//!
//! Owns: which revision is which template, their names and numbers, and how many are kept.
//! Called by: `daemonset` and `statefulset`.
//! Never: decides which Pod gets which revision.

use std::sync::Arc;

use minik_api::resources::CONTROLLERREVISIONS;
use minik_api::selector::LabelSelector;
use minik_api::{ResourceId, object};
use minik_client::{Action, Object, View};
use serde_json::{Value, json};

use crate::fields::{controller_ref, int, is_controlled_by, safe_hash, same};
use crate::pods::for_the_living;

/// On revisions of StatefulSets; those of DaemonSets, and the Pods of both, have `POD_HASH`.
const HASH: &str = "controller.kubernetes.io/hash";
pub(crate) const POD_HASH: &str = "controller-revision-hash";

pub(crate) struct Revision {
    pub name: String,
    pub hash: String,
    pub template: Value,
}

pub(crate) struct History {
    /// Oldest number first.
    pub known: Vec<Arc<Object>>,
    pub update: Revision,
    /// Hashes of all revisions of the present template: of two, an older one's Pods are no older.
    pub hashes: Vec<String>,
    pub collisions: i64,
    pub actions: Vec<Action>,
    /// The name is taken by something else: nothing more can be planned.
    pub collided: bool,
}

fn data_of(template: &Value) -> Value {
    let mut template = template.clone();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

fn template_of(revision: &Value) -> Value {
    let mut template = revision["data"]["spec"]["template"].clone();
    if let Some(map) = template.as_object_mut() {
        map.remove("$patch");
    }
    template
}

pub(crate) fn revision_of(object: &Value) -> Revision {
    let hash = object::label(object, HASH).or_else(|| object::label(object, POD_HASH)).unwrap_or("");
    Revision { name: object::name(object).into(), hash: hash.into(), template: template_of(object) }
}

/// The revision of the template as it is now: found, renumbered to be the newest, or made.
pub(crate) fn history(view: &View, resource: ResourceId, owner: &Object) -> History {
    let uid = object::uid(owner);
    let mut known: Vec<Arc<Object>> =
        view.owned_by(CONTROLLERREVISIONS, uid).filter(|r| is_controlled_by(r, uid)).cloned().collect();
    let mut actions = adopt(view, resource, owner);
    known.sort_by_key(|r| (int(&r["revision"], 0), object::name(r).to_string()));
    let newest = known.last().map_or(0, |r| int(&r["revision"], 0));
    let collisions = int(&owner["status"]["collisionCount"], 0);
    let data = data_of(&owner["spec"]["template"]);
    let equal = known.iter().rev().find(|r| same(&r["data"], &data));
    if let Some(equal) = equal {
        if int(&equal["revision"], 0) < newest {
            let mut changed = equal.value().clone();
            changed["revision"] = (newest + 1).into();
            actions.extend(Action::replace(CONTROLLERREVISIONS, "", equal, changed));
        }
        let update = revision_of(equal);
        let hashes = known.iter().filter(|r| same(&r["data"], &data)).map(|r| revision_of(r).hash).collect();
        return History { known, update, hashes, collisions, actions, collided: false };
    }
    let hash = safe_hash(&data, &if collisions == 0 { String::new() } else { collisions.to_string() });
    let name = format!("{}-{hash}", object::name(owner));
    let collided = view.get(CONTROLLERREVISIONS, object::namespace(owner), &name).is_some();
    if !collided {
        let mut labels = owner["spec"]["template"]["metadata"]["labels"].clone();
        labels[if owner["kind"] == "DaemonSet" { POD_HASH } else { HASH }] = hash.clone().into();
        actions.push(Action::create(
            CONTROLLERREVISIONS,
            json!({
                "apiVersion": "apps/v1", "kind": "ControllerRevision",
                "metadata": {"namespace": object::namespace(owner), "name": name, "labels": labels,
                             "annotations": owner["metadata"]["annotations"],
                             "ownerReferences": [controller_ref(owner)]},
                "revision": newest + 1, "data": data,
            }),
        ));
    }
    let update = Revision { name, hash, template: owner["spec"]["template"].clone() };
    let hashes = vec![update.hash.clone()];
    History { known, update, hashes, collisions: collisions + i64::from(collided), actions, collided }
}

fn adopt(view: &View, resource: ResourceId, owner: &Object) -> Vec<Action> {
    let selector = LabelSelector::from_object(&owner["spec"]["selector"]).unwrap_or_else(|_| LabelSelector::nothing());
    if object::is_deleting(owner) || selector.is_everything() {
        return Vec::new();
    }
    let free = view.orphans(CONTROLLERREVISIONS, object::namespace(owner));
    let matching = free.filter(|r| !object::is_deleting(r) && selector.matches(&r["metadata"]["labels"]));
    let adopt = |r: &Arc<Object>| {
        Action::merge(CONTROLLERREVISIONS, "", r, json!({"metadata": {"ownerReferences": [controller_ref(owner)]}}))
    };
    for_the_living(resource, owner, matching.map(adopt).collect())
}

/// Revisions that no Pod has and that are beyond the limit, oldest first.
pub(crate) fn clean_up(owner: &Value, history: &History, in_use: impl Fn(&Revision) -> bool) -> Vec<Action> {
    let limit = int(&owner["spec"]["revisionHistoryLimit"], 10).max(0) as usize;
    let unused: Vec<&Arc<Object>> = history
        .known
        .iter()
        .filter(|r| {
            let revision = revision_of(r);
            revision.name != history.update.name && !in_use(&revision)
        })
        .collect();
    let surplus = unused.len().saturating_sub(limit);
    unused.into_iter().take(surplus).map(|r| Action::delete(CONTROLLERREVISIONS, r)).collect()
}
