//! Carries out the actions of a plan.
//!
//! Owns: order, batches, preconditions' outcomes, and making what was written readable.
//! Called by: the driver; components that make plans without one.
//! Never: decides what to do, beyond stopping.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use minik_api::{ObjectKey, ResourceId, Status, object};
use serde_json::Value;
use tracing::debug;

use crate::cache::{Cache, Wait};
use crate::directory;
use crate::error::Error;
use crate::events::{EventRecorder, EventType};
use crate::params::{DeleteParams, ListParams};
use crate::plan::{Action, Answer, Failure, Narration, Question};
use crate::verbs::Client;

/// In flight at once within one plan.
const SIDE_BY_SIDE_MAX: usize = 32;
/// A batch starts with one, as upstream's slow start: if the first is refused, the rest would be too.
const BATCH_FIRST: usize = 1;
/// Until a deletion that was answered with a bare Status shows in the cache.
const GONE_SECONDS_MAX: u64 = 10;

#[derive(Clone)]
pub struct Executor {
    pub client: Client,
    pub cache: Cache,
    pub recorder: EventRecorder,
}

/// What became of one action.
enum Fate {
    Done,
    /// Somebody else was faster: plan again on what is there now.
    Overtaken,
    Failed(Failure),
}

/// What became of a plan.
pub(crate) enum Executed {
    All,
    Overtaken,
    Failed(Failure),
}

impl Executor {
    pub(crate) async fn execute(&self, actions: Vec<Action>) -> Executed {
        let mut groups: Vec<Vec<Action>> = Vec::new();
        for action in actions {
            match groups.last_mut() {
                Some(group) if side_by_side(&group[0], &action) => group.push(action),
                _ => groups.push(vec![action]),
            }
        }
        for group in groups {
            match self.group(group).await {
                Executed::All => {}
                other => return other,
            }
        }
        Executed::All
    }

    /// Puts all questions; the answers come in their order.
    pub(crate) async fn ask(&self, questions: Vec<Question>) -> Vec<Answer> {
        let asked = questions.into_iter().map(|question| async move {
            debug!(%question, "asking");
            match question {
                Question::Get { path } => self.client.get_path(&path).await,
                Question::Review { resource, body } => {
                    self.client.create(resource, object::namespace(&body), &body).await
                }
                Question::OwnedBy { resource, namespace, uid } => self.owned_by(resource, &namespace, &uid).await,
            }
        });
        stream::iter(asked).buffered(SIDE_BY_SIDE_MAX).collect().await
    }

    async fn owned_by(&self, resource: ResourceId, namespace: &str, uid: &str) -> Answer {
        let is_owned = |o: &Value| object::owner_references(o).iter().any(|owner| owner["uid"] == uid);
        let mut owned: Vec<Value> = Vec::new();
        let keep = |page: Vec<Value>| owned.extend(page.into_iter().filter(is_owned));
        self.client.list_pages(resource, namespace, ListParams::default(), true, keep).await?;
        Ok(owned.into())
    }

    async fn group(&self, group: Vec<Action>) -> Executed {
        let mut rest = group.into_iter();
        let mut size = BATCH_FIRST;
        loop {
            let batch: Vec<Action> = rest.by_ref().take(size).collect();
            if batch.is_empty() {
                return Executed::All;
            }
            let fates: Vec<Fate> =
                stream::iter(batch).map(|a| self.one(a)).buffer_unordered(SIDE_BY_SIDE_MAX).collect().await;
            let mut overtaken = false;
            for fate in fates {
                match fate {
                    Fate::Done => {}
                    Fate::Overtaken => overtaken = true,
                    Fate::Failed(failure) => return Executed::Failed(failure),
                }
            }
            if overtaken {
                return Executed::Overtaken;
            }
            size *= 2;
        }
    }

