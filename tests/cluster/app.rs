//! The main job: an application of several objects comes up, is looked at, changed and taken down.

use anyhow::{Context, Result, ensure};

use crate::Test;
use crate::harness::{Cluster, eventually};

pub const TESTS: &[(&str, Test)] = &[("app::a_deployment_behind_a_service_lives_its_whole_life", whole_life)];

const APP: &str = include_str!("app.yaml");

fn whole_life(c: &Cluster) -> Result<()> {
    let created = c.apply(APP)?;
    ensure!(created.contains("deployment.apps/web created"), "apply said: {created}");
    c.kubectl(&["rollout", "status", "deployment/web", "-n", "shop", "--timeout=60s"])?;
    looked_at(c)?;
    inside(c)?;
    answers_everywhere(c)?;
    heals(c)?;
    changed(c)?;
    ensure!(c.apply(APP)?.contains("service/web unchanged"), "a second apply changed the Service");
    c.kubectl(&["delete", "namespace", "shop", "--timeout=60s"])?;
    let gone = c.kubectl_fails(&["get", "namespace", "shop"])?;
    ensure!(gone.contains("Error from server (NotFound): namespaces \"shop\" not found"), "said: {gone}");
    Ok(())
}

fn looked_at(c: &Cluster) -> Result<()> {
    let pods = c.kubectl(&["get", "pods", "-n", "shop", "-l", "app=web", "-o", "wide"])?;
    ensure!(pods.matches("2/2").count() == 6, "not six ready pods:\n{pods}");
    let nodes = c.kubectl(&["get", "pods", "-n", "shop", "-o", "jsonpath={.items[*].spec.nodeName}"])?;
    let distinct: std::collections::BTreeSet<&str> = nodes.split_whitespace().collect();
    ensure!(distinct.len() == 2, "six pods should spread over both workers: {nodes}");
    for kind in ["deployment/web", "service/web", "configmap/settings", "secret/login"] {
        let text = c.kubectl(&["describe", kind, "-n", "shop"])?;
        ensure!(text.contains("Name:") && text.contains("shop"), "describe {kind}: {text}");
    }
    // kubectl shows events only when it describes one object.
    let pod = c.kubectl(&["describe", &first_pod(c)?, "-n", "shop"])?;
    for reason in ["Scheduled", "Pulled", "Created", "Started"] {
        ensure!(pod.contains(reason), "describe shows no event {reason}:\n{pod}");
    }
    let columns = c.kubectl(&[
        "get",
        "deploy",
        "web",
        "-n",
        "shop",
        "-o",
        "custom-columns=N:.metadata.name,R:.status.readyReplicas",
    ])?;
    ensure!(columns.contains("web") && columns.contains('6'), "custom columns: {columns}");
    Ok(())
}

fn first_pod(c: &Cluster) -> Result<String> {
    let pods = c.kubectl(&["get", "pods", "-n", "shop", "-l", "app=web", "-o", "name"])?;
    pods.lines().next().map(ToString::to_string).context("there is no pod")
}

fn inside(c: &Cluster) -> Result<()> {
    let pod = first_pod(c)?;
    let run = |command: &str| c.kubectl(&["exec", "-n", "shop", &pod, "-c", "side", "--", "sh", "-c", command]);
    ensure!(run("cat /etc/settings/colour")? == "green", "the ConfigMap is not in its volume");
    ensure!(run("cat /etc/login/password")? == "s3cret", "the Secret is not in its volume");
    ensure!(run("stat -L -c %a /etc/login/password")?.trim() == "400", "defaultMode is not kept");
    ensure!(run("touch /scratch/x && ls /scratch")?.trim() == "x", "the emptyDir is not writable");
    let failed = c.kubectl_output(&["exec", "-n", "shop", &pod, "-c", "side", "--", "sh", "-c", "exit 7"])?;
    ensure!(failed.status.code() == Some(7), "exec must hand on the exit code: {:?}", failed.status);
    let logs = c.kubectl(&["logs", "-n", "shop", &pod, "-c", "side"])?;
    ensure!(logs == "side is up\n", "logs: {logs:?}");
    Ok(())
}

/// From a pod by cluster address and by each form of the name, spread over pods; from the host by NodePort.
fn answers_everywhere(c: &Cluster) -> Result<()> {
    let pod = first_pod(c)?;
    let address = c.kubectl(&["get", "service", "web", "-n", "shop", "-o", "jsonpath={.spec.clusterIP}"])?;
    for host in [address.as_str(), "web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local"] {
        let target = format!("{host}:80");
        let answer = c.kubectl(&["exec", "-n", "shop", &pod, "-c", "side", "--", "get", &target])?;
        ensure!(answer.contains("web-"), "{target} answered: {answer}");
    }
    let answers = c.kubectl(&["exec", "-n", "shop", &pod, "-c", "side", "--", "get", "web:80", "40"])?;
    let names =
        c.kubectl(&["get", "pods", "-n", "shop", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"])?;
    let reached = names.split_whitespace().filter(|n| answers.contains(*n)).count();
    ensure!(reached >= 4, "40 requests reached only {reached} of 6 pods:\n{answers}");
    let port = c.kubectl(&["get", "service", "web", "-n", "shop", "-o", "jsonpath={.spec.ports[0].nodePort}"])?;
    let nodes =
        c.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].status.addresses[?(@.type==\"InternalIP\")].address}"])?;
    for node in nodes.split_whitespace() {
        let answer = crate::network::http_get(&format!("{node}:{port}"))?;
        ensure!(answer.contains("web-"), "NodePort on {node}: {answer}");
    }
    Ok(())
}

fn heals(c: &Cluster) -> Result<()> {
    let pod = first_pod(c)?;
    c.kubectl(&["delete", &pod, "-n", "shop", "--now"])?;
    eventually("a new pod for the deleted one", || {
        let ready = c.kubectl(&["get", "deploy", "web", "-n", "shop", "-o", "jsonpath={.status.readyReplicas}"])?;
        let pods = c.kubectl(&["get", "pods", "-n", "shop", "-l", "app=web", "-o", "name"])?;
        ensure!(ready == "6" && !pods.contains(&pod), "ready {ready}, pods {pods}");
        Ok(())
    })
}

fn changed(c: &Cluster) -> Result<()> {
    let n = |args: &[&str]| c.kubectl(&[args, &["-n", "shop"]].concat());
    n(&["scale", "deployment/web", "--replicas=2"])?;
    n(&["set", "env", "deployment/web", "VERSION=2"])?;
    n(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let history = n(&["rollout", "history", "deployment/web"])?;
    ensure!(history.lines().filter(|l| l.starts_with(|c: char| c.is_ascii_digit())).count() == 2, "history: {history}");
    n(&["rollout", "undo", "deployment/web"])?;
    n(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let env = n(&["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].env[*].name}"])?;
    ensure!(!env.contains("VERSION"), "undo left: {env}");
    n(&["rollout", "restart", "deployment/web"])?;
    n(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    n(&["patch", "deployment", "web", "--type=json", "-p", r#"[{"op":"replace","path":"/spec/replicas","value":3}]"#])?;
    n(&["patch", "deployment", "web", "--type=merge", "-p", r#"{"metadata":{"annotations":{"a":"merge"}}}"#])?;
    n(&[
        "patch",
        "deployment",
        "web",
        "-p",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","terminationMessagePolicy":"FallbackToLogsOnError"}]}}}}"#,
    ])?;
    let containers = n(&["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[*].name}"])?;
    ensure!(containers == "web side", "a strategic patch lost a container: {containers}");
    Ok(())
}
