//! Job: Pods that run to their end.
//!
//! Owns: how many Pods run at a time, when the Job has ended and how, suspension, and the pause after failures.
//! Called by: the driver.
//! Never: counts a Pod itself; that is `job_tracking`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use minik_api::resources::{JOBS, PODS};
use minik_api::selector::LabelSelector;
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, DeleteParams, EventType, Object, Plan, Propagation, Reconciler, View};
use serde_json::{Value, json};

use crate::conditions::{self, Repeat, find, is_true};
use crate::fields::{int, list, parse_time, seconds, text, time};
use crate::job_indexes::{INDEX, Indexes, of_pod};
use crate::job_policy::early_success;
use crate::job_tracking::{
    End, FINALIZER, Tracking, completions, end, is_indexed, is_tracked, replaces_only_failed, untrack,
};
use crate::pods::{
    claim_held, concerned, from_template, is_active, is_ready, is_terminal, narrate_create, narrate_delete,
    rank_for_deletion,
};

const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Pods made or removed in one plan; upstream's number.
const BURST: usize = 500;
/// Pause after the first failure, doubling to the cap.
const PAUSE_FIRST_SECONDS: i64 = 10;
const PAUSE_CAP_SECONDS: i64 = 600;
/// In place of a Job's name: the tracked Pods of a namespace that no Job controls. No object has this name.
const ORPHANS: &str = "";

pub(crate) struct Job;

fn selector(job: &Value) -> LabelSelector {
    LabelSelector::from_object(&job["spec"]["selector"]).unwrap_or_else(|_| LabelSelector::nothing())
}

/// A Job is about to adopt this free Pod.
fn is_wanted(view: &View, pod: &Object) -> bool {
    let adopts = |job: &Arc<Object>| !object::is_deleting(job) && selector(job).matches(&pod["metadata"]["labels"]);
    is_active(pod) && view.list(JOBS, object::namespace(pod)).any(adopts)
}

pub(crate) fn is_finished(job: &Value) -> bool {
    is_true(&job["status"], "Complete") || is_true(&job["status"], "Failed")
}

/// `spec.managedBy` hands a Job to somebody else.
fn is_ours(job: &Value) -> bool {
    matches!(text(&job["spec"]["managedBy"]), "" | "kubernetes.io/job-controller")
}

impl Reconciler for Job {
    fn name(&self) -> &'static str {
        "job"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[JOBS, PODS]
    }
    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource == JOBS {
            return vec![change.key.clone()];
        }
        let mut keys = concerned(change, "Job", view.list(JOBS, &change.key.namespace), selector);
        // A deleted Job may leave its Pods behind on purpose; nobody else would ever take the finalizer off them.
        if change.new.as_ref().is_some_and(|p| is_tracked(p) && object::controller_of(p).is_none()) {
            keys.push(ObjectKey::new(&change.key.namespace, ORPHANS));
        }
        keys
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        if key.name == ORPHANS {
            let free = view.orphans(PODS, &key.namespace).filter(|p| is_tracked(p));
            return Plan::of(free.filter(|p| !is_wanted(view, p)).map(|p| untrack(p)).collect());
        }
        let job = view.get_key(JOBS, key).filter(|j| is_ours(j));
        let uid = job.map_or("", |j| object::uid(j));
        // Pods whose Job is gone would be held by their finalizer for ever.
        let lost = |p: &&Arc<Object>| {
            let owner = object::controller_of(p).filter(|o| o["kind"] == "Job" && o["name"] == key.name.as_str());
            is_tracked(p) && owner.is_some_and(|o| o["uid"] != uid)
        };
        let mut plan = Plan::of(match view.get_key(JOBS, key) {
            Some(_) => Vec::new(),
            None => view.list(PODS, &key.namespace).filter(lost).map(|p| untrack(p)).collect(),
        });
        // Whoever runs a Job, it goes when its time is over.
        if let Some(job) = view.get_key(JOBS, key).filter(|j| is_finished(j)) {
            plan.requeue_at = expiry(job).map(|at| at.max(now));
            if expiry(job).is_some_and(|at| at <= now) && !object::is_deleting(job) {
                plan.requeue_at = None;
                plan.push(expire(job));
            }
        }
        let Some(job) = job else { return plan };
        let claimed = claim_held(view, JOBS, job, &selector(job), Some(FINALIZER));
        plan.actions.extend(claimed.actions);
        if is_finished(job) {
            plan.actions.extend(claimed.pods.iter().filter(|p| is_tracked(p)).map(|p| untrack(p)));
            return plan;
        }
        Sync::new(job, claimed.pods, now).plan(plan)
    }
}

