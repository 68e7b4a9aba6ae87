//! Rules of apps and batch.
//!
//! Owns: Deployments, ReplicaSets, StatefulSets, DaemonSets, ControllerRevisions, ReplicationControllers, Jobs, CronJobs.
//! Called by: `validation`.
//! Never: repeats the rules of the Pods they make.

use serde_json::Value;

use super::check::{At, Errors, amount};
use super::pod;
use crate::selector::LabelSelector;

const MISMATCH: &str = "`selector` does not match template `labels`";

pub fn create(kind: &str, object: &At<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    match kind {
        "Deployment" => deployment(&spec, errors),
        "ReplicaSet" => replica_set(&spec, errors),
        "StatefulSet" => stateful_set(&spec, errors),
        "DaemonSet" => daemon_set(&spec, errors),
        "ReplicationController" => replication_controller(&spec, errors),
        "Job" => {
            generated_selector(object, errors);
            job_selector(&spec, errors);
            job(&spec, errors);
        }
        "CronJob" => {
            cron_job(&spec, errors);
            let name = object.get("metadata");
            // A Job's name is the CronJob's and eleven characters more.
            if name.get("name").text().len() > 52 {
                errors.invalid(&name.get("name"), "must be no more than 52 characters");
            }
        }
        "ControllerRevision" => errors.non_negative(&object.get("revision")),
        _ => {}
    }
}

pub fn update(kind: &str, object: &At<'_>, old: &Value, errors: &mut Errors) {
    let (spec, before) = (object.get("spec"), &old["spec"]);
    match kind {
        "Job" => {
            job(&spec, errors);
            job_selector(&spec, errors);
            job_update(&spec, before, errors);
            return;
        }
        "CronJob" => return cron_job(&spec, errors),
        "ControllerRevision" => {
            errors.non_negative(&object.get("revision"));
            return errors.immutable(&object.get("data"), &old["data"]);
        }
        _ => create(kind, object, errors),
    }
    match kind {
        "Deployment" | "ReplicaSet" => errors.immutable(&spec.get("selector"), &before["selector"]),
        "DaemonSet" => errors.immutable(&spec.get("selector"), &before["selector"]),
        "StatefulSet" => {
            for field in ["selector", "volumeClaimTemplates", "serviceName", "podManagementPolicy"] {
                errors.immutable(&spec.get(field), &before[field]);
            }
        }
        _ => {}
    }
}

/// Required, sound and not empty; answers it parsed.
fn selector(spec: &At<'_>, kind: &str, errors: &mut Errors) -> Option<LabelSelector> {
    let at = spec.get("selector");
    if at.is_null() {
        errors.required(&at, "");
    } else {
        errors.label_selector(&at);
        if at.get("matchLabels").len() + at.get("matchExpressions").len() == 0 {
            errors.invalid(&at, format!("empty selector is invalid for {kind}"));
        }
    }
    match LabelSelector::from_object(at.value) {
        Ok(parsed) => Some(parsed),
        Err(_) => {
            errors.invalid(&at, if kind == "statefulset" { "" } else { "invalid label selector" });
            None
        }
    }
}

fn matches_template(template: &At<'_>, selector: &LabelSelector, errors: &mut Errors) {
    let metadata = template.get("metadata");
    let labels = metadata.get("labels");
    if !selector.is_everything() && !selector.matches(labels.value) {
        errors.invalid(&labels, MISMATCH);
    }
}

fn always_restarts(template: &At<'_>, kind: &str, errors: &mut Errors) {
    let spec = template.get("spec");
    if spec.get("restartPolicy").text() != "Always" {
        errors.not_supported(&spec.get("restartPolicy"), &["Always"]);
    }
    if !spec.get("activeDeadlineSeconds").is_null() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&spec.get("activeDeadlineSeconds"), detail);
    }
}

/// What a ReplicaSet's template must be, and so a Deployment's.
fn replica_template(spec: &At<'_>, selector: Option<LabelSelector>, errors: &mut Errors) {
    let Some(selector) = selector else { return };
    let template = spec.get("template");
    matches_template(&template, &selector, errors);
    pod::template(&template, errors);
    always_restarts(&template, "ReplicaSet", errors);
}

/// A strategy as upstream's internal type prints it.
fn strategy_shown(strategy: &At<'_>) -> String {
    format!("{{\"Type\":{:?},\"RollingUpdate\":{}}}", strategy.get("type").text(), strategy.get("rollingUpdate").value)
}

fn replica_set(spec: &At<'_>, errors: &mut Errors) {
    errors.non_negative(&spec.get("replicas"));
    errors.non_negative(&spec.get("minReadySeconds"));
    // Upstream says "deployment" here too.
    let selector = selector(spec, "deployment", errors);
    replica_template(spec, selector, errors);
}

