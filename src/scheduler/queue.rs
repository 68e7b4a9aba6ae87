//! Which Pods wait for a Node, and which is next.
//!
//! Owns: the three places a Pod can wait in: active, backing off, and unschedulable until something changes.
//! Called by: the loop.
//! Never: reads the clock or looks at a Node.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use minik_api::volume_binding::claims_of;
use minik_api::{ObjectKey, object};
use minik_client::Object;

use crate::verdict::Filter;

/// Upstream's: 1 s doubling to 10 s.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_CAP: Duration = Duration::from_secs(10);
/// Tried again after so long, whatever happened: a safety net for an event that should have woken it.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

/// What happened in the cluster that may let a Pod fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    NodeChanged,
    /// A placed Pod ended or went.
    RoomFreed,
    /// A Pod was placed, or its labels changed.
    PodPlaced,
    /// A volume, class or driver came or changed.
    StorageChanged,
}

impl Happened {
    fn may_help(self, filter: Filter) -> bool {
        match self {
            Happened::NodeChanged => true,
            Happened::RoomFreed => matches!(
                filter,
                Filter::NodeResourcesFit
                    | Filter::NodePorts
                    | Filter::InterPodAffinity
                    | Filter::PodTopologySpread
                    | Filter::VolumeRestrictions
                    | Filter::NodeVolumeLimits
            ),
            Happened::PodPlaced => matches!(filter, Filter::InterPodAffinity | Filter::PodTopologySpread),
            Happened::StorageChanged => is_of_volumes(filter),
        }
    }
}

fn is_of_volumes(filter: Filter) -> bool {
    matches!(filter, Filter::VolumeRestrictions | Filter::NodeVolumeLimits | Filter::VolumeBinding | Filter::VolumeZone)
}

/// Higher priority first, then who came first.
type Rank = (std::cmp::Reverse<i64>, u64);

struct Waiting {
    pod: Arc<Object>,
    rank: Rank,
    attempts: u32,
    place: Place,
}

enum Place {
    Active,
    Backoff {
        until: Instant,
    },
    /// `woken_by`: the filters that said no.
    Unschedulable {
        woken_by: Vec<Filter>,
        backoff_until: Instant,
        until: Instant,
    },
    /// Being placed.
    Out,
}

#[derive(Default)]
pub(crate) struct Queue {
    pods: HashMap<String, Waiting>,
    active: BTreeMap<Rank, String>,
    timers: BTreeSet<(Instant, String)>,
    /// Unschedulable Pods by the filters that said no, so that an event looks only at those it may help.
    rejected: HashMap<Filter, HashSet<String>>,
    arrivals: u64,
}

impl Queue {
    /// A Pod appeared or changed. A change of its own may make it fit: it is tried at once.
    pub(crate) fn set(&mut self, uid: &str, pod: Arc<Object>) {
        let priority = pod["spec"]["priority"].as_i64().unwrap_or(0);
        if let Some(waiting) = self.pods.get_mut(uid) {
            let same_spec =
                waiting.pod["spec"] == pod["spec"] && waiting.pod["metadata"]["labels"] == pod["metadata"]["labels"];
            waiting.pod = pod;
            // Its status, which this scheduler writes itself, is no reason to try again.
            if same_spec || matches!(waiting.place, Place::Active | Place::Out) {
                return;
            }
        } else {
            self.arrivals += 1;
            let rank = (std::cmp::Reverse(priority), self.arrivals);
            self.pods.insert(uid.into(), Waiting { pod, rank, attempts: 0, place: Place::Out });
        }
        self.activate(uid);
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        self.leave(uid);
        self.pods.remove(uid);
    }

