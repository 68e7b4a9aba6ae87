//! HorizontalPodAutoscaler between autoscaling/v1 and v2.
//!
//! Owns: which v2 fields v1 has, and the annotations that carry the others, in the form Kubernetes gives them.
//! Called by: `convert`.
//! Never: validates.

use serde_json::{Map, Value, json};

use crate::go_json;
use crate::schema::Type;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
pub(super) const CARRIERS: [&str; 4] = [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR];
/// The percentage v1 means when it names no metric.
const DEFAULT_CPU_UTILIZATION: i64 = 80;

/// Where a value of a metric stands in v2 and in v1's annotation: (`target.averageValue`, `targetAverageValue`); in the
/// order of v1's fields, in which they are written.
type Place = (&'static str, &'static str);
const PODS: &[Place] =
    &[("metric.name", "metricName"), ("target.averageValue", "targetAverageValue"), ("metric.selector", "selector")];
const RESOURCE: &[Place] = &[
    ("name", "name"),
    ("target.averageUtilization", "targetAverageUtilization"),
    ("target.averageValue", "targetAverageValue"),
    ("container", "container"),
];
const OBJECT: &[Place] = &[
    ("describedObject", "target"),
    ("metric.name", "metricName"),
    ("target.value", "targetValue"),
    ("metric.selector", "selector"),
    ("target.averageValue", "averageValue"),
];
const EXTERNAL: &[Place] = &[
    ("metric.name", "metricName"),
    ("metric.selector", "metricSelector"),
    ("target.value", "targetValue"),
    ("target.averageValue", "targetAverageValue"),
];
const PODS_STATUS: &[Place] =
    &[("metric.name", "metricName"), ("current.averageValue", "currentAverageValue"), ("metric.selector", "selector")];
const RESOURCE_STATUS: &[Place] = &[
    ("name", "name"),
    ("current.averageUtilization", "currentAverageUtilization"),
    ("current.averageValue", "currentAverageValue"),
    ("container", "container"),
];
const OBJECT_STATUS: &[Place] = &[
    ("describedObject", "target"),
    ("metric.name", "metricName"),
    ("current.value", "currentValue"),
    ("metric.selector", "selector"),
    ("current.averageValue", "averageValue"),
];
const EXTERNAL_STATUS: &[Place] = &[
    ("metric.name", "metricName"),
    ("metric.selector", "metricSelector"),
    ("current.value", "currentValue"),
    ("current.averageValue", "currentAverageValue"),
];

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Spec,
    Status,
}

/// The sources of a metric: their field, and where their values are.
fn sources(part: Part) -> [(&'static str, &'static [Place]); 5] {
    let places = match part {
        Part::Spec => [OBJECT, PODS, RESOURCE, RESOURCE, EXTERNAL],
        Part::Status => [OBJECT_STATUS, PODS_STATUS, RESOURCE_STATUS, RESOURCE_STATUS, EXTERNAL_STATUS],
    };
    let names = ["object", "pods", "resource", "containerResource", "external"];
    std::array::from_fn(|i| (names[i], places[i]))
}

pub(super) fn to_v1(object: &mut Value) {
    drop_carried(object);
    let metrics = take_list(&mut object["spec"], "metrics");
    let current = take_list(&mut object["status"], "currentMetrics");
    let conditions = take_list(&mut object["status"], "conditions");
    if let Some(cpu) = metrics.iter().find_map(cpu_utilization) {
        object["spec"]["targetCPUUtilizationPercentage"] = cpu.clone();
    }
    let is_cpu = |m: &&Value| m["type"] == "Resource" && m["resource"]["name"] == "cpu";
    let mut current_cpu = current.iter().filter(is_cpu).map(|m| &m["resource"]["current"]["averageUtilization"]);
    if let Some(cpu) = current_cpu.rfind(|c| !c.is_null()) {
        object["status"]["currentCPUUtilizationPercentage"] = cpu.clone();
    }
    let others = metrics.iter().filter(|m| cpu_utilization(m).is_none()).map(|m| metric_to_v1(m, Part::Spec));
    carry_list(object, METRICS, others.collect());
    carry_list(object, CURRENT_METRICS, current.iter().map(|m| metric_to_v1(m, Part::Status)).collect());
    let condition = v2("HorizontalPodAutoscalerCondition");
    carry_list(object, CONDITIONS, conditions.iter().map(|c| go_json::versioned(condition, c)).collect());
    if let Some(behavior) = object["spec"].as_object_mut().and_then(|s| s.remove("behavior")) {
        carry(object, BEHAVIOR, go_json::internal(v2("HorizontalPodAutoscalerBehavior"), &behavior));
    }
}

fn v2(of: &str) -> Type {
    Type::api("autoscaling.v2", of)
}

