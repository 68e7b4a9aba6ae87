//! `/openapi/v2` and `/openapi/v3`.
//!
//! Owns: the paths, the encodings, caching headers, hashes and ages of the documents.
//! Called by: paths outside the resources.
//! Never: writes a schema; `minik_api::openapi` does.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use minik_api::Status;
use minik_api::openapi::{self, CustomKind, Descriptions};
use parking_lot::Mutex;
use sha2::{Digest, Sha512};

use crate::aggregation::openapi as others;
use crate::body::{self, Body};
use crate::catalog::Served;
use crate::negotiate::{self, Accept, Encoding};
use crate::query::Query;
use crate::reply;
use crate::server::Core;

const JSON: &str = "application/json";
const PROTOBUF_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const PROTOBUF_V3: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
/// How clients still ask for them; no media type may have an `@`.
const PROTOBUF_V2_OF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const PROTOBUF_V3_OF_OLD: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";

/// Since when each document is what it is: since it was first asked for, as upstream writes it then.
#[derive(Default)]
pub struct Ages(Mutex<HashMap<String, (String, Timestamp)>>);

/// More paths than are ever served; paths of definitions that are gone make room.
const AGES_MAX: usize = 4096;

impl Ages {
    fn of(&self, path: &str, tag: &str) -> Timestamp {
        let mut ages = self.0.lock();
        if let Some((_, since)) = ages.get(path).filter(|(known, _)| known == tag) {
            return *since;
        }
        if ages.len() >= AGES_MAX {
            ages.clear();
        }
        let now = Timestamp::now();
        ages.insert(path.into(), (tag.into(), now));
        now
    }
}

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
    // As upstream says it, though it is JSON; it is put together anew for each request.
    let mut response = reply::raw(200, reply::PLAIN_TEXT, openapi::index(&further));
    response.headers_mut().insert(header::LAST_MODIFIED, date(Timestamp::now(), "GMT"));
    response
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
    // Of the JSON for both encodings: `Vary` tells them apart.
    let tag = Tag { since: core.openapi_ages.of(wanted, &hash), text: hash };
    let mut response = match negotiate::preferred(headers, &[JSON, PROTOBUF_V3, PROTOBUF_V3_OF_OLD]) {
        None => bare(StatusCode::NOT_ACCEPTABLE),
        Some(media) if !asked.is_empty() && asked != tag.text => {
            moved(&url(wanted, &tag.text), &tag, [JSON, PROTOBUF_V3, PROTOBUF_V3][media])
        }
        Some(_) if tag.is_known(headers) => tag.unchanged(),
        Some(media) => {
            // A document takes some milliseconds to write, which other requests should not wait for.
            let wanted = wanted.to_string();
            let encode = move || match (written(&wanted, &custom), media) {
                (Some(text), 0) => Some(reply::raw(200, JSON, text)),
                (Some(text), _) => {
                    let document = serde_json::from_str(&text).unwrap_or_default();
                    Some(reply::raw(200, PROTOBUF_V3, openapi::protobuf_v3(&document)))
                }
                (None, _) => None,
            };
            let encoded = tokio::task::spawn_blocking(encode).await;
            let Some(document) = encoded.map_err(|e| Status::internal(e.to_string()))? else {
                return Ok(bare(StatusCode::NOT_FOUND));
            };
            tag.dated(document)
        }
    };
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    // A document asked for by its hash never changes.
    if asked == tag.text && response.status() != StatusCode::NOT_ACCEPTABLE {
        let answer = response.headers_mut();
        answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let next_year = Timestamp::now() + SignedDuration::from_hours(365 * 24);
        answer.insert(header::EXPIRES, date(next_year, "UTC"));
    }
    Ok(response)
}

/// The v2 document, of all that is served.
async fn whole(core: &Arc<Core>, headers: &HeaderMap) -> Result<Response<Body>, Status> {
    let mut response = match negotiate::preferred(headers, &[JSON, PROTOBUF_V2_OF_OLD, PROTOBUF_V2]) {
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
    let (core, headers) = (core.clone(), headers.clone());
    let write = move || {
        let mut text: Bytes = openapi::document_v2(&descriptions(), |paths, schemas| {
            openapi::add_custom(&kinds(&custom), paths, schemas);
        })
        .into();
        if !others.is_empty() {
            text = merged(&text, others);
        }
        let hash = hex::encode_upper(Sha512::digest(&text));
        let tag = Tag { since: core.openapi_ages.of("", &hash), text: hash };
        if tag.is_known(&headers) {
            return tag.unchanged();
        }
        let (media, bytes) = match encoding {
            Encoding::Protobuf => {
                (PROTOBUF_V2, openapi::protobuf_v2(&serde_json::from_slice(&text).unwrap_or_default()).into())
            }
            _ => (JSON, text),
        };
        let accept = Accept { gzip: negotiate::unpacks_gzip(&headers), ..Accept::default() };
        tag.dated(reply::sized(&accept, 200, media, bytes))
    };
    tokio::task::spawn_blocking(write).await.map_err(|e| Status::internal(e.to_string()))
}

fn bare(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = code;
    response
}

fn moved(url: &str, tag: &Tag, media: &'static str) -> Response<Body> {
    let mut response = tag.on(bare(StatusCode::MOVED_PERMANENTLY));
    if let Ok(url) = HeaderValue::from_str(url) {
        response.headers_mut().insert(header::LOCATION, url);
    }
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// What tells a client whether it has a document already. It is that of the JSON for every encoding: `Vary` tells
/// them apart.
struct Tag {
    text: String,
    since: Timestamp,
}

impl Tag {
    fn on(&self, mut response: Response<Body>) -> Response<Body> {
        let quoted = HeaderValue::from_str(&format!("\"{}\"", self.text)).expect("a hash is plain ASCII");
        response.headers_mut().insert(header::ETAG, quoted);
        response
    }

    fn dated(&self, response: Response<Body>) -> Response<Body> {
        let mut response = self.on(response);
        response.headers_mut().insert(header::LAST_MODIFIED, date(self.since, "GMT"));
        response
    }

    fn unchanged(&self) -> Response<Body> {
        self.on(bare(StatusCode::NOT_MODIFIED))
    }

    /// Whether the client has the document already (RFC 9110, 13.1.2 and 13.1.3: a date counts only without a tag).
    fn is_known(&self, headers: &HeaderMap) -> bool {
        let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
        let mut tags = values.flat_map(|v| v.split(',')).map(str::trim).peekable();
        if tags.peek().is_some() {
            let tag = |entry: &str| entry == "*" || entry.trim_start_matches("W/").trim_matches('"') == self.text;
            return tags.any(tag);
        }
        let date = headers.get(header::IF_MODIFIED_SINCE).and_then(|v| v.to_str().ok());
        let date = date.and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
        date.is_some_and(|date| self.since.as_second() <= date.timestamp().as_second())
    }
}

fn merged(ours: &Bytes, others: Vec<serde_json::Value>) -> Bytes {
    let mut document: serde_json::Value = serde_json::from_slice(ours).unwrap_or_default();
    others.into_iter().for_each(|other| others::merge(&mut document, other));
    document.to_string().into()
}

fn date(time: Timestamp, zone: &str) -> HeaderValue {
    let text = format!("{} {zone}", time.strftime("%a, %d %b %Y %H:%M:%S"));
    HeaderValue::from_str(&text).expect("a date is plain ASCII")
}

fn descriptions() -> Descriptions {
    Descriptions::unpack(minik_descriptions::PACKED).unwrap_or_default()
}
