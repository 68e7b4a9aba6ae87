//! `/openapi/v2` and `/openapi/v3`.
//!
//! Owns: the paths, caching headers and hashes of the documents.
//! Called by: paths outside the resources.
//! Never: writes a schema; `minik_api::openapi` does.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use minik_api::Status;
use minik_api::openapi::{self, CustomKind, Descriptions};

use crate::aggregation::openapi as others;
use crate::body::Body;
use crate::catalog::Served;
use crate::negotiate::Accept;
use crate::query::Query;
use crate::reply;
use crate::server::Core;

/// The custom resources, by the path of their document.
fn custom(core: &Core) -> BTreeMap<String, Vec<Arc<Served>>> {
    let mut all: BTreeMap<String, Vec<Arc<Served>>> = BTreeMap::new();
    for served in core.catalog.now().served().iter().filter(|s| s.custom().is_some()) {
        all.entry(openapi::path_of(&served.row.group, &served.row.version)).or_default().push(served.clone());
    }
    all
}

fn kinds(served: &[Arc<Served>]) -> Vec<CustomKind<'_>> {
    let kind = |s| {
        let s: &Arc<Served> = s;
        CustomKind { resource: &s.row, schema: s.custom().map(|c| c.schema()).filter(|s| s.is_object()) }
    };
    served.iter().map(kind).collect()
}

fn written(path: &str, custom: &BTreeMap<String, Vec<Arc<Served>>>) -> Option<String> {
    match custom.get(path) {
        Some(served) => Some(openapi::custom_document(&kinds(served), &descriptions())),
        None => openapi::document(path, &descriptions()),
    }
}

pub async fn answer(
    core: &Arc<Core>,
    path: &[&str],
    headers: &HeaderMap,
    query: &Query,
) -> Result<Response<Body>, Status> {
    let mut accept = Accept::of(headers, query).unwrap_or_default();
    accept.pretty = false;
    match path {
        ["v3"] => {
            let url = |path: &str, hash: String| format!("/openapi/v3/{path}?hash={hash}");
            let custom = custom(core).into_iter();
            let custom = custom.map(|(path, served)| (url(&path, openapi::custom_hash(&kinds(&served))), path));
            let mut further: Vec<(String, String)> = custom.map(|(url, path)| (path, url)).collect();
            further.extend(others::index(core));
            let index = openapi::index(&further);
            Ok(reply::sized(&accept, 200, "application/json", index.into()))
        }
        ["v3", rest @ ..] => {
            let wanted = rest.join("/");
            // A document takes some milliseconds to write, which other requests should not wait for.
            let custom = custom(core);
            let written = tokio::task::spawn_blocking(move || written(&wanted, &custom)).await;
            match written.map_err(|e| Status::internal(e.to_string()))? {
                Some(document) => Ok(cached(reply::sized(&accept, 200, "application/json", document.into()), query)),
                None => Ok(reply::text(404, "404 page not found\n")),
            }
        }
        ["v2"] => {
            let custom: Vec<Arc<Served>> = custom(core).into_values().flatten().collect();
            let write = move || {
                openapi::document_v2(&descriptions(), |paths, schemas| {
                    openapi::add_custom(&kinds(&custom), paths, schemas)
                })
            };
            let written = tokio::task::spawn_blocking(write).await;
            let mut document: Bytes = written.map_err(|e| Status::internal(e.to_string()))?.into();
            let others = others::v2(core).await;
            if !others.is_empty() {
                let merging = tokio::task::spawn_blocking(move || merged(&document, others));
                document = merging.await.map_err(|e| Status::internal(e.to_string()))?;
            }
            Ok(reply::sized(&accept, 200, "application/json", document))
        }
        _ => Ok(reply::text(404, "404 page not found\n")),
    }
}

fn merged(ours: &Bytes, others: Vec<serde_json::Value>) -> Bytes {
    let mut document: serde_json::Value = serde_json::from_slice(ours).unwrap_or_default();
    others.into_iter().for_each(|other| others::merge(&mut document, other));
    document.to_string().into()
}

fn descriptions() -> Descriptions {
    Descriptions::unpack(minik_descriptions::PACKED).unwrap_or_default()
}

/// A document asked for by its hash never changes.
fn cached(mut response: Response<Body>, query: &Query) -> Response<Body> {
    let hash = query.get("hash");
    if !hash.is_empty() {
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
            headers.insert(header::ETAG, tag);
        }
    }
    response
}
