//! A key with its value at a revision, and how it changed.
//!
//! Owns: `Revision`, `Entry`, `Event`.
//! Called by: readers, writers and watches.
//! Never: decides an order; `writer` does.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::encode;

/// The number of a write; every write has its own, without gaps. The empty store is at 1, as in etcd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Revision {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Cheap to clone: one count, however many parts it has. A list of all there is counts nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry(Arc<Written>);

/// What an entry consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub key: Arc<str>,
    pub value: Bytes,
    pub created: Revision,
    pub modified: Revision,
    /// Where in `value` the text of `modified` stands; `encode::NO_HOLE` when nowhere.
    pub(crate) hole: u32,
}

impl Deref for Entry {
    type Target = Written;

    fn deref(&self) -> &Written {
        &self.0
    }
}

impl From<Written> for Entry {
    fn from(written: Written) -> Self {
        Entry(Arc::new(written))
    }
}

impl Entry {
    /// The same write with its value told in another way; it is not what the store holds.
    pub fn told_as(&self, value: Bytes) -> Entry {
        Written { value, hole: encode::NO_HOLE, ..Written::clone(self) }.into()
    }

    /// Where in `value` the text of `modified` ends, if it stands there.
    pub fn after_revision(&self) -> Option<usize> {
        let digits = self.modified.0.checked_ilog10().unwrap_or(0) as usize + 1;
        (self.hole != encode::NO_HOLE).then(|| self.hole as usize + digits)
    }

    /// The same value with another revision written into it: what a deletion shows its watchers.
    pub(crate) fn at(&self, revision: Revision) -> Entry {
        let value = encode::rewrite(&self.value, self.hole, self.modified, revision);
        Written { value, modified: revision, ..Written::clone(self) }.into()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Create,
    Update,
    Delete,
}

#[derive(Debug)]
pub struct Event {
    pub kind: EventKind,
    /// After the write; of a deletion the last value, with the revision of the deletion.
    pub entry: Entry,
    /// Before the write; `None` for a creation.
    pub previous: Option<Entry>,
    pub(crate) at: Instant,
}

impl Event {
    pub fn revision(&self) -> Revision {
        self.entry.modified
    }

    /// The state before, with the revision of this event: what a watcher sees last of an object that its selector
    /// does not mean any more.
    pub fn faded(&self) -> Option<Entry> {
        self.previous.as_ref().map(|p| p.at(self.revision()))
    }

    /// The same event with its values told in another way.
    pub fn told_as(&self, entry: Entry, previous: Option<Entry>) -> Event {
        Event { kind: self.kind, entry, previous, at: self.at }
    }

    /// What this event alone keeps in memory, about.
    pub(crate) fn weight(&self) -> usize {
        const OVERHEAD: usize = 256;
        let deleted = if self.kind == EventKind::Delete { self.entry.value.len() } else { 0 };
        OVERHEAD + deleted + self.previous.as_ref().map_or(0, |p| p.value.len())
    }
}
