//! What one metric of an autoscaler asks of the API, and what its answer means.
//!
//! Owns: the paths of the metrics APIs (metrics.k8s.io, custom.metrics.k8s.io, external.metrics.k8s.io) and reading
//! their answers; what the status then shows of the metric.
//! Called by: `autoscaler`.
//! Never: calculates replicas itself; that is `autoscaler_replicas`.

use jiff::{SignedDuration, Timestamp};
use minik_api::object;
use minik_api::quantity::{Format, Quantity};
use minik_api::selector::LabelSelector;
use minik_client::{Answer, Error, Question};
use serde_json::{Value, json};

use crate::autoscaler_replicas::{Proposal, Sample, Samples, Scaled, by_average, by_share, by_utilization, by_value};
use crate::discovery::Discovered;
use crate::fields::{int, list, parse_time, text};

pub(crate) const CUSTOM_GROUP: &str = "custom.metrics.k8s.io";
/// Custom metrics that do not say over which time they are.
const WINDOW: SignedDuration = SignedDuration::from_mins(1);

/// Whether a metric needs `CUSTOM_GROUP`, whose version is a question of its own.
pub(crate) fn is_custom(metric: &Value) -> bool {
    matches!(text(&metric["type"]), "Pods" | "Object")
}

/// Where metrics are asked for.
pub(crate) struct Source<'a> {
    pub namespace: &'a str,
    /// The scale's selector.
    pub selector: &'a str,
    pub custom_version: &'a str,
    pub discovered: &'a Discovered,
}

impl Source<'_> {
    pub(crate) fn question(&self, metric: &Value) -> Question {
        let namespace = self.namespace;
        let labels = |spec: &Value| {
            let selector = LabelSelector::from_object(&spec["metric"]["selector"]);
            selector.map(|s| escape(&s.to_string())).unwrap_or_default()
        };
        let custom = format!("/apis/{CUSTOM_GROUP}/{}/namespaces/{namespace}", self.custom_version);
        let path = match text(&metric["type"]) {
            "Pods" => {
                let spec = &metric["pods"];
                let name = text(&spec["metric"]["name"]);
                let (pods, labels) = (escape(self.selector), labels(spec));
                with_query(
                    format!("{custom}/pods/*/{name}"),
                    &[("labelSelector", pods), ("metricLabelSelector", labels)],
                )
            }
            "Object" => {
                let spec = &metric["object"];
                let name = text(&spec["metric"]["name"]);
                let path = format!("{custom}/{}/{name}", self.described(&spec["describedObject"]));
                with_query(path, &[("metricLabelSelector", labels(spec))])
            }
            "External" => {
                let spec = &metric["external"];
                let name = text(&spec["metric"]["name"]);
                let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{name}");
                with_query(path, &[("labelSelector", labels(spec))])
            }
            _ => {
                let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
                with_query(path, &[("labelSelector", escape(self.selector))])
            }
        };
        Question::Get { path }
    }

    /// `ingresses.networking.k8s.io/main`; a Namespace is meant to be the autoscaler's own.
    fn described(&self, reference: &Value) -> String {
        let (version, kind) = (text(&reference["apiVersion"]), text(&reference["kind"]));
        if kind == "Namespace" && !version.contains('/') {
            return "metrics".into();
        }
        let resource = match self.discovered.by_kind(version, kind) {
            Some(known) if known.id.group.is_empty() => known.id.plural.to_string(),
            Some(known) => format!("{}.{}", known.id.plural, known.id.group),
            None => kind.to_lowercase(),
        };
        format!("{resource}/{}", text(&reference["name"]))
    }
}

fn with_query(path: String, parts: &[(&str, String)]) -> String {
    let given: Vec<String> = parts.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k}={v}")).collect();
    if given.is_empty() { path } else { format!("{path}?{}", given.join("&")) }
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// What a metric asks for, how an Event calls it, and what the status shows of it.
#[derive(Debug)]
pub(crate) struct Reading {
    pub replicas: i64,
    pub name: String,
    pub status: Value,
}

