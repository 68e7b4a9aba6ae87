//! Making the Node object exist.
//!
//! Owns: its labels, annotations and taints at registration, and bringing an existing one up to date.
//! Called by: `run`, before anything else is told to the API server.
//! Never: removes what others put on the Node.

use std::collections::BTreeMap;
use std::time::Duration;

use minik_api::resources::{CSINODES, NODES};
use minik_client::{Client, Error, Patch};
use serde_json::{Value, json};

use crate::config::{Config, RegisterTaint};

/// In-tree volume plugins that Kubernetes has handed over to CSI drivers.
const MIGRATED_PLUGINS: &str = "kubernetes.io/aws-ebs,kubernetes.io/azure-disk,kubernetes.io/azure-file,\
    kubernetes.io/cinder,kubernetes.io/gce-pd,kubernetes.io/portworx-volume,kubernetes.io/vsphere-volume";
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Registration {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<RegisterTaint>,
}

impl Registration {
    pub fn of(config: &Config) -> Registration {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let mut labels = BTreeMap::from([
            ("kubernetes.io/hostname".to_string(), config.hostname.clone()),
            ("kubernetes.io/os".to_string(), "linux".to_string()),
            ("kubernetes.io/arch".to_string(), arch.to_string()),
            ("beta.kubernetes.io/os".to_string(), "linux".to_string()),
            ("beta.kubernetes.io/arch".to_string(), arch.to_string()),
        ]);
        labels.extend(config.labels.clone());
        Registration { name: config.node_name.clone(), labels, taints: config.register_with_taints.clone() }
    }

    /// What CSI drivers this node has: none. Its existence says so, where its absence would say "not known yet".
    pub async fn announce_drivers(client: &Client, node: &Value) {
        let name = minik_api::object::name(node);
        let body = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
            "metadata": {
                "name": name,
                "annotations": {"storage.alpha.kubernetes.io/migrated-plugins": MIGRATED_PLUGINS},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Node", "name": name, "uid": minik_api::object::uid(node)},
                ],
            },
            "spec": {"drivers": []},
        });
        match client.create(CSINODES, "", &body).await {
            Err(error) if !error.is_already_exists() => {
                tracing::warn!(node = name, error = %error.chain(), "no CSINode could be made");
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Tries until the API server has the Node; answers it.
    pub async fn register(&self, client: &Client) -> Value {
        let mut pause = RETRY_FIRST;
        loop {
            match self.try_once(client).await {
                Ok(node) => {
                    tracing::info!(node = self.name, "registered");
                    return node;
                }
                Err(error) => {
                    tracing::warn!(node = self.name, error = %error.chain(), "not registered yet; will retry")
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn try_once(&self, client: &Client) -> Result<Value, Error> {
        match client.create(NODES, "", &self.object()).await {
            Err(error) if error.is_already_exists() => {}
            other => return other,
        }
        let node = client.get(NODES, "", &self.name).await?;
        let stale = self.labels.iter().any(|(k, v)| minik_api::object::label(&node, k) != Some(v));
        if !stale {
            return Ok(node);
        }
        let patch = Patch::Merge(json!({"metadata": {"labels": self.labels}}));
        client.patch(NODES, "", &self.name, "", &patch).await
    }

    fn object(&self) -> Value {
        let taints: Vec<Value> = self.taints.iter().map(taint).collect();
        let mut spec = json!({});
        if !taints.is_empty() {
            spec["taints"] = taints.into();
        }
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": self.name,
                "labels": self.labels,
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "spec": spec,
        })
    }
}

fn taint(taint: &RegisterTaint) -> Value {
    let mut out = json!({"key": taint.key, "effect": taint.effect});
    if !taint.value.is_empty() {
        out["value"] = taint.value.clone().into();
    }
    out
}
