//! The way of a request: route, authenticate, authorize, hand over, answer.
//!
//! Owns: that order, and what every answer has in common.
//! Called by: connections, and whoever is in the same process.
//! Never: knows what a handler does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use minik_api::{Status, registry};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::aggregation::relay::Passing;
use crate::audit::{Followed, Stage, Trail};
use crate::authn::{Peer, UserInfo, impersonation};
use crate::authz::{self, Attributes, ResourceTarget, Target};
use crate::body::{self, Body};
use crate::call::Call;
use crate::metrics::Labels;
use crate::negotiate::Accept;
use crate::query::Query;
use crate::route::RequestInfo;
use crate::server::Core;
use crate::{aggregation, connect, negotiate, nonresource, reply, rest, warnings};

static AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Boxed, because the API server also calls itself from inside a handler.
pub fn handle<'a>(core: &'a Arc<Core>, request: Request<Body>, peer: &'a Peer) -> BoxFuture<'a, Response<Body>> {
    conduct(core, request, peer).boxed()
}

async fn conduct(core: &Arc<Core>, request: Request<Body>, peer: &Peer) -> Response<Body> {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query().unwrap_or(""));
    let info = RequestInfo::of(&parts.method, parts.uri.path(), &query);
    let mut id = parts.headers.get(&AUDIT_ID).cloned().unwrap_or_else(new_id);
    let accept = Accept::of(&parts.headers, &query);
    let labels = Labels::of(&info);
    let in_flight = core.metrics.begin(&labels);
    let lasts = info.verb == "watch" || connect::is_connect(&info);
    let followed = Followed::default();
    let origin = Origin { peer, id: &id, followed: &followed };
    let work = answer(core, &mut parts, body, info, query, accept.clone(), origin).boxed();
    // A fault in one handler must not take the connection's other requests with it.
    let outcome = std::panic::AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
        followed.trail().iter().for_each(|trail| trail.tell(Stage::Panic, Some(500)));
        Err(Status::internal("the request's handler failed"))
    });
    let response = outcome.unwrap_or_else(|status| refused(&accept, &status));
    let mut response = followed.answered(response, lasts).await;
    let headers = response.headers_mut();
    // It is another one each time, and would only drive out of HTTP/2's table what comes again.
    id.set_sensitive(true);
    headers.insert(&AUDIT_ID, id);
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    drop(in_flight);
    core.metrics.request(labels, response.status().as_u16(), started.elapsed());
    response
}

/// An error in the encoding of the client; when there is none that both know, in a form that people read.
fn refused(accept: &Result<Accept, Status>, status: &Status) -> Response<Body> {
    match accept {
        Ok(accept) => reply::status(accept, status),
        Err(_) => reply::for_people(status.code, &status.to_json()),
    }
}

fn new_id() -> HeaderValue {
    HeaderValue::from_str(&Uuid::new_v4().to_string()).expect("a uuid is plain ASCII")
}

/// Where a request comes from, and its audit trail.
struct Origin<'o> {
    peer: &'o Peer,
    id: &'o HeaderValue,
    followed: &'o Followed,
}

async fn answer(
    core: &Arc<Core>,
    parts: &mut http::request::Parts,
    body: Body,
    info: RequestInfo,
    query: Query,
    accept: Result<Accept, Status>,
    origin: Origin<'_>,
) -> Result<Response<Body>, Status> {
    let known = user_of(core, parts, origin.peer).await;
    if let Some(auditor) = &core.auditor {
        // Who could not be identified is told of without a name.
        let nobody = UserInfo::default();
        let user = known.as_ref().map_or(&nobody, Arc::as_ref);
        let id = origin.id.to_str().unwrap_or("");
        origin.followed.set(auditor.begin(parts, origin.peer, &info, user, id));
    }
    let trail = origin.followed.trail();
    let mut user = known?;
    let asked = attributes(&user, &info);
    if let Some(other) = impersonation::impersonate(&mut parts.headers, &asked, core.authorizer.as_ref())? {
        trail.iter().for_each(|trail| trail.impersonated(&other));
        user = Arc::new(other);
    }
    // What goes on for long is limited by nobody but its client; a watch takes a turn to begin.
    if connect::is_connect(&info) {
        authorize(core, &user, &info, trail.as_deref())?;
        return connect::handle(core, parts, body, &info, &query, &user).boxed().await;
    }
    let turn = match core.fairness.turn(&user, &info).await {
        Ok(turn) => turn,
        Err(refused) => return Ok(refused.answer()),
    };
    let said = accept.clone();
    let request = Admitted { info, query, accept, user, trail, address: origin.peer.address };
    let outcome = admitted(core, parts, body, request).await;
    let mut response = outcome.unwrap_or_else(|status| refused(&said, &status));
    turn.tell(response.headers_mut());
    Ok(response)
}

