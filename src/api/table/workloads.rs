//! Rows of what makes Pods: Deployments, Jobs and their like.
//!
//! Owns: their cells.
//! Called by: `render`.
//! Never: counts Pods itself; it shows the status.

use serde_json::Value;

use super::{NONE, Row, UNSET, age, condition, containers, count, labels, number, text, text_or};
use crate::selector::{LabelSelector, format_object};

pub(super) fn print(kind: &str, row: &mut Row<'_>) -> bool {
    match kind {
        "Deployment" => deployment(row),
        "ReplicaSet" | "ReplicationController" => replica_set(kind, row),
        "StatefulSet" => stateful_set(row),
        "DaemonSet" => daemon_set(row),
        "Job" => job(row),
        "CronJob" => cron_job(row),
        "ControllerRevision" => controller_revision(row),
        "PodDisruptionBudget" => disruption_budget(row),
        _ => return false,
    }
    true
}

fn deployment(row: &mut Row<'_>) {
    let (spec, status) = (&row.object["spec"], &row.object["status"]);
    row.name();
    row.push(format!("{}/{}", number(&status["readyReplicas"]), number(&spec["replicas"])));
    row.push(number(&status["updatedReplicas"]));
    row.push(number(&status["availableReplicas"]));
    row.age();
    row.extend(containers(&spec["template"]));
    let selector = LabelSelector::from_object(&spec["selector"]);
    row.push(selector.map_or_else(|_| "<invalid>".to_string(), |s| s.to_string()));
}

fn replica_set(kind: &str, row: &mut Row<'_>) {
    let (spec, status) = (&row.object["spec"], &row.object["status"]);
    row.name();
    row.push(number(&spec["replicas"]));
    row.push(number(&status["replicas"]));
    row.push(number(&status["readyReplicas"]));
    row.age();
    row.extend(containers(&spec["template"]));
    let selector = &spec["selector"];
    row.push(if kind == "ReplicaSet" { format_object(selector) } else { labels(selector) });
}

fn stateful_set(row: &mut Row<'_>) {
    let (spec, status) = (&row.object["spec"], &row.object["status"]);
    row.name();
    row.push(format!("{}/{}", number(&status["readyReplicas"]), number(&spec["replicas"])));
    row.age();
    row.extend(containers(&spec["template"]));
}

fn daemon_set(row: &mut Row<'_>) {
    let (spec, status) = (&row.object["spec"], &row.object["status"]);
    row.name();
    for field in
        ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable"]
    {
        row.push(number(&status[field]));
    }
    row.push(labels(&spec["template"]["spec"]["nodeSelector"]));
    row.age();
    row.extend(containers(&spec["template"]));
    row.push(format_object(&spec["selector"]));
}

fn job(row: &mut Row<'_>) {
    let job = row.object;
    let (spec, status) = (&job["spec"], &job["status"]);
    let done = number(&status["succeeded"]);
    let completions = match (spec["completions"].as_i64(), number(&spec["parallelism"])) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{done}/1 of {parallelism}"),
        (None, _) => format!("{done}/1"),
    };
    let end = age::parse(&status["completionTime"]).unwrap_or(row.now);
    let duration = age::parse(&status["startTime"]).map(|start| age::human_duration(age::seconds_between(start, end)));
    let is = |kind: &str| condition(job, kind).is_some_and(|c| c["status"] == "True");
    let state = match () {
        _ if is("Complete") => "Complete",
        _ if is("Failed") => "Failed",
        _ if crate::object::is_deleting(job) => "Terminating",
        _ if is("Suspended") => "Suspended",
        _ if is("FailureTarget") => "FailureTarget",
        _ if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        _ => "Running",
    };
    row.name();
    row.push(state);
    row.push(completions);
    row.push(duration.unwrap_or_default());
    row.age();
    row.extend(containers(&spec["template"]));
    row.push(format_object(&spec["selector"]));
}

fn cron_job(row: &mut Row<'_>) {
    let (spec, status) = (&row.object["spec"], &row.object["status"]);
    row.name();
    row.push(text(&spec["schedule"]));
    row.push(text_or(&spec["timeZone"], NONE));
    row.push(match spec["suspend"].as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    });
    row.push(count(&status["active"]));
    let last = &status["lastScheduleTime"];
    row.push(if last.is_null() { NONE.to_string() } else { row.since(last) });
    row.age();
    let job = &spec["jobTemplate"]["spec"];
    row.extend(containers(&job["template"]));
    row.push(format_object(&job["selector"]));
}

fn controller_revision(row: &mut Row<'_>) {
    let owner = crate::object::controller_of(row.object).map(|owner| {
        let (group, _) = crate::registry::split_api_version(text(&owner["apiVersion"]));
        let kind = text(&owner["kind"]).to_lowercase();
        let dot = if group.is_empty() { "" } else { "." };
        format!("{kind}{dot}{group}/{}", text(&owner["name"]))
    });
    row.name();
    row.push(owner.unwrap_or_else(|| NONE.into()));
    row.push(number(&row.object["revision"]));
    row.age();
}

fn disruption_budget(row: &mut Row<'_>) {
    let amount = |value: &Value| match value {
        Value::Null => "N/A".to_string(),
        Value::String(percent) => percent.clone(),
        number => number.to_string(),
    };
    let (spec, status) = (&row.object["spec"], &row.object["status"]);
    row.name();
    row.push(amount(&spec["minAvailable"]));
    row.push(amount(&spec["maxUnavailable"]));
    row.push(number(&status["disruptionsAllowed"]));
    row.age();
}
