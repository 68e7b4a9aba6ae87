//! HorizontalPodAutoscaler: as many replicas as metrics ask for, of anything that has a scale.
//!
//! Owns: the rounds of questions (scale, then metrics), the conditions, Events and status, and the order to scale.
//! Called by: the driver; between changes of the autoscaler itself, at the deadline each plan sets.
//! Never: knows one kind it scales from another.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use minik_api::quantity::Quantity;
use minik_api::resources::{HORIZONTALPODAUTOSCALERS, PODS};
use minik_api::selector::LabelSelector;
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Answer, Change, EventType, Object, Plan, Question, Reconciler, View};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::autoscaler_limits::{Bounds, History};
use crate::autoscaler_metrics::{CUSTOM_GROUP, Reading, Source, Unread, is_custom, read, told};
use crate::autoscaler_replicas::{Scaled, Tolerances};
use crate::conditions::{self, Repeat};
use crate::discovery::{Watched, scale_path};
use crate::fields::{int, list, same, text, time};

/// `--horizontal-pod-autoscaler-sync-period`.
const PERIOD: SignedDuration = SignedDuration::from_secs(15);
const TOLERANCE: f64 = 0.1;
const CUSTOM_VERSION: &str = "v1beta2";

#[derive(Default)]
struct Memory {
    history: History,
    /// Which Pods the autoscaler's target selects, to see when two of them pull at one.
    selector: Option<LabelSelector>,
}

pub(crate) struct Autoscaler {
    discovered: Watched,
    memories: Memories,
}

type Memories = Arc<Mutex<HashMap<ObjectKey, Memory>>>;

impl Autoscaler {
    pub(crate) fn new(discovered: Watched) -> Autoscaler {
        Autoscaler { discovered, memories: Memories::default() }
    }
}

impl Reconciler for Autoscaler {
    fn name(&self) -> &'static str {
        "horizontal-pod-autoscaler"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[HORIZONTALPODAUTOSCALERS]
    }

    /// Its own writes of the status must not wake it: they would make a loop of it.
    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        let generation =
            |side: &Option<Arc<Object>>| side.as_ref().map(|o| (object::generation(o), object::uid(o).to_string()));
        if generation(&change.old) == generation(&change.new) { Vec::new() } else { vec![change.key.clone()] }
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(autoscaler) = view.get_key(HORIZONTALPODAUTOSCALERS, key) else {
            self.memories.lock().remove(key);
            return Plan::nothing();
        };
        let reference = &autoscaler["spec"]["scaleTargetRef"];
        let (version, kind) = (text(&reference["apiVersion"]), text(&reference["kind"]));
        let look = Look::new(autoscaler.clone());
        let discovered = self.discovered.borrow().clone();
        let Some(target) = discovered.by_kind(version, kind).map(|known| known.id) else {
            let group = version.split_once('/').map_or("", |(group, _)| group);
            return look.without_scale(&format!("no matches for kind {kind:?} in group {group:?}"), now);
        };
        let mut questions = vec![Question::Get { path: scale_path(target, &key.namespace, text(&reference["name"])) }];
        if list(&autoscaler["spec"]["metrics"]).iter().any(is_custom) {
            questions.push(Question::Get { path: format!("/apis/{CUSTOM_GROUP}") });
        }
        let (view, memories, watched) = (view.clone(), self.memories.clone(), self.discovered.clone());
        Plan::asking(questions, move |mut answers, now| {
            let custom = answers.drain(1..).next().and_then(Result::ok);
            let version = custom.as_ref().map(|group| text(&group["preferredVersion"]["version"]));
            let custom_version = version.filter(|v| !v.is_empty()).unwrap_or(CUSTOM_VERSION).to_string();
            match answers.swap_remove(0) {
                Err(error) => {
                    let why = told(&error, &format!("{}.{}", target.plural, target.group));
                    look.without_scale(&why, now)
                }
                Ok(scale) => {
                    let scene = Scene { target, scale, view, memories, discovered: watched, custom_version };
                    look.with_scale(scene, now)
                }
            }
        })
    }
}

/// What is scaled, and what else must be known to decide.
struct Scene {
    target: ResourceId,
    scale: Value,
    view: View,
    memories: Memories,
    discovered: Watched,
    custom_version: String,
}

