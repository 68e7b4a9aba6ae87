//! What the API shows of a pod: phase, conditions, addresses, and its containers.
//!
//! Owns: the status and the patch that brings the API server's copy up to it.
//! Called by: the pod worker after every look at the runtime.
//! Never: touches conditions that belong to others, such as readiness gates.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use serde_json::{Map, Value, json};

use crate::container_status::{self, container_status, second};
use crate::lifecycle;
use crate::memory::{Memory, Resizing, Stage, Why};
use crate::observed::{Observed, State};
use crate::pod::{ContainerKind, Pod, RestartPolicy};
use crate::resize;
use crate::resources;

pub struct Inputs<'a> {
    pub pod: &'a Pod,
    pub seen: &'a Observed,
    pub memory: &'a Memory,
    pub host_ip: IpAddr,
    pub runtime_name: &'a str,
    pub now: Timestamp,
}

pub fn pod_status(inputs: &Inputs) -> core::PodStatus {
    let Inputs { pod, seen, memory, .. } = inputs;
    let of = container_status::Inputs { pod, seen, memory, runtime_name: inputs.runtime_name };
    let list = |items: Vec<core::ContainerStatus>| (!items.is_empty()).then_some(items);
    let init: Vec<_> = pod.init_containers().map(|(kind, c)| container_status(&of, kind, c)).collect();
    let apps: Vec<_> = pod.app_containers().map(|c| container_status(&of, ContainerKind::App, c)).collect();
    let ephemeral = pod.ephemeral_containers().map(|c| container_status(&of, ContainerKind::Ephemeral, c)).collect();
    let phase = published_phase(inputs);
    let (reason, message) = match memory.stage.termination().map(|t| &t.why) {
        Some(Why::Failed { reason, message }) if phase == "Failed" => (Some(reason.clone()), Some(message.clone())),
        Some(Why::Failed { .. } | Why::Deleted | Why::Completed) | None => {
            (pod.api_status.reason.clone(), pod.api_status.message.clone())
        }
    };
    let host = inputs.host_ip.to_string();
    let ips = match seen.sandbox() {
        _ if pod.host_network() => vec![host.clone()],
        Some(sandbox) if !sandbox.ips.is_empty() => sandbox.ips.clone(),
        Some(_) | None => pod.api_status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
    };
    let conditions = conditions(inputs, phase, &init, &apps);
    core::PodStatus {
        phase: Some(phase.into()),
        conditions: Some(conditions),
        reason,
        message,
        host_ip: Some(host.clone()),
        host_ips: Some(vec![core::HostIP { ip: host }]),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| core::PodIP { ip }).collect()),
        start_time: pod.api_status.start_time.clone().or_else(|| Some(second(inputs.now))),
        init_container_statuses: list(init),
        container_statuses: list(apps),
        ephemeral_container_statuses: list(ephemeral),
        qos_class: pod.api_status.qos_class.clone().or_else(|| Some(resources::qos_class(pod).as_str().into())),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    }
}

/// A pod is not called done while a container of it may still run: others take its place as soon as it is.
fn published_phase(inputs: &Inputs) -> &'static str {
    let phase = phase(inputs.pod, inputs.seen, inputs.memory);
    if !matches!(phase, "Succeeded" | "Failed") {
        return phase;
    }
    let settled = match inputs.memory.stage {
        Stage::Running => false,
        Stage::Terminating(_) => inputs.seen.running().next().is_none() && inputs.memory.all_idle(),
        Stage::Terminated(_) => true,
    };
    match (settled, inputs.pod.api_status.phase.as_deref()) {
        (true, _) | (false, Some("Succeeded" | "Failed")) => phase,
        (false, Some("Running")) => "Running",
        (false, _) if inputs.seen.containers.is_empty() => "Pending",
        (false, _) => "Running",
    }
}

