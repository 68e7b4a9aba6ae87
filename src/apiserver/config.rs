//! What an API server is told when it starts.
//!
//! Owns: `Config` and its defaults.
//! Called by: the node's wiring, tests, `minik apiserver`.
//! Never: reads files; certificates and keys come as text.

use std::net::{IpAddr, Ipv4Addr};

use minik_store::Store;

use crate::audit::Audit;
use crate::authn::UserInfo;

/// A certificate chain and its key, in PEM.
#[derive(Clone, Debug, Default)]
pub struct KeyPair {
    pub certificate: String,
    pub key: String,
}

/// The serving side of TLS.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    pub serving: KeyPair,
    /// Certificates that client certificates must come from (PEM); without any, no client certificate is asked for.
    pub client_ca: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuthorizationMode {
    #[default]
    NodeAndRbac,
    AlwaysAllow,
}

/// How the API server reaches kubelets.
#[derive(Clone, Debug, Default)]
pub struct KubeletClient {
    /// Client certificate for kubelets.
    pub identity: KeyPair,
    /// Who signs kubelets' serving certificates (PEM).
    pub ca: String,
}

#[derive(Clone)]
pub struct Config {
    pub store: Store,
    /// `None`: plain HTTP (or no socket at all).
    pub tls: Option<Tls>,
    pub authorization: AuthorizationMode,
    pub kubelet: Option<KubeletClient>,
    /// What `kubernetes` in `default` points to.
    pub advertise_address: IpAddr,
    pub port: u16,
    /// `10.96.0.0/16`
    pub service_cidr: String,
    /// First and last NodePort.
    pub node_ports: (u16, u16),
    pub service_account_issuer: String,
    /// EC P-256 key in PEM that signs service-account tokens; without one a new key is made, valid until restart.
    pub service_account_key: Option<String>,
    /// Bearer tokens that name their user for good, as `--token-auth-file` has them.
    pub static_tokens: Vec<(String, UserInfo)>,
    /// Certificates of front proxies, which may speak for others in headers (PEM).
    pub front_proxy_ca: Option<String>,
    /// By which extension API servers know that it is this server who tells them who asks.
    pub front_proxy: Option<KeyPair>,
    /// Shown in `/version`.
    pub git_version: String,
    /// `None`: nothing is audited.
    pub audit: Option<Audit>,
}

impl Config {
    /// As minik's clusters are; `store` decides whether anything survives.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            tls: None,
            authorization: AuthorizationMode::default(),
            kubelet: None,
            advertise_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 6443,
            service_cidr: "10.96.0.0/16".into(),
            node_ports: (30000, 32767),
            service_account_issuer: "https://kubernetes.default.svc.cluster.local".into(),
            service_account_key: None,
            static_tokens: Vec::new(),
            front_proxy_ca: None,
            front_proxy: None,
            git_version: "v1.37.2".into(),
            audit: None,
        }
    }
}
