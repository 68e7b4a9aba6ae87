//! The API's verbs on untyped objects.
//!
//! Owns: paths, query strings, content types, and turning an answer into an object or a `Status`.
//! Called by: everything that reads or writes objects.
//! Never: caches an object or knows what one means.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use minik_api::{ResourceId, Status};
use serde_json::Value;
use tokio::sync::Notify;

use crate::error::{ConfigError, DecodeError, Error, TransportError};
use crate::kubeconfig::Kubeconfig;
use crate::params::{DeleteParams, List, ListParams, Patch, Query, WatchParams};
use crate::remote::Remote;
use crate::transport::{Body, Transport};
use crate::watch::WatchStream;

/// No single answer may be larger; a LIST of 150,000 Pods is ~400 MB, and caches page.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// Until the head of an answer is there. Longer than the API server's own 60 s limit for ordinary requests.
const ANSWER_SECONDS_MAX: u64 = 65;
/// A server that is full says so with 429 and Retry-After; client-go tries as often.
const RETRIES_MAX: u32 = 10;
const RETRY_AFTER_SECONDS_MAX: u64 = 30;
/// What client-go's pager asks for: keeps one answer in the tens of megabytes.
const PAGE_ITEMS: u32 = 500;
/// Plain JSON is the fallback for servers that cannot transform.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
const USER_AGENT: &str = concat!("minik/", env!("CARGO_PKG_VERSION"));

#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    outage: Arc<Outage>,
}

/// Whether the API server was last found reachable, shared by all clones of a client: the first request that gets
/// through after an outage wakes everybody who backs off because of it.
#[derive(Default)]
struct Outage {
    down: AtomicBool,
    over: Notify,
}

impl Client {
    pub fn new(transport: Arc<dyn Transport>) -> Client {
        Client { transport, outage: Arc::default() }
    }

    /// Waits for so long after a failure, but no longer than until the API server is reached again.
    pub async fn back_off(&self, wait: Duration) {
        let over = self.outage.over.notified();
        if self.outage.down.load(Ordering::Acquire) {
            tokio::select! {
                () = over => {}
                () = tokio::time::sleep(wait) => {}
            }
        } else {
            tokio::time::sleep(wait).await;
        }
    }

    async fn transmit(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
        let result = match tokio::time::timeout(limit, self.transport.send(request)).await {
            Ok(result) => result,
            Err(_) => Err(TransportError::Timeout { seconds: ANSWER_SECONDS_MAX }),
        };
        if result.is_err() {
            self.outage.down.store(true, Ordering::Release);
        } else if self.outage.down.swap(false, Ordering::AcqRel) {
            self.outage.over.notify_waiters();
        }
        result
    }

    /// Reads the current context of a kubeconfig: TLS with a client certificate or a token.
    pub fn from_kubeconfig(path: &Path) -> Result<Client, ConfigError> {
        let endpoint = Kubeconfig::read(path)?.endpoint("")?;
        Ok(Client::new(Arc::new(Remote::new(endpoint)?)))
    }

    /// `namespace` is empty for cluster scope.
    pub async fn get(&self, r: ResourceId, namespace: &str, name: &str) -> Result<Value, Error> {
        self.object(Method::GET, object_path(r, namespace, name, ""), None).await
    }

    /// `namespace` empty lists all namespaces. Items carry `apiVersion` and `kind`, which the server leaves out.
    pub async fn list(&self, r: ResourceId, namespace: &str, p: &ListParams) -> Result<List, Error> {
        self.list_as(r, namespace, p, "application/json").await
    }

    /// Only the `metadata` of each object.
    pub async fn list_metadata(&self, r: ResourceId, namespace: &str, p: &ListParams) -> Result<List, Error> {
        self.list_as(r, namespace, p, METADATA_LIST).await
    }

    /// All of them a page after the other, so that no answer is large; the version of the list.
    pub(crate) async fn list_pages(
        &self,
        r: ResourceId,
        namespace: &str,
        mut params: ListParams,
        metadata_only: bool,
        mut each: impl FnMut(Vec<Value>),
    ) -> Result<String, Error> {
        let accept = if metadata_only { METADATA_LIST } else { "application/json" };
        params.limit = PAGE_ITEMS;
        loop {
            let page = self.list_as(r, namespace, &params, accept).await?;
            each(page.items);
            if page.continue_token.is_empty() {
                return Ok(page.resource_version);
            }
            params.continue_token = page.continue_token;
        }
    }

    async fn list_as(&self, r: ResourceId, namespace: &str, p: &ListParams, accept: &str) -> Result<List, Error> {
        let query = Query::default()
            .add("labelSelector", &p.label_selector)
            .add("fieldSelector", &p.field_selector)
            .number("limit", p.limit)
            .add("continue", &p.continue_token)
            .add("resourceVersion", &p.resource_version)
            .finish();
        let request = build(Method::GET, collection_path(r, namespace) + &query, accept, None)?;
        Ok(into_list(self.answer(request).await?))
    }

