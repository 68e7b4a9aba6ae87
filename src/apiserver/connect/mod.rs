//! Requests that end at a Pod, a Service or a kubelet: log, exec, attach, portforward, proxy.
//!
//! Owns: which requests those are, and which of the files here answers which.
//! Called by: the pipeline, before a body is read: these may be streams and upgrades.
//! Never: looks into what it relays.

mod admit;
pub mod dial;
pub mod headers;
mod kubelet;
pub mod location;
mod pages;
mod pod;
mod proxy;
mod refusal;
pub mod relay;
mod stream;
pub mod websocket;

pub use dial::Dialer;

use std::sync::Arc;

use http::{Method, Response};
use minik_api::Status;

use crate::authn::UserInfo;
use crate::body::Body;
use crate::query::Query;
use crate::route::RequestInfo;
use crate::server::Core;

/// One such request, authorized.
pub struct Arrived<'a> {
    pub method: Method,
    pub headers: http::HeaderMap,
    pub uri: http::Uri,
    pub body: Body,
    /// What the connection becomes when both sides agree to another protocol.
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
    pub info: &'a RequestInfo,
    pub query: &'a Query,
    pub user: &'a UserInfo,
}

pub fn is_connect(info: &RequestInfo) -> bool {
    let subresource = info.subresource.as_str();
    info.group.is_empty()
        && match info.resource.as_str() {
            "pods" => matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy"),
            "services" | "nodes" => subresource == "proxy",
            _ => false,
        }
}

pub async fn handle(
    core: &Arc<Core>,
    parts: &mut http::request::Parts,
    body: Body,
    info: &RequestInfo,
    query: &Query,
    user: &Arc<UserInfo>,
) -> Result<Response<Body>, Status> {
    let proxying = info.subresource == "proxy";
    let of_node = info.resource == "nodes";
    if info.namespace.is_empty() != of_node || (!proxying && !info.rest.is_empty()) {
        return Err(Status::path_unknown());
    }
    let allowed = match info.subresource.as_str() {
        "proxy" => true,
        "log" => parts.method == Method::GET,
        _ => matches!(parts.method, Method::GET | Method::POST),
    };
    if !allowed {
        return Err(Status::method_unknown());
    }
    admit::admit(core, info, query, user).await?;
    let mut headers = std::mem::take(&mut parts.headers);
    headers::drop_credentials(&mut headers);
    let arrived = Arrived {
        method: parts.method.clone(),
        headers,
        uri: parts.uri.clone(),
        body,
        upgrade: parts.extensions.remove::<hyper::upgrade::OnUpgrade>(),
        info,
        query,
        user,
    };
    match info.subresource.as_str() {
        "proxy" => proxy::handle(core, arrived).await,
        "log" => stream::log(core, arrived).await,
        _ => stream::upgrade(core, arrived).await,
    }
}
