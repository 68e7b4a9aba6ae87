//! Deployment: moves Pods from one ReplicaSet to the next.
//!
//! Owns: which ReplicaSet is the new one, its name and annotations, when it is made, and clean-up of old ones.
//! Called by: the driver.
//! Never: makes or removes a Pod; it only says how large each ReplicaSet is.

use std::sync::Arc;

use jiff::Timestamp;
use minik_api::resources::{DEPLOYMENTS, PODS, REPLICASETS};
use minik_api::selector::LabelSelector;
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, EventType, Object, Patch, Plan, Reconciler, View};
use serde_json::{Value, json};

use crate::deployment_rollout::{Rollout, Scale, surge};
use crate::deployment_status as status;
use crate::fields::{controller_ref, int, is_controlled_by, safe_hash, same, text};
use crate::pods::{for_the_living, is_terminal};

pub(crate) const HASH_LABEL: &str = "pod-template-hash";
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(crate) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
/// Characters of old revisions kept in one annotation; upstream's number.
const HISTORY_CHARS_MAX: usize = 2000;

pub(crate) struct Deployment;

/// A Deployment and its ReplicaSets, sorted out.
pub(crate) struct State<'a> {
    pub deployment: &'a Arc<Object>,
    pub new: Option<Arc<Object>>,
    /// Oldest first.
    pub old: Vec<Arc<Object>>,
    pub now: Timestamp,
}

impl State<'_> {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.old.iter().chain(self.new.iter())
    }
    pub(crate) fn replicas(&self) -> i64 {
        int(&self.deployment["spec"]["replicas"], 1)
    }
}

impl Reconciler for Deployment {
    fn name(&self) -> &'static str {
        "deployment"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[DEPLOYMENTS, REPLICASETS, PODS]
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        match change.resource {
            DEPLOYMENTS => vec![change.key.clone()],
            REPLICASETS => {
                let candidates = view.list(DEPLOYMENTS, &change.key.namespace);
                let mut keys = crate::pods::concerned(change, "Deployment", candidates, selector);
                keys.dedup();
                keys
            }
            // Only the end of a Pod matters: Recreate waits for it.
            _ => change
                .old
                .iter()
                .filter(|_| change.new.as_ref().is_none_or(|p| is_terminal(p)))
                .filter_map(|pod| {
                    let set = object::controller_of(pod).filter(|o| o["kind"] == "ReplicaSet")?;
                    let set = view.get(REPLICASETS, object::namespace(pod), text(&set["name"]))?;
                    let owner = object::controller_of(set).filter(|o| o["kind"] == "Deployment")?;
                    Some(ObjectKey::new(object::namespace(pod), text(&owner["name"])))
                })
                .collect(),
        }
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(deployment) = view.get_key(DEPLOYMENTS, key) else { return Plan::nothing() };
        if is_empty_selector(deployment) {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            return Plan::of(vec![Action::event(deployment, EventType::Warning, "SelectingAll", message)]);
        }
        let (sets, mut actions) = claim_sets(view, deployment);
        if !actions.is_empty() {
            // Adopted ones are looked at when they are ours.
            return Plan::of(std::mem::take(&mut actions));
        }
        let state = sort_out(deployment, sets, now);
        if object::is_deleting(deployment) {
            return with_status(Vec::new(), &state, now, status::Progress::Ignore);
        }
        if deployment["spec"]["paused"] == true || is_scaling(&state) {
            let mut actions = Rollout::of(&state).scale_proportionally();
            actions.extend(sync_new_set(&state, Creation::Never).0);
            if deployment["spec"]["paused"] == true {
                actions.extend(clean_up(&state));
            }
            return with_status(scaled(&state, actions), &state, now, status::Progress::Paused);
        }
        roll(view, &state, now)
    }
}

