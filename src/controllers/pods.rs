//! What controllers need to know about Pods, and how they make them.
//!
//! Owns: active, ready, available; the Pod made of a template; adoption and release; which Pod is removed first.
//! Called by: the controllers of workloads.
//! Never: writes.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use minik_api::resources::PODS;
use minik_api::selector::LabelSelector;
use minik_api::{ResourceId, object};
use minik_client::{Action, Narration, Object, Patch, Regarding, View};
use serde_json::{Map, Value, json};

use crate::conditions::find;
use crate::fields::{controller_ref, int, is_controlled_by, list, parse_time, seconds, text};

pub(crate) fn phase(pod: &Value) -> &str {
    text(&pod["status"]["phase"])
}

pub(crate) fn is_terminal(pod: &Value) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Not ended and not being deleted.
pub(crate) fn is_active(pod: &Value) -> bool {
    !is_terminal(pod) && !object::is_deleting(pod)
}

pub(crate) fn is_ready(pod: &Value) -> bool {
    crate::conditions::is_true(&pod["status"], "Ready")
}

fn ready_since(pod: &Value) -> Option<Timestamp> {
    parse_time(&find(&pod["status"], "Ready")?["lastTransitionTime"])
}

/// Ready for long enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Availability {
    No,
    /// Ready; available at this time if it stays so.
    At(Timestamp),
    Yes,
}

pub(crate) fn availability(pod: &Value, min_ready_seconds: i64, now: Timestamp) -> Availability {
    if !is_ready(pod) {
        return Availability::No;
    }
    if min_ready_seconds <= 0 {
        return Availability::Yes;
    }
    match ready_since(pod).map(|since| since + seconds(min_ready_seconds)) {
        Some(at) if at <= now => Availability::Yes,
        Some(at) => Availability::At(at),
        None => Availability::No,
    }
}

