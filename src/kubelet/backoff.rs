//! How long to wait before trying again what keeps failing.
//!
//! Owns: the doubling, its ceiling and when it starts over.
//! Called by: the pod plan, for crashing containers and for images that do not come.
//! Never: reads the clock.

use jiff::{SignedDuration, Timestamp};

/// Container restarts and image pulls alike: 10 s, doubling, to 5 minutes.
pub const INITIAL: SignedDuration = SignedDuration::from_secs(10);
pub const MAX: SignedDuration = SignedDuration::from_secs(300);
/// A container that ran this long is thought healthy: upstream's `2 * max`.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// The history of one thing that may fail. Default: it never has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    entry: Option<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    delay: SignedDuration,
    updated: Timestamp,
}

impl Backoff {
    /// Until when to wait after the failure at `failed_at`; `None` when the next try is due.
    pub fn wait_until(&self, failed_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entry?;
        if expired(entry, failed_at) {
            return None;
        }
        let until = failed_at + entry.delay;
        (now < until).then_some(until)
    }

    /// Records a try after the failure at `failed_at`; the next failure will wait longer.
    pub fn tried(&mut self, failed_at: Timestamp, now: Timestamp) {
        let delay = match self.entry {
            Some(entry) if !expired(entry, failed_at) => (entry.delay * 2).min(MAX),
            _ => INITIAL,
        };
        self.entry = Some(Entry { delay, updated: now });
    }

    /// The wait that a failure now leads to, for messages.
    pub fn delay(&self) -> SignedDuration {
        self.entry.map_or(INITIAL, |e| e.delay)
    }
}

fn expired(entry: Entry, failed_at: Timestamp) -> bool {
    failed_at.duration_since(entry.updated) > FORGOTTEN_AFTER
}

/// As Go prints durations of whole seconds: `10s`, `2m40s`.
pub fn go_duration(d: SignedDuration) -> String {
    let seconds = d.as_secs();
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (h, m) {
        (0, 0) => format!("{s}s"),
        (0, _) => format!("{m}m{s}s"),
        _ => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("in range")
    }

    #[test]
    fn the_first_restart_is_at_once_and_the_next_ones_wait_ten_twenty_forty_seconds() {
        let mut backoff = Backoff::default();
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let until = backoff.wait_until(at(now), at(now));
            waits.push(until.map_or(0, |u| u.duration_since(at(now)).as_secs()));
            now += waits.last().expect("just pushed");
            backoff.tried(at(now), at(now));
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_healthy_minutes_forget_the_past() {
        let mut backoff = Backoff::default();
        backoff.tried(at(0), at(0));
        backoff.tried(at(10), at(10));
        assert_eq!(backoff.wait_until(at(610), at(610)), Some(at(630)));
        assert_eq!(backoff.wait_until(at(611), at(611)), None);
        backoff.tried(at(611), at(611));
        assert_eq!(backoff.delay(), INITIAL);
    }

    #[test]
    fn waiting_ends_when_its_time_has_come() {
        let mut backoff = Backoff::default();
        backoff.tried(at(0), at(0));
        assert_eq!(backoff.wait_until(at(5), at(14)), Some(at(15)));
        assert_eq!(backoff.wait_until(at(5), at(15)), None);
    }

    #[test]
    fn durations_read_as_go_prints_them() {
        assert_eq!(go_duration(INITIAL), "10s");
        assert_eq!(go_duration(SignedDuration::from_secs(160)), "2m40s");
        assert_eq!(go_duration(MAX), "5m0s");
    }
}
