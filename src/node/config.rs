//! What a node is: the file the CLI writes into a node's volume before the first start.
//!
//! Owns: `node.json`, the paths inside a node, and the numbers every component of a cluster shares.
//! Called by: the CLI (writes), init and the components' wiring (read).
//! Never: holds a key; keys lie beside it under `pki/` with mode 0600.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub const STATE: &str = "/var/lib/minik";
pub const IMAGES: &str = "/var/lib/minik-images";
pub const RUN: &str = "/run/minik";
pub const COMPONENT_LOGS: &str = "/var/log/minik";
/// Under `STATE`, where the cluster audits its API.
pub const AUDIT_POLICY: &str = "audit-policy.yaml";
pub const API_PORT: u16 = 6443;
pub const KUBELET_PORT: u16 = 10250;
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
pub const POD_CIDR: &str = "10.244.0.0/16";
pub const KUBERNETES_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
pub const CLUSTER_DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub const CLUSTER_DOMAIN: &str = "cluster.local";
pub const TOKEN_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The line PID 1 of the control plane prints when the API server answers; `minik start` waits for it.
pub const API_READY: &str = "minik: api ready";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    ControlPlane,
    Worker,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::ControlPlane => "control-plane",
            Role::Worker => "worker",
        }
    }
}

/// A taint the node registers with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taint {
    pub key: String,
    pub effect: String,
}

/// `node.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    pub profile: String,
    pub name: String,
    pub role: Role,
    /// This node's fixed address on the cluster's network.
    pub address: Ipv4Addr,
    /// Where the API server listens for nodes.
    pub api_address: Ipv4Addr,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub taints: Vec<Taint>,
    /// Registries (host or host:port) that are spoken to in plain HTTP.
    #[serde(default)]
    pub insecure_registries: Vec<String>,
    /// Asked for an image before the registry that its name says.
    #[serde(default)]
    pub registry_mirrors: Vec<minik_cri::images::Mirror>,
    /// Extra environment for containers' image pulls, such as `HTTPS_PROXY`.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("could not read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a node configuration")]
    Parse { path: PathBuf, source: serde_json::Error },
}

impl NodeConfig {
    pub fn path() -> PathBuf {
        Path::new(STATE).join("node.json")
    }

    pub fn load() -> Result<Self, ConfigError> {
        let path = Self::path();
        let bytes = std::fs::read(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        serde_json::from_slice(&bytes).map_err(|source| ConfigError::Parse { path, source })
    }
}

/// A file of this node's `pki` folder.
pub fn pki(name: &str) -> PathBuf {
    Path::new(STATE).join("pki").join(name)
}

/// The kubeconfig of one component identity, such as `scheduler`.
pub fn kubeconfig(component: &str) -> PathBuf {
    Path::new(STATE).join(format!("{component}.kubeconfig"))
}
