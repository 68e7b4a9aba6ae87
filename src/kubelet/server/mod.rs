//! The node server on port 10250: logs, exec, attach, port-forward, statistics.
//!
//! Owns: TLS, who is calling, and which path leads where.
//! Called by: the API server on behalf of users; scrapers.
//! Never: answers a caller that the API server does not vouch for.

mod auth;
mod follow;
mod log_line;
mod logs;
mod metrics;
mod node_logs;
mod relay;
mod stats;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use minik_client::{Body, Tasks};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::RunError;
use crate::config::{Config, ServerConfig, StaticComponent};
use crate::context::NodeContext;
use crate::dispatcher::Pods;
use auth::Gate;

/// Connections at a time; each user of exec or logs -f holds one.
const CONNECTIONS_MAX: usize = 4096;

/// A socket that is bound and knows its certificates.
pub struct Listener {
    socket: TcpListener,
    acceptor: TlsAcceptor,
}

struct Server {
    node: Arc<NodeContext>,
    pods: Pods,
    gate: Gate,
    components: Vec<StaticComponent>,
}

pub async fn bind(config: &ServerConfig) -> Result<Listener, RunError> {
    let acceptor = TlsAcceptor::from(Arc::new(tls(config)?));
    let address = SocketAddr::new(config.listen, config.port);
    let socket = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    Ok(Listener { socket, acceptor })
}

fn tls(config: &ServerConfig) -> Result<rustls::ServerConfig, RunError> {
    let wrong = |what| RunError::ServerIdentity { what };
    let certs = |pem: &str| rustls_pemfile::certs(&mut pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = certs(&config.cert_pem).map_err(|_| wrong("certificate"))?;
    let key = rustls_pemfile::private_key(&mut config.key_pem.as_bytes()).ok().flatten();
    let key = key.ok_or_else(|| wrong("key"))?;
    let mut roots = rustls::RootCertStore::empty();
    for cert in certs(&config.client_ca_pem).map_err(|_| wrong("client CA"))? {
        roots.add(cert).map_err(|_| wrong("client CA"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // Clients may come without a certificate and bring a token instead.
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|_| wrong("client CA"))?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for the default protocol versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|_| wrong("certificate and key"))?;
    // Upgrades to SPDY and WebSocket are HTTP/1.1.
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(server)
}

pub fn start(listener: Listener, config: &Config, node: Arc<NodeContext>, pods: Pods, tasks: &Tasks) {
    let gate = Gate::new(config.client.clone(), &config.node_name);
    let server = Arc::new(Server { node, pods, gate, components: config.static_components.clone() });
    let connections = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    let group = tasks.clone();
    tasks.spawn(async move {
        loop {
            let permit = connections.clone().acquire_owned().await.expect("never closed");
            let Ok((stream, _)) = listener.socket.accept().await else { continue };
            let (server, acceptor) = (server.clone(), listener.acceptor.clone());
            group.spawn(async move {
                serve(server, acceptor, stream).await;
                drop(permit);
            });
        }
    });
}

async fn serve(server: Arc<Server>, acceptor: TlsAcceptor, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first()).map(|c| c.to_vec());
    let identity = certificate.as_deref().and_then(auth::user_of_certificate);
    let service = hyper::service::service_fn(move |request| {
        let (server, identity) = (server.clone(), identity.clone());
        async move { Ok::<_, std::convert::Infallible>(handle(&server, identity, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = connection.with_upgrades().await;
}

async fn handle(server: &Server, identity: Option<auth::User>, request: Request<Incoming>) -> Response<Body> {
    let user = match server.gate.authenticate(identity, request.headers()).await {
        Ok(user) => user,
        Err(refusal) => return refusal,
    };
    if let Err(refusal) = server.gate.authorize(&user, request.method(), request.uri().path()).await {
        return refusal;
    }
    route(server, request).await
}

/// The path's segments decide; queries belong to the handlers.
async fn route(server: &Server, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_string();
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let get = request.method() == Method::GET;
    match parts.as_slice() {
        ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => text(StatusCode::OK, "ok"),
        ["pods" | "runningpods"] if get => pods(server),
        ["containerLogs", namespace, pod, container] if get => {
            logs::serve(server, namespace, pod, container, request.uri().query()).await
        }
        [verb @ ("exec" | "attach" | "run"), namespace, pod, container]
        | [verb @ ("exec" | "attach" | "run"), namespace, pod, _, container] => {
            let place = relay::Place { namespace, pod, container };
            relay::container(server, verb, &place, request).await
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            relay::port_forward(server, namespace, pod, request).await
        }
        ["stats", "summary"] | ["stats"] => stats::summary(server).await,
        ["metrics", "resource"] => metrics::resource(server).await,
        ["metrics"] | ["metrics", "cadvisor" | "probes"] => metrics::kubelet(server),
        ["logs", rest @ ..] if get => node_logs::serve(server, rest),
        ["configz"] => json(&serde_json::json!({"kubeletconfig": {
            "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "clusterDomain": server.node.dns.domain, "clusterDNS": server.node.dns.servers,
            "containerLogMaxSize": "10Mi", "containerLogMaxFiles": 5, "cgroupDriver": "cgroupfs",
        }})),
        _ => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

fn pods(server: &Server) -> Response<Body> {
    let mut items: Vec<serde_json::Value> = Vec::new();
    for shown in server.pods.all() {
        items.push(serde_json::json!({
            "metadata": shown.pod.metadata, "spec": shown.pod.spec, "status": shown.status,
        }));
    }
    json(&serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(full(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json(body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(full(body.to_string()));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Values of a query, decoded.
fn query(query: Option<&str>) -> Vec<(String, String)> {
    let pairs = query.unwrap_or_default().split('&').filter(|p| !p.is_empty());
    pairs.map(|p| p.split_once('=').unwrap_or((p, ""))).map(|(k, v)| (decode(k), decode(v))).collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], escaped) {
            (_, Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', None) => {
                out.push(b' ');
                at += 1;
            }
            (byte, None) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_in_order() {
        let got = query(Some("command=sh&command=-c&command=echo+a%26b&tty=1&x"));
        let text: Vec<String> = got.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(text, ["command=sh", "command=-c", "command=echo a&b", "tty=1", "x="]);
    }
}
