//! What the API shows of one container.
//!
//! Owns: waiting reasons, the last state, ready and started.
//! Called by: the pod status computation.
//! Never: reads files: termination messages are in what was observed.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::lifecycle;
use crate::memory::{FailureKind, Memory, Verdict};
use crate::mounts::is_recursively_read_only;
use crate::observed::{Container, Observed, State};
use crate::pod::{ContainerKind, Pod};
use crate::resize::{self, Resize};
use crate::resources::ResourceList;

/// Exit code of a container that vanished from the runtime: that of a kill.
const LOST_EXIT_CODE: i32 = 137;

pub struct Inputs<'a> {
    pub pod: &'a Pod,
    pub seen: &'a Observed,
    pub memory: &'a Memory,
    /// Scheme of container ids, such as `minik`.
    pub runtime_name: &'a str,
}

pub fn container_status(inputs: &Inputs, kind: ContainerKind, spec: &core::Container) -> core::ContainerStatus {
    let latest = inputs.seen.latest(&spec.name);
    let old = told_before(inputs.pod, kind, &spec.name);
    let Some(latest) = latest else { return without_record(inputs, spec, old) };
    let failure = inputs.memory.failure(&spec.name);
    let previous = inputs.seen.previous(&spec.name).map(|c| terminated(inputs, c));
    let (state, last) = match latest.state {
        State::Running => (running(latest), previous),
        State::Exited => match failure {
            // A failed pull or configuration of the next run, or the wait for it.
            Some(failure) if failure.kind != FailureKind::Run || latest.started_at.is_none() => {
                (waiting(&failure.reason, &failure.message), Some(terminated(inputs, latest)))
            }
            Some(_) | None => (terminated(inputs, latest), previous),
        },
        State::Created => match failure {
            Some(failure) => (waiting(&failure.reason, &failure.message), previous),
            None => (waiting(default_waiting(inputs.pod), ""), previous),
        },
        State::Unknown => (lost("The container could not be located when the pod was observed"), previous),
    };
    let last =
        last.or_else(|| old.and_then(|o| o.last_state.clone()).filter(|s| *s != core::ContainerState::default()));
    let started = match kind {
        ContainerKind::Init | ContainerKind::Ephemeral => latest.state == State::Running,
        ContainerKind::Sidecar | ContainerKind::App => lifecycle::started(spec, latest, inputs.memory),
    };
    core::ContainerStatus {
        name: spec.name.clone(),
        image: if latest.image.is_empty() { spec.image.clone().unwrap_or_default() } else { latest.image.clone() },
        image_id: latest.image_ref.clone(),
        container_id: Some(format!("{}://{}", inputs.runtime_name, latest.id)),
        restart_count: latest.restart_count,
        ready: ready(kind, spec, latest, started, inputs.memory),
        started: Some(started),
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        allocated_resources: allocated(inputs, spec, latest),
        resources: Some(given(inputs, spec, latest)),
        volume_mounts: mounts(spec),
        user: latest.user.as_ref().map(user),
        ..Default::default()
    }
}

/// What it has now, which a resize is still to change.
fn given(inputs: &Inputs, spec: &core::Container, c: &Container) -> core::ResourceRequirements {
    match (c.state, c.resources_asked.is_empty()) {
        (State::Running, false) => resize::actual(c, inputs.memory),
        _ => spec.resources.clone().unwrap_or_default(),
    }
}

/// Granted as soon as the node can give it, before the container has it.
fn allocated(inputs: &Inputs, spec: &core::Container, c: &Container) -> Option<ResourceList> {
    match resize::resize(inputs.pod, spec, c, inputs.memory) {
        Resize::Infeasible(_) => resize::actual(c, inputs.memory).requests,
        Resize::Settled | Resize::InPlace | Resize::Restart => spec.resources.as_ref()?.requests.clone(),
    }
}

fn told_before<'a>(pod: &'a Pod, kind: ContainerKind, name: &str) -> Option<&'a core::ContainerStatus> {
    let list = match kind {
        ContainerKind::Init | ContainerKind::Sidecar => &pod.api_status.init_container_statuses,
        ContainerKind::App => &pod.api_status.container_statuses,
        ContainerKind::Ephemeral => &pod.api_status.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|s| s.name == name)
}

