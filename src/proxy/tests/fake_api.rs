//! An API server of a few lines: lists and watches objects that a test sets.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use minik_client::{Body, Client, Transport, TransportError, body_from_bytes};
use serde_json::{Value, json};
use tokio::sync::mpsc;

#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    revision: u64,
    /// plural -> namespace/name -> object
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    /// plural, and where its events go
    watchers: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
}

impl FakeApi {
    pub fn client(&self) -> Client {
        Client::new(Arc::new(self.clone()))
    }

    /// Creates or changes an object; `spec` is the whole object but for its metadata.
    pub fn set(&self, plural: &str, namespace: &str, name: &str, labels: Value, mut object: Value) {
        let mut state = self.0.lock().expect("no panic while locked");
        state.revision += 1;
        object["metadata"] = json!({
            "name": name, "uid": format!("{plural}-{name}"), "labels": labels, "resourceVersion": state.revision.to_string(),
        });
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let key = format!("{namespace}/{name}");
        let known = state.objects.entry(plural.to_owned()).or_default().insert(key, object.clone());
        state.tell(plural, if known.is_some() { "MODIFIED" } else { "ADDED" }, &object);
    }

    #[allow(dead_code, reason = "not every test that includes this file deletes")]
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let mut state = self.0.lock().expect("no panic while locked");
        state.revision += 1;
        let revision = state.revision.to_string();
        let gone = state.objects.get_mut(plural).and_then(|all| all.remove(&format!("{namespace}/{name}")));
        if let Some(mut object) = gone {
            object["metadata"]["resourceVersion"] = json!(revision);
            state.tell(plural, "DELETED", &object);
        }
    }
}

impl State {
    fn tell(&mut self, plural: &str, kind: &str, object: &Value) {
        let line = Bytes::from(format!("{}\n", json!({"type": kind, "object": object})));
        self.watchers.retain(|(watched, sender)| watched != plural || sender.send(line.clone()).is_ok());
    }
}

impl Transport for FakeApi {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>, TransportError>> {
        let plural = request.uri().path().rsplit('/').next().expect("a path").to_owned();
        let query = request.uri().query().unwrap_or("").to_owned();
        let mut state = self.0.lock().expect("no panic while locked");
        let body = if query.contains("watch=") {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            // What changed since the list is told again; a cache ignores what it knows.
            for object in state.objects.get(&plural).into_iter().flat_map(BTreeMap::values) {
                let _ = sender.send(Bytes::from(format!("{}\n", json!({"type": "MODIFIED", "object": object}))));
            }
            state.watchers.push((plural, sender));
            let frames = futures::stream::poll_fn(move |context| {
                receiver.poll_recv(context).map(|line| line.map(|line| Ok::<_, Infallible>(Frame::data(line))))
            });
            StreamBody::new(frames).map_err(|never| match never {}).boxed_unsync()
        } else {
            let items: Vec<&Value> = state.objects.get(&plural).into_iter().flat_map(BTreeMap::values).collect();
            let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": state.revision.to_string()}, "items": items});
            body_from_bytes(list.to_string())
        };
        let response = http::Response::builder().header("content-type", "application/json").body(body);
        Box::pin(std::future::ready(Ok(response.expect("a plain response"))))
    }
}
