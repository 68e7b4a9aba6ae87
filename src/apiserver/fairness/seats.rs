//! Seats: how many requests of each level are served at once, who waits, and whose turn is next.
//!
//! Owns: the counts of all levels, their queues, borrowing between levels, and fair turns between flows.
//! Called by: `Fairness`.
//! Never: reads a clock; whoever waits puts the limit on it.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::classify::{Level, Limits, Queuing};

pub struct Seats {
    total: u32,
    levels: Mutex<Vec<State>>,
}

/// One level.
struct State {
    name: Arc<str>,
    limits: Limits,
    /// What it may always use.
    nominal: u32,
    /// What of that others may use while it does not.
    lendable: u32,
    borrow_max: u32,
    executing: u32,
    waiting: u32,
    dispatched: u64,
    refused: u64,
    queues: Vec<Queue>,
    /// The turn that was given last; a queue that was empty starts from here.
    turn: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<oneshot::Sender<Seat>>,
    /// Turns that this queue has had, or missed while it was empty: the least is next.
    turns: u64,
}

pub enum Admitted {
    Exempt,
    Now(Seat),
    Waits(oneshot::Receiver<Seat>),
    Refused,
}

/// One request's right to be served.
pub struct Seat {
    seats: Arc<Seats>,
    level: Arc<str>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.release(&self.level);
    }
}

impl State {
    fn of(level: &Level) -> Self {
        Self {
            name: level.name.clone(),
            limits: Limits::Exempt,
            nominal: 0,
            lendable: 0,
            borrow_max: u32::MAX,
            executing: 0,
            waiting: 0,
            dispatched: 0,
            refused: 0,
            queues: Vec::new(),
            turn: 0,
        }
    }

    /// Seats that it does not use itself and may lend.
    fn spare(&self) -> u32 {
        self.lendable.min(self.nominal.saturating_sub(self.executing))
    }

    fn borrowed(&self) -> u32 {
        self.executing.saturating_sub(self.nominal)
    }

    fn resize(&mut self, queuing: Option<Queuing>) {
        let wanted = queuing.map_or(0, |q| q.queues as usize);
        // Who waits in a queue that goes waits in another one.
        let gone: Vec<_> = self.queues.drain(wanted.min(self.queues.len())..).flat_map(|q| q.waiting).collect();
        self.queues.resize_with(wanted, Queue::default);
        match self.queues.first_mut() {
            Some(first) => first.waiting.extend(gone),
            None => self.waiting -= gone.len() as u32,
        }
    }

    /// The shortest of the queues that a flow's requests are dealt to.
    fn shortest(&self, queuing: Queuing, flow: u64) -> usize {
        let hand = deal(flow, self.queues.len() as u64, u64::from(queuing.hand));
        hand.min_by_key(|queue| self.queues[*queue].waiting.len()).unwrap_or(0)
    }
}

/// A flow's hand of queues: always the same for the same flow, and for two flows hardly ever all the same, so that a
/// busy flow fills its own queues and leaves others some that are empty (shuffle sharding).
fn deal(flow: u64, queues: u64, hand: u64) -> impl Iterator<Item = usize> {
    let mut rest = flow;
    let mut dealt: Vec<u64> = Vec::with_capacity(hand as usize);
    for left in (queues.saturating_sub(hand) + 1..=queues).rev() {
        let mut card = rest % left;
        rest /= left;
        // Among those that are not dealt yet.
        for known in &dealt {
            card += u64::from(card >= *known);
        }
        let place = dealt.partition_point(|known| *known < card);
        dealt.insert(place, card);
    }
    dealt.into_iter().map(|card| card as usize)
}

fn may_start(levels: &[State], level: usize) -> bool {
    let state = &levels[level];
    if state.executing < state.nominal {
        return true;
    }
    let lent: u32 = levels.iter().map(State::borrowed).sum();
    let spare: u32 = levels.iter().enumerate().filter(|(i, _)| *i != level).map(|(_, other)| other.spare()).sum();
    state.borrowed() < state.borrow_max && lent < spare
}

impl Seats {
    pub fn new(total: u32) -> Self {
        Self { total, levels: Mutex::default() }
    }

