//! Rows of HorizontalPodAutoscalers, in both versions, and of Scales.
//!
//! Owns: the TARGETS column.
//! Called by: `render`.
//! Never: computes a metric.

use serde_json::Value;

use super::{NONE, Row, UNKNOWN, UNSET, items, number, text};
use crate::convert;

/// More metrics than these are only counted.
const METRICS_SHOWN: usize = 2;

pub(super) fn print(kind: &str, row: &mut Row<'_>) -> bool {
    match kind {
        "HorizontalPodAutoscaler" => autoscaler(row),
        "Scale" => scale(row),
        _ => return false,
    }
    true
}

fn scale(row: &mut Row<'_>) {
    let (spec, status) = (&row.object["spec"], &row.object["status"]);
    row.name();
    row.push(number(&spec["replicas"]));
    row.push(number(&status["replicas"]));
    row.age();
}

fn autoscaler(row: &mut Row<'_>) {
    // Version 1 has its metrics in annotations.
    let whole = convert::convert(row.object.clone(), "autoscaling/v2");
    let (spec, status) = (&whole["spec"], &whole["status"]);
    let target = &spec["scaleTargetRef"];
    row.name();
    row.push(format!("{}/{}", text(&target["kind"]), text(&target["name"])));
    row.push(metrics(spec, status));
    row.push(spec["minReplicas"].as_i64().map_or_else(|| UNSET.to_string(), |n| n.to_string()));
    row.push(number(&spec["maxReplicas"]));
    row.push(number(&status["currentReplicas"]));
    row.age();
}

fn metrics(spec: &Value, status: &Value) -> String {
    let specs = items(&spec["metrics"]);
    let texts: Vec<String> =
        specs.iter().enumerate().map(|(i, metric)| one(metric, &status["currentMetrics"][i])).collect();
    match texts.len() {
        0 => NONE.into(),
        n if n > METRICS_SHOWN => format!("{} + {} more...", texts[..METRICS_SHOWN].join(", "), n - METRICS_SHOWN),
        _ => texts.join(", "),
    }
}

fn one(metric: &Value, status: &Value) -> String {
    let source = match text(&metric["type"]) {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".into(),
    };
    let (target, current) = (&metric[source]["target"], &status[source]["current"]);
    let known = |value: &Value| value.as_str().unwrap_or(UNKNOWN).to_string();
    let average = target["averageValue"].as_str();
    let pair = match (source, average) {
        ("external" | "object", None) => return format!("{}/{}", known(&current["value"]), text(&target["value"])),
        ("external" | "object", Some(average)) => {
            return format!("{}/{average} (avg)", known(&current["averageValue"]));
        }
        ("pods", average) => return format!("{}/{}", known(&current["averageValue"]), average.unwrap_or("0")),
        (_, Some(average)) => format!("{}/{average}", known(&current["averageValue"])),
        (_, None) => {
            let percent = |value: &Value, otherwise: &str| value.as_i64().map_or(otherwise.into(), |n| format!("{n}%"));
            let (current, target) = (&current["averageUtilization"], &target["averageUtilization"]);
            format!("{}/{}", percent(current, UNKNOWN), percent(target, "<auto>"))
        }
    };
    format!("{}: {pair}", text(&metric[source]["name"]))
}
