//! Defaults of apps and batch.
//!
//! Owns: Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, CronJobs.
//! Called by: the walk in `defaulting`, which completes the templates inside.
//! Never: counts anything.

use serde_json::{Map, Value};

use super::{Object, each, if_absent, if_empty, inside, is_empty, text};

pub(super) fn complete(name: &str, object: &mut Object) {
    match name {
        "Deployment" => deployment(inside(object, "spec")),
        "ReplicaSet" => if_absent(inside(object, "spec"), "replicas", 1),
        "StatefulSet" => stateful_set(inside(object, "spec")),
        "DaemonSet" => {
            // What was a field once is an annotation today; the strategy counts it.
            if_absent(
                inside(inside(object, "metadata"), "annotations"),
                "deprecated.daemonset.template.generation",
                "0",
            );
            daemon_set(inside(object, "spec"));
        }
        "Job" => job(object),
        "CronJob" => {
            let spec = inside(object, "spec");
            if_empty(spec, "concurrencyPolicy", "Allow");
            if_absent(spec, "suspend", false);
            if_absent(spec, "successfulJobsHistoryLimit", 3);
            if_absent(spec, "failedJobsHistoryLimit", 1);
        }
        "PodFailurePolicyOnPodConditionsPattern" => if_empty(object, "status", "True"),
        _ => {}
    }
}

fn deployment(spec: &mut Object) {
    if_absent(spec, "replicas", 1);
    let strategy = inside(spec, "strategy");
    if_empty(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = inside(strategy, "rollingUpdate");
        if_absent(rolling, "maxUnavailable", "25%");
        if_absent(rolling, "maxSurge", "25%");
    }
    if_absent(spec, "revisionHistoryLimit", 10);
    if_absent(spec, "progressDeadlineSeconds", 600);
}

fn daemon_set(spec: &mut Object) {
    let strategy = inside(spec, "updateStrategy");
    if_empty(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = inside(strategy, "rollingUpdate");
        if_absent(rolling, "maxUnavailable", 1);
        if_absent(rolling, "maxSurge", 0);
    }
    if_absent(spec, "revisionHistoryLimit", 10);
}

fn stateful_set(spec: &mut Object) {
    if_empty(spec, "podManagementPolicy", "OrderedReady");
    let strategy = inside(spec, "updateStrategy");
    if is_empty(strategy, "type") {
        strategy.insert("type".into(), "RollingUpdate".into());
        if_absent(strategy, "rollingUpdate", Map::new());
    }
    if text(strategy, "type") == "RollingUpdate" && strategy.get("rollingUpdate").is_some_and(Value::is_object) {
        let rolling = inside(strategy, "rollingUpdate");
        if_absent(rolling, "partition", 0);
        if_absent(rolling, "maxUnavailable", 1);
    }
    let retention = inside(spec, "persistentVolumeClaimRetentionPolicy");
    if_empty(retention, "whenDeleted", "Retain");
    if_empty(retention, "whenScaled", "Retain");
    if_absent(spec, "replicas", 1);
    if_absent(spec, "revisionHistoryLimit", 10);
    for claim in each(spec, "volumeClaimTemplates") {
        if_empty(claim, "apiVersion", "v1");
        if_empty(claim, "kind", "PersistentVolumeClaim");
    }
}

fn job(job: &mut Object) {
    let labels = job.get("spec").map(|s| s["template"]["metadata"]["labels"].clone()).unwrap_or_default();
    if labels.as_object().is_some_and(|l| !l.is_empty()) {
        if_empty(inside(job, "metadata"), "labels", labels);
    }
    let spec = inside(job, "spec");
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        spec.insert("completions".into(), 1.into());
    }
    if_absent(spec, "parallelism", 1);
    // With a limit per index the limit of the whole Job must not come first.
    let backoff = if spec.contains_key("backoffLimitPerIndex") { i32::MAX } else { 6 };
    if_absent(spec, "backoffLimit", backoff);
    if_absent(spec, "completionMode", "NonIndexed");
    if_absent(spec, "suspend", false);
    let replacement = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    if_absent(spec, "podReplacementPolicy", replacement);
    if_absent(spec, "manualSelector", false);
}
