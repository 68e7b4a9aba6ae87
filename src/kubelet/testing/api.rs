//! An API server of one map.
//!
//! Owns: lists, watches with field selectors, creates, status patches, graceful deletes.
//! Called by: this crate's tests.
//! Never: validates or defaults.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use minik_client::{Body, BoxError, Client, Transport, TransportError};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_stream::StreamExt;

type Key = (String, String, String);

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    revision: u64,
    history: Vec<(u64, &'static str, Key, Value)>,
}

pub struct FakeApi {
    state: Mutex<State>,
    changed: broadcast::Sender<()>,
}

impl FakeApi {
    pub fn new() -> Arc<FakeApi> {
        Arc::new(FakeApi { state: Mutex::default(), changed: broadcast::channel(1024).0 })
    }

    pub fn client(self: &Arc<Self>) -> Client {
        Client::new(Arc::new(Handle(self.clone())))
    }

    pub fn put(&self, plural: &str, object: Value) {
        let (ns, name) = (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
        self.write((plural.into(), ns, name), |_| Some(object));
    }

    pub fn get(&self, plural: &str, ns: &str, name: &str) -> Option<Value> {
        self.state.lock().objects.get(&(plural.into(), ns.into(), name.into())).cloned()
    }

    /// An object of a kind, once there is one.
    pub async fn wait_any(&self, plural: &str) -> Value {
        self.wait_other(plural, "").await
    }

    /// As `wait_any`, of another name than this.
    pub async fn wait_other(&self, plural: &str, name: &str) -> Value {
        let mut changes = self.changed.subscribe();
        let wait = async {
            loop {
                let found = self
                    .state
                    .lock()
                    .objects
                    .iter()
                    .find(|(k, _)| k.0 == plural && k.2 != name)
                    .map(|(_, v)| v.clone());
                if let Some(found) = found {
                    return found;
                }
                let _ = changes.recv().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.expect("one appears")
    }

    /// What a user's delete does: a deletion timestamp, which the kubelet has to answer.
    pub fn ask_to_delete(&self, ns: &str, name: &str, grace: i64) {
        self.write(("pods".into(), ns.into(), name.into()), |old| {
            let mut pod = old.expect("there").clone();
            let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(grace);
            pod["metadata"]["deletionTimestamp"] = at.to_string().into();
            pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
            Some(pod)
        });
    }

    /// Waits until the object satisfies the condition; panics with what it is instead.
    pub async fn wait(
        &self,
        plural: &str,
        ns: &str,
        name: &str,
        what: &str,
        condition: impl Fn(Option<&Value>) -> bool,
    ) {
        let mut changes = self.changed.subscribe();
        let wait = async {
            loop {
                if condition(self.get(plural, ns, name).as_ref()) {
                    return;
                }
                let _ = changes.recv().await;
            }
        };
        if tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.is_err() {
            let now = self.get(plural, ns, name).map(|o| format!("{:#}", o["status"]));
            panic!("{plural} {name} is not {what}: {}", now.unwrap_or("gone".into()));
        }
    }

    fn write(&self, key: Key, change: impl FnOnce(Option<&Value>) -> Option<Value>) -> Option<Value> {
        let mut state = self.state.lock();
        let old = state.objects.get(&key).cloned();
        state.revision += 1;
        let revision = state.revision;
        let mut new = change(old.as_ref());
        if let Some(object) = &mut new {
            object["metadata"]["resourceVersion"] = revision.to_string().into();
            state.objects.insert(key.clone(), object.clone());
            let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
            state.history.push((revision, kind, key, object.clone()));
        } else if let Some(mut gone) = old {
            state.objects.remove(&key);
            gone["metadata"]["resourceVersion"] = revision.to_string().into();
            state.history.push((revision, "DELETED", key, gone));
        }
        drop(state);
        let _ = self.changed.send(());
        new
    }

    fn answer(self: &Arc<Self>, request: Request<Bytes>) -> Response<Body> {
        let path = request.uri().path().to_string();
        let query: BTreeMap<String, String> = request
            .uri()
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|p| p.split_once('='))
            .map(|(k, v)| (k.to_string(), v.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/")))
            .collect();
        let mut parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        parts.drain(..if parts[0] == "api" { 2 } else { 3 });
        let namespace =
            if parts[0] == "namespaces" && parts.len() > 2 { parts.drain(..2).nth(1).expect("two") } else { "" };
        let key = (parts[0].to_string(), namespace.to_string(), parts.get(1).unwrap_or(&"").to_string());
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        match (request.method(), parts.get(2)) {
            (&Method::POST, Some(&"token")) => respond(201, &json!({"status": {"token": "t0k3n"}})),
            (&Method::POST, _) => {
                let mut body = body;
                if let Some(prefix) = body["metadata"]["generateName"].as_str() {
                    body["metadata"]["name"] = format!("{prefix}{}", self.state.lock().revision).into();
                }
                let key = (key.0, key.1, text(&body["metadata"]["name"]));
                respond(201, &self.write(key, |_| Some(body)).expect("written"))
            }
            (&Method::GET, _) if key.2.is_empty() && query.contains_key("watch") => self.watch(key, &query),
            (&Method::GET, _) if key.2.is_empty() => self.list(key, &query),
            (&Method::PATCH, _) => self.patch(key, body),
            (&Method::DELETE, _) => match self.get(&key.0, &key.1, &key.2) {
                Some(object) => {
                    self.write(key, |_| None);
                    respond(200, &object)
                }
                None => missing(),
            },
            _ => self.get(&key.0, &key.1, &key.2).map_or_else(missing, |o| respond(200, &o)),
        }
    }

    fn patch(&self, key: Key, body: Value) -> Response<Body> {
        if self.get(&key.0, &key.1, &key.2).is_none() {
            return missing();
        }
        let new = self.write(key, |old| {
            let mut object = old.expect("checked").clone();
            merge(&mut object, &body);
            Some(object)
        });
        respond(200, &new.expect("written"))
    }

    fn list(&self, key: Key, query: &BTreeMap<String, String>) -> Response<Body> {
        let state = self.state.lock();
        let items: Vec<&Value> =
            state.objects.iter().filter(|(k, v)| selected(k, v, &key, query)).map(|(_, v)| v).collect();
        respond(
            200,
            &json!({"kind": "List", "metadata": {"resourceVersion": state.revision.to_string()}, "items": items}),
        )
    }

    fn watch(self: &Arc<Self>, key: Key, query: &BTreeMap<String, String>) -> Response<Body> {
        let from: u64 = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let (out, lines) = tokio::sync::mpsc::unbounded_channel();
        let (api, query) = (self.clone(), query.clone());
        tokio::spawn(async move {
            let mut changes = api.changed.subscribe();
            let mut seen = from;
            loop {
                let fresh: Vec<Value> = {
                    let state = api.state.lock();
                    let new = state.history.iter().filter(|(r, _, k, v)| *r > seen && selected(k, v, &key, &query));
                    let lines = new.map(|(_, kind, _, v)| json!({"type": kind, "object": v})).collect();
                    seen = seen.max(state.revision);
                    lines
                };
                for line in fresh {
                    if out.send(Ok(Frame::data(Bytes::from(format!("{line}\n"))))).is_err() {
                        return;
                    }
                }
                tokio::select! {
                    _ = changes.recv() => {}
                    () = out.closed() => return,
                }
            }
        });
        let lines = tokio_stream::wrappers::UnboundedReceiverStream::new(lines).map(|l: Result<_, BoxError>| l);
        Response::new(StreamBody::new(lines).boxed_unsync())
    }
}

fn selected(k: &Key, object: &Value, asked: &Key, query: &BTreeMap<String, String>) -> bool {
    let fields = query.get("fieldSelector").map_or("", String::as_str);
    let field = |(path, value): (&str, &str)| {
        let found = path.split('.').fold(object, |v, part| &v[part]);
        found.as_str() == Some(value)
    };
    k.0 == asked.0
        && (asked.1.is_empty() || k.1 == asked.1)
        && fields.split(',').filter_map(|f| f.split_once('=')).all(field)
}

/// Objects by field, conditions by type, other lists whole: the part of a strategic merge the kubelet relies on.
fn merge(into: &mut Value, patch: &Value) {
    let (Some(into), Some(patch)) = (into.as_object_mut(), patch.as_object()) else { return };
    for (name, value) in patch {
        match (name.as_str(), value) {
            (_, Value::Null) => {
                into.remove(name);
            }
            ("conditions", Value::Array(new)) => {
                let list = into.entry(name.clone()).or_insert_with(|| json!([])).as_array_mut().expect("a list");
                for condition in new {
                    if condition["$patch"] == "delete" {
                        list.retain(|c| c["type"] != condition["type"]);
                        continue;
                    }
                    match list.iter_mut().find(|c| c["type"] == condition["type"]) {
                        Some(old) => merge(old, condition),
                        None => list.push(condition.clone()),
                    }
                }
            }
            (_, Value::Array(new)) => {
                let kept: Vec<Value> = new.iter().filter(|v| v.get("$patch").is_none()).cloned().collect();
                into.insert(name.clone(), kept.into());
            }
            (_, Value::Object(_)) if into.get(name).is_some_and(Value::is_object) => {
                merge(into.get_mut(name).expect("there"), value);
            }
            _ => {
                into.insert(name.clone(), value.clone());
            }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().into()
}

fn respond(code: u16, body: &Value) -> Response<Body> {
    let body = minik_client::body_from_bytes(body.to_string());
    Response::builder().status(code).header("content-type", "application/json").body(body).expect("valid")
}

fn missing() -> Response<Body> {
    respond(404, &minik_api::Status::not_found("things", "it").to_json())
}

struct Handle(Arc<FakeApi>);

impl Transport for Handle {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, TransportError>> {
        Box::pin(async { Ok(self.0.answer(request)) })
    }
}
