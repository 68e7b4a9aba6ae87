//! Rules of HorizontalPodAutoscalers, in every version.
//!
//! Owns: that kind.
//! Called by: `validation`.
//! Never: reads a metric.

use serde_json::{Value, json};

use super::check::{At, Errors};
use crate::FieldError;
use crate::names;
use crate::quantity::Quantity;

const SOURCES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;

pub fn create(_kind: &str, object: &At<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    replicas(&spec, errors);
    target_of(&spec.get("scaleTargetRef"), errors);
    let metrics = spec.get("metrics");
    metrics.items().for_each(|m| metric(&m, errors));
    if spec.get("minReplicas").number() == Some(0)
        && !metrics.items().any(|m| matches!(m.get("type").text(), "Object" | "External"))
    {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(&metrics, why);
    }
    let percentage = spec.get("targetCPUUtilizationPercentage");
    if percentage.number().is_some_and(|n| n < 1) {
        // Upstream sees it as a metric of its own, behind one that it makes itself.
        let place = "spec.metrics[1].resource.target.averageUtilization";
        errors.push(FieldError::invalid(place, percentage.value, "must be greater than 0"));
    }
    for direction in ["scaleUp", "scaleDown"] {
        let behavior = spec.get("behavior");
        rules(&behavior.get(direction), errors);
    }
}

pub fn update(kind: &str, object: &At<'_>, _old: &Value, errors: &mut Errors) {
    create(kind, object, errors);
}

fn replicas(spec: &At<'_>, errors: &mut Errors) {
    let (low, high) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    let most = high.number().unwrap_or(0);
    if low.number().is_some_and(|n| n < 0) {
        errors.invalid(&low, "must be greater than or equal to 0");
    }
    if low.number().is_some_and(|n| n > most) {
        errors.invalid(&high, "must be greater than or equal to `minReplicas`");
    }
    match most {
        0 => errors.required_by_declaration(&high),
        n if n < 0 => errors.invalid(&high, "must be greater than or equal to 1"),
        _ => {}
    }
}

fn target_of(target: &At<'_>, errors: &mut Errors) {
    for field in ["kind", "name"] {
        errors.required_name(&target.get(field), names::path_segment);
    }
    let version = target.get("apiVersion");
    let shown = json!(version.text());
    match version.text().matches('/').count() {
        0 if target.get("kind").text() == "ReplicationController" => {}
        0 => errors.invalid(&version.showing(&shown), "apiVersion must specify API group"),
        1 => {}
        _ => errors.invalid(&version, format!("unexpected GroupVersion string: {}", version.text())),
    }
}

fn metric(metric: &At<'_>, errors: &mut Errors) {
    let kind = metric.get("type");
    if kind.text().is_empty() {
        errors.required(&kind, "must specify a metric source type");
    }
    if !SOURCES.contains(&kind.text()) {
        return errors.not_supported(&kind, &SOURCES);
    }
    for source in SOURCES {
        let mut field = source.to_string();
        field[..1].make_ascii_lowercase();
        let said = metric.get(&field);
        match (source == kind.text(), said.is_null()) {
            (true, true) => errors.required(&said, "must populate information for the given metric source"),
            (true, false) => measured(source, &said, errors),
            (false, false) => errors.forbidden(&said, "must populate the given metric source only"),
            (false, true) => {}
        }
    }
}

fn measured(kind: &str, source: &At<'_>, errors: &mut Errors) {
    let target = source.get("target");
    match kind {
        "Resource" | "ContainerResource" => {
            let (name, container) = (source.get("name"), source.get("container"));
            if name.text().is_empty() {
                errors.required(&name, "must specify a resource name");
            }
            if kind == "ContainerResource" && container.text().is_empty() {
                errors.required(&container, "must specify a container");
            }
        }
        _ => {
            if kind == "Object" {
                let described = source.get("describedObject");
                for field in ["kind", "name"] {
                    if described.get(field).text().is_empty() {
                        errors.required(&described.get(field), "");
                    }
                }
            }
            let metric = source.get("metric");
            let name = metric.get("name");
            if name.text().is_empty() {
                errors.required(&name, "must specify a metric name");
            } else {
                errors.faults(&name, names::path_segment(name.text()));
            }
        }
    }
    goal(&target, errors);
    let missing = |field: &str| target.get(field).is_null();
    match kind {
        "Pods" if missing("averageValue") => {
            errors.required(&target.get("averageValue"), "must specify a positive target averageValue");
        }
        "Object" if missing("value") && missing("averageValue") => {
            errors.required(&target.get("averageValue"), "must set either a target value or averageValue");
        }
        "External" if missing("value") && missing("averageValue") => {
            let why = "must set either a target value for metric or a per-pod target";
            errors.required(&target.get("averageValue"), why);
        }
        "External" if !missing("value") && !missing("averageValue") => {
            let why = "may not set both a target value for metric and a per-pod target";
            errors.forbidden(&target.get("value"), why);
        }
        "Resource" | "ContainerResource" => match (missing("averageUtilization"), missing("averageValue")) {
            (true, true) => {
                let why = "must set either a target raw value or a target utilization";
                errors.required(&target.get("averageUtilization"), why);
            }
            (false, false) => {
                let why = "may not set both a target raw value and a target utilization";
                errors.forbidden(&target.get("averageValue"), why);
            }
            _ => {}
        },
        _ => {}
    }
}

