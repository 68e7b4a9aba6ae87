//! CronJob: starts Jobs at their times.
//!
//! Owns: which time is due, concurrency, the list of running Jobs, and how many finished ones are kept.
//! Called by: the driver, at changes and at the next time of the schedule.
//! Never: starts a Job twice for one time: the Job's name is made of it.

use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use minik_api::resources::{CRONJOBS, JOBS};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{
    Action, Change, DeleteParams, EventType, Narration, Object, Plan, Propagation, Reconciler, Regarding, View,
};
use serde_json::{Value, json};

use crate::conditions::is_true;
use crate::fields::{controller_ref, int, is_controlled_by, list, parse_time, seconds, text, time};
use crate::job::is_finished;
use crate::schedule::Schedule;

/// Missed times looked through one by one; with more, somebody's clock is wrong, and an Event says so.
const MISSED_MAX: usize = 100;
/// A moment later than the time itself, so that rounding cannot wake it too early; upstream's number.
const LATER: SignedDuration = SignedDuration::from_millis(100);

pub(crate) struct CronJob;

impl Reconciler for CronJob {
    fn name(&self) -> &'static str {
        "cronjob"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[CRONJOBS, JOBS]
    }
    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource == CRONJOBS {
            return vec![change.key.clone()];
        }
        let owner = |job: &Arc<Object>| {
            let owner = object::controller_of(job).filter(|o| o["kind"] == "CronJob")?;
            Some(ObjectKey::new(object::namespace(job), text(&owner["name"])))
        };
        let mut keys: Vec<ObjectKey> = change.sides().filter_map(owner).collect();
        keys.dedup();
        keys
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(cron) = view.get_key(CRONJOBS, key) else { return Plan::nothing() };
        let uid = object::uid(cron);
        let jobs: Vec<Arc<Object>> = view.owned_by(JOBS, uid).filter(|j| is_controlled_by(j, uid)).cloned().collect();
        let mut look = Look { cron, jobs, now, status: cron["status"].clone(), plan: Plan::nothing() };
        if !look.status.is_object() {
            look.status = json!({});
        }
        look.observe_jobs();
        look.clean_up();
        let mut starts = Vec::new();
        if !object::is_deleting(cron) && cron["spec"]["suspend"] != true {
            starts = look.start();
        }
        let mut plan = look.plan;
        plan.actions.extend(starts);
        plan.actions.extend(Action::set_status(CRONJOBS, cron, &look.status));
        plan
    }
}

struct Look<'a> {
    cron: &'a Arc<Object>,
    jobs: Vec<Arc<Object>>,
    now: Timestamp,
    status: Value,
    plan: Plan,
}

