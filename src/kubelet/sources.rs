//! The ConfigMaps and Secrets that pods of this node refer to, each watched on its own.
//!
//! Owns: one watch an object, open while somebody holds it. The node may read exactly those objects and no list.
//! Called by: environments, volumes, image pull secrets.
//! Never: reads an object nobody refers to.

use std::collections::HashMap;
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
    name: String,
}

/// What is known of an object.
#[derive(Clone, Debug, Default)]
enum Known {
    #[default]
    NotYet,
    Absent,
    Present(Arc<Value>),
}

#[derive(Clone)]
pub struct Sources {
    client: Client,
    held: Arc<Mutex<HashMap<Key, Weak<Source>>>>,
}

/// The watch of one object; it ends with the last holder.
struct Source {
    state: watch::Receiver<Known>,
    _watching: DropGuard,
}

/// A hold on a watched object, which remembers what its holder has seen of it.
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
        let key = Key { resource, namespace: namespace.into(), name: name.into() };
        let mut held = self.held.lock();
        if let Some(source) = held.get(&key).and_then(Weak::upgrade) {
            return Held { state: source.state.clone(), _source: source };
        }
        held.retain(|_, source| source.strong_count() > 0);
        let (sender, state) = watch::channel(Known::NotYet);
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
        let known = self.state.wait_for(|known| !matches!(known, Known::NotYet));
        match tokio::time::timeout(FIRST_ANSWER_WITHIN, known).await {
            Ok(Ok(known)) => Ok(match &*known {
                Known::Present(value) => Some(value.clone()),
                Known::Absent | Known::NotYet => None,
            }),
            Ok(Err(_)) | Err(_) => Err(NoAnswer { name: name.into() }),
        }
    }

    /// Resolves when the object is no longer what `get` last answered.
    pub async fn changed(mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn follow(client: Client, key: Key, state: watch::Sender<Known>) {
    let tell = |known: Known| {
        state.send_replace(known);
    };
    loop {
        if let Err(error) = follow_once(&client, &key, &tell).await {
            tracing::debug!(name = key.name, error = %error.chain(), "watch of a pod's source broke");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

/// Reads the object, then follows it until the watch ends.
async fn follow_once(client: &Client, key: &Key, tell: &impl Fn(Known)) -> Result<(), Error> {
    let field_selector = format!("metadata.name={}", key.name);
    let params = minik_client::ListParams { field_selector: field_selector.clone(), ..Default::default() };
    let list = client.list(key.resource, &key.namespace, &params).await?;
    tell(list.items.into_iter().next().map_or(Known::Absent, |v| Known::Present(Arc::new(v))));
    let mut resource_version = list.resource_version;
    loop {
        let params = WatchParams {
            field_selector: field_selector.clone(),
            resource_version: resource_version.clone(),
            bookmarks: true,
            ..Default::default()
        };
        let mut events = client.watch(key.resource, &key.namespace, &params).await?;
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Added(value) | WatchEvent::Modified(value)) => {
                    resource_version = object::resource_version(&value).into();
                    tell(Known::Present(Arc::new(value)));
                }
                Ok(WatchEvent::Deleted(value)) => {
                    resource_version = object::resource_version(&value).into();
                    tell(Known::Absent);
                }
                Ok(WatchEvent::Bookmark { resource_version: version, .. }) => resource_version = version,
                Err(error) if error.is_gone() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}
