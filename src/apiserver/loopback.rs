//! The API server as a reader and a client of itself.
//!
//! Owns: the two doors of `objects`, opened onto the store and the pipeline.
//! Called by: authentication, authorization, admission, bootstrap.
//! Never: goes through a socket.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use futures::StreamExt;
use http::{Method, Request, header};
use minik_api::{ObjectKey, ResourceId, Status, registry};
use minik_store::{Entry, EventKind, Range, Revision, Store};
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::authn::{Peer, UserInfo};
use crate::catalog::{Catalog, Served};
use crate::objects::{Change, Follow, KindList, Loopback, Objects};
use crate::server::Core;
use crate::{body, pipeline, reply};

/// The server as a client of itself, for parts that the server owns and that must not keep it alive.
pub struct SelfCall(pub Weak<Core>);

#[async_trait]
impl Loopback for SelfCall {
    async fn call(&self, method: Method, path: &str, content: Option<&Value>) -> Result<Value, Status> {
        let core = self.0.upgrade().ok_or_else(|| Status::internal("the server has stopped"))?;
        core.call(method, path, content).await
    }

    async fn apply(&self, path: &str, manager: &str, content: &Value) -> Result<Value, Status> {
        let core = self.0.upgrade().ok_or_else(|| Status::internal("the server has stopped"))?;
        core.apply(path, manager, content).await
    }
}

#[async_trait]
impl Loopback for Arc<Core> {
    async fn call(&self, method: Method, path: &str, content: Option<&Value>) -> Result<Value, Status> {
        let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        send(self, method, path, media, content).await
    }

    async fn apply(&self, path: &str, manager: &str, content: &Value) -> Result<Value, Status> {
        let path = format!("{path}?fieldManager={manager}&force=true");
        send(self, Method::PATCH, &path, "application/apply-patch+yaml", Some(content)).await
    }
}

async fn send(
    core: &Arc<Core>,
    method: Method,
    path: &str,
    media: &str,
    content: Option<&Value>,
) -> Result<Value, Status> {
    let bytes = content.map(|c| c.to_string()).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, media)
        .header(header::USER_AGENT, "kube-apiserver")
        .extension(Arc::new(UserInfo::api_server()))
        .body(body::full(bytes))
        .map_err(|e| Status::internal(format!("the path {path:?} is none: {e}")))?;
    let response = pipeline::handle(core, request, &Peer::default()).await;
    let code = response.status().as_u16();
    let bytes = body::read_all(response.into_body()).await?;
    let tree: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if code < 400 {
        return Ok(tree);
    }
    Err(serde_json::from_value(tree)
        .unwrap_or_else(|_| Status::new(code, "", String::from_utf8_lossy(&bytes).into_owned())))
}

/// What is stored, for those who must not hold the whole server.
pub struct StoredObjects {
    store: Store,
    catalog: Arc<Catalog>,
    stopping: CancellationToken,
    /// Trees of what was asked for lately: admission asks for the same few objects at every write.
    recent: Mutex<Recent>,
}

type Recent = HashMap<Arc<str>, (Revision, Arc<Value>)>;

/// A namespace, its service account, the priority classes and the like; kept small because trees are not.
const RECENT_MAX: usize = 64;

impl StoredObjects {
    pub fn new(store: Store, catalog: Arc<Catalog>, stopping: CancellationToken) -> Self {
        Self { store, catalog, stopping, recent: Mutex::default() }
    }

    fn tree(&self, served: &Served, entry: &Entry) -> Arc<Value> {
        // What has to be converted, or may have got another schema, is another tree each time.
        if !served.can_copy(&entry.value) {
            return Arc::new(reply::served_tree(served, entry));
        }
        if let Some((revision, tree)) = self.recent.lock().get(&entry.key)
            && *revision == entry.modified
        {
            return tree.clone();
        }
        let tree = Arc::new(reply::served_tree(served, entry));
        let mut recent = self.recent.lock();
        if recent.len() >= RECENT_MAX {
            recent.clear();
        }
        recent.insert(entry.key.clone(), (entry.modified, tree.clone()));
        tree
    }

    fn page(&self, served: &Served, namespace: &str) -> Vec<Entry> {
        // Each write looks for webhooks, policies and quotas, and mostly there are none.
        if !self.store.may_have(served.folder()) {
            return Vec::new();
        }
        let prefix = &served.prefix(namespace);
        self.store.range(&Range { prefix, ..Range::default() }).map(|p| p.entries).unwrap_or_default()
    }

    /// Many trees are not kept: they would only drive out the few that are asked for again.
    fn trees(&self, served: &Served, entries: &[Entry]) -> Vec<Arc<Value>> {
        if entries.len() > RECENT_MAX / 4 {
            return entries.iter().map(|e| Arc::new(reply::served_tree(served, e))).collect();
        }
        entries.iter().map(|e| self.tree(served, e)).collect()
    }
}

impl Objects for StoredObjects {
    fn get(&self, resource: ResourceId, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let table = self.catalog.now();
        let served = table.by_id(resource)?;
        Some(self.tree(served, &self.store.get(&served.key(namespace, name))?))
    }

    fn list(&self, resource: ResourceId, namespace: &str) -> Vec<Arc<Value>> {
        let table = self.catalog.now();
        let Some(served) = table.by_id(resource) else { return Vec::new() };
        self.trees(served, &self.page(served, namespace))
    }

    fn list_kind(&self, api_version: &str, kind: &str, namespace: &str) -> Option<KindList> {
        let (group, version) = registry::split_api_version(api_version);
        let table = self.catalog.now();
        let served = table.by_kind(group, version, kind)?;
        let namespaced = served.row.is_namespaced();
        let entries = self.page(served, if namespaced { namespace } else { "" });
        Some(KindList { namespaced, objects: self.trees(served, &entries) })
    }

    fn follow_where(&self, resource: ResourceId, wanted: fn(&[u8]) -> bool) -> Follow {
        let nothing = Follow { initial: Vec::new(), revision: Revision(0), changes: futures::stream::empty().boxed() };
        let table = self.catalog.now();
        let Some(served) = table.by_id(resource).cloned() else { return nothing };
        let prefix = served.prefix("");
        let Ok(page) = self.store.range(&Range { prefix: &prefix, ..Range::default() }) else { return nothing };
        let Ok(watch) = self.store.watch(&prefix, page.revision) else { return nothing };
        let there = page.entries.iter().filter(|e| wanted(&e.value));
        let initial = there.map(|e| Arc::new(reply::served_tree(&served, e))).collect();
        let stopping = self.stopping.clone();
        let batches = futures::stream::unfold(watch, |mut watch| async move {
            let batch = watch.next().await.ok()?;
            Some((futures::stream::iter(batch.events), watch))
        });
        let changes = batches.flatten().map(move |event| {
            let entry = &event.entry;
            if !wanted(&entry.value) {
                return Change::gone(&served.row.kind, &key_below(&prefix, &entry.key));
            }
            let tree = Arc::new(reply::served_tree(&served, entry));
            if event.kind == EventKind::Delete { Change::Delete(tree) } else { Change::Put(tree) }
        });
        Follow { initial, revision: page.revision, changes: changes.take_until(stopping.cancelled_owned()).boxed() }
    }
}

/// `namespace/name`, or the name alone.
fn key_below(prefix: &str, key: &str) -> ObjectKey {
    let rest = key.strip_prefix(prefix).unwrap_or(key);
    rest.split_once('/').map_or_else(|| ObjectKey::new("", rest), |(namespace, name)| ObjectKey::new(namespace, name))
}
