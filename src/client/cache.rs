//! A cache of some resources, kept current by list+watch.
//!
//! Owns: the newest view, its listeners, and the rule by which versions of an object follow each other.
//! Called by: reflectors, which feed it; everybody else, to read and to listen.
//! Never: talks to the API server itself.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use minik_api::{ObjectKey, ResourceId, object};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::changes::{Change, ChangeReceiver, Listener};
use crate::object::Object;
use crate::reflector;
use crate::tasks::Tasks;
use crate::verbs::Client;
use crate::view::View;

/// Which objects of a resource a cache holds, and how much of each.
#[derive(Clone, Default)]
pub struct Selection {
    /// Empty = all namespaces.
    pub namespace: String,
    pub field_selector: String,
    pub label_selector: String,
    /// Only `metadata` (PartialObjectMetadata).
    pub metadata_only: bool,
    /// Takes away what nobody reads, to save memory. `managedFields` always go.
    pub strip: Option<fn(&mut Value)>,
}

impl Selection {
    fn is_everything(&self) -> bool {
        self.namespace.is_empty() && self.field_selector.is_empty() && self.label_selector.is_empty()
    }
}

pub struct CacheBuilder {
    client: Client,
    watches: Vec<(ResourceId, Selection)>,
}

impl CacheBuilder {
    /// Asking twice for a resource keeps the first selection.
    pub fn watch(self, r: ResourceId) -> Self {
        self.watch_as(r, Selection::default())
    }
    pub fn watch_selected(self, r: ResourceId, fields: &str, labels: &str) -> Self {
        let selection =
            Selection { field_selector: fields.into(), label_selector: labels.into(), ..Selection::default() };
        self.watch_as(r, selection)
    }
    pub fn watch_as(mut self, r: ResourceId, selection: Selection) -> Self {
        if !self.watches.iter().any(|(known, _)| *known == r) {
            self.watches.push((r, selection));
        }
        self
    }
    pub fn start(self, tasks: &Tasks) -> Cache {
        let inner = Inner {
            client: self.client,
            tasks: tasks.clone(),
            state: Mutex::default(),
            progress: watch::Sender::new(0),
        };
        let cache = Cache { inner: Arc::new(inner) };
        for (resource, selection) in self.watches {
            cache.add(resource, selection);
        }
        cache
    }
}

#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    tasks: Tasks,
    state: Mutex<State>,
    /// Counts commits, to wake whoever waits for a condition.
    progress: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    view: View,
    feeds: HashMap<ResourceId, Feed>,
    listeners: Vec<Weak<Listener>>,
}

/// What is known about one resource besides its objects.
struct Feed {
    synced: bool,
    selection: Selection,
    stop: CancellationToken,
    /// The watch has shown everything up to here.
    seen: u64,
    /// Written by this process and not yet seen in the watch: key -> version.
    absorbed: HashMap<ObjectKey, u64>,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Met,
    TimedOut,
}

pub(crate) enum Fed {
    Set(Value),
    Gone(Value),
    Bookmark(u64),
}

impl Cache {
    pub fn builder(client: Client) -> CacheBuilder {
        CacheBuilder { client, watches: Vec::new() }
    }

    /// Starts caching one more resource; does nothing if it is cached already.
    pub fn add(&self, resource: ResourceId, selection: Selection) {
        let stop = self.inner.tasks.token().child_token();
        {
            let mut state = self.inner.state.lock();
            if state.feeds.contains_key(&resource) {
                return;
            }
            state.view.store_mut(resource);
            let feed = Feed {
                synced: false,
                selection: selection.clone(),
                stop: stop.clone(),
                seen: 0,
                absorbed: HashMap::new(),
            };
            state.feeds.insert(resource, feed);
        }
        let (cache, client) = (self.clone(), self.inner.client.clone());
        self.inner.tasks.spawn(async move {
            stop.run_until_cancelled_owned(reflector::run(client, cache, resource, selection)).await;
        });
    }

    /// Stops caching a resource and forgets its objects, without telling listeners.
    pub fn remove(&self, resource: ResourceId) {
        let mut state = self.inner.state.lock();
        if let Some(feed) = state.feeds.remove(&resource) {
            feed.stop.cancel();
            state.view.drop_store(resource);
        }
    }

    /// Resources being cached.
    pub fn resources(&self) -> Vec<ResourceId> {
        self.inner.state.lock().feeds.keys().copied().collect()
    }

    /// Waits until every resource was listed once.
    pub async fn synced(&self) {
        let mut progress = self.inner.progress.subscribe();
        loop {
            progress.borrow_and_update();
            if self.inner.state.lock().feeds.values().all(|f| f.synced) {
                return;
            }
            progress.changed().await.expect("the sender lives in the cache held here");
        }
    }

    pub fn is_synced(&self, resource: ResourceId) -> bool {
        self.inner.state.lock().feeds.get(&resource).is_some_and(|f| f.synced)
    }

