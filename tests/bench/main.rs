//! What minik promises in numbers, measured on a real cluster with its floor beside it in the same run.
//!
//! Owns: the bench of starting, pods, idling and deleting.
//! Called by: `scripts/bench`, with a release build.
//! Never: judges; it prints the ratio and the promise.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use minik_api::object;
use minik_api::resources::PODS;
use minik_client::{Cache, Client, Tasks, Wait};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 5;
/// Nodes that take pods; the control plane does not.
const WORKERS: usize = 2;
/// One after the other.
const SINGLE: usize = 100;
/// At once.
const CROWD: usize = 90;
const READY_MAX: Duration = Duration::from_secs(120);
const IDLE: Duration = Duration::from_secs(60);
const PROFILE: &str = "bench";
/// Set once the bench has a kubeconfig of its own.
const OURS: &str = "MINIK_BENCH_KUBECONFIG";

fn minik() -> PathBuf {
    std::env::var_os("MINIK").map(PathBuf::from).expect("scripts/bench says where the binary is")
}

fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().with_context(|| program.to_string())?;
    ensure!(output.status.success(), "{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

fn minik_run(args: &[&str]) -> Result<String> {
    run(minik().to_str().context("UTF-8")?, args)
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn quantile(sorted: &[Duration], q: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

fn ms(d: Duration) -> String {
    format!("{:.0} ms", d.as_secs_f64() * 1e3)
}

fn main() -> Result<()> {
    let Some(kubeconfig) = std::env::var_os(OURS).map(PathBuf::from) else {
        // Again, with an environment that all children inherit.
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("kubeconfig");
        let me = std::env::current_exe()?;
        let status = Command::new(me).env("KUBECONFIG", &path).env(OURS, &path).status()?;
        std::process::exit(status.code().unwrap_or(1));
    };
    let _ = minik_run(&["delete", "-p", PROFILE]);
    let image = first_start()?;
    println!("{:<46} {:>12} {:>12} {:>8}  promise", "what", "minik", "floor", "ratio");
    starts(&image)?;
    minik_run(&["start", "-p", PROFILE, "--nodes", "3"])?;
    idle()?;
    pods(&kubeconfig)?;
    let used: u64 = processes()?.iter().map(|(pid, _)| memory_kb(*pid).1).sum();
    let what = format!("memory after {} pods have come and gone", SINGLE + CROWD);
    println!("{what:<46} {:>9.1} MB {:>12} {:>8}", used as f64 / 1e3, "", "");
    let size = run("docker", &["image", "inspect", "-f", "{{.Size}}", &image])?.parse::<f64>()? / 1e6;
    println!("{:<46} {:>9.1} MB {:>12} {:>8}  <= 30 MB", "image", size, "", "");
    minik_run(&["delete", "-p", PROFILE])?;
    Ok(())
}

/// The image is imported once; the promise speaks of an image that is there.
fn first_start() -> Result<String> {
    minik_run(&["start", "-p", PROFILE, "--nodes", "1"])?;
    let image = run("docker", &["inspect", "-f", "{{.Config.Image}}", &format!("{PROFILE}-control-plane")])?;
    minik_run(&["delete", "-p", PROFILE])?;
    Ok(image)
}

/// Three bare containers of the same image in parallel on a new network: what Docker alone needs.
fn bare(image: &str) -> Result<()> {
    run("docker", &["network", "create", "bench-floor"])?;
    let children: Vec<_> = (0..3)
        .map(|i| {
            let name = format!("bench-floor-{i}");
            let args =
                ["run", "-d", "--name", &name, "--network", "bench-floor", "--entrypoint", "/minik", image, "hello"];
            Command::new("docker").args(args).stdout(Stdio::null()).spawn()
        })
        .collect::<std::io::Result<_>>()?;
    for mut child in children {
        ensure!(child.wait()?.success(), "a bare container did not start");
    }
    Ok(())
}

fn remove_bare() -> Result<()> {
    run("docker", &["rm", "-f", "bench-floor-0", "bench-floor-1", "bench-floor-2"])?;
    run("docker", &["network", "rm", "bench-floor"]).map(|_| ())
}

/// Pairs, one after the other, so that a machine that drifts drifts for both.
fn starts(image: &str) -> Result<()> {
    let (mut ours, mut floor, mut gone, mut gone_floor) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floor.push(timed(|| bare(image))?);
        gone_floor.push(timed(remove_bare)?);
        ours.push(timed(|| minik_run(&["start", "-p", PROFILE, "--nodes", "3"]).map(|_| ()))?);
        gone.push(timed(|| minik_run(&["delete", "-p", PROFILE]).map(|_| ()))?);
    }
    let row = |what: &str, ours: Vec<Duration>, floor: Vec<Duration>, promise: &str| {
        let (ours, floor) = (median(ours), median(floor));
        let ratio = ours.as_secs_f64() / floor.as_secs_f64();
        println!("{what:<46} {:>12} {:>12} {ratio:>8.2}  {promise}", ms(ours), ms(floor));
    };
    row("start --nodes 3, all Ready / 3 bare containers", ours, floor, "<= 1.5");
    row("delete 3 nodes / docker rm + network rm", gone, gone_floor, "");
    Ok(())
}

/// One pod after the other, from the request to the first word of a watch that it is Ready; then many at once.
#[tokio::main]
async fn pods(kubeconfig: &Path) -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::from_kubeconfig(kubeconfig)?;
    let tasks = Tasks::new(CancellationToken::new());
    let cache = Cache::builder(client.clone()).watch(PODS).start(&tasks);
    cache.synced().await;
    let mut times = Vec::new();
    for i in 0..SINGLE {
        let name = format!("one-{i}");
        let begun = Instant::now();
        create(&client, &name).await?;
        await_ready(&cache, 1, |pod| pod == name).await?;
        times.push(begun.elapsed());
        run("kubectl", &["delete", "pod", &name, "--now"])?;
    }
    times.sort();
    let (p50, p99) = (quantile(&times, 0.5), quantile(&times, 0.99));
    println!("{:<46} {:>12} {:>12} {:>8}  <= 100 ms", "pod create -> Ready seen by a watch, p50", ms(p50), "", "");
    println!("{:<46} {:>12} {:>12} {:>8}  <= 500 ms", "pod create -> Ready seen by a watch, p99", ms(p99), "", "");
    let begun = Instant::now();
    futures::future::try_join_all((0..CROWD).map(|i| {
        let client = &client;
        async move { create(client, &format!("many-{i}")).await }
    }))
    .await?;
    await_ready(&cache, CROWD, |pod| pod.starts_with("many-")).await?;
    let rate = CROWD as f64 / begun.elapsed().as_secs_f64() / WORKERS as f64;
    let what = format!("{CROWD} pods at once, all Ready, per worker");
    println!("{what:<46} {:>12} {:>12} {:>8}  >= 20/s", format!("{rate:.1}/s"), "", "");
    tasks.token().cancel();
    run("kubectl", &["delete", "pods", "--all", "--now"])?;
    Ok(())
}

async fn create(client: &Client, name: &str) -> Result<()> {
    let pod = serde_json::json!({
        "metadata": {"name": name},
        "spec": {
            "containers": [{"name": "c", "image": "minik/hello:latest", "imagePullPolicy": "IfNotPresent"}],
            "terminationGracePeriodSeconds": 0,
        },
    });
    let request = http::Request::post("/api/v1/namespaces/default/pods").header("content-type", "application/json");
    let response = client.request(request.body(Bytes::from(pod.to_string()))?).await?;
    ensure!(response.status().is_success(), "pod {name} was not taken: {}", response.status());
    Ok(())
}

async fn await_ready(cache: &Cache, count: usize, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let ready = |pod: &serde_json::Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
    };
    let met = cache
        .wait_for(READY_MAX, |view| {
            let pods = view.list(PODS, "default").map(|pod| pod.value());
            pods.filter(|pod| wanted(object::name(pod)) && ready(pod)).count() == count
        })
        .await;
    ensure!(met == Wait::Met, "{count} pods were not Ready within {READY_MAX:?}");
    Ok(())
}

