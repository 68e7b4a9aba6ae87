//! Conditions in a status.
//!
//! Owns: when a condition counts as changed and which of its times then moves.
//! Called by: every controller that writes a status.
//! Never: decides what is true.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::fields::{list, time};

pub(crate) fn find<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    list(&status["conditions"]).iter().find(|c| c["type"] == kind)
}

pub(crate) fn is_true(status: &Value, kind: &str) -> bool {
    find(status, kind).is_some_and(|c| c["status"] == "True")
}

/// What changes when a condition of the same status and reason is set again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Nothing, not even the message: Deployments and ReplicaSets.
    Keeps,
    /// Message, but not the time of transition.
    Updates,
}

/// Sets a condition; a new one goes to the end.
pub(crate) fn set(
    status: &mut Value,
    kind: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
    repeat: Repeat,
) {
    let old = find(status, kind).cloned();
    let unchanged = old.as_ref().is_some_and(|o| o["status"] == value && o["reason"] == reason);
    if unchanged && repeat == Repeat::Keeps {
        return;
    }
    let since = old.as_ref().filter(|o| o["status"] == value).map(|o| o["lastTransitionTime"].clone());
    let mut condition = json!({
        "type": kind, "status": value, "reason": reason, "message": message,
        "lastTransitionTime": since.unwrap_or_else(|| time(now).into()),
    });
    if message.is_empty() {
        condition.as_object_mut().expect("made above").remove("message");
    }
    put(status, condition);
}

/// Replaces the condition of the same type, or appends it.
pub(crate) fn put(status: &mut Value, condition: Value) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let conditions = status["conditions"].as_array_mut().expect("made above");
    match conditions.iter_mut().find(|c| c["type"] == condition["type"]) {
        Some(slot) => *slot = condition,
        None => conditions.push(condition),
    }
}

pub(crate) fn remove(status: &mut Value, kind: &str) {
    if let Some(conditions) = status["conditions"].as_array_mut() {
        conditions.retain(|c| c["type"] != kind);
        if conditions.is_empty() {
            status.as_object_mut().expect("it had conditions").remove("conditions");
        }
    }
}
