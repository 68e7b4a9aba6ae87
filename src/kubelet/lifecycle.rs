//! What one container of a running pod needs next, and what its history means for the pod.
//!
//! Owns: restart policies, back-off decisions, when an init container has let the next one pass, when a pod is done.
//! Called by: the plan, and the status computation for the phase.
//! Never: reads the clock or does anything.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;

use crate::memory::{ContainerOp, FailureKind, Memory, ProbeResults, Resizing, Verdict};
use crate::observed::{Container, Observed, State};
use crate::plan::{BackOff, Kill, Start};
use crate::pod::{self, ContainerKind, Pod, RestartPolicy};
use crate::resize::{self, Resize};

/// How long the plain failure (`Error`, `ErrImagePull`) is shown before the back-off that follows from it.
const BACKOFF_SHOWN_AFTER: SignedDuration = SignedDuration::from_secs(1);
/// A missing ConfigMap or the like: its watch is already open, so looking again costs nothing.
const CONFIG_RETRY: SignedDuration = SignedDuration::from_secs(2);

#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    Nothing,
    Start(Start),
    Kill(Kill),
    Resize { id: String, container: String },
    WaitUntil(Timestamp),
    ShowBackOff { container: String, until: Timestamp, what: BackOff },
}

/// What a container of a standing sandbox needs; ephemeral ones have `next_ephemeral`.
pub fn next(
    kind: ContainerKind,
    spec: &core::Container,
    pod: &Pod,
    seen: &Observed,
    memory: &Memory,
    now: Timestamp,
) -> Next {
    if *memory.op(&spec.name) != ContainerOp::Idle {
        return Next::Nothing;
    }
    let current = latest_here(kind, spec, seen);
    match current.map(|c| (c, c.state)) {
        Some((c, State::Running)) => unhealthy(kind, spec, c, pod, memory, now),
        Some((c, State::Exited)) if !restarts(kind, spec, c, pod) => Next::Nothing,
        Some((c, State::Exited)) => retry(kind, spec, pod, seen, memory, Some(ended_at(c)), now),
        Some((c, State::Created)) => {
            let failed = memory.failure(&spec.name).filter(|f| f.kind != FailureKind::Config).map(|_| c.created_at);
            retry(kind, spec, pod, seen, memory, failed, now)
        }
        Some((c, State::Unknown)) => Next::Kill(Kill {
            id: c.id.clone(),
            container: c.name.clone(),
            message: format!("Container {} is in an unknown state, try killing it before restart", c.name),
            deadline: now + SignedDuration::from_secs(pod.grace_seconds()),
        }),
        None => retry(kind, spec, pod, seen, memory, None, now),
    }
}

/// An ephemeral container starts once and is never started again.
pub fn next_ephemeral(spec: &core::Container, seen: &Observed, memory: &Memory, now: Timestamp) -> Next {
    if *memory.op(&spec.name) != ContainerOp::Idle || seen.latest(&spec.name).is_some() {
        return Next::Nothing;
    }
    match waits(spec, memory, None, now) {
        Some(next) => next,
        None => Next::Start(Start {
            container: spec.name.clone(),
            kind: ContainerKind::Ephemeral,
            attempt: 0,
            failed_at: None,
        }),
    }
}

/// Init containers run again in a new sandbox; the others carry their history over.
fn latest_here<'a>(kind: ContainerKind, spec: &core::Container, seen: &'a Observed) -> Option<&'a Container> {
    let latest = seen.latest(&spec.name)?;
    match kind {
        ContainerKind::Init | ContainerKind::Sidecar => {
            (seen.sandbox().is_some_and(|s| s.id == latest.sandbox_id)).then_some(latest)
        }
        ContainerKind::App | ContainerKind::Ephemeral => Some(latest),
    }
}

fn ended_at(c: &Container) -> Timestamp {
    c.finished_at.unwrap_or(c.created_at)
}

/// Whether a container that ended is to start again.
pub fn restarts(kind: ContainerKind, spec: &core::Container, ended: &Container, pod: &Pod) -> bool {
    if let Some(rule) = matching_rule(spec, ended.exit_code) {
        return rule == "Restart";
    }
    let policy = match kind {
        ContainerKind::Sidecar => return true,
        ContainerKind::Ephemeral => return false,
        ContainerKind::Init | ContainerKind::App => {
            spec.restart_policy.as_deref().and_then(RestartPolicy::parse).unwrap_or(pod.restart_policy())
        }
    };
    match (policy, kind) {
        (RestartPolicy::Never, _) => false,
        // An init container that succeeded is done under every policy.
        (RestartPolicy::Always, ContainerKind::Init) | (RestartPolicy::OnFailure, _) => ended.exit_code != 0,
        (RestartPolicy::Always, _) => true,
    }
}

