//! The API server by itself beside kube-apiserver + etcd, in one run: start, writes, reads, lists, memory.
//!
//! Owns: the load, and how each of the two is started. Both get the same client, the same bodies and one HTTP/2
//! connection over TLS; upstream's limits on requests in flight are raised so that they do not count.
//! Called by: `scripts/bench api`, with a release build. Upstream's column needs `tests/upstream/build`.
//! Never: judges; it prints the ratio and the promise.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use minik_api::resources::PODS as PODS_RESOURCE;
use minik_client::{Cache, Client, Tasks, Wait};
use tokio_util::sync::CancellationToken;

const PODS: usize = 10_000;
const GETS: usize = 5_000;
const ROUNDS: usize = 5;
/// In flight, and how many ConfigMaps are made then.
const CREATES: [(usize, usize); 3] = [(1, 400), (16, 4_000), (256, 8_000)];
const POD_CREATES_IN_FLIGHT: usize = 64;
/// What the schedulers get.
const NODES: usize = 1_000;
const PODS_TO_BIND: usize = 5_000;
const BIND_LIMIT: Duration = Duration::from_secs(180);
const GETS_IN_FLIGHT: usize = 64;

enum Way {
    Minik(Child),
    Upstream,
}

struct Server {
    client: Client,
    ready: Duration,
    way: Way,
    folder: tempfile::TempDir,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie one folder below the root").to_path_buf()
}

impl Server {
    async fn minik() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let binary = std::env::var_os("MINIK").context("scripts/bench says where the binary is")?;
        let begun = Instant::now();
        let mut child = Command::new(binary)
            .args(["apiserver", "--secure-port", "0", "--data-dir"])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped above")?).read_line(&mut line)?;
        ensure!(line.contains("api ready"), "minik apiserver said: {line}");
        let client = Client::from_kubeconfig(&folder.path().join("admin.kubeconfig"))?;
        ready(&client).await?;
        Ok(Self { client, ready: begun.elapsed(), way: Way::Minik(child), folder })
    }

    /// `None` when upstream has not been built.
    async fn upstream() -> Result<Option<Self>> {
        if !root().join("target/upstream/bin/kube-apiserver").exists() {
            return Ok(None);
        }
        let begun = Instant::now();
        let output = reference("up")?;
        let client = Client::from_kubeconfig(Path::new(output.trim()))?;
        ready(&client).await?;
        Ok(Some(Self { client, ready: begun.elapsed(), way: Way::Upstream, folder: tempfile::tempdir()? }))
    }

    fn pids(&self) -> Vec<u32> {
        match &self.way {
            Way::Minik(child) => vec![child.id()],
            Way::Upstream => ["kube-apiserver", "etcd"]
                .iter()
                .filter_map(|p| std::fs::read_to_string(root().join(format!("target/upstream/run/bench/{p}.pid"))).ok())
                .filter_map(|p| p.trim().parse().ok())
                .collect(),
        }
    }

    /// The scheduler that belongs to it.
    fn scheduler(&self) -> Command {
        let (program, kubeconfig) = match &self.way {
            Way::Minik(_) => {
                let binary = std::env::var_os("MINIK").expect("it runs already");
                (PathBuf::from(binary), self.folder.path().join("scheduler.kubeconfig"))
            }
            Way::Upstream => (
                root().join("target/upstream/bin/kube-scheduler"),
                root().join("target/upstream/run/bench/scheduler.kubeconfig"),
            ),
        };
        let mut command = Command::new(program);
        if matches!(self.way, Way::Minik(_)) {
            command.arg("scheduler");
        } else {
            command.args(["--leader-elect=false", "--secure-port=0"]);
        }
        command.arg("--kubeconfig").arg(kubeconfig);
        command
    }

    fn rss_mb(&self) -> f64 {
        self.pids().iter().map(|pid| rss_kb(*pid) as f64 / 1e3).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        match &mut self.way {
            Way::Minik(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Way::Upstream => drop(reference("down")),
        }
    }
}

