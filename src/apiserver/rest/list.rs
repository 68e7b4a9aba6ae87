//! LIST: many objects at one revision.
//!
//! Owns: which entries a list has, and its answer: stored bytes one after the other.
//! Called by: `rest`, deletion of collections.
//! Never: decodes an object unless the client asked for another form of it.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Response, header};
use minik_api::{Resource, Status, convert};
use minik_store::{Entry, Error, Range, Revision};
use serde_json::{Value, json};

use crate::body::{self, Body};
use crate::call::Call;
use crate::catalog::Served;
use crate::custom::conversion;
use crate::negotiate::{Encoding, Form};
use crate::rest::get::not_older_than;
use crate::rest::page::{At, PageRequest, token};
use crate::rest::select::Selector;
use crate::server::Core;
use crate::{reply, stored};

/// Entries looked at between two checks whether a page is full.
const SCAN_MIN: usize = 500;
/// What is handed to the connection at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The objects of a list.
pub struct Selected {
    pub entries: Vec<Entry>,
    pub revision: Revision,
    /// Empty on the last page.
    pub next: String,
    /// Only known without selectors.
    pub remaining: Option<usize>,
}

pub async fn list(core: &Arc<Core>, call: &Call) -> Result<Response<Body>, Status> {
    match select(core, call).await {
        Ok(selected) => respond(call, &selected),
        Err(status) if status.code == 410 && !call.query.get("continue").is_empty() => expired(call, &status),
        Err(status) => Err(status),
    }
}

/// A token whose revision is forgotten is answered with one that goes on without it.
fn expired(call: &Call, status: &Status) -> Result<Response<Body>, Status> {
    let start = PageRequest::of(&call.query)?.start_after.unwrap_or_default();
    let mut tree = status.to_json();
    tree["metadata"] = json!({"continue": token(None, &start)});
    Ok(reply::tree(&call.accept, status.code, &tree))
}

const TOKEN_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Where the objects are that the call can mean: one key, when the selector names one.
pub fn prefix_of(call: &Call, selector: &Selector) -> String {
    let (served, namespace) = (&call.served, call.object_namespace());
    let name = selector.name().unwrap_or(&call.info.name);
    if name.is_empty() || (served.row.is_namespaced() && namespace.is_empty()) {
        served.prefix(namespace)
    } else {
        served.key(namespace, name)
    }
}

pub async fn select(core: &Arc<Core>, call: &Call) -> Result<Selected, Status> {
    let selector = Selector::of(call)?;
    let page = PageRequest::of(&call.query)?;
    let at = match page.at {
        At::Now => None,
        At::NotOlderThan(revision) => {
            not_older_than(core, revision).await?;
            None
        }
        At::Exactly(revision) => {
            not_older_than(core, revision).await?;
            Some(revision)
        }
    };
    let prefix = prefix_of(call, &selector);
    scan(core, &call.served, &selector, &prefix, &page, at).await
}

fn unreadable(error: &Error, page: &PageRequest) -> Status {
    match error {
        Error::Compacted { .. } if page.start_after.is_some() => Status::expired(TOKEN_EXPIRED),
        Error::Compacted { .. } => Status::expired("The resourceVersion for the provided list is too old."),
        other => Status::internal(other.to_string()),
    }
}

async fn scan(
    core: &Core,
    served: &Served,
    selector: &Selector,
    prefix: &str,
    page: &PageRequest,
    at: Option<Revision>,
) -> Result<Selected, Status> {
    let step = match (page.limit, selector.is_everything()) {
        (0, _) => 0,
        (limit, true) => limit,
        (limit, false) => limit.max(SCAN_MIN),
    };
    let mut start_after = page.start_after.as_ref().map(|s| format!("{prefix}{s}"));
    let (mut entries, mut revision) = (Vec::new(), at);
    loop {
        let range = Range { prefix, start_after: start_after.as_deref(), limit: step, at: revision };
        let mut found = core.store.range(&range).map_err(|error| unreadable(&error, page))?;
        found.entries = conversion::entries(core.objects.as_ref(), served, found.entries).await?;
        revision = Some(found.revision);
        let last = found.entries.last().map(|e| e.key.clone());
        if selector.is_everything() {
            entries = found.entries;
        } else {
            entries.extend(found.entries.into_iter().filter(|e| selector.matches(served, &e.value)));
        }
        let full = page.limit > 0 && entries.len() >= page.limit;
        entries.truncate(if page.limit > 0 { page.limit } else { entries.len() });
        // What follows a full page is not looked at: it may be that nothing of it is selected.
        let unseen = full && entries.last().map(|e| &e.key) != last.as_ref();
        let more = found.remaining > 0 || unseen;
        match last {
            Some(last) if more && !full => start_after = Some(last.to_string()),
            _ => {
                let next = match entries.last() {
                    Some(entry) if more => token(revision, &entry.key[prefix.len().min(entry.key.len())..]),
                    _ => String::new(),
                };
                let remaining = (selector.is_everything() && more).then_some(found.remaining);
                return Ok(Selected { entries, revision: found.revision, next, remaining });
            }
        }
    }
}

