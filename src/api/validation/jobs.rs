//! Rules of batch.
//!
//! Owns: Jobs and CronJobs.
//! Called by: `validation`.
//! Never: repeats the rules of the Pods they make.

use std::collections::HashSet;

use serde_json::Value;

use super::check::{At, Errors};
use super::pod;
use super::workloads::MISMATCH;
use crate::go_json;
use crate::names;
use crate::schema::Type;
use crate::selector::LabelSelector;
use crate::status::FieldError;

const INDEXED: &str = "Indexed";
const NON_INDEXED: &str = "NonIndexed";
const PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
/// Jobs of more completions that count failures by index have stricter limits.
const COMPLETIONS_SOFT_MAX: i64 = 100_000;
const PARALLELISM_OF_MANY_MAX: i64 = 10_000;
const FAILED_INDEXES_OF_MANY_MAX: i64 = 10_000;
const FAILURE_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const POD_CONDITIONS_MAX: usize = 20;
const SUCCESS_RULES_MAX: usize = 20;
const SUCCEEDED_INDEXES_BYTES_MAX: usize = 64 << 10;
const MANAGED_BY_BYTES_MAX: usize = 63;
/// A Job's name is its CronJob's and eleven characters more.
const CRON_JOB_NAME_LENGTH_MAX: usize = 52;

pub fn create(kind: &str, object: &At<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    match kind {
        "Job" => {
            generated_selector(object, errors);
            selected_job(&spec, errors);
            name_allows_completions(object, errors);
        }
        "CronJob" => {
            cron_job(&spec, &Value::Null, errors);
            let metadata = object.get("metadata");
            let name = metadata.get("name");
            if name.text().len() > CRON_JOB_NAME_LENGTH_MAX {
                errors.invalid(&name, format!("must be no more than {CRON_JOB_NAME_LENGTH_MAX} characters"));
            }
        }
        _ => {}
    }
}

pub fn update(kind: &str, object: &At<'_>, old: &Value, errors: &mut Errors) {
    let (spec, before) = (object.get("spec"), &old["spec"]);
    match kind {
        "Job" => {
            selected_job(&spec, errors);
            kept(&spec, old, errors);
            name_allows_completions(object, errors);
        }
        "CronJob" => cron_job(&spec, before, errors),
        _ => {}
    }
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
        errors.invalid_shown(&at, go_json::selector(at.value), "`selector` not auto-generated");
    }
}

/// A Pod of an indexed Job has its index in its host name.
fn name_allows_completions(job: &At<'_>, errors: &mut Errors) {
    let spec = job.get("spec");
    let completions = spec.get("completions").number().unwrap_or(0);
    if spec.get("completionMode").text() != INDEXED || completions <= 0 {
        return;
    }
    let metadata = job.get("metadata");
    let name = metadata.get("name");
    let host = format!("{}-{}", name.text(), completions - 1);
    if !names::dns1123_label(&host).is_empty() {
        errors.invalid(&name, format!("will not able to create pod with invalid DNS label: {host}"));
    }
}

/// A Job's spec, whose selector must match its template.
fn selected_job(spec: &At<'_>, errors: &mut Errors) {
    job(spec, errors);
    let at = spec.get("selector");
    if at.is_null() {
        errors.required(&at, "");
    } else {
        errors.label_selector(&at);
    }
    let template = spec.get("template");
    let metadata = template.get("metadata");
    if LabelSelector::from_object(at.value).is_ok_and(|s| !s.matches(metadata.get("labels").value)) {
        errors.invalid(&metadata.get("labels"), MISMATCH);
    }
}