fn reference(verb: &str) -> Result<String> {
    let output = Command::new(root().join("scripts/reference"))
        .args([verb, "bench"])
        .env("WITHOUT", "kube-scheduler kube-controller-manager")
        .output()?;
    ensure!(output.status.success(), "scripts/reference {verb}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn rss_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

async fn send(client: &Client, method: &str, path: &str, accept: &str, body: Bytes) -> Result<Bytes> {
    let request = http::Request::builder().method(method).uri(path).header("accept", accept);
    let request = request.header("content-type", "application/json").body(body)?;
    let response = client.request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|e| anyhow::anyhow!("{e}"))?.to_bytes();
    ensure!(status.is_success(), "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
    Ok(body)
}

async fn ready(client: &Client) -> Result<()> {
    send(client, "GET", "/readyz", "*/*", Bytes::new()).await.map(|_| ())
}

fn config_map() -> Bytes {
    let data: serde_json::Map<String, serde_json::Value> =
        (0..4).map(|i| (format!("key-{i}"), "x".repeat(100).into())).collect();
    serde_json::json!({"metadata": {"generateName": "bench-"}, "data": data}).to_string().into()
}

/// About what a Deployment's Pod looks like: 2.4 kB once it is stored.
fn pod() -> Bytes {
    let env: Vec<serde_json::Value> = (0..8)
        .map(|i| serde_json::json!({"name": format!("VARIABLE_{i}"), "value": "a value of some length"}))
        .collect();
    serde_json::json!({
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
async fn account(client: &Client) -> Result<()> {
    let body = Bytes::from_static(br#"{"metadata": {"name": "default"}}"#);
    send(client, "POST", "/api/v1/namespaces/default/serviceaccounts", "application/json", body).await.map(|_| ())
}

/// As a kubelet registers it, and nothing to keep it ready.
fn node() -> Bytes {
    let amounts = serde_json::json!({"cpu": "32", "memory": "64Gi", "pods": "110"});
    let ready = serde_json::json!({"type": "Ready", "status": "True"});
    serde_json::json!({
        "metadata": {"generateName": "node-"},
        "status": {"capacity": amounts, "allocatable": amounts, "conditions": [ready]},
    })
    .to_string()
    .into()
}

/// Admission taints what no controller has called ready.
fn pod_to_bind() -> Bytes {
    let mut pod: serde_json::Value = serde_json::from_slice(&pod()).expect("it was made from a value");
    pod["spec"]["tolerations"] = serde_json::json!([{"operator": "Exists"}]);
    pod.to_string().into()
}

/// Pods a second that the way's scheduler binds through the way's API server, all on this machine's cores.
async fn schedule(server: &Server) -> Result<f64> {
    let client = &server.client;
    account(client).await?;
    creates(client, "/api/v1/nodes", node(), NODES, GETS_IN_FLIGHT).await?;
    creates(client, "/api/v1/namespaces/default/pods", pod_to_bind(), PODS_TO_BIND, POD_CREATES_IN_FLIGHT).await?;
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

/// Creates a second.
async fn creates(client: &Client, path: &str, body: Bytes, count: usize, in_flight: usize) -> Result<f64> {
    let begun = Instant::now();
    futures::stream::iter(0..count)
        .map(|_| send(client, "POST", path, "application/json", body.clone()))
        .buffer_unordered(in_flight)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

async fn gets(client: &Client, path: &str) -> Result<f64> {
    let begun = Instant::now();
    futures::stream::iter(0..GETS)
        .map(|_| send(client, "GET", path, "application/json", Bytes::new()))
        .buffer_unordered(GETS_IN_FLIGHT)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await?;
    Ok(GETS as f64 / begun.elapsed().as_secs_f64())
}

/// Median milliseconds to the last byte.
async fn list(client: &Client, query: &str, accept: &str) -> Result<f64> {
    let path = format!("/api/v1/namespaces/default/pods?{query}");
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let body = send(client, "GET", &path, accept, Bytes::new()).await?;
        ensure!(body.len() > 1000, "an empty list");
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[ROUNDS / 2])
}

/// Whether more is better.
#[derive(Clone, Copy)]
enum Unit {
    PerSecond,
    Milliseconds,
    Megabytes,
}

struct Row {
    what: String,
    unit: Unit,
    value: f64,
    promise: &'static str,
}

async fn measure(server: &Server) -> Result<Vec<Row>> {
    let client = &server.client;
    let mut rows = Vec::new();
    let mut row = |what: &str, unit, value, promise| rows.push(Row { what: what.into(), unit, value, promise });
    row("process start to /readyz", Unit::Milliseconds, server.ready.as_secs_f64() * 1e3, ">= 20x");
    row("RSS idle", Unit::Megabytes, server.rss_mb(), ">= 10x");
    let maps = "/api/v1/namespaces/default/configmaps";
    for (in_flight, count) in CREATES {
        let rate = creates(client, maps, config_map(), count, in_flight).await?;
        row(&format!("ConfigMap creates, {in_flight} in flight"), Unit::PerSecond, rate, ">= 5x");
    }
    account(client).await?;
    let pods = "/api/v1/namespaces/default/pods";
    let rate = creates(client, pods, pod(), PODS, POD_CREATES_IN_FLIGHT).await?;
    row(&format!("Pod creates, {POD_CREATES_IN_FLIGHT} in flight"), Unit::PerSecond, rate, ">= 5x");
    let first = send(client, "GET", &format!("{pods}?limit=1"), "application/json", Bytes::new()).await?;
    let first: serde_json::Value = serde_json::from_slice(&first)?;
    let name = first["items"][0]["metadata"]["name"].as_str().context("there are Pods")?.to_string();
    row("GET one Pod, 64 in flight", Unit::PerSecond, gets(client, &format!("{pods}/{name}")).await?, ">= 5x");
    let json = "application/json";
    let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    row("LIST 10,000 Pods, consistent", Unit::Milliseconds, list(client, "", json).await?, ">= 20x");
    row("LIST 10,000 Pods, rv=0", Unit::Milliseconds, list(client, "resourceVersion=0", json).await?, ">= 20x");
    row("LIST a page of 500", Unit::Milliseconds, list(client, "limit=500", json).await?, ">= 10x");
    let partial = list(client, "resourceVersion=0", metadata).await?;
    row("LIST 10,000 Pods, metadata only, rv=0", Unit::Milliseconds, partial, ">= 10x");
    row("RSS with 10,000 Pods and 12,400 ConfigMaps", Unit::Megabytes, server.rss_mb(), ">= 5x");
    Ok(rows)
}

async fn scheduling(server: &Server) -> Result<Row> {
    let what = format!("scheduling, {NODES} nodes, {PODS_TO_BIND} Pods");
    Ok(Row { what, unit: Unit::PerSecond, value: schedule(server).await?, promise: ">= 10x" })
}

fn shown(unit: Unit, value: f64) -> String {
    match unit {
        Unit::PerSecond => format!("{value:.0}/s"),
        Unit::Milliseconds => format!("{value:.1} ms"),
        Unit::Megabytes => format!("{value:.1} MB"),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // One after the other: side by side they would share the cores.
    let mut ours = measure(&Server::minik().await?).await.context("minik")?;
    ours.push(scheduling(&Server::minik().await?).await.context("minik")?);
    let mut theirs = None;
    if let Some(server) = Server::upstream().await? {
        let mut rows = measure(&server).await.context("upstream")?;
        drop(server);
        let fresh = Server::upstream().await?.context("upstream was there a moment ago")?;
        rows.push(scheduling(&fresh).await.context("upstream")?);
        theirs = Some(rows);
    }
    println!("{:<46} {:>12} {:>12} {:>8}  promise", "what", "minik", "upstream", "ratio");
    for (index, row) in ours.iter().enumerate() {
        let (other, ratio) = match theirs.as_ref().map(|t| &t[index]) {
            Some(other) => {
                let ratio = match row.unit {
                    Unit::PerSecond => row.value / other.value,
                    Unit::Milliseconds | Unit::Megabytes => other.value / row.value,
                };
                (shown(other.unit, other.value), format!("{ratio:.1}x"))
            }
            None => ("not built".into(), String::new()),
        };
        println!("{:<46} {:>12} {other:>12} {ratio:>8}  {}", row.what, shown(row.unit, row.value), row.promise);
    }
    Ok(())
}
