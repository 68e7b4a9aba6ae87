//! emptyDir volumes: a directory that lives as long as its pod.
//!
//! Owns: where it lies: on the node's disk or in memory.
//! Called by: volume set-up.
//! Never: empties one that is in place, so that containers keep their files over a restart.

use std::path::Path;

use k8s_openapi::api::core::v1 as core;

use super::{VolumeError, mounting, ownership};
use crate::pod::Pod;
use crate::resources;

pub fn set_up(path: &Path, source: &core::EmptyDirVolumeSource, pod: &Pod) -> Result<(), VolumeError> {
    let exists = path.exists();
    if source.medium.as_deref() == Some("Memory") {
        mounting::make_dir(path, 0o777)?;
        if !mounting::is_mount_point(path) {
            mounting::mount_tmpfs(path, size_limit(source, pod), 0o777)?;
            ownership::give(path, ownership::fs_group(pod))?;
        }
        return Ok(());
    }
    if !exists {
        mounting::make_dir(path, 0o777)?;
        ownership::give(path, ownership::fs_group(pod))?;
    }
    Ok(())
}

/// Its own limit or what the pod may use of memory, whichever is less (KEP-1967).
fn size_limit(source: &core::EmptyDirVolumeSource, pod: &Pod) -> Option<u64> {
    let own = source.size_limit.as_ref().map(resources::units).filter(|n| *n > 0);
    let of_pod = resources::pod_resources(pod).memory_limit_in_bytes;
    let of_pod = (of_pod > 0).then_some(of_pod);
    own.into_iter().chain(of_pod).min().map(|n| n as u64)
}
