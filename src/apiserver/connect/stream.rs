//! Log, exec, attach and port-forward of a Pod: its kubelet serves them.
//!
//! Owns: the way from a Pod's name to its kubelet's path, and what of the kubelet's answer the client sees.
//! Called by: `connect`.
//! Never: waits for the end of a stream.

use std::sync::Arc;

use http::{Request, Response, StatusCode, header};
use minik_api::{Status, object, resources};
use serde_json::Value;

use super::dial::{Security, join};
use super::kubelet::{self, Kubelet};
use super::{Arrived, headers, pod, refusal, relay, websocket};
use crate::authz::{self, Attributes, ResourceTarget, Target};
use crate::body::{self, Body};
use crate::reply;
use crate::server::Core;

/// What of a kubelet's error text is shown.
const ERROR_BYTES_MAX: usize = 50_000;

fn find(core: &Core, arrived: &Arrived<'_>) -> Result<Arc<Value>, Status> {
    let (namespace, name) = (arrived.info.namespace.as_str(), arrived.info.name.as_str());
    core.objects.get(resources::PODS, namespace, name).ok_or_else(|| Status::not_found("pods", name))
}

/// A failure that has no reason of Kubernetes' own.
fn failed(message: String) -> Status {
    Status::new(500, "", message)
}

fn path(first: &str, pod: &Value, container: &str, query: &str) -> String {
    let (namespace, name) = (object::namespace(pod), object::name(pod));
    let container = if container.is_empty() { String::new() } else { format!("/{container}") };
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    format!("/{first}/{namespace}/{name}{container}{query}")
}

pub async fn log(core: &Arc<Core>, arrived: Arrived<'_>) -> Result<Response<Body>, Status> {
    let name = arrived.info.name.as_str();
    let query = pod::log_query(name, arrived.query)?;
    let pod = find(core, &arrived)?;
    let container = pod::container(&pod, arrived.query.get("container"))?;
    let Some(node) = pod::assigned(&pod) else {
        // Nothing can have been written yet, which is no error.
        return Ok(reply::raw(StatusCode::NO_CONTENT.as_u16(), "text/plain", ""));
    };
    let place = kubelet::of_node(core.objects.as_ref(), node)?;
    let path = path("containerLogs", &pod, &container, &query);
    let security = match arrived.query.flag("insecureSkipTLSVerifyBackend") {
        true => Security::Unverified,
        false => Security::Kubelet,
    };
    let url = format!("https://{}{path}", join(&place.host, place.port));
    let unreachable = |why: String| failed(format!("Get {url:?}: {why}"));
    let connection =
        core.dialer.open(security, &place.host, place.port).await.map_err(|e| unreachable(e.to_string()))?;
    let request = Request::builder()
        .uri(&path)
        .header(header::HOST, join(&place.host, place.port))
        .body(body::empty())
        .map_err(|e| failed(e.to_string()))?;
    let response = relay::send(core, connection, request).await.map_err(|e| unreachable(e.to_string()))?;
    if !matches!(response.status().as_u16(), 200..=206) {
        return Err(log_refused(name, response).await);
    }
    let mut response = relay::pass_back(response);
    let plain = http::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    match (websocket::asked(&arrived.headers), arrived.upgrade) {
        (Some(protocol), Some(client)) => {
            Ok(websocket::tell(core, client, &arrived.headers, protocol, response.into_body()))
        }
        _ => Ok(response),
    }
}

async fn text_of(response: Response<hyper::body::Incoming>) -> String {
    let relayed = relay::pass_back(response);
    let bytes = body::read(relayed.into_body()).await.unwrap_or_default();
    String::from_utf8_lossy(&bytes[..bytes.len().min(ERROR_BYTES_MAX)]).into_owned()
}

/// The kubelet's plain text as the error it means.
async fn log_refused(name: &str, response: Response<hyper::body::Incoming>) -> Status {
    let code = response.status().as_u16();
    let text = text_of(response).await;
    log_status(name, code, text)
}

