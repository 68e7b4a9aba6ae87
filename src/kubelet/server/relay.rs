//! exec, attach and port-forward: the runtime serves them, this node passes the bytes on.
//!
//! Owns: asking the runtime for the URL and joining the two connections.
//! Called by: the node server.
//! Never: understands what goes through: SPDY and WebSocket end at the runtime's streaming server.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_cri::v1 as cri;
use minik_client::Body;
use tokio::net::TcpStream;

use super::{Server, full, query, text};
use crate::observed::State;

pub struct Place<'a> {
    pub namespace: &'a str,
    pub pod: &'a str,
    pub container: &'a str,
}

type Refusal = (StatusCode, String);

fn container_id(server: &Server, place: &Place) -> Result<String, Refusal> {
    let shown = server.pods.find(place.namespace, place.pod);
    let shown = shown.ok_or_else(|| (StatusCode::NOT_FOUND, "pod does not exist".to_string()))?;
    let latest = shown.seen.latest(place.container);
    latest
        .filter(|c| c.state == State::Running)
        .map(|c| c.id.clone())
        .ok_or_else(|| (StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({:?})", place.container)))
}

/// `exec`, `attach` and `run` (a command whose output is the answer).
pub async fn container(server: &Server, verb: &str, place: &Place<'_>, request: Request<Incoming>) -> Response<Body> {
    let id = match container_id(server, place) {
        Ok(id) => id,
        Err((status, message)) => return text(status, message),
    };
    let pairs = query(request.uri().query());
    let flag =
        |names: [&str; 2]| pairs.iter().any(|(n, v)| names.contains(&n.as_str()) && matches!(v.as_str(), "1" | "true"));
    let values = |name: &str| pairs.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect::<Vec<_>>();
    let mut runtime = server.node.cri.runtime();
    let (stdin, stdout, stderr, tty) =
        (flag(["input", "stdin"]), flag(["output", "stdout"]), flag(["error", "stderr"]), flag(["tty", "tty"]));
    let url = match verb {
        "exec" => {
            let stderr = stderr && !tty;
            let request = cri::ExecRequest { container_id: id, cmd: values("command"), tty, stdin, stdout, stderr };
            runtime.exec(request).await.map(|a| a.into_inner().url)
        }
        "attach" => {
            let stderr = stderr && !tty;
            let request = cri::AttachRequest { container_id: id, stdin, tty, stdout, stderr };
            runtime.attach(request).await.map(|a| a.into_inner().url)
        }
        _ => return run(runtime, id, values("cmd")).await,
    };
    match url {
        Ok(url) => pass_on(&url, request).await,
        Err(status) => text(StatusCode::INTERNAL_SERVER_ERROR, status.message()),
    }
}

async fn run(mut runtime: crate::cri::RuntimeClient, container_id: String, cmd: Vec<String>) -> Response<Body> {
    let cmd = match cmd.as_slice() {
        [line] => line.split(' ').map(String::from).collect(),
        _ => cmd,
    };
    match runtime.exec_sync(cri::ExecSyncRequest { container_id, cmd, timeout: 0 }).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            Response::new(full([answer.stdout, answer.stderr].concat()))
        }
        Err(status) => text(StatusCode::INTERNAL_SERVER_ERROR, status.message()),
    }
}

pub async fn port_forward(server: &Server, namespace: &str, pod: &str, request: Request<Incoming>) -> Response<Body> {
    let Some(shown) = server.pods.find(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist");
    };
    let Some(sandbox) = shown.seen.sandbox().filter(|s| s.ready) else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot find sandbox to port forward for pod {pod:?}"));
    };
    let pairs = query(request.uri().query());
    let ports = pairs.iter().filter(|(n, _)| n == "port" || n == "ports").filter_map(|(_, v)| v.parse().ok());
    let asked = cri::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port: ports.collect() };
    match server.node.cri.runtime().port_forward(asked).await {
        Ok(answer) => pass_on(&answer.into_inner().url, request).await,
        Err(status) => text(StatusCode::INTERNAL_SERVER_ERROR, status.message()),
    }
}

/// Sends the request on as it came and, once the other side agrees to switch protocols, copies both ways.
async fn pass_on(url: &str, request: Request<Incoming>) -> Response<Body> {
    match try_pass_on(url, request).await {
        Ok(response) => response,
        Err(why) => {
            tracing::warn!(url, why, "the runtime's streaming server");
            text(StatusCode::BAD_GATEWAY, format!("error talking to the container runtime: {why}"))
        }
    }
}

async fn try_pass_on(url: &str, mut request: Request<Incoming>) -> Result<Response<Body>, String> {
    let target: Uri = url.parse().map_err(|e| format!("{url:?} is no URL: {e}"))?;
    let authority = target.authority().ok_or_else(|| format!("{url:?} names no host"))?.clone();
    let stream = TcpStream::connect(authority.as_str()).await.map_err(|e| e.to_string())?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection.with_upgrades());

    let from_client = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    parts.uri = target.path_and_query().map_or(Uri::from_static("/"), |p| {
        Uri::builder().path_and_query(p.clone()).build().expect("it came from a URI")
    });
    parts.extensions = http::Extensions::new();
    let host = HeaderValue::from_str(authority.as_str()).map_err(|e| e.to_string())?;
    parts.headers.insert("host", host);
    // Credentials were for this node.
    parts.headers.remove("authorization");
    let mut response = sender.send_request(Request::from_parts(parts, body)).await.map_err(|e| e.to_string())?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(|body| body.map_err(minik_client::BoxError::from).boxed_unsync()));
    }
    let from_runtime = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        let (Ok(client), Ok(runtime)) = tokio::join!(from_client, from_runtime) else { return };
        let (mut client, mut runtime) = (TokioIo::new(client), TokioIo::new(runtime));
        let _ = tokio::io::copy_bidirectional(&mut client, &mut runtime).await;
    });
    let (parts, _) = response.into_parts();
    Ok(Response::from_parts(parts, full(Bytes::new())))
}