    /// Takes over new levels and limits; what is being served stays counted.
    pub fn configure(self: &Arc<Self>, wanted: &[Level]) {
        let mut levels = self.levels.lock();
        let mut old = std::mem::take(&mut *levels);
        let shares = |limits: &Limits| match limits {
            Limits::Limited { shares, .. } => *shares,
            Limits::Exempt => 0,
        };
        let all: u32 = wanted.iter().map(|level| shares(&level.limits)).sum::<u32>().max(1);
        for level in wanted {
            let known = old.iter().position(|state| state.name == level.name);
            let mut state = known.map_or_else(|| State::of(level), |place| old.swap_remove(place));
            state.limits = level.limits.clone();
            if let Limits::Limited { shares, lendable_percent, borrowing_percent, queuing } = &level.limits {
                state.nominal = (self.total * shares).div_ceil(all);
                state.lendable = (state.nominal * lendable_percent + 50) / 100;
                state.borrow_max = borrowing_percent.map_or(u32::MAX, |p| (state.nominal * p + 50) / 100);
                state.resize(*queuing);
            } else {
                (state.nominal, state.lendable) = (0, 0);
                state.resize(None);
            }
            levels.push(state);
        }
    }

    /// `level` is its place in the table that was configured last; a table that changes in between only means that
    /// one request is counted elsewhere.
    pub fn admit(self: &Arc<Self>, level: usize, flow: u64) -> Admitted {
        let mut levels = self.levels.lock();
        let Some(state) = levels.get(level) else { return Admitted::Exempt };
        let Limits::Limited { queuing, .. } = state.limits else {
            levels[level].dispatched += 1;
            return Admitted::Exempt;
        };
        // Nobody overtakes those who wait already.
        let starts = state.waiting == 0 && may_start(&levels, level);
        let state = &mut levels[level];
        if starts {
            state.executing += 1;
            state.dispatched += 1;
            return Admitted::Now(Seat { seats: self.clone(), level: state.name.clone() });
        }
        let Some(queuing) = queuing.filter(|_| !state.queues.is_empty()) else {
            state.refused += 1;
            return Admitted::Refused;
        };
        let shortest = state.shortest(queuing, flow);
        let turn = state.turn;
        let queue = &mut state.queues[shortest];
        // Those who gave up do not stand in the way.
        if queue.waiting.len() >= queuing.length_max as usize {
            let before = queue.waiting.len();
            queue.waiting.retain(|waiter| !waiter.is_closed());
            state.waiting -= (before - queue.waiting.len()) as u32;
        }
        if queue.waiting.len() >= queuing.length_max as usize {
            state.refused += 1;
            return Admitted::Refused;
        }
        let (sender, receiver) = oneshot::channel();
        if queue.waiting.is_empty() {
            queue.turns = queue.turns.max(turn);
        }
        queue.waiting.push_back(sender);
        state.waiting += 1;
        Admitted::Waits(receiver)
    }

    fn release(self: &Arc<Self>, name: &str) {
        let mut granted = Vec::new();
        {
            let mut levels = self.levels.lock();
            if let Some(state) = levels.iter_mut().find(|state| &*state.name == name) {
                state.executing = state.executing.saturating_sub(1);
            }
            self.dispatch(&mut levels, &mut granted);
        }
        // Handed over without the lock: a seat that nobody takes any more comes back here.
        for (waiter, seat) in granted {
            drop(waiter.send(seat));
        }
    }

    /// Gives what is free to those who wait: the own level's seats first, then borrowed ones.
    fn dispatch(self: &Arc<Self>, levels: &mut [State], granted: &mut Vec<(oneshot::Sender<Seat>, Seat)>) {
        for level in 0..levels.len() {
            while levels[level].waiting > 0 && may_start(levels, level) {
                let state = &mut levels[level];
                let busy = state.queues.iter_mut().filter(|queue| !queue.waiting.is_empty());
                let Some(queue) = busy.min_by_key(|queue| queue.turns) else {
                    state.waiting = 0;
                    break;
                };
                let Some(waiter) = queue.waiting.pop_front() else { break };
                state.waiting -= 1;
                if waiter.is_closed() {
                    continue;
                }
                state.turn = queue.turns;
                queue.turns += 1;
                state.executing += 1;
                state.dispatched += 1;
                granted.push((waiter, Seat { seats: self.clone(), level: state.name.clone() }));
            }
        }
    }

