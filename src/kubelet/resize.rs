//! In-place resize: a running container follows the resources its spec now asks for.
//!
//! Owns: comparing what a container has with what it should have, and whether the node could ever give it.
//! Called by: the plan for running containers, and pod status.
//! Never: changes a cgroup; the runtime does.

use k8s_openapi::api::core::v1 as core;

use crate::memory::Memory;
use crate::observed::{Container, Observed, State};
use crate::pod::Pod;
use crate::resources::{self, ResourceList};

#[derive(Clone, Debug, PartialEq)]
pub enum Resize {
    /// It has what it should.
    Settled,
    InPlace,
    /// Its `resizePolicy` wants a restart for what changed.
    Restart,
    /// The node is too small, whatever else runs on it.
    Infeasible(String),
}

/// What the running container was given: at its start, or by the last resize.
pub fn actual(running: &Container, memory: &Memory) -> core::ResourceRequirements {
    match memory.resized.get(&running.id) {
        Some(resources) => resources.clone(),
        None => serde_json::from_str(&running.resources_asked).unwrap_or_default(),
    }
}

pub fn resize(pod: &Pod, spec: &core::Container, running: &Container, memory: &Memory) -> Resize {
    // A container of another kubelet says nothing about it.
    if running.resources_asked.is_empty() {
        return Resize::Settled;
    }
    let wanted = spec.resources.clone().unwrap_or_default();
    let has = actual(running, memory);
    if same(&has, &wanted) {
        return Resize::Settled;
    }
    if let Some(why) = too_large(pod, &memory.node_allocatable) {
        return Resize::Infeasible(why);
    }
    let restart =
        spec.resize_policy.iter().flatten().any(|policy| {
            policy.restart_policy == "RestartContainer" && !same_of(&has, &wanted, &policy.resource_name)
        });
    if restart { Resize::Restart } else { Resize::InPlace }
}

fn same(a: &core::ResourceRequirements, b: &core::ResourceRequirements) -> bool {
    ["cpu", "memory"].iter().all(|name| same_of(a, b, name))
}

fn same_of(a: &core::ResourceRequirements, b: &core::ResourceRequirements, name: &str) -> bool {
    let amount = |list: &Option<ResourceList>| {
        list.as_ref()
            .and_then(|l| l.get(name))
            .map(|q| if name == "cpu" { resources::milli(q) } else { resources::units(q) })
    };
    amount(&a.requests) == amount(&b.requests) && amount(&a.limits) == amount(&b.limits)
}

/// The pod's requests against all the node has to give.
fn too_large(pod: &Pod, allocatable: &ResourceList) -> Option<String> {
    for (name, count) in [("cpu", resources::milli as fn(&_) -> i64), ("memory", resources::units)] {
        let asked =
            pod.spec.containers.iter().filter_map(|c| resources::requests(c)?.get(name)).map(count).sum::<i64>();
        let Some(capacity) = allocatable.get(name).map(count) else { continue };
        if asked > capacity {
            return Some(format!("Node didn't have enough capacity: {name}, requested: {asked}, capacity: {capacity}"));
        }
    }
    None
}

/// What the pod's conditions say of it: (PodResizePending's message, PodResizeInProgress).
pub fn progress(pod: &Pod, seen: &Observed, memory: &Memory) -> (Option<String>, bool) {
    let mut pending = None;
    let mut in_progress = false;
    for spec in pod.app_containers() {
        let Some(running) = seen.latest(&spec.name).filter(|c| c.state == State::Running) else { continue };
        match resize(pod, spec, running, memory) {
            Resize::Settled => {}
            Resize::InPlace | Resize::Restart => in_progress = true,
            Resize::Infeasible(why) => pending = Some(why),
        }
    }
    (pending, in_progress)
}

/// The event that tells of a finished resize.
pub fn completed_message(pod: &Pod) -> String {
    let of = |c: &core::Container| serde_json::json!({"name": c.name, "resources": c.resources});
    let init: Vec<_> = pod.spec.init_containers.iter().flatten().map(of).collect();
    let containers: Vec<_> = pod.spec.containers.iter().map(of).collect();
    let mut summary = serde_json::json!({"containers": containers, "generation": pod.metadata.generation});
    if !init.is_empty() {
        summary["initContainers"] = init.into();
    }
    format!("Pod resize completed: {summary}")
}
