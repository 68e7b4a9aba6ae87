//! Breaks processes and nodes, and looks whether running pods keep running and the cluster converges.

use anyhow::{Result, ensure};

use crate::OwnTest;
use crate::harness::{Cluster, eventually};

pub const TESTS: &[(&str, OwnTest)] = &[("kill::nothing_acknowledged_is_lost_whatever_dies", everything)];

fn everything() -> Result<()> {
    let c = Cluster::start("kill", 2)?;
    c.kubectl(&["create", "deployment", "web", "--image=test/busybox:1", "--replicas=2", "--", "sleep", "3600"])?;
    c.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    components(&c)?;
    container(&c)?;
    shim(&c)?;
    nodes(&c)
}

/// Host pid of a node's process whose command line holds `what`.
fn process(c: &Cluster, node: &str, what: &str) -> Result<String> {
    let table = c.docker(&["top", &c.node(node), "-eo", "pid,args"])?;
    let line = table.lines().find(|l| l.contains(what)).map(|l| l.split_whitespace().next().unwrap_or("").to_string());
    line.filter(|p| !p.is_empty()).ok_or_else(|| anyhow::anyhow!("no {what} in:\n{table}"))
}

fn kill(pid: &str) -> Result<()> {
    ensure!(std::process::Command::new("kill").args(["-9", pid]).status()?.success(), "could not kill {pid}");
    Ok(())
}

fn restarts_and_uids(c: &Cluster) -> Result<String> {
    c.kubectl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].containerID}{\"\\n\"}{end}"])
}

fn components(c: &Cluster) -> Result<()> {
    let before = restarts_and_uids(c)?;
    for (node, what) in [("worker", "minik kubelet"), ("control-plane", "minik control-plane")] {
        c.kubectl(&["create", "configmap", &format!("before-{node}")])?;
        kill(&process(c, node, what)?)?;
        eventually("the API server answers and has what it acknowledged", || {
            c.kubectl(&["get", "configmap", &format!("before-{node}")]).map(|_| ())
        })?;
        eventually("both nodes are Ready", || {
            let nodes = c.kubectl(&["get", "nodes"])?;
            ensure!(nodes.matches(" Ready ").count() == 2, "{nodes}");
            Ok(())
        })?;
        let after = restarts_and_uids(c)?;
        ensure!(after == before, "pods changed when {what} was killed:\n{before}\n{after}");
    }
    Ok(())
}

fn container(c: &Cluster) -> Result<()> {
    kill(&process(c, "worker", "sleep 3600")?)?;
    eventually("the container was restarted", || {
        let states = restarts_and_uids(c)?;
        ensure!(states.lines().any(|l| l.split_whitespace().nth(1) == Some("1")), "{states}");
        let ready = c.kubectl(&["get", "deploy", "web", "-o", "jsonpath={.status.readyReplicas}"])?;
        ensure!(ready == "2", "ready: {ready}");
        Ok(())
    })
}

/// A container whose shim is gone can no longer be heard nor be asked how it ended: it is ended and started again.
fn shim(c: &Cluster) -> Result<()> {
    let restarts = || -> Result<u32> {
        let states = restarts_and_uids(c)?;
        Ok(states.lines().filter_map(|l| l.split_whitespace().nth(1)?.parse::<u32>().ok()).sum())
    };
    let before = restarts()?;
    kill(&process(c, "worker", "shim run")?)?;
    eventually("a container without its shim was restarted", || {
        let now = restarts()?;
        ensure!(now == before + 1, "{before} restarts, then {now}");
        let ready = c.kubectl(&["get", "deploy", "web", "-o", "jsonpath={.status.readyReplicas}"])?;
        ensure!(ready == "2", "ready: {ready}");
        Ok(())
    })
}

fn nodes(c: &Cluster) -> Result<()> {
    for (node, verb) in [("worker", "restart"), ("control-plane", "restart"), ("worker", "kill")] {
        c.docker(&[verb, &c.node(node)])?;
        if verb == "kill" {
            c.minik(&["start"])?;
        }
        eventually("everything is back", || {
            let nodes = c.kubectl(&["get", "nodes"])?;
            ensure!(nodes.matches(" Ready ").count() == 2, "{nodes}");
            let ready = c.kubectl(&["get", "deploy", "web", "-o", "jsonpath={.status.readyReplicas}"])?;
            ensure!(ready == "2", "after docker {verb} {node}: ready {ready}");
            Ok(())
        })?;
    }
    c.docker(&["pause", &c.node("worker")])?;
    let answered = c.kubectl(&["get", "nodes"]);
    c.docker(&["unpause", &c.node("worker")])?;
    answered?;
    eventually("a paused node comes back", || {
        let nodes = c.kubectl(&["get", "nodes"])?;
        ensure!(nodes.matches(" Ready ").count() == 2, "{nodes}");
        Ok(())
    })
}
