//! What the verbs do, for every resource alike.
//!
//! Owns: one file a verb, and which verb answers which request.
//! Called by: the pipeline, after authorization.
//! Never: knows a kind; what a few kinds do differently is in `face` and `special`.

pub mod admit;
pub mod bind;
pub mod create;
pub mod delete;
pub mod delete_collection;
pub mod evict;
pub mod face;
pub mod get;
pub mod list;
pub mod owners;
pub mod page;
pub mod patch;
pub mod select;
pub mod signing;
pub mod special;
pub mod update;
pub mod watch;
pub mod watch_frame;
pub mod watch_socket;

use std::sync::Arc;

use futures::FutureExt;
use http::Response;
use minik_api::{Status, Verb, names};

use crate::body::Body;
use crate::call::Call;
use crate::reply;
use crate::server::Core;

/// A method that a path does not have. Custom resources are routed by another hand upstream, with words of its own.
fn method_not_allowed(call: &Call) -> Status {
    let row = &call.served.row;
    match call.served.custom() {
        Some(_) if call.info.name.is_empty() && matches!(call.info.verb.as_str(), "update" | "patch" | "delete") => {
            Status::bad_request("name must be provided")
        }
        Some(_) => Status::method_not_allowed(&row.qualified(), &call.info.verb),
        None => Status::method_unknown(),
    }
}

fn page_not_found(call: &Call) -> Result<Response<Body>, Status> {
    if call.served.custom().is_some() {
        Ok(reply::text(404, "404 page not found\n"))
    } else {
        Err(Status::path_unknown())
    }
}

/// Names of the path that can be no part of a key in the store.
fn check_key(call: &Call) -> Result<(), Status> {
    let (name, namespace) = (call.info.name.as_str(), call.info.namespace.as_str());
    let faults = names::path_segment(name);
    if !faults.is_empty() {
        return Err(Status::bad_request(format!("Name parameter invalid: {name:?}: {}", faults.join(";"))));
    }
    if matches!(namespace, "." | "..") {
        let rest = if name.is_empty() { String::new() } else { format!("/{name}") };
        // A failure without a reason, as upstream has it.
        let message = format!("invalid key: {:?}", format!("/{}/{namespace}{rest}", call.served.row.plural));
        return Err(Status::new(500, "", message));
    }
    Ok(())
}

pub async fn handle(core: &Arc<Core>, call: &Call) -> Result<Response<Body>, Status> {
    let Some(verb) = crate::catalog::verb(&call.info.verb) else { return Err(method_not_allowed(call)) };
    let row = &call.served.row;
    let across = matches!(verb, Verb::List | Verb::Watch);
    let of_one = matches!(verb, Verb::Get | Verb::Update | Verb::Patch | Verb::Delete);
    let whole = call.info.subresource.is_empty();
    let named_create = verb == Verb::Create && whole && !call.info.name.is_empty() && call.served.custom().is_none();
    if (call.info.name.is_empty() && of_one) || named_create {
        return Err(method_not_allowed(call));
    }
    if row.is_namespaced() && call.info.namespace.is_empty() && !across {
        let unknown = call.info.name.is_empty() && call.served.custom().is_none();
        return if unknown { Err(method_not_allowed(call)) } else { page_not_found(call) };
    }
    if !call.info.rest.trim_matches('/').is_empty() {
        return page_not_found(call);
    }
    check_key(call)?;
    if !row.is_namespaced() && !call.info.namespace.is_empty() && row.plural != "namespaces" {
        return page_not_found(call);
    }
    if !call.info.subresource.is_empty() {
        return subresource(core, call, verb).await;
    }
    if !row.verbs.has(verb) {
        return Err(method_not_allowed(call));
    }
    deprecation(call);
    // Each has its own room, so that a request does not carry that of the largest through every hand before it.
    let work = match verb {
        Verb::Get => get::get(core, call).boxed(),
        Verb::List => list::list(core, call).boxed(),
        Verb::Watch => watch::watch(core, call).boxed(),
        Verb::Create if row.plural == "bindings" && row.group.is_empty() => bind::create(core, call).boxed(),
        Verb::Create => create::create(core, call).boxed(),
        Verb::Update => update::update(core, call).boxed(),
        Verb::Patch => patch::patch(core, call).boxed(),
        Verb::Delete => delete::delete(core, call).boxed(),
        Verb::DeleteCollection => delete_collection::delete_collection(core, call).boxed(),
    };
    work.await
}

async fn subresource(core: &Arc<Core>, call: &Call, verb: Verb) -> Result<Response<Body>, Status> {
    let Some(sub) = call.served.row.subresource(&call.info.subresource) else {
        return match call.served.custom() {
            Some(_) => Err(call.not_found()),
            None => Err(Status::path_unknown()),
        };
    };
    if !sub.verbs.has(verb) {
        return Err(method_not_allowed(call));
    }
    let work = match (sub.name.as_ref(), verb) {
        ("eviction", _) => evict::create(core, call).boxed(),
        ("binding", _) => bind::create(core, call).boxed(),
        (_, Verb::Get) => get::get(core, call).boxed(),
        (_, Verb::Update) => update::update(core, call).boxed(),
        (_, Verb::Patch) => patch::patch(core, call).boxed(),
        _ => special::subresource(core, call).boxed(),
    };
    work.await
}

/// APIs that upstream warns about, in its words.
fn deprecation(call: &Call) {
    let row = &call.served.row;
    if let Some(text) = call.served.custom().and_then(|c| c.deprecation.as_deref()) {
        call.warn(text);
    }
    if !row.group.is_empty() || row.version != "v1" {
        return;
    }
    match row.plural.as_ref() {
        "endpoints" => call.warn("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        "componentstatuses" => call.warn("v1 ComponentStatus is deprecated in v1.19+"),
        _ => {}
    }
}
