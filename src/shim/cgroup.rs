//! The few cgroup facts a container's end depends on: who is in it, and whether memory killed somebody.
//!
//! Owns: finding a cgroup's folder in v1 (one per controller) and v2 (one).
//! Called by: the shim at a container's end, `cri` for statistics and for killing what a lost shim left.
//! Never: creates a cgroup; libcontainer does, and removes it again when the shim lives that long.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const ROOT: &str = "/sys/fs/cgroup";
/// Killing is repeated while a forking container outruns it, but not longer than this.
const KILL_WITHIN: Duration = Duration::from_secs(5);
const KILL_PAUSE: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One mount per controller (also when a v2 hierarchy without controllers lies beside them).
    V1,
    V2,
}

impl CgroupVersion {
    pub fn detect() -> CgroupVersion {
        if Path::new(ROOT).join("cgroup.controllers").exists() { CgroupVersion::V2 } else { CgroupVersion::V1 }
    }
}

/// The folder of `cgroup` (an absolute path below the hierarchy's root) for a v1 controller.
pub fn path_of(version: CgroupVersion, controller: &str, cgroup: &str) -> PathBuf {
    let cgroup = cgroup.trim_start_matches('/');
    match version {
        CgroupVersion::V1 => Path::new(ROOT).join(controller).join(cgroup),
        CgroupVersion::V2 => Path::new(ROOT).join(cgroup),
    }
}

/// Processes of the cgroup and of those below it.
pub fn member_pids(cgroup: &str) -> Vec<i32> {
    let mut pids = Vec::new();
    collect(&path_of(CgroupVersion::detect(), "memory", cgroup), &mut pids);
    pids
}

fn collect(folder: &Path, pids: &mut Vec<i32>) {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            collect(&entry.path(), pids);
        }
    }
}

/// Kills every process of the cgroup and waits until it is empty, within a limit.
pub fn kill_all(cgroup: &str) {
    let deadline = Instant::now() + KILL_WITHIN;
    loop {
        let pids = member_pids(cgroup);
        if pids.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in pids.into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        // The kernel has no event for "cgroup is empty" on v1; a kill takes microseconds.
        std::thread::sleep(KILL_PAUSE);
    }
}

/// Removes an empty cgroup that its shim did not live to remove. What is not there is removed already.
pub fn remove(cgroup: &str) {
    match CgroupVersion::detect() {
        CgroupVersion::V1 => {
            for controller in fs::read_dir(ROOT).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(controller.path().join(cgroup.trim_start_matches('/')));
            }
        }
        CgroupVersion::V2 => drop(fs::remove_dir(path_of(CgroupVersion::V2, "", cgroup))),
    }
}

/// How many processes of the cgroup the kernel killed for memory.
pub fn oom_kills(cgroup: &str) -> u64 {
    let version = CgroupVersion::detect();
    let file = match version {
        CgroupVersion::V1 => "memory.oom_control",
        CgroupVersion::V2 => "memory.events",
    };
    let text = fs::read_to_string(path_of(version, "memory", cgroup).join(file)).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}
