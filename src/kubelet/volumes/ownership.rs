//! fsGroup: who owns the files of a volume.
//!
//! Owns: the walk that gives a volume to a group, and when it may be spared.
//! Called by: volumes whose content belongs to the pod.
//! Never: touches a hostPath.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use super::VolumeError;
use crate::pod::Pod;

/// What the root of a volume has once it belongs to a group: writable and searchable for it, and inherited.
const GIVEN_MODE: u32 = 0o2770;

pub fn fs_group(pod: &Pod) -> Option<u32> {
    pod.spec.security_context.as_ref()?.fs_group.map(|g| g as u32)
}

/// The user all containers run as, if it is one and the same: it may own what only it should read.
pub fn only_user(pod: &Pod) -> Option<u32> {
    let of_pod = pod.spec.security_context.as_ref().and_then(|c| c.run_as_user);
    let user =
        |c: &k8s_openapi::api::core::v1::Container| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod);
    let mut users = pod.containers().map(|(_, c)| user(c));
    let first = users.next()??;
    users.all(|u| u == Some(first)).then_some(first as u32)
}

/// Group-writable for its group, which new files inherit.
pub fn give(path: &Path, group: Option<u32>) -> Result<(), VolumeError> {
    let Some(group) = group else { return Ok(()) };
    walk(path, group).map_err(|source| VolumeError::io(path, source))
}

/// As `give`, but a volume whose root is right already may be left alone if the pod says so (KEP-695).
pub fn give_unless_given(path: &Path, pod: &Pod) -> Result<(), VolumeError> {
    let policy = pod.spec.security_context.as_ref().and_then(|c| c.fs_group_change_policy.as_deref());
    let group = fs_group(pod);
    let given = |meta: fs::Metadata| Some(meta.gid()) == group && meta.permissions().mode() & GIVEN_MODE == GIVEN_MODE;
    if policy == Some("OnRootMismatch") && fs::metadata(path).is_ok_and(given) {
        return Ok(());
    }
    give(path, group)
}

fn walk(path: &Path, group: u32) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.gid() != group {
        lchown(path, None, Some(group))?;
    }
    if meta.file_type().is_symlink() {
        return Ok(());
    }
    let mut mode = meta.permissions().mode() | 0o660;
    if meta.is_dir() {
        mode |= 0o2110;
    }
    if mode != meta.permissions().mode() {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), group)?;
        }
    }
    Ok(())
}