impl Look<'_> {
    fn tell(&mut self, kind: EventType, reason: &'static str, message: String) {
        let event = Action::event(self.cron, kind, reason, message);
        self.plan.push(event);
    }

    fn active(&self) -> Vec<Value> {
        list(&self.status["active"]).to_vec()
    }
    fn set_active(&mut self, active: Vec<Value>) {
        if active.is_empty() {
            self.status.as_object_mut().expect("a status is an object").remove("active");
        } else {
            self.status["active"] = active.into();
        }
    }

    /// Finished and lost Jobs leave the list of active ones; unfinished ones join it.
    fn observe_jobs(&mut self) {
        let mut kept = Vec::new();
        for reference in self.active() {
            let name = text(&reference["name"]).to_string();
            match self.jobs.iter().find(|j| reference["uid"] == object::uid(j)).cloned() {
                Some(job) if is_finished(&job) => {
                    let condition = if is_true(&job["status"], "Complete") { "Complete" } else { "Failed" };
                    let message = format!("Saw completed job: {name}, condition: {condition}");
                    self.tell(EventType::Normal, "SawCompletedJob", message);
                }
                Some(_) => kept.push(reference),
                None => self.tell(EventType::Normal, "MissingJob", format!("Active job went missing: {name}")),
            }
        }
        for job in self.jobs.clone() {
            let known = kept.iter().any(|r| r["uid"] == object::uid(&job));
            if !known && !is_finished(&job) && !object::is_deleting(&job) {
                kept.push(reference(&job));
            }
            let done = parse_time(&job["status"]["completionTime"]).filter(|_| is_true(&job["status"], "Complete"));
            let last = parse_time(&self.status["lastSuccessfulTime"]);
            if done > last {
                self.status["lastSuccessfulTime"] = job["status"]["completionTime"].clone();
            }
        }
        self.set_active(kept);
    }

    /// The oldest finished Jobs beyond the limits, successes and failures apart.
    fn clean_up(&mut self) {
        for (condition, field, default) in
            [("Complete", "successfulJobsHistoryLimit", 3), ("Failed", "failedJobsHistoryLimit", 1)]
        {
            let limit = int(&self.cron["spec"][field], default).max(0) as usize;
            let ended = |j: &&Arc<Object>| is_true(&j["status"], condition) && !object::is_deleting(j);
            let mut jobs: Vec<Arc<Object>> = self.jobs.iter().filter(ended).cloned().collect();
            jobs.sort_by_key(|j| (text(&j["status"]["startTime"]).to_string(), object::name(j).to_string()));
            let surplus = jobs.len().saturating_sub(limit);
            for job in &jobs[..surplus] {
                let action = self.delete(job);
                self.plan.push(action);
            }
        }
    }

    fn delete(&self, job: &Object) -> Action {
        let params =
            DeleteParams { propagation: Some(Propagation::Background), ..DeleteParams::of_uid(object::uid(job)) };
        Action::Delete { resource: JOBS, key: job.key(), params, narration: None }.narrated(Narration {
            regarding: Regarding::of(self.cron),
            done: ("SuccessfulDelete", "Deleted job "),
            failed: ("FailedDelete", "Deleted job: "),
        })
    }

    fn start(&mut self) -> Vec<Action> {
        let zone_name = text(&self.cron["spec"]["timeZone"]).to_string();
        let zone = if zone_name.is_empty() { Ok(TimeZone::UTC) } else { TimeZone::get(&zone_name) };
        let Ok(zone) = zone else {
            let message = format!("invalid timeZone: {zone_name:?}: unknown time zone {zone_name}");
            self.tell(EventType::Warning, "UnknownTimeZone", message);
            return Vec::new();
        };
        let schedule = match Schedule::parse(text(&self.cron["spec"]["schedule"])) {
            Ok(schedule) => schedule,
            Err(why) => {
                let message = format!("unparseable schedule: {:?} : {why}", text(&self.cron["spec"]["schedule"]));
                self.tell(EventType::Warning, "UnparseableSchedule", message);
                return Vec::new();
            }
        };
        if let Some(next) = schedule.next(self.now, &zone) {
            self.plan.requeue_at = Some(next + LATER);
        }
        match self.due(&schedule, &zone) {
            Some(at) => self.start_at(at, &zone),
            None => Vec::new(),
        }
    }

    /// The latest time since the last start that is over; one, however many were missed.
    fn due(&mut self, schedule: &Schedule, zone: &TimeZone) -> Option<Timestamp> {
        let created = parse_time(&self.cron["metadata"]["creationTimestamp"])?;
        let mut from = parse_time(&self.status["lastScheduleTime"]).unwrap_or(created);
        if let Some(deadline) = self.cron["spec"]["startingDeadlineSeconds"].as_i64() {
            from = from.max(self.now - seconds(deadline));
        }
        let mut due = None;
        let mut missed = 0;
        while let Some(at) = schedule.next(from, zone).filter(|at| *at <= self.now) {
            (due, from) = (Some(at), at);
            missed += 1;
            if missed > MISSED_MAX {
                let message =
                    "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
                self.tell(EventType::Warning, "TooManyMissedTimes", message.into());
                // The latest one lies shortly before now: looked for from there instead of one by one.
                let first = schedule.next(from, zone)?;
                let step = first.duration_since(from).max(SignedDuration::from_secs(1));
                from = from.max(self.now - step * 2);
                missed = 0;
            }
        }
        due
    }

    fn start_at(&mut self, at: Timestamp, zone: &TimeZone) -> Vec<Action> {
        // Upstream names Jobs by the minute of their time.
        let name = format!("{}-{}", object::name(self.cron), at.as_second() / 60);
        let started = self.active().iter().any(|r| r["name"] == name.as_str());
        if started || parse_time(&self.status["lastScheduleTime"]) == Some(at) {
            return Vec::new();
        }
        let mut actions = Vec::new();
        let active = self.active();
        match text(&self.cron["spec"]["concurrencyPolicy"]) {
            "Forbid" if !active.is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.tell(EventType::Normal, "JobAlreadyActive", message.into());
                return Vec::new();
            }
            "Replace" => {
                let running = self.jobs.iter().filter(|j| active.iter().any(|r| r["uid"] == object::uid(j)));
                actions.extend(running.map(|j| self.delete(j)));
                self.set_active(Vec::new());
            }
            _ => {}
        }
        let existing = self.jobs.iter().any(|j| object::name(j) == name);
        if !existing {
            actions.push(self.job(&name, at, zone));
        }
        self.status["lastScheduleTime"] = time(at).into();
        actions
    }

    fn job(&self, name: &str, at: Timestamp, zone: &TimeZone) -> Action {
        let template = &self.cron["spec"]["jobTemplate"];
        let mut annotations = template["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        let local = at.to_zoned(zone.clone());
        let stamp = if *zone == TimeZone::UTC { time(at) } else { local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string() };
        annotations.insert("batch.kubernetes.io/cronjob-scheduled-timestamp".into(), stamp.into());
        let body = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {
                "namespace": object::namespace(self.cron), "name": name, "labels": template["metadata"]["labels"],
                "annotations": annotations, "ownerReferences": [controller_ref(self.cron)],
            },
            "spec": template["spec"],
        });
        Action::create(JOBS, body).narrated(Narration {
            regarding: Regarding::of(self.cron),
            done: ("SuccessfulCreate", "Created job "),
            failed: ("FailedCreate", "Error creating job: "),
        })
    }
}