impl Scene {
    fn wanted(&self) -> i64 {
        int(&self.scale["spec"]["replicas"], 0)
    }
    fn counted(&self) -> i64 {
        int(&self.scale["status"]["replicas"], 0)
    }
    fn selector(&self) -> &str {
        text(&self.scale["status"]["selector"])
    }
}

/// One look at one autoscaler: the status as it becomes, and the Events on the way.
struct Look {
    autoscaler: Arc<Object>,
    status: Value,
    actions: Vec<Action>,
}

/// A number of replicas and why.
struct Decision {
    replicas: i64,
    why: String,
    rescale: bool,
    metrics: Vec<Value>,
}

impl Look {
    fn new(autoscaler: Arc<Object>) -> Look {
        let status = if autoscaler["status"].is_object() { autoscaler["status"].clone() } else { json!({}) };
        Look { autoscaler, status, actions: Vec::new() }
    }

    fn spec(&self) -> &Value {
        &self.autoscaler["spec"]
    }
    fn least(&self) -> i64 {
        int(&self.spec()["minReplicas"], 1)
    }
    fn most(&self) -> i64 {
        int(&self.spec()["maxReplicas"], 0)
    }

    fn set(&mut self, kind: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
        conditions::set(&mut self.status, kind, value, reason, message, now, Repeat::Updates);
    }
    fn warn(&mut self, reason: &'static str, message: &str) {
        self.actions.push(Action::event(&self.autoscaler, EventType::Warning, reason, message));
    }

    fn without_scale(mut self, why: &str, now: Timestamp) -> Plan {
        self.warn("FailedGetScale", why);
        let message = format!("the HPA controller was unable to get the target's current scale: {why}");
        self.set("AbleToScale", "False", "FailedGetScale", &message, now);
        self.end(now)
    }

    fn with_scale(mut self, scene: Scene, now: Timestamp) -> Plan {
        let message = "the HPA controller was able to get the target's current scale";
        self.set("AbleToScale", "True", "SucceededGetScale", message, now);
        let (current, key) = (scene.wanted(), self.autoscaler.key());
        scene.memories.lock().entry(key).or_default().history.observe(current, now);
        let (least, most) = (self.least(), self.most());
        let plain = |replicas, why: &str, rescale| Decision { replicas, why: why.into(), rescale, metrics: Vec::new() };
        if current == 0 && !self.may_leave_zero() {
            let message = "scaling is disabled since the replica count of the target is zero";
            self.set("ScalingActive", "False", "ScalingDisabled", message, now);
            return self.carry_out(&scene, plain(0, "", false), now);
        }
        if current > most {
            let decision = plain(most, "Current number of replicas above Spec.MaxReplicas", true);
            return self.carry_out(&scene, decision, now);
        }
        if current != 0 && current < least {
            let decision = plain(least, "Current number of replicas below Spec.MinReplicas", true);
            return self.carry_out(&scene, decision, now);
        }
        self.ask_metrics(scene, now)
    }

    /// Zero is where somebody switched it off, unless this autoscaler itself went there.
    fn may_leave_zero(&self) -> bool {
        let went_there = conditions::is_true(&self.status, "ScaledToZero");
        went_there && (self.least() != 0 || self.scales_to_zero())
    }
    fn scales_to_zero(&self) -> bool {
        list(&self.spec()["metrics"]).iter().any(|m| m["type"] == "Object" || m["type"] == "External")
    }

    fn ask_metrics(mut self, scene: Scene, now: Timestamp) -> Plan {
        let pods = match self.pods(&scene, now) {
            Ok(pods) => pods,
            Err(why) => return self.without_metrics(&scene, Vec::new(), &why, now),
        };
        let discovered = scene.discovered.borrow().clone();
        let source = Source {
            namespace: object::namespace(&self.autoscaler),
            selector: scene.selector(),
            custom_version: &scene.custom_version,
            discovered: &discovered,
        };
        let questions = list(&self.spec()["metrics"]).iter().map(|metric| source.question(metric)).collect();
        Plan::asking(questions, move |answers, now| self.with_metrics(&scene, &pods, &answers, now))
    }

