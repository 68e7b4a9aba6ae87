//! `/openapi/v2` and `/openapi/v3`.
//!
//! Owns: the paths, the encodings, caching headers and hashes of the documents.
//! Called by: paths outside the resources.
//! Never: writes a schema; `minik_api::openapi` does.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use minik_api::Status;
use minik_api::openapi::{self, CustomKind, Descriptions};
use sha2::{Digest, Sha512};

use crate::aggregation::openapi as others;
use crate::body::{self, Body};
use crate::catalog::Served;
use crate::negotiate::{self, Accept, Encoding};
use crate::query::Query;
use crate::reply;
use crate::server::Core;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// How clients still ask for it; no media type may have an `@`.
const PROTOBUF_OF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

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

/// `path` is what follows `/openapi`, as it was sent.
pub async fn answer(
    core: &Arc<Core>,
    path: &str,
    headers: &HeaderMap,
    query: &Query,
) -> Result<Response<Body>, Status> {
    match path.split_once('/').unwrap_or((path, "")) {
        ("v3", "") if path == "v3" => Ok(index(core)),
        ("v3", wanted) => one(core, wanted, headers, query).await,
        ("v2", "") if path == "v2" => whole(core, headers).await,
        _ => Ok(reply::text(404, "404 page not found\n")),
    }
}

fn index(core: &Core) -> Response<Body> {
    let custom = custom(core).into_iter();
    let custom = custom.map(|(path, served)| (path.clone(), url(&path, &openapi::custom_hash(&kinds(&served)))));
    let mut further: Vec<(String, String)> = custom.collect();
    further.extend(others::index(core));
    // As upstream says it, though it is JSON.
    reply::raw(200, reply::PLAIN_TEXT, openapi::index(&further))
}

fn url(path: &str, hash: &str) -> String {
    format!("/openapi/v3/{path}?hash={hash}")
}

/// The v3 document of a group and version.
async fn one(core: &Core, wanted: &str, headers: &HeaderMap, query: &Query) -> Result<Response<Body>, Status> {
    let custom = custom(core);
    let hash = match custom.get(wanted) {
        Some(served) => openapi::custom_hash(&kinds(served)),
        None if openapi::paths_served().iter().any(|path| path == wanted) => openapi::built_in_hash().into(),
        None => return Ok(bare(StatusCode::NOT_FOUND)),
    };
    let asked = query.get("hash");
    let mut response = match negotiate::preferred(headers, &[JSON]) {
        None => bare(StatusCode::NOT_ACCEPTABLE),
        Some(_) if !asked.is_empty() && asked != hash => moved(&url(wanted, &hash), &hash),
        Some(_) if is_known(headers, &hash) => unchanged(&hash),
        Some(_) => {
            // A document takes some milliseconds to write, which other requests should not wait for.
            let wanted = wanted.to_string();
            let written = tokio::task::spawn_blocking(move || written(&wanted, &custom)).await;
            let Some(document) = written.map_err(|e| Status::internal(e.to_string()))? else {
                return Ok(bare(StatusCode::NOT_FOUND));
            };
            tagged(reply::raw(200, JSON, document), &hash)
        }
    };
    let answer = response.headers_mut();
    answer.append(header::VARY, HeaderValue::from_static("Accept"));
    // A document asked for by its hash never changes.
    if asked == hash {
        answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let next_year = Timestamp::now() + SignedDuration::from_hours(365 * 24);
        let expires = next_year.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string();
        answer.insert(header::EXPIRES, HeaderValue::from_str(&expires).expect("a date is plain ASCII"));
    }
    Ok(response)
}

/// The v2 document, of all that is served.
async fn whole(core: &Arc<Core>, headers: &HeaderMap) -> Result<Response<Body>, Status> {
    let mut response = match negotiate::preferred(headers, &[JSON, PROTOBUF_OF_OLD, PROTOBUF]) {
        None => bare(StatusCode::NOT_ACCEPTABLE),
        Some(0) => document(core, headers, Encoding::Json).await?,
        Some(_) => document(core, headers, Encoding::Protobuf).await?,
    };
    // Each on a line of its own, as upstream has them.
    let answer = response.headers_mut();
    answer.remove(header::VARY);
    answer.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    answer.append(header::VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

async fn document(core: &Arc<Core>, headers: &HeaderMap, encoding: Encoding) -> Result<Response<Body>, Status> {
    let custom: Vec<Arc<Served>> = custom(core).into_values().flatten().collect();
    let others = others::v2(core).await;
    let known = headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect::<Vec<_>>();
    let write = move || {
        let mut text: Bytes = openapi::document_v2(&descriptions(), |paths, schemas| {
            openapi::add_custom(&kinds(&custom), paths, schemas);
        })
        .into();
        if !others.is_empty() {
            text = merged(&text, others);
        }
        // Of the JSON for both: `Vary` tells them apart.
        let tag = hex::encode_upper(Sha512::digest(&text));
        let bytes = match encoding {
            _ if matches(&known, &tag) => None,
            Encoding::Protobuf => Some(openapi::protobuf_v2(&serde_json::from_slice(&text).unwrap_or_default()).into()),
            _ => Some(text),
        };
        (tag, bytes)
    };
    let written = tokio::task::spawn_blocking(write).await;
    let (tag, bytes): (String, Option<Bytes>) = written.map_err(|e| Status::internal(e.to_string()))?;
    let Some(bytes) = bytes else { return Ok(unchanged(&tag)) };
    let media = if encoding == Encoding::Protobuf { PROTOBUF } else { JSON };
    let accept = Accept { gzip: negotiate::unpacks_gzip(headers), ..Accept::default() };
    Ok(tagged(reply::sized(&accept, 200, media, bytes), &tag))
}

fn bare(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = code;
    response
}

fn moved(url: &str, hash: &str) -> Response<Body> {
    let mut response = tagged(bare(StatusCode::MOVED_PERMANENTLY), hash);
    if let Ok(url) = HeaderValue::from_str(url) {
        response.headers_mut().insert(header::LOCATION, url);
    }
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

fn unchanged(tag: &str) -> Response<Body> {
    tagged(bare(StatusCode::NOT_MODIFIED), tag)
}

fn tagged(mut response: Response<Body>, tag: &str) -> Response<Body> {
    let quoted = HeaderValue::from_str(&format!("\"{tag}\"")).expect("a hash is plain ASCII");
    response.headers_mut().insert(header::ETAG, quoted);
    response
}

fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    matches(&headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect::<Vec<_>>(), tag)
}

/// Whether the client has the document already (RFC 9110, 13.1.2).
fn matches(known: &[HeaderValue], tag: &str) -> bool {
    let entries = known.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim);
    entries.map(|entry| entry.trim_start_matches("W/")).any(|entry| entry == "*" || entry.trim_matches('"') == tag)
}

fn merged(ours: &Bytes, others: Vec<serde_json::Value>) -> Bytes {
    let mut document: serde_json::Value = serde_json::from_slice(ours).unwrap_or_default();
    others.into_iter().for_each(|other| others::merge(&mut document, other));
    document.to_string().into()
}

fn descriptions() -> Descriptions {
    Descriptions::unpack(minik_descriptions::PACKED).unwrap_or_default()
}