fn deployment(spec: &At<'_>, errors: &mut Errors) {
    errors.non_negative(&spec.get("replicas"));
    let selector = selector(spec, "deployment", errors);
    replica_template(spec, selector, errors);
    let strategy = spec.get("strategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "Recreate" if !rolling.is_null() => {
            errors.forbidden(&rolling, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" if rolling.is_null() => {
            errors.required(&rolling, "this should be defaulted and never be nil");
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            errors.int_or_percent(&unavailable);
            errors.int_or_percent(&surge);
            if amount(&unavailable) == 0 && amount(&surge) == 0 {
                errors.invalid(&unavailable, "may not be 0 when `maxSurge` is 0");
            }
            errors.at_most_all(&unavailable);
        }
        _ => {
            let mut error =
                crate::FieldError::not_supported(strategy.path(), strategy.value, &["Recreate", "RollingUpdate"]);
            error.value = Some(strategy_shown(&strategy));
            errors.0.push(error);
        }
    }
    errors.non_negative(&spec.get("minReadySeconds"));
    errors.non_negative(&spec.get("revisionHistoryLimit"));
    let deadline = spec.get("progressDeadlineSeconds");
    errors.non_negative(&deadline);
    let ready = spec.get("minReadySeconds").number().unwrap_or(0);
    if deadline.number().is_some_and(|d| d <= ready) {
        errors.invalid(&deadline, "must be greater than minReadySeconds");
    }
}

