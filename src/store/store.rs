//! The store as its user sees it.
//!
//! Owns: the handle, and how it is opened.
//! Called by: the API server.
//! Never: blocks an async caller on a slow disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use crate::disk::{self, Disk};
use crate::encode::Encode;
use crate::error::Error;
use crate::event::{Entry, Revision};
use crate::options::Options;
use crate::state::{Page, Range, State};
use crate::watch::{Topics, Watch};
use crate::writer::{self, Desk, Request, Shared, Write};

/// Cheap to clone; the last clone closes it.
#[derive(Clone)]
pub struct Store {
    shared: Shared,
    requests: mpsc::Sender<Request>,
}

impl Store {
    /// Opens or creates the file; one process at a time.
    pub fn open(path: &Path) -> Result<Store, Error> {
        Self::open_with(path, Options::default())
    }

    pub fn open_with(path: &Path, options: Options) -> Result<Store, Error> {
        Self::from_disk(disk::open(path)?, options)
    }

    /// Forgets everything when it is dropped.
    pub fn memory() -> Store {
        Self::memory_with(Options::default())
    }

    pub fn memory_with(options: Options) -> Store {
        let state = State::new(BTreeMap::new(), Revision(1), options);
        Self::start(state, None).expect("a thread without a file needs nothing that can be missing")
    }

    pub(crate) fn from_disk(loaded: disk::Loaded, options: Options) -> Result<Store, Error> {
        Self::start(State::new(loaded.entries, loaded.revision, options), Some(loaded.disk))
    }

    fn start(state: State, disk: Option<Disk>) -> Result<Store, Error> {
        let (requests, waiting) = mpsc::channel(writer::WAITING_MAX);
        let shared = Shared {
            revisions: tokio::sync::watch::Sender::new(state.revision()),
            state: Arc::new(RwLock::new(state)),
            topics: Arc::new(Topics::default()),
            desk: Arc::new(Mutex::new(Desk::new(disk))),
            open: Arc::default(),
        };
        let theirs = shared.clone();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer::run(&theirs, waiting))
            .map_err(|e| Error::Open(e.to_string()))?;
        Ok(Store { shared, requests })
    }

    /// The newest write.
    pub fn revision(&self) -> Revision {
        self.shared.state.read().revision()
    }

    /// Snapshots and watches from before this revision are gone.
    pub fn compacted(&self) -> Revision {
        self.shared.state.read().compacted()
    }

    /// Waits until the store has reached a revision that a client claims to have seen.
    pub async fn reached(&self, revision: Revision) {
        let mut revisions = self.shared.revisions.subscribe();
        // The sender lives as long as `self`.
        let _ = revisions.wait_for(|r| *r >= revision).await;
    }

    pub fn get(&self, key: &str) -> Option<Entry> {
        self.shared.state.read().get(key).cloned()
    }

    /// Whether there is anything in the folder at the top in which such keys lie; cheaper than to look for it.
    pub fn may_have(&self, prefix: &str) -> bool {
        self.shared.state.read().may_have(prefix)
    }

    pub fn range(&self, range: &Range<'_>) -> Result<Page, Error> {
        self.shared.state.read().range(range)
    }

    pub async fn create(&self, key: &str, value: Encode) -> Result<Entry, Error> {
        self.one(Write::Create { key: key.into(), value }).await
    }

    pub async fn update(&self, key: &str, expected: Revision, value: Encode) -> Result<Entry, Error> {
        self.one(Write::Update { key: key.into(), expected, value }).await
    }

    /// Answers with the last value, which carries the revision of the deletion.
    pub async fn delete(&self, key: &str, expected: Option<Revision>) -> Result<Entry, Error> {
        self.one(Write::Delete { key: key.into(), expected }).await
    }

    async fn one(&self, write: Write) -> Result<Entry, Error> {
        let mut entries = self.transact(vec![write]).await?;
        Ok(entries.remove(0))
    }

    /// All writes or none; returns when they are durable.
    pub async fn transact(&self, writes: Vec<Write>) -> Result<Vec<Entry>, Error> {
        let turn = self.shared.enter();
        let writes = match self.shared.at_once(&turn, writes) {
            Ok(outcome) => return outcome,
            Err(writes) => writes,
        };
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { writes, reply }).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Everything below `prefix` that happened after `after`.
    pub fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        Watch::new(self.shared.state.clone(), self.shared.topics.clone(), prefix, after)
    }
}
