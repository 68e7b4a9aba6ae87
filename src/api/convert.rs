//! One object in another version of its kind.
//!
//! Owns: the two kinds of the release that are served in two versions: Event (core/v1 and events.k8s.io/v1) and
//! HorizontalPodAutoscaler (autoscaling/v1 and v2). Custom resources convert by their own rules elsewhere.
//! Called by: the API server, between the version asked for and the version stored.
//! Never: loses a field: what an older version cannot say it carries in annotations, as Kubernetes does.

mod autoscaler;

use serde_json::{Map, Value};

use crate::schema::Type;

/// Fields of an Event by their names in core/v1 and in events.k8s.io/v1; all others have one name.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Where apps/v1 carries a field of the DaemonSet that it has no place for.
pub(crate) const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// The annotations in which a kind's objects carry what their version has no field for.
fn carriers(api_version: &str, kind: &str) -> &'static [&'static str] {
    match (api_version, kind) {
        ("apps/v1", "DaemonSet") => &[TEMPLATE_GENERATION],
        ("autoscaling/v1", "HorizontalPodAutoscaler") => &autoscaler::CARRIERS,
        _ => &[],
    }
}

/// Whether metadata of this kind says more than `metadata_alone`.
pub fn has_carriers(api_version: &str, kind: &str) -> bool {
    !carriers(api_version, kind).is_empty()
}

/// Writes what an object carries in annotations as it will be read, before anybody comes to own them.
pub fn renew_carriers(object: &mut Value) {
    if object["apiVersion"] == "autoscaling/v1" && object["kind"] == "HorizontalPodAutoscaler" {
        *object = convert(convert(object.take(), "autoscaling/v2"), "autoscaling/v1");
    }
}

/// The metadata of an object as it is shown without the object: belonging to no version, it carries no fields.
pub fn metadata_alone(object: &Value) -> Value {
    let mut metadata = object["metadata"].clone();
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let carriers = carriers(text("apiVersion"), text("kind"));
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|name, _| !carriers.contains(&name.as_str()));
        if annotations.is_empty()
            && let Some(fields) = metadata.as_object_mut()
        {
            fields.remove("annotations");
        }
    }
    metadata
}

/// An object nothing is known of, as a bookmark shows one: upstream keeps some fields in a form that cannot be absent.
pub fn zero_object(of: Type) -> Value {
    let mut object = crate::decode::zero_object(of);
    match (of.package(), of.name()) {
        ("k8s.io/api/apps/v1", "Deployment" | "ReplicaSet" | "StatefulSet") => object["spec"]["replicas"] = 0.into(),
        ("k8s.io/api/apps/v1", "DaemonSet") => object["metadata"]["annotations"][TEMPLATE_GENERATION] = "0".into(),
        _ => {}
    }
    object
}

/// The object, which has been decoded, as `api_version` has it. An object that is of that version already, or of a kind with one version, only
/// gets its `apiVersion` set.
pub fn convert(object: Value, api_version: &str) -> Value {
    let from = object["apiVersion"].as_str().unwrap_or("").to_string();
    let kind = object["kind"].as_str().unwrap_or("").to_string();
    let mut object = object;
    if from == api_version {
        return object;
    }
    match (kind.as_str(), from.as_str(), api_version) {
        ("Event", "v1", "events.k8s.io/v1") => rename_event_fields(&mut object, |(core, new)| (core, new)),
        ("Event", "events.k8s.io/v1", "v1") => rename_event_fields(&mut object, |(core, new)| (new, core)),
        ("HorizontalPodAutoscaler", "autoscaling/v2", "autoscaling/v1") => autoscaler::to_v1(&mut object),
        ("HorizontalPodAutoscaler", "autoscaling/v1", "autoscaling/v2") => autoscaler::to_v2(&mut object),
        _ => {}
    }
    object["apiVersion"] = api_version.into();
    let Some(of) = Type::of(api_version, &kind) else { return object };
    // Which empty fields are written differs between the versions.
    crate::decode::from_value(of, object.clone()).map_or(object, |read| read.object)
}