    /// The newest snapshot.
    pub fn view(&self) -> View {
        self.inner.state.lock().view.clone()
    }

    /// Every change from now on, preceded by what is there as additions.
    pub fn changes(&self) -> ChangeReceiver {
        self.changes_of(&[])
    }

    /// As `changes`, for some resources only; none named means all.
    pub fn changes_of(&self, resources: &[ResourceId]) -> ChangeReceiver {
        let listener = Arc::new(Listener::new(resources));
        let mut state = self.inner.state.lock();
        for (resource, store) in state.view.0.iter() {
            for (key, object) in &store.objects {
                let change = Change { resource: *resource, key: key.clone(), old: None, new: Some(object.clone()) };
                listener.push(&change);
            }
        }
        state.listeners.push(Arc::downgrade(&listener));
        ChangeReceiver(listener)
    }

    /// Waits until the view fulfils a condition, checked at every change.
    pub async fn wait_for(&self, limit: Duration, condition: impl Fn(&View) -> bool) -> Wait {
        let mut progress = self.inner.progress.subscribe();
        let met = async {
            loop {
                progress.borrow_and_update();
                if condition(&self.view()) {
                    return;
                }
                progress.changed().await.expect("the sender lives in the cache held here");
            }
        };
        tokio::time::timeout(limit, met).await.map_or(Wait::TimedOut, |()| Wait::Met)
    }

    /// Takes in the answer to a write, so that the writer reads it at once. Older than the watch: ignored, since an
    /// object the watch has already passed may have been deleted since.
    pub fn absorb(&self, resource: ResourceId, value: &Value) {
        let version = version_of(value);
        let mut state = self.inner.state.lock();
        let Some(feed) = state.feeds.get_mut(&resource) else {
            return;
        };
        let whole = feed.selection.is_everything() && !feed.selection.metadata_only;
        if !feed.synced || !whole || version <= feed.seen || object::name(value).is_empty() {
            return;
        }
        let key = ObjectKey::of(value);
        feed.absorbed.insert(key.clone(), version);
        let mut value = value.clone();
        trim(&mut value, feed.selection.strip);
        // A finished graceful deletion answers with the object as it was; the watch will say that it is gone.
        let change = set(&mut state.view, resource, key, value);
        state.publish(change);
        drop(state);
        self.bump();
    }

    /// Replaces all objects of a resource by a list read at `version`.
    pub(crate) fn replace(&self, resource: ResourceId, items: Vec<Value>, version: u64) {
        let mut state = self.inner.state.lock();
        let Some(feed) = state.feeds.get_mut(&resource) else {
            return;
        };
        feed.seen = version;
        feed.synced = true;
        feed.absorbed.retain(|_, written| *written > version);
        let absorbed = feed.absorbed.clone();
        let strip = feed.selection.strip;
        let mut listed: std::collections::HashSet<ObjectKey> = std::collections::HashSet::with_capacity(items.len());
        let mut changes = Vec::new();
        for mut value in items {
            trim(&mut value, strip);
            let key = ObjectKey::of(&value);
            listed.insert(key.clone());
            if !absorbed.contains_key(&key) {
                changes.extend(set(&mut state.view, resource, key, value));
            }
        }
        let store = state.view.store_mut(resource);
        let gone = |key: &&ObjectKey| !listed.contains(*key) && !absorbed.contains_key(*key);
        let gone: Vec<ObjectKey> = store.objects.keys().filter(gone).cloned().collect();
        for key in gone {
            let old = store.remove(&key);
            changes.push(Change { resource, key, old, new: None });
        }
        state.publish(changes);
        drop(state);
        self.bump();
    }

    /// Takes in what a watch brought, in its order.
    pub(crate) fn feed(&self, resource: ResourceId, batch: Vec<Fed>) {
        let mut state = self.inner.state.lock();
        let mut changes = Vec::new();
        for fed in batch {
            let State { view, feeds, .. } = &mut *state;
            let Some(feed) = feeds.get_mut(&resource) else {
                return;
            };
            match fed {
                Fed::Bookmark(version) => feed.seen = feed.seen.max(version),
                Fed::Set(mut value) => {
                    feed.seen = feed.seen.max(version_of(&value));
                    trim(&mut value, feed.selection.strip);
                    changes.extend(set(view, resource, ObjectKey::of(&value), value));
                }
                Fed::Gone(value) => {
                    let (key, version) = (ObjectKey::of(&value), version_of(&value));
                    feed.seen = feed.seen.max(version);
                    let store = view.store_mut(resource);
                    let newer = store.objects.get(&key).is_some_and(|o| version_of(o) > version);
                    if !newer && let Some(old) = store.remove(&key) {
                        changes.push(Change { resource, key, old: Some(old), new: None });
                    }
                }
            }
            let seen = feed.seen;
            feed.absorbed.retain(|_, written| *written > seen);
        }
        if !changes.is_empty() {
            state.publish(changes);
            drop(state);
            self.bump();
        }
    }

