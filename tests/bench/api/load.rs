//! What is asked of an API server, and how long it takes to answer.
//!
//! Owns: the objects, the requests in flight, and the clock.
//! Called by: `main`, in the same order for both servers.
//! Never: knows which server answers.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use minik_api::resources::PODS as PODS_RESOURCE;
use minik_client::{Cache, Client, Tasks, Wait};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::server::Server;

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const JSON: &str = "application/json";
/// What the schedulers get.
pub const NODES: usize = 1_000;
pub const PODS_TO_BIND: usize = 5_000;
const BIND_LIMIT: Duration = Duration::from_secs(180);
const IN_FLIGHT: usize = 64;

pub async fn send(client: &Client, method: &str, path: &str, accept: &str, body: Bytes) -> Result<Bytes> {
    let request = http::Request::builder().method(method).uri(path).header("accept", accept);
    let request = request.header("content-type", "application/json").body(body)?;
    let response = client.request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|e| anyhow::anyhow!("{e}"))?.to_bytes();
    ensure!(status.is_success(), "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
    Ok(body)
}

pub fn config_map() -> Bytes {
    let data: serde_json::Map<String, Value> = (0..4).map(|i| (format!("key-{i}"), "x".repeat(100).into())).collect();
    json!({"metadata": {"generateName": "bench-"}, "data": data}).to_string().into()
}

/// About what a Deployment's Pod looks like: 2.4 kB once it is stored.
pub fn pod() -> Bytes {
    let env: Vec<Value> =
        (0..8).map(|i| json!({"name": format!("VARIABLE_{i}"), "value": "a value of some length"})).collect();
    json!({
        "metadata": {"generateName": "bench-", "labels": {"app": "bench", "tier": "web"}, "annotations": {"note": "n".repeat(100)}},
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "web", "image": "example.com/web:1", "env": env, "ports": [{"containerPort": 8080}],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
            }],
        },
    })
    .to_string()
    .into()
}

/// Which every Pod has, and which no controller makes here.
pub async fn account(client: &Client) -> Result<()> {
    let body = Bytes::from_static(br#"{"metadata": {"name": "default"}}"#);
    send(client, "POST", "/api/v1/namespaces/default/serviceaccounts", JSON, body).await.map(|_| ())
}

/// As a kubelet registers it, and nothing to keep it ready.
fn node() -> Bytes {
    let amounts = json!({"cpu": "32", "memory": "64Gi", "pods": "110"});
    let ready = json!({"type": "Ready", "status": "True"});
    json!({
        "metadata": {"generateName": "node-"},
        "status": {"capacity": amounts, "allocatable": amounts, "conditions": [ready]},
    })
    .to_string()
    .into()
}

/// Admission taints what no controller has called ready.
fn pod_to_bind() -> Bytes {
    let mut pod: Value = serde_json::from_slice(&pod()).expect("it was made from a value");
    pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    pod.to_string().into()
}

/// Pods a second that the way's scheduler binds through the way's API server, all on this machine's cores.
pub async fn schedule(server: &Server) -> Result<f64> {
    let client = &server.client;
    account(client).await?;
    creates(client, "/api/v1/nodes", node(), NODES, IN_FLIGHT).await?;
    creates(client, PODS, pod_to_bind(), PODS_TO_BIND, IN_FLIGHT).await?;
    let tasks = Tasks::new(CancellationToken::new());
    let unbound = Cache::builder(client.clone()).watch_selected(PODS_RESOURCE, "spec.nodeName=", "").start(&tasks);
    unbound.synced().await;
    let begun = Instant::now();
    let mut scheduler = server.scheduler().stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let met = unbound.wait_for(BIND_LIMIT, |view| view.list(PODS_RESOURCE, "default").next().is_none()).await;
    let took = begun.elapsed();
    scheduler.kill()?;
    scheduler.wait()?;
    tasks.token().cancel();
    ensure!(met == Wait::Met, "Pods were not bound within {BIND_LIMIT:?}");
    Ok(PODS_TO_BIND as f64 / took.as_secs_f64())
}

/// How fast many requests were answered.
#[derive(Clone, Default)]
pub struct Pace {
    times: Vec<Duration>,
    took: Duration,
}

impl Pace {
    pub fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64()
    }

    pub fn p99_ms(&self) -> f64 {
        percentile(self.times.clone(), 99)
    }

    /// Others that were sent later.
    pub fn join(&mut self, later: Pace) {
        self.times.extend(later.times);
        self.took += later.took;
    }
}

