//! kubectl's verbs, as a person types them.

use std::io::Read;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::Test;
use crate::harness::{Cluster, eventually};

pub const TESTS: &[(&str, Test)] = &[
    ("kubectl::discovery_and_help_work", discovery),
    ("kubectl::nodes_are_ready_and_described", nodes),
    ("kubectl::run_attach_logs_follow_and_cp", run),
    ("kubectl::exec_has_a_terminal", terminal),
    ("kubectl::exec_and_cp_of_older_clients_go_over_spdy", spdy),
    ("kubectl::server_side_apply_diff_label_annotate", apply),
    ("kubectl::job_completes_and_wait_sees_it", job),
    ("kubectl::expose_create_and_events", expose),
    ("kubectl::dependents_go_or_stay_as_told", cascade),
    ("kubectl::taint_cordon_and_drain", drain),
    ("kubectl::auth_can_i_and_tokens", auth),
    ("kubectl::errors_are_those_of_kubernetes", errors),
    ("kubectl::watch_shows_changes", watch),
];

fn contains(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    Ok(())
}

fn discovery(c: &Cluster) -> Result<()> {
    contains(&c.kubectl(&["version"])?, &["Server Version: v1.37"])?;
    contains(&c.kubectl(&["cluster-info"])?, &["Kubernetes control plane", "is running at"])?;
    contains(&c.kubectl(&["api-resources"])?, &["deployments", "deploy", "apps/v1", "networkpolicies", "leases"])?;
    contains(&c.kubectl(&["api-versions"])?, &["apps/v1", "batch/v1", "rbac.authorization.k8s.io/v1"])?;
    contains(
        &c.kubectl(&["explain", "pod.spec.containers"])?,
        &["KIND:", "Pod", "imagePullPolicy", "List of containers"],
    )?;
    contains(&c.kubectl(&["explain", "deployment.spec.strategy.type"])?, &["GROUP:", "apps", "RollingUpdate"])
}

fn nodes(c: &Cluster) -> Result<()> {
    let nodes = c.kubectl(&["get", "nodes", "-o", "wide"])?;
    ensure!(nodes.matches(" Ready ").count() == 3, "not three Ready nodes:\n{nodes}");
    contains(&nodes, &["control-plane", "v1.37", "INTERNAL-IP", "minik"])?;
    let described = c.kubectl(&["describe", "node", &c.node("worker")])?;
    contains(&described, &["Conditions:", "KubeletReady", "Allocatable:", "PodCIDR:", "Non-terminated Pods"])?;
    contains(&c.kubectl(&["get", "leases", "-n", "kube-node-lease"])?, &[&c.node("worker2")])
}