    pub fn metrics(&self) -> String {
        let levels = self.levels.lock();
        let mut out = String::new();
        let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&State) -> u64| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for state in levels.iter() {
                let _ = writeln!(out, "{name}{{priority_level=\"{}\"}} {}", state.name, value(state));
            }
        };
        family(
            "apiserver_flowcontrol_current_executing_seats",
            "gauge",
            "[BETA] Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem",
            &|state| u64::from(state.executing),
        );
        family(
            "apiserver_flowcontrol_current_inqueue_requests",
            "gauge",
            "[BETA] Number of requests currently pending in queues of the API Priority and Fairness subsystem",
            &|state| u64::from(state.waiting),
        );
        family(
            "apiserver_flowcontrol_nominal_limit_seats",
            "gauge",
            "[BETA] Nominal number of execution seats configured for each priority level",
            &|state| u64::from(state.nominal),
        );
        family(
            "apiserver_flowcontrol_dispatched_requests_total",
            "counter",
            "[BETA] Number of requests executed by API Priority and Fairness subsystem",
            &|state| state.dispatched,
        );
        family(
            "apiserver_flowcontrol_rejected_requests_total",
            "counter",
            "[BETA] Number of requests rejected by API Priority and Fairness subsystem",
            &|state| state.refused,
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(name: &str, shares: u32, lendable_percent: u32, queues: u32) -> Level {
        let queuing = (queues > 0).then_some(Queuing { queues, hand: 2.min(queues), length_max: 2 });
        let limits = Limits::Limited { shares, lendable_percent, borrowing_percent: None, queuing };
        Level { name: name.into(), limits }
    }

    fn seats(total: u32, levels: &[Level]) -> Arc<Seats> {
        let seats = Arc::new(Seats::new(total));
        seats.configure(levels);
        seats
    }

    fn word(admitted: &Admitted) -> &'static str {
        match admitted {
            Admitted::Exempt => "exempt",
            Admitted::Now(_) => "now",
            Admitted::Waits(_) => "waits",
            Admitted::Refused => "refused",
        }
    }

    #[test]
    fn a_level_serves_its_share_then_lets_wait_then_refuses() {
        let seats = seats(2, &[level("a", 1, 0, 1)]);
        let all: Vec<Admitted> = (0..5).map(|_| seats.admit(0, 7)).collect();
        assert_eq!(all.iter().map(word).collect::<Vec<_>>(), ["now", "now", "waits", "waits", "refused"]);
        let without = super::tests::seats(1, &[level("a", 1, 0, 0)]);
        let _held = without.admit(0, 1);
        assert_eq!(word(&without.admit(0, 1)), "refused");
    }

    #[test]
    fn a_free_seat_goes_to_who_waits_longest_in_the_queue_with_the_fewest_turns() {
        let seats = seats(1, &[level("a", 1, 0, 64)]);
        let Admitted::Now(first) = seats.admit(0, 1) else { panic!("the first one starts") };
        let mut waiting: Vec<_> = [1, 1, 1, 999_999_937]
            .into_iter()
            .map(|flow| match seats.admit(0, flow) {
                Admitted::Waits(turn) => turn,
                other => panic!("{}", word(&other)),
            })
            .collect();
        drop(first);
        let served = waiting[0].try_recv().expect("the first who waits");
        // The quiet flow does not wait behind all of the busy one.
        let mut other = waiting.remove(3);
        drop(served);
        let mut before = 0;
        while let Err(oneshot::error::TryRecvError::Empty) = other.try_recv() {
            before += 1;
            let seat = waiting.iter_mut().find_map(|turn| turn.try_recv().ok()).expect("somebody is served");
            drop(seat);
        }
        assert!(before <= 1, "{before} of the busy flow came first");
    }

    #[test]
    fn a_level_borrows_what_another_one_lends_and_does_not_use() {
        let seats = seats(10, &[level("busy", 1, 0, 0), level("idle", 1, 60, 0)]);
        let held: Vec<Admitted> = (0..9).map(|_| seats.admit(0, 1)).collect();
        let now = held.iter().filter(|a| word(a) == "now").count();
        assert_eq!(now, 5 + 3);
        // What is the idle level's own it still gets.
        let own: Vec<Admitted> = (0..5).map(|_| seats.admit(1, 1)).collect();
        assert!(own.iter().all(|a| word(a) == "now"));
    }

    #[test]
    fn who_gave_up_waiting_takes_no_seat() {
        let seats = seats(1, &[level("a", 1, 0, 1)]);
        let first = seats.admit(0, 1);
        let gone = seats.admit(0, 1);
        let Admitted::Waits(mut next) = seats.admit(0, 1) else { panic!("there is room for two") };
        drop(gone);
        drop(first);
        assert!(next.try_recv().is_ok());
    }

    #[test]
    fn a_hand_has_no_queue_twice() {
        for flow in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            let mut hand: Vec<usize> = deal(flow, 64, 6).collect();
            hand.sort_unstable();
            hand.dedup();
            assert_eq!(hand.len(), 6);
            assert!(hand.iter().all(|queue| *queue < 64));
        }
    }
}
