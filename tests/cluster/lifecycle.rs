//! The CLI's own verbs, and what they say when something is wrong.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::harness::{Cluster, eventually, minik, text};
use crate::{OwnTest, storage};

pub const TESTS: &[(&str, OwnTest)] = &[
    ("lifecycle::stop_and_start_bring_everything_back", stop_and_start),
    ("lifecycle::errors_say_what_why_and_how", errors),
    ("lifecycle::delete_leaves_nothing", delete),
];

fn stop_and_start() -> Result<()> {
    let c = Cluster::start("stop", 2)?;
    c.kubectl(&["create", "deployment", "web", "--image=test/busybox:1", "--replicas=2", "--", "sleep", "3600"])?;
    c.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    c.apply(storage::STATEFUL)?;
    c.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"])?;
    let addresses =
        |c: &Cluster| c.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].status.addresses[0].address}"]);
    let before = addresses(&c)?;
    let again = c.minik(&["start"])?;
    ensure!(again.is_empty(), "start of a running cluster prints no data: {again}");
    c.minik(&["stop"])?;
    let stopped = c.minik_output(&["status", "--output", "json"])?;
    ensure!(stopped.status.code() == Some(19), "status of a stopped cluster exits with 19: {:?}", stopped.status);
    ensure!(c.minik(&["profile", "list"])?.contains("Stopped"), "profile list does not say Stopped");
    c.minik(&["start"])?;
    ensure!(addresses(&c)? == before, "the nodes' addresses changed");
    eventually("the pods are back", || {
        let ready = c.kubectl(&["get", "deploy", "web", "-o", "jsonpath={.status.readyReplicas}"])?;
        ensure!(ready == "2", "ready: {ready}");
        Ok(())
    })?;
    eventually("the volume is back with its data", || {
        ensure!(storage::starts(&c, "default")? == 2);
        Ok(())
    })?;
    ensure!(c.minik(&["status"])?.contains("Running"), "status after start");
    Ok(())
}

fn errors() -> Result<()> {
    let run = |env: &[(&str, &str)], args: &[&str]| -> Result<(Option<i32>, String)> {
        let output = Command::new(minik()).args(args).envs(env.iter().copied()).env("NO_COLOR", "1").output()?;
        Ok((output.status.code(), text(&output)))
    };
    let (code, said) = run(&[("DOCKER_HOST", "unix:///nowhere/docker.sock")], &["start", "-p", "none"])?;
    ensure!(code == Some(10) && said.contains("Docker is not reachable") && said.contains("hint:"), "{code:?} {said}");
    let (code, said) = run(&[], &["start", "-p", "Bad_Name"])?;
    ensure!(code == Some(2) && said.contains("a profile consists of"), "{code:?} {said}");
    let (code, said) = run(&[], &["start", "--nodes", "0"])?;
    ensure!(code == Some(2) && said.contains("--nodes"), "{code:?} {said}");
    let (code, said) = run(&[], &["stop", "-p", "never-made"])?;
    ensure!(code == Some(17) && said.contains("there is no cluster `never-made`"), "{code:?} {said}");
    let c = Cluster::new("errors")?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let output = c.minik_output(&["start", "--nodes", "1", "--api-port", &port])?;
    ensure!(output.status.code() == Some(14), "a taken port exits with 14: {}", text(&output));
    let file = c.folder().join("kubeconfig");
    std::fs::create_dir(&file)?;
    let output = c.minik_output(&["start", "--nodes", "1"])?;
    ensure!(output.status.code() == Some(16), "an unwritable kubeconfig exits with 16: {}", text(&output));
    // Deleting looks into it too.
    std::fs::remove_dir(&file)?;
    left_nothing(&c)
}

fn left_nothing(c: &Cluster) -> Result<()> {
    let label = format!("label=dev.minik.profile={}", c.profile);
    for kind in [&["ps", "-aq"][..], &["network", "ls", "-q"], &["volume", "ls", "-q"]] {
        let left = c.docker(&[kind, &["--filter", &label]].concat())?;
        ensure!(left.is_empty(), "docker {} shows {left}", kind.join(" "));
    }
    Ok(())
}

fn delete() -> Result<()> {
    let c = Cluster::new("delete")?;
    std::fs::write(
        c.kubeconfig(),
        "apiVersion: v1\nkind: Config\nclusters: [{name: mine, cluster: {server: 'https://192.0.2.1'}}]\nusers: []\ncontexts: []\n",
    )?;
    c.minik(&["start", "--nodes", "1"])?;
    c.minik(&["delete"])?;
    left_nothing(&c)?;
    let config = std::fs::read_to_string(c.kubeconfig()).context("the kubeconfig is gone")?;
    ensure!(config.contains("192.0.2.1") && !config.contains(&c.profile), "kubeconfig: {config}");
    Ok(())
}