/// A Pod as `template` says, owned by `owner`. The caller names it.
pub(crate) fn from_template(template: &Value, owner: &Value) -> Value {
    let mut metadata = Map::new();
    metadata.insert("namespace".into(), object::namespace(owner).into());
    for field in ["labels", "annotations", "finalizers"] {
        if !template["metadata"][field].is_null() {
            metadata.insert(field.into(), template["metadata"][field].clone());
        }
    }
    metadata.insert("ownerReferences".into(), json!([controller_ref(owner)]));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

/// Names are cut so that the five random characters fit into 63.
pub(crate) fn generate_name(owner: &Value) -> String {
    format!("{}-", object::name(owner))
}

pub(crate) fn narrate_create(owner: &Value) -> Narration {
    Narration {
        regarding: Regarding::of(owner),
        done: ("SuccessfulCreate", "Created pod: "),
        failed: ("FailedCreate", "Error creating: "),
    }
}

pub(crate) fn narrate_delete(owner: &Value) -> Narration {
    Narration {
        regarding: Regarding::of(owner),
        done: ("SuccessfulDelete", "Deleted pod: "),
        failed: ("FailedDelete", "Error deleting: "),
    }
}

/// The Pods of one controller, and what must change for them to be its own.
pub(crate) struct Claimed {
    pub pods: Vec<Arc<Object>>,
    pub actions: Vec<Action>,
}

/// Own Pods that match the selector; free ones that match are adopted; own ones that do not are released. `resource` is
/// the owner's.
pub(crate) fn claim(view: &View, resource: ResourceId, owner: &Object, selector: &LabelSelector) -> Claimed {
    claim_held(view, resource, owner, selector, None)
}

/// As `claim`, of a controller whose Pods wear a finalizer while they are its own.
pub(crate) fn claim_held(
    view: &View,
    resource: ResourceId,
    owner: &Object,
    selector: &LabelSelector,
    finalizer: Option<&str>,
) -> Claimed {
    let uid = object::uid(owner);
    let mut claimed = Claimed { pods: Vec::new(), actions: Vec::new() };
    for pod in view.owned_by(PODS, uid).filter(|p| is_controlled_by(p, uid)) {
        if selector.matches(&pod["metadata"]["labels"]) {
            claimed.pods.push(pod.clone());
        } else if !object::is_deleting(owner) {
            claimed.actions.push(release(pod, uid, finalizer));
        }
    }
    if object::is_deleting(owner) || selector.is_everything() {
        return claimed;
    }
    let mut adoptions = Vec::new();
    for pod in view.orphans(PODS, object::namespace(owner)) {
        if is_active(pod) && selector.matches(&pod["metadata"]["labels"]) {
            adoptions.push(adopt(pod, owner, finalizer));
            claimed.pods.push(pod.clone());
        }
    }
    claimed.actions.extend(for_the_living(resource, owner, adoptions));
    claimed
}

/// Adoptions, once the API server confirms that the one who adopts lives. An owner that was deleted and leaves its own
/// behind frees them, and a cache can show them free before it shows their owner deleted.
pub(crate) fn for_the_living(resource: ResourceId, owner: &Object, adoptions: Vec<Action>) -> Vec<Action> {
    let confirmed = (!adoptions.is_empty()).then(|| Action::confirm_lives(resource, owner));
    confirmed.into_iter().chain(adoptions).collect()
}

pub(crate) fn adopt(pod: &Object, owner: &Object, finalizer: Option<&str>) -> Action {
    let mut body = json!({"metadata": {"uid": object::uid(pod), "ownerReferences": [controller_ref(owner)]}});
    if let Some(finalizer) = finalizer {
        body["metadata"]["finalizers"] = json!([finalizer]);
    }
    Action::Patch { resource: PODS, key: pod.key(), sub: "", patch: Patch::Strategic(body) }
}

pub(crate) fn release(pod: &Object, owner_uid: &str, finalizer: Option<&str>) -> Action {
    let gone = json!([{"$patch": "delete", "uid": owner_uid}]);
    let mut body = json!({"metadata": {"uid": object::uid(pod), "ownerReferences": gone}});
    if let Some(finalizer) = finalizer {
        body["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
    }
    Action::Patch { resource: PODS, key: pod.key(), sub: "", patch: Patch::Strategic(body) }
}

/// Which controller objects a changed Pod concerns: its owners of `kind`, before and after; and, while it is free,
/// every one in its namespace that would adopt it.
pub(crate) fn concerned<'a>(
    change: &minik_client::Change,
    kind: &str,
    candidates: impl Iterator<Item = &'a Arc<Object>>,
    selector: impl Fn(&Value) -> LabelSelector,
) -> Vec<minik_api::ObjectKey> {
    let mut keys = Vec::new();
    for side in change.sides() {
        if let Some(owner) = object::controller_of(side)
            && owner["kind"] == kind
        {
            keys.push(minik_api::ObjectKey::new(object::namespace(side), text(&owner["name"])));
        }
    }
    if let Some(pod) = &change.new
        && object::controller_of(pod).is_none()
        && is_active(pod)
    {
        let wants = |c: &&Arc<Object>| {
            let selector = selector(c);
            !selector.is_everything() && selector.matches(&pod["metadata"]["labels"])
        };
        keys.extend(candidates.filter(wants).map(|c| c.key()));
    }
    keys.dedup();
    keys
}

/// Puts the Pods to be removed first in front: those whose loss matters least.
pub(crate) fn rank_for_deletion(pods: &mut [Arc<Object>], now: Timestamp) {
    let mut ready_on: HashMap<String, i64> = HashMap::new();
    for pod in pods.iter().filter(|p| is_ready(p)) {
        *ready_on.entry(text(&pod["spec"]["nodeName"]).to_string()).or_default() += 1;
    }
    let rank = |pod: &Arc<Object>| {
        let node = text(&pod["spec"]["nodeName"]);
        let phase = match phase(pod) {
            "Pending" => 0,
            "Running" => 2,
            _ => 1,
        };
        let cost = object::annotation(pod, minik_api::pod_annotations::DELETION_COST);
        let cost: i64 = cost.and_then(|c| c.parse().ok()).unwrap_or(0);
        let together = ready_on.get(node).copied().unwrap_or(0);
        // By powers of two of the age, so that the choice among Pods of like age is random and not always the newest.
        let ready_age = if is_ready(pod) { magnitude(ready_since(pod), now) } else { 0 };
        let restarts = list(&pod["status"]["containerStatuses"]).iter().map(|c| int(&c["restartCount"], 0)).max();
        let age = magnitude(parse_time(&pod["metadata"]["creationTimestamp"]), now);
        let restarts = std::cmp::Reverse(restarts.unwrap_or(0));
        let uid = object::uid(pod).to_string();
        (!node.is_empty(), phase, is_ready(pod), cost, std::cmp::Reverse(together), ready_age, restarts, age, uid)
    };
    pods.sort_by_cached_key(rank);
}

fn magnitude(since: Option<Timestamp>, now: Timestamp) -> u32 {
    let Some(since) = since else { return 0 };
    let age = now.duration_since(since).as_nanos().max(1);
    age.unsigned_abs().ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, phase: &str, ready: bool, created: &str) -> Arc<Object> {
        let ready = if ready { "True" } else { "False" };
        Arc::new(Object::new(json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": created},
            "spec": {"nodeName": node},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": created}]},
        })))
    }
    fn order(pods: &[Arc<Object>]) -> String {
        let mut pods = pods.to_vec();
        rank_for_deletion(&mut pods, "2026-01-02T00:00:00Z".parse().unwrap());
        pods.iter().map(|p| object::name(p)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_unplaced_the_pending_and_the_unready_go_first() {
        let t = "2026-01-01T00:00:00Z";
        let pods = [
            pod("ready", "n1", "Running", true, t),
            pod("unready", "n1", "Running", false, t),
            pod("pending", "n1", "Pending", false, t),
            pod("unplaced", "", "Pending", false, t),
        ];
        assert_eq!(order(&pods), "unplaced pending unready ready");
    }

    #[test]
    fn among_the_ready_those_that_share_a_node_go_first_and_then_the_youngest() {
        let pods = [
            pod("alone-old", "n1", "Running", true, "2026-01-01T00:00:00Z"),
            pod("alone-young", "n2", "Running", true, "2026-01-01T23:59:00Z"),
            pod("together-a", "n3", "Running", true, "2026-01-01T00:00:00Z"),
            pod("together-b", "n3", "Running", true, "2026-01-01T23:59:00Z"),
        ];
        assert_eq!(order(&pods), "together-b together-a alone-young alone-old");
    }

    #[test]
    fn a_pod_is_available_after_it_was_ready_for_long_enough() {
        let p = pod("a", "n", "Running", true, "2026-01-01T00:00:00Z");
        let at = |s: &str| s.parse::<Timestamp>().unwrap();
        assert_eq!(availability(&p, 10, at("2026-01-01T00:00:09Z")), Availability::At(at("2026-01-01T00:00:10Z")));
        assert_eq!(availability(&p, 10, at("2026-01-01T00:00:10Z")), Availability::Yes);
        assert_eq!(availability(&p, 0, at("2026-01-01T00:00:00Z")), Availability::Yes);
    }
}
