//! Rules of apps.
//!
//! Owns: Deployments, ReplicaSets, StatefulSets, DaemonSets, ControllerRevisions, ReplicationControllers.
//! Called by: `validation`.
//! Never: repeats the rules of the Pods they make.

use serde_json::Value;

use super::check::{At, Errors, amount};
use super::pod;
use crate::go_json;
use crate::schema::Type;
use crate::selector::LabelSelector;

pub(super) const MISMATCH: &str = "`selector` does not match template `labels`";

pub fn create(kind: &str, object: &At<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    match kind {
        "Deployment" => deployment(&spec, errors),
        "ReplicaSet" => replica_set(&spec, errors),
        "StatefulSet" => stateful_set(&spec, errors),
        "DaemonSet" => daemon_set(&spec, errors),
        "ReplicationController" => replication_controller(&spec, errors),
        "ControllerRevision" => {
            errors.non_negative(&object.get("revision"));
            match &object.value["data"] {
                Value::Null => errors.required(&object.get("data"), "data is mandatory"),
                Value::Object(_) => {}
                _ => errors.required(&object.get("data"), "data must be a valid JSON object"),
            }
        }
        _ => {}
    }
}

pub fn update(kind: &str, object: &At<'_>, old: &Value, errors: &mut Errors) {
    let (spec, before) = (object.get("spec"), &old["spec"]);
    match kind {
        "ControllerRevision" => {
            errors.non_negative(&object.get("revision"));
            return errors.immutable(&object.get("data"), &old["data"]);
        }
        "DaemonSet" => {
            immutable_selector(&spec, before, errors);
            return create(kind, object, errors);
        }
        _ => create(kind, object, errors),
    }
    match kind {
        "Deployment" | "ReplicaSet" => immutable_selector(&spec, before, errors),
        "StatefulSet" => {
            for field in ["selector", "volumeClaimTemplates", "serviceName", "podManagementPolicy"] {
                errors.immutable(&spec.get(field), &before[field]);
            }
        }
        _ => {}
    }
}

fn immutable_selector(spec: &At<'_>, before: &Value, errors: &mut Errors) {
    let at = spec.get("selector");
    if at.value != &before["selector"] {
        errors.invalid_shown(&at, go_json::selector(at.value), "field is immutable");
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
            let why = if kind == "statefulset" { "" } else { "invalid label selector" };
            errors.invalid_shown(&at, go_json::selector(at.value), why);
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
fn strategy_shown(of: &str, strategy: &At<'_>) -> String {
    let of = Type::api("apps.v1", of);
    go_json::internal(of, strategy.value)
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
            error.value = Some(strategy_shown("DeploymentStrategy", &strategy));
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
            error.value = Some(strategy_shown("DaemonSetUpdateStrategy", &strategy));
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
        _ => errors.invalid_shown(
            &strategy,
            strategy_shown("StatefulSetUpdateStrategy", &strategy),
            "must be 'RollingUpdate' or 'OnDelete'",
        ),
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
