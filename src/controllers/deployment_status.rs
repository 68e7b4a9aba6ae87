//! What a Deployment says of itself.
//!
//! Owns: its numbers, the conditions Available, Progressing and ReplicaFailure, and the progress deadline.
//! Called by: `deployment`.
//! Never: changes a size.

use std::sync::Arc;

use jiff::Timestamp;
use minik_api::object;
use minik_api::resources::DEPLOYMENTS;
use minik_client::{Action, EventType, IfFailed, Object};
use serde_json::{Map, Value, json};

use crate::conditions;
use crate::deployment::{REVISION, State};
use crate::deployment_rollout::max_unavailable;
use crate::fields::{int, parse_time, seconds, text, time};

/// Whether progress is being estimated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A rollout, with its deadline.
    Watch,
    /// Paused or being scaled: only the pause itself is recorded.
    Paused,
    /// Being deleted.
    Ignore,
}

/// No deadline is spelt as the largest int32.
const NO_DEADLINE: i64 = i32::MAX as i64;

pub(crate) fn has_deadline(deployment: &Value) -> bool {
    deployment["spec"]["progressDeadlineSeconds"].as_i64().is_some_and(|s| s != NO_DEADLINE)
}

pub(crate) fn status(state: &State<'_>, now: Timestamp, progress: Progress) -> (Value, Option<Timestamp>) {
    let deployment = state.deployment;
    let mut status = numbers(state);
    if !deployment["status"]["conditions"].is_null() {
        status["conditions"] = deployment["status"]["conditions"].clone();
    }
    let available = int(&status["availableReplicas"], 0);
    let enough = available >= state.replicas() - max_unavailable(deployment);
    let (value, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut status, "Available", value, reason, message, now);
    let mut again = None;
    match progress {
        Progress::Watch => again = watch_progress(state, &mut status, now),
        Progress::Paused => record_pause(deployment, &mut status, now),
        Progress::Ignore => {}
    }
    let failure = state.new.iter().chain(&state.old).find_map(|s| conditions::find(&s["status"], "ReplicaFailure"));
    match failure {
        Some(f) => {
            let (value, reason, message) = (text(&f["status"]), text(&f["reason"]), text(&f["message"]));
            set(&mut status, "ReplicaFailure", value, reason, message, now);
        }
        None => conditions::remove(&mut status, "ReplicaFailure"),
    }
    (status, again)
}

fn numbers(state: &State<'_>) -> Value {
    let sum = |field: &str| state.all().map(|s| int(&s["status"][field], 0)).sum::<i64>();
    let wanted: i64 = state.all().map(|s| int(&s["spec"]["replicas"], 1)).sum();
    let available = sum("availableReplicas");
    let updated = state.new.as_ref().map_or(0, |s| int(&s["status"]["replicas"], 0));
    let mut status = Map::new();
    status.insert("observedGeneration".into(), object::generation(state.deployment).into());
    for (field, number) in [
        ("replicas", sum("replicas")),
        ("updatedReplicas", updated),
        ("readyReplicas", sum("readyReplicas")),
        ("availableReplicas", available),
        ("unavailableReplicas", (wanted - available).max(0)),
    ] {
        if number > 0 {
            status.insert(field.into(), number.into());
        }
    }
    if let Some(terminating) = terminating(state) {
        status.insert("terminatingReplicas".into(), terminating.into());
    }
    if let Some(collisions) = state.deployment["status"]["collisionCount"].as_i64() {
        status.insert("collisionCount".into(), collisions.into());
    }
    status.into()
}

/// Known once every ReplicaSet has counted its own; one that nobody has looked at yet has none.
fn terminating(state: &State<'_>) -> Option<i64> {
    let counted = |set: &&Arc<Object>| {
        let status = &set["status"];
        int(&status["observedGeneration"], 0) > 0 || !status["terminatingReplicas"].is_null()
    };
    state.all().filter(counted).map(|set| set["status"]["terminatingReplicas"].as_i64()).sum()
}

/// All Pods are of the new template and available, and nothing is left of the old.
pub(crate) fn is_complete(state: &State<'_>) -> bool {
    is_complete_as(state, &numbers(state))
}

fn is_complete_as(state: &State<'_>, status: &Value) -> bool {
    let desired = state.replicas();
    ["updatedReplicas", "replicas", "availableReplicas"].iter().all(|f| int(&status[f], 0) == desired)
}

fn is_progress(old: &Value, new: &Value) -> bool {
    let more = |field: &str| int(&new[field], 0) > int(&old[field], 0);
    let outdated = |s: &Value| int(&s["replicas"], 0) - int(&s["updatedReplicas"], 0);
    more("updatedReplicas") || outdated(new) < outdated(old) || more("readyReplicas") || more("availableReplicas")
}