fn run(c: &Cluster) -> Result<()> {
    c.namespace("run")?;
    c.kubectl(&[
        "run",
        "count",
        "-n",
        "run",
        "--image=test/busybox:1",
        "--restart=Never",
        "--",
        "sh",
        "-c",
        "for i in 1 2 3; do echo line $i; sleep 0.3; done",
    ])?;
    c.kubectl(&["wait", "pod/count", "-n", "run", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"])?;
    let logs = c.kubectl(&["logs", "-f", "count", "-n", "run"])?;
    ensure!(logs == "line 1\nline 2\nline 3\n", "logs -f: {logs:?}");
    ensure!(c.kubectl(&["logs", "count", "-n", "run", "--tail=1"])? == "line 3\n", "--tail=1");
    contains(&c.kubectl(&["logs", "count", "-n", "run", "--timestamps"])?, &["Z line 2"])?;
    c.kubectl(&["run", "box", "-n", "run", "--image=test/busybox:1", "--", "sleep", "3600"])?;
    c.kubectl(&["wait", "pod/box", "-n", "run", "--for=condition=Ready", "--timeout=60s"])?;
    let (from, back) = (c.folder().join("there.txt"), c.folder().join("back.txt"));
    std::fs::write(&from, "carried")?;
    c.kubectl(&["cp", "-n", "run", from.to_str().context("UTF-8")?, "box:/tmp/there.txt"])?;
    c.kubectl(&["cp", "-n", "run", "box:/tmp/there.txt", back.to_str().context("UTF-8")?])?;
    ensure!(std::fs::read_to_string(&back)? == "carried", "cp brought something else back");
    let piped = c.kubectl_in(&["exec", "-i", "-n", "run", "box", "--", "cat"], "through standard input")?;
    ensure!(piped == "through standard input", "exec -i: {piped:?}");
    let attached = c.kubectl_in(
        &["run", "once", "-n", "run", "--rm", "-i", "--restart=Never", "--image=test/busybox:1", "--", "cat"],
        "attached\n",
    )?;
    contains(&attached, &["attached"])?;
    c.kubectl(&["delete", "pod", "box", "-n", "run", "--now"])?;
    c.kubectl(&["delete", "namespace", "run", "--wait=false"])?;
    Ok(())
}

/// `script` gives kubectl a terminal, as a person's shell does. The size arrives on a channel of its own, with any
/// server a moment after the command has begun; hence the pause in the command.
fn terminal(c: &Cluster) -> Result<()> {
    c.namespace("terminal")?;
    c.kubectl(&["run", "box", "-n", "terminal", "--image=test/busybox:1", "--", "sleep", "3600"])?;
    c.kubectl(&["wait", "pod/box", "-n", "terminal", "--for=condition=Ready", "--timeout=60s"])?;
    let inner = "kubectl exec -it -n terminal box -- sh -c 'test -t 0 && echo a terminal; sleep 0.5; stty size'";
    let mut command = c.kubectl_command(&[]);
    let path = command.get_envs().map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned))).collect::<Vec<_>>();
    let mut script = std::process::Command::new("script");
    for (key, value) in path {
        script.env(key, value.unwrap_or_default());
    }
    command = script;
    let output =
        command.args(["-qec", &format!("stty rows 33 cols 99; {inner}"), "/dev/null"]).stdin(Stdio::null()).output()?;
    contains(&String::from_utf8_lossy(&output.stdout), &["a terminal", "33 99"])?;
    c.kubectl(&["delete", "namespace", "terminal", "--wait=false"])?;
    Ok(())
}

/// What every client before 1.30 speaks; kubectl does too when it is told to.
fn spdy(c: &Cluster) -> Result<()> {
    const BYTES: usize = 3 << 20;
    c.namespace("spdy")?;
    c.kubectl(&["run", "box", "-n", "spdy", "--image=test/busybox:1", "--", "sleep", "3600"])?;
    c.kubectl(&["wait", "pod/box", "-n", "spdy", "--for=condition=Ready", "--timeout=60s"])?;
    let older = |args: &[&str]| {
        let mut command = c.kubectl_command(args);
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false");
        command
    };
    let output =
        older(&["exec", "-v=8", "-n", "spdy", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]).output()?;
    ensure!(output.status.code() == Some(7), "the exit code got lost: {:?}", output.status);
    ensure!(output.stdout == b"out\n", "standard output: {:?}", String::from_utf8_lossy(&output.stdout));
    contains(&String::from_utf8_lossy(&output.stderr), &["err\n", "SPDY/3.1"])?;
    let mut child = older(&["exec", "-i", "-n", "spdy", "box", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (sent, mut stdin) = (vec![b'm'; BYTES], child.stdin.take().context("piped")?);
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &sent));
    let mut back = Vec::new();
    child.stdout.take().context("piped")?.read_to_end(&mut back)?;
    writer.join().expect("writing does not panic")?;
    ensure!(child.wait()?.success() && back.len() == BYTES, "{} bytes of {BYTES} came back", back.len());
    let (from, to) = (c.folder().join("spdy.txt"), c.folder().join("spdy-back.txt"));
    std::fs::write(&from, "carried by frames")?;
    for (a, b) in [(from.to_str().context("UTF-8")?, "box:/tmp/f"), ("box:/tmp/f", to.to_str().context("UTF-8")?)] {
        ensure!(older(&["cp", "-n", "spdy", a, b]).status()?.success(), "cp {a} {b}");
    }
    ensure!(std::fs::read_to_string(&to)? == "carried by frames", "cp brought something else back");
    c.kubectl(&["delete", "namespace", "spdy", "--wait=false"])?;
    Ok(())
}

