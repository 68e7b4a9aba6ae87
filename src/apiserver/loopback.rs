//! The API server as a reader and a client of itself.
//!
//! Owns: the two doors of `objects`, opened onto the store and the pipeline.
//! Called by: authentication, authorization, admission, bootstrap.
//! Never: goes through a socket.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use futures::StreamExt;
use http::{Method, Request, header};
use minik_api::{ResourceId, Status, registry};
use minik_store::{EventKind, Range, Store};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::authn::{Peer, UserInfo};
use crate::catalog::Catalog;
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
    pub store: Store,
    pub catalog: Arc<Catalog>,
    pub stopping: CancellationToken,
}

impl Objects for StoredObjects {
    fn get(&self, resource: ResourceId, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let table = self.catalog.now();
        let served = table.by_id(resource)?;
        let entry = self.store.get(&served.key(namespace, name))?;
        Some(Arc::new(reply::served_tree(served, &entry)))
    }

    fn list(&self, resource: ResourceId, namespace: &str) -> Vec<Arc<Value>> {
        let table = self.catalog.now();
        let Some(served) = table.by_id(resource) else { return Vec::new() };
        let prefix = served.prefix(namespace);
        let page = self.store.range(&Range { prefix: &prefix, ..Range::default() });
        let entries = page.map(|p| p.entries).unwrap_or_default();
        entries.iter().map(|e| Arc::new(reply::served_tree(served, e))).collect()
    }

    fn list_kind(&self, api_version: &str, kind: &str, namespace: &str) -> Option<KindList> {
        let (group, version) = registry::split_api_version(api_version);
        let table = self.catalog.now();
        let served = table.by_kind(group, version, kind)?;
        let namespaced = served.row.is_namespaced();
        let prefix = served.prefix(if namespaced { namespace } else { "" });
        let page = self.store.range(&Range { prefix: &prefix, ..Range::default() });
        let entries = page.map(|p| p.entries).unwrap_or_default();
        let objects = entries.iter().map(|e| Arc::new(reply::served_tree(served, e))).collect();
        Some(KindList { namespaced, objects })
    }

    fn follow(&self, resource: ResourceId) -> Follow {
        let nothing = Follow { initial: Vec::new(), changes: futures::stream::empty().boxed() };
        let table = self.catalog.now();
        let Some(served) = table.by_id(resource).cloned() else { return nothing };
        let prefix = served.prefix("");
        let Ok(page) = self.store.range(&Range { prefix: &prefix, ..Range::default() }) else { return nothing };
        let Ok(watch) = self.store.watch(&prefix, page.revision) else { return nothing };
        let initial = page.entries.iter().map(|e| Arc::new(reply::served_tree(&served, e))).collect();
        let stopping = self.stopping.clone();
        let batches = futures::stream::unfold(watch, |mut watch| async move {
            let batch = watch.next().await.ok()?;
            Some((futures::stream::iter(batch.events), watch))
        });
        let changes = batches.flatten().map(move |event| {
            let tree = Arc::new(reply::served_tree(&served, &event.entry));
            if event.kind == EventKind::Delete { Change::Delete(tree) } else { Change::Put(tree) }
        });
        Follow { initial, changes: changes.take_until(stopping.cancelled_owned()).boxed() }
    }
}
