//! WATCH: what there is, then what changes, until the client, the clock or the server ends it.
//!
//! Owns: where a watch starts, what its selector makes of a change, bookmarks and the end.
//! Called by: `rest`.
//! Never: keeps a queue of its own; the store's history is the queue, so a slow client costs nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::{Response, header};
use minik_api::{FieldError, Status};
use minik_store::{Entry, Error, Event, EventKind, Range, Revision};
use rand::Rng;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::body::{self, Body};
use crate::call::Call;
use crate::catalog::Served;
use crate::custom::conversion;
use crate::negotiate;
use crate::query::Query;
use crate::rest::get::{not_older_than, parse_revision};
use crate::rest::list::prefix_of;
use crate::rest::select::Selector;
use crate::rest::watch_frame::{Frames, Framing};
use crate::rest::watch_socket::{self, Asked};
use crate::server::Core;

/// Upstream's `--min-request-timeout`: a watch that names no end lasts so long, up to twice that.
const TIMEOUT_SECONDS_MIN: u64 = 1800;
/// A client that reads bookmarks gets one about as often.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Objects of the initial state that are written at once.
const INITIAL_CHUNK: usize = 256;

/// What a watch begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// The present state, as additions.
    State {
        then_bookmark: bool,
    },
    After(Revision),
}

fn check(query: &Query) -> Result<(), Status> {
    let mut faults = Vec::new();
    let path = "resourceVersionMatch";
    let forbidden = |detail: &str| FieldError::forbidden(path, detail);
    let exact = query.get(path);
    let initial = query.has("sendInitialEvents");
    if initial && exact != "NotOlderThan" {
        faults.push(forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
    }
    if !exact.is_empty() {
        if !initial {
            let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            faults.push(forbidden(detail));
        }
        if exact != "NotOlderThan" {
            faults.push(FieldError::not_supported(path, &json!(exact), &["NotOlderThan"]));
        }
        if !query.get("continue").is_empty() {
            faults.push(forbidden("resourceVersionMatch is forbidden when continue is provided"));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "ListOptions", "", &faults)) }
}

fn start_of(query: &Query) -> Result<Start, Status> {
    let revision = parse_revision(query.get("resourceVersion"))?;
    let bookmarks = query.flag("allowWatchBookmarks");
    Ok(match query.optional_flag("sendInitialEvents") {
        Some(true) => Start::State { then_bookmark: bookmarks },
        Some(false) if revision.0 == 0 => Start::After(Revision(0)),
        // The older way to ask for the same; who reads bookmarks is told the end of it too.
        None if revision.0 == 0 => Start::State { then_bookmark: bookmarks },
        _ => Start::After(revision),
    })
}

struct Watching {
    core: Arc<Core>,
    served: Arc<Served>,
    selector: Selector,
    frames: Frames,
    watch: minik_store::Watch,
    /// What is still to be sent of the state at the start.
    initial: std::vec::IntoIter<Entry>,
    initial_end: Option<Revision>,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    stopping: CancellationToken,
    ended: bool,
}

pub async fn watch(core: &Arc<Core>, call: &Call) -> Result<Response<Body>, Status> {
    check(&call.query)?;
    let selector = Selector::of(call)?;
    let start = start_of(&call.query)?;
    let prefix = prefix_of(call, &selector);
    if matches!(start, Start::State { .. }) {
        not_older_than(core, parse_revision(call.query.get("resourceVersion"))?).await?;
    }
    let asked = watch_socket::asked(call);
    let framing = if matches!(asked, Asked::Stream) { Framing::Stream } else { Framing::Messages(Vec::new()) };
    if !call.accept.encoding.has_stream() {
        return Err(negotiate::not_streamable());
    }
    let mut frames = Frames::new(call.accept, call.query.clone(), framing);
    let (initial, after) = match start {
        Start::State { .. } => {
            let range = Range { prefix: &prefix, ..Range::default() };
            let page = core.store.range(&range).map_err(|e| Status::internal(e.to_string()))?;
            let entries = conversion::entries(core.objects.as_ref(), &call.served, page.entries).await?;
            (entries, page.revision)
        }
        Start::After(Revision(0)) => (Vec::new(), core.store.revision()),
        Start::After(revision) => (Vec::new(), revision),
    };
    let watch = match core.store.watch(&prefix, after) {
        Ok(watch) => watch,
        Err(error) => {
            // Upstream opens the stream first and says so inside it.
            let mut out = BytesMut::new();
            frames.error(&mut out, &too_old(&error));
            let pieces = frames.pieces(out.freeze());
            return Ok(streamed(core, asked, &frames, futures::stream::iter([pieces])));
        }
    };
    let now = Instant::now();
    let described = frames.clone();
    let watching = Watching {
        core: core.clone(),
        served: call.served.clone(),
        selector,
        frames,
        watch,
        initial: initial.into_iter(),
        initial_end: matches!(start, Start::State { then_bookmark: true }).then_some(after),
        bookmarks: call.query.flag("allowWatchBookmarks"),
        next_bookmark: now + BOOKMARK_EVERY,
        deadline: now + timeout(&call.query)?,
        stopping: core.stopping.clone(),
        ended: false,
    };
    let chunks = futures::stream::unfold(watching, |mut w| async move {
        let chunk = w.next().await?;
        Some((w.frames.pieces(chunk), w))
    });
    Ok(streamed(core, asked, &described, chunks))
}

