//! The role labels of the control-plane node, which its kubelet may not give itself (NodeRestriction).
//!
//! Owns: which labels those are, and putting them on once the Node exists.
//! Called by: the wiring of the control plane (puts them on) and of the kubelet (leaves them out).
//! Never: takes a label off: users may change a role.

use std::collections::BTreeMap;

use minik_api::resources::NODES;
use minik_client::{Cache, Client, Patch, Tasks};
use serde_json::json;

use crate::config::NodeConfig;

const PREFIX: &str = "node-role.kubernetes.io/";

type Labels = BTreeMap<String, String>;

/// Labels of the role, and the others.
pub fn split(node: &NodeConfig) -> (Labels, Labels) {
    node.labels.clone().into_iter().partition(|(key, _)| key.starts_with(PREFIX))
}

/// Returns when the Node has them; it is deleted and made again rarely enough to do this once per start.
pub async fn mark(client: Client, node: NodeConfig, tasks: Tasks) {
    let (labels, _) = split(&node);
    let selected = format!("metadata.name={}", node.name);
    let cache = Cache::builder(client.clone()).watch_selected(NODES, &selected, "").start(&tasks);
    let mut changes = cache.changes();
    loop {
        let change = changes.recv().await;
        let Some(found) = change.new else { continue };
        if labels.keys().all(|l| minik_api::object::label(&found, l).is_some()) {
            return;
        }
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        if let Err(error) = client.patch(NODES, "", &node.name, "", &patch).await {
            tracing::warn!(node = node.name, %error, "its role was not written; will try at its next change");
        }
    }
}
