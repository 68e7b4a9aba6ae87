//! What to do next for one pod.
//!
//! Owns: the order of a pod's life: volumes, sandbox, init containers, containers, and back again.
//! Called by: the pod worker, after every change of the pod, the runtime, a probe, or a deadline.
//! Never: does anything, reads the clock, or knows how an action is carried out.

use jiff::Timestamp;

use crate::lifecycle::{self, Next};
use crate::memory::{ContainerOp, Memory, SandboxOp, Stage, Termination, Volumes, Why};
use crate::observed::{Observed, State};
use crate::pod::{ContainerKind, Pod};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// When to plan again although nothing changed.
    pub wake_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    SetUpVolumes,
    /// Ends what is left of the old sandbox, then makes a new one.
    StartSandbox {
        attempt: u32,
        replaces: Option<String>,
    },
    Start(Start),
    Kill(Kill),
    /// Gives a running container the resources its spec asks for.
    Resize {
        id: String,
        container: String,
    },
    /// Shows the user that a container waits for its back-off.
    ShowBackOff {
        container: String,
        until: Timestamp,
        what: BackOff,
    },
    /// Moves the pod to `Stage::Terminating`.
    Terminate(Termination),
    StopSandboxes {
        ids: Vec<String>,
    },
    TearDownVolumes,
    /// Moves the pod to `Stage::Terminated`.
    Finish,
    /// Tells the API server that the deleted pod is gone.
    DeleteFromApi,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    pub container: String,
    pub kind: ContainerKind,
    pub attempt: u32,
    /// When the run before this one failed: the crash back-off counts from here.
    pub failed_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Kill {
    pub id: String,
    pub container: String,
    pub message: String,
    pub deadline: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackOff {
    Pull,
    Crash,
}

impl Plan {
    fn act(action: Action) -> Plan {
        Plan { actions: vec![action], wake_at: None }
    }
    fn wait() -> Plan {
        Plan::default()
    }
    pub fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |old| old.min(at)));
    }
}

pub fn plan(pod: &Pod, seen: &Observed, memory: &Memory, now: Timestamp) -> Plan {
    match &memory.stage {
        Stage::Running => running(pod, seen, memory, now),
        Stage::Terminating(termination) => terminating(pod, seen, memory, termination, now),
        Stage::Terminated(_) if pod.is_deleting() => Plan::act(Action::DeleteFromApi),
        Stage::Terminated(_) => Plan::wait(),
    }
}

fn running(pod: &Pod, seen: &Observed, memory: &Memory, now: Timestamp) -> Plan {
    if let Some(termination) = must_end(pod, seen, memory, now) {
        return Plan::act(Action::Terminate(termination));
    }
    let mut plan = match foundation(pod, seen, memory, now) {
        Foundation::Standing => containers(pod, seen, memory, now),
        Foundation::Not(plan) => plan,
    };
    if let Some(deadline) = active_deadline(pod) {
        plan.wake(deadline);
    }
    plan
}

/// A reason to end a pod that is meant to run.
fn must_end(pod: &Pod, seen: &Observed, memory: &Memory, now: Timestamp) -> Option<Termination> {
    let grace = jiff::SignedDuration::from_secs(pod.grace_seconds());
    let end = |why| Some(Termination { why, deadline: now + grace });
    if pod.is_deleting() {
        return end(Why::Deleted);
    }
    if pod.phase_is_terminal() || lifecycle::completed(pod, seen, memory) {
        return end(Why::Completed);
    }
    if let Some(refusal) = memory.refusal.as_ref().filter(|_| seen.sandboxes.is_empty()) {
        let message = format!("Pod was rejected: {}", refusal.message);
        return end(Why::Failed { reason: refusal.reason.clone(), message });
    }
    if active_deadline(pod).is_some_and(|deadline| deadline <= now) {
        let message = "Pod was active on the node longer than the specified deadline".to_string();
        return end(Why::Failed { reason: "DeadlineExceeded".into(), message });
    }
    None
}

fn active_deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = pod.spec.active_deadline_seconds?;
    let start = pod.api_status.start_time.as_ref()?;
    Some(start.0 + jiff::SignedDuration::from_secs(seconds))
}

enum Foundation {
    /// Volumes are mounted and the sandbox is ready: containers may start.
    Standing,
    Not(Plan),
}

/// Volumes and sandbox, which containers stand on.
fn foundation(pod: &Pod, seen: &Observed, memory: &Memory, now: Timestamp) -> Foundation {
    match &memory.volumes {
        Volumes::Ready => {}
        Volumes::Failed { retry_at } if *retry_at > now => {
            return Foundation::Not(Plan { actions: vec![], wake_at: Some(*retry_at) });
        }
        Volumes::Unset | Volumes::Failed { .. } => return Foundation::Not(Plan::act(Action::SetUpVolumes)),
        Volumes::SettingUp | Volumes::TearingDown | Volumes::TornDown => return Foundation::Not(Plan::wait()),
    }
    match &memory.sandbox {
        SandboxOp::Busy => return Foundation::Not(Plan::wait()),
        SandboxOp::Failed { retry_at } if *retry_at > now => {
            return Foundation::Not(Plan { actions: vec![], wake_at: Some(*retry_at) });
        }
        SandboxOp::Idle | SandboxOp::Failed { .. } => {}
    }
    let latest = seen.sandbox();
    if latest.is_some_and(|s| s.ready && (pod.host_network() || !s.ips.is_empty())) {
        return Foundation::Standing;
    }
    // What still runs lost its network with its sandbox, and its successors must not overlap with it.
    let kills = kill_all(pod, seen, memory, "Pod sandbox changed, it will be killed and re-created.", now);
    if !kills.is_empty() || !memory.all_idle() {
        return Foundation::Not(Plan { actions: kills, wake_at: None });
    }
    let attempt = latest.map_or(0, |s| s.attempt + 1);
    Foundation::Not(Plan::act(Action::StartSandbox { attempt, replaces: latest.map(|s| s.id.clone()) }))
}

