//! What one kubelet has to be told.
//!
//! Owns: `Config` and the numbers that are fixed for every node.
//! Called by: the node's wiring, which builds it; every other module reads it.
//! Never: reads files or the environment.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use minik_client::Client;

use crate::cri::Cri;

/// The version reported in `nodeInfo.kubeletVersion`: the Kubernetes behaviour this kubelet follows.
pub const KUBELET_VERSION: &str = "v1.37.2";

/// Port of the node server; the API server learns it from `status.daemonEndpoints`.
pub const SERVER_PORT: u16 = 10250;

pub struct Config {
    pub node_name: String,
    /// All addresses other nodes reach this one by; the first is the primary.
    pub node_ip: IpAddr,
    pub hostname: String,
    /// Identity `system:node:<node_name>` in group `system:nodes`.
    pub client: Client,
    pub cri: Cri,
    /// Volumes, hosts files and termination messages of pods: `<root_dir>/pods/<uid>/...`.
    pub root_dir: PathBuf,
    /// Where the runtime writes container logs, CRI format.
    pub log_dir: PathBuf,
    pub server: ServerConfig,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// The node's own resolver configuration, handed to pods of dnsPolicy Default.
    pub resolv_conf: PathBuf,
    pub labels: BTreeMap<String, String>,
    pub register_with_taints: Vec<RegisterTaint>,
    pub static_components: Vec<StaticComponent>,
    pub reserved: Resources,
    /// Overrides what /proc says, such as to share one machine between several nodes.
    pub capacity: Option<Resources>,
    pub max_pods: u32,
}

/// TLS server on `SERVER_PORT`. PEM texts.
pub struct ServerConfig {
    pub listen: IpAddr,
    pub port: u16,
    pub cert_pem: String,
    pub key_pem: String,
    /// Clients with a certificate signed by this CA are who the certificate says.
    pub client_ca_pem: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterTaint {
    pub key: String,
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// A component of this node that is no pod, shown as a mirror pod `<name>-<node>` in kube-system.
#[derive(Clone, Debug)]
pub struct StaticComponent {
    pub name: String,
    pub image: String,
    pub command: Vec<String>,
    /// Plain text log, served by `kubectl logs`.
    pub log_file: PathBuf,
    /// Value of `priorityClassName`, usually `system-node-critical`.
    pub priority_class: String,
}

/// Amounts of the three resources every node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_milli: u64,
    pub memory_bytes: u64,
    pub ephemeral_storage_bytes: u64,
}

impl Config {
    /// A configuration with everything that has a usual value filled in.
    pub fn new(node_name: &str, node_ip: IpAddr, client: Client, cri: Cri, server: ServerConfig) -> Self {
        Self {
            node_name: node_name.into(),
            node_ip,
            hostname: node_name.into(),
            client,
            cri,
            root_dir: "/var/lib/minik/kubelet".into(),
            log_dir: "/var/log/pods".into(),
            server,
            cluster_dns: vec![IpAddr::from([10, 96, 0, 10])],
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            labels: BTreeMap::new(),
            register_with_taints: Vec::new(),
            static_components: Vec::new(),
            reserved: Resources::default(),
            capacity: None,
            max_pods: 110,
        }
    }
}
