//! What a pod worker knows that neither the API nor the runtime does: what is under way and what failed before.
//!
//! Owns: the types; every state a pod worker can be in has a spelling here and no other has.
//! Called by: the plan and the status computation read it; the pod worker alone changes it.
//! Never: survives a kubelet restart: all of it can be lost and the pod still converges.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::admission::Refusal;
use crate::backoff::Backoff;

#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub stage: Stage,
    /// Why this node does not let the pod in.
    pub refusal: Option<Refusal>,
    pub sandbox: SandboxOp,
    pub volumes: Volumes,
    pub containers: BTreeMap<String, ContainerMemory>,
    /// By container id: a new container starts with a clean slate.
    pub probes: BTreeMap<String, ProbeResults>,
    /// What containers were resized to since they started, by id.
    pub resized: BTreeMap<String, k8s_openapi::api::core::v1::ResourceRequirements>,
    /// The container being resized, and when a resize that failed is to be tried again.
    pub resizing: BTreeMap<String, Resizing>,
    /// What pods may have of this node.
    pub node_allocatable: crate::resources::ResourceList,
}

/// Where the pod is in its life on this node. Only ever moves down.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Stage {
    /// Its containers should run.
    #[default]
    Running,
    /// Its containers should end.
    Terminating(Termination),
    /// Nothing of it runs and its volumes are gone.
    Terminated(Termination),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Termination {
    pub why: Why,
    /// When the containers' grace ends.
    pub deadline: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// The API object has a deletion timestamp, or is gone.
    Deleted,
    /// Every container ended and none is to start again.
    Completed,
    /// The kubelet ended it: the reason and message become those of the pod's status.
    Failed { reason: String, message: String },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum SandboxOp {
    #[default]
    Idle,
    Busy,
    Failed {
        retry_at: Timestamp,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Volumes {
    /// Not looked at by this kubelet yet; a kubelet before it may have mounted them.
    #[default]
    Unset,
    SettingUp,
    Ready,
    Failed {
        retry_at: Timestamp,
    },
    TearingDown,
    TornDown,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Resizing {
    UnderWay,
    Failed { retry_at: Timestamp, message: String },
}

#[derive(Clone, Debug, Default)]
pub struct ContainerMemory {
    pub op: ContainerOp,
    pub crash: Backoff,
    pub pull: Backoff,
    /// Why the last attempt to start it did not lead to a running container.
    pub failure: Option<Failure>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum ContainerOp {
    #[default]
    Idle,
    Starting,
    Stopping {
        id: String,
        deadline: Timestamp,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub kind: FailureKind,
    /// `ErrImagePull`, `CreateContainerConfigError`, ...: the waiting reason.
    pub reason: String,
    pub message: String,
    pub at: Timestamp,
}

/// What a failed start tells about the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The image did not come; waits by the pull back-off.
    Pull,
    /// Nothing was made in the runtime; may go better once an object appears.
    Config,
    /// The runtime made or started something that did not work; waits by the crash back-off.
    Run,
    /// Shown while waiting for the crash back-off.
    CrashLoop,
}

/// What the probes of one running container say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProbeResults {
    pub startup: Option<Verdict>,
    pub liveness: Option<Verdict>,
    pub readiness: Option<Verdict>,
}

/// The settled result of a probe after its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Success,
    Failure,
}

impl Memory {
    pub fn container(&mut self, name: &str) -> &mut ContainerMemory {
        self.containers.entry(name.to_string()).or_default()
    }
    pub fn op(&self, name: &str) -> &ContainerOp {
        const IDLE: ContainerOp = ContainerOp::Idle;
        self.containers.get(name).map_or(&IDLE, |c| &c.op)
    }
    pub fn failure(&self, name: &str) -> Option<&Failure> {
        self.containers.get(name)?.failure.as_ref()
    }
    pub fn anything_starting(&self) -> bool {
        self.containers.values().any(|c| c.op == ContainerOp::Starting)
    }
    pub fn all_idle(&self) -> bool {
        self.containers.values().all(|c| c.op == ContainerOp::Idle) && self.sandbox != SandboxOp::Busy
    }
}

impl Stage {
    pub fn termination(&self) -> Option<&Termination> {
        match self {
            Stage::Running => None,
            Stage::Terminating(t) | Stage::Terminated(t) => Some(t),
        }
    }
}
