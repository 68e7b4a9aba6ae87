//! What is written to `/status` of workloads.
//!
//! Owns: the statuses of apps, batch and ReplicationControllers.
//! Called by: `status`.
//! Never: looks at the rest of the object but to tell whether a status fits it.

use serde_json::Value;

use super::check::{At, Errors};
use super::jobs;
use crate::status::FieldError;

const ABOVE_REPLICAS: &str = "cannot be greater than status.replicas";
const INDEXED: &str = "Indexed";
const SUSPENDED: &str = "Suspended";

pub(super) fn update(kind: &str, object: &At<'_>, old: &Value, errors: &mut Errors) {
    let (status, before) = (object.get("status"), &old["status"]);
    match kind {
        "Deployment" => deployment(&status, before, errors),
        "ReplicaSet" | "ReplicationController" => replica_set(kind, &status, errors),
        "StatefulSet" => stateful_set(&status, before, errors),
        "DaemonSet" => daemon_set(&status, before, errors),
        "Job" => job(object, old, errors),
        _ => {}
    }
}

fn amount(status: &At<'_>, field: &str) -> i64 {
    status.value[field].as_i64().unwrap_or(0)
}

fn no_more_than(status: &At<'_>, fields: &[&str], limit: &str, why: &str, errors: &mut Errors) {
    for field in fields {
        if amount(status, field) > amount(status, limit) {
            errors.invalid(&status.get(field).showing(&amount(status, field).into()), why);
        }
    }
}

/// Collisions of names are counted up only.
fn collisions(status: &At<'_>, before: &Value, errors: &mut Errors) {
    let count = status.get("collisionCount");
    if before["collisionCount"].as_i64().is_some_and(|before| count.number().is_none_or(|now| now < before)) {
        errors.invalid(&count.showing(&count.number().unwrap_or(0).into()), "cannot be decremented");
    }
}

fn deployment(status: &At<'_>, before: &Value, errors: &mut Errors) {
    let counts = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    errors.all_non_negative(status, &counts);
    no_more_than(
        status,
        &["updatedReplicas", "readyReplicas", "availableReplicas"],
        "replicas",
        ABOVE_REPLICAS,
        errors,
    );
    available_are_ready(status, "readyReplicas", errors);
    collisions(status, before, errors);
}

/// `ready` is how the message names the field.
fn available_are_ready(status: &At<'_>, ready: &str, errors: &mut Errors) {
    let why = format!("cannot be greater than {ready}");
    no_more_than(status, &["availableReplicas"], "readyReplicas", &why, errors);
}

fn replica_set(kind: &str, status: &At<'_>, errors: &mut Errors) {
    let counts = ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
    errors.all_non_negative(status, &counts);
    if kind == "ReplicaSet" {
        errors.non_negative(&status.get("terminatingReplicas"));
    }
    no_more_than(
        status,
        &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        "replicas",
        ABOVE_REPLICAS,
        errors,
    );
    available_are_ready(status, "readyReplicas", errors);
}

fn stateful_set(status: &At<'_>, before: &Value, errors: &mut Errors) {
    let replicas = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    errors.non_negative(&status.get("replicas"));
    errors.all_non_negative(status, &replicas);
    errors.all_non_negative(status, &["observedGeneration", "collisionCount"]);
    no_more_than(status, &replicas, "replicas", ABOVE_REPLICAS, errors);
    available_are_ready(status, "status.readyReplicas", errors);
    collisions(status, before, errors);
}

fn daemon_set(status: &At<'_>, before: &Value, errors: &mut Errors) {
    let counts = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    errors.all_non_negative(status, &counts);
    collisions(status, before, errors);
}

/// A Job's status, and what of it is asked more than whether it is true.
struct JobStatus<'a> {
    status: &'a Value,
}

impl JobStatus<'_> {
    fn has(&self, condition: &str, state: &str) -> bool {
        let conditions = self.status["conditions"].as_array();
        conditions.into_iter().flatten().any(|c| c["type"] == condition && c["status"] == state)
    }
    fn is(&self, condition: &str) -> bool {
        self.has(condition, "True")
    }
    fn is_finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }
    fn count(&self, field: &str) -> i64 {
        self.status[field].as_i64().unwrap_or(0)
    }
}

