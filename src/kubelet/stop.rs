//! Ending one container: preStop, then the signal, then the kill.
//!
//! Owns: how the grace is shared between the hook and the process.
//! Called by: the pod worker; a second time with less grace when a deletion becomes more urgent.
//! Never: removes the container.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_cri::v1 as cri;

use crate::context::NodeContext;
use crate::events::PodEvents;
use crate::hooks;
use crate::plan::Kill;
use crate::pod::{self, Pod};

/// However long a preStop hook took, the process gets this long to react to its signal; upstream's minimum.
const SECONDS_AFTER_HOOK_MIN: i64 = 2;
/// Before a stop that the runtime refused is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub struct Job {
    pub node: Arc<NodeContext>,
    pub pod: Arc<Pod>,
    pub kill: Kill,
    pub pod_ip: Option<IpAddr>,
    pub events: PodEvents,
    /// The container is being stopped already; only its grace becomes shorter.
    pub hurry: bool,
}

/// Returns when the container has ended, or after a pause when the runtime could not end it.
pub async fn stop(job: &Job) {
    let spec = job.pod.container(&job.kill.container);
    let mut waited_for_hook = false;
    if !job.hurry {
        let path = spec.map(|(kind, c)| pod::field_path(kind, &c.name));
        job.events.normal(path, "Killing", &job.kill.message);
        waited_for_hook = pre_stop(job).await;
    }
    let left = job.kill.deadline.duration_since(Timestamp::now()).as_secs_f64().ceil() as i64;
    let timeout = if waited_for_hook { left.max(SECONDS_AFTER_HOOK_MIN) } else { left.max(0) };
    let request = cri::StopContainerRequest { container_id: job.kill.id.clone(), timeout };
    match job.node.cri.runtime().stop_container(request).await {
        Ok(_) => {}
        Err(status) if status.code() == tonic::Code::NotFound => {}
        Err(status) => {
            tracing::warn!(pod = %job.pod.key, container = job.kill.container, error = status.message(), "did not stop; will try again");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

/// Whether there was a hook to wait for.
async fn pre_stop(job: &Job) -> bool {
    let Some((kind, container)) = job.pod.container(&job.kill.container) else { return false };
    let Some(handler) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) else { return false };
    let grace: Duration = job.kill.deadline.duration_since(Timestamp::now()).try_into().unwrap_or_default();
    let hook = hooks::Hook { cri: &job.node.cri, container, container_id: &job.kill.id, pod_ip: job.pod_ip };
    let failed = match tokio::time::timeout(grace, hooks::run(&hook, handler)).await {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why),
        Err(_) => {
            tracing::info!(pod = %job.pod.key, container = container.name, "preStop hook outlasted the grace period");
            None
        }
    };
    if let Some(why) = failed {
        tracing::info!(pod = %job.pod.key, container = container.name, why, "preStop hook failed");
        job.events.warning(Some(pod::field_path(kind, &container.name)), "FailedPreStopHook", "PreStopHook failed");
    }
    true
}