pub fn phase(pod: &Pod, seen: &Observed, memory: &Memory) -> &'static str {
    // What was once told stays: a terminal phase never changes again.
    match pod.api_status.phase.as_deref() {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    if let Some(Why::Failed { .. }) = memory.stage.termination().map(|t| &t.why) {
        return "Failed";
    }
    let records: Vec<_> = pod.app_containers().map(|c| (c, seen.latest(&c.name))).collect();
    let ended = |c: &core::Container| seen.latest(&c.name).filter(|r| r.state == State::Exited);
    let all_ended = records.iter().all(|(c, _)| ended(c).is_some());
    let all_succeeded = records.iter().all(|(c, _)| ended(c).is_some_and(|r| r.exit_code == 0));
    if memory.stage.termination().is_some() && seen.running().next().is_none() {
        return if all_succeeded && !lifecycle::init_failed(pod, seen) { "Succeeded" } else { "Failed" };
    }
    if lifecycle::init_failed(pod, seen) {
        return "Failed";
    }
    if !lifecycle::initialized(pod, seen, memory) && records.iter().all(|(_, r)| r.is_none()) {
        return "Pending";
    }
    // A container that never ran keeps the whole pod Pending; one that waits to run again does not.
    if records.iter().any(|(_, r)| r.is_none_or(|r| r.state == State::Created)) {
        return "Pending";
    }
    if !all_ended || records.iter().any(|(c, r)| r.is_some_and(|r| lifecycle::restarts(ContainerKind::App, c, r, pod)))
    {
        return "Running";
    }
    match pod.restart_policy() {
        _ if all_succeeded => "Succeeded",
        RestartPolicy::Always | RestartPolicy::OnFailure | RestartPolicy::Never => "Failed",
    }
}

/// Conditions of ours that are there only while they hold.
const PASSING: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// Type, status, reason, message.
type Finding = (&'static str, bool, Option<&'static str>, Option<String>);

fn conditions(
    inputs: &Inputs,
    phase: &str,
    init: &[core::ContainerStatus],
    apps: &[core::ContainerStatus],
) -> Vec<core::PodCondition> {
    let sandbox = inputs.seen.sandbox().filter(|s| s.ready);
    let has_network = sandbox.is_some_and(|s| inputs.pod.host_network() || !s.ips.is_empty());
    let containers_ready = containers_ready(inputs, phase, init, apps);
    let ready = pod_ready(inputs, &containers_ready);
    let findings = [
        ("PodReadyToStartContainers", has_network, None, None),
        initialized(inputs, phase, init),
        ready,
        containers_ready,
        ("PodScheduled", true, None, None),
    ];
    let mut list: Vec<_> = findings.into_iter().map(|finding| condition(inputs, finding)).collect();
    let (pending, in_progress) = resize::progress(inputs.pod, inputs.seen, inputs.memory);
    if let Some(why) = pending {
        list.push(condition(inputs, ("PodResizePending", true, Some("Infeasible"), Some(why))));
    }
    if in_progress {
        let error = inputs.memory.resizing.values().find_map(|r| match r {
            Resizing::Failed { message, .. } => Some(message.clone()),
            Resizing::UnderWay => None,
        });
        let reason = error.is_some().then_some("Error");
        list.push(condition(inputs, ("PodResizeInProgress", true, reason, error)));
    }
    list
}

fn condition(inputs: &Inputs, (kind, status, reason, message): Finding) -> core::PodCondition {
    let status = if status { "True" } else { "False" };
    let old = inputs.pod.api_status.conditions.iter().flatten().find(|c| c.type_ == kind);
    let since = old.filter(|o| o.status == status).and_then(|o| o.last_transition_time.clone());
    core::PodCondition {
        type_: kind.into(),
        status: status.into(),
        reason: reason.map(String::from),
        message,
        last_transition_time: since.or_else(|| Some(second(inputs.now))),
        observed_generation: inputs.pod.metadata.generation,
        ..Default::default()
    }
}