fn rename_event_fields(event: &mut Value, way: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    let Value::Object(fields) = event else { return };
    for (from, to) in EVENT_FIELDS.into_iter().map(way) {
        rename(fields, from, to);
    }
}

fn rename(fields: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = fields.remove(from) {
        fields.insert(to.into(), value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_the_same_after_there_and_back() {
        let event = json!({"apiVersion":"v1","kind":"Event","metadata":{"name":"e"},"involvedObject":{"kind":"Pod"},
            "reason":"R","message":"m","source":{"component":"c"},"firstTimestamp":"2024-01-01T00:00:00Z",
            "lastTimestamp":null,"count":2,"type":"Normal","eventTime":null,"reportingComponent":"",
            "reportingInstance":""});
        let new = convert(event.clone(), "events.k8s.io/v1");
        assert_eq!((&new["note"], &new["regarding"]["kind"]), (&json!("m"), &json!("Pod")));
        assert_eq!((&new["deprecatedCount"], new.get("message")), (&json!(2), None));
        assert_eq!(convert(new, "v1"), event);
    }

    #[test]
    fn a_cpu_target_is_a_field_in_v1_and_a_metric_in_v2() {
        let v1 = json!({"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler","metadata":{"name":"a"},
            "spec":{"scaleTargetRef":{"kind":"Deployment","name":"d"},"maxReplicas":3,
            "targetCPUUtilizationPercentage":60},"status":{"currentReplicas":1,"desiredReplicas":1}});
        let v2 = convert(v1.clone(), "autoscaling/v2");
        let metric = json!({"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization",
            "averageUtilization":60}}});
        assert_eq!(v2["spec"]["metrics"], json!([metric]));
        assert_eq!(convert(v2, "autoscaling/v1"), v1);
    }

    #[test]
    fn metadata_alone_carries_no_fields() {
        let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "d", "annotations": {TEMPLATE_GENERATION: "1"}}});
        assert_eq!(metadata_alone(&set), json!({"name": "d"}));
        let mut other = set.clone();
        other["kind"] = "Deployment".into();
        assert_eq!(metadata_alone(&other), other["metadata"]);
    }

    #[test]
    fn what_v1_cannot_say_travels_in_annotations() {
        let v2 = json!({"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":"a"},
            "spec":{"scaleTargetRef":{"kind":"Deployment","name":"d"},"maxReplicas":3,"metrics":[
                {"type":"Pods","pods":{"metric":{"name":"q"},"target":{"type":"AverageValue","averageValue":"10"}}},
                {"type":"External","external":{"metric":{"name":"e"},"target":{"type":"Value","value":"5"}}},
                {"type":"Object","object":{"describedObject":{"kind":"K","name":"n"},"metric":{"name":"o"},
                    "target":{"type":"Value","value":"7"}}}],
            "behavior":{"scaleDown":{"selectPolicy":"Max","policies":[{"type":"Pods","value":1,"periodSeconds":2}]}}},
            "status":{"desiredReplicas":1,"currentMetrics":[{"type":"Resource","resource":{"name":"cpu",
                "current":{"averageUtilization":5,"averageValue":"1m"}}}],"conditions":[{"type":"ScalingActive",
                "status":"True","lastTransitionTime":null}]}});
        let v1 = convert(v2.clone(), "autoscaling/v1");
        let carried = &v1["metadata"]["annotations"];
        assert_eq!(
            carried["autoscaling.alpha.kubernetes.io/behavior"],
            r#"{"ScaleUp":null,"ScaleDown":{"StabilizationWindowSeconds":null,"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":1,"PeriodSeconds":2}],"Tolerance":null}}"#
        );
        assert_eq!(v1["status"]["currentCPUUtilizationPercentage"], 5);
        assert_eq!(convert(v1, "autoscaling/v2"), v2);
    }
}
