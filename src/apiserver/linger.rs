//! How a connection waits for its client's next request: awake at first, if the last one came quickly.
//!
//! Owns: when that pays, and its end.
//! Called by: `streams`, when all requests of a connection are answered, and when there is another.
//! Never: reads; waits for longer than a small write does for its disk.
//!
//! Who sends one request after the other sends the next one before a thread has gone to sleep and is awake again, and that
//! is what both would spend their time with. What is ready to run meanwhile finds another worker, but for what was woken
//! last, such as a watch of what was just written: tokio keeps that for this one. A packet of another client may have to
//! wait for as long, once: then there are two who ask, and nobody waits awake for either.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Twice what a client on the same machine needs to read an answer and to send the next request.
const AWAKE_MAX: Duration = Duration::from_micros(200);

/// After waiting in vain, twice as many quick requests are wanted before it is tried again, up to so many: where processors
/// are rare, waiting awake may keep one from the very client.
const WANTED_MAX: u32 = 64;

/// How many requests began on the connections of a server.
#[derive(Clone, Default)]
pub struct Requests(Arc<AtomicUsize>);

impl Requests {
    /// So many more begin; how many that makes.
    pub fn begin(&self, more: usize) -> usize {
        self.0.fetch_add(more, Ordering::Relaxed) + more
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often in a row a client asked one thing after the other, each at once, and nobody else meanwhile.
#[derive(Clone, Default)]
pub struct Pace(Arc<AtomicU32>);

impl Pace {
    #[cfg(test)]
    pub fn quick() -> Pace {
        Pace(Arc::new(AtomicU32::new(1)))
    }

    pub fn is_quick(&self) -> bool {
        self.count() > 0
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

pub struct Linger {
    socket: OwnedFd,
    begun: Requests,
    /// When everything was answered last, and how many requests had begun by then.
    answered: Option<(Instant, usize)>,
    pace: Pace,
    /// Quick requests after which it waits.
    wanted: u32,
}

/// Why a connection does not wait awake, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    NotQuick,
    Readable,
    /// Another connection has a request.
    Others,
    Over,
}

impl Linger {
    /// `None` for want of a descriptor.
    pub fn new(socket: impl AsFd, begun: Requests) -> Option<Self> {
        let socket = socket.as_fd().try_clone_to_owned().ok()?;
        Some(Self { socket, begun, answered: None, pace: Pace::default(), wanted: 1 })
    }

    pub fn pace(&self) -> Pace {
        self.pace.clone()
    }

    /// So many requests have come.
    pub fn asked(&mut self, requests: usize, now: Instant) {
        let count = self.begun.begin(requests);
        let is_next = |(at, before)| count == before + 1 && now.duration_since(at) <= AWAKE_MAX;
        let quick = if self.answered.is_some_and(is_next) { self.pace.count().saturating_add(1) } else { 0 };
        self.pace.0.store(quick, Ordering::Relaxed);
    }

    /// All of them are answered.
    pub fn answered(&mut self, clock: impl Fn() -> Instant) -> End {
        let start = clock();
        let begun = self.begun.count();
        self.answered = Some((start, begun));
        if self.pace.count() < self.wanted {
            return End::NotQuick;
        }
        loop {
            if self.is_readable() {
                self.wanted = 1;
                return End::Readable;
            }
            if self.begun.count() != begun {
                return End::Others;
            }
            if clock().duration_since(start) > AWAKE_MAX {
                self.wanted = (2 * self.wanted).min(WANTED_MAX);
                return End::Over;
            }
        }
    }

    fn is_readable(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A socket that cannot be asked is left to its reader.
        poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&at_once)) != Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    struct Fixture {
        linger: Linger,
        client: UnixStream,
        begun: Requests,
        now: Cell<Instant>,
    }

    fn fixture() -> Fixture {
        let (client, server) = UnixStream::pair().expect("two sockets");
        let (begun, now) = (Requests::default(), Instant::now());
        let mut linger = Linger::new(&server, begun.clone()).expect("there are descriptors");
        linger.answered = Some((now, 0));
        Fixture { linger, client, begun, now: Cell::new(now) }
    }

    impl Fixture {
        fn pass(&self, time: Duration) {
            self.now.set(self.now.get() + time);
        }

        /// A request that came so long after the last answer, and is answered. Each look at the clock takes a while.
        fn exchange(&mut self, gap: Duration) -> End {
            self.pass(gap);
            self.linger.asked(1, self.now.get());
            let now = &self.now;
            self.linger.answered(|| {
                now.set(now.get() + AWAKE_MAX / 10);
                now.get()
            })
        }
    }

    #[test]
    fn only_who_was_quick_is_waited_for() {
        let mut fixture = fixture();
        fixture.client.write_all(b"x").expect("it is open");
        assert_eq!(fixture.exchange(2 * AWAKE_MAX), End::NotQuick);
        assert_eq!(fixture.exchange(AWAKE_MAX / 2), End::Readable);
        assert_eq!(fixture.exchange(2 * AWAKE_MAX), End::NotQuick);
    }

    /// Until it waits, with so many quick requests before.
    fn tries(fixture: &mut Fixture) -> usize {
        (0..).take_while(|_| fixture.exchange(Duration::ZERO) == End::NotQuick).count()
    }

    #[test]
    fn in_vain_it_waits_not_for_long_and_less_and_less_often() {
        let mut fixture = fixture();
        let seen: Vec<usize> = (0..8).map(|_| tries(&mut fixture)).collect();
        assert_eq!(seen, [0, 2, 4, 8, 16, 32, 64, 64], "the first of them comes late, because it has waited before");
        fixture.client.write_all(b"x").expect("it is open");
        tries(&mut fixture);
        assert_eq!(tries(&mut fixture), 0, "it has not waited in vain");
    }

    #[test]
    fn whoever_else_asks_is_not_kept_waiting() {
        let mut fixture = fixture();
        fixture.begun.begin(1);
        assert_eq!(fixture.exchange(AWAKE_MAX / 2), End::NotQuick, "another asked in between");
        fixture.linger.asked(1, fixture.now.get());
        let begun = fixture.begun.clone();
        let now = fixture.now.get();
        let ended = fixture.linger.answered(|| {
            begun.begin(1);
            now
        });
        assert_eq!(ended, End::Others);
        assert_eq!(fixture.exchange(AWAKE_MAX / 2), End::NotQuick);
    }

    #[test]
    fn several_at_once_need_no_waiting() {
        let mut fixture = fixture();
        fixture.linger.asked(2, fixture.now.get());
        assert_eq!(fixture.linger.answered(|| fixture.now.get()), End::NotQuick);
    }

    #[test]
    fn who_has_gone_is_noticed() {
        let mut fixture = fixture();
        drop(std::mem::replace(&mut fixture.client, UnixStream::pair().expect("two sockets").0));
        fixture.linger.asked(1, fixture.now.get());
        assert_eq!(fixture.linger.answered(|| fixture.now.get()), End::Readable);
    }
}
