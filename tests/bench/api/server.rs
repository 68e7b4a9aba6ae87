//! The two API servers that are compared, each as a process of its own.
//!
//! Owns: how each is started, stopped, and how much memory it holds.
//! Called by: `main`, for one of them after the other.
//! Never: sends load.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use minik_client::Client;

use crate::load::send;

enum Way {
    Minik(Child),
    Upstream,
}

pub struct Server {
    pub client: Client,
    /// From the start of its process to the first answer of `/readyz`.
    pub ready: Duration,
    way: Way,
    folder: tempfile::TempDir,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie one folder below the root").to_path_buf()
}

/// `minik apiserver` on this folder, answering.
async fn start(folder: &Path) -> Result<(Child, Client, Duration)> {
    let binary = std::env::var_os("MINIK").context("scripts/bench says where the binary is")?;
    let begun = Instant::now();
    let mut child = Command::new(binary)
        .args(["apiserver", "--secure-port", "0", "--data-dir"])
        .arg(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("piped above")?).read_line(&mut line)?;
    ensure!(line.contains("api ready"), "minik apiserver said: {line}");
    let client = Client::from_kubeconfig(&folder.join("admin.kubeconfig"))?;
    ready(&client).await?;
    Ok((child, client, begun.elapsed()))
}

impl Server {
    pub async fn minik() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (child, client, ready) = start(folder.path()).await?;
        Ok(Self { client, ready, way: Way::Minik(child), folder })
    }

    /// `None` when upstream has not been built.
    pub async fn upstream() -> Result<Option<Self>> {
        if !root().join("target/upstream/bin/kube-apiserver").exists() {
            return Ok(None);
        }
        let begun = Instant::now();
        let output = reference("up")?;
        let client = Client::from_kubeconfig(Path::new(output.trim()))?;
        ready(&client).await?;
        Ok(Some(Self { client, ready: begun.elapsed(), way: Way::Upstream, folder: tempfile::tempdir()? }))
    }

    /// Kills minik's process and starts it again on what it has written; `ready` is then that of the second start.
    pub async fn restart(&mut self) -> Result<()> {
        let Way::Minik(child) = &mut self.way else { return Ok(()) };
        child.kill()?;
        child.wait()?;
        let (child, client, ready) = start(self.folder.path()).await?;
        self.way = Way::Minik(child);
        (self.client, self.ready) = (client, ready);
        Ok(())
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
    pub fn scheduler(&self) -> Command {
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

    pub fn rss_mb(&self) -> f64 {
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

async fn ready(client: &Client) -> Result<()> {
    send(client, "GET", "/readyz", "*/*", Bytes::new()).await.map(|_| ())
}