/// Host pids of every process of the cluster's containers, with what they run.
fn processes() -> Result<Vec<(u32, String)>> {
    let mut all = Vec::new();
    for node in ["control-plane", "worker", "worker2"] {
        let table = run("docker", &["top", &format!("{PROFILE}-{node}"), "-eo", "pid,args"])?;
        for line in table.lines().skip(1) {
            let (pid, args) = line.trim().split_once(' ').context("docker top")?;
            all.push((pid.parse()?, format!("{node}: {}", args.trim())));
        }
    }
    Ok(all)
}

fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let field = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    field(11) + field(12)
}

/// What a process has in memory, and the part of it that is its own: a page of several processes, such as one of the
/// executable, counts once over all of them (proc(5), Pss).
fn memory_kb(pid: u32) -> (u64, u64) {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name: &str| {
        let line = rollup.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    (field("Rss:"), field("Pss:"))
}

fn idle() -> Result<()> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let all = processes()?;
    let before: u64 = all.iter().map(|(pid, _)| ticks(*pid)).sum();
    std::thread::sleep(IDLE);
    let after: u64 = all.iter().map(|(pid, _)| ticks(*pid)).sum();
    let (mut resident, mut own) = (0, 0);
    for (pid, what) in &all {
        let (rss, pss) = memory_kb(*pid);
        println!("{:<46} {:>9.1} MB", format!("idle RSS, {what}"), rss as f64 / 1e3);
        (resident, own) = (resident + rss, own + pss);
    }
    println!("{:<46} {:>9.1} MB", "idle RSS, added up, the executable 7 times", resident as f64 / 1e3);
    println!("{:<46} {:>9.1} MB {:>12} {:>8}  <= 60 MB", "idle memory, 3 nodes in all (PSS)", own as f64 / 1e3, "", "");
    let share = (after - before) as f64 / TICKS_PER_SECOND / IDLE.as_secs_f64() * 100.0;
    println!("{:<46} {:>10.2} % {:>12} {:>8}  <= 0.5 % of a core", "idle CPU over 60 s, 3 nodes in all", share, "", "");
    Ok(())
}
