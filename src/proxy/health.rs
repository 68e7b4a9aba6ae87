//! Answers load balancers that ask whether this node has endpoints, and whoever asks whether the proxy lives.
//!
//! Owns: one listener per `healthCheckNodePort`, and `/healthz` (kube-proxy's port 10256).
//! Called by: the sync loop, after every applied plan.
//! Never: decides what is healthy; it is told.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::ruleset::Health;

/// A client that has not sent its request after this long is let go.
const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// As kube-proxy.
const LISTEN_RETRY: std::time::Duration = std::time::Duration::from_secs(5);

/// The listeners there are.
#[derive(Default)]
pub struct HealthPorts {
    ports: BTreeMap<u16, Listening>,
}

struct Listening {
    state: watch::Sender<Health>,
    task: AbortHandle,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HealthPorts {
    /// Opens, changes and closes listeners so that they are those wanted. A port that cannot be opened is logged, and
    /// tried again with the next plan.
    pub async fn update(&mut self, wanted: &BTreeMap<u16, Health>) {
        self.ports.retain(|port, _| wanted.contains_key(port));
        for (port, health) in wanted {
            if let Some(listening) = self.ports.get(port) {
                listening.state.send_if_modified(|state| {
                    let differs = state != health;
                    state.clone_from(health);
                    differs
                });
                continue;
            }
            match TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).await {
                Ok(listener) => {
                    let (state, receiver) = watch::channel(health.clone());
                    let task = tokio::spawn(serve(listener, move || service_answer(&receiver.borrow()))).abort_handle();
                    self.ports.insert(*port, Listening { state, task });
                }
                Err(error) => tracing::warn!(
                    port, %error, namespace = health.namespace, service = health.service,
                    "could not listen on a health check port"
                ),
            }
        }
    }
}

/// Serves `/healthz`; `ready` turns true when the first plan was applied. A port that is taken is no reason to stop
/// serving Services: it is tried again.
pub async fn serve_healthz(address: SocketAddr, ready: watch::Receiver<bool>) {
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => tracing::warn!(%address, %error, "could not listen for health checks; will retry"),
        }
        tokio::time::sleep(LISTEN_RETRY).await;
    };
    serve(listener, move || {
        let status = if *ready.borrow() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        answer(status, json!({"nodeEligible": true, "healthy": status == StatusCode::OK}).to_string())
    })
    .await;
}

fn service_answer(health: &Health) -> Response<Full<Bytes>> {
    let status = if health.local_endpoints > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "service": {"namespace": health.namespace, "name": health.service},
        "localEndpoints": health.local_endpoints,
        "serviceProxyHealthy": true,
    });
    let mut response = answer(status, body.to_string());
    let weight = http::HeaderValue::from(health.local_endpoints);
    response.headers_mut().insert("X-Load-Balancing-Endpoint-Weight", weight);
    response
}

fn answer(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
    response
}

async fn serve(listener: TcpListener, answer: impl Fn() -> Response<Full<Bytes>> + Clone + Send + 'static) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: it passes, and spinning on it would not help.
                tracing::warn!(%error, "a health check connection was not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |_: Request<Incoming>| std::future::ready(Ok::<_, Infallible>(answer())));
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT).keep_alive(false);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a health check connection broke");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(port: u16) -> std::io::Result<String> {
        let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    #[tokio::test]
    async fn a_load_balancer_learns_how_many_endpoints_the_node_has() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut ports = HealthPorts::default();
        let health = |local_endpoints| Health { namespace: "a".into(), service: "web".into(), local_endpoints };
        ports.update(&[(port, health(0))].into()).await;
        let text = ask(port).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 503"), "{text}");
        ports.update(&[(port, health(2))].into()).await;
        let text = ask(port).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("x-load-balancing-endpoint-weight: 2"), "{text}");
        assert!(text.contains(r#""localEndpoints":2"#) && text.contains(r#""name":"web""#), "{text}");
    }
}