    fn bump(&self) {
        self.inner.progress.send_modify(|n| *n += 1);
    }
}

impl State {
    fn publish(&mut self, changes: impl IntoIterator<Item = Change>) {
        let listeners: Vec<Arc<Listener>> = self.listeners.iter().filter_map(Weak::upgrade).collect();
        if listeners.len() < self.listeners.len() {
            self.listeners.retain(|l| l.strong_count() > 0);
        }
        for change in changes {
            listeners.iter().for_each(|l| l.push(&change));
        }
    }
}

/// Sets an object unless the same or a newer version of it is there.
fn set(view: &mut View, resource: ResourceId, key: ObjectKey, value: Value) -> Option<Change> {
    let store = view.store_mut(resource);
    let stale = |old: &Arc<Object>| object::uid(old) == object::uid(&value) && version_of(old) >= version_of(&value);
    if store.objects.get(&key).is_some_and(stale) {
        return None;
    }
    let new = Arc::new(Object::new(value));
    let old = store.insert(new.clone());
    Some(Change { resource, key, old, new: Some(new) })
}

/// Resource versions count up within one API server's store (KEP-5504 makes that a promise).
pub(crate) fn version_of(value: &Value) -> u64 {
    object::resource_version(value).parse().unwrap_or(0)
}

fn trim(value: &mut Value, strip: Option<fn(&mut Value)>) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if let Some(strip) = strip {
        strip(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PODS: ResourceId = ResourceId::new("", "v1", "pods");

    struct Nowhere;
    impl crate::transport::Transport for Nowhere {
        fn send(
            &self,
            _: http::Request<bytes::Bytes>,
        ) -> futures::future::BoxFuture<'_, Result<http::Response<crate::Body>, crate::TransportError>> {
            Box::pin(std::future::pending())
        }
    }

    fn cache() -> Cache {
        let tasks = Tasks::new(CancellationToken::new());
        Cache::builder(Client::new(Arc::new(Nowhere))).watch(PODS).start(&tasks)
    }
    fn pod(name: &str, version: u64) -> Value {
        json!({"metadata": {"name": name, "uid": format!("u-{name}"), "resourceVersion": version.to_string()}})
    }
    fn text(cache: &Cache) -> String {
        let view = cache.view();
        let all: Vec<String> =
            view.list(PODS, "").map(|o| format!("{}@{}", object::name(o), object::resource_version(o))).collect();
        all.join(" ")
    }

    #[tokio::test]
    async fn a_write_is_readable_at_once_and_the_older_watch_event_does_not_undo_it() {
        let cache = cache();
        cache.replace(PODS, vec![pod("a", 3)], 5);
        cache.absorb(PODS, &pod("a", 8));
        assert_eq!(text(&cache), "a@8");
        cache.feed(PODS, vec![Fed::Set(pod("a", 7))]);
        assert_eq!(text(&cache), "a@8");
        cache.feed(PODS, vec![Fed::Set(pod("a", 8)), Fed::Set(pod("a", 9))]);
        assert_eq!(text(&cache), "a@9");
    }

    #[tokio::test]
    async fn an_answer_that_arrives_after_the_watch_saw_the_deletion_brings_nothing_back() {
        let cache = cache();
        cache.replace(PODS, vec![], 5);
        cache.feed(PODS, vec![Fed::Set(pod("a", 6)), Fed::Gone(pod("a", 7))]);
        cache.absorb(PODS, &pod("a", 6));
        assert_eq!(text(&cache), "");
    }

    #[tokio::test]
    async fn a_relist_reports_what_vanished_and_keeps_writes_newer_than_itself() {
        let cache = cache();
        cache.replace(PODS, vec![pod("a", 1), pod("b", 2)], 5);
        let mut changes = cache.changes();
        while changes.try_recv().is_some() {}
        cache.absorb(PODS, &pod("c", 9));
        cache.replace(PODS, vec![pod("b", 2)], 8);
        assert_eq!(text(&cache), "b@2 c@9");
        let seen: Vec<String> = std::iter::from_fn(|| changes.try_recv())
            .map(|c| format!("{}{}", if c.new.is_some() { "+" } else { "-" }, c.key))
            .collect();
        assert_eq!(seen, ["+c", "-a"]);
        cache.replace(PODS, vec![pod("b", 2)], 10);
        assert_eq!(text(&cache), "b@2");
    }

    #[tokio::test]
    async fn a_late_listener_hears_of_everything_there_is() {
        let cache = cache();
        cache.replace(PODS, vec![pod("a", 1)], 5);
        let change = cache.changes().recv().await;
        assert!(change.old.is_none() && change.new.is_some());
    }
}