fn streamed(
    core: &Arc<Core>,
    asked: Asked,
    frames: &Frames,
    chunks: impl Stream<Item = Vec<Bytes>> + Send + 'static,
) -> Response<Body> {
    let pieces = chunks.flat_map(futures::stream::iter);
    match asked {
        Asked::Stream => Response::builder()
            .header(header::CONTENT_TYPE, frames.content_type())
            .body(body::stream(pieces))
            .expect("constant headers"),
        Asked::Socket(socket) => socket.tell(core, frames.is_text(), pieces),
        Asked::Refused(response) => response,
    }
}

fn timeout(query: &Query) -> Result<Duration, Status> {
    let seconds = match query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => seconds as u64,
        // Spread, so that not all watches of a busy server start anew at once.
        _ => rand::rng().random_range(TIMEOUT_SECONDS_MIN..2 * TIMEOUT_SECONDS_MIN),
    };
    Ok(Duration::from_secs(seconds))
}

fn too_old(error: &Error) -> Status {
    match error {
        Error::Compacted { asked, compacted } => {
            Status::expired(format!("too old resource version: {asked} ({compacted})"))
        }
        other => Status::internal(other.to_string()),
    }
}

impl Watching {
    /// The next piece of the answer; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        while !self.ended {
            self.more_of_the_start(&mut out);
            if !out.is_empty() {
                return Some(out.freeze());
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => self.ended = true,
                batch = self.watch.next() => match batch {
                    Ok(batch) => self.events(&mut out, &batch.events).await,
                    Err(error) => {
                        self.frames.error(&mut out, &too_old(&error));
                        self.ended = true;
                    }
                },
                () = tokio::time::sleep_until(self.deadline) => {
                    self.ended = true;
                    self.bookmark(&mut out).await;
                }
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => self.bookmark(&mut out).await,
            }
            if !out.is_empty() {
                return Some(out.freeze());
            }
        }
        None
    }

    fn more_of_the_start(&mut self, out: &mut BytesMut) {
        for entry in self.initial.by_ref().take(INITIAL_CHUNK) {
            if self.selector.matches(&self.served, &entry.value) {
                self.frames.object(out, &self.served, "ADDED", &entry.value);
            }
        }
        if self.initial.len() == 0
            && let Some(revision) = self.initial_end.take()
        {
            self.frames.bookmark(out, &self.served, revision, true);
        } else if self.initial.len() > 0 && out.is_empty() {
            self.more_of_the_start(out);
        }
    }

    async fn bookmark(&mut self, out: &mut BytesMut) {
        self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
        if !self.bookmarks {
            return;
        }
        match self.watch.poll() {
            Ok(batch) => {
                self.events(out, &batch.events).await;
                if !self.ended {
                    self.frames.bookmark(out, &self.served, batch.revision, false);
                }
            }
            Err(error) => {
                self.frames.error(out, &too_old(&error));
                self.ended = true;
            }
        }
    }

    async fn events(&mut self, out: &mut BytesMut, events: &[Arc<Event>]) {
        match conversion::events(self.core.objects.as_ref(), &self.served, events).await {
            Ok(None) => events.iter().for_each(|e| self.event(out, e)),
            Ok(Some(told)) => told.iter().for_each(|e| self.event(out, e)),
            Err(status) => {
                self.frames.error(out, &status);
                self.ended = true;
            }
        }
    }

    /// A change seen through the selector: what comes into view was added, what leaves it was deleted.
    fn event(&mut self, out: &mut BytesMut, event: &Event) {
        let seen = |entry: &Entry| self.selector.matches(&self.served, &entry.value);
        let before = event.previous.as_ref().is_some_and(seen);
        let after = event.kind != EventKind::Delete && seen(&event.entry);
        let (kind, value) = match (before, after) {
            (false, true) => ("ADDED", event.entry.value.clone()),
            (true, true) => ("MODIFIED", event.entry.value.clone()),
            (true, false) if event.kind == EventKind::Delete => ("DELETED", event.entry.value.clone()),
            (true, false) => match event.faded() {
                Some(entry) => ("DELETED", entry.value.clone()),
                None => return,
            },
            (false, false) => return,
        };
        self.frames.object(out, &self.served, kind, &value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(query: &str) -> Result<Start, String> {
        let query = Query::parse(query);
        check(&query).map_err(|s| s.message)?;
        start_of(&query).map_err(|s| s.message)
    }

    #[test]
    fn a_watch_starts_where_its_parameters_say() {
        assert_eq!(start(""), Ok(Start::State { then_bookmark: false }));
        assert_eq!(start("resourceVersion=0"), Ok(Start::State { then_bookmark: false }));
        assert_eq!(start("resourceVersion=5"), Ok(Start::After(Revision(5))));
        let streaming = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        assert_eq!(start(streaming), Ok(Start::State { then_bookmark: true }));
        assert_eq!(start("allowWatchBookmarks=true"), Ok(Start::State { then_bookmark: true }));
        assert_eq!(start("sendInitialEvents=false&resourceVersionMatch=NotOlderThan"), Ok(Start::After(Revision(0))));
    }

    #[test]
    fn parameters_that_exclude_each_other_are_refused_in_upstreams_words() {
        let refused =
            |query: &str| start(query).expect_err("refused").replace("ListOptions.meta.k8s.io \"\" is invalid: ", "");
        assert_eq!(
            refused("sendInitialEvents=true"),
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        );
        assert_eq!(
            refused("resourceVersionMatch=Exact&resourceVersion=5"),
            "[resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is \
             provided, resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"]"
        );
    }
}
