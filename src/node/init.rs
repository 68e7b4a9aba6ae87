//! PID 1 of a node container: prepares mounts and cgroups, starts the components, reaps, and drains on SIGTERM.
//!
//! Owns: the process tree of a node.
//! Called by: `minik node`, which is the entry point of the node image.
//! Never: talks to the API, Docker or the runtime; it must survive all of them.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, wait};
use tokio::signal::unix::{SignalKind, signal};

use crate::cgroup;
use crate::config::{COMPONENT_LOGS, NodeConfig, RUN, Role, STATE};

/// A component that keeps dying is restarted after 0.1 s, 0.2 s, ... up to this.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// A component that ran this long is healthy again and starts over with the first back-off.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// How long each stage of a drain may take; Docker kills the container 10 s after SIGTERM.
const DRAIN_COMPONENT: Duration = Duration::from_secs(2);
const DRAIN_CONTAINERS: Duration = Duration::from_secs(4);

struct Component {
    name: &'static str,
    started: Instant,
    backoff: Duration,
}

/// Runs until SIGTERM; returns when everything is drained.
pub fn run() -> Result<()> {
    let config = NodeConfig::load().context("this container was not made by `minik start`")?;
    prepare(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(supervise(&config))
}

fn prepare(config: &NodeConfig) -> Result<()> {
    for dir in [RUN, COMPONENT_LOGS, "/var/log/pods", "/var/log/containers", "/tmp", "/etc", "/var/tmp", "/opt"] {
        fs::create_dir_all(dir).with_context(|| format!("could not make {dir}"))?;
    }
    fs::create_dir_all(STATE).with_context(|| format!("could not make {STATE}"))?;
    if !Path::new("/var/run").exists() {
        std::os::unix::fs::symlink("/run", "/var/run").context("could not link /var/run")?;
    }
    for (path, text) in [("/etc/passwd", "root:x:0:0:root:/root:/minik\n"), ("/etc/group", "root:x:0:\n")] {
        if !Path::new(path).exists() {
            fs::write(path, text).with_context(|| format!("could not write {path}"))?;
        }
    }
    let os_release = format!("NAME=\"minik\"\nID=minik\nPRETTY_NAME=\"minik {}\"\n", env!("CARGO_PKG_VERSION"));
    fs::write("/etc/os-release", os_release).context("could not write /etc/os-release")?;
    // Volumes with mountPropagation are seen from the host side only below a shared mount.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)
        .context("could not make / a shared mount")?;
    // Docker leaves /sys read-only without --privileged; pods with sysctls and network set-up need it writable.
    let sys = rustix::mount::MountFlags::BIND;
    if let Err(e) = rustix::mount::mount_remount("/sys", sys, "") {
        eprintln!("minik: /sys stays read-only: {e}");
    }
    cgroup::make_writable().context("pods need cgroups of their own")?;
    tracing::debug!(node = config.name, "prepared");
    Ok(())
}

async fn supervise(config: &NodeConfig) -> Result<()> {
    let mut child = signal(SignalKind::child()).context("no SIGCHLD")?;
    let mut term = signal(SignalKind::terminate()).context("no SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("no SIGINT")?;
    let mut running: HashMap<i32, Component> = HashMap::new();
    let mut due: Vec<(Instant, &'static str, Duration)> = Vec::new();
    if config.role == Role::ControlPlane {
        start("control-plane", BACKOFF_FIRST, &mut running)?;
    }
    start("kubelet", BACKOFF_FIRST, &mut running)?;
    loop {
        let next = due.iter().map(|d| d.0).min();
        let timer = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = child.recv() => {
                for dead in reap(&mut running) {
                    let ran = dead.started.elapsed();
                    let wait = if ran > HEALTHY_AFTER { BACKOFF_FIRST } else { dead.backoff };
                    due.push((Instant::now() + wait, dead.name, (wait * 2).min(BACKOFF_MAX)));
                }
            }
            () = timer => {
                let now = Instant::now();
                let (ready, later): (Vec<_>, Vec<_>) = due.drain(..).partition(|d| d.0 <= now);
                due = later;
                for (_, name, backoff) in ready {
                    start(name, backoff, &mut running)?;
                }
            }
            _ = term.recv() => break,
            _ = int.recv() => break,
        }
    }
    drain(&mut running, &mut child).await;
    Ok(())
}

fn start(name: &'static str, backoff: Duration, running: &mut HashMap<i32, Component>) -> Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("minik").arg(name).stdin(Stdio::null());
    // A group of its own: a SIGTERM to a component must not reach the containers' shims it started.
    command.process_group(0);
    let process = command.spawn().with_context(|| format!("could not start {name}"))?;
    let pid = i32::try_from(process.id()).expect("a pid fits i32");
    running.insert(pid, Component { name, started: Instant::now(), backoff });
    Ok(())
}

/// Takes the status of every dead child: components, and orphans that were re-parented to PID 1.
fn reap(running: &mut HashMap<i32, Component>) -> Vec<Component> {
    let mut dead = Vec::new();
    // `wait`, because `waitpid` without a number means this process group only, and orphans have their own.
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if let Some(component) = running.remove(&pid.as_raw_nonzero().get()) {
            let status = std::process::ExitStatus::from_raw(status.as_raw());
            let _ = writeln!(std::io::stderr(), "minik: {} ended: {status}", component.name);
            dead.push(component);
        }
    }
    dead
}

/// The kubelet first, so that it does not restart what is about to be ended; then the containers; the control
/// plane last, so that its store is closed by itself.
async fn drain(running: &mut HashMap<i32, Component>, child: &mut tokio::signal::unix::Signal) {
    end_component("kubelet", running, child).await;
    end_containers(running, child).await;
    end_component("control-plane", running, child).await;
}

async fn end_component(name: &str, running: &mut HashMap<i32, Component>, child: &mut tokio::signal::unix::Signal) {
    let Some(pid) = running.iter().find(|(_, c)| c.name == name).and_then(|(pid, _)| Pid::from_raw(*pid)) else {
        return;
    };
    let _ = kill_process_group(pid, Signal::TERM);
    let gone = async {
        while running.contains_key(&pid.as_raw_nonzero().get()) {
            child.recv().await;
            reap(running);
        }
    };
    if tokio::time::timeout(DRAIN_COMPONENT, gone).await.is_err() {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Everything that is neither PID 1 nor a component: shims and the containers' processes.
fn others(running: &HashMap<i32, Component>) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.flatten().filter_map(|e| e.file_name().to_str().and_then(|n| n.parse::<i32>().ok()));
    names.filter(|pid| *pid != 1 && !running.contains_key(pid)).filter_map(Pid::from_raw).collect()
}

async fn end_containers(running: &mut HashMap<i32, Component>, child: &mut tokio::signal::unix::Signal) {
    for pid in others(running) {
        if !is_shim(pid) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
    let gone = async {
        while !others(running).is_empty() {
            child.recv().await;
            reap(running);
        }
    };
    if tokio::time::timeout(DRAIN_CONTAINERS, gone).await.is_err() {
        for pid in others(running) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// A shim ends by itself once its container has, after it has written down how.
fn is_shim(pid: Pid) -> bool {
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    fs::read(path).is_ok_and(|line| line.split(|b| *b == 0).nth(1) == Some(b"shim"))
}