/// The value below which so many of a hundred lie, in milliseconds.
pub fn percentile(mut times: Vec<Duration>, of_hundred: usize) -> f64 {
    times.sort();
    let at = (times.len() * of_hundred / 100).min(times.len().saturating_sub(1));
    times.get(at).map_or(0.0, |t| t.as_secs_f64() * 1e3)
}

/// What is sent.
struct Ask {
    method: &'static str,
    path: String,
    body: Bytes,
}

/// `ask(0)`, `ask(1)`, ... with so many of them in flight. In a task, beside the client's connections: outside of one each
/// request would wake another thread, and its answer this one.
async fn paced(
    client: &Client,
    count: usize,
    in_flight: usize,
    ask: impl Fn(usize) -> Ask + Send + 'static,
) -> Result<Pace> {
    let client = client.clone();
    let timed = move |index| {
        let (client, Ask { method, path, body }) = (client.clone(), ask(index));
        async move {
            let sent = Instant::now();
            send(&client, method, &path, JSON, body).await.map(|_| sent.elapsed())
        }
    };
    let begun = Instant::now();
    let times = futures::stream::iter(0..count).map(timed).buffer_unordered(in_flight).try_collect();
    let times: Vec<Duration> = tokio::spawn(times).await??;
    Ok(Pace { times, took: begun.elapsed() })
}

pub async fn creates(client: &Client, path: &str, body: Bytes, count: usize, in_flight: usize) -> Result<Pace> {
    let path = path.to_string();
    paced(client, count, in_flight, move |_| Ask { method: "POST", path: path.clone(), body: body.clone() }).await
}

/// Replaces these objects in turn, each time by other contents; `before` is how often that was done already.
pub async fn updates(client: &Client, names: &[String], before: usize, count: usize, in_flight: usize) -> Result<Pace> {
    let names = names.to_vec();
    let replace = move |index: usize| {
        let index = before + index;
        let name = &names[index % names.len()];
        let body = json!({"metadata": {"name": name}, "data": {"round": index.to_string(), "rest": "x".repeat(400)}});
        Ask { method: "PUT", path: format!("{CONFIG_MAPS}/{name}"), body: body.to_string().into() }
    };
    paced(client, count, in_flight, replace).await
}

pub async fn gets(client: &Client, path: &str, count: usize) -> Result<Pace> {
    let path = path.to_string();
    paced(client, count, IN_FLIGHT, move |_| Ask { method: "GET", path: path.clone(), body: Bytes::new() }).await
}

/// The names of some objects of a collection.
pub async fn names(client: &Client, path: &str, count: usize) -> Result<Vec<String>> {
    let page = send(client, "GET", &format!("{path}?limit={count}"), JSON, Bytes::new()).await?;
    let page: Value = serde_json::from_slice(&page)?;
    let items = page["items"].as_array().context("a list")?;
    Ok(items.iter().filter_map(|item| item["metadata"]["name"].as_str().map(String::from)).collect())
}

/// How many bytes answer a GET; nobody keeps them.
async fn drain(client: Client, request: http::Request<Bytes>) -> Result<usize> {
    let path = request.uri().path().to_string();
    let response = client.request(request).await?;
    ensure!(response.status().is_success(), "GET {path}: {}", response.status());
    let (mut body, mut bytes) = (response.into_body(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| anyhow::anyhow!("{e}"))?;
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    Ok(bytes)
}

/// How long it takes to the last byte, and how many bytes there are.
pub async fn read(client: &Client, path: &str, accept: &str) -> Result<(Duration, usize)> {
    let request = http::Request::builder().uri(path).header("accept", accept).body(Bytes::new())?;
    let begun = Instant::now();
    // In a task, as `paced`.
    let bytes = tokio::spawn(drain(client.clone(), request)).await??;
    ensure!(bytes > 1000, "GET {path}: an empty list");
    Ok((begun.elapsed(), bytes))
}
