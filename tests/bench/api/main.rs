//! The API server by itself beside kube-apiserver + etcd, in one run: start, writes, reads, lists, watches, memory.
//!
//! Owns: the rows and what is promised of them. Both servers get the same client, the same bodies and HTTP/2 over
//! TLS; upstream's limits on requests in flight are raised so that they do not count.
//! Called by: `scripts/bench api`, with a release build. Upstream's column needs `tests/upstream/build`.
//! Never: judges; it prints the ratio and the promise.

mod floor;
mod load;
mod server;
mod watchers;

use std::time::Duration;

use anyhow::{Context, Result};

use floor::Floor;
use load::{
    CONFIG_MAPS, JSON, NODES, PODS, PODS_TO_BIND, Pace, account, creates, gets, names, percentile, read, schedule,
    updates,
};
use minik_client::Client;
use rustix::thread::{CpuSet, sched_setaffinity};
use server::Server;
use tokio::runtime::Builder;
use watchers::{Fan, Scope, delivery};

const PODS_COUNT: usize = 10_000;
const MAPS_COUNT: usize = 14_000;
const GETS: usize = 5_000;
/// So many ConfigMaps are made, later replaced, before it is the next server's turn.
struct Writes {
    in_flight: usize,
    count: usize,
    turns: usize,
}
const WRITES: [Writes; 3] = [
    Writes { in_flight: 1, count: 200, turns: 10 },
    Writes { in_flight: 16, count: 2_000, turns: 4 },
    Writes { in_flight: 256, count: 4_000, turns: 4 },
];
const UPDATED: usize = 1_000;
const POD_CREATES_IN_FLIGHT: usize = 64;
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// A thousand watchers as kubelets are: each sees its own object. Then as many as everybody's informers, who see all.
const FANS: [Fan; 2] = [
    Fan { scope: Scope::Own, watchers: 1_000, updates: 5_000, per_second: 1_000 },
    Fan { scope: Scope::Everything, watchers: 1_000, updates: 60, per_second: 20 },
];
/// What a long-lived cluster holds.
const MANY: usize = 100_000;

/// Whether more is better.
#[derive(Clone, Copy)]
enum Unit {
    PerSecond,
    Milliseconds,
    Megabytes,
    Bytes,
}

struct Row {
    what: String,
    unit: Unit,
    value: f64,
    promise: &'static str,
}

#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    fn add(&mut self, what: impl Into<String>, unit: Unit, value: f64, promise: &'static str) {
        self.0.push(Row { what: what.into(), unit, value, promise });
    }

    fn paced(&mut self, what: &str, in_flight: usize, pace: &Pace) {
        self.add(format!("{what}, {in_flight} in flight"), Unit::PerSecond, pace.per_second(), ">= 5x");
        self.add("  p99 of one", Unit::Milliseconds, pace.p99_ms(), "");
    }
}

/// What is asked of the Pods, and what is promised of it.
struct List {
    what: &'static str,
    query: &'static str,
    accept: &'static str,
    promise: &'static str,
}

const LISTS: [List; 4] = [
    List { what: "LIST 10,000 Pods, consistent", query: "", accept: JSON, promise: ">= 20x" },
    List { what: "LIST 10,000 Pods, rv=0", query: "resourceVersion=0", accept: JSON, promise: ">= 20x" },
    List { what: "LIST a page of 500", query: "limit=500", accept: JSON, promise: ">= 10x" },
    List {
        what: "LIST 10,000 Pods, metadata only, rv=0",
        query: "resourceVersion=0",
        accept: METADATA,
        promise: ">= 10x",
    },
];
/// Each list is timed as often, and the median counts. In turn with the others and the floors: where the kernel puts two
/// threads that talk to each other lasts for as long as they do, and must not be what one row shows.
const ROUNDS: usize = 15;

async fn lists(client: &Client, floor: &Client, rows: &mut Rows) -> Result<()> {
    let mut seen: [(Vec<Duration>, Vec<Duration>, usize); LISTS.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (list, (times, floors, size)) in LISTS.iter().zip(&mut seen) {
            let (took, bytes) = read(client, &format!("{PODS}?{}", list.query), list.accept).await?;
            times.push(took);
            floors.push(read(floor, &format!("/{bytes}"), JSON).await?.0);
            *size = bytes;
        }
    }
    for (list, (times, floors, size)) in LISTS.iter().zip(seen) {
        rows.add(list.what, Unit::Milliseconds, percentile(times, 50), list.promise);
        let what = format!("  floor: {:.1} MB out of memory", size as f64 / 1e6);
        rows.add(what, Unit::Milliseconds, percentile(floors, 50), "");
    }
    Ok(())
}

/// Writes, in turn with the other server's and, one after the other, with the floor's: how fast a disk syncs, and how fast
/// a processor wakes up, changes from minute to minute, and befalls all of them.
async fn writes(servers: &[&Server]) -> Result<Vec<Rows>> {
    let floor = Floor::start()?;
    let mut rows: Vec<Rows> = servers.iter().map(|_| Rows::default()).collect();
    for writes in &WRITES {
        let (mut made, mut floor_made) = (vec![Pace::default(); servers.len()], Pace::default());
        for _ in 0..writes.turns {
            for (server, made) in servers.iter().zip(&mut made) {
                let maps = load::config_map();
                made.join(creates(&server.client, CONFIG_MAPS, maps, writes.count, writes.in_flight).await?);
            }
            if writes.in_flight == 1 {
                floor_made.join(creates(&floor.client, "/", load::config_map(), writes.count, 1).await?);
            }
        }
        for (rows, made) in rows.iter_mut().zip(&made) {
            rows.paced("ConfigMap creates", writes.in_flight, made);
            if writes.in_flight == 1 {
                rows.add("  floor: as many bytes written and synced", Unit::PerSecond, floor_made.per_second(), "");
            }
        }
    }
    let mut maps = Vec::new();
    for server in servers {
        maps.push(names(&server.client, CONFIG_MAPS, UPDATED).await?);
    }
    for writes in &WRITES {
        let mut replaced = vec![Pace::default(); servers.len()];
        for turn in 0..writes.turns {
            for ((server, maps), replaced) in servers.iter().zip(&maps).zip(&mut replaced) {
                let first = turn * writes.count;
                replaced.join(updates(&server.client, maps, first, writes.count, writes.in_flight).await?);
            }
        }
        for (rows, replaced) in rows.iter_mut().zip(&replaced) {
            rows.paced("ConfigMap updates", writes.in_flight, replaced);
        }
    }
    Ok(rows)
}

