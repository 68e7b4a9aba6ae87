//! Removing what no pod of this node owns any more.
//!
//! Owns: pods that were deleted while no kubelet ran, and what a pod leaves in the runtime.
//! Called by: the dispatcher once at its start, and workers at their end.
//! Never: touches a pod that the API server still knows.

use std::collections::{BTreeMap, HashSet};

use k8s_cri::v1 as cri;

use crate::context::NodeContext;
use crate::names;
use crate::volumes;

/// Grace of containers whose pod is gone: nobody can say any more what it asked for.
const ORPHAN_GRACE_SECONDS: i64 = 2;

/// Stops and removes these sandboxes with everything in them.
pub async fn remove_pod(node: &NodeContext, sandbox_ids: Vec<String>) {
    for id in sandbox_ids {
        let mut runtime = node.cri.runtime();
        let stop = cri::StopPodSandboxRequest { pod_sandbox_id: id.clone() };
        if let Err(status) = runtime.stop_pod_sandbox(stop).await {
            tracing::warn!(sandbox = id, error = status.message(), "sandbox does not stop");
        }
        let remove = cri::RemovePodSandboxRequest { pod_sandbox_id: id.clone() };
        if let Err(status) = runtime.remove_pod_sandbox(remove).await
            && status.code() != tonic::Code::NotFound
        {
            tracing::warn!(sandbox = id, error = status.message(), "sandbox stays");
        }
    }
}

/// Everything on the node whose pod uid is not among `known`.
pub async fn remove_orphans(node: &NodeContext, known: &HashSet<String>) -> Result<(), tonic::Status> {
    let listed = node.cri.runtime().list_pod_sandbox(cri::ListPodSandboxRequest { filter: None }).await?.into_inner();
    let mut orphans: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for sandbox in listed.items {
        match sandbox.labels.get(names::POD_UID) {
            Some(uid) if !known.contains(uid) => orphans.entry(uid.clone()).or_default().push(sandbox.id),
            Some(_) | None => {}
        }
    }
    for (uid, sandboxes) in orphans {
        tracing::info!(uid, "removing a pod that the API server no longer has");
        end_containers(node, &uid).await;
        remove_pod(node, sandboxes).await;
    }
    remove_directories(node, known);
    Ok(())
}

async fn end_containers(node: &NodeContext, uid: &str) {
    let Ok(seen) = crate::observed::observe(&node.cri, uid).await else { return };
    let stops = seen.running().map(|c| {
        let request = cri::StopContainerRequest { container_id: c.id.clone(), timeout: ORPHAN_GRACE_SECONDS };
        let mut runtime = node.cri.runtime();
        async move { runtime.stop_container(request).await }
    });
    futures::future::join_all(stops).await;
}

fn remove_directories(node: &NodeContext, known: &HashSet<String>) {
    let entries = |dir: &std::path::Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
    let context = node.volumes();
    for entry in entries(&context.pods_dir) {
        let uid = entry.file_name().to_string_lossy().into_owned();
        if known.contains(&uid) {
            continue;
        }
        if let Err(error) = volumes::tear_down(&context, &uid) {
            tracing::warn!(uid, %error, "volumes of a pod that is gone stay");
        }
    }
    for entry in entries(&node.log_dir) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let uid = name.rsplit('_').next().unwrap_or_default();
        if !known.contains(uid) && name.matches('_').count() == 2 {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
