//! The objects that pods of this node refer to, each watched on its own.
//!
//! Owns: one watch a reference, open while somebody holds it: of one ConfigMap or Secret (the node may read exactly
//! those and no list), or of what a field selector finds.
//! Called by: environments, volumes, image pull secrets.
//! Never: reads an object nobody refers to.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use minik_api::{ResourceId, object};
use minik_client::{Client, Error, WatchEvent, WatchParams};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longer than any API server needs to answer; a pod says what is missing and tries again.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    resource: ResourceId,
    namespace: String,
    fields: String,
}

/// The objects that are there, by name.
pub type Found = BTreeMap<String, Arc<Value>>;

/// What is known of them; `None` before the first answer.
type Known = Option<Found>;

#[derive(Clone)]
pub struct Sources {
    client: Client,
    held: Arc<Mutex<HashMap<Key, Weak<Source>>>>,
}

/// One watch; it ends with the last holder.
struct Source {
    state: watch::Receiver<Known>,
    _watching: DropGuard,
}

/// A hold on what is watched, which remembers what its holder has seen of it.
#[derive(Clone)]
pub struct Held {
    state: watch::Receiver<Known>,
    _source: Arc<Source>,
}

#[derive(Debug, thiserror::Error)]
#[error("timed out waiting for the API server's answer about {name}")]
pub struct NoAnswer {
    name: String,
}

impl Sources {
    pub fn new(client: Client) -> Sources {
        Sources { client, held: Arc::default() }
    }

    pub fn hold(&self, resource: ResourceId, namespace: &str, name: &str) -> Held {
        self.hold_selected(resource, namespace, &format!("metadata.name={name}"))
    }

    /// All objects that the field selector finds in the namespace, "" for cluster scope.
    pub fn hold_selected(&self, resource: ResourceId, namespace: &str, fields: &str) -> Held {
        let key = Key { resource, namespace: namespace.into(), fields: fields.into() };
        let mut held = self.held.lock();
        if let Some(source) = held.get(&key).and_then(Weak::upgrade) {
            return Held { state: source.state.clone(), _source: source };
        }
        held.retain(|_, source| source.strong_count() > 0);
        let (sender, state) = watch::channel(None);
        let cancel = CancellationToken::new();
        let source = Arc::new(Source { state, _watching: cancel.clone().drop_guard() });
        held.insert(key.clone(), Arc::downgrade(&source));
        tokio::spawn(cancel.run_until_cancelled_owned(follow(self.client.clone(), key, sender)));
        Held { state: source.state.clone(), _source: source }
    }
}

impl Held {
    /// The object as last seen, `None` when it does not exist; waits for the first answer.
    pub async fn get(&mut self, name: &str) -> Result<Option<Arc<Value>>, NoAnswer> {
        Ok(self.all(name).await?.remove(name))
    }

    /// All objects as last seen; waits for the first answer. `what` names them in the error.
    pub async fn all(&mut self, what: &str) -> Result<Found, NoAnswer> {
        let known = self.state.wait_for(Option::is_some);
        match tokio::time::timeout(FIRST_ANSWER_WITHIN, known).await {
            Ok(Ok(known)) => Ok(known.clone().unwrap_or_default()),
            Ok(Err(_)) | Err(_) => Err(NoAnswer { name: what.into() }),
        }
    }

    /// Resolves when the objects are no longer what was last answered.
    pub async fn changed(mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn follow(client: Client, key: Key, state: watch::Sender<Known>) {
    loop {
        if let Err(error) = follow_once(&client, &key, &state).await {
            tracing::debug!(fields = key.fields, error = %error.chain(), "watch of a pod's source broke");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

/// Reads the objects, then follows them until the watch ends.
async fn follow_once(client: &Client, key: &Key, state: &watch::Sender<Known>) -> Result<(), Error> {
    let params = minik_client::ListParams { field_selector: key.fields.clone(), ..Default::default() };
    let list = client.list(key.resource, &key.namespace, &params).await?;
    let mut found: Found = list.items.into_iter().map(named).collect();
    state.send_replace(Some(found.clone()));
    let mut resource_version = list.resource_version;
    loop {
        let params = WatchParams {
            field_selector: key.fields.clone(),
            resource_version: resource_version.clone(),
            bookmarks: true,
            ..Default::default()
        };
        let mut events = client.watch(key.resource, &key.namespace, &params).await?;
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Added(value) | WatchEvent::Modified(value)) => {
                    resource_version = object::resource_version(&value).into();
                    found.extend([named(value)]);
                }
                Ok(WatchEvent::Deleted(value)) => {
                    resource_version = object::resource_version(&value).into();
                    found.remove(object::name(&value));
                }
                Ok(WatchEvent::Bookmark { resource_version: version, .. }) => {
                    resource_version = version;
                    continue;
                }
                Err(error) if error.is_gone() => return Ok(()),
                Err(error) => return Err(error),
            }
            state.send_replace(Some(found.clone()));
        }
    }
}

/// Names are unique here: a selection is of one namespace or of cluster scope.
fn named(value: Value) -> (String, Arc<Value>) {
    (object::name(&value).to_string(), Arc::new(value))
}
