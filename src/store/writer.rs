//! Decides writes in order, and what of them happens.
//!
//! Owns: preconditions, revisions, and the thread that makes all waiting writes durable with one commit.
//! Called by: `Store`, once per request.
//! Never: makes a write visible before it is durable.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use crate::disk::Disk;
use crate::encode::Encode;
use crate::error::Error;
use crate::event::{Entry, Event, EventKind, Revision, Written};
use crate::state::State;
use crate::watch::Topics;

/// Requests that may wait for the writer; more wait at its door.
pub(crate) const WAITING_MAX: usize = 4096;
/// Requests in one commit.
const COMMIT_REQUESTS_MAX: usize = 1024;
/// A commit that takes no longer than this is cheaper for its caller to wait for than two threads that wake each other:
/// what a solid-state disk needs for a small write and its sync, several times over.
const QUICK: Duration = Duration::from_millis(1);

/// One change of one key.
#[derive(Clone, Debug)]
pub enum Write {
    Create {
        key: String,
        value: Encode,
    },
    Update {
        key: String,
        expected: Revision,
        value: Encode,
    },
    /// `expected: None` deletes whatever is there.
    Delete {
        key: String,
        expected: Option<Revision>,
    },
}

/// What became of a request.
pub(crate) type Outcome = Result<Vec<Entry>, Error>;

/// Writes that happen together or not at all.
pub(crate) struct Request {
    pub writes: Vec<Write>,
    pub reply: oneshot::Sender<Outcome>,
}

/// Where commits are made; who holds it is the only one that changes the state.
pub(crate) struct Desk {
    disk: Option<Disk>,
    /// What the last commit took to become durable.
    took: Duration,
}

impl Desk {
    /// The first commit shows what the disk is like.
    pub fn new(disk: Option<Disk>) -> Self {
        let took = if disk.is_some() { Duration::MAX } else { Duration::ZERO };
        Self { disk, took }
    }

    /// Returns when the changes are on disk.
    fn commit(&mut self, changes: &Overlay, revision: Revision) -> Result<(), Error> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        let begun = Instant::now();
        let outcome = disk.commit(changes, revision);
        self.took = begun.elapsed();
        outcome
    }

    fn is_quick(&self) -> bool {
        self.took <= QUICK && !self.is_full()
    }

    fn is_full(&self) -> bool {
        self.disk.as_ref().is_some_and(Disk::is_full)
    }
}

/// Everything readers and writers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub state: Arc<RwLock<State>>,
    pub topics: Arc<Topics>,
    pub revisions: tokio::sync::watch::Sender<Revision>,
    pub desk: Arc<Mutex<Desk>>,
    /// Requests that have not been answered.
    pub open: Arc<AtomicUsize>,
}

/// A request is open as long as this is held.
pub(crate) struct Turn<'a> {
    open: &'a AtomicUsize,
    is_alone: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keys that this batch has changed, as they will be.
pub(crate) type Overlay = HashMap<Arc<str>, Option<Entry>>;

struct Plan<'a> {
    state: &'a State,
    overlay: Overlay,
    events: Vec<Arc<Event>>,
    revision: Revision,
    now: Instant,
}

impl<'a> Plan<'a> {
    fn new(state: &'a State) -> Self {
        Self { state, overlay: Overlay::new(), events: Vec::new(), revision: state.revision(), now: Instant::now() }
    }

    fn current(&self, key: &str) -> Option<Entry> {
        match self.overlay.get(key) {
            Some(entry) => entry.clone(),
            None => self.state.get(key).cloned(),
        }
    }

    /// All of a request or nothing of it.
    fn request(&mut self, writes: Vec<Write>) -> Result<Vec<Entry>, Error> {
        let (revision, events) = (self.revision, self.events.len());
        let entries: Result<Vec<Entry>, Error> = writes.into_iter().map(|w| self.write(w)).collect();
        if entries.is_err() {
            for event in self.events.drain(events..).rev() {
                self.overlay.insert(event.entry.key.clone(), event.previous.clone());
            }
            self.revision = revision;
        }
        entries
    }