fn list_metadata(selected: &Selected) -> Value {
    let mut metadata = json!({"resourceVersion": selected.revision.to_string()});
    if !selected.next.is_empty() {
        metadata["continue"] = selected.next.as_str().into();
    }
    if let Some(remaining) = selected.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

pub fn respond(call: &Call, selected: &Selected) -> Result<Response<Body>, Status> {
    let (served, accept) = (&call.served, &call.accept);
    if accept.form == Form::Metadata {
        let list = reply::go_type(served, &served.row.list_kind);
        let why = format!("you requested PartialObjectMetadata, but the requested object is a list ({list})");
        return Err(Status::new(406, "NotAcceptable", why));
    }
    let plain = accept.encoding == Encoding::Json && !accept.pretty;
    match accept.form {
        Form::Object if plain && selected.entries.iter().all(|e| served.can_copy(&e.value)) => {
            let items = selected.entries.iter().map(|e| item(served, &e.value)).collect();
            Ok(joined(call, &served.row.list_kind, &served.row.api_version(), selected, items))
        }
        Form::MetadataList if plain && !selected.entries.is_empty() && !has_carriers(&served.row) => {
            let items = selected.entries.iter().map(|e| Item {
                open: METADATA_ITEM,
                rest: stored::metadata_of(e),
                close: b"}",
            });
            Ok(joined(call, "PartialObjectMetadataList", "meta.k8s.io/v1", selected, items.collect()))
        }
        form => trees(call, selected, form),
    }
}

/// Stored metadata that is not shown as it is.
fn has_carriers(row: &Resource) -> bool {
    row.id().is_some() && convert::has_carriers(&row.api_version(), &row.kind)
}

fn trees(call: &Call, selected: &Selected, form: Form) -> Result<Response<Body>, Status> {
    let (served, accept) = (&call.served, &call.accept);
    let items: Vec<Value> = selected.entries.iter().map(|e| reply::served_tree(served, e)).collect();
    let metadata = list_metadata(selected);
    if form == Form::Table {
        let objects: Vec<&Value> = items.iter().collect();
        let mut table = reply::table(served, &objects, &call.query)?;
        table["metadata"] = metadata;
        return Ok(reply::tree(&reply::json_only(accept), 200, &table));
    }
    let mut items = items;
    // The metadata of an object is told by its type.
    if served.custom().is_none() && form != Form::MetadataList {
        items.iter_mut().filter_map(Value::as_object_mut).for_each(|item| {
            item.remove("kind");
            item.remove("apiVersion");
        });
    }
    let (kind, api_version, items): (_, _, Value) = match form {
        Form::MetadataList => (
            "PartialObjectMetadataList".into(),
            "meta.k8s.io/v1".into(),
            // Upstream builds this list item by item, and Go has no list before the first.
            if items.is_empty() { Value::Null } else { items.iter().map(reply::metadata_only).collect() },
        ),
        _ => (served.row.list_kind.clone(), served.row.api_version(), items.into()),
    };
    let list = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items});
    Ok(reply::tree(accept, 200, &list))
}

const METADATA_ITEM: &[u8] = br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#;

/// One element of a list, in up to three pieces so that the stored bytes need no copy of their own.
struct Item {
    open: &'static [u8],
    rest: Bytes,
    close: &'static [u8],
}

/// The items of typed lists have no type of their own.
fn item(served: &Served, value: &Bytes) -> Item {
    match served.without_type(value) {
        Some(rest) => Item { open: b"{", rest, close: b"" },
        None => Item { open: b"", rest: value.clone(), close: b"" },
    }
}

fn joined(call: &Call, kind: &str, api_version: &str, selected: &Selected, items: Vec<Item>) -> Response<Body> {
    let metadata = list_metadata(selected);
    let head = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata},"items":["#);
    let commas = items.len().saturating_sub(1);
    let length: usize = items.iter().map(|i| i.open.len() + i.rest.len() + i.close.len()).sum();
    let length = head.len() + length + commas + 3;
    let mut chunks = chunks(head, items);
    if length <= CHUNK_BYTES || call.accept.gzip {
        let mut all = BytesMut::with_capacity(length);
        chunks.by_ref().for_each(|c| all.put(c));
        return reply::sized(&call.accept, 200, "application/json", all.freeze());
    }
    Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, length)
        .body(body::stream(futures::stream::iter(chunks)))
        .expect("constant headers")
}

/// The list as pieces of about [`CHUNK_BYTES`], made when the connection is ready for them.
fn chunks(head: String, items: Vec<Item>) -> impl Iterator<Item = Bytes> {
    let mut items = items.into_iter();
    let mut pending = BytesMut::from(head.as_bytes());
    let (mut first, mut ended) = (true, false);
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        pending.reserve(CHUNK_BYTES);
        while pending.len() < CHUNK_BYTES {
            let Some(item) = items.next() else {
                ended = true;
                pending.put_slice(b"]}\n");
                break;
            };
            if !std::mem::take(&mut first) {
                pending.put_u8(b',');
            }
            pending.put_slice(item.open);
            pending.put_slice(&item.rest);
            pending.put_slice(item.close);
        }
        Some(pending.split().freeze())
    })
}