/// Why a metric says nothing: the reason for the condition, its message, and the longer one for the summary.
#[derive(Debug, PartialEq)]
pub(crate) struct Unread {
    pub reason: &'static str,
    pub why: String,
    pub summary: String,
}

pub(crate) fn read(metric: &Value, answer: &Answer, scaled: &Scaled<'_>) -> Result<Reading, Unread> {
    match text(&metric["type"]) {
        "Resource" => {
            let spec = &metric["resource"];
            let name = text(&spec["name"]);
            let read = resource(spec, "", answer, scaled).map_err(|why| Unread {
                reason: "FailedGetResourceMetric",
                summary: format!("failed to get {name} resource metric value: {why}"),
                why,
            })?;
            let name_told = read.told(name, "resource");
            Ok(Reading {
                replicas: read.proposal.replicas,
                status: json!({"type": "Resource", "resource": {"name": name, "current": read.current}}),
                name: name_told,
            })
        }
        "ContainerResource" => {
            let spec = &metric["containerResource"];
            let (name, container) = (text(&spec["name"]), text(&spec["container"]));
            let read = resource(spec, container, answer, scaled).map_err(|why| Unread {
                reason: "FailedGetContainerResourceMetric",
                summary: format!("failed to get {container} container metric value: {why}"),
                why,
            })?;
            let shown = json!({"name": name, "container": container, "current": read.current});
            Ok(Reading {
                replicas: read.proposal.replicas,
                status: json!({"type": "ContainerResource", "containerResource": shown}),
                name: read.told(name, "container resource"),
            })
        }
        "Pods" => pods(&metric["pods"], answer, scaled),
        "Object" => one_object(&metric["object"], answer, scaled),
        "External" => external(&metric["external"], answer, scaled),
        other => {
            let why = format!("unknown metric source type {other:?}");
            Err(Unread { reason: "InvalidMetricSourceType", summary: why.clone(), why })
        }
    }
}

struct ResourceReading {
    proposal: Proposal,
    current: Value,
}

impl ResourceReading {
    fn told(&self, resource: &str, what: &str) -> String {
        match self.proposal.utilization {
            Some(_) => format!("{resource} {what} utilization (percentage of request)"),
            None => format!("{resource} resource"),
        }
    }
}

fn resource(spec: &Value, container: &str, answer: &Answer, scaled: &Scaled<'_>) -> Result<ResourceReading, String> {
    let name = text(&spec["name"]);
    let target = &spec["target"];
    let by_value = !target["averageValue"].is_null();
    let what = if by_value { "usage" } else { "utilization" };
    if !by_value && !target["averageUtilization"].is_number() {
        return Err("invalid resource metric source: neither an average utilization target nor an average value \
                    (usage) target was set"
            .into());
    }
    let failed = |why: String| format!("failed to get {name} {what}: {why}");
    let samples = resource_samples(name, container, answer)
        .map_err(|why| failed(format!("unable to get metrics for resource {name}: {why}")))?;
    let proposal = if by_value {
        by_average(scaled, &samples, name, milli(&target["averageValue"]))
    } else {
        by_utilization(scaled, &samples, name, container, int(&target["averageUtilization"], 0))
    };
    let proposal = proposal.map_err(failed)?;
    let format = if name == "memory" { Format::BinarySi } else { Format::DecimalSi };
    let mut current = json!({"averageValue": Quantity::from_milli(proposal.value, format).to_string()});
    if let Some(percent) = proposal.utilization {
        current["averageUtilization"] = percent.into();
    }
    Ok(ResourceReading { proposal, current })
}

fn resource_samples(resource: &str, container: &str, answer: &Answer) -> Result<Samples, String> {
    let items = items(answer, "resource metrics API", "pods.metrics.k8s.io")?;
    let mut samples = Samples::new();
    for item in items {
        let all = list(&item["containers"]);
        let counted: Vec<&Value> = all.iter().filter(|c| container.is_empty() || c["name"] == container).collect();
        // A Pod of which one container says nothing is not known at all.
        if counted.is_empty() || counted.iter().any(|c| c["usage"][resource].is_null()) {
            continue;
        }
        let sample = Sample {
            value: counted.iter().map(|c| milli(&c["usage"][resource])).sum(),
            at: parse_time(&item["timestamp"]).unwrap_or(Timestamp::UNIX_EPOCH),
            window: text(&item["window"]).parse().unwrap_or(WINDOW),
        };
        samples.insert(object::name(item).to_string(), sample);
    }
    Ok(samples)
}