/// `restartPolicyRules` (KEP-5307): the first rule that names the exit code decides.
fn matching_rule(spec: &core::Container, exit_code: i32) -> Option<&str> {
    spec.restart_policy_rules.iter().flatten().find_map(|rule| {
        let codes = rule.exit_codes.as_ref()?;
        let listed = codes.values.iter().flatten().any(|v| *v == exit_code);
        let matches = match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        matches.then_some(rule.action.as_str())
    })
}

fn unhealthy(
    kind: ContainerKind,
    spec: &core::Container,
    running: &Container,
    pod: &Pod,
    memory: &Memory,
    now: Timestamp,
) -> Next {
    let probes = memory.probes.get(&running.id).cloned().unwrap_or_default();
    let failed = |v: Option<Verdict>| v == Some(Verdict::Failure);
    let (why, grace) = if !running.hash.is_empty() && running.hash != pod::container_hash(spec) {
        (format!("Container {} definition changed", spec.name), None)
    } else if failed(probes.startup) {
        (format!("Container {} failed startup probe", spec.name), probe_grace(spec.startup_probe.as_ref()))
    } else if failed(probes.liveness) {
        (format!("Container {} failed liveness probe", spec.name), probe_grace(spec.liveness_probe.as_ref()))
    } else {
        match resized(spec, running, pod, memory, now) {
            Next::Kill(kill) => (kill.message, None),
            other => return other,
        }
    };
    let killed = Container { exit_code: 137, ..running.clone() };
    let again = restarts(kind, spec, &killed, pod);
    let message = if again { format!("{why}, will be restarted") } else { why };
    let grace = grace.unwrap_or(pod.spec.termination_grace_period_seconds.unwrap_or(30)).max(1);
    let deadline = now + SignedDuration::from_secs(grace);
    Next::Kill(Kill { id: running.id.clone(), container: spec.name.clone(), message, deadline })
}

/// A running container whose spec asks for other resources than it has. A restart is told as a kill with its reason.
fn resized(spec: &core::Container, running: &Container, pod: &Pod, memory: &Memory, now: Timestamp) -> Next {
    match (resize::resize(pod, spec, running, memory), memory.resizing.get(&running.id)) {
        (Resize::Settled | Resize::Infeasible(_), _) | (_, Some(Resizing::UnderWay)) => Next::Nothing,
        (_, Some(Resizing::Failed { retry_at, .. })) if *retry_at > now => Next::WaitUntil(*retry_at),
        (Resize::InPlace, _) => Next::Resize { id: running.id.clone(), container: spec.name.clone() },
        (Resize::Restart, _) => Next::Kill(Kill {
            id: running.id.clone(),
            container: spec.name.clone(),
            message: format!("Container {} resize requires restart", spec.name),
            deadline: now,
        }),
    }
}

fn probe_grace(probe: Option<&core::Probe>) -> Option<i64> {
    probe?.termination_grace_period_seconds
}

/// Starts a container unless a back-off says later.
fn retry(
    kind: ContainerKind,
    spec: &core::Container,
    pod: &Pod,
    seen: &Observed,
    memory: &Memory,
    failed_at: Option<Timestamp>,
    now: Timestamp,
) -> Next {
    if let Some(next) = waits(spec, memory, failed_at, now) {
        return next;
    }
    let attempt = next_attempt(spec, pod, seen);
    Next::Start(Start { container: spec.name.clone(), kind, attempt, failed_at })
}

