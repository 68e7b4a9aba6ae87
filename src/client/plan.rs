//! What a reconciler is, and what it can ask for.
//!
//! Owns: `Reconciler`, `Plan`, `Action`, `Ask` and how each reads as text.
//! Called by: controllers, which make plans; the driver, which carries them out; tests, which read them.
//! Never: does anything.

use std::fmt;
use std::path::PathBuf;

use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::{SignedDuration, Timestamp};
use minik_api::{ObjectKey, ResourceId, object};
use serde_json::{Map, Value};

use crate::changes::Change;
use crate::error::Error;
use crate::events::{EventType, Regarding};
use crate::object::Object;
use crate::params::{DeleteParams, Patch};
use crate::view::View;

/// Longer than a watch takes to show something.
const UNSEEN_MAX: SignedDuration = SignedDuration::from_secs(5);

/// A controller: sees a snapshot, answers with what should be done. Same snapshot, same answer.
pub trait Reconciler: Send + Sync {
    fn name(&self) -> &'static str;
    fn watches(&self) -> &'static [ResourceId];
    /// Which keys a change touches.
    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey>;
    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan;
    /// An item whenever something besides the cache has changed that plans depend on.
    fn wakes(&self) -> BoxStream<'static, ()> {
        futures::stream::empty().boxed()
    }
    /// Which keys to plan again after such a change.
    fn keys_after_wake(&self, _view: &View) -> Vec<ObjectKey> {
        Vec::new()
    }
}

/// Carried out in order. Neighbouring creations (or deletions) of one resource run side by side, in batches that
/// double while all goes well; the first failure ends the plan, and the key is planned again later.
#[derive(Default)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// Plan again at this time, even if nothing changes until then.
    pub requeue_at: Option<Timestamp>,
    /// What to do when an action failed for good (not for a conflict): conditions that say why.
    pub if_failed: Option<IfFailed>,
    /// What must be known before the rest can be planned; asked once the actions are done.
    pub ask: Option<Ask>,
}

/// What no watch shows, such as a metric or whether somebody may do something, and the plan that follows from the
/// answers. They come in the order of the questions, which are put side by side.
pub struct Ask {
    pub questions: Vec<Question>,
    pub then: Box<dyn FnOnce(Vec<Answer>, Timestamp) -> Plan + Send>,
}

/// A request that changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// Any path of the API server.
    Get { path: String },
    /// A review, such as a SubjectAccessReview.
    Review { resource: ResourceId, body: Value },
    /// The metadata of every object of a resource in a namespace that names this uid as an owner, as an array. For what
    /// must not be decided on a cache that may lag.
    OwnedBy { resource: ResourceId, namespace: String, uid: String },
}

pub type Answer = Result<Value, Error>;

pub type IfFailed = Box<dyn Fn(&Failure, Timestamp) -> Vec<Action> + Send + Sync>;

/// Why a plan ended early.
#[derive(Debug)]
pub struct Failure {
    pub action: String,
    pub error: Error,
}

pub enum Action {
    /// The namespace is in the body.
    Create {
        resource: ResourceId,
        body: Value,
        narration: Option<Narration>,
    },
    /// `sub` is a subresource or empty.
    Patch {
        resource: ResourceId,
        key: ObjectKey,
        sub: &'static str,
        patch: Patch,
    },
    /// PUT of a whole object, guarded by its resourceVersion. `difference` is what the PUT changes, for people to read.
    Replace {
        resource: ResourceId,
        sub: &'static str,
        body: Value,
        difference: Value,
    },
    Delete {
        resource: ResourceId,
        key: ObjectKey,
        params: DeleteParams,
        narration: Option<Narration>,
    },
    /// POST to a subresource, such as `eviction`.
    Post {
        resource: ResourceId,
        key: ObjectKey,
        sub: &'static str,
        body: Value,
    },
    Event {
        regarding: Regarding,
        kind: EventType,
        reason: &'static str,
        message: String,
    },
    /// On the machine of the executor, with exactly these permissions; nothing if it is there. For components that run
    /// on a node and look after something there.
    MakeDirectory {
        path: PathBuf,
        mode: u32,
    },
    /// With everything in it; nothing if it is gone.
    RemoveDirectory {
        path: PathBuf,
    },
    /// DELETE of everything of a resource in a namespace.
    DeleteCollection {
        resource: ResourceId,
        namespace: String,
    },
    /// Asks the API server whether an object is gone, or is another one under its name; ends the plan if it is there.
    /// For what must not be decided on a cache that may lag.
    ConfirmGone {
        resource: ResourceId,
        key: ObjectKey,
        uid: String,
    },
    /// As `ConfirmGone`, for everything of a resource in a namespace.
    ConfirmEmpty {
        resource: ResourceId,
        namespace: String,
    },
    /// Asks the API server whether an object is still there and nobody has deleted it; ends the plan otherwise. Before
    /// something is given to an owner: its end may have freed just that, and the cache may show the one before the other.
    ConfirmLives {
        resource: ResourceId,
        key: ObjectKey,
        uid: String,
    },
}