fn daemon_set(spec: &At<'_>, errors: &mut Errors) {
    let at = spec.get("selector");
    let template = spec.get("template");
    errors.label_selector(&at);
    if let Ok(selector) = LabelSelector::from_object(at.value)
        && !selector.matches(template.value.pointer("/metadata/labels").unwrap_or(&Value::Null))
    {
        let metadata = template.get("metadata");
        errors.invalid(&metadata.get("labels"), MISMATCH);
    }
    if !at.is_null() && at.get("matchLabels").len() + at.get("matchExpressions").len() == 0 {
        errors.invalid(&at, "empty selector is invalid for daemonset");
    }
    pod::template(&template, errors);
    always_restarts(&template, "DaemonSet", errors);
    errors.non_negative(&spec.get("minReadySeconds"));
    let strategy = spec.get("updateStrategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "OnDelete" => {}
        "RollingUpdate" if rolling.is_null() => errors.required(&rolling, ""),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            for at in [&unavailable, &surge] {
                errors.int_or_percent(at);
                errors.at_most_all(at);
            }
            match (amount(&unavailable) != 0, amount(&surge) != 0) {
                (true, true) => errors.invalid(&surge, "may not be set when maxUnavailable is non-zero"),
                (false, false) => errors.required(&unavailable, "cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        _ => {
            let mut error =
                crate::FieldError::not_supported(strategy.path(), strategy.value, &["RollingUpdate", "OnDelete"]);
            error.value = Some(strategy_shown(&strategy));
            errors.0.push(error);
        }
    }
    errors.non_negative(&spec.get("revisionHistoryLimit"));
}

fn stateful_set(spec: &At<'_>, errors: &mut Errors) {
    let policy = spec.get("podManagementPolicy");
    match policy.text() {
        "OrderedReady" | "Parallel" => {}
        "" => errors.required(&policy, ""),
        _ => errors.invalid(&policy, "must be 'OrderedReady' or 'Parallel'"),
    }
    let strategy = spec.get("updateStrategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "" => errors.required(&strategy, ""),
        "OnDelete" if !rolling.is_null() => errors.invalid(&rolling, "only allowed for updateStrategy 'RollingUpdate'"),
        "OnDelete" => {}
        "RollingUpdate" => errors.non_negative(&rolling.get("partition")),
        _ => errors.invalid_shown(&strategy, strategy_shown(&strategy), "must be 'RollingUpdate' or 'OnDelete'"),
    }
    let retention = spec.get("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        errors.one_of_if_set(&retention.get(field), &["Delete", "Retain"]);
    }
    errors.non_negative(&spec.get("replicas"));
    errors.non_negative(&spec.get("minReadySeconds"));
    let service = spec.get("serviceName");
    if !service.text().is_empty() {
        errors.label(&service);
    }
    let Some(selector) = selector(spec, "statefulset", errors) else { return };
    let template = spec.get("template");
    matches_template(&template, &selector, errors);
    // Claims become volumes of the Pods, so mounts may name them.
    let with_claims = with_claim_volumes(spec.value);
    let shown = template.showing(&with_claims);
    pod::template(&shown, errors);
    always_restarts(&template, "StatefulSet", errors);
}

fn with_claim_volumes(spec: &Value) -> Value {
    let mut template = spec["template"].clone();
    let claims = spec["volumeClaimTemplates"].as_array().map_or(&[][..], Vec::as_slice);
    if claims.is_empty() {
        return template;
    }
    let name = |c: &Value| c["metadata"]["name"].clone();
    let mut volumes: Vec<Value> = claims
        .iter()
        .map(|c| serde_json::json!({"name": name(c), "persistentVolumeClaim": {"claimName": name(c)}}))
        .collect();
    let own = template["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    volumes.extend(own.into_iter().filter(|v| !claims.iter().any(|c| name(c) == v["name"])));
    template["spec"]["volumes"] = volumes.into();
    template
}

fn replication_controller(spec: &At<'_>, errors: &mut Errors) {
    errors.non_negative(&spec.get("minReadySeconds"));
    let selector = spec.get("selector");
    if selector.len() == 0 {
        errors.required(&selector, "");
    }
    errors.labels(&selector);
    errors.non_negative(&spec.get("replicas"));
    let template = spec.get("template");
    if template.is_null() {
        return errors.required(&template, "");
    }
    let metadata = template.get("metadata");
    if !LabelSelector::from_map(selector.value).matches(metadata.get("labels").value) {
        errors.invalid(&metadata.get("labels"), MISMATCH);
    }
    pod::template(&template, errors);
    always_restarts(&template, "ReplicationController", errors);
}

/// A Job's own labels must be the ones it selects by.
fn generated_selector(job: &At<'_>, errors: &mut Errors) {
    let spec = job.get("spec");
    if spec.get("manualSelector").is_true() || spec.get("selector").is_null() {
        return;
    }
    let (name, uid) = (crate::object::name(job.value), crate::object::uid(job.value));
    let template = spec.get("template");
    let metadata = template.get("metadata");
    let labels = metadata.get("labels");
    let wanted = [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ];
    for (key, value) in wanted {
        let label = labels.key(key);
        if label.is_null() {
            errors.required(&label, &format!("must be '{value}'"));
        } else if label.text() != value {
            errors.invalid(&label.showing(labels.value), format!("must be '{value}'"));
        }
    }
    let expected: Value =
        wanted.iter().map(|(k, v)| (k.to_string(), Value::from(*v))).collect::<serde_json::Map<_, _>>().into();
    let at = spec.get("selector");
    if LabelSelector::from_object(at.value).is_ok_and(|s| !s.matches(&expected)) {
        errors.invalid(&at, "`selector` not auto-generated");
    }
}

fn job_selector(spec: &At<'_>, errors: &mut Errors) {
    let at = spec.get("selector");
    if at.is_null() {
        return errors.required(&at, "");
    }
    errors.label_selector(&at);
    let template = spec.get("template");
    let metadata = template.get("metadata");
    if LabelSelector::from_object(at.value).is_ok_and(|s| !s.matches(metadata.get("labels").value)) {
        errors.invalid(&metadata.get("labels"), MISMATCH);
    }
}

fn job(spec: &At<'_>, errors: &mut Errors) {
    let fields = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    errors.all_non_negative(spec, &fields);
    let mode = spec.get("completionMode");
    errors.one_of_if_set(&mode, &["NonIndexed", "Indexed"]);
    if mode.text() == "Indexed" {
        if spec.get("completions").is_null() {
            errors.required(&spec.get("completions"), "when completion mode is Indexed");
        }
    } else if mode.is_null() || mode.text() == "NonIndexed" {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"] {
            if !spec.get(field).is_null() {
                errors.invalid(&spec.get(field), "requires indexed completion mode");
            }
        }
    }
    errors.one_of_if_set(&spec.get("podReplacementPolicy"), &["Failed", "TerminatingOrFailed"]);
    let template = spec.get("template");
    pod::template(&template, errors);
    let pod_spec = template.get("spec");
    let restart = pod_spec.get("restartPolicy");
    match restart.text() {
        "Always" | "" => errors.required(&restart, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if !spec.get("podFailurePolicy").is_null() => {
            errors.invalid(&restart, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" | "Never" => {}
        _ => errors.not_supported(&restart, &["OnFailure", "Never"]),
    }
}

fn job_update(spec: &At<'_>, before: &Value, errors: &mut Errors) {
    let completions = spec.get("completions");
    if spec.get("completionMode").text() != "Indexed" {
        errors.immutable(&completions, &before["completions"]);
    } else if completions.value != &before["completions"] && completions.value != spec.get("parallelism").value {
        errors.invalid(&completions, "can only be modified in tandem with spec.parallelism");
    }
    errors.immutable(&spec.get("selector"), &before["selector"]);
    // A suspended Job that never ran may still be told where to run.
    if before["suspend"] == true {
        let mut kept = before["template"].clone();
        for field in ["affinity", "nodeSelector", "tolerations", "schedulingGates"] {
            kept["spec"][field] = spec.value["template"]["spec"][field].clone();
        }
        for list in ["containers", "initContainers"] {
            for (i, container) in kept["spec"][list].as_array_mut().into_iter().flatten().enumerate() {
                container["resources"] = spec.value["template"]["spec"][list][i]["resources"].clone();
            }
        }
        kept["metadata"] = spec.value["template"]["metadata"].clone();
        if without_nulls(&kept) != without_nulls(&spec.value["template"]) {
            errors.invalid(&spec.get("template"), "field is immutable");
        }
    } else {
        errors.immutable(&spec.get("template"), &before["template"]);
    }
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        errors.immutable(&spec.get(field), &before[field]);
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        scalar => scalar.clone(),
    }
}

fn cron_job(spec: &At<'_>, errors: &mut Errors) {
    let schedule = spec.get("schedule");
    if schedule.text().is_empty() {
        errors.required_by_declaration(&schedule);
    } else {
        // A zone in front is understood, and then refused by the next rule.
        let zoned = schedule.text().starts_with("TZ=") || schedule.text().starts_with("CRON_TZ=");
        let bare = if zoned { schedule.text().split_once(' ').map_or("", |(_, rest)| rest) } else { schedule.text() };
        if let Err(fault) = cron_schedule(bare) {
            errors.invalid(&schedule, fault);
        }
        if schedule.text().contains("TZ") {
            errors.invalid(&schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        }
    }
    errors.non_negative(&spec.get("startingDeadlineSeconds"));
    let zone = spec.get("timeZone");
    if !zone.is_null() && !is_time_zone(zone.text()) {
        let detail = match zone.text() {
            "" => "timeZone must be nil or non-empty string".to_string(),
            name => format!("unknown time zone {name}"),
        };
        errors.invalid(&zone, detail);
    }
    errors.one_of(&spec.get("concurrencyPolicy"), &["Allow", "Forbid", "Replace"]);
    let template = spec.get("jobTemplate");
    let inner = template.get("spec");
    job(&inner, errors);
    if !inner.get("selector").is_null() {
        errors.invalid(&inner.get("selector"), "`selector` will be auto-generated");
    }
    if inner.get("manualSelector").is_true() {
        let at = inner.get("manualSelector");
        errors.0.push(crate::FieldError::not_supported(at.path(), at.value, &["nil", "false"]));
    }
    errors.non_negative(&spec.get("successfulJobsHistoryLimit"));
    errors.non_negative(&spec.get("failedJobsHistoryLimit"));
}

/// Where no zone database is installed (a node's image has none) only the shape of the name can be judged.
fn is_time_zone(name: &str) -> bool {
    let part = |p: &str| (1..=14).contains(&p.len()) && !p.starts_with('-') && !p.starts_with('.');
    let installed = jiff::tz::TimeZone::get("Europe/Berlin").is_ok();
    name.split('/').all(part) && (!installed || jiff::tz::TimeZone::get(name).is_ok())
}

const MACROS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Whether a schedule can be read; the words are those of upstream's parser.
fn cron_schedule(schedule: &str) -> Result<(), String> {
    let schedule = schedule.trim();
    if schedule.starts_with('@') {
        let known = MACROS.contains(&schedule) || schedule.starts_with("@every ");
        return if known { Ok(()) } else { Err(format!("unrecognized descriptor: {schedule}")) };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != 5 {
        let list = fields.join(" ");
        return Err(format!("expected exactly 5 fields, found {}: [{list}]", fields.len()));
    }
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let bounds: [(u32, u32, &[&str], u32); 5] =
        [(0, 59, &[], 0), (0, 23, &[], 0), (1, 31, &[], 0), (1, 12, &MONTHS, 1), (0, 6, &DAYS, 0)];
    for (field, (low, high, words, first)) in fields.iter().zip(bounds) {
        for part in field.split(',') {
            cron_range(part, low, high, words, first)?;
        }
    }
    Ok(())
}

fn cron_range(part: &str, low: u32, high: u32, words: &[&str], first: u32) -> Result<(), String> {
    let number = |text: &str| {
        let word = words.iter().position(|w| w.eq_ignore_ascii_case(text)).map(|i| i as u32 + first);
        word.or_else(|| text.parse().ok())
            .ok_or_else(|| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
    };
    let (range, step) = part.split_once('/').map_or((part, None), |(r, s)| (r, Some(s)));
    if let Some(step) = step
        && number(step)? == 0
    {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    if matches!(range, "*" | "?") {
        return Ok(());
    }
    let (start, end) = match range.split_once('-') {
        Some((start, end)) => (number(start)?, number(end)?),
        None => (number(range)?, number(range)?),
    };
    if start < low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {part}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {part}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}"));
    }
    Ok(())
}