fn initialized(inputs: &Inputs, phase: &str, init: &[core::ContainerStatus]) -> Finding {
    const KIND: &str = "Initialized";
    if phase == "Succeeded" {
        return (KIND, true, Some("PodCompleted"), None);
    }
    let began = inputs.pod.app_containers().any(|c| inputs.seen.latest(&c.name).is_some());
    let incomplete: Vec<&str> = inputs
        .pod
        .init_containers()
        .zip(init)
        .filter(|((kind, _), status)| match kind {
            ContainerKind::Sidecar => status.started != Some(true),
            ContainerKind::Init | ContainerKind::App | ContainerKind::Ephemeral => !status.ready,
        })
        .map(|(_, status)| status.name.as_str())
        .collect();
    if began || incomplete.is_empty() {
        return (KIND, true, None, None);
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    (KIND, false, Some("ContainersNotInitialized"), Some(message))
}

fn containers_ready(
    inputs: &Inputs,
    phase: &str,
    init: &[core::ContainerStatus],
    apps: &[core::ContainerStatus],
) -> Finding {
    const KIND: &str = "ContainersReady";
    match phase {
        "Succeeded" => return (KIND, false, Some("PodCompleted"), None),
        "Failed" => return (KIND, false, Some("PodFailed"), None),
        _ => {}
    }
    let sidecars = inputs.pod.init_containers().zip(init).filter(|((k, _), _)| *k == ContainerKind::Sidecar);
    let unready: Vec<&str> =
        sidecars.map(|(_, s)| s).chain(apps).filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    if unready.is_empty() {
        return (KIND, true, None, None);
    }
    (KIND, false, Some("ContainersNotReady"), Some(format!("containers with unready status: [{}]", unready.join(" "))))
}

fn pod_ready(inputs: &Inputs, containers: &Finding) -> Finding {
    const KIND: &str = "Ready";
    let (_, true, _, _) = containers else { return (KIND, containers.1, containers.2, containers.3.clone()) };
    let mut problems = Vec::new();
    for gate in inputs.pod.spec.readiness_gates.iter().flatten() {
        let name = &gate.condition_type;
        match inputs.pod.api_status.conditions.iter().flatten().find(|c| c.type_ == *name) {
            None => problems.push(format!("corresponding condition of pod readiness gate {name:?} does not exist.")),
            Some(c) if c.status != "True" => {
                problems.push(format!("the status of pod readiness gate {name:?} is not \"True\", but {}", c.status))
            }
            Some(_) => {}
        }
    }
    if problems.is_empty() {
        return (KIND, true, None, None);
    }
    (KIND, false, Some("ReadinessGatesNotReady"), Some(problems.join(", ")))
}

/// What the API server will say once it has what was told: conditions of others are its own.
pub fn newest(api: &core::PodStatus, told: &core::PodStatus) -> core::PodStatus {
    let mut conditions = told.conditions.clone().unwrap_or_default();
    let others = api.conditions.iter().flatten().filter(|c| {
        !PASSING.contains(&c.type_.as_str()) && !told.conditions.iter().flatten().any(|t| t.type_ == c.type_)
    });
    conditions.extend(others.cloned());
    core::PodStatus {
        conditions: Some(conditions),
        resize: api.resize.clone(),
        resource_claim_statuses: api.resource_claim_statuses.clone(),
        ..told.clone()
    }
}

/// Brings `old` (the API server's) to `new`; `None` when there is nothing to change.
pub fn patch(uid: &str, old: &core::PodStatus, new: &core::PodStatus) -> Option<Value> {
    let (old, new) = (to_map(old), to_map(new));
    let mut changed = Map::new();
    for (field, value) in &new {
        let same = match field.as_str() {
            // Only our own conditions are compared; the server merges by type.
            "conditions" => includes(old.get(field), value) && passed(old.get(field), value).is_empty(),
            _ => old.get(field) == Some(value),
        };
        if same {
            continue;
        }
        let mut value = value.clone();
        if field == "conditions" {
            clear_absent(old.get(field), &mut value);
            let gone = passed(old.get(field), &value);
            value.as_array_mut().expect("conditions are a list").extend(gone);
        }
        if matches!(field.as_str(), "podIPs" | "hostIPs") && old.contains_key(field) {
            // Merged by ip otherwise: the address of the sandbox before would stay.
            value.as_array_mut().expect("addresses are a list").push(json!({"$patch": "replace"}));
        }
        changed.insert(field.clone(), value);
    }
    for field in ["reason", "message", "podIP", "podIPs", "initContainerStatuses", "ephemeralContainerStatuses"] {
        if old.contains_key(field) && !new.contains_key(field) {
            changed.insert(field.into(), Value::Null);
        }
    }
    (!changed.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": changed}))
}

/// Conditions are merged field by field: a reason that no longer holds must be taken away by name.
fn clear_absent(old: Option<&Value>, new: &mut Value) {
    let old = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for condition in new.as_array_mut().into_iter().flatten() {
        let Some(before) = old.iter().find(|o| o["type"] == condition["type"]) else { continue };
        for field in ["reason", "message"] {
            if before.get(field).is_some() && condition.get(field).is_none() {
                condition[field] = Value::Null;
            }
        }
    }
}

/// Deletes conditions that no longer hold.
fn passed(old: Option<&Value>, new: &Value) -> Vec<Value> {
    let has = |list: Option<&Value>, kind: &str| {
        list.and_then(Value::as_array).into_iter().flatten().any(|c| c["type"] == kind)
    };
    let gone = PASSING.into_iter().filter(|kind| has(old, kind) && !has(Some(new), kind));
    gone.map(|kind| json!({"$patch": "delete", "type": kind})).collect()
}

fn to_map(status: &core::PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status).expect("a status is plain data") {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn includes(old: Option<&Value>, new: &Value) -> bool {
    let old = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    new.as_array().into_iter().flatten().all(|c| old.iter().any(|o| o["type"] == c["type"] && same_condition(o, c)))
}

fn same_condition(old: &Value, new: &Value) -> bool {
    ["status", "reason", "message", "observedGeneration", "lastTransitionTime"].iter().all(|f| old[f] == new[f])
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
