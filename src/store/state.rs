//! What is, and what was a while ago.
//!
//! Owns: the current entries in key order, the log of recent events, and snapshots rebuilt from both.
//! Called by: readers under a shared lock, the writer under an exclusive one.
//! Never: waits, wakes anybody or touches the disk.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use crate::error::Error;
use crate::event::{Entry, Event, EventKind, Revision};
use crate::options::Options;

/// Which entries to read.
#[derive(Clone, Debug, Default)]
pub struct Range<'a> {
    pub prefix: &'a str,
    /// Only keys greater than this one.
    pub start_after: Option<&'a str>,
    /// 0: no limit.
    pub limit: usize,
    /// As it was then; `None`: now.
    pub at: Option<Revision>,
}

#[derive(Clone, Debug)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// The state of the whole store this page shows.
    pub revision: Revision,
    /// How many entries of the range come after this page.
    pub remaining: usize,
}

pub(crate) struct State {
    entries: BTreeMap<Arc<str>, Entry>,
    folders: Folders,
    /// Without gaps: the event of revision `r` is at `r - compacted - 1`.
    log: VecDeque<Arc<Event>>,
    log_bytes: usize,
    revision: Revision,
    compacted: Revision,
    options: Options,
}

/// How many entries each folder at the top holds. What is asked for most often has none: each write looks for webhooks,
/// policies and quotas, and to find nothing among all the keys is as much work as to find something.
#[derive(Default)]
struct Folders(HashMap<Box<str>, usize>);

impl Folders {
    fn of(key: &str) -> &str {
        key.split('/').next().unwrap_or(key)
    }

    fn add(&mut self, key: &str) {
        match self.0.get_mut(Self::of(key)) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(Self::of(key).into(), 1)),
        }
    }

    fn take(&mut self, key: &str) {
        let Some(count) = self.0.get_mut(Self::of(key)) else { return };
        *count -= 1;
        if *count == 0 {
            self.0.remove(Self::of(key));
        }
    }

    /// Whether there can be keys with this prefix.
    fn may_have(&self, prefix: &str) -> bool {
        prefix.is_empty() || self.0.contains_key(Self::of(prefix))
    }
}

/// So many entries are brought into the processor's cache at the same time.
const AT_ONCE: usize = 32;

/// The first entries, and how many follow them.
fn page<'a>(mut found: impl Iterator<Item = &'a Entry>, limit: usize) -> (Vec<Entry>, usize) {
    let first: Vec<&Entry> = found.by_ref().take(limit).collect();
    let mut entries = Vec::with_capacity(first.len());
    for part in first.chunks(AT_ONCE) {
        // They lie all over the memory, and to count one is to wait for it.
        part.iter().for_each(|entry| _ = std::hint::black_box(entry.modified));
        entries.extend(part.iter().copied().cloned());
    }
    (entries, found.count())
}

/// Follows on `/`, so that it ends what begins with a folder.
const AFTER_SLASH: &str = "0";

/// See the crate's docs for the three kinds of prefix.
pub(crate) fn within(prefix: &str, key: &str) -> bool {
    if prefix.is_empty() || prefix.ends_with('/') { key.starts_with(prefix) } else { key == prefix }
}

impl State {
    pub fn new(entries: BTreeMap<Arc<str>, Entry>, revision: Revision, options: Options) -> Self {
        let mut folders = Folders::default();
        entries.keys().for_each(|key| folders.add(key));
        Self { entries, folders, log: VecDeque::new(), log_bytes: 0, revision, compacted: revision, options }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }
    pub fn compacted(&self) -> Revision {
        self.compacted
    }
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub fn may_have(&self, prefix: &str) -> bool {
        self.folders.may_have(prefix)
    }

    pub fn range(&self, range: &Range<'_>) -> Result<Page, Error> {
        let at = range.at.unwrap_or(self.revision);
        if at > self.revision {
            return Err(Error::Future { asked: at, newest: self.revision });
        }
        if at < self.compacted {
            return Err(Error::Compacted { asked: at, compacted: self.compacted });
        }
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let (entries, remaining) = if at == self.revision {
            page(self.current(range), limit)
        } else {
            page(self.rebuilt(range, at).values().flatten(), limit)
        };
        Ok(Page { entries, revision: at, remaining })
    }

    /// Finds both ends at once: to ask each key whether it belongs to the range would be most of what a list costs.
    fn current(&self, range: &Range<'_>) -> impl Iterator<Item = &Entry> {
        let prefix = range.prefix;
        let start = match range.start_after {
            Some(key) if key >= prefix => Bound::Excluded(key),
            _ => Bound::Included(prefix),
        };
        let after = prefix.strip_suffix('/').map(|folder| [folder, AFTER_SLASH].concat());
        let end = match &after {
            _ if prefix.is_empty() => Bound::Unbounded,
            Some(after) => Bound::Excluded(after.as_str()),
            None => Bound::Included(prefix),
        };
        let is_backwards = match (start, end) {
            (Bound::Excluded(start), Bound::Excluded(end) | Bound::Included(end)) => start >= end,
            _ => false,
        };
        let is_empty = is_backwards || !self.folders.may_have(prefix);
        let found = (!is_empty).then(|| self.entries.range::<str, _>((start, end)));
        found.into_iter().flatten().map(|(_, entry)| entry)
    }

    /// The entries as they were: today's, with everything that happened since undone.
    fn rebuilt(&self, range: &Range<'_>, at: Revision) -> BTreeMap<Arc<str>, Option<Entry>> {
        let mut then: BTreeMap<Arc<str>, Option<Entry>> =
            self.current(range).map(|e| (e.key.clone(), Some(e.clone()))).collect();
        let mine = |key: &str| within(range.prefix, key) && range.start_after.is_none_or(|s| key > s);
        for event in self.after(at).rev().filter(|e| mine(&e.entry.key)) {
            then.insert(event.entry.key.clone(), event.previous.clone());
        }
        then
    }

    /// The events after `at`, which must not be compacted.
    pub fn after(&self, at: Revision) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        let start = at.0.saturating_sub(self.compacted.0) as usize;
        self.log.range(start.min(self.log.len())..)
    }

    /// Makes events visible; they carry the revisions that follow on this state's.
    pub fn publish(&mut self, events: impl Iterator<Item = Arc<Event>>) {
        for event in events {
            self.revision = event.revision();
            match event.kind {
                EventKind::Delete => {
                    if self.entries.remove(&event.entry.key).is_some() {
                        self.folders.take(&event.entry.key);
                    }
                }
                EventKind::Create | EventKind::Update => {
                    if self.entries.insert(event.entry.key.clone(), event.entry.clone()).is_none() {
                        self.folders.add(&event.entry.key);
                    }
                }
            }
            self.log_bytes += event.weight();
            self.log.push_back(event);
        }
        self.forget();
    }

    fn forget(&mut self) {
        let Some(newest) = self.log.back().map(|e| e.at) else { return };
        while let Some(oldest) = self.log.front() {
            let fits = self.log.len() <= self.options.history_events_max
                && self.log_bytes <= self.options.history_bytes_max
                && newest.duration_since(oldest.at) <= self.options.history_age_max;
            if fits {
                break;
            }
            self.log_bytes -= oldest.weight();
            self.compacted = oldest.revision();
            self.log.pop_front();
        }
    }
}
