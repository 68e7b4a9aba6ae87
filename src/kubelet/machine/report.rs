//! Telling the API server how this node is.
//!
//! Owns: handing the pod CIDR to the runtime, asking the runtime how it is, and when the answer is worth a write.
//! Called by: `run`, as a task.
//! Never: writes heartbeats more often than every five minutes: the Lease is for that.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_cri::v1 as cri;
use minik_api::resources::NODES;
use minik_client::{Cache, Client, EventRecorder, EventType, Patch, Regarding};
use serde_json::{Value, json};

use super::status::{Facts, RuntimeState, differs, node_status, not_ready};
use crate::cri::Cri;

/// The runtime is asked this often: its health has no event.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(300);
const RETRY_AFTER: Duration = Duration::from_millis(200);

pub struct Reporter {
    pub client: Client,
    pub cri: Cri,
    pub name: String,
    pub facts: Facts,
    /// Holds this Node alone.
    pub nodes: Cache,
    pub recorder: EventRecorder,
    /// Told when the runtime can make pod networks.
    pub network_up: tokio::sync::watch::Sender<bool>,
}

/// Forever.
pub async fn run(reporter: Reporter) {
    let mut changes = reporter.nodes.changes();
    let mut pod_cidr = String::new();
    let mut last: Option<(Value, Instant)> = None;
    reporter.nodes.synced().await;
    loop {
        let node = reporter.nodes.view().get(NODES, "", &reporter.name).map(|o| o.value().clone()).unwrap_or_default();
        if let Some(cidr) = node["spec"]["podCIDR"].as_str().filter(|c| *c != pod_cidr && !c.is_empty()) {
            match reporter.hand_over(cidr).await {
                Ok(()) => pod_cidr = cidr.to_string(),
                Err(status) => tracing::warn!(cidr, error = status.message(), "the runtime did not take the pod CIDR"),
            }
        }
        let wrote = reporter.report(&node, &mut last).await;
        let pause = if wrote { LOOK_EVERY } else { RETRY_AFTER };
        tokio::select! {
            _ = changes.recv() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Reporter {
    async fn hand_over(&self, pod_cidr: &str) -> Result<(), tonic::Status> {
        let network_config = Some(cri::NetworkConfig { pod_cidr: pod_cidr.into() });
        let request = cri::UpdateRuntimeConfigRequest { runtime_config: Some(cri::RuntimeConfig { network_config }) };
        self.cri.runtime().update_runtime_config(request).await.map(|_| ())
    }

    async fn ask_runtime(&self) -> RuntimeState {
        let mut state = RuntimeState::default();
        match self.cri.runtime().status(cri::StatusRequest { verbose: false }).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                state.conditions = answer.status.unwrap_or_default().conditions;
                let up = state.conditions.iter().any(|c| c.r#type == "NetworkReady" && c.status);
                self.network_up.send_replace(up);
                state.handlers = answer.runtime_handlers;
            }
            Err(status) => state.error = Some(status.message().to_string()),
        }
        if let Ok(answer) = self.cri.images().list_images(cri::ListImagesRequest { filter: None }).await {
            state.images = answer.into_inner().images;
        }
        state
    }

    /// False when a write failed and is to be tried again soon.
    async fn report(&self, node: &Value, last: &mut Option<(Value, Instant)>) -> bool {
        if node.is_null() {
            return true;
        }
        let runtime = self.ask_runtime().await;
        // What was written last is newer than the cache for a moment.
        let known = last.as_ref().map_or(&node["status"], |(status, _)| status);
        let new = node_status(&self.facts, &runtime, known, Timestamp::now());
        let heartbeat_due = last.as_ref().is_none_or(|(_, at)| at.elapsed() >= HEARTBEAT_EVERY);
        // Also against the cache: somebody else, such as a controller marking the node unknown, may have written.
        if !heartbeat_due && !differs(known, &new) && !differs(&node["status"], &new) {
            return true;
        }
        let patch = Patch::Strategic(json!({"status": new}));
        match self.client.patch(NODES, "", &self.name, "status", &patch).await {
            Ok(_) => {
                self.tell_readiness(node, known, &new, &runtime);
                *last = Some((new, Instant::now()));
                true
            }
            Err(error) => {
                tracing::warn!(error = %error.chain(), "node status not written; will retry");
                false
            }
        }
    }

    fn tell_readiness(&self, node: &Value, old: &Value, new: &Value, runtime: &RuntimeState) {
        let ready = |status: &Value| {
            let list = status["conditions"].as_array().into_iter().flatten();
            list.clone().find(|c| c["type"] == "Ready").map(|c| c["status"].clone())
        };
        if ready(old) == ready(new) {
            return;
        }
        let word = if not_ready(runtime).is_none() { "NodeReady" } else { "NodeNotReady" };
        tracing::info!(node = self.name, word, "status changed");
        let about = Regarding { api_version: "v1".into(), kind: "Node".into(), ..Regarding::of(node) };
        self.recorder.record(&about, EventType::Normal, word, &format!("Node {} status is now: {word}", self.name));
    }
}
