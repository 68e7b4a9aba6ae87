//! Warnings about what makes Pods from a template.
//!
//! Owns: when a template is worth a word, and what is odd around it.
//! Called by: `warnings`.
//! Never: warns of a template again that stayed as it was.

use serde_json::Value;

use super::{Warnings, pod, storage};
use crate::convert::TEMPLATE_GENERATION;
use crate::object;
use crate::validation::check::At;

/// Beyond these, a Job may fail to remember which of its indexes have failed.
const COMPLETIONS_MAX: i64 = 100_000;
const PARALLELISM_MAX: i64 = 10_000;

pub(super) fn workload(kind: &str, old: Option<&Value>, at: &At<'_>, warnings: &mut Warnings) {
    let spec = at.get("spec");
    if old.is_none() && matches!(kind, "CronJob" | "Deployment" | "Job" | "ReplicaSet" | "ReplicationController") {
        warnings.unless_label(at, "Pod names and hostnames");
    }
    if is_changed(kind, at.value, old) {
        match (kind, old) {
            ("PodTemplate", _) => pod::template(&at.get("template"), warnings),
            ("CronJob", _) => job_spec(&spec.get("jobTemplate").get("spec"), warnings),
            ("Job", _) => job_spec(&spec, warnings),
            // Upstream mistakes the old template for the new one.
            ("ReplicationController", Some(old)) => {
                pod::template(&spec.get("template").showing(&old["spec"]["template"]), warnings);
            }
            ("DaemonSet" | "Deployment" | "ReplicaSet" | "ReplicationController" | "StatefulSet", _) => {
                pod::template(&spec.get("template"), warnings);
            }
            _ => {}
        }
    }
    match kind {
        "StatefulSet" => stateful(&spec, old, warnings),
        "CronJob" => time_zone(&spec, old, warnings),
        _ => {}
    }
}

/// Whether the desired state differs; of a DaemonSet, whether its template does.
fn is_changed(kind: &str, new: &Value, old: Option<&Value>) -> bool {
    let Some(old) = old else { return true };
    let template = |set| object::annotation(set, TEMPLATE_GENERATION);
    match kind {
        "DaemonSet" => template(new) != template(old),
        _ => object::generation(new) != object::generation(old),
    }
}

fn job_spec(spec: &At<'_>, warnings: &mut Warnings) {
    let many = |field: &str, max: i64| spec.value[field].as_i64().is_some_and(|count| count > max);
    let indexed = spec.value["completionMode"] == "Indexed";
    if indexed && many("completions", COMPLETIONS_MAX) && many("parallelism", PARALLELISM_MAX) {
        let text = "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
                    Kubernetes might not be able to track completedIndexes when a big number of indexes fail";
        warnings.at(spec, text);
    }
    pod::template(&spec.get("template"), warnings);
}

fn stateful(spec: &At<'_>, old: Option<&Value>, warnings: &mut Warnings) {
    for claim in spec.get("volumeClaimTemplates").items() {
        let spec = &claim.value["spec"];
        match old {
            None => storage::claim_spec(&claim.showing(spec), warnings),
            // The paths are upstream's.
            Some(_) => storage::claim_spec(&claim.get("Spec").showing(spec), warnings),
        }
    }
    if spec.get("revisionHistoryLimit").number().is_some_and(|limit| limit < 0) {
        warnings.say(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended",
        );
    }
}

/// Only a schedule that was there before the rule may have one; the path is upstream's.
fn time_zone(spec: &At<'_>, old: Option<&Value>, warnings: &mut Warnings) {
    if old.is_some() && spec.get("schedule").text().contains("TZ") {
        warnings.say(
            "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
             https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
        );
    }
}
