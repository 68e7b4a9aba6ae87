//! An API server for one test.
//!
//! Owns: building it on a store in memory, and saying requests shortly.
//! Called by: every test of this package.
//! Never: hides an answer's code.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::Request;
use http_body_util::BodyExt;
use minik_apiserver::body::{self, Body};
use minik_apiserver::{ApiServer, Config, UserInfo};
use minik_client::{Transport, TransportError, body_from_bytes};
use minik_store::Store;
use serde_json::Value;

#[derive(Clone)]
pub struct Server(pub Arc<ApiServer>);

pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Server {
    pub async fn start() -> Self {
        Self(ApiServer::build(Config::new(Store::memory())).await.expect("an API server on an empty store"))
    }

    /// With more than the defaults.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(Store::memory());
        change(&mut config);
        Self(ApiServer::build(config).await.expect("an API server on an empty store"))
    }

    pub fn request(method: &str, path: &str, headers: &[(&str, &str)], content: &str) -> Request<Body> {
        let mut builder = Request::builder().method(method).uri(path);
        for (key, value) in headers {
            builder = builder.header(*key, *value);
        }
        let admin = UserInfo::new("admin", &["system:masters", "system:authenticated"]);
        builder.extension(admin).body(body::full(content.to_string())).expect("a request")
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], content: &str) -> Answer {
        self.answer(Self::request(method, path, headers, content)).await
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.0.handle(request).await.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body =
            serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
        Answer { code: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// As `send`, but who asks is only what the headers say.
    pub async fn send_as_nobody(&self, method: &str, path: &str, headers: &[(&str, &str)], content: &str) -> Answer {
        let mut request = Self::request(method, path, headers, content);
        request.extensions_mut().clear();
        self.answer(request).await
    }

    /// For a client whose requests come from `user`.
    pub fn transport(&self, user: &UserInfo) -> InProcess {
        InProcess { server: self.0.clone(), user: Arc::new(user.clone()) }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }
    pub async fn post(&self, path: &str, content: &Value) -> Answer {
        self.send("POST", path, &[], &content.to_string()).await
    }
    /// Makes a definition, and waits until its objects are served.
    pub async fn define(&self, definition: &Value) {
        const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        self.post(DEFINITIONS, definition).await.ok();
        let mut events = self.watch(&format!("{DEFINITIONS}?watch=1")).await;
        loop {
            let event = events.next().await.expect("the definition is settled");
            let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
                return;
            }
        }
    }
    pub async fn put(&self, path: &str, content: &Value) -> Answer {
        self.send("PUT", path, &[], &content.to_string()).await
    }
    pub async fn patch(&self, kind: &str, path: &str, content: &Value) -> Answer {
        let media = match kind {
            "apply" => "application/apply-patch+yaml".to_string(),
            other => format!("application/{other}-patch+json"),
        };
        self.send("PATCH", path, &[("content-type", &media)], &content.to_string()).await
    }
    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], "").await
    }

    pub async fn watch(&self, path: &str) -> Events {
        self.watch_as(path, &[]).await
    }

    pub async fn watch_as(&self, path: &str, headers: &[(&str, &str)]) -> Events {
        let response = self.0.handle(Self::request("GET", path, headers, "")).await;
        assert_eq!(response.status(), 200);
        Events { body: response.into_body(), pending: Vec::new() }
    }
}

pub struct InProcess {
    server: Arc<ApiServer>,
    user: Arc<UserInfo>,
}

impl Transport for InProcess {
    fn send(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<minik_client::Body>, TransportError>> {
        let mut request = request.map(body_from_bytes);
        request.extensions_mut().insert(self.user.clone());
        async move { Ok(self.server.handle(request).await) }.boxed()
    }
}

impl Answer {
    /// The body of a request that must succeed.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.code < 300, "{} {}", self.code, self.body);
        self.body
    }
    /// Code, reason and message of one that must fail.
    #[track_caller]
    pub fn refusal(&self) -> String {
        assert!(self.code >= 400, "{} {}", self.code, self.body);
        let text = |field: &str| self.body[field].as_str().unwrap_or("").to_string();
        format!("{} {}: {}", self.code, text("reason"), text("message"))
    }
}

/// The events of a watch, one after the other.
pub struct Events {
    body: Body,
    pending: Vec<u8>,
}

impl Events {
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.pending.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("an event"));
            }
            let limit = std::time::Duration::from_secs(10);
            let frame = tokio::time::timeout(limit, self.body.frame()).await.expect("an event within ten seconds")?;
            let data: Bytes = frame.expect("a frame").into_data().expect("data");
            self.pending.extend_from_slice(&data);
        }
    }

    /// `ADDED name`, `MODIFIED name`, ...
    pub async fn line(&mut self) -> String {
        let Some(event) = self.next().await else { return "end".into() };
        format!(
            "{} {}",
            event["type"].as_str().unwrap_or("?"),
            event["object"]["metadata"]["name"].as_str().unwrap_or("")
        )
    }
}

/// Several requests at once.
pub async fn all<F: Future>(requests: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    futures::stream::iter(requests).buffer_unordered(32).collect().await
}
