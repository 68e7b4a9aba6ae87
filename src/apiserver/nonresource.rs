//! Paths that are no resource: health, version, discovery, OpenAPI, metrics.
//!
//! Owns: which of them there are.
//! Called by: the pipeline.
//! Never: reads a request's body.

use std::sync::Arc;

use http::{HeaderValue, Method, Response, header};
use minik_api::Status;
use serde_json::json;

use crate::aggregation::merged::{self, Tie};
use crate::aggregation::relay::Passing;
use crate::authn::UserInfo;
use crate::body::Body;
use crate::query::Query;
use crate::route::RequestInfo;
use crate::server::Core;
use crate::{aggregation, body, discovery, health, openapi, reply};

/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

pub async fn handle(
    core: &Arc<Core>,
    parts: &http::request::Parts,
    _body: Body,
    info: &RequestInfo,
    query: &Query,
    user: &UserInfo,
) -> Result<Response<Body>, Status> {
    let segments: Vec<&str> = info.path.split('/').filter(|s| !s.is_empty()).collect();
    check_method(&parts.method, &segments)?;
    match segments.as_slice() {
        ["healthz" | "livez" | "readyz", check @ ..] => Ok(health::answer(core, segments[0], check, query)),
        ["version"] => Ok(reply::for_people(200, &version(&core.config.git_version))),
        ["metrics", "slis"] => Ok(reply::raw(200, METRICS, health::metrics(core))),
        ["metrics"] => {
            let own = core.metrics.text(&stored(core)) + &core.fairness.metrics();
            let text = own + &aggregation::metrics(core.objects.as_ref());
            Ok(reply::raw(200, METRICS, text))
        }
        ["api" | "apis", ..] => discovery::answer(core, &segments, &parts.headers, query),
        ["openapi", "v3", rest @ ..] if let Some(owner) = aggregation::openapi::owner(core, &rest.join("/")) => {
            let mut parts = parts.clone();
            aggregation::relay::handle(core, &owner, Passing::of(&mut parts, body::empty(), None), user).await
        }
        ["openapi", ..] => {
            let path = info.path.strip_prefix("/openapi/").unwrap_or_default();
            openapi::answer(core, path, &parts.headers, query).await
        }
        [] => Ok(root(core)),
        ["openid", ..] | [".well-known", ..] => Ok(published_keys(core, &info.path)),
        _ => Ok(reply::text(404, "404 page not found\n")),
    }
}

/// Upstream's health checks and OpenAPI answer to everything, what lists resources to GET alone.
fn check_method(method: &Method, segments: &[&str]) -> Result<(), Status> {
    let allowed = match segments {
        ["healthz" | "livez" | "readyz" | "openapi", ..] => true,
        ["api" | "apis" | "version", ..] => method == Method::GET,
        _ => method == Method::GET || method == Method::HEAD,
    };
    if allowed { Ok(()) } else { Err(Status::method_unknown()) }
}

/// How many objects there are of each resource.
fn stored(core: &Core) -> Vec<(String, usize)> {
    let table = core.catalog.now();
    let mut counts = std::collections::BTreeMap::new();
    for served in table.served().iter().filter(|served| served.row.is_stored()) {
        let prefix = served.prefix("");
        let range = minik_store::Range { prefix: &prefix, limit: 1, ..Default::default() };
        if let Ok(page) = core.store.range(&range) {
            counts.insert(served.row.qualified(), page.entries.len() + page.remaining);
        }
    }
    counts.into_iter().collect()
}

fn version(git: &str) -> serde_json::Value {
    let mut numbers = git.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or("1"), numbers.next().unwrap_or("37"));
    json!({
        "major": major, "minor": minor, "gitVersion": git, "gitCommit": "", "gitTreeState": "clean",
        "emulationMajor": major, "emulationMinor": minor, "minCompatibilityMajor": major,
        "minCompatibilityMinor": minor.parse::<u32>().map_or_else(|_| minor.to_string(), |m| (m - 1).to_string()),
        "buildDate": "", "goVersion": "", "compiler": "rustc", "platform": concat!("linux/", "amd64"),
    })
}

fn published_keys(core: &Core, path: &str) -> Response<Body> {
    let server = format!("{}:{}", core.config.advertise_address, core.config.port);
    match core.security.discovery(path, &server) {
        Some((tree, media)) => {
            let mut response = reply::raw(200, media, tree.to_string());
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
            response
        }
        None => reply::text(404, "404 page not found\n"),
    }
}

fn root(core: &Core) -> Response<Body> {
    let groups = merged::groups(&core.catalog.now(), &core.aggregation.backends(), Tie::Group);
    let mut paths = vec!["/api".to_string(), "/api/v1".into(), "/apis".into(), "/apis/".into()];
    for group in groups.iter().filter(|g| !g.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|v| format!("/apis/{}/{}", group.name, v.name)));
    }
    let rest = [
        "/healthz",
        "/livez",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/readyz",
        "/version",
    ];
    paths.extend(rest.map(String::from));
    paths.sort();
    paths.dedup();
    reply::for_people(200, &json!({"paths": paths}))
}
