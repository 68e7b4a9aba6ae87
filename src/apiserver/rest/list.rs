//! LIST: many objects at one revision.
//!
//! Owns: which entries a list has, and its answer: stored bytes one after the other.
//! Called by: `rest`, deletion of collections.
//! Never: decodes an object unless the client asked for another form of it.

use std::borrow::Cow;
use std::sync::Arc;
use std::vec;

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
use crate::streams::CHUNK_BYTES;
use crate::{reply, stored};

/// Entries looked at between two checks whether a page is full.
const SCAN_MIN: usize = 500;
/// Buffers that the chunks of a list take in turn: as many as the connection holds before it takes no more.
const BUFFERS: usize = 8;

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
        Ok(selected) => respond(call, selected),
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

pub fn respond(call: &Call, selected: Selected) -> Result<Response<Body>, Status> {
    let (served, accept) = (&call.served, &call.accept);
    if accept.form == Form::Metadata {
        let list = reply::go_type(served, &served.row.list_kind);
        let why = format!("you requested PartialObjectMetadata, but the requested object is a list ({list})");
        return Err(Status::new(406, "NotAcceptable", why));
    }
    let plain = accept.encoding == Encoding::Json && !accept.pretty;
    match accept.form {
        Form::Object if plain && served.custom().is_none() => {
            let cut = Cut::Type(served.clone());
            Ok(joined(call, &served.row.list_kind, &served.row.api_version(), selected, cut))
        }
        Form::MetadataList if plain && !selected.entries.is_empty() && !has_carriers(&served.row) => {
            Ok(joined(call, "PartialObjectMetadataList", "meta.k8s.io/v1", selected, Cut::Metadata))
        }
        form => trees(call, &selected, form),
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
    // The metadata of an object is told by its type.
    let is_typed = served.custom().is_none() && form != Form::MetadataList;
    let items: Vec<Value> = if is_typed { items.into_iter().map(untyped).collect() } else { items };
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

/// What of an object its item in a list shows.
enum Cut {
    /// All but the type.
    Type(Arc<Served>),
    Metadata,
}

impl Cut {
    /// The item in pieces, so that stored bytes need no copy of their own.
    fn of<'a>(&self, entry: &'a Entry) -> [Cow<'a, [u8]>; 3] {
        match self {
            Cut::Metadata => [METADATA_ITEM.into(), stored::metadata_of(entry).into(), b"}".into()],
            Cut::Type(served) => match served.without_type(&entry.value) {
                Some(rest) => [b"{".into(), rest.into(), Cow::default()],
                None => {
                    let item = untyped(reply::served_tree(served, entry)).to_string();
                    [item.into_bytes().into(), Cow::default(), Cow::default()]
                }
            },
        }
    }
}

/// The items of typed lists have no type of their own.
fn untyped(mut item: Value) -> Value {
    if let Some(fields) = item.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    item
}

/// What stands behind the last item.
const END: &[u8] = b"]}\n";

fn joined(call: &Call, kind: &str, api_version: &str, selected: Selected, cut: Cut) -> Response<Body> {
    let metadata = list_metadata(&selected);
    let head = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata},"items":["#);
    let mut chunks = Chunks::new(head, selected.entries, cut);
    let first = chunks.next().unwrap_or_default();
    if chunks.has_ended {
        return reply::sized(&call.accept, 200, "application/json", first);
    }
    if call.accept.gzip {
        let mut all = BytesMut::from(first);
        chunks.for_each(|chunk| all.put(chunk));
        return reply::sized(&call.accept, 200, "application/json", all.freeze());
    }
    Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .body(body::stream(futures::stream::iter(std::iter::once(first).chain(chunks))))
        .expect("constant headers")
}

/// The list as pieces of up to [`CHUNK_BYTES`] (but an item is not cut), made when the connection is ready for them.
struct Chunks {
    head: String,
    entries: vec::IntoIter<Entry>,
    cut: Cut,
    separator: &'static [u8],
    buffers: [BytesMut; BUFFERS],
    turn: usize,
    has_ended: bool,
}

impl Chunks {
    fn new(head: String, entries: Vec<Entry>, cut: Cut) -> Self {
        let entries = entries.into_iter();
        Self { head, entries, cut, separator: b"", buffers: Default::default(), turn: 0, has_ended: false }
    }

    /// What the next chunk may need. Looks into each of its objects: they lie all over the memory, which is so waited for
    /// once, not once for each.
    fn room(&self) -> usize {
        let mut room = self.head.len() + END.len();
        for entry in self.entries.as_slice() {
            if room >= CHUNK_BYTES {
                return CHUNK_BYTES;
            }
            std::hint::black_box(entry.value.first());
            room += entry.value.len() + METADATA_ITEM.len();
        }
        room.min(CHUNK_BYTES)
    }
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.has_ended {
            return None;
        }
        let room = self.room();
        self.turn = (self.turn + 1) % BUFFERS;
        let chunk = &mut self.buffers[self.turn];
        // Takes the memory of its last chunk again, once that has been sent.
        chunk.reserve(room);
        chunk.put_slice(std::mem::take(&mut self.head).as_bytes());
        while let Some(entry) = self.entries.as_slice().first() {
            let pieces = self.cut.of(entry);
            let length = self.separator.len() + pieces.iter().map(|piece| piece.len()).sum::<usize>();
            if !chunk.is_empty() && chunk.len() + length > CHUNK_BYTES {
                return Some(chunk.split().freeze());
            }
            chunk.put_slice(std::mem::replace(&mut self.separator, b","));
            pieces.iter().for_each(|piece| chunk.put_slice(piece));
            self.entries.next();
        }
        self.has_ended = true;
        chunk.put_slice(END);
        Some(chunk.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use minik_store::{Encode, Store, Write};

    use super::*;

    /// The chunks of a list of objects whose metadata are so long.
    async fn chunks(lengths: &[usize]) -> Chunks {
        let store = Store::memory();
        let value = |length: &usize| Encode::plain(format!(r#"{{"metadata":{}}}"#, metadata(*length)));
        let create = |(at, length)| Write::Create { key: format!("pods/{at:05}"), value: value(length) };
        let entries = store.transact(lengths.iter().enumerate().map(create).collect()).await.expect("all are new");
        Chunks::new("[".into(), entries, Cut::Metadata)
    }

    fn metadata(length: usize) -> String {
        format!("\"{}\"", "x".repeat(length - 2))
    }

    #[tokio::test]
    async fn a_list_is_the_same_however_it_is_cut() {
        const AROUND: usize = METADATA_ITEM.len() + 1;
        let full = CHUNK_BYTES - AROUND - 1;
        for lengths in [vec![], vec![3], vec![1000; 500], vec![full, full + 1, full], vec![3 * full, 2, 2 * full]] {
            let chunks: Vec<Bytes> = chunks(&lengths).await.collect();
            let start = std::str::from_utf8(METADATA_ITEM).expect("text");
            let items: Vec<String> = lengths.iter().map(|length| format!("{start}{}}}", metadata(*length))).collect();
            assert!(chunks.concat() == format!("[{}]}}\n", items.join(",")).as_bytes(), "items of {lengths:?}");
            let longest = lengths.iter().max().map_or(0, |length| length + AROUND + 1);
            let bound = CHUNK_BYTES.max(longest) + END.len();
            assert!(chunks.iter().all(|c| !c.is_empty() && c.len() <= bound), "items of {lengths:?}");
        }
    }

    #[tokio::test]
    async fn what_has_been_sent_makes_room_for_what_comes() {
        let mut count = 0;
        let places = chunks(&[2_000; 2_000]).await.inspect(|_| count += 1).map(|chunk| chunk.as_ptr() as usize);
        let places: std::collections::HashSet<usize> = places.collect();
        assert!(places.len() <= 2 * BUFFERS && count > 4 * BUFFERS, "{count} chunks in {} places", places.len());
    }
}