    /// The Pods of the target; why not, when its selector is not usable.
    fn pods(&mut self, scene: &Scene, now: Timestamp) -> Result<Vec<Arc<Object>>, String> {
        if scene.selector().is_empty() {
            self.warn("SelectorRequired", "selector is required");
            let message = "the HPA target's scale is missing a selector";
            self.set("ScalingActive", "False", "InvalidSelector", message, now);
            return Err("selector is required".into());
        }
        let selector = LabelSelector::parse(scene.selector()).map_err(|error| {
            let why = format!("couldn't convert selector into a corresponding internal selector object: {error}");
            self.warn("InvalidSelector", &why);
            self.set("ScalingActive", "False", "InvalidSelector", &why, now);
            why
        })?;
        let key = self.autoscaler.key();
        let pods: Vec<Arc<Object>> = scene
            .view
            .list(PODS, &key.namespace)
            .filter(|p| selector.matches(&p["metadata"]["labels"]))
            .cloned()
            .collect();
        let mut memories = scene.memories.lock();
        memories.entry(key.clone()).or_default().selector = Some(selector);
        let pulls = |(other, memory): (&ObjectKey, &Memory)| {
            let selects = |s: &LabelSelector| pods.iter().any(|p| s.matches(&p["metadata"]["labels"]));
            (other.namespace == key.namespace && memory.selector.as_ref().is_some_and(selects))
                .then(|| other.to_string())
        };
        let mut rivals: Vec<String> = memories.iter().filter_map(pulls).collect();
        drop(memories);
        if rivals.len() > 1 {
            rivals.sort();
            let (selector, rivals) = (scene.selector(), rivals.join(" "));
            let why = format!("pods by selector {selector} are controlled by more than one HPA (e.g. [{rivals}])");
            self.warn("AmbiguousSelector", &why);
            self.set("ScalingActive", "False", "AmbiguousSelector", &why, now);
            return Err(why);
        }
        Ok(pods)
    }

    fn with_metrics(mut self, scene: &Scene, pods: &[Arc<Object>], answers: &[Answer], now: Timestamp) -> Plan {
        let scaled =
            Scaled { pods, wanted: scene.wanted(), counted: scene.counted(), tolerances: self.tolerances(), now };
        let metrics = list(&self.spec()["metrics"]).to_vec();
        let readings: Vec<_> = metrics.iter().zip(answers).map(|(m, answer)| read(m, answer, &scaled)).collect();
        for unread in readings.iter().filter_map(|r| r.as_ref().err()) {
            self.warn(unread.reason, &unread.why);
        }
        let shown = readings.iter().map(|r| r.as_ref().map_or_else(|_| json!({"type": ""}), |r| r.status.clone()));
        let shown: Vec<Value> = shown.collect();
        let best = readings.iter().filter_map(|r| r.as_ref().ok()).rev().max_by_key(|r| r.replicas);
        let unread: Vec<&Unread> = readings.iter().filter_map(|r| r.as_ref().err()).collect();
        let too_little_known = |best: &Reading| !unread.is_empty() && best.replicas < scene.wanted();
        match best.filter(|best| !too_little_known(best)) {
            Some(best) => {
                let message = format!("the HPA was able to successfully calculate a replica count from {}", best.name);
                self.set("ScalingActive", "True", "ValidMetricFound", &message, now);
                let decision = self.decide(scene, best, shown, now);
                self.carry_out(scene, decision, now)
            }
            None => {
                let Some(first) = unread.first() else { return self.end(now) };
                let message = format!("the HPA was unable to compute the replica count: {}", first.why);
                self.set("ScalingActive", "False", first.reason, &message, now);
                let why = format!(
                    "invalid metrics ({} invalid out of {}), first error is: {}",
                    unread.len(),
                    metrics.len(),
                    first.summary
                );
                self.without_metrics(scene, shown, &why, now)
            }
        }
    }

    fn tolerances(&self) -> Tolerances {
        let of = |rules: &str| {
            let given = &self.spec()["behavior"][rules]["tolerance"];
            if given.is_null() { TOLERANCE } else { Quantity::from_json(given).map_or(TOLERANCE, |q| q.as_f64()) }
        };
        Tolerances { down: of("scaleDown"), up: of("scaleUp") }
    }

    fn without_metrics(mut self, scene: &Scene, metrics: Vec<Value>, why: &str, now: Timestamp) -> Plan {
        let desired = int(&self.status["desiredReplicas"], 0);
        self.record(scene.wanted(), desired, metrics);
        self.warn("FailedComputeMetricsReplicas", why);
        self.end(now)
    }