fn pods(spec: &Value, answer: &Answer, scaled: &Scaled<'_>) -> Result<Reading, Unread> {
    let name = text(&spec["metric"]["name"]);
    let failed = |why: String| Unread {
        reason: "FailedGetPodsMetric",
        summary: format!("failed to get pods metric value: {why}"),
        why,
    };
    let samples = custom_samples(name, answer).map_err(failed)?;
    let target = milli(&spec["target"]["averageValue"]);
    let proposal = by_average(scaled, &samples, "", target).map_err(failed)?;
    let current = json!({"averageValue": decimal(proposal.value)});
    Ok(Reading {
        replicas: proposal.replicas,
        name: format!("pods metric {name}"),
        status: json!({"type": "Pods", "pods": {"metric": spec["metric"], "current": current}}),
    })
}

fn custom_samples(name: &str, answer: &Answer) -> Result<Samples, String> {
    let resource = format!("pods.{CUSTOM_GROUP}");
    let items =
        items(answer, "custom metrics API", &resource).map_err(|why| format!("unable to get metric {name}: {why}"))?;
    let sample = |item: &Value| Sample {
        value: milli(&item["value"]),
        at: parse_time(&item["timestamp"]).unwrap_or(Timestamp::UNIX_EPOCH),
        window: item["windowSeconds"].as_i64().map_or(WINDOW, SignedDuration::from_secs),
    };
    Ok(items.iter().map(|item| (text(&item["describedObject"]["name"]).to_string(), sample(item))).collect())
}

fn one_object(spec: &Value, answer: &Answer, scaled: &Scaled<'_>) -> Result<Reading, Unread> {
    const REASON: &str = "FailedGetObjectMetric";
    let (name, of) = (text(&spec["metric"]["name"]), &spec["describedObject"]);
    let failed =
        |why: String| Unread { reason: REASON, summary: format!("failed to get object metric value: {why}"), why };
    let target = &spec["target"];
    let kind = target["type"].as_str().unwrap_or("");
    let by_total = kind == "Value" && !target["value"].is_null();
    if !by_total && target["averageValue"].is_null() {
        return Err(failed(
            "invalid object metric source: neither a value target nor an average value target was set".into(),
        ));
    }
    let resource = format!("{}.{CUSTOM_GROUP}", text(&of["kind"]).to_lowercase());
    let items = items(answer, "custom metrics API", &resource).map_err(|why| {
        failed(format!("unable to get metric {name} on {} {}: {why}", text(&of["kind"]), text(&of["name"])))
    })?;
    let value = items.first().map_or(0, |item| milli(&item["value"]));
    let (proposal, field) = if by_total {
        (by_value(scaled, value, milli(&target["value"])).map_err(failed)?, "value")
    } else {
        (by_share(scaled, value, milli(&target["averageValue"])), "averageValue")
    };
    let current = json!({field: decimal(proposal.value)});
    Ok(Reading {
        replicas: proposal.replicas,
        name: format!("{} metric {name}", text(&of["kind"])),
        status: json!({"type": "Object",
            "object": {"metric": spec["metric"], "current": current, "describedObject": of}}),
    })
}

