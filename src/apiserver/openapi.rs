//! `/openapi/v2` and `/openapi/v3`.
//!
//! Owns: the paths, caching headers and hashes of the documents.
//! Called by: paths outside the resources.
//! Never: writes a schema; `minik_api::openapi` does.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use minik_api::Status;
use minik_api::openapi::{self, Descriptions};

use crate::body::Body;
use crate::negotiate::Accept;
use crate::query::Query;
use crate::reply;
use crate::server::Core;

pub async fn answer(
    _core: &Arc<Core>,
    path: &[&str],
    headers: &HeaderMap,
    query: &Query,
) -> Result<Response<Body>, Status> {
    let mut accept = Accept::of(headers, query).unwrap_or_default();
    accept.pretty = false;
    match path {
        ["v3"] => {
            let index = openapi::index(&[]);
            Ok(reply::sized(&accept, 200, "application/json", index.into()))
        }
        ["v3", rest @ ..] => {
            let wanted = rest.join("/");
            // A document takes some milliseconds to write, which other requests should not wait for.
            let written = tokio::task::spawn_blocking(move || openapi::document(&wanted, &descriptions())).await;
            match written.map_err(|e| Status::internal(e.to_string()))? {
                Some(document) => Ok(cached(reply::sized(&accept, 200, "application/json", document.into()), query)),
                None => Ok(reply::text(404, "404 page not found\n")),
            }
        }
        ["v2"] => {
            let written = tokio::task::spawn_blocking(|| openapi::document_v2(&descriptions(), |_, _| {})).await;
            let document: Bytes = written.map_err(|e| Status::internal(e.to_string()))?.into();
            Ok(reply::sized(&accept, 200, "application/json", document))
        }
        _ => Ok(reply::text(404, "404 page not found\n")),
    }
}

fn descriptions() -> Descriptions {
    Descriptions::unpack(minik_descriptions::PACKED).unwrap_or_default()
}

/// A document asked for by its hash never changes.
fn cached(mut response: Response<Body>, query: &Query) -> Response<Body> {
    let hash = query.get("hash");
    if hash == openapi::built_in_hash() {
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
            headers.insert(header::ETAG, tag);
        }
    }
    response
}
