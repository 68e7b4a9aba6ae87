//! Requests that end at a Pod, a Service or a kubelet: log, exec, attach, portforward, proxy.
//!
//! Owns: which requests those are.
//! Called by: the pipeline, before a body is read: these may be streams and upgrades.
//! Never: looks into what it relays.

use std::sync::Arc;

use http::Response;
use minik_api::Status;

use crate::authn::UserInfo;
use crate::body::Body;
use crate::catalog::Served;
use crate::query::Query;
use crate::route::RequestInfo;
use crate::server::Core;

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
    served: Arc<Served>,
) -> Result<Response<Body>, Status> {
    let _ = (core, parts, body, info, query, user, served);
    Err(Status::new(501, "NotImplemented", "relaying to kubelets is not built yet"))
}
