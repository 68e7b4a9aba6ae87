//! How many replicas one metric asks for.
//!
//! Owns: which Pods' samples count, what stands for a sample that is missing, and the tolerance around the target.
//! Called by: `autoscaler_metrics`, with the samples it read.
//! Never: limits how fast or how far the number may go; that is `autoscaler_limits`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use minik_api::object;
use minik_api::quantity::Quantity;
use minik_client::Object;
use serde_json::Value;

use crate::conditions;
use crate::fields::{list, parse_time, text};
use crate::pods::{is_ready, phase};

/// `--horizontal-pod-autoscaler-cpu-initialization-period`: while a Pod starts, only samples after it became ready count.
const STARTING: SignedDuration = SignedDuration::from_mins(5);
/// `--horizontal-pod-autoscaler-initial-readiness-delay`: a Pod that became unready this early has never been ready.
const NEVER_READY: SignedDuration = SignedDuration::from_secs(30);

/// One Pod's use of something, in thousandths.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub value: i64,
    pub at: Timestamp,
    pub window: SignedDuration,
}

pub(crate) type Samples = BTreeMap<String, Sample>;
type Values = BTreeMap<String, i64>;

/// How far from the target use may be without consequences.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerances {
    pub down: f64,
    pub up: f64,
}

impl Tolerances {
    pub(crate) fn allow(&self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What is scaled, as it is now.
pub(crate) struct Scaled<'a> {
    /// Those the scale's selector selects.
    pub pods: &'a [Arc<Object>],
    /// `spec.replicas` and `status.replicas` of the scale.
    pub wanted: i64,
    pub counted: i64,
    pub tolerances: Tolerances,
    pub now: Timestamp,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Proposal {
    pub replicas: i64,
    /// Per Pod, or of the one object, in thousandths.
    pub value: i64,
    /// Percent of what was requested.
    pub utilization: Option<i64>,
}

const NO_PODS: &str = "no pods returned by selector while calculating replica count";
const NO_SAMPLES: &str = "did not receive metrics for targeted pods (pods might be unready)";

/// A share of the requested resource.
pub(crate) fn by_utilization(
    scaled: &Scaled<'_>,
    samples: &Samples,
    resource: &str,
    container: &str,
    target: i64,
) -> Result<Proposal, String> {
    let groups = Groups::of(scaled, samples, resource)?;
    let requests = requests(scaled.pods, resource, container)?;
    let (_, utilization, value) = utilization(&groups.values, &requests, target)?;
    // Those without a sample are taken to use all they requested, or more where the target is more.
    let missing = |pod: &str| requests.get(pod).copied().unwrap_or(0) * target.max(100) / 100;
    let ratio = |values: &Values| utilization_ratio(values, &requests, target);
    let replicas = settle(scaled, &groups, &ratio, &missing)?;
    Ok(Proposal { replicas, value, utilization: Some(utilization) })
}

/// An average over the Pods. `resource` is empty for what is no resource.
pub(crate) fn by_average(
    scaled: &Scaled<'_>,
    samples: &Samples,
    resource: &str,
    target: i64,
) -> Result<Proposal, String> {
    let groups = Groups::of(scaled, samples, resource)?;
    let value = average(&groups.values);
    let ratio = |values: &Values| Ok(average(values) as f64 / target as f64);
    let replicas = settle(scaled, &groups, &ratio, &|_| target)?;
    Ok(Proposal { replicas, value, utilization: None })
}

/// A value of one object that falls and rises with the number of Pods.
pub(crate) fn by_value(scaled: &Scaled<'_>, value: i64, target: i64) -> Result<Proposal, String> {
    let ratio = value as f64 / target as f64;
    let replicas = if scaled.wanted == 0 {
        ceil(ratio)
    } else if scaled.tolerances.allow(ratio) {
        scaled.wanted
    } else {
        if scaled.pods.is_empty() {
            return Err(format!("unable to calculate ready pods: {NO_PODS}"));
        }
        let ready = scaled.pods.iter().filter(|p| phase(p) == "Running" && is_ready(p)).count();
        ceil(ratio * ready as f64)
    };
    Ok(Proposal { replicas, value, utilization: None })
}

/// A value of one object, shared among the Pods.
pub(crate) fn by_share(scaled: &Scaled<'_>, value: i64, target: i64) -> Proposal {
    let ratio = value as f64 / (target as f64 * scaled.counted as f64);
    let replicas = if scaled.tolerances.allow(ratio) { scaled.counted } else { ceil(value as f64 / target as f64) };
    let share = if scaled.counted == 0 { value } else { ceil(value as f64 / scaled.counted as f64) };
    Proposal { replicas, value: share, utilization: None }
}

fn ceil(number: f64) -> i64 {
    number.ceil().min(f64::from(i32::MAX)) as i64
}

/// The Pods by what is known of them.
struct Groups {
    values: Values,
    /// How many of them are ready and have a sample.
    ready: i64,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
}

impl Groups {
    fn of(scaled: &Scaled<'_>, samples: &Samples, resource: &str) -> Result<Groups, String> {
        if scaled.pods.is_empty() {
            return Err(NO_PODS.into());
        }
        let values = samples.iter().map(|(pod, sample)| (pod.clone(), sample.value)).collect();
        let mut groups = Groups { values, ready: 0, unready: BTreeSet::new(), missing: BTreeSet::new() };
        for pod in scaled.pods {
            let name = object::name(pod).to_string();
            if object::is_deleting(pod) || phase(pod) == "Failed" {
                groups.values.remove(&name);
            } else if phase(pod) == "Pending" {
                groups.values.remove(&name);
                groups.unready.insert(name);
            } else if let Some(sample) = samples.get(&name) {
                if resource == "cpu" && is_starting(pod, sample, scaled.now) {
                    groups.values.remove(&name);
                    groups.unready.insert(name);
                } else {
                    groups.ready += 1;
                }
            } else {
                groups.missing.insert(name);
            }
        }
        if groups.values.is_empty() { Err(NO_SAMPLES.into()) } else { Ok(groups) }
    }
}

/// Whether the CPU a Pod uses says more about its start than about its load.
fn is_starting(pod: &Value, sample: &Sample, now: Timestamp) -> bool {
    let ready = conditions::find(&pod["status"], "Ready");
    let (Some(ready), Some(started)) = (ready, parse_time(&pod["status"]["startTime"])) else { return true };
    let since = parse_time(&ready["lastTransitionTime"]).unwrap_or(Timestamp::UNIX_EPOCH);
    let unready = ready["status"] == "False";
    if started + STARTING > now {
        unready || sample.at < since + sample.window
    } else {
        unready && started + NEVER_READY > since
    }
}

type Ratio<'a> = &'a dyn Fn(&Values) -> Result<f64, String>;

/// The number of replicas at which use would be as wanted. What is not known of a Pod counts against a change.
fn settle(
    scaled: &Scaled<'_>,
    groups: &Groups,
    ratio: Ratio<'_>,
    missing: &dyn Fn(&str) -> i64,
) -> Result<i64, String> {
    let first = ratio(&groups.values)?;
    let grows_with_unready = !groups.unready.is_empty() && first > 1.0;
    if !grows_with_unready && groups.missing.is_empty() {
        let enough = scaled.tolerances.allow(first);
        return Ok(if enough { scaled.wanted } else { ceil(first * groups.ready as f64) });
    }
    let mut values = groups.values.clone();
    if first != 1.0 {
        let stand_in = |pod: &String| (pod.clone(), if first < 1.0 { missing(pod) } else { 0 });
        values.extend(groups.missing.iter().map(stand_in));
    }
    if grows_with_unready {
        values.extend(groups.unready.iter().map(|pod| (pod.clone(), 0)));
    }
    let second = ratio(&values)?;
    let turned = (first < 1.0 && second > 1.0) || (first > 1.0 && second < 1.0);
    if scaled.tolerances.allow(second) || turned {
        return Ok(scaled.wanted);
    }
    let replicas = ceil(second * values.len() as f64);
    let against = (second < 1.0 && replicas > scaled.wanted) || (second > 1.0 && replicas < scaled.wanted);
    Ok(if against { scaled.wanted } else { replicas })
}

fn average(values: &Values) -> i64 {
    values.values().sum::<i64>() / (values.len() as i64).max(1)
}

fn utilization_ratio(values: &Values, requests: &Values, target: i64) -> Result<f64, String> {
    utilization(values, requests, target).map(|(ratio, ..)| ratio)
}

/// Ratio to the target, percent of what is requested, and the average use.
fn utilization(values: &Values, requests: &Values, target: i64) -> Result<(f64, i64, i64), String> {
    let known: Vec<(i64, i64)> = values.iter().filter_map(|(pod, used)| Some((*used, *requests.get(pod)?))).collect();
    let (used, requested): (i64, i64) = known.iter().fold((0, 0), |(u, r), (used, asked)| (u + used, r + asked));
    if requested == 0 {
        return Err("no metrics returned matched known pods".into());
    }
    let percent = used * 100 / requested;
    Ok((percent as f64 / target as f64, percent, used / known.len() as i64))
}

/// What each Pod, or one container of it, requests, in thousandths.
fn requests(pods: &[Arc<Object>], resource: &str, container: &str) -> Result<Values, String> {
    pods.iter().map(|pod| Ok((object::name(pod).to_string(), request(pod, resource, container)?))).collect()
}

fn request(pod: &Value, resource: &str, container: &str) -> Result<i64, String> {
    let name = object::name(pod);
    let milli = |value: &Value| Quantity::from_json(value).map(|q| q.milli_value()).unwrap_or(0);
    let of_pod = &pod["spec"]["resources"]["requests"];
    if container.is_empty() && of_pod.as_object().is_some_and(|r| !r.is_empty()) {
        return match of_pod.get(resource) {
            Some(value) => Ok(milli(value)),
            None => Err(format!("missing pod-level request for {resource} in Pod {name}")),
        };
    }
    let sidecars = list(&pod["spec"]["initContainers"]).iter().filter(|c| c["restartPolicy"] == "Always");
    let mut total = 0;
    let mut found = false;
    for c in list(&pod["spec"]["containers"]).iter().chain(sidecars) {
        if !container.is_empty() && c["name"] != container {
            continue;
        }
        found = true;
        let Some(value) = c["resources"]["requests"].get(resource) else {
            let of = text(&c["name"]);
            return Err(format!("missing request for {resource} in container {of} of Pod {name}"));
        };
        total += milli(value);
    }
    if !found && !container.is_empty() {
        return Err(format!("container {container} not found in Pod {name}"));
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn pod(name: &str, phase: &str, ready: &str) -> Arc<Object> {
        Arc::new(Object::new(json!({
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": phase, "startTime": "2026-01-01T00:00:00Z", "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:10Z"}]},
        })))
    }
    fn running(count: usize) -> Vec<Arc<Object>> {
        (0..count).map(|i| pod(&format!("p{i}"), "Running", "True")).collect()
    }
    fn samples(values: &[i64]) -> Samples {
        let sample = |value: &i64| Sample { value: *value, at: NOW.parse().unwrap(), window: SignedDuration::ZERO };
        values.iter().enumerate().map(|(i, value)| (format!("p{i}"), sample(value))).collect()
    }
    fn scaled(pods: &[Arc<Object>]) -> Scaled<'_> {
        let count = pods.len() as i64;
        let tolerances = Tolerances { down: 0.1, up: 0.1 };
        Scaled { pods, wanted: count, counted: count, tolerances, now: NOW.parse().unwrap() }
    }
    fn cpu(pods: &[Arc<Object>], values: &[i64], target: i64) -> Result<(i64, i64), String> {
        let proposal = by_utilization(&scaled(pods), &samples(values), "cpu", "", target)?;
        Ok((proposal.replicas, proposal.utilization.unwrap()))
    }

    #[test]
    fn use_above_the_target_asks_for_more_and_below_for_fewer() {
        assert_eq!(cpu(&running(3), &[300, 500, 700], 30), Ok((5, 50)));
        assert_eq!(cpu(&running(5), &[100, 300, 500, 250, 250], 50), Ok((3, 28)));
        assert_eq!(cpu(&running(3), &[290, 290, 330], 30), Ok((3, 30)), "near enough");
    }

    #[test]
    fn a_pod_without_a_sample_counts_against_a_change() {
        assert_eq!(cpu(&running(4), &[300, 500, 700], 30), Ok((5, 50)), "as if it used nothing");
        assert_eq!(cpu(&running(4), &[100, 100, 100], 50), Ok((3, 10)), "as if it used all it requested");
    }

    #[test]
    fn pods_that_start_do_not_ask_for_more() {
        let mut pods = running(2);
        pods.push(pod("p2", "Pending", "False"));
        assert_eq!(cpu(&pods, &[600, 600], 50), Ok((3, 60)), "2 of 3 at 60 % are no more than 40 %");
        let never_ready = pod("p2", "Running", "False");
        pods[2] = never_ready;
        assert_eq!(cpu(&pods, &[900, 900, 900], 30), Ok((6, 90)));
    }

    #[test]
    fn what_cannot_be_computed_says_why() {
        assert_eq!(cpu(&[], &[], 50), Err(NO_PODS.into()));
        assert_eq!(cpu(&running(1), &[], 50), Err(NO_SAMPLES.into()));
        let refused = by_utilization(&scaled(&running(1)), &samples(&[1]), "memory", "", 50);
        assert_eq!(refused, Err("missing request for memory in container c of Pod p0".into()));
        let refused = by_utilization(&scaled(&running(1)), &samples(&[1]), "cpu", "d", 50);
        assert_eq!(refused, Err("container d not found in Pod p0".into()));
    }

    #[test]
    fn averages_and_values_of_one_object() {
        let pods = running(3);
        let replicas = |p: Result<Proposal, String>| p.map(|p| (p.replicas, p.value));
        assert_eq!(
            replicas(by_average(&scaled(&pods), &samples(&[20_000, 10_000, 30_000]), "", 15_000)),
            Ok((4, 20_000))
        );
        assert_eq!(replicas(by_value(&scaled(&pods), 20_000, 15_000)), Ok((4, 20_000)));
        assert_eq!(replicas(Ok(by_share(&scaled(&pods), 400_000, 100_000))), Ok((4, 133_334)));
    }
}