/// A change in progress: a new template, or the end of one.
fn roll(view: &View, state: &State<'_>, now: Timestamp) -> Plan {
    let recreate = state.deployment["spec"]["strategy"]["type"] == "Recreate";
    if recreate {
        let rollout = Rollout::of(state);
        let down = rollout.old_to_zero();
        if !down.is_empty() {
            return with_status(scaled(state, down), state, now, status::Progress::Watch);
        }
        if old_pods_running(view, state) {
            return with_status(Vec::new(), state, now, status::Progress::Watch);
        }
    }
    let (sync, result) = sync_new_set(state, Creation::IfMissing);
    match result {
        Sync::Creates => {
            let mut plan = Plan::of(scaled(state, sync));
            plan.if_failed = Some(status::creation_failed(state.deployment.clone()));
            return plan;
        }
        Sync::Collides => return Plan::of(scaled(state, sync)),
        Sync::Exists => {}
    }
    if !sync.is_empty() {
        // Annotations first: the next plan sees them.
        return Plan::of(scaled(state, sync));
    }
    let rollout = Rollout::of(state);
    let mut steps = if recreate { rollout.new_to_full() } else { rollout.step() };
    if steps.is_empty() && status::is_complete(state) {
        steps = clean_up(state);
    }
    with_status(scaled(state, steps), state, now, status::Progress::Watch)
}

/// One thing a Deployment does to its ReplicaSets.
pub(crate) enum Step {
    Scale(Scale),
    Do(Box<Action>),
}

impl From<Action> for Step {
    fn from(action: Action) -> Step {
        Step::Do(Box::new(action))
    }
}

/// Turns sizes into writes and Events.
fn scaled(state: &State<'_>, steps: Vec<Step>) -> Vec<Action> {
    let desired = state.replicas();
    let max = desired + surge(state.deployment);
    let mut actions = Vec::new();
    for step in steps {
        match step {
            Step::Do(action) => actions.push(*action),
            Step::Scale(Scale { set, to }) => {
                let from = int(&set["spec"]["replicas"], 1);
                let mut changed = set.value().clone();
                changed["spec"]["replicas"] = to.into();
                changed["metadata"]["annotations"][DESIRED] = desired.to_string().into();
                changed["metadata"]["annotations"][MAX] = max.to_string().into();
                actions.extend(Action::replace(REPLICASETS, "", &set, changed));
                if from != to {
                    let direction = if from < to { "up" } else { "down" };
                    let name = object::name(&set);
                    let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
                    actions.push(Action::event(state.deployment, EventType::Normal, "ScalingReplicaSet", message));
                }
            }
        }
    }
    actions
}

fn with_status(mut actions: Vec<Action>, state: &State<'_>, now: Timestamp, progress: status::Progress) -> Plan {
    let (wanted, requeue_at) = status::status(state, now, progress);
    let mut changed = state.deployment.value().clone();
    changed["status"] = wanted;
    let revision = state.new.as_ref().and_then(|s| object::annotation(s, REVISION));
    // The status subresource of a Deployment lets annotations through, and upstream uses that.
    if let Some(revision) = revision.filter(|_| progress == status::Progress::Watch) {
        changed["metadata"]["annotations"][REVISION] = revision.into();
    }
    actions.extend(Action::replace(DEPLOYMENTS, "status", state.deployment, changed));
    Plan { actions, requeue_at, ..Plan::nothing() }
}

fn selector(deployment: &Value) -> LabelSelector {
    LabelSelector::from_object(&deployment["spec"]["selector"]).unwrap_or_else(|_| LabelSelector::nothing())
}

fn is_empty_selector(deployment: &Value) -> bool {
    selector(deployment).is_everything()
}

