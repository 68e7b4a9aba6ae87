//! Makes the container's cgroup tree writable, so that pods can have cgroups of their own.
//!
//! Owns: the two ways to do it, cgroup v1 (also hybrid) and v2.
//! Called by: init, once, before anything else is started.
//! Never: touches a superblock: a plain remount would change the host's mount too (and fails with EBUSY).

use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, mount_remount};

const ROOT: &str = "/sys/fs/cgroup";

#[derive(Debug, thiserror::Error)]
#[error("could not make {path} writable")]
pub struct CgroupError {
    path: String,
    source: io::Error,
}

pub fn make_writable() -> Result<(), CgroupError> {
    if Path::new(ROOT).join("cgroup.controllers").exists() { v2() } else { v1() }
}

fn remount(path: &Path) -> Result<(), CgroupError> {
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_remount(path, flags, "").map_err(|e| CgroupError { path: path.display().to_string(), source: e.into() })
}

/// Every controller is a mount of its own; symlinks (`cpu -> cpu,cpuacct`) lead to the same ones.
fn v1() -> Result<(), CgroupError> {
    let failed = |source| CgroupError { path: ROOT.into(), source };
    for entry in fs::read_dir(ROOT).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            remount(&entry.path())?;
        }
    }
    Ok(())
}

/// v2 allows controllers below a cgroup only when no process sits in the cgroup itself, so init moves into a
/// leaf first and hands every controller down.
fn v2() -> Result<(), CgroupError> {
    remount(Path::new(ROOT))?;
    let write =
        |path: &str, text: &str| fs::write(path, text).map_err(|source| CgroupError { path: path.into(), source });
    let leaf = format!("{ROOT}/init");
    fs::create_dir_all(&leaf).map_err(|source| CgroupError { path: leaf.clone(), source })?;
    let procs = fs::read_to_string(format!("{ROOT}/cgroup.procs"))
        .map_err(|source| CgroupError { path: ROOT.into(), source })?;
    for pid in procs.lines() {
        write(&format!("{leaf}/cgroup.procs"), pid)?;
    }
    let controllers = fs::read_to_string(format!("{ROOT}/cgroup.controllers"))
        .map_err(|source| CgroupError { path: ROOT.into(), source })?;
    for controller in controllers.split_whitespace() {
        // A controller the kernel will not delegate (such as `rdma` on some hosts) is not one pods need.
        if let Err(e) = write(&format!("{ROOT}/cgroup.subtree_control"), &format!("+{controller}")) {
            eprintln!("minik: cgroup controller {controller} is not delegated: {}", e.source);
        }
    }
    Ok(())
}