/// The two statuses and the Job: faults are looked for only where something was changed, so that a status that was
/// wrong before can still be mended bit by bit.
struct JobChange<'a> {
    spec: &'a Value,
    at: &'a At<'a>,
    new: JobStatus<'a>,
    old: JobStatus<'a>,
}

impl JobChange<'_> {
    fn changed(&self, fields: &[&str]) -> bool {
        fields.iter().any(|field| self.new.status[*field] != self.old.status[*field])
    }
    fn turned(&self, conditions: &[&str]) -> bool {
        conditions.iter().any(|condition| self.new.is(condition) != self.old.is(condition))
    }
    fn finished_or_changed(&self, field: &str) -> bool {
        self.new.is_finished() != self.old.is_finished() || self.changed(&[field])
    }
    fn is_indexed(&self) -> bool {
        self.spec["completionMode"] == INDEXED
    }

    fn fault(&self, field: &str, why: &str, errors: &mut Errors) {
        errors.invalid(&self.at.get(field).showing(&self.new.status[field]), why);
    }
    /// As `fault`, of a number that may be left out.
    fn fault_of_count(&self, field: &str, why: &str, errors: &mut Errors) {
        errors.invalid(&self.at.get(field).showing(&self.new.count(field).into()), why);
    }
    fn fault_of_conditions(&self, why: &str, errors: &mut Errors) {
        let path = self.at.get("conditions").path();
        errors.push(FieldError { value: None, ..FieldError::invalid(path, &Value::Null, why) });
    }
}

fn job(object: &At<'_>, old: &Value, errors: &mut Errors) {
    let status = object.get("status");
    errors.all_non_negative(&status, &["active", "succeeded", "failed", "ready", "terminating"]);
    uncounted(&status.get("uncountedTerminatedPods"), errors);
    let change = JobChange {
        spec: &object.value["spec"],
        at: &status,
        new: JobStatus { status: status.value },
        old: JobStatus { status: &old["status"] },
    };
    completion(&change, errors);
    finish(&change, errors);
    indexes(&change, errors);
    rest(&change, errors);
    success_criteria(&change, errors);
    history(&change, errors);
}

fn uncounted(pods: &At<'_>, errors: &mut Errors) {
    let mut seen = std::collections::HashSet::new();
    for list in ["succeeded", "failed"] {
        for uid in pods.get(list).items() {
            if uid.text().is_empty() {
                errors.invalid(&uid, "must not be empty");
            } else if !seen.insert(uid.text().to_string()) {
                errors.duplicate(&uid);
            }
        }
    }
}

fn completion(change: &JobChange<'_>, errors: &mut Errors) {
    let (new, at) = (&change.new, change.at);
    let time = &new.status["completionTime"];
    if change.turned(&["Complete", "Failed"]) && new.is("Complete") && new.is("Failed") {
        change.fault_of_conditions("cannot set Complete=True and Failed=true conditions", errors);
    }
    if change.turned(&["Complete", "FailureTarget"]) && new.is("Complete") && new.is("FailureTarget") {
        change.fault_of_conditions("cannot set Complete=True and FailureTarget=true conditions", errors);
    }
    if change.turned(&["Complete"]) || change.changed(&["completionTime"]) {
        match (time.is_null(), new.is("Complete")) {
            (false, false) => {
                let why = "cannot set completionTime when there is no Complete=True condition";
                change.fault("completionTime", why, errors);
            }
            (true, true) => {
                errors.required(&at.get("completionTime"), "completionTime is required for Complete jobs");
            }
            _ => {}
        }
    }
    // Times are written alike, so their order is that of their text.
    let start = new.status["startTime"].as_str();
    if change.changed(&["startTime", "completionTime"])
        && time.as_str().is_some_and(|end| start.is_some_and(|s| end < s))
    {
        change.fault("completionTime", "must be equal to or after `startTime`", errors);
    }
}