fn job(spec: &At<'_>, errors: &mut Errors) {
    numbers(spec, errors);
    managed_by(&spec.get("managedBy"), errors);
    completion_mode(spec, errors);
    if !spec.get("podFailurePolicy").is_null() {
        failure_policy(spec, errors);
    }
    success_policy(spec, errors);
    let replacement = spec.get("podReplacementPolicy");
    let supported: &[&str] =
        if spec.get("podFailurePolicy").is_null() { &["Failed", "TerminatingOrFailed"] } else { &["Failed"] };
    errors.one_of_if_set(&replacement, supported);
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

fn numbers(spec: &At<'_>, errors: &mut Errors) {
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
    if !spec.get("maxFailedIndexes").is_null() && spec.get("backoffLimitPerIndex").is_null() {
        errors.required(&spec.get("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
}

/// `example.com/controller`
fn managed_by(at: &At<'_>, errors: &mut Errors) {
    if at.is_null() {
        return;
    }
    match at.text().split_once('/') {
        _ if at.text().is_empty() => errors.required(at, ""),
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            errors.faults(&at.showing(&host.into()), names::dns1123_subdomain(host));
            if !path.bytes().all(is_path_byte) {
                let fault = names::regex_fault("Invalid path", r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", &[]);
                errors.invalid(&at.showing(&path.into()), fault);
            }
        }
        _ => errors.invalid(at, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    if at.text().len() > MANAGED_BY_BYTES_MAX {
        errors.too_long(at, MANAGED_BY_BYTES_MAX);
    }
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte)
}

fn completion_mode(spec: &At<'_>, errors: &mut Errors) {
    let mode = spec.get("completionMode");
    errors.one_of_if_set(&mode, &[NON_INDEXED, INDEXED]);
    if mode.text() == INDEXED {
        indexed(spec, errors);
    }
    if mode.is_null() || mode.text() == NON_INDEXED {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if !spec.get(field).is_null() {
                errors.invalid(&spec.get(field), "requires indexed completion mode");
            }
        }
    }
}

fn indexed(spec: &At<'_>, errors: &mut Errors) {
    let (completions, parallelism, failed) =
        (spec.get("completions"), spec.get("parallelism"), spec.get("maxFailedIndexes"));
    let above = |at: &At<'_>, max: i64| at.number().is_some_and(|n| n > max);
    if completions.is_null() {
        errors.required(&completions, &format!("when completion mode is {INDEXED}"));
    }
    if above(&parallelism, PARALLELISM_MAX) {
        let why = format!("must be less than or equal to {PARALLELISM_MAX} when completion mode is {INDEXED}");
        errors.invalid(&parallelism, why);
    }
    if completions.number().is_some_and(|completions| above(&failed, completions)) {
        errors.invalid(&failed, "must be less than or equal to completions");
    }
    if above(&failed, FAILED_INDEXES_MAX) {
        errors.invalid(&failed, format!("must be less than or equal to {FAILED_INDEXES_MAX}"));
    }
    if !above(&completions, COMPLETIONS_SOFT_MAX) || spec.get("backoffLimitPerIndex").is_null() {
        return;
    }
    if failed.is_null() {
        errors.required(&failed, &format!("must be specified when completions is above {COMPLETIONS_SOFT_MAX}"));
    }
    for (at, max) in [(&parallelism, PARALLELISM_OF_MANY_MAX), (&failed, FAILED_INDEXES_OF_MANY_MAX)] {
        if above(at, max) {
            let when =
                format!("when completions are above {COMPLETIONS_SOFT_MAX} and used with backoff limit per index");
            errors.invalid(at, format!("must be less than or equal to {max} {when}"));
        }
    }
}

/// As Go prints a list of strings.
fn valid_values(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
    format!("valid values: [{}]", quoted.join(" "))
}

/// Required, and one of these; upstream names them only when nothing was said.
fn named_one_of(at: &At<'_>, supported: &[&str], errors: &mut Errors) {
    if at.text().is_empty() {
        errors.required(at, &valid_values(supported));
    } else {
        errors.one_of_if_set(at, supported);
    }
}

/// A fault of a place as a whole, whose value is not shown.
fn invalid_unshown(at: &At<'_>, detail: &str, errors: &mut Errors) {
    errors.push(FieldError { value: None, ..FieldError::invalid(at.path(), &Value::Null, detail) });
}

fn failure_policy(spec: &At<'_>, errors: &mut Errors) {
    let policy = spec.get("podFailurePolicy");
    let rules = policy.get("rules");
    if rules.len() > FAILURE_RULES_MAX {
        errors.too_many(&rules, FAILURE_RULES_MAX);
    }
    for rule in rules.items() {
        let action = rule.get("action");
        if action.text() == "FailIndex" && spec.get("backoffLimitPerIndex").is_null() {
            errors.invalid(&action, "requires the backoffLimitPerIndex to be set");
        }
        named_one_of(&action, &["Count", "FailIndex", "FailJob", "Ignore"], errors);
        let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
        if !codes.is_null() {
            exit_codes(&codes, spec, errors);
        }
        pod_conditions(&conditions, errors);
        match (codes.is_null(), conditions.len() == 0) {
            (false, false) => {
                invalid_unshown(&rule, "specifying both OnExitCodes and OnPodConditions is not supported", errors);
            }
            (true, true) => {
                invalid_unshown(&rule, "specifying one of OnExitCodes and OnPodConditions is required", errors);
            }
            _ => {}
        }
    }
}

fn exit_codes(codes: &At<'_>, spec: &At<'_>, errors: &mut Errors) {
    let operator = codes.get("operator");
    named_one_of(&operator, &["In", "NotIn"], errors);
    let name = codes.get("containerName");
    if !name.is_null() && !has_container(spec.value, name.value) {
        errors.invalid(&name, "must be one of the container or initContainer names in the pod template");
    }
    let values = codes.get("values");
    if values.len() == 0 {
        errors.invalid(&values, "at least one value is required");
    } else if values.len() > EXIT_CODES_MAX {
        errors.too_many(&values, EXIT_CODES_MAX);
    }
    let (mut seen, mut last, mut is_ordered) = (HashSet::new(), None, true);
    for value in values.items() {
        let code = value.number();
        if operator.text() == "In" && code == Some(0) {
            errors.invalid(&value, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            errors.duplicate(&value);
        }
        is_ordered &= last <= code;
        last = code;
    }
    if !is_ordered {
        errors.invalid(&values, "must be ordered");
    }
}

fn has_container(spec: &Value, name: &Value) -> bool {
    let list = |field: &str| spec["template"]["spec"][field].as_array().into_iter().flatten();
    list("containers").chain(list("initContainers")).any(|c| c["name"] == *name)
}

fn pod_conditions(conditions: &At<'_>, errors: &mut Errors) {
    if conditions.len() > POD_CONDITIONS_MAX {
        errors.too_many(conditions, POD_CONDITIONS_MAX);
    }
    for pattern in conditions.items() {
        errors.qualified_name(&pattern.get("type"));
        named_one_of(&pattern.get("status"), &["False", "True", "Unknown"], errors);
    }
}

fn batch(of: &str) -> Type {
    Type::api("batch.v1", of)
}

fn success_policy(spec: &At<'_>, errors: &mut Errors) {
    let policy = spec.get("successPolicy");
    if policy.is_null() {
        return;
    }
    if spec.get("completionMode").text() != INDEXED {
        let shown = go_json::internal(batch("SuccessPolicy"), policy.value);
        return errors.invalid_shown(&policy, shown, "requires indexed completion mode");
    }
    let rules = policy.get("rules");
    if rules.len() == 0 {
        errors.required(&rules, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > SUCCESS_RULES_MAX {
        errors.too_many(&rules, SUCCESS_RULES_MAX);
    }
    let completions = spec.get("completions").number().unwrap_or(0);
    rules.items().for_each(|rule| success_rule(&rule, completions, errors));
}

fn success_rule(rule: &At<'_>, completions: i64, errors: &mut Errors) {
    let (count, listed) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
    if count.is_null() && listed.is_null() {
        errors.required(rule, "at least one of succeededCount or succeededIndexes must be specified");
    }
    if listed.text().len() > SUCCEEDED_INDEXES_BYTES_MAX {
        errors.too_long(&listed, SUCCEEDED_INDEXES_BYTES_MAX);
    }
    let total = indexes(listed.text(), completions);
    if let Err(fault) = &total {
        errors.invalid(&listed, format!("error parsing succeededIndexes: {fault}"));
    }
    let Some(wanted) = count.number() else { return };
    errors.non_negative(&count);
    let of_all = (completions, "the number of specified completions");
    let of_listed = (total.unwrap_or(0), "the number of indexes in the specified succeededIndexes field");
    for (max, what) in std::iter::once(of_all).chain((!listed.is_null()).then_some(of_listed)) {
        if wanted > max {
            errors.invalid(&count, format!("must be less than or equal to {max} ({what})"));
        }
    }
}

/// How many indexes `0,2-4` has.
pub(super) fn indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut last, mut total) = (None, 0);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// First and last index of `3` or `2-4`.
pub(super) fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let index = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {text:?}")),
        Ok(index) if index >= completions => Err(format!("too large index: {text:?}")),
        Ok(index) => Ok(index),
    };
    let limits: Vec<&str> = text.split('-').collect();
    match limits[..] {
        [only] => index(only).map(|index| (index, index)),
        [first, last] => {
            let (first, last) = (index(first)?, index(last)?);
            if first >= last {
                return Err(format!("non-increasing order, previous: {first}, current: {last}"));
            }
            Ok((first, last))
        }
        _ => {
            let requirement = "an index interval can have at most two parts separated by '-'";
            Err(format!("the fragment {text:?} violates the requirement that {requirement}"))
        }
    }
}

/// What an update leaves as it was.
fn kept(spec: &At<'_>, old: &Value, errors: &mut Errors) {
    let before = &old["spec"];
    let completions = spec.get("completions");
    if spec.get("completionMode").text() != INDEXED {
        errors.immutable(&completions, &before["completions"]);
    } else if completions.value != &before["completions"]
        && !completions.is_null()
        && completions.value != spec.get("parallelism").value
    {
        errors.invalid(&completions, "can only be modified in tandem with spec.parallelism");
    }
    let selector = spec.get("selector");
    if selector.value != &before["selector"] {
        errors.invalid_shown(&selector, go_json::selector(selector.value), "field is immutable");
    }
    kept_template(spec, old, errors);
    errors.immutable(&spec.get("completionMode"), &before["completionMode"]);
    immutable_internal(&spec.get("podFailurePolicy"), &before["podFailurePolicy"], "PodFailurePolicy", errors);
    errors.immutable(&spec.get("backoffLimitPerIndex"), &before["backoffLimitPerIndex"]);
    errors.immutable(&spec.get("managedBy"), &before["managedBy"]);
    immutable_internal(&spec.get("successPolicy"), &before["successPolicy"], "SuccessPolicy", errors);
}

fn immutable_internal(at: &At<'_>, before: &Value, of: &str, errors: &mut Errors) {
    if at.value != before {
        errors.invalid_shown(at, go_json::internal(batch(of), at.value), "field is immutable");
    }
}

/// While a Job is suspended and has no Pods, its template may be told where to run and with how much.
fn kept_template(spec: &At<'_>, old: &Value, errors: &mut Errors) {
    let (template, before) = (spec.get("template"), &old["spec"]["template"]);
    if old["spec"]["suspend"] != true {
        return errors.immutable(&template, before);
    }
    let conditions = old["status"]["conditions"].as_array().into_iter().flatten();
    let stopped = conditions.into_iter().any(|c| c["type"] == "Suspended" && c["status"] == "True");
    let idle = (old["status"]["startTime"].is_null() || stopped) && old["status"]["active"].as_i64().unwrap_or(0) == 0;
    if !idle {
        return errors.immutable(&template, before);
    }
    let pod_spec = template.get("spec");
    let allowed = rescheduled(&before["spec"], pod_spec.value);
    if without_nulls(&allowed) != without_nulls(pod_spec.value) {
        errors.invalid(&pod_spec, "field is immutable");
    }
}

/// The old Pod with what may change of the new one.
fn rescheduled(old: &Value, new: &Value) -> Value {
    let mut pod = old.clone();
    for field in ["nodeSelector", "tolerations", "schedulingGates"] {
        pod[field] = new[field].clone();
    }
    let affinity = &new["affinity"];
    if affinity.is_null() {
        if let Some(own) = pod["affinity"].as_object_mut() {
            own.remove("nodeAffinity");
        }
        if pod["affinity"].as_object().is_some_and(serde_json::Map::is_empty) {
            pod["affinity"] = Value::Null;
        }
    } else {
        pod["affinity"]["nodeAffinity"] = affinity["nodeAffinity"].clone();
    }
    for list in ["containers", "initContainers"] {
        for (i, container) in pod[list].as_array_mut().into_iter().flatten().enumerate() {
            if container["name"] == new[list][i]["name"] {
                container["resources"] = new[list][i]["resources"].clone();
            }
        }
    }
    pod
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

fn cron_job(spec: &At<'_>, before: &Value, errors: &mut Errors) {
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
        // Only who had a zone there before they were refused may keep it.
        let had_zone = before["schedule"].as_str().is_some_and(|s| s.contains("TZ"));
        match (schedule.text().contains("TZ"), had_zone) {
            (true, false) => {
                errors.invalid(&schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
            }
            (true, true) if !spec.get("timeZone").is_null() => {
                errors.invalid(&schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
            }
            _ => {}
        }
    }
    errors.non_negative(&spec.get("startingDeadlineSeconds"));
    let zone = spec.get("timeZone");
    if !zone.is_null() && zone.value != &before["timeZone"] && !is_time_zone(zone.text()) {
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