fn claim_sets(view: &View, deployment: &Object) -> (Vec<Arc<Object>>, Vec<Action>) {
    let uid = object::uid(deployment);
    let selector = selector(deployment);
    let (mut sets, mut actions) = (Vec::new(), Vec::new());
    let patch = |set: &Object, owners: Value| Action::Patch {
        resource: REPLICASETS,
        key: set.key(),
        sub: "",
        patch: Patch::Strategic(json!({"metadata": {"uid": object::uid(set), "ownerReferences": owners}})),
    };
    for set in view.owned_by(REPLICASETS, uid).filter(|s| is_controlled_by(s, uid)) {
        if selector.matches(&set["metadata"]["labels"]) {
            sets.push(set.clone());
        } else if !object::is_deleting(deployment) {
            actions.push(patch(set, json!([{"$patch": "delete", "uid": uid}])));
        }
    }
    if !object::is_deleting(deployment) {
        let free = view.orphans(REPLICASETS, object::namespace(deployment));
        let matching = free.filter(|s| !object::is_deleting(s) && selector.matches(&s["metadata"]["labels"]));
        let adoptions = matching.map(|set| patch(set, json!([controller_ref(deployment)]))).collect();
        actions.extend(for_the_living(DEPLOYMENTS, deployment, adoptions));
    }
    (sets, actions)
}

fn sort_out(deployment: &Arc<Object>, mut sets: Vec<Arc<Object>>, now: Timestamp) -> State<'_> {
    sets.sort_by_key(|set| created(set));
    // The oldest of several that match, so that all looks at it agree.
    let at = sets.iter().position(|s| matches_template(deployment, s));
    let new = at.map(|at| sets.remove(at));
    State { deployment, new, old: sets, now }
}

pub(crate) fn created(object: &Object) -> (String, String) {
    (text(&object["metadata"]["creationTimestamp"]).to_string(), object::name(object).to_string())
}

fn matches_template(deployment: &Value, set: &Value) -> bool {
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH_LABEL);
    }
    let mut wanted = deployment["spec"]["template"].clone();
    if let Some(labels) = wanted["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH_LABEL);
    }
    same(&template, &wanted)
}

/// Its size was changed since its ReplicaSets were sized: their annotations still say the old one.
fn is_scaling(state: &State<'_>) -> bool {
    let desired = state.replicas();
    let active = |s: &&Arc<Object>| int(&s["spec"]["replicas"], 1) > 0;
    state.all().filter(active).any(|set| {
        let recorded = object::annotation(set, DESIRED).and_then(|d| d.parse::<i64>().ok());
        recorded.is_some_and(|recorded| recorded != desired)
    })
}

fn old_pods_running(view: &View, state: &State<'_>) -> bool {
    let runs = |set: &Arc<Object>| view.owned_by(PODS, object::uid(set)).any(|pod| !is_terminal(pod));
    state.old.iter().any(runs)
}

#[derive(PartialEq, Eq)]
enum Creation {
    Never,
    IfMissing,
}

enum Sync {
    Exists,
    Creates,
    Collides,
}

/// Makes the new ReplicaSet, or brings its annotations up to date.
fn sync_new_set(state: &State<'_>, creation: Creation) -> (Vec<Step>, Sync) {
    let revision = 1 + state.old.iter().map(|s| revision_of(s)).max().unwrap_or(0);
    let deployment = state.deployment;
    if let Some(set) = &state.new {
        let mut changed = set.value().clone();
        annotate(&mut changed, deployment, revision);
        match &deployment["spec"]["minReadySeconds"] {
            Value::Null => drop(changed["spec"].as_object_mut().map(|spec| spec.remove("minReadySeconds"))),
            seconds => changed["spec"]["minReadySeconds"] = seconds.clone(),
        }
        let change = if same(&changed, set) { None } else { Action::replace(REPLICASETS, "", set, changed) };
        return (change.map(Step::from).into_iter().collect(), Sync::Exists);
    }
    if creation == Creation::Never {
        return (Vec::new(), Sync::Exists);
    }
    let collisions = int(&deployment["status"]["collisionCount"], 0);
    let salt = if collisions == 0 { String::new() } else { collisions.to_string() };
    let hash = safe_hash(&deployment["spec"]["template"], &salt);
    let name = format!("{}-{hash}", object::name(deployment));
    if state.all().any(|s| object::name(s) == name) {
        let mut status = deployment["status"].clone();
        status["collisionCount"] = (collisions + 1).into();
        let bump = Action::set_status(DEPLOYMENTS, deployment, &status);
        return (bump.map(Step::from).into_iter().collect(), Sync::Collides);
    }
    let mut steps = Vec::new();
    let size = Rollout::of(state).size_of_a_new_set();
    steps.push(Step::from(Action::create(REPLICASETS, new_set(deployment, &name, &hash, size, revision))));
    if size > 0 {
        let message = format!("Scaled up replica set {name} from 0 to {size}");
        steps.push(Step::from(Action::event(deployment, EventType::Normal, "ScalingReplicaSet", message)));
    }
    if let Some(action) = status::created(deployment, &name, revision, state.now) {
        steps.push(Step::from(action));
    }
    (steps, Sync::Creates)
}

