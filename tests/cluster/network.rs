//! Services, names and addresses, from pods and from the host.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::Test;
use crate::harness::{Cluster, eventually};

pub const TESTS: &[(&str, Test)] = &[
    ("network::a_headless_service_names_its_pods", headless),
    ("network::a_service_without_pods_refuses_at_once", refused),
    ("network::port_forward_reaches_a_pod_and_a_service", port_forward),
    ("network::session_affinity_keeps_a_client_on_one_pod", affinity),
];

/// `minik/hello` pods behind a Service; `spec` goes into the Service's spec.
fn hello(namespace: &str, replicas: u32, spec: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: hello, namespace: {namespace}}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: hello}}}}\n  template:\n    metadata: {{labels: {{app: hello}}}}\n    spec:\n      \
         containers:\n      - {{name: hello, image: 'minik/hello:latest', imagePullPolicy: IfNotPresent, ports: [{{containerPort: 8080}}], readinessProbe: {{httpGet: {{path: /, port: 8080}}}}}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: hello, namespace: {namespace}}}\nspec:\n  selector: {{app: hello}}\n  \
         ports: [{{port: 80, targetPort: 8080}}]\n{spec}"
    )
}

fn client_pod(c: &Cluster, namespace: &str) -> Result<()> {
    c.kubectl(&["run", "client", "-n", namespace, "--image=test/busybox:1", "--restart=Never", "--", "sleep", "3600"])?;
    c.kubectl(&["wait", "pod/client", "-n", namespace, "--for=condition=Ready", "--timeout=60s"])?;
    Ok(())
}

fn in_client(c: &Cluster, namespace: &str, command: &str) -> Result<String> {
    c.kubectl(&["exec", "-n", namespace, "client", "--", "sh", "-c", command])
}

/// `get HOST:PORT [TIMES]`: what this very executable does in the test image, where it is the client. (Debian's static
/// busybox cannot resolve names outside Debian.)
pub fn get_main() -> Option<i32> {
    let mut args = std::env::args();
    if std::path::Path::new(&args.next()?).file_name()? != "get" {
        return None;
    }
    let address = args.next().unwrap_or_default();
    let times = args.next().and_then(|t| t.parse().ok()).unwrap_or(1);
    for _ in 0..times {
        match http_get(&address) {
            Ok(answer) => println!("{answer}"),
            Err(e) => {
                eprintln!("{address}: {e:#}");
                return Some(1);
            }
        }
    }
    Some(0)
}

/// Whether head and as many bytes as it announces have come.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let announced = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).and_then(|n| n.parse().ok());
    announced.is_some_and(|n: usize| body.len() >= n)
}

/// Body and head of a plain GET; nothing but the standard library, so that no proxy is involved.
pub fn http_get(address: &str) -> Result<String> {
    let mut found = std::net::ToSocketAddrs::to_socket_addrs(address).context("the name does not resolve")?;
    let target = found.next().with_context(|| format!("{address} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !is_whole(&answer) {
        let n = stream.read(&mut chunk)?;
        ensure!(n > 0, "the answer ends early: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..n]);
    }
    Ok(String::from_utf8(answer)?)
}

fn headless(c: &Cluster) -> Result<()> {
    c.namespace("headless")?;
    c.apply(&hello("headless", 2, "  clusterIP: None\n"))?;
    c.kubectl(&["rollout", "status", "deployment/hello", "-n", "headless", "--timeout=60s"])?;
    client_pod(c, "headless")?;
    let addresses =
        c.kubectl(&["get", "pods", "-n", "headless", "-l", "app=hello", "-o", "jsonpath={.items[*].status.podIP}"])?;
    eventually("both pods under the Service's name", || {
        let answer = in_client(c, "headless", "nslookup hello.headless.svc.cluster.local")?;
        for address in addresses.split_whitespace() {
            ensure!(answer.contains(address), "{address} is not in: {answer}");
        }
        Ok(())
    })?;
    let unknown =
        c.kubectl_fails(&["exec", "-n", "headless", "client", "--", "nslookup", "nobody.headless.svc.cluster.local"])?;
    ensure!(unknown.contains("NXDOMAIN") || unknown.contains("can't find"), "an unknown name: {unknown}");
    c.kubectl(&["delete", "namespace", "headless", "--wait=false"])?;
    Ok(())
}

fn refused(c: &Cluster) -> Result<()> {
    c.namespace("refused")?;
    c.apply(&hello("refused", 0, ""))?;
    client_pod(c, "refused")?;
    // A dropped packet would end in a time-out after seconds; a refusal comes at once.
    let said = in_client(c, "refused", "get hello:80 2>&1; true")?;
    ensure!(said.contains("refused"), "no refusal: {said}");
    c.kubectl(&["delete", "namespace", "refused", "--wait=false"])?;
    Ok(())
}

fn port_forward(c: &Cluster) -> Result<()> {
    c.namespace("forward")?;
    c.apply(&hello("forward", 1, ""))?;
    c.kubectl(&["rollout", "status", "deployment/hello", "-n", "forward", "--timeout=60s"])?;
    // Clients before 1.31 speak SPDY; kubectl does too when it is told to.
    for (target, port, websockets) in
        [("deployment/hello", ":8080", "true"), ("service/hello", ":80", "true"), ("service/hello", ":80", "false")]
    {
        let mut child = c
            .kubectl_command(&["port-forward", "-n", "forward", target, port])
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        // Open until the end: kubectl writes a line a connection, and one that finds its reader gone ends it. An
        // earlier form of this test closed it after the first line and saw every connection reset.
        let mut output = std::io::BufReader::new(child.stdout.take().context("piped above")?);
        let mut line = String::new();
        std::io::BufRead::read_line(&mut output, &mut line)?;
        let local = line.strip_prefix("Forwarding from ").and_then(|l| l.split(" ->").next()).map(ToString::to_string);
        let answers = (0..3).map(|_| http_get(local.as_deref().unwrap_or(&line))).collect::<Result<Vec<_>>>();
        child.kill()?;
        child.wait()?;
        for answer in answers? {
            ensure!(answer.contains("200 OK") && answer.contains("hello-"), "{target}: {answer}");
        }
    }
    c.kubectl(&["delete", "namespace", "forward", "--wait=false"])?;
    Ok(())
}

fn affinity(c: &Cluster) -> Result<()> {
    c.namespace("affinity")?;
    c.apply(&hello("affinity", 3, "  sessionAffinity: ClientIP\n"))?;
    c.kubectl(&["rollout", "status", "deployment/hello", "-n", "affinity", "--timeout=60s"])?;
    client_pod(c, "affinity")?;
    let answers = in_client(c, "affinity", "get hello:80 10")?;
    let names =
        c.kubectl(&["get", "pods", "-n", "affinity", "-l", "app=hello", "-o", "jsonpath={.items[*].metadata.name}"])?;
    let reached = names.split_whitespace().filter(|n| answers.contains(*n)).count();
    ensure!(reached == 1, "one client reached {reached} pods:\n{answers}");
    c.kubectl(&["delete", "namespace", "affinity", "--wait=false"])?;
    Ok(())
}