pub(super) fn to_v2(object: &mut Value) {
    let mut metrics = Vec::new();
    for metric in carried_list(object, METRICS) {
        metrics.push(metric_to_v2(&metric, Part::Spec));
    }
    let utilization = object["spec"].as_object_mut().and_then(|s| s.remove("targetCPUUtilizationPercentage"));
    match utilization.filter(|u| !u.is_null()) {
        Some(percentage) => metrics.push(cpu_metric(percentage)),
        None if metrics.is_empty() => metrics.push(cpu_metric(DEFAULT_CPU_UTILIZATION.into())),
        None => {}
    }
    object["spec"]["metrics"] = Value::Array(metrics);
    if let Some(behavior) = carried(object, BEHAVIOR) {
        object["spec"]["behavior"] = json_names(behavior);
    }
    let cpu = object["status"].as_object_mut().and_then(|s| s.remove("currentCPUUtilizationPercentage"));
    // The annotation knows the raw value too, so it wins.
    let mut current: Vec<Value> =
        carried_list(object, CURRENT_METRICS).iter().map(|m| metric_to_v2(m, Part::Status)).collect();
    if let (Some(cpu), true) = (cpu, current.is_empty()) {
        let resource = json!({"name": "cpu", "current": {"averageUtilization": cpu}});
        current.push(json!({"type": "Resource", "resource": resource}));
    }
    let conditions = carried_list(object, CONDITIONS);
    for (field, list) in [("currentMetrics", current), ("conditions", conditions)] {
        if !list.is_empty() {
            object["status"][field] = Value::Array(list);
        }
    }
    drop_carried(object);
}

fn cpu_metric(percentage: Value) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": percentage});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

/// The percentage of a metric that v1 has a field for.
fn cpu_utilization(metric: &Value) -> Option<&Value> {
    let resource = &metric["resource"];
    let utilization = &resource["target"]["averageUtilization"];
    (metric["type"] == "Resource" && resource["name"] == "cpu" && !utilization.is_null()).then_some(utilization)
}

/// As JSON, in the order of v1's fields.
fn metric_to_v1(metric: &Value, part: Part) -> String {
    let mut out = format!("{{\"type\":{}", metric["type"]);
    for (name, places) in sources(part) {
        let Some(source) = metric.get(name).filter(|s| !s.is_null()) else { continue };
        let fields = places.iter().filter_map(|(place, field)| {
            let value = source.pointer(&format!("/{}", place.replace('.', "/"))).unwrap_or(&Value::Null);
            let text = match *field {
                _ if value.is_null() => zero_in_v1(name, field, part).then(|| "\"0\"".to_string())?,
                "selector" | "metricSelector" => go_json::selector(value),
                "target" => go_json::versioned(v2("CrossVersionObjectReference"), value),
                _ => value.to_string(),
            };
            Some(format!("{field:?}:{text}"))
        });
        out.push_str(&format!(",{name:?}:{{{}}}", fields.collect::<Vec<_>>().join(",")));
    }
    out.push('}');
    out
}

/// Quantities that v1 cannot leave out.
fn zero_in_v1(source: &str, field: &str, part: Part) -> bool {
    match part {
        Part::Spec => matches!((source, field), ("pods", "targetAverageValue") | ("object", "targetValue")),
        Part::Status => match source {
            "object" | "external" => field == "currentValue",
            _ => field == "currentAverageValue",
        },
    }
}

fn metric_to_v2(metric: &Value, part: Part) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (name, places) in sources(part) {
        let Some(flat) = metric.get(name).filter(|s| !s.is_null()) else { continue };
        let mut source = Value::Object(Map::new());
        for (place, field) in places {
            let value = &flat[*field];
            // An average was meant; v1 wrote the zero because it had to.
            let forced = *field == "targetValue" && name == "object" && !flat["averageValue"].is_null();
            if value.is_null() || forced && value == "0" {
                continue;
            }
            match place.split_once('.') {
                Some((outer, inner)) => source[outer][inner] = value.clone(),
                None => source[*place] = value.clone(),
            }
        }
        if part == Part::Spec {
            source["target"]["type"] = target_type(name, flat).into();
        }
        out[name] = source;
    }
    out
}

/// v1 does not say what kind of target it is: that follows from the value it gives.
fn target_type(source: &str, flat: &Value) -> &'static str {
    match source {
        "resource" | "containerResource" if !flat["targetAverageUtilization"].is_null() => "Utilization",
        "object" if flat["averageValue"].is_null() => "Value",
        "external" if !flat["targetValue"].is_null() => "Value",
        _ => "AverageValue",
    }
}

fn take_list(parent: &mut Value, field: &str) -> Vec<Value> {
    match parent.as_object_mut().and_then(|p| p.remove(field)) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// Writes JSON into an annotation.
fn carry(object: &mut Value, annotation: &str, text: String) {
    object["metadata"]["annotations"][annotation] = text.into();
}

/// As `carry`, of a list that has something to carry.
fn carry_list(object: &mut Value, annotation: &str, items: Vec<String>) {
    if !items.is_empty() {
        carry(object, annotation, format!("[{}]", items.join(",")));
    }
}

fn carried(object: &Value, annotation: &str) -> Option<Value> {
    let text = object["metadata"]["annotations"].get(annotation)?.as_str()?;
    serde_json::from_str(text).ok()
}

fn carried_list(object: &Value, annotation: &str) -> Vec<Value> {
    match carried(object, annotation) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn drop_carried(object: &mut Value) {
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|name, _| !CARRIERS.contains(&name.as_str()));
    }
}

/// The behaviour is carried with Go's field names, which start with capitals, and with all its fields.
fn json_names(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let renamed = fields.into_iter().filter(|(_, v)| !v.is_null()).map(|(name, value)| {
                let mut letters = name.chars();
                let name = letters.next().map(|c| c.to_ascii_lowercase()).into_iter().chain(letters).collect();
                (name, json_names(value))
            });
            Value::Object(renamed.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(json_names).collect()),
        other => other,
    }
}
