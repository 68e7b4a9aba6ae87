//! The few cgroup facts a container's beginning and end depend on: where its cgroup lies, who is in it, and whether
//! memory killed somebody.
//!
//! Owns: finding a cgroup's folder in v1 (one per controller) and v2 (one), and the cgroups that containers share.
//! Called by: the shim at a container's end, `cri` for statistics, for a pod's cgroup and for what a lost shim left.
//! Never: creates a container's cgroup; libcontainer does, and removes it again when the shim lives that long.

use std::fs;
use std::io;
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

/// Makes the cgroup that containers will have theirs in, so that containers which start at once need not race for it:
/// libcontainer takes it for a failure when another process makes a v2 folder between its look and its own try.
pub fn prepare_parent(cgroup: &str) -> io::Result<()> {
    match CgroupVersion::detect() {
        // libcontainer makes v1's folders, one a controller, and does not mind that they exist.
        CgroupVersion::V1 => Ok(()),
        CgroupVersion::V2 => prepare_below(Path::new(ROOT), cgroup),
    }
}

/// A child has the controllers that its parent hands down, so every folder on the way hands down all it has. Where the
/// kernel refuses one, a limit that needs it fails when it is set.
fn prepare_below(root: &Path, cgroup: &str) -> io::Result<()> {
    let mut folder = root.to_owned();
    for name in cgroup.split('/').filter(|name| !name.is_empty()) {
        folder.push(name);
        match fs::create_dir(&folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        for controller in fs::read_to_string(folder.join("cgroup.controllers"))?.split_whitespace() {
            let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
    Ok(())
}

/// Removes an empty cgroup: one that its shim did not live to remove, or a pod's. What is not there is removed already,
/// and what is in use stays.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Two containers of one pod could fail to start together on a v2 host: each made the pod's folder.
    #[test]
    fn a_parent_may_exist_and_hands_its_controllers_down() {
        let root = tempfile::tempdir().unwrap();
        let pod = root.path().join("kubepods/pod1");
        fs::create_dir_all(&pod).unwrap();
        for folder in [pod.parent().unwrap(), &pod] {
            fs::write(folder.join("cgroup.controllers"), "memory\n").unwrap();
        }
        prepare_below(root.path(), "/kubepods/pod1").unwrap();
        for folder in [pod.parent().unwrap(), &pod] {
            assert_eq!(fs::read_to_string(folder.join("cgroup.subtree_control")).unwrap(), "+memory");
        }
    }
}
