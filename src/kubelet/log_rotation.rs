//! Container logs that grow: renamed at a size, a few kept.
//!
//! Owns: when to rotate and which files to keep: 10 MiB, 5 files, as upstream's defaults.
//! Called by: a task of the kubelet, and container removal.
//! Never: reads a log.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_cri::v1 as cri;

use crate::context::NodeContext;

const SIZE_MAX: u64 = 10 << 20;
/// The one being written and four before it.
const FILES_MAX: usize = 5;
/// Sizes are looked at this often, as upstream does: a log has no event for having grown.
const LOOK_EVERY: Duration = Duration::from_secs(10);

pub async fn run(node: Arc<NodeContext>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for log in large_logs(&node.log_dir) {
            if let Err(error) = rotate(&node, &log).await {
                tracing::warn!(log = %log.display(), %error, "log not rotated");
            }
        }
    }
}

/// `<pod>/<container>/<attempt>.log` above the size.
fn large_logs(dir: &Path) -> Vec<PathBuf> {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>();
    let containers = entries(dir).into_iter().flat_map(|pod| entries(&pod));
    let logs = containers.flat_map(|container| entries(&container));
    logs.filter(|p| p.extension().is_some_and(|e| e == "log"))
        .filter(|p| fs::metadata(p).is_ok_and(|m| m.len() > SIZE_MAX))
        .collect()
}

#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error("cannot rename it")]
    Rename(#[source] io::Error),
    #[error("the runtime does not know whose it is")]
    NoContainer,
    #[error("the runtime did not reopen it: {0}")]
    Reopen(String),
}

async fn rotate(node: &NodeContext, log: &Path) -> Result<(), RotateError> {
    let container_id = owner(node, log).await.ok_or(RotateError::NoContainer)?;
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    let rotated = PathBuf::from(format!("{}.{stamp}", log.display()));
    fs::rename(log, &rotated).map_err(RotateError::Rename)?;
    let request = cri::ReopenContainerLogRequest { container_id };
    if let Err(status) = node.cri.runtime().reopen_container_log(request).await {
        // Back in place, or what is written from now on would be found by nobody.
        fs::rename(&rotated, log).map_err(RotateError::Rename)?;
        return Err(RotateError::Reopen(status.message().into()));
    }
    for old in rotated_logs(log).into_iter().rev().skip(FILES_MAX - 1) {
        let _ = fs::remove_file(old);
    }
    Ok(())
}

async fn owner(node: &NodeContext, log: &Path) -> Option<String> {
    let state = cri::ContainerStateValue { state: cri::ContainerState::ContainerRunning as i32 };
    let filter = cri::ContainerFilter { state: Some(state), ..Default::default() };
    let request = cri::ListContainersRequest { filter: Some(filter) };
    for container in node.cri.runtime().list_containers(request).await.ok()?.into_inner().containers {
        let request = cri::ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
        let status = node.cri.runtime().container_status(request).await.ok()?.into_inner().status?;
        if Path::new(&status.log_path) == log {
            return Some(container.id);
        }
    }
    None
}

/// `<log>.<stamp>`, oldest first.
pub fn rotated_logs(log: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name()) else { return vec![] };
    let prefix = format!("{}.", name.to_string_lossy());
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    let mut found: Vec<PathBuf> =
        entries.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix))).collect();
    found.sort();
    found
}

/// A log with everything rotated from it.
pub fn remove(log: &Path) {
    for file in rotated_logs(log).iter().map(PathBuf::as_path).chain([log]) {
        let _ = fs::remove_file(file);
    }
}