    fn decide(&mut self, scene: &Scene, best: &Reading, metrics: Vec<Value>, now: Timestamp) -> Decision {
        let current = scene.wanted();
        let (least, most) = (self.least(), self.most());
        let mut why = match best.replicas {
            asked if asked > current => format!("{} above target", best.name),
            asked if asked < current => "All metrics below target".into(),
            _ => String::new(),
        };
        let autoscaler = self.autoscaler.clone();
        let bounds = Bounds { behavior: &autoscaler["spec"]["behavior"], least, most, current, now };
        let mut memories = scene.memories.lock();
        let limited = memories.entry(self.autoscaler.key()).or_default().history.limit(&bounds, best.replicas);
        drop(memories);
        self.set("AbleToScale", "True", limited.able.0, limited.able.1, now);
        let value = if limited.limited { "True" } else { "False" };
        self.set("ScalingLimited", value, limited.reason.0, limited.reason.1, now);
        let mut replicas = limited.replicas;
        if current == 0 && replicas < least {
            replicas = least;
            if why.is_empty() {
                why = "Current number of replicas below Spec.MinReplicas".into();
            }
        }
        Decision { replicas, why, rescale: replicas != current, metrics }
    }

    fn carry_out(mut self, scene: &Scene, decision: Decision, now: Timestamp) -> Plan {
        let current = scene.wanted();
        let desired = decision.replicas;
        if !decision.rescale {
            self.record(current, current, decision.metrics);
            return self.end(now);
        }
        let key = self.autoscaler.key();
        scene.memories.lock().entry(key).or_default().history.order(current, desired, now);
        // If the order fails the status tells of it, as it would stand without the order.
        let failed = {
            let mut failed = Look { autoscaler: self.autoscaler.clone(), status: self.status.clone(), actions: vec![] };
            let before = int(&failed.status["desiredReplicas"], 0);
            failed.record(current, before, decision.metrics.clone());
            (failed.autoscaler, failed.status, decision.why.clone())
        };
        self.actions.extend(order(scene, desired));
        let message = format!("the HPA controller was able to update the target scale to {desired}");
        self.set("AbleToScale", "True", "SucceededRescale", &message, now);
        let to_zero = current > 0 && desired == 0 && self.least() == 0 && self.scales_to_zero();
        let (value, reason, message) = if to_zero {
            ("True", "ScaledToZero", "the HPA controller scaled the workload to zero")
        } else {
            ("False", "NotScaledToZero", "the HPA controller did not scale the workload to zero")
        };
        self.set("ScaledToZero", value, reason, message, now);
        let told = format!("New size: {desired}; reason: {}", decision.why);
        self.actions.push(Action::event(&self.autoscaler, EventType::Normal, "SuccessfulRescale", told));
        self.record(current, desired, decision.metrics);
        self.status["lastScaleTime"] = time(now).into();
        let mut plan = self.end(now);
        plan.if_failed = Some(Box::new(move |failure, now| {
            let (autoscaler, status, why) = &failed;
            if !failure.action.contains("/scale ") {
                return Vec::new();
            }
            let error = failure.error.to_string();
            let mut look = Look { autoscaler: autoscaler.clone(), status: status.clone(), actions: vec![] };
            look.warn("FailedRescale", &format!("New size: {desired}; reason: {why}; error: {error}"));
            let message = format!("the HPA controller was unable to update the target scale: {error}");
            look.set("AbleToScale", "False", "FailedUpdateScale", &message, now);
            look.end(now).actions
        }));
        plan
    }

    fn record(&mut self, current: i64, desired: i64, metrics: Vec<Value>) {
        let status = self.status.as_object_mut().expect("made one at the start");
        status.insert("currentReplicas".into(), current.into());
        status.insert("desiredReplicas".into(), desired.into());
        status.insert("currentMetrics".into(), metrics.into());
        status.insert("observedGeneration".into(), object::generation(&self.autoscaler).into());
    }

    /// Writes the status if it changed, and looks again after a period.
    fn end(mut self, now: Timestamp) -> Plan {
        if !same(&self.status, &self.autoscaler["status"]) {
            self.actions.extend(Action::set_status(HORIZONTALPODAUTOSCALERS, &self.autoscaler, &self.status));
        }
        let mut plan = Plan::of(self.actions);
        plan.requeue_at = Some(now + PERIOD);
        plan
    }
}