    pub async fn watch(&self, r: ResourceId, namespace: &str, p: &WatchParams) -> Result<WatchStream, Error> {
        let query = Query::default()
            .flag("watch", true)
            .add("labelSelector", &p.label_selector)
            .add("fieldSelector", &p.field_selector)
            .add("resourceVersion", &p.resource_version)
            .flag("allowWatchBookmarks", p.bookmarks || p.send_initial_events)
            .flag("sendInitialEvents", p.send_initial_events)
            .add("resourceVersionMatch", if p.send_initial_events { "NotOlderThan" } else { "" })
            .number("timeoutSeconds", p.timeout_seconds)
            .finish();
        let accept = if p.metadata_only { METADATA } else { "application/json" };
        let request = build(Method::GET, collection_path(r, namespace) + &query, accept, None)?;
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(failure(response).await);
        }
        Ok(WatchStream::new(response.into_body()))
    }

    pub async fn create(&self, r: ResourceId, namespace: &str, body: &Value) -> Result<Value, Error> {
        self.object(Method::POST, collection_path(r, namespace), Some(("application/json", body))).await
    }

    pub async fn update(&self, r: ResourceId, namespace: &str, name: &str, body: &Value) -> Result<Value, Error> {
        let path = object_path(r, namespace, name, "");
        self.object(Method::PUT, path, Some(("application/json", body))).await
    }

    pub async fn update_status(
        &self,
        r: ResourceId,
        namespace: &str,
        name: &str,
        body: &Value,
    ) -> Result<Value, Error> {
        self.update_sub(r, namespace, name, "status", body).await
    }

    pub async fn update_sub(
        &self,
        r: ResourceId,
        namespace: &str,
        name: &str,
        sub: &str,
        body: &Value,
    ) -> Result<Value, Error> {
        let path = object_path(r, namespace, name, sub);
        self.object(Method::PUT, path, Some(("application/json", body))).await
    }

    /// `sub` is a subresource or empty.
    pub async fn patch(
        &self,
        r: ResourceId,
        namespace: &str,
        name: &str,
        sub: &str,
        p: &Patch,
    ) -> Result<Value, Error> {
        let mut path = object_path(r, namespace, name, sub);
        if let Patch::Apply { manager, force, .. } = p {
            path += &Query::default().add("fieldManager", manager).flag("force", *force).finish();
        }
        self.object(Method::PATCH, path, Some((p.media_type(), p.body()))).await
    }

    /// Posts to a subresource: `binding`, `eviction`, `token`.
    pub async fn create_sub(
        &self,
        r: ResourceId,
        namespace: &str,
        name: &str,
        sub: &str,
        body: &Value,
    ) -> Result<Value, Error> {
        self.object(Method::POST, object_path(r, namespace, name, sub), Some(("application/json", body))).await
    }

    /// Answers with the object as it now stands, or with a `Status` when it is gone.
    pub async fn delete(&self, r: ResourceId, namespace: &str, name: &str, p: &DeleteParams) -> Result<Value, Error> {
        let path = object_path(r, namespace, name, "");
        self.object(Method::DELETE, path, Some(("application/json", &p.to_json()))).await
    }

    pub async fn delete_collection(
        &self,
        r: ResourceId,
        namespace: &str,
        selection: &ListParams,
        p: &DeleteParams,
    ) -> Result<(), Error> {
        let query = Query::default()
            .add("labelSelector", &selection.label_selector)
            .add("fieldSelector", &selection.field_selector)
            .finish();
        let path = collection_path(r, namespace) + &query;
        self.object(Method::DELETE, path, Some(("application/json", &p.to_json()))).await.map(drop)
    }

    /// Any path of the API server, such as `/readyz` or `/apis`, read as JSON.
    pub async fn get_path(&self, path: &str) -> Result<Value, Error> {
        self.object(Method::GET, path.to_string(), None).await
    }

    /// Any request; the answer is handed over whatever its code. An `Upgrade` goes over HTTP/1.1.
    pub async fn request(&self, request: Request<Bytes>) -> Result<Response<Body>, Error> {
        Ok(self.transport.send(request).await?)
    }

    async fn object(&self, method: Method, path: String, body: Option<(&str, &Value)>) -> Result<Value, Error> {
        self.answer(build(method, path, "application/json", body)?).await
    }

    async fn answer(&self, request: Request<Bytes>) -> Result<Value, Error> {
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(failure(response).await);
        }
        let bytes = collect(response.into_body()).await?;
        Ok(serde_json::from_slice(&bytes).map_err(DecodeError::from)?)
    }

    /// Sends; waits as told and tries again while the server says it is full.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, Error> {
        let mut tries = 0;
        loop {
            let response = self.transmit(request.clone()).await?;
            let Some(seconds) = retry_after(&response).filter(|_| tries < RETRIES_MAX) else {
                return Ok(response);
            };
            tries += 1;
            tokio::time::sleep(Duration::from_secs(seconds.min(RETRY_AFTER_SECONDS_MAX))).await;
        }
    }
}