/// The events that tell of an action: `SuccessfulCreate: Created pod: web-x`, `FailedCreate: Error creating: …`.
/// In a text `{}` stands for the object's name and `{owner}` for the name of what the Event is about; without `{}` the
/// name or, after a failure, the error comes last.
#[derive(Clone)]
pub struct Narration {
    pub regarding: Regarding,
    pub done: (&'static str, &'static str),
    pub failed: (&'static str, &'static str),
}

impl Narration {
    pub(crate) fn told(&self, name: &str) -> String {
        self.filled(self.done.1, name, name)
    }
    pub(crate) fn told_failure(&self, name: &str, error: &str) -> String {
        let text = self.filled(self.failed.1, name, "");
        format!("{text}{error}")
    }
    fn filled(&self, template: &str, name: &str, last: &str) -> String {
        let text = template.replace("{owner}", &self.regarding.name);
        if text.contains("{}") { text.replace("{}", name) } else { format!("{text}{last}") }
    }
}

impl Plan {
    pub fn nothing() -> Plan {
        Plan::default()
    }
    /// Nothing yet, because the API server has what the cache does not show. When it does, its change brings the key again;
    /// the time is for what comes and goes while a watch that broke off is listed anew.
    pub fn until_seen(now: Timestamp) -> Plan {
        Plan { requeue_at: Some(now + UNSEEN_MAX), ..Plan::default() }
    }
    pub fn of(actions: Vec<Action>) -> Plan {
        Plan { actions, ..Plan::default() }
    }
    pub fn asking(
        questions: Vec<Question>,
        then: impl FnOnce(Vec<Answer>, Timestamp) -> Plan + Send + 'static,
    ) -> Plan {
        Plan { ask: Some(Ask { questions, then: Box::new(then) }), ..Plan::default() }
    }
    pub fn with(mut self, more: impl IntoIterator<Item = Action>) -> Plan {
        self.actions.extend(more);
        self
    }
    pub fn push(&mut self, action: Action) {
        self.actions.push(action);
    }
    /// Keeps the earlier of two times.
    pub fn requeue_by(&mut self, at: Timestamp) {
        self.requeue_at = Some(self.requeue_at.map_or(at, |known| known.min(at)));
    }
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.ask.is_none()
    }
    /// The plan that follows when these are the answers: for tests of planners.
    pub fn answered(self, answers: Vec<Answer>, now: Timestamp) -> Plan {
        self.ask.map(|ask| (ask.then)(answers, now)).unwrap_or_default()
    }
}

impl Action {
    pub fn create(resource: ResourceId, body: Value) -> Action {
        Action::Create { resource, body, narration: None }
    }
    /// Deletes this object and no later one of its name.
    pub fn delete(resource: ResourceId, target: &Object) -> Action {
        let params = DeleteParams::of_uid(object::uid(target));
        Action::Delete { resource, key: target.key(), params, narration: None }
    }
    /// A merge patch that fails with a conflict unless the object is still the one planned on.
    pub fn merge(resource: ResourceId, sub: &'static str, seen: &Object, mut patch: Value) -> Action {
        patch["metadata"]["uid"] = object::uid(seen).into();
        patch["metadata"]["resourceVersion"] = object::resource_version(seen).into();
        Action::Patch { resource, key: seen.key(), sub, patch: Patch::Merge(patch) }
    }
    /// As `merge`, but later changes by others do not matter: only the uid must be the same.
    pub fn merge_any_version(resource: ResourceId, sub: &'static str, seen: &Object, mut patch: Value) -> Action {
        patch["metadata"]["uid"] = object::uid(seen).into();
        Action::Patch { resource, key: seen.key(), sub, patch: Patch::Merge(patch) }
    }
    /// Writes the object as changed; nothing if it is so already. Fails with a conflict unless the object is still the
    /// one planned on. An update where a patch would do, because upstream's roles for controllers allow no patch.
    pub fn replace(resource: ResourceId, sub: &'static str, seen: &Object, changed: Value) -> Option<Action> {
        let difference = merge_difference(seen, &changed)?;
        Some(Action::Replace { resource, sub, body: changed, difference })
    }
    /// Sets `status` as given; nothing if it is so already. Status fields not in `status` are removed.
    pub fn set_status(resource: ResourceId, seen: &Object, status: &Value) -> Option<Action> {
        let mut changed = seen.value().clone();
        changed["status"] = status.clone();
        Action::replace(resource, "status", seen, changed)
    }
    pub fn confirm_lives(resource: ResourceId, seen: &Object) -> Action {
        Action::ConfirmLives { resource, key: seen.key(), uid: object::uid(seen).into() }
    }
    pub fn event(about: &Value, kind: EventType, reason: &'static str, message: impl Into<String>) -> Action {
        Action::Event { regarding: Regarding::of(about), kind, reason, message: message.into() }
    }
    pub fn narrated(mut self, with: Narration) -> Action {
        if let Action::Create { narration, .. } | Action::Delete { narration, .. } = &mut self {
            *narration = Some(with);
        }
        self
    }
}