fn finish(change: &JobChange<'_>, errors: &mut Errors) {
    let new = &change.new;
    let failed_changed = change.turned(&["Failed"]) || change.changed(&["failedIndexes"]);
    if failed_changed && new.is("Failed") && !new.is("FailureTarget") {
        let why = "cannot set Failed=True condition without the FailureTarget=true condition";
        change.fault_of_conditions(why, errors);
    }
    if change.turned(&["Complete", "SuccessCriteriaMet"]) && new.is("Complete") && !new.is("SuccessCriteriaMet") {
        let why = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        change.fault_of_conditions(why, errors);
    }
    if !new.is_finished() {
        return;
    }
    if change.finished_or_changed("active") && new.count("active") > 0 {
        change.fault("active", "active>0 is invalid for finished job", errors);
    }
    let never_ran = change.spec["suspend"] == true && change.spec["completions"] == 0;
    if change.finished_or_changed("startTime") && !never_ran && new.status["startTime"].is_null() {
        errors.required(&change.at.get("startTime"), "startTime is required for finished job");
    }
    let pods = &new.status["uncountedTerminatedPods"];
    let uncounted = |list: &str| pods[list].as_array().is_some_and(|l| !l.is_empty());
    if change.finished_or_changed("uncountedTerminatedPods") && (uncounted("failed") || uncounted("succeeded")) {
        change.fault("uncountedTerminatedPods", "must be empty for finished job", errors);
    }
}

fn indexes(change: &JobChange<'_>, errors: &mut Errors) {
    let (spec, status) = (change.spec, change.new.status);
    let completed = status["completedIndexes"].as_str().unwrap_or("");
    let failed = status["failedIndexes"].as_str();
    let completions = spec["completions"].as_i64();
    let by_index = !spec["backoffLimitPerIndex"].is_null();
    let (completed_changed, failed_changed) =
        (change.changed(&["completedIndexes"]), change.changed(&["failedIndexes"]));
    let parse = |field: &str, text: &str| {
        let fault = completions.and_then(|completions| jobs::indexes(text, completions).err());
        fault.map(|fault| format!("error parsing {field}: {fault}"))
    };
    if let Some(why) = parse("completedIndexes", completed).filter(|_| completed_changed) {
        change.fault("completedIndexes", &why, errors);
    }
    if let Some(why) = failed.filter(|_| failed_changed && by_index).and_then(|text| parse("failedIndexes", text)) {
        change.fault("failedIndexes", &why, errors);
    }
    if completed_changed && !completed.is_empty() && !change.is_indexed() {
        let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
        change.fault("completedIndexes", why, errors);
    }
    if failed_changed && failed.is_some() && !by_index {
        change.fault("failedIndexes", "cannot set non-null failedIndexes when backoffLimitPerIndex is null", errors);
    }
    if let (true, Some(completions), Some(failed)) = (completed_changed || failed_changed, completions, failed)
        && let Some(index) = first_in_both(completed, failed, completions)
    {
        let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
        change.fault("failedIndexes", &why, errors);
    }
}

/// The first index that two lists of intervals share; what cannot be read is left out.
fn first_in_both(one: &str, other: &str, completions: i64) -> Option<i64> {
    let read = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|part| jobs::interval(part, completions).ok()).collect()
    };
    let others = read(other);
    let shared =
        |(first, last): (i64, i64)| others.iter().find(|(f, l)| first <= *l && *f <= last).map(|(f, _)| first.max(*f));
    read(one).into_iter().find_map(shared)
}

fn rest(change: &JobChange<'_>, errors: &mut Errors) {
    let new = &change.new;
    if change.finished_or_changed("terminating") && new.is_finished() && new.count("terminating") > 0 {
        change.fault("terminating", "terminating>0 is invalid for finished job", errors);
    }
    if change.changed(&["ready", "active"]) && new.count("ready") > new.count("active") {
        change.fault("ready", "cannot set more ready pods than active", errors);
    }
}