fn apply(c: &Cluster) -> Result<()> {
    c.namespace("apply")?;
    let map = |value: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m, namespace: apply}}\ndata: {{k: {value}}}\n")
    };
    c.kubectl_in(&["apply", "--server-side", "-f", "-"], &map("one"))?;
    let again = c.kubectl_in(&["apply", "--server-side", "-f", "-"], &map("two"))?;
    contains(&again, &["serverside-applied"])?;
    let mut command = c.kubectl_command(&["apply", "--server-side", "--field-manager=other", "-f", "-"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    std::io::Write::write_all(child.stdin.as_mut().context("piped")?, map("three").as_bytes())?;
    let conflict = child.wait_with_output()?;
    ensure!(!conflict.status.success(), "another manager took a field without a conflict");
    contains(&String::from_utf8_lossy(&conflict.stderr), &["conflict with \"kubectl\"", ".data.k"])?;
    let path = c.folder().join("map.yaml");
    std::fs::write(&path, map("four"))?;
    let diff = c.kubectl_output(&["diff", "--server-side", "-f", path.to_str().context("UTF-8")?])?;
    ensure!(diff.status.code() == Some(1), "diff exits with 1 when there is one: {:?}", diff.status);
    contains(&String::from_utf8_lossy(&diff.stdout), &["-  k: two", "+  k: four"])?;
    c.kubectl(&["label", "configmap", "m", "-n", "apply", "tier=gold"])?;
    c.kubectl(&["annotate", "configmap", "m", "-n", "apply", "note=kept"])?;
    contains(&c.kubectl(&["get", "cm", "-n", "apply", "-l", "tier=gold", "--show-labels"])?, &["tier=gold"])?;
    // `edit` with an editor that changes one word.
    let mut edit = c.kubectl_command(&["edit", "configmap", "m", "-n", "apply"]);
    let edited = edit.env("KUBE_EDITOR", "sed -i s/two/edited/").output()?;
    ensure!(edited.status.success(), "edit: {}", crate::harness::text(&edited));
    ensure!(
        c.kubectl(&["get", "cm", "m", "-n", "apply", "-o", "jsonpath={.data.k}"])? == "edited",
        "edit changed nothing"
    );
    c.kubectl(&["delete", "namespace", "apply", "--wait=false"])?;
    Ok(())
}

fn job(c: &Cluster) -> Result<()> {
    c.namespace("jobs")?;
    c.kubectl(&["create", "job", "good", "-n", "jobs", "--image=test/busybox:1", "--", "sh", "-c", "echo done"])?;
    c.kubectl(&["wait", "job/good", "-n", "jobs", "--for=condition=Complete", "--timeout=60s"])?;
    ensure!(c.kubectl(&["logs", "job/good", "-n", "jobs"])? == "done\n", "the job's log");
    contains(&c.kubectl(&["get", "job", "good", "-n", "jobs"])?, &["Complete", "1/1"])?;
    c.kubectl(&["delete", "job", "good", "-n", "jobs"])?;
    eventually("the job's pods are gone", || {
        let left = c.kubectl(&["get", "pods", "-n", "jobs", "-o", "name"])?;
        ensure!(left.is_empty(), "left: {left}");
        Ok(())
    })?;
    c.kubectl(&["delete", "namespace", "jobs", "--wait=false"])?;
    Ok(())
}

fn cascade(c: &Cluster) -> Result<()> {
    c.namespace("cascade")?;
    let create =
        || c.kubectl(&["create", "deployment", "d", "-n", "cascade", "--image=minik/hello:none", "--replicas=2"]);
    let left = |kind: &str| c.kubectl(&["get", kind, "-n", "cascade", "-o", "name"]);
    let made = |count: usize| {
        eventually("the Deployment's Pods are made", || {
            let pods = left("pods")?;
            ensure!(pods.lines().count() == count, "{count} Pods were wanted:\n{pods}");
            Ok(())
        })
    };
    create()?;
    made(2)?;
    c.kubectl(&["delete", "deployment", "d", "-n", "cascade", "--cascade=orphan"])?;
    ensure!(left("replicasets")?.lines().count() == 1, "an orphaned ReplicaSet went with its Deployment");
    // The same template again: it is adopted, and nothing is made anew.
    create()?;
    eventually("the orphan is adopted", || {
        let owner =
            c.kubectl(&["get", "rs", "-n", "cascade", "-o", "jsonpath={.items[*].metadata.ownerReferences[0].name}"])?;
        ensure!(owner == "d", "owned by {owner:?}");
        Ok(())
    })?;
    // In the foreground the Deployment is the last to go: kubectl returns when nothing is left.
    c.kubectl(&["delete", "deployment", "d", "-n", "cascade", "--cascade=foreground", "--timeout=60s"])?;
    let rest = format!("{}{}", left("replicasets")?, left("pods")?);
    ensure!(rest.is_empty(), "the Deployment went before:\n{rest}");
    create()?;
    made(2)?;
    c.kubectl(&["delete", "deployment", "d", "-n", "cascade"])?;
    made(0)?;
    c.kubectl(&["delete", "namespace", "cascade", "--wait=false"])?;
    Ok(())
}

fn expose(c: &Cluster) -> Result<()> {
    c.namespace("expose")?;
    c.kubectl(&[
        "create",
        "deployment",
        "web",
        "-n",
        "expose",
        "--image=minik/hello:latest",
        "--port=8080",
        "--replicas=2",
    ])?;
    c.kubectl(&[
        "patch",
        "deployment",
        "web",
        "-n",
        "expose",
        "-p",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"hello","imagePullPolicy":"IfNotPresent"}]}}}}"#,
    ])?;
    c.kubectl(&["expose", "deployment", "web", "-n", "expose", "--port=80"])?;
    c.kubectl(&["rollout", "status", "deployment/web", "-n", "expose", "--timeout=60s"])?;
    eventually("two endpoints", || {
        let slices = c.kubectl(&[
            "get",
            "endpointslices",
            "-n",
            "expose",
            "-o",
            "jsonpath={.items[*].endpoints[*].addresses[0]}",
        ])?;
        ensure!(slices.split_whitespace().count() == 2, "endpoints: {slices}");
        Ok(())
    })?;
    contains(
        &c.kubectl(&["get", "events", "-n", "expose"])?,
        &["ScalingReplicaSet", "SuccessfulCreate", "Scheduled", "Started"],
    )?;
    c.kubectl(&["delete", "namespace", "expose", "--wait=false"])?;
    Ok(())
}