/// Only what was refused before anything was done: 429, and 5xx with a Retry-After.
fn retry_after(response: &Response<Body>) -> Option<u64> {
    let code = response.status();
    if code != StatusCode::TOO_MANY_REQUESTS && !code.is_server_error() {
        return None;
    }
    response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

fn build(
    method: Method,
    path: String,
    accept: &str,
    body: Option<(&str, &Value)>,
) -> Result<Request<Bytes>, TransportError> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, accept)
        .header(header::USER_AGENT, USER_AGENT);
    let mut bytes = Bytes::new();
    if let Some((media_type, value)) = body {
        request = request.header(header::CONTENT_TYPE, media_type);
        bytes = serde_json::to_vec(value).expect("a JSON tree can be written").into();
    }
    Ok(request.body(bytes)?)
}

async fn collect(mut body: Body) -> Result<Bytes, Error> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| TransportError::Receive { source })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if all.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(DecodeError::TooLarge { limit: ANSWER_BYTES_MAX }.into());
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

/// The `Status` in the body; where there is none (a proxy, a crash), one made from the code.
async fn failure(response: Response<Body>) -> Error {
    let code = response.status().as_u16();
    let bytes = match collect(response.into_body()).await {
        Ok(bytes) => bytes,
        Err(e) => return e,
    };
    match serde_json::from_slice::<Status>(&bytes) {
        Ok(status) if status.code != 0 => status.into(),
        _ => Status::new(code, "", String::from_utf8_lossy(&bytes).trim()).into(),
    }
}

pub(crate) fn collection_path(r: ResourceId, namespace: &str) -> String {
    let root =
        if r.group.is_empty() { format!("/api/{}", r.version) } else { format!("/apis/{}/{}", r.group, r.version) };
    if namespace.is_empty() {
        format!("{root}/{}", r.plural)
    } else {
        format!("{root}/namespaces/{namespace}/{}", r.plural)
    }
}

fn object_path(r: ResourceId, namespace: &str, name: &str, sub: &str) -> String {
    let mut path = collection_path(r, namespace);
    path.push('/');
    // Names of RBAC objects may hold `:`, which a path segment allows; `%` and `/` are in no name.
    path.push_str(name);
    if !sub.is_empty() {
        path.push('/');
        path.push_str(sub);
    }
    path
}

fn into_list(mut body: Value) -> List {
    let text = |v: &Value| v.as_str().unwrap_or("").to_string();
    let api_version = text(&body["apiVersion"]);
    let kind = text(&body["kind"]).trim_end_matches("List").to_string();
    let mut items = match body["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    for item in &mut items {
        if let Value::Object(map) = item {
            map.entry("apiVersion").or_insert_with(|| api_version.clone().into());
            map.entry("kind").or_insert_with(|| kind.clone().into());
        }
    }
    let metadata = &body["metadata"];
    List { resource_version: text(&metadata["resourceVersion"]), continue_token: text(&metadata["continue"]), items }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_follow_group_scope_and_subresource() {
        let pods = ResourceId::new("", "v1", "pods");
        let deployments = ResourceId::new("apps", "v1", "deployments");
        assert_eq!(collection_path(pods, ""), "/api/v1/pods");
        assert_eq!(object_path(pods, "a", "b", "binding"), "/api/v1/namespaces/a/pods/b/binding");
        assert_eq!(object_path(deployments, "a", "b", ""), "/apis/apps/v1/namespaces/a/deployments/b");
    }

    #[test]
    fn items_of_a_list_get_the_kind_the_server_left_out() {
        let list = into_list(json!({
            "apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7", "continue": "x"},
            "items": [{"metadata": {"name": "a"}}],
        }));
        assert_eq!(list.resource_version, "7");
        assert_eq!(list.continue_token, "x");
        assert_eq!(list.items[0]["kind"], "Pod");
        assert_eq!(list.items[0]["apiVersion"], "v1");
    }

    struct Switch(std::sync::Mutex<bool>);
    impl Transport for Switch {
        fn send(&self, _: Request<Bytes>) -> futures::future::BoxFuture<'_, Result<Response<Body>, TransportError>> {
            let on = *self.0.lock().unwrap();
            Box::pin(async move {
                if on {
                    Ok(Response::new(crate::transport::body_from_bytes("{}")))
                } else {
                    Err(TransportError::Timeout { seconds: 1 })
                }
            })
        }
    }

    #[tokio::test]
    async fn the_end_of_an_outage_ends_everybodys_waiting() {
        let switch = Arc::new(Switch(std::sync::Mutex::new(false)));
        let client = Client::new(switch.clone());
        assert!(client.get_path("/readyz").await.is_err());
        let waiting = client.clone();
        let waiting = tokio::spawn(async move { waiting.back_off(Duration::from_secs(3600)).await });
        tokio::task::yield_now().await;
        *switch.0.lock().unwrap() = true;
        client.get_path("/readyz").await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it was woken").unwrap();
    }
}