fn success_criteria(change: &JobChange<'_>, errors: &mut Errors) {
    let new = &change.new;
    if new.is("SuccessCriteriaMet") {
        for (other, shown) in [("Failed", "Failed=true"), ("FailureTarget", "FailureTarget=true")] {
            if new.is(other) {
                let why = format!("cannot set SuccessCriteriaMet=True and {shown} conditions");
                change.fault_of_conditions(&why, errors);
            }
        }
    } else if !change.spec["successPolicy"].is_null() && new.is("Complete") {
        let why = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        change.fault_of_conditions(why, errors);
    }
}

/// What, once it was so, stays so.
fn history(change: &JobChange<'_>, errors: &mut Errors) {
    let (new, old) = (&change.new, &change.old);
    for condition in ["Failed", "Complete", "FailureTarget"] {
        if old.is(condition) && !new.is(condition) {
            change.fault_of_conditions(&format!("cannot disable the terminal {condition}=True condition"), errors);
        }
    }
    if new.count("failed") < old.count("failed") {
        change.fault_of_count("failed", "cannot decrease the failed counter", errors);
    }
    // A Job whose completions are as many as its Pods may be made smaller.
    let elastic = change.is_indexed() && change.spec["completions"] == change.spec["parallelism"];
    if new.count("succeeded") < old.count("succeeded") && !elastic {
        change.fault_of_count("succeeded", "cannot decrease the succeeded counter", errors);
    }
    let (end, start) = (&new.status["completionTime"], &new.status["startTime"]);
    if !end.is_null() && !old.status["completionTime"].is_null() && change.changed(&["completionTime"]) {
        change.fault("completionTime", "field is immutable", errors);
    }
    let resumes = old.is(SUSPENDED) && new.has(SUSPENDED, "False");
    let started = &old.status["startTime"];
    if start != started && !resumes && !started.is_null() && change.spec["suspend"] != true {
        change.fault("startTime", "field is immutable for unsuspended job once set", errors);
    }
    if old.is("SuccessCriteriaMet") && !new.is("SuccessCriteriaMet") {
        change.fault_of_conditions("cannot disable the SuccessCriteriaMet=True condition", errors);
    }
    if old.is("Complete") && !old.is("SuccessCriteriaMet") && new.is("SuccessCriteriaMet") {
        let why = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        change.fault_of_conditions(why, errors);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn check(kind: &str, spec: Value, before: Value, after: Value, expected: Expect) {
        let object = json!({"spec": spec, "status": after});
        let mut errors = Errors::default();
        update(kind, &At::root(&object), &json!({"spec": spec, "status": before}), &mut errors);
        expected.assert_eq(&errors.into_texts().join("\n"));
    }

    #[test]
    fn a_deployment_has_no_more_available_pods_than_ready_ones() {
        check(
            "Deployment",
            json!({}),
            json!({"collisionCount": 2}),
            json!({"replicas": 3, "availableReplicas": 4}),
            expect![[r#"
                status.availableReplicas: Invalid value: 4: cannot be greater than status.replicas
                status.availableReplicas: Invalid value: 4: cannot be greater than readyReplicas
                status.collisionCount: Invalid value: 0: cannot be decremented"#]],
        );
    }

    #[test]
    fn a_job_counts_up_and_finishes_in_order() {
        let complete = json!([{"type": "Complete", "status": "True"}]);
        check(
            "Job",
            json!({"completions": 3}),
            json!({"succeeded": 2}),
            json!({"succeeded": 1, "active": 1, "conditions": complete, "completedIndexes": "0,2-5"}),
            expect![[r#"
                status.completionTime: Required value: completionTime is required for Complete jobs
                status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition
                status.active: Invalid value: 1: active>0 is invalid for finished job
                status.startTime: Required value: startTime is required for finished job
                status.completedIndexes: Invalid value: "0,2-5": error parsing completedIndexes: too large index: "5"
                status.completedIndexes: Invalid value: "0,2-5": cannot set non-empty completedIndexes when non-indexed completion mode
                status.succeeded: Invalid value: 1: cannot decrease the succeeded counter"#]],
        );
        check("Job", json!({}), json!({"conditions": complete}), json!({"conditions": complete}), expect![[""]]);
    }
}
