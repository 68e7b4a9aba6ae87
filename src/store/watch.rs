//! Being told what changes below a prefix.
//!
//! Owns: who waits for which prefix, and how far each has read. The history is the queue: a slow watch costs
//! nothing and ends only when what it has not read yet is forgotten.
//! Called by: the API server, one `Watch` a client's watch; the writer, to wake them.
//! Never: skips or repeats an event.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::error::Error;
use crate::event::{Event, Revision};
use crate::state::{State, within};

/// Events taken at once, so that a lock is not held for long and a batch fits into few packets.
const BATCH_EVENTS_MAX: usize = 512;
/// Events looked at at once: those of other prefixes lie between.
const SCAN_EVENTS_MAX: usize = 8192;

/// Wakes one watch.
struct Slot {
    /// The first revision it has to read; 0: none. Set under the state's exclusive lock, so whoever holds the shared
    /// lock and finds 0 has read all there is.
    pending: AtomicU64,
    notify: Notify,
}

#[derive(Default)]
pub(crate) struct Topics {
    slots: Mutex<HashMap<Arc<str>, Vec<Arc<Slot>>>>,
}

pub(crate) struct Wakes(Vec<Arc<Slot>>);

impl Topics {
    /// Marks every watch that the events concern. The caller holds the state's exclusive lock.
    pub fn mark<'a>(&self, events: impl Iterator<Item = &'a Arc<Event>>) -> Wakes {
        let slots = self.slots.lock();
        let mut woken = Vec::new();
        if slots.is_empty() {
            return Wakes(woken);
        }
        for event in events {
            let key: &str = &event.entry.key;
            let ends = key.match_indices('/').map(|(i, _)| i + 1);
            for end in std::iter::once(0).chain(ends).chain(std::iter::once(key.len())) {
                for slot in slots.get(&key[..end]).into_iter().flatten() {
                    let first = event.revision().0;
                    if slot.pending.compare_exchange(0, first, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                        woken.push(slot.clone());
                    }
                }
            }
        }
        Wakes(woken)
    }
}

impl Wakes {
    pub fn wake(self) {
        for slot in self.0 {
            slot.notify.notify_one();
        }
    }
}

/// What has happened since the last batch.
#[derive(Debug)]
pub struct Batch {
    pub events: Vec<Arc<Event>>,
    /// Everything up to this revision has been delivered.
    pub revision: Revision,
}

pub struct Watch {
    state: Arc<RwLock<State>>,
    topics: Arc<Topics>,
    slot: Arc<Slot>,
    prefix: Arc<str>,
    read: Revision,
}

impl Watch {
    pub(crate) fn new(
        state: Arc<RwLock<State>>,
        topics: Arc<Topics>,
        prefix: &str,
        after: Revision,
    ) -> Result<Watch, Error> {
        let prefix: Arc<str> = prefix.into();
        // The first look goes over everything after `after`.
        let slot = Arc::new(Slot { pending: AtomicU64::new(after.0 + 1), notify: Notify::new() });
        {
            let now = state.read();
            if after < now.compacted() {
                return Err(Error::Compacted { asked: after, compacted: now.compacted() });
            }
            topics.slots.lock().entry(prefix.clone()).or_default().push(slot.clone());
        }
        slot.notify.notify_one();
        Ok(Watch { state, topics, slot, prefix, read: after })
    }

    /// Waits for events. Dropping the future loses none.
    pub async fn next(&mut self) -> Result<Batch, Error> {
        loop {
            let batch = self.poll()?;
            if !batch.events.is_empty() {
                return Ok(batch);
            }
            if self.slot.pending.load(Ordering::Acquire) == 0 {
                self.slot.notify.notified().await;
            }
        }
    }

    /// What there is now, perhaps nothing; its revision is then news by itself: a bookmark.
    pub fn poll(&mut self) -> Result<Batch, Error> {
        let state = self.state.read();
        let pending = self.slot.pending.swap(0, Ordering::AcqRel);
        let mut events = Vec::new();
        if pending == 0 {
            self.read = self.read.max(state.revision());
            return Ok(Batch { events, revision: self.read });
        }
        let from = Revision((pending - 1).max(self.read.0));
        if from < state.compacted() {
            return Err(Error::Compacted { asked: from, compacted: state.compacted() });
        }
        for (looked_at, event) in state.after(from).enumerate() {
            if events.len() == BATCH_EVENTS_MAX || looked_at == SCAN_EVENTS_MAX {
                self.slot.pending.store(event.revision().0, Ordering::Release);
                break;
            }
            if within(&self.prefix, &event.entry.key) {
                events.push(event.clone());
            }
            self.read = event.revision();
        }
        Ok(Batch { events, revision: self.read })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut slots = self.topics.slots.lock();
        if let Some(same) = slots.get_mut(&self.prefix) {
            same.retain(|s| !Arc::ptr_eq(s, &self.slot));
            if same.is_empty() {
                slots.remove(&self.prefix);
            }
        }
    }
}
