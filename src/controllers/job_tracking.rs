//! Counting a Job's finished Pods exactly once, whatever crashes in between.
//!
//! Owns: the tracking finalizer and the lists of Pods that are written down but not yet counted (KEP-2307).
//! Called by: `job`.
//! Never: decides whether the Job has ended.
//!
//! A finished Pod keeps its finalizer until its uid stands in `uncountedTerminatedPods`; then the finalizer goes; then
//! the uid moves into the counter. Each step can be done again without counting twice.

use std::collections::HashSet;
use std::sync::Arc;

use minik_api::object;
use minik_api::resources::PODS;
use minik_client::{Action, Object};
use serde_json::{Value, json};

use crate::fields::{int, list, text};
use crate::job_indexes::{Indexes, of_pod};
use crate::job_policy::{Verdict, judge};
use crate::pods::phase;

pub(crate) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Uids written down in one update, to keep the object small; upstream's number.
const UNCOUNTED_MAX: usize = 500;

pub(crate) fn is_tracked(pod: &Value) -> bool {
    object::finalizers(pod).any(|f| f == FINALIZER)
}

pub(crate) fn untrack(pod: &Object) -> Action {
    let left: Vec<&str> = object::finalizers(pod).filter(|f| *f != FINALIZER).collect();
    Action::merge(PODS, "", pod, json!({"metadata": {"finalizers": left}}))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Succeeded,
    Failed,
}

/// A Pod that is being deleted counts as failed, unless replacements wait for the end of it.
pub(crate) fn end(job: &Value, pod: &Value) -> Option<End> {
    match phase(pod) {
        "Succeeded" => Some(End::Succeeded),
        "Failed" => Some(End::Failed),
        _ if object::is_deleting(pod) && !replaces_only_failed(job) => Some(End::Failed),
        _ => None,
    }
}

pub(crate) fn replaces_only_failed(job: &Value) -> bool {
    job["spec"]["podReplacementPolicy"] == "Failed" || job["spec"]["podFailurePolicy"].is_object()
}

pub(crate) fn is_indexed(job: &Value) -> bool {
    job["spec"]["completionMode"] == "Indexed"
}

pub(crate) fn completions(job: &Value) -> Option<i64> {
    job["spec"]["completions"].as_i64()
}

#[derive(Default)]
pub(crate) struct Tracking {
    /// Counted, and written down.
    pub succeeded: i64,
    pub failed: i64,
    pub uncounted_succeeded: Vec<String>,
    pub uncounted_failed: Vec<String>,
    pub completed_indexes: Indexes,
    pub failed_indexes: Indexes,
    /// Finalizers that may go once the status is written.
    pub untrack: Vec<Arc<Object>>,
    /// A Pod that by policy fails the whole Job, and the text why.
    pub fails_job: Option<String>,
}

impl Tracking {
    pub(crate) fn of(job: &Value, pods: &[Arc<Object>]) -> Tracking {
        let status = &job["status"];
        let limit = completions(job).unwrap_or(0);
        let mut tracking = Tracking {
            succeeded: int(&status["succeeded"], 0),
            failed: int(&status["failed"], 0),
            completed_indexes: Indexes::parse(text(&status["completedIndexes"]), limit),
            failed_indexes: Indexes::parse(text(&status["failedIndexes"]), limit),
            ..Tracking::default()
        };
        let tracked: HashSet<&str> = pods.iter().filter(|p| is_tracked(p)).map(|p| object::uid(p)).collect();
        tracking.settle(&status["uncountedTerminatedPods"], &tracked);
        for pod in pods.iter().filter(|p| is_tracked(p)) {
            if let Some(end) = end(job, pod) {
                tracking.collect(job, pod, end, limit);
            }
        }
        tracking
    }

    /// What lost its finalizer is counted for good.
    fn settle(&mut self, uncounted: &Value, tracked: &HashSet<&str>) {
        let split = |field: &str, counter: &mut i64| -> Vec<String> {
            let uids = list(&uncounted[field]).iter().filter_map(Value::as_str);
            let (left, done): (Vec<&str>, Vec<&str>) = uids.partition(|uid| tracked.contains(uid));
            *counter += done.len() as i64;
            left.into_iter().map(String::from).collect()
        };
        self.uncounted_succeeded = split("succeeded", &mut self.succeeded);
        self.uncounted_failed = split("failed", &mut self.failed);
    }

    fn collect(&mut self, job: &Value, pod: &Arc<Object>, end: End, limit: i64) {
        if self.uncounted_succeeded.len() + self.uncounted_failed.len() >= UNCOUNTED_MAX {
            return;
        }
        let uid = object::uid(pod).to_string();
        self.untrack.push(pod.clone());
        if end == End::Succeeded {
            if !is_indexed(job) {
                push_new(&mut self.uncounted_succeeded, uid);
            } else if let Some(index) = of_pod(pod).filter(|i| *i < limit) {
                self.completed_indexes.0.insert(index);
            }
            return;
        }
        match judge(job, pod) {
            Verdict::Ignore => return,
            Verdict::FailIndex => {
                self.failed_indexes.0.extend(of_pod(pod).filter(|i| *i < limit));
            }
            Verdict::FailJob(why) => {
                self.fails_job.get_or_insert(why);
            }
            Verdict::Count => {}
        }
        push_new(&mut self.uncounted_failed, uid);
    }

    pub(crate) fn total_succeeded(&self, job: &Value) -> i64 {
        if is_indexed(job) {
            self.completed_indexes.total()
        } else {
            self.succeeded + self.uncounted_succeeded.len() as i64
        }
    }
    pub(crate) fn total_failed(&self) -> i64 {
        self.failed + self.uncounted_failed.len() as i64
    }
    /// Nothing is left between a Pod's end and the counters.
    pub(crate) fn is_settled(&self) -> bool {
        self.uncounted_succeeded.is_empty() && self.uncounted_failed.is_empty() && self.untrack.is_empty()
    }

    pub(crate) fn write(&self, job: &Value, status: &mut Value) {
        let set = |status: &mut Value, field: &str, value: Value, keep: bool| {
            if keep {
                status[field] = value;
            } else if let Some(map) = status.as_object_mut() {
                map.remove(field);
            }
        };
        let succeeded = if is_indexed(job) { self.completed_indexes.total() } else { self.succeeded };
        set(status, "succeeded", succeeded.into(), succeeded > 0);
        set(status, "failed", self.failed.into(), self.failed > 0);
        if is_indexed(job) {
            let completed = self.completed_indexes.to_string();
            set(status, "completedIndexes", completed.clone().into(), !completed.is_empty());
            if job["spec"]["backoffLimitPerIndex"].is_number() {
                status["failedIndexes"] = self.failed_indexes.to_string().into();
            }
        }
        let mut uncounted = json!({});
        for (field, uids) in [("succeeded", &self.uncounted_succeeded), ("failed", &self.uncounted_failed)] {
            if !uids.is_empty() {
                uncounted[field] = uids.clone().into();
            }
        }
        status["uncountedTerminatedPods"] = uncounted;
    }
}

fn push_new(uids: &mut Vec<String>, uid: String) {
    if !uids.contains(&uid) {
        uids.push(uid);
    }
}