/// Not started yet, or the runtime forgot it (a node that lost its disk): then what was told stays true.
fn without_record(
    inputs: &Inputs,
    spec: &core::Container,
    old: Option<&core::ContainerStatus>,
) -> core::ContainerStatus {
    let ended = inputs.memory.stage.termination().is_some();
    let old_state = old.and_then(|o| o.state.as_ref());
    if let (Some(old), Some(state)) = (old, old_state) {
        if state.terminated.is_some() && ended {
            return old.clone();
        }
        if state.running.is_some() {
            let gone = lost("The container could not be located when the pod was terminated");
            let (state, last) = match ended {
                true => (gone, old.last_state.clone().unwrap_or_default()),
                false => (waiting(default_waiting(inputs.pod), ""), gone),
            };
            let (state, last_state) = (Some(state), Some(last));
            return core::ContainerStatus { state, last_state, ready: false, started: Some(false), ..old.clone() };
        }
    }
    let (reason, message) = match inputs.memory.failure(&spec.name) {
        Some(failure) => (failure.reason.as_str(), failure.message.as_str()),
        None => (default_waiting(inputs.pod), ""),
    };
    core::ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        restart_count: old.map_or(0, |o| o.restart_count),
        started: Some(false),
        state: Some(waiting(reason, message)),
        last_state: Some(old.and_then(|o| o.last_state.clone()).unwrap_or_default()),
        volume_mounts: mounts(spec),
        ..Default::default()
    }
}

fn default_waiting(pod: &Pod) -> &'static str {
    if pod.spec.init_containers.as_ref().is_some_and(|c| !c.is_empty()) {
        "PodInitializing"
    } else {
        "ContainerCreating"
    }
}

fn waiting(reason: &str, message: &str) -> core::ContainerState {
    let message = (!message.is_empty()).then(|| message.to_string());
    let waiting = core::ContainerStateWaiting { reason: Some(reason.into()), message };
    core::ContainerState { waiting: Some(waiting), ..Default::default() }
}

fn running(c: &Container) -> core::ContainerState {
    let running = core::ContainerStateRunning { started_at: c.started_at.map(second) };
    core::ContainerState { running: Some(running), ..Default::default() }
}

fn terminated(inputs: &Inputs, c: &Container) -> core::ContainerState {
    let reason = match (c.reason.as_str(), c.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let terminated = core::ContainerStateTerminated {
        container_id: Some(format!("{}://{}", inputs.runtime_name, c.id)),
        exit_code: c.exit_code,
        reason: Some(reason.into()),
        message: (!c.message.is_empty()).then(|| c.message.clone()),
        started_at: c.started_at.or(Some(c.created_at)).map(second),
        finished_at: c.finished_at.or(Some(c.created_at)).map(second),
        signal: None,
    };
    core::ContainerState { terminated: Some(terminated), ..Default::default() }
}

fn lost(message: &str) -> core::ContainerState {
    let terminated = core::ContainerStateTerminated {
        exit_code: LOST_EXIT_CODE,
        reason: Some("ContainerStatusUnknown".into()),
        message: Some(message.into()),
        ..Default::default()
    };
    core::ContainerState { terminated: Some(terminated), ..Default::default() }
}

/// The API keeps whole seconds.
pub fn second(t: jiff::Timestamp) -> Time {
    Time(jiff::Timestamp::from_second(t.as_second()).expect("a second of a timestamp is one"))
}

fn ready(kind: ContainerKind, spec: &core::Container, c: &Container, started: bool, memory: &Memory) -> bool {
    match kind {
        ContainerKind::Init => c.state == State::Exited && c.exit_code == 0,
        ContainerKind::Ephemeral => false,
        ContainerKind::Sidecar | ContainerKind::App if !started => false,
        ContainerKind::Sidecar | ContainerKind::App => {
            spec.readiness_probe.is_none()
                || memory.probes.get(&c.id).is_some_and(|p| p.readiness == Some(Verdict::Success))
        }
    }
}

fn mounts(spec: &core::Container) -> Option<Vec<core::VolumeMountStatus>> {
    let list = spec.volume_mounts.iter().flatten().map(|m| core::VolumeMountStatus {
        name: m.name.clone(),
        mount_path: m.mount_path.clone(),
        read_only: m.read_only.filter(|r| *r),
        recursive_read_only: m
            .read_only
            .filter(|r| *r)
            .map(|_| if is_recursively_read_only(m) { "Enabled" } else { "Disabled" }.to_string()),
        ..Default::default()
    });
    let list: Vec<_> = list.collect();
    (!list.is_empty()).then_some(list)
}

fn user(user: &k8s_cri::v1::LinuxContainerUser) -> core::ContainerUser {
    core::ContainerUser {
        linux: Some(core::LinuxContainerUser {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: Some(user.supplemental_groups.clone()),
        }),
    }
}