/// The merge patch (RFC 7386) that makes `new` of `old`; `None` if they are equal.
pub fn merge_difference(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for (name, value) in after {
        match before.get(name) {
            Some(known) => {
                if let Some(difference) = merge_difference(known, value) {
                    patch.insert(name.clone(), difference);
                }
            }
            None => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    Some(patch.into())
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = |sub: &str| {
            if sub.is_empty() { String::new() } else { format!("/{sub}") }
        };
        match self {
            Action::Create { resource, body, .. } => {
                let mut key = ObjectKey::of(body);
                if key.name.is_empty() {
                    key.name = format!("{}*", body["metadata"]["generateName"].as_str().unwrap_or(""));
                }
                write!(f, "create {} {key}", resource.plural)
            }
            Action::Patch { resource, key, sub, patch } => {
                let mut body = patch.body().clone();
                // Preconditions are the driver's business and would only blur what a plan does.
                if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.remove("uid");
                    metadata.remove("resourceVersion");
                    if metadata.is_empty() {
                        body.as_object_mut().expect("it had metadata").remove("metadata");
                    }
                }
                write!(f, "patch {}{} {key} {body}", resource.plural, slash(sub))
            }
            Action::Replace { resource, sub, body, difference } => {
                write!(f, "update {}{} {} {difference}", resource.plural, slash(sub), ObjectKey::of(body))
            }
            Action::Delete { resource, key, .. } => write!(f, "delete {} {key}", resource.plural),
            Action::Post { resource, key, sub, .. } => write!(f, "post {}/{sub} {key}", resource.plural),
            Action::DeleteCollection { resource, namespace } => {
                write!(f, "delete all {} in {namespace}", resource.plural)
            }
            Action::ConfirmGone { resource, key, .. } => write!(f, "confirm {} {key} is gone", resource.plural),
            Action::ConfirmEmpty { resource, namespace } => write!(f, "confirm no {} in {namespace}", resource.plural),
            Action::ConfirmLives { resource, key, .. } => write!(f, "confirm {} {key} lives", resource.plural),
            Action::MakeDirectory { path, .. } => write!(f, "make directory {}", path.display()),
            Action::RemoveDirectory { path } => write!(f, "remove directory {}", path.display()),
            Action::Event { kind, reason, message, .. } => write!(f, "event {kind:?} {reason}: {message}"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for action in &self.actions {
            writeln!(f, "{action}")?;
        }
        for question in self.ask.iter().flat_map(|a| &a.questions) {
            writeln!(f, "{question}")?;
        }
        if let Some(at) = self.requeue_at {
            writeln!(f, "again at {at}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Question::Get { path } => write!(f, "ask {path}"),
            Question::Review { resource, body } => write!(f, "ask {} {}", resource.plural, body["spec"]),
            Question::OwnedBy { resource, namespace, uid } => {
                write!(f, "ask what {uid} owns of {} in {namespace}", resource.plural)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_difference_removes_with_null_and_replaces_lists_whole() {
        let old = json!({"a": 1, "b": {"c": 2, "d": 3}, "l": [1, 2]});
        let new = json!({"a": 1, "b": {"c": 5}, "l": [1], "n": true});
        let difference = merge_difference(&old, &new).unwrap();
        assert_eq!(difference, json!({"b": {"c": 5, "d": null}, "l": [1], "n": true}));
        assert_eq!(merge_difference(&old, &old), None);
    }

    #[test]
    fn a_status_that_is_as_wanted_needs_no_write() {
        let r = ResourceId::new("apps", "v1", "replicasets");
        let seen = Object::new(json!({"metadata": {"name": "a"}, "status": {"replicas": 1, "readyReplicas": 1}}));
        assert!(Action::set_status(r, &seen, &json!({"replicas": 1, "readyReplicas": 1})).is_none());
        let action = Action::set_status(r, &seen, &json!({"replicas": 2})).unwrap();
        assert_eq!(action.to_string(), r#"update replicasets/status a {"status":{"readyReplicas":null,"replicas":2}}"#);
    }
}
