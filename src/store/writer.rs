//! Decides writes in order, and what of them happens.
//!
//! Owns: preconditions, revisions, and the thread that makes all waiting writes durable with one commit.
//! Called by: `Store`, once per request.
//! Never: makes a write visible before it is durable.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use crate::disk::Disk;
use crate::encode::Encode;
use crate::error::Error;
use crate::event::{Entry, Event, EventKind, Revision};
use crate::state::State;
use crate::watch::Topics;

/// Requests that may wait for the writer; more wait at its door.
pub(crate) const WAITING_MAX: usize = 4096;
/// Requests in one commit.
const COMMIT_REQUESTS_MAX: usize = 1024;

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

/// Writes that happen together or not at all.
pub(crate) struct Request {
    pub writes: Vec<Write>,
    pub reply: oneshot::Sender<Result<Vec<Entry>, Error>>,
}

/// Everything readers and the writer share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub state: Arc<RwLock<State>>,
    pub topics: Arc<Topics>,
    pub revisions: tokio::sync::watch::Sender<Revision>,
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
                let entry = Entry { key: key.into(), value, created: revision, modified: revision, hole };
                (EventKind::Create, entry, None)
            }
            Write::Update { key, expected, value } => {
                let old = self.expect(key, Some(expected))?;
                let (value, hole) = value.finish(revision);
                let entry = Entry { key: old.key.clone(), value, created: old.created, modified: revision, hole };
                (EventKind::Update, entry, Some(old))
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
    /// Decides the requests, makes them durable, then visible; answers each.
    fn commit(&self, disk: Option<&mut Disk>, requests: Vec<Request>) {
        let state = self.state.read();
        let mut plan = Plan::new(&state);
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            answers.push((request.reply, plan.request(request.writes)));
        }
        let Plan { overlay, events, revision, .. } = plan;
        drop(state);
        if !events.is_empty() {
            if let Some(Err(error)) = disk.map(|d| d.commit(&overlay, revision)) {
                for (reply, _) in answers {
                    let _ = reply.send(Err(error.clone()));
                }
                return;
            }
            self.publish(events, revision);
        }
        for (reply, answer) in answers {
            // A caller that went away has its write all the same.
            let _ = reply.send(answer);
        }
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

/// Runs until every `Store` is gone. The writer is the only one that changes the state, so what it decided from a
/// shared lock still holds when it takes the exclusive one.
pub(crate) fn run(shared: Shared, mut disk: Option<Disk>, mut requests: mpsc::Receiver<Request>) {
    while let Some(first) = requests.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < COMMIT_REQUESTS_MAX
            && let Ok(next) = requests.try_recv()
        {
            batch.push(next);
        }
        shared.commit(disk.as_mut(), batch);
        if let Some(disk) = &mut disk {
            disk.settle();
        }
    }
    if let Some(disk) = disk {
        disk.close();
    }
}