fn external(spec: &Value, answer: &Answer, scaled: &Scaled<'_>) -> Result<Reading, Unread> {
    let name = text(&spec["metric"]["name"]);
    let failed = |why: String| Unread {
        reason: "FailedGetExternalMetric",
        summary: format!("failed to get {name} external metric value: {why}"),
        why,
    };
    let target = &spec["target"];
    let by_pod = !target["averageValue"].is_null();
    if !by_pod && target["value"].is_null() {
        return Err(failed(
            "invalid external metric source: neither a value target nor an average value target was set".into(),
        ));
    }
    let items = items(answer, "external metrics API", &format!("{name}.external.metrics.k8s.io"))
        .map_err(|why| failed(format!("unable to get external metric {name}: {why}")))?;
    let value = items.iter().fold(0_i64, |sum, item| sum.saturating_add(milli(&item["value"])));
    let (proposal, field) = if by_pod {
        (by_share(scaled, value, milli(&target["averageValue"])), "averageValue")
    } else {
        (by_value(scaled, value, milli(&target["value"])).map_err(failed)?, "value")
    };
    let current = json!({field: decimal(proposal.value)});
    Ok(Reading {
        replicas: proposal.replicas,
        name: format!("external metric {name}"),
        status: json!({"type": "External", "external": {"metric": spec["metric"], "current": current}}),
    })
}

fn milli(quantity: &Value) -> i64 {
    Quantity::from_json(quantity).map(|q| q.milli_value()).unwrap_or(0)
}

fn decimal(milli: i64) -> String {
    Quantity::from_milli(milli, Format::DecimalSi).to_string()
}

/// The items of a list of metrics; there must be some.
fn items<'a>(answer: &'a Answer, api: &str, resource: &str) -> Result<&'a [Value], String> {
    match answer {
        Ok(body) if list(&body["items"]).is_empty() => Err(format!("no metrics returned from {api}")),
        Ok(body) => Ok(list(&body["items"])),
        Err(error) => Err(format!("unable to fetch metrics from {api}: {}", told(error, resource))),
    }
}

/// As client-go words an answer that is no `Status`: the group is not served, or nobody stands behind it.
pub(crate) fn told(error: &Error, resource: &str) -> String {
    match error.status() {
        Some(status) if status.reason.is_empty() && status.code == 404 => {
            format!("the server could not find the requested resource (get {resource})")
        }
        Some(status) if status.code == 503 => {
            format!("the server is currently unable to handle the request (get {resource})")
        }
        _ => error.chain(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik_api::Status;

    fn source(discovered: &Discovered) -> Source<'_> {
        Source { namespace: "d", selector: "app=web", custom_version: "v1beta2", discovered }
    }

    #[test]
    fn every_kind_of_metric_has_its_path() {
        let discovered = Discovered::default();
        let path = |metric: Value| source(&discovered).question(&metric).to_string();
        assert_eq!(
            path(json!({"type": "Resource", "resource": {"name": "cpu"}})),
            "ask /apis/metrics.k8s.io/v1beta1/namespaces/d/pods?labelSelector=app%3Dweb"
        );
        let metric = json!({"name": "hits", "selector": {"matchLabels": {"verb": "GET"}}});
        assert_eq!(
            path(json!({"type": "Pods", "pods": {"metric": metric}})),
            "ask /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/pods/*/hits?labelSelector=app%3Dweb&metricLabelSelector=verb%3DGET"
        );
        let metric = json!({"name": "hits"});
        let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "name": "x"});
        assert_eq!(
            path(json!({"type": "Object", "object": {"metric": metric, "describedObject": namespace}})),
            "ask /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/metrics/hits"
        );
        assert_eq!(
            path(json!({"type": "External", "external": {"metric": metric}})),
            "ask /apis/external.metrics.k8s.io/v1beta1/namespaces/d/hits"
        );
    }

    #[test]
    fn a_group_that_is_not_served_is_told_as_upstream_tells_it() {
        let metric = json!({"type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        let answer = Err(Error::from(Status::new(404, "", "404 page not found")));
        let scaled = Scaled {
            pods: &[],
            wanted: 1,
            counted: 1,
            tolerances: crate::autoscaler_replicas::Tolerances { down: 0.1, up: 0.1 },
            now: Timestamp::UNIX_EPOCH,
        };
        let unread = read(&metric, &answer, &scaled).unwrap_err();
        assert_eq!(unread.reason, "FailedGetResourceMetric");
        assert_eq!(
            unread.why,
            "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from \
             resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)"
        );
    }
}
