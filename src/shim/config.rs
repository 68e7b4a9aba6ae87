//! What a shim is told, and what it leaves behind: the files of one container's run directory.
//!
//! Owns: file names and formats in that directory (`shim.json`, `exit.json`, ...).
//! Called by: `cri` (writes the configuration, reads the exit), the shim (the other way round).
//! Never: holds what only the CRI needs (labels, metadata); that is `cri`'s own file beside these.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// [`RunConfig`] or [`ExecConfig`].
pub const CONFIG_FILE: &str = "shim.json";
/// The OCI process of an exec.
pub const PROCESS_FILE: &str = "process.json";
/// [`Exit`], written once, by rename.
pub const EXIT_FILE: &str = "exit.json";
/// The shim's unix socket. Short, because the whole path must stay below 108 bytes.
pub const SOCKET_FILE: &str = "s";
/// PID of the shim, so that a lost one can be told from a live one.
pub const PID_FILE: &str = "shim.pid";
/// libcontainer's own state, below the run directory.
pub const LIBCONTAINER_DIR: &str = "oci";

/// `minik shim run DIR` reads this; the OCI bundle (`config.json`) lies in DIR too.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunConfig {
    pub id: String,
    /// Where libcontainer keeps its state.
    pub libcontainer_root: PathBuf,
    /// Below each controller's mount point (v1) or the one hierarchy (v2).
    pub cgroup: String,
    pub log_path: Option<PathBuf>,
    pub tty: bool,
    pub stdin: bool,
    /// Close the container's stdin when the first attached stdin ends.
    pub stdin_once: bool,
    /// Owner of the stdio pipes, so that a process may reopen `/dev/stdout`.
    pub uid: u32,
    pub gid: u32,
}

/// `minik shim exec DIR` reads this; the OCI process lies in DIR as `process.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecConfig {
    pub container_id: String,
    pub libcontainer_root: PathBuf,
    pub tty: bool,
    pub stdin: bool,
    pub uid: u32,
    pub gid: u32,
    /// The container's seccomp profile: libcontainer applies it to the first process only.
    /// In the OCI runtime specification's form.
    pub seccomp: Option<serde_json::Value>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 128 + signal for a killed process.
    pub code: i32,
    /// Nanoseconds since the epoch.
    pub finished_at: i64,
    /// The kernel killed a process of the container for memory.
    pub oom_killed: bool,
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::from)
}

/// A reader sees the old file or the new one, never half of it.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, bytes)?;
    fs::rename(&new, path)
}