fn new_set(deployment: &Object, name: &str, hash: &str, size: i64, revision: i64) -> Value {
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"]["labels"][HASH_LABEL] = hash.into();
    let mut selector = deployment["spec"]["selector"].clone();
    selector["matchLabels"][HASH_LABEL] = hash.into();
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "namespace": object::namespace(deployment), "name": name,
            "labels": template["metadata"]["labels"], "annotations": {},
            "ownerReferences": [controller_ref(deployment)],
        },
        "spec": {"replicas": size, "selector": selector, "template": template},
    });
    if let Some(seconds) = deployment["spec"]["minReadySeconds"].as_i64() {
        set["spec"]["minReadySeconds"] = seconds.into();
    }
    annotate(&mut set, deployment, revision);
    let desired = int(&deployment["spec"]["replicas"], 1);
    set["metadata"]["annotations"][DESIRED] = desired.to_string().into();
    set["metadata"]["annotations"][MAX] = (desired + surge(deployment)).to_string().into();
    set
}

pub(crate) fn revision_of(set: &Value) -> i64 {
    object::annotation(set, REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// Copies the Deployment's annotations and sets the revision, remembering the revisions it had before.
fn annotate(set: &mut Value, deployment: &Value, revision: i64) {
    for (key, value) in deployment["metadata"]["annotations"].as_object().into_iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            set["metadata"]["annotations"][key] = value.clone();
        }
    }
    let old = object::annotation(set, REVISION).map(String::from);
    let old_number = revision_of(set);
    if old_number >= revision {
        return;
    }
    set["metadata"]["annotations"][REVISION] = revision.to_string().into();
    let Some(old) = old else { return };
    let history = object::annotation(set, REVISION_HISTORY).unwrap_or("");
    let mut revisions: Vec<&str> = history.split(',').filter(|r| !r.is_empty()).collect();
    revisions.push(&old);
    while revisions.len() > 1 && revisions.join(",").len() > HISTORY_CHARS_MAX {
        revisions.remove(0);
    }
    set["metadata"]["annotations"][REVISION_HISTORY] = revisions.join(",").into();
}

/// Old ReplicaSets beyond the limit, oldest revision first; only those that are quite empty.
fn clean_up(state: &State<'_>) -> Vec<Step> {
    let Some(limit) = state.deployment["spec"]["revisionHistoryLimit"].as_i64() else { return Vec::new() };
    let mut sets: Vec<_> = state.old.iter().filter(|s| !object::is_deleting(s)).collect();
    let surplus = sets.len() as i64 - limit;
    if surplus <= 0 {
        return Vec::new();
    }
    sets.sort_by_key(|s| (revision_of(s), created(s)));
    let empty = |s: &&&Arc<Object>| {
        int(&s["status"]["replicas"], 0) == 0
            && int(&s["spec"]["replicas"], 1) == 0
            && object::generation(s) <= int(&s["status"]["observedGeneration"], 0)
    };
    sets.iter().take(surplus as usize).filter(empty).map(|s| Step::from(Action::delete(REPLICASETS, s))).collect()
}

#[cfg(test)]
#[path = "deployment_tests.rs"]
mod tests;