    pub(crate) fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// The most important active Pod; it stays known until it is removed or put back.
    pub(crate) fn pop(&mut self) -> Option<(String, Arc<Object>)> {
        let (_, uid) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&uid).expect("an active Pod is known");
        waiting.place = Place::Out;
        waiting.attempts += 1;
        Some((uid, waiting.pod.clone()))
    }

    /// No Node was right.
    pub(crate) fn unschedulable(&mut self, uid: &str, woken_by: Vec<Filter>, now: Instant) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        let until = now + UNSCHEDULABLE_MAX;
        for filter in &woken_by {
            self.rejected.entry(*filter).or_default().insert(uid.into());
        }
        waiting.place = Place::Unschedulable { woken_by, backoff_until: now + backoff(waiting.attempts), until };
        self.timers.insert((until, uid.into()));
    }

    /// Something went wrong on the way: again after a while.
    pub(crate) fn retry(&mut self, uid: &str, now: Instant) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        let until = now + backoff(waiting.attempts);
        waiting.place = Place::Backoff { until };
        self.timers.insert((until, uid.into()));
    }

    pub(crate) fn happened(&mut self, what: Happened, now: Instant) {
        let mut wake = Vec::new();
        let helped = self.rejected.iter().filter(|(filter, _)| what.may_help(**filter));
        for uid in helped.flat_map(|(_, uids)| uids) {
            if let Some(Waiting { place: Place::Unschedulable { backoff_until, .. }, .. }) = self.pods.get(uid) {
                wake.push((uid.clone(), *backoff_until));
            }
        }
        for (uid, until) in wake {
            self.leave(&uid);
            if until <= now {
                self.activate(&uid);
            } else {
                self.pods.get_mut(&uid).expect("just seen").place = Place::Backoff { until };
                self.timers.insert((until, uid));
            }
        }
    }

    /// A claim came or changed: the Pods that use it and were turned away for their volumes are tried at once. It is what
    /// they wait for, not one chance among many, so it does not count against them.
    pub(crate) fn claim_changed(&mut self, key: &ObjectKey) {
        let uses =
            |pod: &Object| object::namespace(pod) == key.namespace && claims_of(pod).any(|(name, _)| name == key.name);
        let waiting = self.rejected.iter().filter(|(filter, _)| is_of_volumes(**filter)).flat_map(|(_, uids)| uids);
        let waiting: Vec<String> =
            waiting.filter(|uid| self.pods.get(*uid).is_some_and(|w| uses(&w.pod))).cloned().collect();
        waiting.iter().for_each(|uid| self.activate(uid));
    }

    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(crate) fn wake(&mut self, now: Instant) {
        while let Some((at, uid)) = self.timers.first().cloned()
            && at <= now
        {
            self.activate(&uid);
        }
    }

    fn activate(&mut self, uid: &str) {
        self.leave(uid);
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        waiting.place = Place::Active;
        self.active.insert(waiting.rank, uid.into());
    }

    /// Out of wherever it waits.
    fn leave(&mut self, uid: &str) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        match &waiting.place {
            Place::Active => {
                self.active.remove(&waiting.rank);
            }
            Place::Backoff { until } => {
                self.timers.remove(&(*until, uid.to_string()));
            }
            Place::Unschedulable { woken_by, until, .. } => {
                self.timers.remove(&(*until, uid.to_string()));
                for filter in woken_by {
                    if let Some(uids) = self.rejected.get_mut(filter) {
                        uids.remove(uid);
                    }
                }
            }
            Place::Out => {}
        }
        waiting.place = Place::Out;
    }
}

fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    (BACKOFF_FIRST * (1 << doublings)).min(BACKOFF_CAP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(priority: i64) -> Arc<Object> {
        Arc::new(Object::new(json!({"spec": {"priority": priority}})))
    }
    fn popped(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop().map(|(uid, _)| uid)).collect()
    }

    #[test]
    fn the_important_go_first_and_then_who_came_first() {
        let mut queue = Queue::default();
        for (uid, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.set(uid, pod(priority));
        }
        assert_eq!(popped(&mut queue), ["b", "d", "a", "c"]);
    }

    #[test]
    fn only_what_can_help_wakes_an_unschedulable_pod_and_not_before_its_backoff() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.set("a", pod(0));
        queue.pop();
        queue.unschedulable("a", vec![Filter::TaintToleration], now);
        queue.happened(Happened::RoomFreed, now + Duration::from_secs(5));
        assert_eq!(popped(&mut queue), [""; 0]);
        queue.happened(Happened::NodeChanged, now);
        assert_eq!(popped(&mut queue), [""; 0]);
        assert_eq!(queue.next_wake(), Some(now + Duration::from_secs(1)));
        queue.wake(now + Duration::from_secs(1));
        assert_eq!(popped(&mut queue), ["a"]);
    }

    #[test]
    fn a_claim_wakes_the_pods_that_wait_for_it_without_backoff() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let uses = |claim: &str| {
            Arc::new(Object::new(json!({"metadata": {"namespace": "d"}, "spec": {"volumes": [
                {"persistentVolumeClaim": {"claimName": claim}}]}})))
        };
        for uid in ["a", "b"] {
            queue.set(uid, uses(uid));
            queue.pop();
            queue.unschedulable(uid, vec![Filter::VolumeBinding], now);
        }
        queue.claim_changed(&ObjectKey::new("d", "b"));
        assert_eq!(popped(&mut queue), ["b"]);
    }

    #[test]
    fn a_change_of_status_is_no_reason_to_try_again_but_a_change_of_spec_is() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.set("a", pod(0));
        queue.pop();
        queue.unschedulable("a", vec![], now);
        queue.set("a", Arc::new(Object::new(json!({"spec": {"priority": 0}, "status": {"x": 1}}))));
        assert_eq!(popped(&mut queue), [""; 0]);
        queue.set("a", Arc::new(Object::new(json!({"spec": {"priority": 0, "tolerations": []}}))));
        assert_eq!(popped(&mut queue), ["a"]);
    }
}