fn waits(spec: &core::Container, memory: &Memory, failed_at: Option<Timestamp>, now: Timestamp) -> Option<Next> {
    let container = memory.containers.get(&spec.name).cloned().unwrap_or_default();
    let failure = container.failure.as_ref();
    let kind = failure.map(|f| f.kind);
    let (until, what, since) = match (kind, failed_at) {
        (Some(FailureKind::Pull), _) => {
            let at = failure.map_or(now, |f| f.at);
            (container.pull.wait_until(at, now)?, BackOff::Pull, at)
        }
        (Some(FailureKind::Config), _) => {
            let until = failure.map_or(now, |f| f.at) + CONFIG_RETRY;
            return (until > now).then_some(Next::WaitUntil(until));
        }
        (Some(FailureKind::Run), None) => {
            let at = failure.map_or(now, |f| f.at);
            (container.crash.wait_until(at, now)?, BackOff::Crash, at)
        }
        (None | Some(FailureKind::CrashLoop | FailureKind::Run), Some(at)) => {
            (container.crash.wait_until(at, now)?, BackOff::Crash, at)
        }
        (None | Some(FailureKind::CrashLoop), None) => return None,
    };
    let shown = failure.is_some_and(|f| f.reason == what.reason());
    let show_at = since + BACKOFF_SHOWN_AFTER;
    Some(if shown {
        Next::WaitUntil(until)
    } else if show_at > now {
        Next::WaitUntil(show_at.min(until))
    } else {
        Next::ShowBackOff { container: spec.name.clone(), until, what }
    })
}

impl BackOff {
    /// The waiting reason while it lasts.
    pub fn reason(self) -> &'static str {
        match self {
            BackOff::Pull => "ImagePullBackOff",
            BackOff::Crash => "CrashLoopBackOff",
        }
    }
}

/// Counts on from what the runtime has, or, when that was lost, from what the API server was told.
fn next_attempt(spec: &core::Container, pod: &Pod, seen: &Observed) -> u32 {
    if let Some(latest) = seen.latest(&spec.name) {
        return latest.attempt.max(latest.restart_count.max(0) as u32) + 1;
    }
    let told = pod
        .api_status
        .container_statuses
        .iter()
        .chain(&pod.api_status.init_container_statuses)
        .flatten()
        .find(|s| s.name == spec.name);
    // A lost run is told as the last state before its successor starts, and has no id any more then.
    let ran = |status: &core::ContainerStatus| {
        status.container_id.as_deref().is_some_and(|id| !id.is_empty())
            || status.last_state.as_ref().is_some_and(|s| s.terminated.is_some())
    };
    match told {
        Some(status) if ran(status) => status.restart_count.max(0) as u32 + 1,
        Some(_) | None => 0,
    }
}

/// Whether the container behind it in the init sequence may start.
pub fn passed(kind: ContainerKind, spec: &core::Container, seen: &Observed, memory: &Memory) -> bool {
    let Some(current) = latest_here(kind, spec, seen) else { return false };
    match (kind, current.state) {
        (ContainerKind::Sidecar, State::Running) => started(spec, current, memory),
        (ContainerKind::Init, State::Exited) => current.exit_code == 0,
        _ => false,
    }
}

/// Running, its postStart hook done, and its startup probe (if any) has succeeded.
pub fn started(spec: &core::Container, running: &Container, memory: &Memory) -> bool {
    if running.state != State::Running || *memory.op(&spec.name) == ContainerOp::Starting {
        return false;
    }
    spec.startup_probe.is_none()
        || memory.probes.get(&running.id).is_some_and(|p: &ProbeResults| p.startup == Some(Verdict::Success))
}

/// All init containers have passed, now or before the first container started in this sandbox.
pub fn initialized(pod: &Pod, seen: &Observed, memory: &Memory) -> bool {
    let sandbox = seen.sandbox().map(|s| s.id.as_str());
    let began =
        pod.app_containers().any(|c| seen.latest(&c.name).is_some_and(|r| Some(r.sandbox_id.as_str()) == sandbox));
    began || pod.init_containers().all(|(kind, c)| passed(kind, c, seen, memory))
}

/// An init container failed under a policy that does not repeat it.
pub fn init_failed(pod: &Pod, seen: &Observed) -> bool {
    pod.init_containers().any(|(kind, c)| {
        kind == ContainerKind::Init
            && seen
                .latest(&c.name)
                .is_some_and(|r| r.state == State::Exited && r.exit_code != 0 && !restarts(kind, c, r, pod))
    })
}

/// Nothing of the pod will run again.
pub fn completed(pod: &Pod, seen: &Observed, memory: &Memory) -> bool {
    if memory.containers.values().any(|c| c.op != ContainerOp::Idle) {
        return false;
    }
    if init_failed(pod, seen) {
        return true;
    }
    pod.app_containers().all(|c| {
        seen.latest(&c.name).is_some_and(|r| r.state == State::Exited && !restarts(ContainerKind::App, c, r, pod))
    })
}