fn drain(c: &Cluster) -> Result<()> {
    c.namespace("drain")?;
    let node = c.node("worker2");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: nowhere, namespace: drain}\nspec:\n  nodeSelector: {disk: unheard-of}\n  \
         containers: [{name: c, image: 'test/busybox:1', command: [sleep, '3600']}]\n".to_string();
    c.apply(&pod)?;
    eventually("the event of a pod that fits nowhere", || {
        let text = c.kubectl(&["describe", "pod", "nowhere", "-n", "drain"])?;
        contains(&text, &["FailedScheduling", "0/3 nodes are available", "didn't match Pod's node affinity/selector"])
    })?;
    c.kubectl(&["taint", "nodes", &node, "minik.dev/test=yes:NoSchedule"])?;
    c.kubectl(&["cordon", &node])?;
    contains(&c.kubectl(&["get", "node", &node])?, &["Ready,SchedulingDisabled"])?;
    // Only this test's own pods are drained: others run on the same nodes.
    c.kubectl(&["drain", &node, "--ignore-daemonsets", "--pod-selector=app=drained", "--timeout=60s"])?;
    c.kubectl(&["uncordon", &node])?;
    c.kubectl(&["taint", "nodes", &node, "minik.dev/test-"])?;
    c.kubectl(&["delete", "namespace", "drain", "--wait=false"])?;
    Ok(())
}