fn kill_all(pod: &Pod, seen: &Observed, memory: &Memory, message: &str, now: Timestamp) -> Vec<Action> {
    let deadline = now + jiff::SignedDuration::from_secs(pod.grace_seconds());
    seen.running()
        .filter(|c| *memory.op(&c.name) == ContainerOp::Idle)
        .map(|c| {
            let message = message.to_string();
            Action::Kill(Kill { id: c.id.clone(), container: c.name.clone(), message, deadline })
        })
        .collect()
}

fn containers(pod: &Pod, seen: &Observed, memory: &Memory, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    // One start at a time, in order: a postStart hook holds back the containers after it.
    let mut may_start = !memory.anything_starting();
    let mut apply = |plan: &mut Plan, next: Next| match next {
        Next::Nothing => {}
        Next::Start(start) if may_start => {
            may_start = false;
            plan.actions.push(Action::Start(start));
        }
        Next::Start(_) => {}
        Next::Kill(kill) => plan.actions.push(Action::Kill(kill)),
        Next::Resize { id, container } => plan.actions.push(Action::Resize { id, container }),
        Next::WaitUntil(at) => plan.wake(at),
        Next::ShowBackOff { container, until, what } => {
            plan.wake(until);
            plan.actions.push(Action::ShowBackOff { container, until, what });
        }
    };
    for container in pod.ephemeral_containers() {
        apply(&mut plan, lifecycle::next_ephemeral(container, seen, memory, now));
    }
    let initialized = lifecycle::initialized(pod, seen, memory);
    for (kind, container) in pod.init_containers() {
        match kind {
            ContainerKind::Sidecar => apply(&mut plan, lifecycle::next(kind, container, pod, seen, memory, now)),
            ContainerKind::Init | ContainerKind::App | ContainerKind::Ephemeral if initialized => {}
            ContainerKind::Init | ContainerKind::App | ContainerKind::Ephemeral => {
                apply(&mut plan, lifecycle::next(kind, container, pod, seen, memory, now));
            }
        }
        if !initialized && !lifecycle::passed(kind, container, seen, memory) {
            return plan;
        }
    }
    for container in pod.app_containers() {
        apply(&mut plan, lifecycle::next(ContainerKind::App, container, pod, seen, memory, now));
    }
    plan
}

fn terminating(pod: &Pod, seen: &Observed, memory: &Memory, termination: &Termination, now: Timestamp) -> Plan {
    let kills = kills_in_order(pod, seen, memory, termination, now);
    if !kills.actions.is_empty() || seen.running().next().is_some() || !memory.all_idle() {
        return kills;
    }
    let ready: Vec<String> = seen.sandboxes.iter().filter(|s| s.ready).map(|s| s.id.clone()).collect();
    if !ready.is_empty() {
        return Plan::act(Action::StopSandboxes { ids: ready });
    }
    match &memory.volumes {
        Volumes::TornDown => Plan::act(Action::Finish),
        Volumes::SettingUp | Volumes::TearingDown => Plan::wait(),
        Volumes::Failed { retry_at } if *retry_at > now => Plan { actions: vec![], wake_at: Some(*retry_at) },
        Volumes::Unset | Volumes::Ready | Volumes::Failed { .. } => Plan::act(Action::TearDownVolumes),
    }
}

/// Containers end together; sidecars after them, last started first, unless the grace has run out.
fn kills_in_order(pod: &Pod, seen: &Observed, memory: &Memory, termination: &Termination, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let grace_over = termination.deadline <= now;
    let sidecars: Vec<&str> = pod
        .init_containers()
        .filter(|(kind, _)| *kind == ContainerKind::Sidecar)
        .map(|(_, c)| c.name.as_str())
        .collect();
    let is_sidecar = |name: &str| sidecars.contains(&name);
    let mut kill = |c: &crate::observed::Container| {
        if let ContainerOp::Stopping { deadline, .. } = memory.op(&c.name)
            && *deadline <= termination.deadline
        {
            return;
        }
        if *memory.op(&c.name) == ContainerOp::Starting {
            return;
        }
        let message = format!("Stopping container {}", c.name);
        let (id, container) = (c.id.clone(), c.name.clone());
        plan.actions.push(Action::Kill(Kill { id, container, message, deadline: termination.deadline }));
    };
    let others = seen.running().filter(|c| !is_sidecar(&c.name));
    let mut any_other = false;
    for container in others {
        any_other = true;
        kill(container);
    }
    for name in sidecars.iter().rev() {
        if any_other && !grace_over {
            plan.wake(termination.deadline);
            break;
        }
        if let Some(container) = seen.latest(name).filter(|c| c.state == State::Running) {
            kill(container);
            any_other = true;
        }
    }
    plan
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