    async fn one(&self, action: Action) -> Fate {
        debug!(%action, "executing");
        let named = action.to_string();
        match action {
            Action::Create { resource, body, narration } => {
                let result = self.client.create(resource, object::namespace(&body), &body).await;
                self.narrate(narration.as_ref(), &result, object::name(&body));
                self.written(named, resource, result)
            }
            Action::Patch { resource, key, sub, patch } => {
                let result = self.client.patch(resource, &key.namespace, &key.name, sub, &patch).await;
                self.written(named, resource, result)
            }
            Action::Replace { resource, sub, body, .. } => {
                let (namespace, name) = (object::namespace(&body), object::name(&body));
                let result = if sub.is_empty() {
                    self.client.update(resource, namespace, name, &body).await
                } else {
                    self.client.update_sub(resource, namespace, name, sub, &body).await
                };
                match result {
                    // What `/scale` answers with is a Scale and no object of the resource.
                    Ok(_) if sub == "scale" => Fate::Done,
                    result => self.written(named, resource, result),
                }
            }
            Action::Delete { resource, key, params, narration } => {
                self.delete(named, resource, key, params, narration).await
            }
            Action::Post { resource, key, sub, body } => {
                let result = self.client.create_sub(resource, &key.namespace, &key.name, sub, &body).await;
                match result {
                    Ok(_) => Fate::Done,
                    Err(error) => refused(named, error),
                }
            }
            Action::DeleteCollection { resource, namespace } => {
                let (all, params) = (ListParams::default(), DeleteParams::default());
                match self.client.delete_collection(resource, &namespace, &all, &params).await {
                    Ok(()) => Fate::Done,
                    // Some resources can be deleted one by one only.
                    Err(e) if e.is_not_found() || e.status().is_some_and(|s| s.code == 405) => Fate::Done,
                    Err(error) => refused(named, error),
                }
            }
            Action::ConfirmGone { resource, key, uid } => {
                match self.client.get(resource, &key.namespace, &key.name).await {
                    Err(e) if e.is_not_found() => Fate::Done,
                    Ok(found) if object::uid(&found) != uid => Fate::Done,
                    Ok(_) => Fate::Overtaken,
                    Err(error) => refused(named, error),
                }
            }
            Action::ConfirmEmpty { resource, namespace } => {
                let one = ListParams { limit: 1, ..ListParams::default() };
                match self.client.list_metadata(resource, &namespace, &one).await {
                    Ok(list) if list.items.is_empty() => Fate::Done,
                    Err(e) if e.is_not_found() || e.status().is_some_and(|s| s.code == 405) => Fate::Done,
                    Ok(_) => Fate::Overtaken,
                    Err(error) => refused(named, error),
                }
            }
            Action::ConfirmLives { resource, key, uid } => {
                match self.client.get(resource, &key.namespace, &key.name).await {
                    Ok(found) if object::uid(&found) == uid && !object::is_deleting(&found) => Fate::Done,
                    Ok(_) => Fate::Overtaken,
                    Err(error) => refused(named, error),
                }
            }
            Action::MakeDirectory { path, mode } => done(named, directory::make(path, mode).await),
            Action::RemoveDirectory { path } => done(named, directory::remove(path).await),
            Action::Event { regarding, kind, reason, message } => {
                self.recorder.record(&regarding, kind, reason, &message);
                Fate::Done
            }
        }
    }

    fn written(&self, action: String, resource: ResourceId, result: Result<Value, Error>) -> Fate {
        match result {
            Ok(value) => {
                self.cache.absorb(resource, &value);
                Fate::Done
            }
            Err(error) => refused(action, error),
        }
    }

    async fn delete(
        &self,
        action: String,
        resource: ResourceId,
        key: ObjectKey,
        params: DeleteParams,
        narration: Option<Narration>,
    ) -> Fate {
        let result = self.client.delete(resource, &key.namespace, &key.name, &params).await;
        self.narrate(narration.as_ref(), &result, &key.name);
        match result {
            // Graceful: the answer is the object, now with a deletionTimestamp.
            Ok(value) => {
                if object::is_deleting(&value) {
                    self.cache.absorb(resource, &value);
                }
            }
            Err(e) if e.is_not_found() => {}
            Err(error) => return refused(action, error),
        }
        let uid = params.uid.unwrap_or_default();
        let limit = Duration::from_secs(GONE_SECONDS_MAX);
        let gone = |view: &crate::view::View| {
            let object = view.get_key(resource, &key);
            object.is_none_or(|o| object::is_deleting(o) || (!uid.is_empty() && object::uid(o) != uid))
        };
        if self.cache.wait_for(limit, gone).await == Wait::TimedOut {
            debug!(%key, "a deletion does not show in the cache yet");
        }
        Fate::Done
    }

    /// `asked` is the name in the request, empty while the server chooses it.
    fn narrate(&self, with: Option<&Narration>, result: &Result<Value, Error>, asked: &str) {
        let Some(with) = with else { return };
        let (kind, reason, text) = match result {
            Ok(made) => {
                let name = if asked.is_empty() { object::name(made) } else { asked };
                (EventType::Normal, with.done.0, with.told(name))
            }
            Err(e) if is_overtaken(e) || namespace_is_terminating(e) => return,
            Err(e) => (EventType::Warning, with.failed.0, with.told_failure(asked, &e.chain())),
        };
        self.recorder.record(&with.regarding, kind, reason, &text);
    }
}

fn side_by_side(a: &Action, b: &Action) -> bool {
    match (a, b) {
        (Action::Create { resource: r, .. }, Action::Create { resource: s, .. })
        | (Action::Delete { resource: r, .. }, Action::Delete { resource: s, .. }) => r == s,
        (Action::DeleteCollection { .. }, Action::DeleteCollection { .. })
        | (Action::ConfirmEmpty { .. }, Action::ConfirmEmpty { .. }) => true,
        _ => false,
    }
}

fn is_overtaken(error: &Error) -> bool {
    error.is_conflict() || error.is_not_found() || error.is_already_exists() || error.is_of_another_object()
}

/// Nothing can be made there any more, and trying again is no use: the namespace's end takes the owner too.
fn namespace_is_terminating(error: &Error) -> bool {
    let cause =
        |s: &Status| s.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating"));
    error.status().is_some_and(cause)
}

fn done(action: String, result: Result<(), Error>) -> Fate {
    match result {
        Ok(()) => Fate::Done,
        Err(error) => Fate::Failed(Failure { action, error }),
    }
}

fn refused(action: String, error: Error) -> Fate {
    if is_overtaken(&error) {
        debug!(action, %error, "overtaken; planning again");
        Fate::Overtaken
    } else if namespace_is_terminating(&error) {
        Fate::Done
    } else {
        Fate::Failed(Failure { action, error })
    }
}