fn watch_progress(state: &State<'_>, status: &mut Value, now: Timestamp) -> Option<Timestamp> {
    let deployment = state.deployment;
    if !has_deadline(deployment) {
        conditions::remove(status, "Progressing");
        return None;
    }
    let current = conditions::find(&deployment["status"], "Progressing").cloned();
    let reason = current.as_ref().map_or("", |c| text(&c["reason"]));
    let settled =
        int(&status["replicas"], 0) == int(&status["updatedReplicas"], 0) && reason == "NewReplicaSetAvailable";
    if settled {
        return None;
    }
    let subject = match &state.new {
        Some(set) => format!("ReplicaSet \"{}\"", object::name(set)),
        None => format!("Deployment \"{}\"", object::name(deployment)),
    };
    if is_complete_as(state, status) {
        let message = format!("{subject} has successfully progressed.");
        set(status, "Progressing", "True", "NewReplicaSetAvailable", &message, now);
        return None;
    }
    if is_progress(&deployment["status"], status) {
        let message = format!("{subject} is progressing.");
        // Progress moves the time of update, which the deadline is counted from, even under the same reason.
        let kept = current.as_ref().filter(|c| c["status"] == "True").map(|c| c["lastTransitionTime"].clone());
        conditions::remove(status, "Progressing");
        let since = kept.unwrap_or_else(|| time(now).into());
        conditions::put(status, condition("Progressing", "True", "ReplicaSetUpdated", &message, since, now));
    } else if current.is_none()
        && let Some(new) = &state.new
    {
        let message = format!("Found new replica set \"{}\"", object::name(new));
        set(status, "Progressing", "True", "FoundNewReplicaSet", &message, now);
    }
    check_deadline(deployment, status, &subject, now)
}

fn check_deadline(deployment: &Value, status: &mut Value, subject: &str, now: Timestamp) -> Option<Timestamp> {
    let progressing = conditions::find(status, "Progressing")?;
    let reason = text(&progressing["reason"]);
    if reason == "NewReplicaSetAvailable" || reason == "ProgressDeadlineExceeded" {
        return None;
    }
    let limit = seconds(int(&deployment["spec"]["progressDeadlineSeconds"], NO_DEADLINE));
    let deadline = parse_time(&progressing["lastUpdateTime"])? + limit;
    if deadline >= now {
        // A second later, since the times in conditions have no fractions.
        return Some(deadline + seconds(1));
    }
    let message = format!("{subject} has timed out progressing.");
    set(status, "Progressing", "False", "ProgressDeadlineExceeded", &message, now);
    None
}

fn record_pause(deployment: &Value, status: &mut Value, now: Timestamp) {
    if !has_deadline(deployment) {
        return;
    }
    let current = conditions::find(status, "Progressing").map_or("", |c| text(&c["reason"])).to_string();
    let paused = deployment["spec"]["paused"] == true;
    if current == "ProgressDeadlineExceeded" {
        return;
    }
    if paused && current != "DeploymentPaused" {
        set(status, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", now);
    } else if !paused && current == "DeploymentPaused" {
        set(status, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed", now);
    }
}

fn condition(kind: &str, value: &str, reason: &str, message: &str, since: Value, now: Timestamp) -> Value {
    json!({
        "type": kind, "status": value, "reason": reason, "message": message,
        "lastUpdateTime": time(now), "lastTransitionTime": since,
    })
}

/// As it is if status and reason are; otherwise replaced and moved to the end.
fn set(status: &mut Value, kind: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
    let old = conditions::find(status, kind).cloned();
    if old.as_ref().is_some_and(|o| o["status"] == value && o["reason"] == reason) {
        return;
    }
    let since = old.filter(|o| o["status"] == value).map(|o| o["lastTransitionTime"].clone());
    conditions::remove(status, kind);
    conditions::put(status, condition(kind, value, reason, message, since.unwrap_or_else(|| time(now).into()), now));
}

/// Written with the creation of a ReplicaSet: the revision, and where the deadline is counted from.
pub(crate) fn created(deployment: &Arc<Object>, name: &str, revision: i64, now: Timestamp) -> Option<Action> {
    let mut changed = deployment.value().clone();
    changed["metadata"]["annotations"][REVISION] = revision.to_string().into();
    if has_deadline(deployment) {
        let message = format!("Created new replica set \"{name}\"");
        let mut status = std::mem::take(&mut changed["status"]);
        if status.is_null() {
            status = json!({});
        }
        set(&mut status, "Progressing", "True", "NewReplicaSetCreated", &message, now);
        changed["status"] = status;
    }
    Action::replace(DEPLOYMENTS, "status", deployment, changed)
}

pub(crate) fn creation_failed(deployment: Arc<Object>) -> IfFailed {
    Box::new(move |failure, now| {
        let name = failure.action.rsplit('/').next().unwrap_or("").to_string();
        let message = format!("Failed to create new replica set \"{name}\": {}", failure.error);
        let event = Action::event(&deployment, EventType::Warning, "ReplicaSetCreateError", message.clone());
        let mut actions = vec![event];
        if has_deadline(&deployment) {
            let mut status = deployment["status"].clone();
            if status.is_null() {
                status = json!({});
            }
            set(&mut status, "Progressing", "False", "ReplicaSetCreateError", &message, now);
            actions.extend(Action::set_status(DEPLOYMENTS, &deployment, &status));
        }
        actions
    })
}
