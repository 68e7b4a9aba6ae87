//! Calling a webhook over TLS.
//!
//! Owns: where a webhook is (URL or Service), whom it must prove to be, and the limits on time and size.
//! Called by: the dispatch of webhooks; the conversion of custom resources.
//! Never: understands what is said.

use std::time::Duration;

use futures::FutureExt;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use minik_api::resources;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::objects::Objects;
use crate::trust;

/// Of calls that have no limit of their own; upstream's default for webhooks.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What a webhook may answer at most.
const ANSWER_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("{0}")]
    Place(String),
    #[error("Post {url:?}: {what}")]
    Failed { url: String, what: String },
    #[error("the server rejected our request for an unknown reason: {0}")]
    Code(u16),
}

/// Where a `clientConfig` leads.
struct Place {
    /// As messages show it.
    url: String,
    /// `host:port` that is dialled.
    dial: String,
    /// Name the certificate must be for.
    name: String,
    path: String,
}

fn place(config: &Value, objects: &dyn Objects, seconds: Option<i64>) -> Result<Place, CallError> {
    let service = &config["service"];
    if service.is_object() {
        return service_place(service, objects, seconds);
    }
    let url = config["url"].as_str().unwrap_or("");
    let wrong = || CallError::Place(format!("webhook has no valid url or service: {url:?}"));
    let uri: http::Uri = url.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_string();
    let port = uri.port_u16().unwrap_or(443);
    let dial = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let separator = if uri.query().is_some() { '&' } else { '?' };
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let timeout = seconds.map(|s| format!("{separator}timeout={s}s")).unwrap_or_default();
    Ok(Place { url: format!("{url}{timeout}"), dial, name: host, path: format!("{path}{timeout}") })
}

fn service_place(service: &Value, objects: &dyn Objects, seconds: Option<i64>) -> Result<Place, CallError> {
    let text = |key: &str| service[key].as_str().unwrap_or("");
    let (namespace, name) = (text("namespace"), text("name"));
    let port = service["port"].as_i64().unwrap_or(443);
    let host = format!("{name}.{namespace}.svc");
    let timeout = seconds.map(|s| format!("?timeout={s}s")).unwrap_or_default();
    let path = format!("/{}{timeout}", text("path").trim_start_matches('/'));
    let url = format!("https://{host}:{port}{path}");
    let failed = |what: String| CallError::Failed { url: url.clone(), what };
    let found = objects.get(resources::SERVICES, namespace, name);
    let found = found.ok_or_else(|| failed(format!("service {name:?} not found")))?;
    let dial = match found["spec"]["type"].as_str() {
        Some("ExternalName") => format!("{}:{port}", found["spec"]["externalName"].as_str().unwrap_or("")),
        _ => match found["spec"]["clusterIP"].as_str() {
            Some(ip) if !ip.is_empty() && ip != "None" => format!("{ip}:{port}"),
            _ => return Err(failed(format!("no cluster IP for service {name:?}"))),
        },
    };
    Ok(Place { dial, name: host, path, url })
}

/// Posts `body` and answers the JSON that comes back. A webhook that may choose its time is told the limit in its URL.
pub async fn call(
    config: &Value,
    objects: &dyn Objects,
    seconds: Option<i64>,
    body: &Value,
) -> Result<Value, CallError> {
    let place = place(config, objects, seconds)?;
    let failed = |what: String| CallError::Failed { url: place.url.clone(), what };
    let limit = seconds.map_or(TIMEOUT, |s| Duration::from_secs(s.unsigned_abs()));
    let ca = config["caBundle"].as_str().unwrap_or("");
    // Beside the writes that may lead here: most of them call nobody, and each would carry its room.
    match tokio::time::timeout(limit, exchange(&place, ca, body).boxed()).await {
        Err(_) => Err(failed("context deadline exceeded".into())),
        Ok(Err(what)) => Err(failed(what)),
        Ok(Ok((200, bytes))) => {
            serde_json::from_slice(&bytes).map_err(|e| failed(format!("the answer is no JSON: {e}")))
        }
        Ok(Ok((code, _))) => Err(CallError::Code(code)),
    }
}

async fn exchange(place: &Place, ca: &str, body: &Value) -> Result<(u16, Bytes), String> {
    let stream = TcpStream::connect(&place.dial).await.map_err(|error| {
        let what = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_string(),
            std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_string(),
            _ => error.to_string(),
        };
        format!("dial tcp {}: {what}", place.dial)
    })?;
    // One small request: waiting to fill a packet only costs time.
    let _ = stream.set_nodelay(true);
    let name = ServerName::try_from(place.name.clone()).map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(trust::of_bundle(ca, None)?);
    let stream = connector.connect(name, stream).await.map_err(|e| format!("tls: {e}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let request = http::Request::builder()
        .method(http::Method::POST)
        .uri(&place.path)
        .header(http::header::HOST, &place.name)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::ACCEPT, "application/json, */*")
        .header(http::header::USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|e| e.to_string())?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let code = response.status().as_u16();
        let limited = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let bytes = limited.collect().await.map_err(|e| e.to_string())?.to_bytes();
        Ok((code, bytes))
    };
    // The connection lives as long as the exchange and ends with it.
    tokio::select! {
        outcome = talk => outcome,
        ended = connection => Err(ended.err().map_or_else(|| "connection closed".into(), |e| e.to_string())),
    }
}