/// A request whose turn it is.
struct Admitted {
    info: RequestInfo,
    query: Query,
    accept: Result<Accept, Status>,
    user: Arc<UserInfo>,
    trail: Option<Arc<Trail>>,
    address: Option<SocketAddr>,
}

async fn admitted(
    core: &Arc<Core>,
    parts: &mut http::request::Parts,
    body: Body,
    request: Admitted,
) -> Result<Response<Body>, Status> {
    let Admitted { info, query, accept, user, trail, address } = request;
    authorize(core, &user, &info, trail.as_deref())?;
    if let Some(backend) = core.aggregation.of_path(&info.path) {
        let passing = Passing::of(parts, body, address);
        return aggregation::relay::handle(core, &backend, passing, &user).boxed().await;
    }
    if !info.is_resource {
        return nonresource::handle(core, parts, body, &info, &query, &user).boxed().await;
    }
    let Some(served) = core.catalog.lookup(&info.group, &info.version, &info.resource) else {
        return unknown(&info.group);
    };
    // HEAD reads like GET as far as rights go, and resources do not have it.
    if parts.method == Method::HEAD {
        return Err(Status::method_unknown());
    }
    let accept = match served.custom() {
        Some(_) => Accept::without_protobuf(&parts.headers, &query),
        None if !served.row.is_stored() || (info.subresource == "status" && served.row.status_has_no_table) => {
            Accept::without_table(&parts.headers, &query)
        }
        None => accept,
    };
    let accept = accept.map_err(|status| match info.verb.as_str() {
        "list" | "watch" if status.details.is_some() && served.custom().is_none() => negotiate::unroutable_list(),
        _ => status,
    })?;
    let call = Call {
        headers: std::mem::take(&mut parts.headers),
        body: body::read(body).await?,
        trail,
        warnings: Mutex::default(),
        upgrade: Mutex::new(parts.extensions.remove::<hyper::upgrade::OnUpgrade>()),
        info,
        query,
        user,
        accept,
        served,
    };
    if let Some(trail) = &call.trail {
        trail.request(&call.body, call.content_type());
    }
    let mut response = rest::handle(core, &call).await.unwrap_or_else(|status| reply::status(&call.accept, &status));
    for value in warnings::headers(&call.warnings.lock()) {
        response.headers_mut().append(header::WARNING, value);
    }
    Ok(response)
}

/// A resource that nobody serves. In a built-in group the router knows at least that.
fn unknown(group: &str) -> Result<Response<Body>, Status> {
    if registry::groups().iter().any(|g| g.name == group) {
        return Err(Status::path_unknown());
    }
    Ok(reply::text(404, "404 page not found\n"))
}

async fn user_of(core: &Core, parts: &mut http::request::Parts, peer: &Peer) -> Result<Arc<UserInfo>, Status> {
    if let Some(user) = parts.extensions.get::<Arc<UserInfo>>() {
        return Ok(user.clone());
    }
    if let Some(user) = parts.extensions.get::<UserInfo>() {
        return Ok(Arc::new(user.clone()));
    }
    core.authenticator.authenticate(parts, peer).await
}

fn attributes<'a>(user: &'a UserInfo, info: &'a RequestInfo) -> Attributes<'a> {
    let target = if info.is_resource {
        Target::Resource(ResourceTarget {
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            fields: &info.fields,
            labels: &info.labels,
        })
    } else {
        Target::Path(&info.path)
    };
    Attributes { user, verb: &info.verb, target }
}

fn authorize(core: &Core, user: &UserInfo, info: &RequestInfo, trail: Option<&Trail>) -> Result<(), Status> {
    let attributes = attributes(user, info);
    let decision = core.authorizer.authorize(&attributes);
    if let Some(trail) = trail {
        trail.decided(decision.is_allowed(), decision.reason());
    }
    if decision.is_allowed() { Ok(()) } else { Err(authz::forbidden(&attributes, decision.reason())) }
}
