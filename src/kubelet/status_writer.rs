//! Brings a pod's status to the API server, newest first and one write at a time, and says at the end that it is gone.
//!
//! Owns: one task a pod. While a write is under way newer statuses replace each other: that is the debounce.
//! Called by: the pod worker.
//! Never: writes a status older than one it wrote.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use minik_api::resources::PODS;
use minik_client::{Client, DeleteParams, Patch};
use serde::Deserialize;
use tokio::sync::watch;

use crate::pod::Pod;
use crate::status;

const RETRY_AFTER: Duration = Duration::from_millis(500);
/// What somebody else wrote over our last word stands for this long, as with upstream's kubelet: a controller that
/// looks at it must be able to see it.
const RECONCILE_AFTER: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
struct Wanted {
    status: Option<(Arc<Pod>, core::PodStatus)>,
    /// After the status: the last word about a deleted pod.
    delete: bool,
}

/// Ends its task when dropped.
pub struct StatusWriter {
    wanted: watch::Sender<Wanted>,
}

impl StatusWriter {
    pub fn start(client: Client) -> StatusWriter {
        let (wanted, changes) = watch::channel(Wanted::default());
        tokio::spawn(write(client, changes));
        StatusWriter { wanted }
    }

    pub fn publish(&self, pod: &Arc<Pod>, status: core::PodStatus) {
        self.wanted.send_if_modified(|wanted| {
            let same = wanted.status.as_ref().is_some_and(|(p, s)| *s == status && p.metadata == pod.metadata);
            wanted.status = Some((pod.clone(), status));
            !same
        });
    }

    pub fn delete(&self) {
        self.wanted.send_if_modified(|wanted| !std::mem::replace(&mut wanted.delete, true));
    }
}

/// What the API server had after our last write.
struct Base {
    version: u64,
    status: core::PodStatus,
}

enum Wrote {
    Done,
    /// The pod is no more, or another one has its name.
    Gone,
    Retry,
}

async fn write(client: Client, mut changes: watch::Receiver<Wanted>) {
    let mut base: Option<Base> = None;
    let mut last: Option<core::PodStatus> = None;
    while changes.changed().await.is_ok() {
        loop {
            let wanted = changes.borrow_and_update().clone();
            let Some((pod, status)) = wanted.status else { break };
            if !wanted.delete
                && last.as_ref() == Some(&status)
                && status::patch(&pod.uid, known(&base, &pod), &status).is_some()
                && let Ok(changed) = tokio::time::timeout(RECONCILE_AFTER, changes.changed()).await
            {
                match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            }
            let mut outcome = patch(&client, &pod, &status, &mut base).await;
            if matches!(outcome, Wrote::Done) && wanted.delete {
                outcome = delete(&client, &pod).await;
            }
            match outcome {
                Wrote::Done => {
                    last = Some(status);
                    break;
                }
                Wrote::Gone => return,
                Wrote::Retry => tokio::time::sleep(RETRY_AFTER).await,
            }
        }
    }
}

/// The newest status we know the API server to have.
fn known<'a>(base: &'a Option<Base>, pod: &'a Pod) -> &'a core::PodStatus {
    match base {
        Some(base) if base.version >= version(pod) => &base.status,
        _ => &pod.api_status,
    }
}

fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

async fn patch(client: &Client, pod: &Pod, status: &core::PodStatus, base: &mut Option<Base>) -> Wrote {
    let Some(body) = status::patch(&pod.uid, known(base, pod), status) else { return Wrote::Done };
    match client.patch(PODS, pod.namespace(), pod.name(), "status", &Patch::Strategic(body)).await {
        Ok(object) => {
            let version = minik_api::object::resource_version(&object).parse().unwrap_or_else(|_| version(pod));
            let status = core::PodStatus::deserialize(&object["status"]).unwrap_or_default();
            *base = Some(Base { version, status });
            Wrote::Done
        }
        Err(error) => refused(client, pod, "status", &error).await,
    }
}

async fn delete(client: &Client, pod: &Pod) -> Wrote {
    let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::of_uid(&pod.uid) };
    match client.delete(PODS, pod.namespace(), pod.name(), &params).await {
        Ok(_) => Wrote::Gone,
        Err(error) => refused(client, pod, "deletion", &error).await,
    }
}

async fn refused(client: &Client, pod: &Pod, what: &str, error: &minik_client::Error) -> Wrote {
    if error.is_not_found() || error.is_of_another_object() {
        return Wrote::Gone;
    }
    if error.is_conflict() {
        // Another pod by that name, or just many writers at once.
        match client.get(PODS, pod.namespace(), pod.name()).await {
            Ok(now) if minik_api::object::uid(&now) != pod.uid => return Wrote::Gone,
            Err(error) if error.is_not_found() => return Wrote::Gone,
            Ok(_) | Err(_) => {}
        }
    }
    tracing::warn!(pod = %pod.key, what, error = %error.chain(), "could not be written; will retry");
    Wrote::Retry
}