fn auth(c: &Cluster) -> Result<()> {
    c.namespace("auth")?;
    let said = c.kubectl_fails(&[
        "auth",
        "can-i",
        "list",
        "secrets",
        "-n",
        "auth",
        "--as=system:serviceaccount:auth:default",
    ])?;
    ensure!(said.trim() == "no", "can-i: {said}");
    c.kubectl(&["create", "rolebinding", "v", "-n", "auth", "--clusterrole=view", "--serviceaccount=auth:default"])?;
    eventually("the binding counts", || {
        let yes =
            c.kubectl(&["auth", "can-i", "list", "pods", "-n", "auth", "--as=system:serviceaccount:auth:default"])?;
        ensure!(yes.trim() == "yes", "can-i: {yes}");
        Ok(())
    })?;
    contains(&c.kubectl(&["auth", "whoami"])?, &["kubernetes-admin"])?;
    let token = c.kubectl(&["create", "token", "default", "-n", "auth"])?;
    let server = c.kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"])?;
    let bare = c.folder().join("nobody");
    let output = std::process::Command::new("kubectl")
        .env("KUBECONFIG", &bare)
        .args([
            "--insecure-skip-tls-verify",
            "--server",
            &server,
            "--token",
            token.trim(),
            "get",
            "secrets",
            "-n",
            "auth",
        ])
        .output()?;
    let said = crate::harness::text(&output);
    contains(
        &said,
        &["secrets is forbidden: User \"system:serviceaccount:auth:default\" cannot list resource \"secrets\""],
    )?;
    c.kubectl(&["delete", "namespace", "auth", "--wait=false"])?;
    Ok(())
}

fn errors(c: &Cluster) -> Result<()> {
    contains(
        &c.kubectl_fails(&["get", "pod", "nobody"])?,
        &["Error from server (NotFound): pods \"nobody\" not found"],
    )?;
    contains(&c.kubectl_fails(&["get", "nonsense"])?, &["the server doesn't have a resource type \"nonsense\""])?;
    let bad = "apiVersion: v1\nkind: Pod\nmetadata: {name: Bad_Name}\nspec: {containers: []}\n";
    let path = c.folder().join("bad.yaml");
    std::fs::write(&path, bad)?;
    let said = c.kubectl_fails(&["apply", "-f", path.to_str().context("UTF-8")?])?;
    contains(
        &said,
        &[
            "The Pod \"Bad_Name\" is invalid",
            "metadata.name: Invalid value: \"Bad_Name\"",
            "spec.containers: Required value",
        ],
    )?;
    let unknown =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: i, comand: [x]}]}\n";
    std::fs::write(&path, unknown)?;
    let said = c.kubectl_fails(&["apply", "-f", path.to_str().context("UTF-8")?])?;
    contains(&said, &["strict decoding error", "unknown field \"spec.containers[0].comand\""])
}

fn watch(c: &Cluster) -> Result<()> {
    c.namespace("watched")?;
    let mut child = c
        .kubectl_command(&["get", "configmaps", "-n", "watched", "-w", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()?;
    c.kubectl(&["create", "configmap", "late", "-n", "watched"])?;
    let mut seen = String::new();
    let mut pipe = child.stdout.take().context("piped above")?;
    // The watch ends the loop: reading blocks until the line is there, and the whole test has its limit outside.
    while !seen.contains("configmap/late") {
        let mut buffer = [0; 256];
        let n = pipe.read(&mut buffer)?;
        ensure!(n > 0, "the watch ended: {seen}");
        seen += &String::from_utf8_lossy(&buffer[..n]);
    }
    child.kill()?;
    child.wait()?;
    c.kubectl(&["delete", "namespace", "watched", "--wait=false"])?;
    Ok(())
}