/// When `ttlSecondsAfterFinished` is over.
fn expiry(job: &Value) -> Option<Timestamp> {
    let ttl = job["spec"]["ttlSecondsAfterFinished"].as_i64()?;
    let condition = find(&job["status"], "Complete").or_else(|| find(&job["status"], "Failed"))?;
    Some(parse_time(&condition["lastTransitionTime"])? + seconds(ttl))
}

fn expire(job: &Object) -> Action {
    let params = DeleteParams {
        propagation: Some(Propagation::Foreground),
        resource_version: Some(object::resource_version(job).into()),
        ..DeleteParams::of_uid(object::uid(job))
    };
    Action::Delete { resource: JOBS, key: job.key(), params, narration: None }
}

/// One look at one Job that has not ended.
struct Sync<'a> {
    job: &'a Arc<Object>,
    pods: Vec<Arc<Object>>,
    active: Vec<Arc<Object>>,
    tracking: Tracking,
    now: Timestamp,
    requeue_at: Option<Timestamp>,
}

/// How a Job is going to end.
struct Ending {
    condition: &'static str,
    reason: String,
    message: String,
}

impl Ending {
    fn failure(reason: &str, message: impl Into<String>) -> Ending {
        Ending { condition: "FailureTarget", reason: reason.into(), message: message.into() }
    }
    fn success(reason: &str, message: impl Into<String>) -> Ending {
        Ending { condition: "SuccessCriteriaMet", reason: reason.into(), message: message.into() }
    }
}

