//! What minik promises in numbers, measured on a real cluster with its floor beside it in the same run.
//!
//! Owns: the bench of starting, pods, idling and deleting.
//! Called by: `scripts/bench`, with a release build.
//! Never: judges; it prints the ratio and the promise.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const ROUNDS: usize = 5;
const PODS: usize = 50;
const IDLE: Duration = Duration::from_secs(60);
const PROFILE: &str = "bench";

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
    let dir = tempfile::tempdir()?;
    let kubeconfig = dir.path().join("kubeconfig");
    let me = std::env::args().next().unwrap_or_default();
    if std::env::var_os("KUBECONFIG").as_deref() != Some(kubeconfig.as_os_str())
        && std::env::var_os("MINIK_BENCH").is_none()
    {
        // Again, with the environment all children inherit.
        let status = Command::new(me).env("KUBECONFIG", &kubeconfig).env("MINIK_BENCH", "1").status()?;
        std::process::exit(status.code().unwrap_or(1));
    }
    let _ = minik_run(&["delete", "-p", PROFILE]);
    let image = first_start()?;
    println!("{:<46} {:>12} {:>12} {:>8}  promise", "what", "minik", "floor", "ratio");
    starts(&image)?;
    minik_run(&["start", "-p", PROFILE, "--nodes", "3"])?;
    pods()?;
    idle()?;
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

/// One pod after the other, from `kubectl create` to the API's word that it is Ready, read off its conditions.
fn pods() -> Result<()> {
    let spec = r#"{"spec":{"containers":[{"name":"c","image":"minik/hello:latest","imagePullPolicy":"IfNotPresent"}],"terminationGracePeriodSeconds":0}}"#;
    let mut times = Vec::new();
    for i in 0..PODS {
        let name = format!("p{i}");
        let begun = Instant::now();
        run(
            "kubectl",
            &["run", &name, "--image=minik/hello:latest", "--image-pull-policy=IfNotPresent", "--overrides", spec],
        )?;
        let created = begun.elapsed();
        run("kubectl", &["wait", "pod", &name, "--for=condition=Ready", "--timeout=60s"])?;
        times.push(begun.elapsed().saturating_sub(created / 2));
    }
    times.sort();
    let (p50, p99) = (quantile(&times, 0.5), quantile(&times, 0.99));
    // kubectl's own start is in the number; it is the floor.
    let floor =
        median((0..5).map(|_| timed(|| run("kubectl", &["get", "pod", "p0"]).map(|_| ()))).collect::<Result<_>>()?);
    println!(
        "{:<46} {:>12} {:>12} {:>8}  p50 <= 100 ms",
        "pod create -> Ready seen by kubectl, p50",
        ms(p50),
        ms(floor),
        ""
    );
    println!(
        "{:<46} {:>12} {:>12} {:>8}  p99 <= 500 ms",
        "pod create -> Ready seen by kubectl, p99",
        ms(p99),
        ms(floor),
        ""
    );
    run("kubectl", &["delete", "pods", "--all", "--now"])?;
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

fn rss_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn idle() -> Result<()> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let all = processes()?;
    let before: u64 = all.iter().map(|(pid, _)| ticks(*pid)).sum();
    std::thread::sleep(IDLE);
    let after: u64 = all.iter().map(|(pid, _)| ticks(*pid)).sum();
    for (pid, what) in &all {
        println!("{:<46} {:>9.1} MB", format!("idle RSS, {what}"), rss_kb(*pid) as f64 / 1e3);
    }
    let sum: u64 = all.iter().map(|(pid, _)| rss_kb(*pid)).sum();
    println!("{:<46} {:>9.1} MB {:>12} {:>8}  <= 60 MB", "idle RSS, 3 nodes in all", sum as f64 / 1e3, "", "");
    let share = (after - before) as f64 / TICKS_PER_SECOND / IDLE.as_secs_f64() * 100.0;
    println!("{:<46} {:>10.2} % {:>12} {:>8}  <= 0.5 % of a core", "idle CPU over 60 s, 3 nodes in all", share, "", "");
    Ok(())
}