    fn write(&mut self, write: Write) -> Result<Entry, Error> {
        let revision = Revision(self.revision.0 + 1);
        let (kind, entry, previous) = match write {
            Write::Create { key, value } => {
                if self.current(&key).is_some() {
                    return Err(Error::Exists { key });
                }
                let (value, hole) = value.finish(revision);
                let written = Written { key: key.into(), value, created: revision, modified: revision, hole };
                (EventKind::Create, Entry::from(written), None)
            }
            Write::Update { key, expected, value } => {
                let old = self.expect(key, Some(expected))?;
                let (value, hole) = value.finish(revision);
                let written = Written { value, modified: revision, hole, ..Written::clone(&old) };
                (EventKind::Update, written.into(), Some(old))
            }
            Write::Delete { key, expected } => {
                let old = self.expect(key, expected)?;
                (EventKind::Delete, old.at(revision), Some(old))
            }
        };
        self.revision = revision;
        self.overlay.insert(entry.key.clone(), (kind != EventKind::Delete).then(|| entry.clone()));
        self.events.push(Arc::new(Event { kind, entry: entry.clone(), previous, at: self.now }));
        Ok(entry)
    }

    fn expect(&self, key: String, expected: Option<Revision>) -> Result<Entry, Error> {
        let old = self.current(&key).ok_or_else(|| Error::NotFound { key: key.clone() })?;
        match expected {
            Some(expected) if expected != old.modified => Err(Error::Conflict { key, expected, actual: old.modified }),
            _ => Ok(old),
        }
    }
}

impl Shared {
    pub fn enter(&self) -> Turn<'_> {
        Turn { open: &self.open, is_alone: self.open.fetch_add(1, Ordering::Relaxed) == 0 }
    }

    /// On the caller's thread, if no other request could be committed together with this one and the disk is quick.
    /// Otherwise gives the writes back.
    pub fn at_once(&self, turn: &Turn<'_>, writes: Vec<Write>) -> Result<Outcome, Vec<Write>> {
        let desk = if turn.is_alone { self.desk.try_lock() } else { None };
        let Some(mut desk) = desk.filter(|desk| desk.is_quick()) else { return Err(writes) };
        Ok(self.commit(&mut desk, vec![writes]).remove(0))
    }

    /// Decides the requests, makes them durable, then visible. Nobody else changes the state meanwhile, so what was
    /// decided from a shared lock still holds under the exclusive one.
    fn commit(&self, desk: &mut Desk, requests: Vec<Vec<Write>>) -> Vec<Outcome> {
        let state = self.state.read();
        let mut plan = Plan::new(&state);
        let outcomes: Vec<Outcome> = requests.into_iter().map(|writes| plan.request(writes)).collect();
        let Plan { overlay, events, revision, .. } = plan;
        drop(state);
        if events.is_empty() {
            return outcomes;
        }
        if let Err(error) = desk.commit(&overlay, revision) {
            return outcomes.iter().map(|_| Err(error.clone())).collect();
        }
        self.publish(events, revision);
        outcomes
    }

    fn publish(&self, events: Vec<Arc<Event>>, revision: Revision) {
        let mut state = self.state.write();
        let wakes = self.topics.mark(events.iter());
        state.publish(events.into_iter());
        drop(state);
        wakes.wake();
        self.revisions.send_replace(revision);
    }
}

/// Runs until every `Store` is gone.
pub(crate) fn run(shared: &Shared, mut requests: mpsc::Receiver<Request>) {
    while let Some(first) = requests.blocking_recv() {
        let mut desk = shared.desk.lock();
        let (mut batch, mut replies) = (vec![first.writes], vec![first.reply]);
        while batch.len() < COMMIT_REQUESTS_MAX
            && let Ok(next) = requests.try_recv()
        {
            batch.push(next.writes);
            replies.push(next.reply);
        }
        let outcomes = shared.commit(&mut desk, batch);
        // Who is answered and writes again at once finds the desk free, unless there is something to do here.
        let mut full = desk.is_full().then_some(desk);
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // A caller that went away has its write all the same.
            let _ = reply.send(outcome);
        }
        if let Some(disk) = full.as_mut().and_then(|desk| desk.disk.as_mut()) {
            disk.flush();
        }
    }
    if let Some(disk) = shared.desk.lock().disk.take() {
        disk.close();
    }
}
