//! A connection's meeting with admission.
//!
//! Owns: the options of exec, attach, port-forward and proxy as the object that webhooks and policies see.
//! Called by: `connect`, before anybody is dialled.
//! Never: asks about a log, which is read and not connected to.

use std::sync::Arc;

use minik_api::Status;
use minik_api::registry::GroupVersionKind;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::admission::{Operation, Options, Review};
use crate::authn::UserInfo;
use crate::query::Query;
use crate::route::RequestInfo;
use crate::server::Core;

/// Asks; what the plugins warn about has no place in the answer of a stream.
pub async fn admit(core: &Core, info: &RequestInfo, query: &Query, user: &Arc<UserInfo>) -> Result<(), Status> {
    let Some(kind) = kind(info) else { return Ok(()) };
    if query.has("dryRun") {
        return Err(Status::bad_request("dryRun is not supported"));
    }
    let mut review = Review {
        user: user.clone(),
        operation: Operation::Connect,
        kind: GroupVersionKind { group: "".into(), version: "v1".into(), kind: kind.into() },
        group: info.group.clone(),
        version: info.version.clone(),
        resource: info.resource.clone(),
        subresource: info.subresource.clone(),
        namespace: info.namespace.clone(),
        name: info.name.clone(),
        object: options(kind, info, query),
        old: Arc::new(Value::Null),
        rewritten: false,
        options: Options::None,
        dry_run: false,
        warnings: Mutex::default(),
        annotations: Mutex::default(),
        served: None,
    };
    core.admission.mutate(&mut review).await?;
    core.admission.validate(&review).await
}

fn kind(info: &RequestInfo) -> Option<&'static str> {
    Some(match (info.resource.as_str(), info.subresource.as_str()) {
        (_, "exec") => "PodExecOptions",
        (_, "attach") => "PodAttachOptions",
        (_, "portforward") => "PodPortForwardOptions",
        ("pods", "proxy") => "PodProxyOptions",
        ("services", "proxy") => "ServiceProxyOptions",
        ("nodes", "proxy") => "NodeProxyOptions",
        _ => return None,
    })
}

fn options(kind: &str, info: &RequestInfo, query: &Query) -> Value {
    let mut tree = json!({"kind": kind, "apiVersion": "v1"});
    for flag in ["stdin", "stdout", "stderr", "tty"] {
        if query.flag(flag) {
            tree[flag] = true.into();
        }
    }
    if query.has("container") {
        tree["container"] = query.get("container").into();
    }
    match kind {
        "PodExecOptions" => tree["command"] = query.all("command").collect(),
        "PodPortForwardOptions" => {
            let ports = query.all("ports").flat_map(|p| p.split(',')).filter_map(|p| p.parse::<u16>().ok());
            tree["ports"] = ports.collect();
        }
        "PodProxyOptions" | "ServiceProxyOptions" | "NodeProxyOptions" => tree["path"] = info.rest.as_str().into(),
        _ => {}
    }
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Value) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = Query::parse(query);
        let info = RequestInfo::of(&http::Method::GET, path, &query);
        let seen = kind(&info).map(|kind| options(kind, &info, &query));
        assert_eq!(seen.unwrap_or_default(), expected, "{path}");
    }

    #[test]
    fn the_options_of_a_connection_are_its_object() {
        check(
            "/api/v1/namespaces/a/pods/p/exec?command=sh&command=-c&stdin=true&container=c",
            json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdin": true, "container": "c", "command": ["sh", "-c"]}),
        );
        check("/api/v1/namespaces/a/pods/p/log", Value::Null);
        check(
            "/api/v1/namespaces/a/services/s/proxy/x",
            json!({"kind": "ServiceProxyOptions", "apiVersion": "v1", "path": "/x"}),
        );
    }
}
