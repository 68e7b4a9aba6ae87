//! Devices of the node that a container is given.
//!
//! Owns: reading device nodes, and which of the node's a privileged container sees.
//! Called by: container creation.
//! Never: makes a device node; the runtime below does, inside the container.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use k8s_cri::v1;

use crate::error::{Error, io_error};
use crate::spec::DeviceNode;

/// Folders and files of `/dev` every container has of its own.
const OWN: [&str; 8] = ["pts", "shm", "mqueue", "fd", "console", "ptmx", "stdin", "stdout"];
const DEPTH_MAX: usize = 4;

/// Those the request names; a folder stands for all devices in it.
pub(crate) fn asked(devices: &[v1::Device]) -> Result<Vec<DeviceNode>, Error> {
    let mut all = Vec::new();
    for device in devices {
        let host = fs::canonicalize(&device.host_path)
            .map_err(io_error(format!("error gathering device information for {:?}", device.host_path)))?;
        let permissions = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        if host.is_dir() {
            walk(&host, Path::new(&device.container_path), permissions, DEPTH_MAX, &[], &mut all);
        } else if let Some(node) = node(&host, &device.container_path, permissions) {
            all.push(node);
        } else {
            return Err(Error::Invalid(format!("{:?} is not a device node", device.host_path)));
        }
    }
    Ok(all)
}

/// All of the node's, for a privileged container.
pub(crate) fn all() -> Vec<DeviceNode> {
    let mut all = Vec::new();
    walk(Path::new("/dev"), Path::new("/dev"), "rwm", DEPTH_MAX, &OWN, &mut all);
    all
}

fn walk(folder: &Path, shown: &Path, permissions: &str, depth: usize, skip: &[&str], all: &mut Vec<DeviceNode>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if skip.iter().any(|s| name == *s) {
            continue;
        }
        let (path, shown) = (entry.path(), shown.join(&name));
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => walk(&path, &shown, permissions, depth - 1, &[], all),
            _ => all.extend(node(&path, &shown.to_string_lossy(), permissions)),
        }
    }
}

fn node(path: &Path, shown: &str, permissions: &str) -> Option<DeviceNode> {
    let found = fs::symlink_metadata(path).ok()?;
    let kind = match found.file_type() {
        t if t.is_char_device() => 'c',
        t if t.is_block_device() => 'b',
        _ => return None,
    };
    let (major, minor) = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
    Some(DeviceNode {
        path: shown.to_owned(),
        kind,
        major: major.into(),
        minor: minor.into(),
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        permissions: permissions.to_owned(),
    })
}