impl<'a> Sync<'a> {
    fn new(job: &'a Arc<Object>, pods: Vec<Arc<Object>>, now: Timestamp) -> Sync<'a> {
        let active = pods.iter().filter(|p| is_active(p)).cloned().collect();
        let tracking = Tracking::of(job, &pods);
        Sync { job, pods, active, tracking, now, requeue_at: None }
    }

    fn is_suspended(&self) -> bool {
        self.job["spec"]["suspend"] == true
    }

    fn plan(mut self, mut plan: Plan) -> Plan {
        if self.job["spec"]["backoffLimitPerIndex"].is_number() {
            self.fail_indexes();
        }
        let ending = self.ending();
        let mut status = self.job["status"].clone();
        if !status.is_object() {
            status = json!({});
        }
        let mut events = Vec::new();
        let mut steps = Vec::new();
        match &ending {
            Some(ending) => {
                conditions::set(
                    &mut status,
                    ending.condition,
                    "True",
                    &ending.reason,
                    &ending.message,
                    self.now,
                    Repeat::Keeps,
                );
                steps.extend(self.active.iter().map(|p| Action::delete(PODS, p).narrated(narrate_delete(self.job))));
                self.finish(ending, &mut status, &mut events);
            }
            None if object::is_deleting(self.job) => {}
            None => {
                steps = self.manage();
                self.record_suspension(&mut status, &mut events);
            }
        }
        self.write(&mut status);
        plan.actions.extend(Action::set_status(JOBS, self.job, &status));
        plan.actions.extend(events);
        plan.actions.extend(self.tracking.untrack.iter().map(|p| untrack(p)));
        plan.actions.extend(steps);
        plan.requeue_at = self.requeue_at;
        plan
    }

    fn requeue_by(&mut self, at: Timestamp) {
        self.requeue_at = Some(self.requeue_at.map_or(at, |known| known.min(at)));
    }

    /// The end once decided stays decided; failures are looked for before successes.
    fn ending(&mut self) -> Option<Ending> {
        let status = &self.job["status"];
        for condition in ["SuccessCriteriaMet", "FailureTarget"] {
            if let Some(c) = find(status, condition).filter(|c| c["status"] == "True") {
                let (reason, message) = (text(&c["reason"]).to_string(), text(&c["message"]).to_string());
                return Some(Ending { condition, reason, message });
            }
        }
        if let Some(why) = self.tracking.fails_job.take() {
            return Some(Ending::failure("PodFailurePolicy", why));
        }
        let limit = int(&self.job["spec"]["backoffLimit"], 6);
        if self.tracking.total_failed() > limit || self.restarts_exceed(limit) {
            return Some(Ending::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        if let Some(deadline) = self.deadline() {
            if deadline <= self.now {
                return Some(Ending::failure("DeadlineExceeded", "Job was active longer than specified deadline"));
            }
            self.requeue_by(deadline);
        }
        self.ending_by_index().or_else(|| self.completed())
    }

    fn ending_by_index(&self) -> Option<Ending> {
        if !is_indexed(self.job) {
            return None;
        }
        let completions = completions(self.job).unwrap_or(0);
        let (failed, succeeded) = (&self.tracking.failed_indexes, &self.tracking.completed_indexes);
        if self.job["spec"]["backoffLimitPerIndex"].is_number() {
            if self.job["spec"]["maxFailedIndexes"].as_i64().is_some_and(|max| failed.total() > max) {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                return Some(Ending::failure("MaxFailedIndexesExceeded", message));
            }
            if failed.total() > 0 && failed.total() + succeeded.total() >= completions {
                return Some(Ending::failure("FailedIndexes", "Job has failed indexes"));
            }
        }
        early_success(self.job, succeeded, completions).map(|message| Ending::success("SuccessPolicy", message))
    }

    fn completed(&self) -> Option<Ending> {
        let succeeded = self.tracking.total_succeeded(self.job);
        let enough = match completions(self.job) {
            Some(wanted) => succeeded >= wanted,
            None => succeeded > 0,
        };
        let message = "Reached expected number of succeeded pods";
        (enough && self.active.is_empty()).then(|| Ending::success("CompletionsReached", message))
    }

    /// Containers that are restarted in place count too.
    fn restarts_exceed(&self, limit: i64) -> bool {
        if self.job["spec"]["template"]["spec"]["restartPolicy"] != "OnFailure" {
            return false;
        }
        let restarts = |p: &Arc<Object>| {
            let status = &p["status"];
            let all = list(&status["initContainerStatuses"]).iter().chain(list(&status["containerStatuses"]));
            all.map(|c| int(&c["restartCount"], 0)).sum::<i64>()
        };
        let total: i64 = self.active.iter().map(restarts).sum();
        if limit == 0 { total > 0 } else { total >= limit }
    }

    fn deadline(&self) -> Option<Timestamp> {
        if self.is_suspended() {
            return None;
        }
        let limit = self.job["spec"]["activeDeadlineSeconds"].as_i64()?;
        Some(parse_time(&self.job["status"]["startTime"])? + seconds(limit))
    }

    /// The terminal condition, once every Pod has ended and is counted.
    fn finish(&self, ending: &Ending, status: &mut Value, events: &mut Vec<Action>) {
        let running = self.pods.iter().any(|p| !is_terminal(p));
        if running || !self.tracking.is_settled() {
            return;
        }
        let failed = ending.condition == "FailureTarget";
        let kind = if failed { "Failed" } else { "Complete" };
        conditions::set(status, kind, "True", &ending.reason, &ending.message, self.now, Repeat::Keeps);
        if failed {
            let reason = event_reason(&ending.reason);
            events.push(Action::event(self.job, EventType::Warning, reason, ending.message.clone()));
        } else {
            status["completionTime"] = time(self.now).into();
            events.push(Action::event(self.job, EventType::Normal, "Completed", "Job completed"));
        }
    }

    fn record_suspension(&self, status: &mut Value, events: &mut Vec<Action>) {
        let condition = find(status, "Suspended").map(|c| c["status"] == "True");
        match (self.is_suspended(), condition) {
            (true, None | Some(false)) => {
                conditions::set(
                    status,
                    "Suspended",
                    "True",
                    "JobSuspended",
                    "Job suspended",
                    self.now,
                    Repeat::Updates,
                );
                status.as_object_mut().expect("a status is an object").remove("startTime");
                events.push(Action::event(self.job, EventType::Normal, "Suspended", "Job suspended"));
            }
            (false, Some(true)) => {
                conditions::set(status, "Suspended", "False", "JobResumed", "Job resumed", self.now, Repeat::Updates);
                status["startTime"] = time(self.now).into();
                events.push(Action::event(self.job, EventType::Normal, "Resumed", "Job resumed"));
            }
            _ => {}
        }
    }

    fn write(&self, status: &mut Value) {
        if status["startTime"].is_null() && !self.is_suspended() {
            status["startTime"] = time(self.now).into();
        }
        let active = self.active.len();
        if active > 0 {
            status["active"] = active.into();
        } else if let Some(map) = status.as_object_mut() {
            map.remove("active");
        }
        status["ready"] = self.active.iter().filter(|p| is_ready(p)).count().into();
        status["terminating"] = self.terminating().into();
        self.tracking.write(self.job, status);
    }

    fn terminating(&self) -> usize {
        self.pods.iter().filter(|p| object::is_deleting(p) && !is_terminal(p)).count()
    }

    /// Pods to make or to remove.
    fn manage(&mut self) -> Vec<Action> {
        if self.is_suspended() {
            return self.remove(self.active.len());
        }
        let parallelism = int(&self.job["spec"]["parallelism"], 1);
        let succeeded = self.tracking.total_succeeded(self.job);
        let active = self.active.len() as i64;
        let wanted = match completions(self.job) {
            None if succeeded > 0 => active,
            None => parallelism,
            Some(completions) => (completions - succeeded).min(parallelism).max(0),
        };
        let repeated = self.repeated_indexes();
        let surplus = (active - wanted).max(0) as usize;
        if surplus > 0 || !repeated.is_empty() {
            return if repeated.is_empty() { self.remove(surplus.min(BURST)) } else { self.remove_these(&repeated) };
        }
        let leaving = if replaces_only_failed(self.job) { self.terminating() as i64 } else { 0 };
        let missing = (wanted - leaving - active).clamp(0, BURST as i64) as usize;
        if missing == 0 {
            return Vec::new();
        }
        if is_indexed(self.job) { self.create_indexes(missing) } else { self.create(missing) }
    }

    fn remove(&self, count: usize) -> Vec<Action> {
        let mut ranked = self.active.clone();
        rank_for_deletion(&mut ranked, self.now);
        ranked.truncate(count);
        self.remove_these(&ranked)
    }

    /// Without the finalizer, so that they are not counted as failures.
    fn remove_these(&self, pods: &[Arc<Object>]) -> Vec<Action> {
        let free = pods.iter().filter(|p| is_tracked(p)).map(|p| untrack(p));
        free.chain(pods.iter().map(|p| Action::delete(PODS, p).narrated(narrate_delete(self.job)))).collect()
    }

    /// Pods beyond the first of an index, and those of an index that has succeeded or does not exist.
    fn repeated_indexes(&self) -> Vec<Arc<Object>> {
        if !is_indexed(self.job) {
            return Vec::new();
        }
        let limit = completions(self.job).unwrap_or(0);
        let mut seen = BTreeSet::new();
        let surplus = |p: &&Arc<Object>| match of_pod(p) {
            Some(index) if index < limit && !self.tracking.completed_indexes.0.contains(&index) => !seen.insert(index),
            _ => true,
        };
        self.active.iter().filter(surplus).cloned().collect()
    }

    fn create(&mut self, count: usize) -> Vec<Action> {
        let failures = self.failures_since_success(&self.pods);
        if let Some(at) = self.pause_until(failures) {
            self.requeue_by(at);
            return Vec::new();
        }
        (0..count).map(|_| self.pod(None, 0)).collect()
    }

    fn create_indexes(&mut self, count: usize) -> Vec<Action> {
        let per_index = self.job["spec"]["backoffLimitPerIndex"].is_number();
        if !per_index && let Some(at) = self.pause_until(self.failures_since_success(&self.pods)) {
            self.requeue_by(at);
            return Vec::new();
        }
        let limit = completions(self.job).unwrap_or(0);
        let leaving = |p: &&Arc<Object>| replaces_only_failed(self.job) && !is_terminal(p);
        let taken: BTreeSet<i64> =
            self.active.iter().chain(self.pods.iter().filter(leaving)).filter_map(|p| of_pod(p)).collect();
        let done = |i: &i64| {
            taken.contains(i)
                || self.tracking.completed_indexes.0.contains(i)
                || self.tracking.failed_indexes.0.contains(i)
        };
        let free: Vec<i64> = (0..limit).filter(|i| !done(i)).take(count).collect();
        let mut actions = Vec::new();
        for index in free {
            let mut failures = 0;
            if per_index {
                let own: Vec<Arc<Object>> = self.pods.iter().filter(|p| of_pod(p) == Some(index)).cloned().collect();
                failures = failures_of_index(self.job, &own);
                if let Some(at) = self.pause_until(self.failures_since_success(&own)) {
                    self.requeue_by(at);
                    continue;
                }
            }
            actions.push(self.pod(Some(index), failures));
        }
        actions
    }

    fn pod(&self, index: Option<i64>, index_failures: i64) -> Action {
        let mut pod = from_template(&self.job["spec"]["template"], self.job);
        let mut finalizers: Vec<Value> = list(&pod["metadata"]["finalizers"]).to_vec();
        finalizers.push(FINALIZER.into());
        pod["metadata"]["finalizers"] = finalizers.into();
        let name = object::name(self.job);
        pod["metadata"]["generateName"] = format!("{name}-").into();
        if let Some(index) = index {
            let text = index.to_string();
            pod["metadata"]["generateName"] = format!("{name}-{index}-").into();
            pod["metadata"]["annotations"][INDEX] = text.clone().into();
            pod["metadata"]["labels"][INDEX] = text.into();
            if self.job["spec"]["backoffLimitPerIndex"].is_number() {
                pod["metadata"]["annotations"][INDEX_FAILURES] = index_failures.to_string().into();
            }
            pod["spec"]["hostname"] = format!("{name}-{index}").into();
            for field in ["initContainers", "containers"] {
                for container in pod["spec"][field].as_array_mut().into_iter().flatten() {
                    add_index_variable(container);
                }
            }
        }
        Action::create(PODS, pod).narrated(narrate_create(self.job))
    }

    /// Indexes that failed too often by themselves.
    fn fail_indexes(&mut self) {
        let limit = int(&self.job["spec"]["backoffLimitPerIndex"], 0);
        let mut by_index: BTreeMap<i64, Vec<Arc<Object>>> = BTreeMap::new();
        for pod in &self.pods {
            if let Some(index) = of_pod(pod) {
                by_index.entry(index).or_default().push(pod.clone());
            }
        }
        let too_often = |pods: &Vec<Arc<Object>>| failures_of_index(self.job, pods) > limit;
        let failed: Vec<i64> = by_index.iter().filter(|(_, pods)| too_often(pods)).map(|(i, _)| *i).collect();
        let completed: &Indexes = &self.tracking.completed_indexes;
        let failed: Vec<i64> = failed.into_iter().filter(|i| !completed.0.contains(i)).collect();
        self.tracking.failed_indexes.0.extend(failed);
    }

    /// How many Pods failed since the last that succeeded, and when the last did.
    fn failures_since_success(&self, pods: &[Arc<Object>]) -> (u32, Option<Timestamp>) {
        let ended = |wanted: End| {
            let of = pods.iter().filter(move |p| is_terminal(p) && end(self.job, p) == Some(wanted));
            of.filter_map(|p| finished_at(p)).collect::<Vec<_>>()
        };
        let success = ended(End::Succeeded).into_iter().max();
        let failures: Vec<Timestamp> =
            ended(End::Failed).into_iter().filter(|at| success.is_none_or(|s| *at > s)).collect();
        (failures.len() as u32, failures.into_iter().max())
    }

    fn pause_until(&self, (failures, last): (u32, Option<Timestamp>)) -> Option<Timestamp> {
        let pause = PAUSE_FIRST_SECONDS << failures.checked_sub(1)?.min(16);
        let until = last? + seconds(pause.min(PAUSE_CAP_SECONDS));
        (until > self.now).then_some(until)
    }
}

/// Failures an index had before, which its newest Pod carries, and this one's.
fn failures_of_index(job: &Value, pods: &[Arc<Object>]) -> i64 {
    let carried = |p: &Arc<Object>| {
        let before = object::annotation(p, INDEX_FAILURES).and_then(|n| n.parse().ok()).unwrap_or(0);
        let own =
            end(job, p) == Some(End::Failed) && crate::job_policy::judge(job, p) != crate::job_policy::Verdict::Ignore;
        before + i64::from(own)
    };
    pods.iter().map(carried).max().unwrap_or(0)
}

fn finished_at(pod: &Value) -> Option<Timestamp> {
    let statuses = list(&pod["status"]["containerStatuses"]).iter();
    let container = statuses.filter_map(|c| parse_time(&c["state"]["terminated"]["finishedAt"])).max();
    let ready = || parse_time(&find(&pod["status"], "Ready")?["lastTransitionTime"]);
    let deleted = || parse_time(&pod["metadata"]["deletionTimestamp"]);
    container.or_else(ready).or_else(deleted).or_else(|| parse_time(&pod["metadata"]["creationTimestamp"]))
}

fn add_index_variable(container: &mut Value) {
    const NAME: &str = "JOB_COMPLETION_INDEX";
    if list(&container["env"]).iter().any(|v| v["name"] == NAME) {
        return;
    }
    if !container["env"].is_array() {
        container["env"] = json!([]);
    }
    let path = format!("metadata.labels['{INDEX}']");
    let variable = json!({"name": NAME, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    container["env"].as_array_mut().expect("made above").push(variable);
}

/// Events have a fixed set of reasons.
fn event_reason(reason: &str) -> &'static str {
    match reason {
        "PodFailurePolicy" => "PodFailurePolicy",
        "DeadlineExceeded" => "DeadlineExceeded",
        "MaxFailedIndexesExceeded" => "MaxFailedIndexesExceeded",
        "FailedIndexes" => "FailedIndexes",
        _ => "BackoffLimitExceeded",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn job(spec: Value, status: Value) -> Value {
        let mut job = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"namespace": "d", "name": "j", "uid": "j", "resourceVersion": "1"},
            "spec": {"parallelism": 2, "completions": 2, "backoffLimit": 1, "selector": {"matchLabels": {"job": "j"}},
                     "template": {"metadata": {"labels": {"job": "j"}}, "spec": {"containers": [{"name": "c"}]}}},
            "status": status,
        });
        for (field, value) in spec.as_object().unwrap() {
            job["spec"][field] = value.clone();
        }
        job
    }
    fn pod(name: &str, phase: &str, tracked: bool) -> Value {
        json!({
            "metadata": {"namespace": "d", "name": name, "uid": name, "labels": {"job": "j"},
                "finalizers": if tracked { json!([FINALIZER]) } else { json!([]) },
                "ownerReferences": [{"uid": "j", "controller": true, "kind": "Job", "name": "j"}]},
            "spec": {}, "status": {"phase": phase,
                "containerStatuses": [{"state": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:59:55Z"}}}]},
        })
    }
    fn check(job: Value, pods: &[Value], expected: Expect) {
        let view = View::of(pods.iter().map(|p| (PODS, p.clone())).chain([(JOBS, job)]));
        expected.assert_eq(&Job.plan(&view, &ObjectKey::new("d", "j"), NOW.parse().unwrap()).to_string());
    }
    fn started(more: Value) -> Value {
        let mut status =
            json!({"startTime": "2026-01-01T00:59:00Z", "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}});
        for (field, value) in more.as_object().unwrap() {
            status[field] = value.clone();
        }
        status
    }

    #[test]
    fn a_new_job_starts_as_many_pods_as_may_run_in_parallel() {
        check(
            job(json!({}), Value::Null),
            &[],
            expect![[r#"
            update jobs/status d/j {"status":{"ready":0,"startTime":"2026-01-01T01:00:00Z","terminating":0,"uncountedTerminatedPods":{}}}
            create pods d/j-*
            create pods d/j-*
        "#]],
        );
    }

    /// Regression: the finalizer stayed, so neither the Pod nor its namespace could ever be deleted.
    #[test]
    fn a_pod_that_leaves_its_job_leaves_the_finalizer_behind() {
        let (mut strange, mut free) = (pod("a", "Running", true), pod("b", "Succeeded", true));
        strange["metadata"]["labels"] = json!({"job": "other"});
        free["metadata"].as_object_mut().unwrap().remove("ownerReferences");
        let finished = json!({"conditions": [{"type": "Complete", "status": "True"}]});
        let view = View::of([(PODS, strange), (PODS, free), (JOBS, job(json!({}), finished))]);
        let plan = |name| Job.plan(&view, &ObjectKey::new("d", name), NOW.parse().unwrap()).to_string();
        expect![[r#"
            patch pods d/a {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"],"ownerReferences":[{"$patch":"delete","uid":"j"}]}}
        "#]]
        .assert_eq(&plan("j"));
        expect![[r#"
            patch pods d/b {"metadata":{"finalizers":[]}}
        "#]]
        .assert_eq(&plan(ORPHANS));
    }

    #[test]
    fn a_finished_pod_is_written_down_then_released_then_counted() {
        let pods = [pod("a", "Succeeded", true), pod("b", "Running", true)];
        check(
            job(json!({}), started(json!({"active": 1}))),
            &pods,
            expect![[r#"
            update jobs/status d/j {"status":{"uncountedTerminatedPods":{"succeeded":["a"]}}}
            patch pods d/a {"metadata":{"finalizers":[]}}
        "#]],
        );
        let pods = [pod("a", "Succeeded", false), pod("b", "Running", true)];
        let status = started(json!({"active": 1, "uncountedTerminatedPods": {"succeeded": ["a"]}}));
        check(
            job(json!({}), status),
            &pods,
            expect![[r#"
            update jobs/status d/j {"status":{"succeeded":1,"uncountedTerminatedPods":{"succeeded":null}}}
        "#]],
        );
    }

    #[test]
    fn the_job_is_complete_when_all_are_counted() {
        let pods = [pod("a", "Succeeded", false), pod("b", "Succeeded", false)];
        check(
            job(json!({}), started(json!({"succeeded": 2}))),
            &pods,
            expect![[r#"
            update jobs/status d/j {"status":{"completionTime":"2026-01-01T01:00:00Z","conditions":[{"lastTransitionTime":"2026-01-01T01:00:00Z","message":"Reached expected number of succeeded pods","reason":"CompletionsReached","status":"True","type":"SuccessCriteriaMet"},{"lastTransitionTime":"2026-01-01T01:00:00Z","message":"Reached expected number of succeeded pods","reason":"CompletionsReached","status":"True","type":"Complete"}]}}
            event Normal Completed: Job completed
        "#]],
        );
    }

    #[test]
    fn after_a_failure_the_next_pod_waits() {
        check(
            job(json!({"parallelism": 1}), started(json!({"failed": 1}))),
            &[pod("a", "Failed", false)],
            expect![[r#"
            again at 2026-01-01T01:00:05Z
        "#]],
        );
    }

    #[test]
    fn too_many_failures_end_it_and_what_still_runs() {
        let pods = [pod("a", "Failed", false), pod("b", "Failed", false), pod("c", "Running", true)];
        check(
            job(json!({}), started(json!({"failed": 2, "active": 1}))),
            &pods,
            expect![[r#"
            update jobs/status d/j {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T01:00:00Z","message":"Job has reached the specified backoff limit","reason":"BackoffLimitExceeded","status":"True","type":"FailureTarget"}]}}
            delete pods d/c
        "#]],
        );
    }

    #[test]
    fn a_suspended_job_loses_its_pods_without_counting_them() {
        check(
            job(json!({"suspend": true}), started(json!({"active": 1}))),
            &[pod("a", "Running", true)],
            expect![[r#"
            update jobs/status d/j {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T01:00:00Z","message":"Job suspended","reason":"JobSuspended","status":"True","type":"Suspended"}],"startTime":null}}
            event Normal Suspended: Job suspended
            patch pods d/a {"metadata":{"finalizers":[]}}
            delete pods d/a
        "#]],
        );
    }

    #[test]
    fn an_indexed_job_makes_the_indexes_that_are_missing() {
        let mut done = pod("a", "Succeeded", true);
        done["metadata"]["annotations"] = json!({INDEX: "0"});
        let spec = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3});
        let view = View::of([(PODS, done), (JOBS, job(spec, started(json!({}))))]);
        let plan = Job.plan(&view, &ObjectKey::new("d", "j"), NOW.parse().unwrap());
        expect![[r#"
            update jobs/status d/j {"status":{"completedIndexes":"0","succeeded":1}}
            patch pods d/a {"metadata":{"finalizers":[]}}
            create pods d/j-1-*
            create pods d/j-2-*
        "#]]
        .assert_eq(&plan.to_string());
        let Some(Action::Create { body, .. }) = plan.actions.last() else { panic!("no Pod is made") };
        assert_eq!(body["spec"]["hostname"], "j-2");
        assert_eq!(body["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
    }

    #[test]
    fn a_job_that_somebody_else_runs_only_expires_here() {
        let managed = |status| job(json!({"managedBy": "example.com/x", "ttlSecondsAfterFinished": 5}), status);
        check(managed(json!({})), &[], expect![""]);
        let status =
            json!({"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": "2026-01-01T00:59:50Z"}]});
        check(
            managed(status),
            &[],
            expect![[r#"
            delete jobs d/j
        "#]],
        );
    }

    #[test]
    fn a_finished_job_is_deleted_when_its_time_is_over() {
        let status = json!({"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:59:50Z"}]});
        check(
            job(json!({"ttlSecondsAfterFinished": 20}), status.clone()),
            &[],
            expect![[r#"
            again at 2026-01-01T01:00:10Z
        "#]],
        );
        check(
            job(json!({"ttlSecondsAfterFinished": 5}), status),
            &[],
            expect![[r#"
            delete jobs d/j
        "#]],
        );
    }
}