fn order(scene: &Scene, replicas: i64) -> Option<Action> {
    let seen = Object::new(scene.scale.clone());
    let mut changed = scene.scale.clone();
    changed["spec"] = json!({"replicas": replicas});
    Action::replace(scene.target, "scale", &seen, changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::{Discovered, Known};
    use expect_test::{Expect, expect};
    use minik_api::Status;
    use minik_api::resources::DEPLOYMENTS;
    use minik_client::Error;
    use tokio::sync::watch;

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn autoscaler() -> Value {
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"namespace": "d", "name": "web", "uid": "u", "resourceVersion": "1", "generation": 1},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "minReplicas": 1, "maxReplicas": 10,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 50}}}]},
            "status": {},
        })
    }
    fn scale(replicas: i64) -> Value {
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": {"namespace": "d", "name": "web", "resourceVersion": "7"},
            "spec": {"replicas": replicas}, "status": {"replicas": replicas, "selector": "app=web"}})
    }
    fn pods(count: usize) -> Vec<(ResourceId, Value)> {
        let pod = |i: usize| {
            json!({"metadata": {"namespace": "d", "name": format!("p{i}"), "labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
                "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}]}})
        };
        (0..count).map(|i| (PODS, pod(i))).collect()
    }
    fn metrics(milli: &[i64]) -> Value {
        let item = |(i, used): (usize, &i64)| {
            json!({"metadata": {"name": format!("p{i}")}, "timestamp": NOW, "window": "30s",
                "containers": [{"name": "c", "usage": {"cpu": format!("{used}m")}}]})
        };
        json!({"items": milli.iter().enumerate().map(item).collect::<Vec<_>>()})
    }
    fn controller() -> Autoscaler {
        let known = Known { id: DEPLOYMENTS, kind: "Deployment".into(), namespaced: true, verbs: vec![] };
        let discovered = Discovered { resources: vec![known], failed: vec![] };
        Autoscaler::new(watch::channel(Arc::new(discovered)).1)
    }
    fn plan(controller: &Autoscaler, autoscaler: Value, pods: Vec<(ResourceId, Value)>) -> Plan {
        let view = View::of(pods.into_iter().chain([(HORIZONTALPODAUTOSCALERS, autoscaler)]));
        controller.plan(&view, &ObjectKey::new("d", "web"), NOW.parse().unwrap())
    }
    fn check(scale: Value, used: &[i64], expected: Expect) {
        let plan = plan(&controller(), autoscaler(), pods(used.len()));
        assert_eq!(plan.to_string(), "ask /apis/apps/v1/namespaces/d/deployments/web/scale\n");
        let now = NOW.parse().unwrap();
        let plan = plan.answered(vec![Ok(scale)], now);
        let plan = if plan.ask.is_some() { plan.answered(vec![Ok(metrics(used))], now) } else { plan };
        expected.assert_eq(&plan.to_string());
    }

    #[test]
    fn twice_the_use_asks_for_twice_as_many() {
        check(
            scale(2),
            &[1000, 1000],
            expect![[r#"
            update deployments/scale d/web {"spec":{"replicas":4}}
            event Normal SuccessfulRescale: New size: 4; reason: cpu resource utilization (percentage of request) above target
            update horizontalpodautoscalers/status d/web {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T01:00:00Z","message":"the HPA controller was able to update the target scale to 4","reason":"SucceededRescale","status":"True","type":"AbleToScale"},{"lastTransitionTime":"2026-01-01T01:00:00Z","message":"the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)","reason":"ValidMetricFound","status":"True","type":"ScalingActive"},{"lastTransitionTime":"2026-01-01T01:00:00Z","message":"the desired count is within the acceptable range","reason":"DesiredWithinRange","status":"False","type":"ScalingLimited"},{"lastTransitionTime":"2026-01-01T01:00:00Z","message":"the HPA controller did not scale the workload to zero","reason":"NotScaledToZero","status":"False","type":"ScaledToZero"}],"currentMetrics":[{"resource":{"current":{"averageUtilization":100,"averageValue":"1"},"name":"cpu"},"type":"Resource"}],"currentReplicas":2,"desiredReplicas":4,"lastScaleTime":"2026-01-01T01:00:00Z","observedGeneration":1}}
            again at 2026-01-01T01:00:15Z
        "#]],
        );
    }

    #[test]
    fn above_the_most_it_scales_without_a_look_at_metrics() {
        check(
            scale(12),
            &[],
            expect![[r#"
            update deployments/scale d/web {"spec":{"replicas":10}}
            event Normal SuccessfulRescale: New size: 10; reason: Current number of replicas above Spec.MaxReplicas
            update horizontalpodautoscalers/status d/web {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T01:00:00Z","message":"the HPA controller was able to update the target scale to 10","reason":"SucceededRescale","status":"True","type":"AbleToScale"},{"lastTransitionTime":"2026-01-01T01:00:00Z","message":"the HPA controller did not scale the workload to zero","reason":"NotScaledToZero","status":"False","type":"ScaledToZero"}],"currentMetrics":[],"currentReplicas":12,"desiredReplicas":10,"lastScaleTime":"2026-01-01T01:00:00Z","observedGeneration":1}}
            again at 2026-01-01T01:00:15Z
        "#]],
        );
    }

    #[test]
    fn at_zero_it_is_switched_off() {
        check(
            scale(0),
            &[],
            expect![[r#"
            update horizontalpodautoscalers/status d/web {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T01:00:00Z","message":"the HPA controller was able to get the target's current scale","reason":"SucceededGetScale","status":"True","type":"AbleToScale"},{"lastTransitionTime":"2026-01-01T01:00:00Z","message":"scaling is disabled since the replica count of the target is zero","reason":"ScalingDisabled","status":"False","type":"ScalingActive"}],"currentMetrics":[],"currentReplicas":0,"desiredReplicas":0,"observedGeneration":1}}
            again at 2026-01-01T01:00:15Z
        "#]],
        );
    }

    #[test]
    fn without_metrics_it_says_why_and_leaves_the_number_alone() {
        let now = NOW.parse().unwrap();
        let plan = plan(&controller(), autoscaler(), pods(1)).answered(vec![Ok(scale(1))], now);
        assert_eq!(plan.to_string(), "ask /apis/metrics.k8s.io/v1beta1/namespaces/d/pods?labelSelector=app%3Dweb\n");
        let plan = plan.answered(vec![Err(Error::from(Status::new(404, "", "404 page not found")))], now);
        let text = plan.to_string();
        let events: Vec<&str> = text.lines().filter(|l| l.starts_with("event")).collect();
        let why = "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)";
        assert_eq!(
            events,
            [
                format!("event Warning FailedGetResourceMetric: {why}"),
                format!(
                    "event Warning FailedComputeMetricsReplicas: invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: {why}"
                ),
            ]
        );
        assert!(
            text.contains(r#""reason":"FailedGetResourceMetric","status":"False","type":"ScalingActive""#),
            "{text}"
        );
    }

    #[test]
    fn a_target_that_is_not_there_is_told() {
        let mut unknown = autoscaler();
        unknown["spec"]["scaleTargetRef"]["kind"] = "Robot".into();
        let text = plan(&controller(), unknown, vec![]).to_string();
        assert!(
            text.starts_with(r#"event Warning FailedGetScale: no matches for kind "Robot" in group "apps""#),
            "{text}"
        );
        let gone = Err(Error::from(Status::not_found("deployments.apps", "web")));
        let text = plan(&controller(), autoscaler(), vec![]).answered(vec![gone], NOW.parse().unwrap()).to_string();
        assert!(text.contains("FailedGetScale: deployments.apps \"web\" not found"), "{text}");
    }

    #[test]
    fn two_that_pull_at_the_same_pods_both_stop() {
        let controller = controller();
        let mut other = autoscaler();
        other["metadata"]["name"] = "other".into();
        let now = NOW.parse().unwrap();
        let view = View::of(
            pods(1).into_iter().chain([(HORIZONTALPODAUTOSCALERS, other), (HORIZONTALPODAUTOSCALERS, autoscaler())]),
        );
        let first = controller.plan(&view, &ObjectKey::new("d", "other"), now).answered(vec![Ok(scale(1))], now);
        assert!(first.ask.is_some());
        let second = controller.plan(&view, &ObjectKey::new("d", "web"), now).answered(vec![Ok(scale(1))], now);
        assert!(second.to_string().contains(
            "AmbiguousSelector: pods by selector app=web are controlled by more than one HPA (e.g. [d/other d/web])"
        ));
    }
}
