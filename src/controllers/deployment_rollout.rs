//! How large each ReplicaSet of a Deployment should be next.
//!
//! Owns: the arithmetic of rolling updates: surge, unavailability, proportions.
//! Called by: `deployment`.
//! Never: looks at a Pod or writes.

use std::sync::Arc;

use minik_api::object;
use minik_client::Object;
use serde_json::Value;

use crate::deployment::{DESIRED, State, Step, created};
use crate::fields::{Round, int, int_or_percent};

pub(crate) struct Scale {
    pub set: Arc<Object>,
    pub to: i64,
}

pub(crate) struct Rollout<'a> {
    state: &'a State<'a>,
    desired: i64,
    surge: i64,
    unavailable: i64,
}

fn is_rolling(deployment: &Value) -> bool {
    deployment["spec"]["strategy"]["type"] != "Recreate"
}

/// How many more than desired there may be.
pub(crate) fn surge(deployment: &Value) -> i64 {
    if !is_rolling(deployment) {
        return 0;
    }
    let desired = int(&deployment["spec"]["replicas"], 1);
    int_or_percent(&deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"], desired, Round::Up)
}

/// How many of the desired may be missing.
pub(crate) fn max_unavailable(deployment: &Value) -> i64 {
    let desired = int(&deployment["spec"]["replicas"], 1);
    if !is_rolling(deployment) || desired == 0 {
        return 0;
    }
    let value = &deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"];
    let unavailable = int_or_percent(value, desired, Round::Down);
    // With neither surge nor unavailability nothing could ever move.
    if unavailable == 0 && surge(deployment) == 0 { 1 } else { unavailable.min(desired) }
}

fn size(set: &Value) -> i64 {
    int(&set["spec"]["replicas"], 1)
}
fn available(set: &Value) -> i64 {
    int(&set["status"]["availableReplicas"], 0)
}

impl<'a> Rollout<'a> {
    pub(crate) fn of(state: &'a State<'a>) -> Rollout<'a> {
        Rollout {
            state,
            desired: state.replicas(),
            surge: surge(state.deployment),
            unavailable: max_unavailable(state.deployment),
        }
    }

    fn total(&self) -> i64 {
        self.state.all().map(|s| size(s)).sum()
    }

    pub(crate) fn size_of_a_new_set(&self) -> i64 {
        self.new_size(0)
    }

    fn new_size(&self, now: i64) -> i64 {
        if !is_rolling(self.state.deployment) {
            return self.desired;
        }
        let room = self.desired + self.surge - self.total();
        if room <= 0 { now } else { now + room.min(self.desired - now) }
    }

    /// The next step of a rolling update: the new one up, or else the old ones down.
    pub(crate) fn step(&self) -> Vec<Step> {
        let Some(new) = &self.state.new else { return Vec::new() };
        let now = size(new);
        let target = if now > self.desired { self.desired } else { self.new_size(now) };
        if target != now {
            return vec![Step::Scale(Scale { set: new.clone(), to: target })];
        }
        self.old_down(new)
    }

    pub(crate) fn new_to_full(&self) -> Vec<Step> {
        let change = self.state.new.iter().filter(|new| size(new) != self.desired);
        change.map(|new| Step::Scale(Scale { set: new.clone(), to: self.desired })).collect()
    }

    pub(crate) fn old_to_zero(&self) -> Vec<Step> {
        let active = self.state.old.iter().filter(|s| size(s) > 0);
        active.map(|s| Step::Scale(Scale { set: s.clone(), to: 0 })).collect()
    }

    /// Unhealthy Pods of old ReplicaSets first, since they serve nobody; then as many as availability allows.
    fn old_down(&self, new: &Arc<Object>) -> Vec<Step> {
        let least = self.desired - self.unavailable;
        let new_unavailable = size(new) - available(new);
        let mut unhealthy_left = self.total() - least - new_unavailable;
        if unhealthy_left <= 0 {
            return Vec::new();
        }
        let mut sizes: Vec<i64> = self.state.old.iter().map(|s| size(s)).collect();
        for (set, to) in self.state.old.iter().zip(&mut sizes) {
            let unhealthy = (*to - available(set)).max(0).min(unhealthy_left);
            *to -= unhealthy;
            unhealthy_left -= unhealthy;
        }
        let mut healthy_left = self.state.all().map(|s| available(s)).sum::<i64>() - least;
        for to in &mut sizes {
            let down = (*to).min(healthy_left.max(0));
            *to -= down;
            healthy_left -= down;
        }
        let changed = self.state.old.iter().zip(sizes).filter(|(set, to)| size(set) != *to);
        changed.map(|(set, to)| Step::Scale(Scale { set: set.clone(), to })).collect()
    }

    /// After a change of size: one ReplicaSet takes it all; in the middle of a rollout each takes its share.
    pub(crate) fn scale_proportionally(&self) -> Vec<Step> {
        let active: Vec<&Arc<Object>> = self.state.all().filter(|s| size(s) > 0).collect();
        if active.len() <= 1 {
            let newest = || self.state.new.as_ref().or_else(|| self.state.old.iter().max_by_key(|s| created(s)));
            let only = active.first().copied().or_else(newest);
            // Also when the size is right the annotations that record it may not be.
            return only.map(|s| Step::Scale(Scale { set: s.clone(), to: self.desired })).into_iter().collect();
        }
        if let Some(new) = &self.state.new
            && self.is_saturated(new)
        {
            return self.old_to_zero();
        }
        if !is_rolling(self.state.deployment) {
            return Vec::new();
        }
        self.shares(active)
    }

    fn is_saturated(&self, new: &Object) -> bool {
        let recorded = object::annotation(new, DESIRED).and_then(|d| d.parse::<i64>().ok());
        size(new) == self.desired && recorded == Some(self.desired) && available(new) == self.desired
    }

    fn shares(&self, mut active: Vec<&Arc<Object>>) -> Vec<Step> {
        let allowed = if self.desired > 0 { self.desired + self.surge } else { 0 };
        let change = allowed - self.total();
        // The largest first; among equals growth goes to the newest, shrinking to the oldest.
        active.sort_by(|a, b| {
            let by_age = created(a).cmp(&created(b));
            size(b).cmp(&size(a)).then(if change > 0 { by_age.reverse() } else { by_age })
        });
        let mut left = change;
        let mut sizes: Vec<i64> = Vec::new();
        for set in &active {
            let share = self.share(set);
            let share = if change > 0 { share.min(left) } else { share.max(left) };
            let share = if change == 0 { 0 } else { share };
            left -= share;
            sizes.push(size(set) + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + left).max(0);
        }
        active.into_iter().zip(sizes).map(|(set, to)| Step::Scale(Scale { set: set.clone(), to })).collect()
    }

    /// What a ReplicaSet's part of the old total is of the new one, less what it has.
    fn share(&self, set: &Object) -> i64 {
        if self.desired == 0 {
            return -size(set);
        }
        let recorded = object::annotation(set, "deployment.kubernetes.io/max-replicas");
        let before = recorded.and_then(|m| m.parse::<i64>().ok()).unwrap_or(0);
        let before = if before > 0 { before } else { int(&self.state.deployment["status"]["replicas"], 0) };
        if before == 0 {
            return 0;
        }
        let exact = (size(set) * (self.desired + self.surge)) as f64 / before as f64;
        exact.round() as i64 - size(set)
    }
}
