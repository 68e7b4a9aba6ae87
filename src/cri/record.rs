//! What the runtime remembers of a sandbox and of a container, as files on a tmpfs.
//!
//! Owns: the records' form and the states a container can be in.
//! Called by: sandboxes, containers, and the scan at start.
//! Never: outlives the node: after a restart of the node all of it is gone, as are the processes.

use std::path::Path;

use k8s_cri::v1;
use serde::{Deserialize, Serialize};

use crate::config::{RECORD_FILE, write_atomically};
use crate::error::{Error, io_error};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub id: String,
    pub config: v1::PodSandboxConfig,
    pub runtime_handler: String,
    /// Nanoseconds since the epoch, as all times here.
    pub created_at: i64,
    pub ready: bool,
    pub ip: Option<std::net::Ipv4Addr>,
    /// PID 1 of the shared PID namespace, for pods that share one.
    pub pause: Option<i32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub id: String,
    pub sandbox: String,
    pub config: v1::ContainerConfig,
    pub image_id: String,
    /// What a pod's `imageID` shows: a repository digest where there is one.
    pub image_ref: String,
    pub stop_signal: i32,
    pub log_path: String,
    pub cgroup: String,
    pub user: User,
    pub created_at: i64,
    pub state: State,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub uid: u32,
    pub gid: u32,
    /// All groups but the primary one.
    pub groups: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    Created,
    Running { pid: i32, started_at: i64 },
    Exited(Ended),
}

/// How a container came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub started_at: i64,
    pub finished_at: i64,
    pub code: i32,
    pub reason: String,
    pub message: String,
}

impl State {
    pub(crate) fn cri(&self) -> v1::ContainerState {
        match self {
            State::Created => v1::ContainerState::ContainerCreated,
            State::Running { .. } => v1::ContainerState::ContainerRunning,
            State::Exited(_) => v1::ContainerState::ContainerExited,
        }
    }
}

impl Ended {
    /// The reasons a pod's `state.terminated.reason` knows.
    pub(crate) fn by_exit(started_at: i64, exit: &minik_shim::Exit) -> Ended {
        let reason = match exit {
            minik_shim::Exit { oom_killed: true, .. } => "OOMKilled",
            minik_shim::Exit { code: 0, .. } => "Completed",
            _ => "Error",
        };
        let (finished_at, code) = (exit.finished_at, exit.code);
        Ended { started_at, finished_at, code, reason: reason.into(), message: String::new() }
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).expect("the year is before 2262")
}

pub(crate) fn save(dir: &Path, record: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec(record).expect("records are plain data");
    write_atomically(&dir.join(RECORD_FILE), &bytes).map_err(io_error("could not write a record"))
}

/// Every readable record below `folder`. A folder without one is what a crash left of something half made.
pub(crate) fn load_all<T: serde::de::DeserializeOwned>(folder: &Path) -> (Vec<T>, Vec<std::path::PathBuf>) {
    let (mut records, mut halves) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let read = std::fs::read(entry.path().join(RECORD_FILE));
        match read.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            Some(record) => records.push(record),
            None => halves.push(entry.path()),
        }
    }
    (records, halves)
}
