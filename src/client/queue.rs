//! Which keys wait to be planned, and which of them are next.
//!
//! Owns: deduplication, one run at a time per key, back-off per key, deadlines.
//! Called by: the driver.
//! Never: reads the clock.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use minik_api::ObjectKey;

use crate::backoff::delay;

/// How a run of a key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done { again_at: Option<Instant> },
    Failed,
}

/// Never longer than the keys there are.
pub(crate) struct WorkQueue {
    ready: VecDeque<ObjectKey>,
    entries: HashMap<ObjectKey, Entry>,
    wakes: BTreeSet<(Instant, ObjectKey)>,
    backoff_first: Duration,
    backoff_cap: Duration,
}

#[derive(Default)]
struct Entry {
    state: State,
    failures: u32,
    wake: Option<Instant>,
}

#[derive(Default, PartialEq)]
enum State {
    #[default]
    Idle,
    Ready,
    Running,
    /// Running, and changed since it began.
    RunningAgain,
}

impl WorkQueue {
    pub(crate) fn new(backoff_first: Duration, backoff_cap: Duration) -> WorkQueue {
        WorkQueue {
            ready: VecDeque::new(),
            entries: HashMap::new(),
            wakes: BTreeSet::new(),
            backoff_first,
            backoff_cap,
        }
    }

    pub(crate) fn add(&mut self, key: ObjectKey) {
        let entry = self.entries.entry(key.clone()).or_default();
        match entry.state {
            State::Ready | State::RunningAgain => {}
            State::Running => entry.state = State::RunningAgain,
            State::Idle => {
                entry.state = State::Ready;
                if let Some(at) = entry.wake.take() {
                    self.wakes.remove(&(at, key.clone()));
                }
                self.ready.push_back(key);
            }
        }
    }

    /// The next key to run.
    pub(crate) fn pop(&mut self) -> Option<ObjectKey> {
        let key = self.ready.pop_front()?;
        self.entries.get_mut(&key).expect("a ready key has an entry").state = State::Running;
        Some(key)
    }

    pub(crate) fn finish(&mut self, key: &ObjectKey, outcome: Outcome, now: Instant) {
        let entry = self.entries.get_mut(key).expect("a running key has an entry");
        let changed = entry.state == State::RunningAgain;
        entry.state = State::Idle;
        let wake = match outcome {
            Outcome::Done { again_at } => {
                entry.failures = 0;
                again_at
            }
            Outcome::Failed => {
                let wait = delay(self.backoff_first, self.backoff_cap, entry.failures);
                entry.failures += 1;
                Some(now + wait)
            }
        };
        if changed {
            self.add(key.clone());
        } else if let Some(at) = wake {
            entry.wake = Some(at);
            self.wakes.insert((at, key.clone()));
        } else {
            self.entries.remove(key);
        }
    }

    /// When `wake` should be called next.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Makes ready what is due.
    pub(crate) fn wake(&mut self, now: Instant) {
        while let Some((at, _)) = self.wakes.first()
            && *at <= now
        {
            let (_, key) = self.wakes.pop_first().expect("just seen");
            self.entries.get_mut(&key).expect("a waiting key has an entry").wake = None;
            self.add(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("", name)
    }
    fn queue() -> WorkQueue {
        WorkQueue::new(Duration::from_millis(10), Duration::from_millis(40))
    }
    const DONE: Outcome = Outcome::Done { again_at: None };

    #[test]
    fn a_key_waits_once_and_runs_once_at_a_time() {
        let now = Instant::now();
        let mut q = queue();
        q.add(key("a"));
        q.add(key("a"));
        assert_eq!(q.pop(), Some(key("a")));
        assert_eq!(q.pop(), None);
        q.add(key("a"));
        assert_eq!(q.pop(), None, "it is still running");
        q.finish(&key("a"), DONE, now);
        assert_eq!(q.pop(), Some(key("a")), "it changed while it ran");
        q.finish(&key("a"), DONE, now);
        assert_eq!(q.pop(), None);
        assert!(q.entries.is_empty());
    }

    #[test]
    fn a_failing_key_waits_longer_each_time_and_a_change_wakes_it_at_once() {
        let now = Instant::now();
        let mut q = queue();
        q.add(key("a"));
        for wait in [10, 20, 40, 40] {
            assert!(q.pop().is_some());
            q.finish(&key("a"), Outcome::Failed, now);
            assert_eq!(q.next_wake(), Some(now + Duration::from_millis(wait)));
            q.wake(now + Duration::from_millis(wait - 1));
            assert_eq!(q.ready.len(), 0);
            q.wake(now + Duration::from_millis(wait));
        }
        q.pop();
        q.finish(&key("a"), Outcome::Failed, now);
        q.add(key("a"));
        assert_eq!(q.next_wake(), None);
        assert_eq!(q.pop(), Some(key("a")));
    }

    #[test]
    fn a_deadline_of_its_own_wakes_a_key() {
        let now = Instant::now();
        let mut q = queue();
        q.add(key("a"));
        q.pop();
        q.finish(&key("a"), Outcome::Done { again_at: Some(now + Duration::from_secs(5)) }, now);
        q.wake(now + Duration::from_secs(5));
        assert_eq!(q.pop(), Some(key("a")));
    }
}