fn goal(target: &At<'_>, errors: &mut Errors) {
    let kind = target.get("type");
    if kind.text().is_empty() {
        errors.required(&kind, "must specify a metric target type");
    }
    if !matches!(kind.text(), "Utilization" | "Value" | "AverageValue") {
        errors.invalid(&kind.showing(&json!(kind.text())), "must be either Utilization, Value, or AverageValue");
    }
    for field in ["value", "averageValue"] {
        let amount = target.get(field);
        if !amount.is_null() && Quantity::from_json(amount.value).is_ok_and(|q| q.signum() <= 0) {
            errors.invalid(&amount, "must be positive");
        }
    }
    let utilization = target.get("averageUtilization");
    if utilization.number().is_some_and(|n| n < 1) {
        errors.invalid(&utilization, "must be greater than 0");
    }
}

fn rules(rules: &At<'_>, errors: &mut Errors) {
    if rules.is_null() {
        return;
    }
    let (window, selection, tolerance) =
        (rules.get("stabilizationWindowSeconds"), rules.get("selectPolicy"), rules.get("tolerance"));
    match window.number().unwrap_or(0) {
        ..0 => errors.invalid(&window, "must be greater than or equal to zero"),
        n if n > WINDOW_SECONDS_MAX => {
            errors.invalid(&window, format!("must be less than or equal to {WINDOW_SECONDS_MAX}"));
        }
        _ => {}
    }
    errors.one_of_if_set(&selection, &["Disabled", "Max", "Min"]);
    if !tolerance.is_null() && Quantity::from_json(tolerance.value).is_ok_and(|q| q.signum() < 0) {
        errors.invalid(&tolerance, "must be greater than or equal to 0");
    }
    let policies = rules.get("policies");
    if policies.len() == 0 {
        errors.required(&policies, "must specify at least one Policy");
    }
    for policy in policies.items() {
        let kind = policy.get("type");
        if !matches!(kind.text(), "Percent" | "Pods") {
            errors.not_supported(&kind, &["Percent", "Pods"]);
        }
        for field in ["value", "periodSeconds"] {
            if policy.get(field).number().unwrap_or(0) <= 0 {
                errors.invalid(&policy.get(field), "must be greater than zero");
            }
        }
        if policy.get("periodSeconds").number().is_some_and(|n| n > PERIOD_SECONDS_MAX) {
            let why = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
            errors.invalid(&policy.get("periodSeconds"), why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(more: Value) -> Vec<String> {
        let mut spec =
            json!({"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}});
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let object = json!({"spec": spec});
        let mut errors = Errors::default();
        create("", &At::root(&object), &mut errors);
        errors.into_texts()
    }

    #[test]
    fn only_what_has_a_group_or_is_a_replication_controller_is_scaled() {
        let of = |kind: &str, version: &str| {
            faults(json!({"scaleTargetRef": {"kind": kind, "name": "d", "apiVersion": version}}))
        };
        assert!(of("ReplicationController", "").is_empty() && of("Deployment", "apps/v1").is_empty());
        let why = "spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group";
        assert_eq!(of("Deployment", "v1"), [why]);
    }

    #[test]
    fn a_metric_has_one_source_with_a_goal_that_fits_it() {
        let metric = |metric: Value| faults(json!({"metrics": [metric]}));
        let resource =
            |target: Value| metric(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        assert!(resource(json!({"type": "Utilization", "averageUtilization": 80})).is_empty());
        let at = "spec.metrics[0].resource.target";
        assert_eq!(
            resource(json!({"type": "Value", "value": "1"})),
            [format!(
                "{at}.averageUtilization: Required value: must set either a target raw value or a target utilization"
            )]
        );
        assert_eq!(
            metric(json!({})),
            [
                "spec.metrics[0].type: Required value: must specify a metric source type",
                "spec.metrics[0].type: Unsupported value: \"\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
            ]
        );
        let both = json!({"metric": {"name": "a"}, "target": {"type": "Value", "value": "1", "averageValue": "1"}});
        assert_eq!(
            metric(json!({"type": "External", "external": both})),
            [
                "spec.metrics[0].external.target.value: Forbidden: may not set both a target value for metric and a per-pod target"
            ]
        );
        assert_eq!(
            faults(json!({"targetCPUUtilizationPercentage": -1})),
            ["spec.metrics[1].resource.target.averageUtilization: Invalid value: -1: must be greater than 0"]
        );
    }

    #[test]
    fn scaling_has_policies_within_bounds() {
        let down = |rules: Value| faults(json!({"behavior": {"scaleDown": rules}}));
        assert_eq!(
            down(json!({"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]})),
            [
                "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"
            ]
        );
        assert_eq!(
            down(json!({"stabilizationWindowSeconds": -1, "policies": []})),
            [
                "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero",
                "spec.behavior.scaleDown.policies: Required value: must specify at least one Policy",
            ]
        );
        assert_eq!(
            faults(json!({"minReplicas": 0})),
            [
                "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas"
            ]
        );
    }
}