fn reference(job: &Value) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "namespace": object::namespace(job), "name": object::name(job),
        "uid": object::uid(job), "resourceVersion": object::resource_version(job),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn cron(policy: &str, status: Value) -> Value {
        json!({
            "apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"namespace": "d", "name": "c", "uid": "c", "creationTimestamp": "2026-01-01T00:00:30Z"},
            "spec": {"schedule": "*/10 * * * *", "concurrencyPolicy": policy, "jobTemplate": {"spec": {}}},
            "status": status,
        })
    }
    fn job(name: &str, condition: &str) -> (ResourceId, Value) {
        let conditions = if condition.is_empty() { json!([]) } else { json!([{"type": condition, "status": "True"}]) };
        (
            JOBS,
            json!({
                "metadata": {"namespace": "d", "name": name, "uid": name,
                             "ownerReferences": [{"uid": "c", "controller": true, "kind": "CronJob", "name": "c"}]},
                "status": {"startTime": "2026-01-01T00:00:00Z", "conditions": conditions},
            }),
        )
    }
    fn check(cron: Value, jobs: Vec<(ResourceId, Value)>, now: &str, expected: Expect) {
        let view = View::of(jobs.into_iter().chain([(CRONJOBS, cron)]));
        expected.assert_eq(&CronJob.plan(&view, &ObjectKey::new("d", "c"), now.parse().unwrap()).to_string());
    }

    #[test]
    fn nothing_is_started_before_its_time() {
        check(
            cron("Allow", json!({})),
            vec![],
            "2026-01-01T00:09:59Z",
            expect![[r#"
            again at 2026-01-01T00:10:00.1Z
        "#]],
        );
    }

    #[test]
    fn of_missed_times_the_latest_is_started_under_a_name_made_of_it() {
        check(
            cron("Allow", json!({})),
            vec![],
            "2026-01-01T00:25:00Z",
            expect![[r#"
            create jobs d/c-29453780
            update cronjobs/status d/c {"status":{"lastScheduleTime":"2026-01-01T00:20:00Z"}}
            again at 2026-01-01T00:30:00.1Z
        "#]],
        );
    }

    #[test]
    fn forbid_waits_and_replace_does_not() {
        let status = json!({"active": [{"name": "c-1", "uid": "c-1"}]});
        check(
            cron("Forbid", status.clone()),
            vec![job("c-1", "")],
            "2026-01-01T00:10:01Z",
            expect![[r#"
            event Normal JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid
            again at 2026-01-01T00:20:00.1Z
        "#]],
        );
        check(
            cron("Replace", status),
            vec![job("c-1", "")],
            "2026-01-01T00:10:01Z",
            expect![[r#"
            delete jobs d/c-1
            create jobs d/c-29453770
            update cronjobs/status d/c {"status":{"active":null,"lastScheduleTime":"2026-01-01T00:10:00Z"}}
            again at 2026-01-01T00:20:00.1Z
        "#]],
        );
    }

    #[test]
    fn finished_jobs_leave_the_list_and_only_the_newest_are_kept() {
        let status = json!({"active": [{"name": "c-1", "uid": "c-1"}], "lastScheduleTime": "2026-01-01T00:10:00Z"});
        let jobs = vec![job("c-1", "Failed"), job("c-2", "Failed")];
        check(
            cron("Allow", status),
            jobs,
            "2026-01-01T00:10:01Z",
            expect![[r#"
            event Normal SawCompletedJob: Saw completed job: c-1, condition: Failed
            delete jobs d/c-1
            update cronjobs/status d/c {"status":{"active":null}}
            again at 2026-01-01T00:20:00.1Z
        "#]],
        );
    }
}