async fn measure(server: &Server) -> Result<Vec<Row>> {
    let (client, floor, mut rows) = (&server.client, Floor::start()?, Rows::default());
    rows.add("process start to /readyz", Unit::Milliseconds, server.ready.as_secs_f64() * 1e3, ">= 20x");
    rows.add("RSS idle", Unit::Megabytes, server.rss_mb(), ">= 10x");
    creates(client, CONFIG_MAPS, load::config_map(), MAPS_COUNT, 256).await?;
    let maps = names(client, CONFIG_MAPS, UPDATED).await?;
    account(client).await?;
    let pace = creates(client, PODS, load::pod(), PODS_COUNT, POD_CREATES_IN_FLIGHT).await?;
    rows.add(format!("Pod creates, {POD_CREATES_IN_FLIGHT} in flight"), Unit::PerSecond, pace.per_second(), ">= 5x");
    let one = names(client, PODS, 1).await?.pop().context("there are Pods")?;
    let pace = gets(client, &format!("{PODS}/{one}"), GETS).await?;
    rows.add("GET one Pod, 64 in flight", Unit::PerSecond, pace.per_second(), ">= 5x");
    lists(client, &floor.client, &mut rows).await?;
    let what = format!("RSS with {PODS_COUNT} Pods and {MAPS_COUNT} ConfigMaps");
    rows.add(what, Unit::Megabytes, server.rss_mb(), ">= 5x");
    for fan in &FANS {
        let sees = if fan.scope == Scope::Own { "one object each" } else { "everything" };
        let what = format!("{} watchers of {sees}, {} updates/s: p99", fan.watchers, fan.per_second);
        rows.add(what, Unit::Milliseconds, delivery(client, &maps, fan).await?, "");
    }
    Ok(rows.0)
}

/// How it is with a hundred thousand objects; minik alone, because upstream would take minutes to be given them.
async fn many() -> Result<Vec<Row>> {
    let (mut server, mut rows) = (Server::minik().await?, Rows::default());
    let idle = server.rss_mb();
    creates(&server.client, CONFIG_MAPS, load::config_map(), MANY, 256).await?;
    server.restart().await?;
    rows.add(
        format!("start with {MANY} objects, after kill -9"),
        Unit::Milliseconds,
        server.ready.as_secs_f64() * 1e3,
        "",
    );
    rows.add("memory an object of 800 bytes", Unit::Bytes, (server.rss_mb() - idle) * 1e6 / MANY as f64, "");
    Ok(rows.0)
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
        Unit::Bytes => format!("{value:.0} B"),
    }
}

/// The client has one thread for its connections: several would wake each other for every request, which would be counted
/// as both servers' time. It stays on one processor: now and then the kernel lets it share one with the server for as long
/// as both talk, and a list takes half as long again.
fn main() -> Result<()> {
    let stay = || {
        let mut first = CpuSet::new();
        first.set(0);
        let _ = sched_setaffinity(None, &first);
    };
    let runtime = Builder::new_multi_thread().worker_threads(1).on_thread_start(stay).enable_all().build()?;
    runtime.block_on(compare())
}

async fn compare() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (mut ours, mut theirs) = {
        let (minik, upstream) = (Server::minik().await?, Server::upstream().await?);
        let servers: Vec<&Server> = std::iter::once(&minik).chain(&upstream).collect();
        let mut rows = writes(&servers).await?.into_iter().map(|rows| rows.0);
        (rows.next().context("minik is the first")?, rows.next())
    };
    // One after the other: side by side they would share the cores.
    ours.extend(measure(&Server::minik().await?).await.context("minik")?);
    ours.push(scheduling(&Server::minik().await?).await.context("minik")?);
    if let (Some(theirs), Some(server)) = (&mut theirs, Server::upstream().await?) {
        theirs.extend(measure(&server).await.context("upstream")?);
        drop(server);
        let fresh = Server::upstream().await?.context("upstream was there a moment ago")?;
        theirs.push(scheduling(&fresh).await.context("upstream")?);
    }
    ours.extend(many().await.context("minik with many objects")?);
    println!("{:<56} {:>12} {:>12} {:>8}  promise", "what", "minik", "upstream", "ratio");
    for (index, row) in ours.iter().enumerate() {
        let (other, ratio) = match theirs.as_ref().and_then(|rows| rows.get(index)) {
            Some(other) => {
                let ratio = match row.unit {
                    Unit::PerSecond => row.value / other.value,
                    Unit::Milliseconds | Unit::Megabytes | Unit::Bytes => other.value / row.value,
                };
                (shown(other.unit, other.value), format!("{ratio:.1}x"))
            }
            None => ("not asked".into(), String::new()),
        };
        println!("{:<56} {:>12} {other:>12} {ratio:>8}  {}", row.what, shown(row.unit, row.value), row.promise);
    }
    Ok(())
}