fn log_status(name: &str, code: u16, text: String) -> Status {
    match code {
        400 => Status::bad_request(text),
        404 => {
            let mut status = Status::not_found("pods/log", name);
            status.message = format!("the server could not find the requested resource ( pods/log {name})");
            status
        }
        500 => Status::internal(text),
        401 => Status::new(401, "Unauthorized", "the server has asked for the client to provide credentials"),
        403 => Status::forbidden("", "", &text),
        code => Status::new(
            code,
            "InternalError",
            format!("an error on the server ({text:?}) has prevented the request from succeeding ( pods/log {name})"),
        ),
    }
}

/// exec, attach, portforward.
pub async fn upgrade(core: &Arc<Core>, mut arrived: Arrived<'_>) -> Result<Response<Body>, Status> {
    may_create(core, &arrived)?;
    let pod = find(core, &arrived)?;
    let (path, place) = target(core, &arrived, &pod)?;
    let client = match arrived.upgrade.take() {
        Some(client) if headers::is_upgrade(&arrived.headers) => client,
        _ => return Err(Status::bad_request("Upgrade request required")),
    };
    let undialed = |why: String| failed(format!("error dialing backend: {why}"));
    let connection =
        core.dialer.open(Security::Kubelet, &place.host, place.port).await.map_err(|e| undialed(e.to_string()))?;
    let mut request = Request::builder()
        .method(arrived.method.clone())
        .uri(path)
        .body(arrived.body)
        .map_err(|e| failed(e.to_string()))?;
    *request.headers_mut() = arrived.headers.clone();
    let host = http::HeaderValue::from_str(&join(&place.host, place.port)).map_err(|e| failed(e.to_string()))?;
    request.headers_mut().insert(header::HOST, host);
    let response = relay::send(core, connection, request).await.map_err(|e| undialed(e.to_string()))?;
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => Ok(relay::switch(core, client, response)),
        code if code.as_u16() < 400 => Err(failed(format!("invalid upgrade response: status code {}", code.as_u16()))),
        _ if refusal::speaks_channels(&arrived.headers) => {
            let text = text_of(response).await;
            let status = Status::internal(format!("unable to upgrade connection: {}", text.trim_end()));
            Ok(refusal::tell(core, client, &arrived.headers, &status))
        }
        // A SPDY client words the kubelet's text itself.
        _ => Ok(relay::pass_back(response)),
    }
}

fn target(core: &Core, arrived: &Arrived<'_>, found: &Value) -> Result<(String, Kubelet), Status> {
    let subresource = arrived.info.subresource.as_str();
    let (first, container, query) = match subresource {
        "portforward" => ("portForward", String::new(), pod::ports_query(arrived.query)?),
        _ => {
            let container = pod::container(found, arrived.query.get("container"))?;
            (subresource, container, pod::stream_query(arrived.query))
        }
    };
    let place = kubelet::of_node(core.objects.as_ref(), pod::host(found)?)?;
    Ok((path(first, found, &container, &query), place))
}

/// A WebSocket always comes as a GET, which must not make a right to read a right to run commands.
fn may_create(core: &Core, arrived: &Arrived<'_>) -> Result<(), Status> {
    if arrived.info.verb == "create" {
        return Ok(());
    }
    let info = arrived.info;
    let target = ResourceTarget {
        group: &info.group,
        version: &info.version,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        ..ResourceTarget::default()
    };
    let attributes = Attributes { user: arrived.user, verb: "create", target: Target::Resource(target) };
    let decision = core.authorizer.authorize(&attributes);
    if decision.is_allowed() { Ok(()) } else { Err(authz::forbidden(&attributes, decision.reason())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_kubelet_is_asked_by_namespace_pod_and_container() {
        let pod = json!({"metadata": {"namespace": "default", "name": "p"}});
        assert_eq!(path("exec", &pod, "c", "command=ls"), "/exec/default/p/c?command=ls");
        assert_eq!(path("portForward", &pod, "", ""), "/portForward/default/p");
    }

    #[test]
    fn a_refusal_of_the_kubelet_becomes_a_status() {
        let waiting = "container \"c\" in pod \"p\" is waiting to start: ContainerCreating";
        let status = log_status("p", 400, waiting.into());
        assert_eq!((status.code, status.reason.as_str(), status.message.as_str()), (400, "BadRequest", waiting));
        let missing = log_status("p", 404, String::new());
        assert_eq!(missing.message, "the server could not find the requested resource ( pods/log p)");
    }
}
