//! What all pods of this node share.
//!
//! Owns: the handles to the API, the runtime, and the facts of the node that go into pods.
//! Called by: pod workers, the node server.
//! Never: changes after the start, but for what is in its caches.

use std::net::IpAddr;
use std::path::PathBuf;

use minik_api::resources::SERVICES;
use minik_client::{Cache, Client, EventRecorder};

use crate::cri::Cri;
use crate::dns::{ClusterDns, ResolvConf};
use crate::downward::Around;
use crate::env;
use crate::hosts::{self, FqdnTooLong, Names};
use crate::observed::Observed;
use crate::pod::Pod;
use crate::resources::{Kernel, ResourceList};
use crate::room::Room;
use crate::sources::Sources;
use crate::volumes;

pub struct NodeContext {
    pub node_name: String,
    pub node_ip: IpAddr,
    pub client: Client,
    pub cri: Cri,
    pub recorder: EventRecorder,
    pub sources: Sources,
    /// Services of all namespaces.
    pub services: Cache,
    pub dns: ClusterDns,
    pub resolv_conf_path: PathBuf,
    pub log_dir: PathBuf,
    pub root_dir: PathBuf,
    /// Scheme of container ids.
    pub runtime_name: String,
    pub allocatable: ResourceList,
    /// What the pods here hold of it.
    pub room: Room,
    /// This node's own object.
    pub node_object: Cache,
    pub kernel: Kernel,
    /// True once the runtime has the pod CIDR: sandboxes with a network of their own can be made.
    pub network_ready: tokio::sync::watch::Receiver<bool>,
}

impl NodeContext {
    pub fn volumes(&self) -> volumes::Context {
        volumes::Context {
            node_name: self.node_name.clone(),
            client: self.client.clone(),
            sources: self.sources.clone(),
            recorder: self.recorder.clone(),
            pods_dir: self.root_dir.join("pods"),
        }
    }

    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    pub fn pod_log_dir(&self, pod: &Pod) -> PathBuf {
        self.log_dir.join(pod.log_dir_name())
    }

    /// Read again for every sandbox: the node's resolver may change while it runs.
    pub fn resolv_conf(&self) -> ResolvConf {
        std::fs::read_to_string(&self.resolv_conf_path).map(|text| ResolvConf::parse(&text)).unwrap_or_default()
    }

    pub fn names(&self, pod: &Pod) -> Result<Names, FqdnTooLong> {
        hosts::names(pod, &self.dns.domain)
    }

    pub fn around(&self, seen: &Observed) -> Around {
        Around {
            node_name: self.node_name.clone(),
            host_ip: Some(self.node_ip),
            pod_ips: seen.sandbox().map(|s| s.ips.clone()).unwrap_or_default(),
            node_allocatable: self.allocatable.clone(),
        }
    }

    pub fn pod_ip(&self, pod: &Pod, seen: &Observed) -> Option<IpAddr> {
        if pod.host_network() { Some(self.node_ip) } else { seen.sandbox()?.ips.first()?.parse().ok() }
    }

    /// Variables for the Services a pod sees: the API server's always, its namespace's unless it opted out.
    pub async fn service_variables(&self, pod: &Pod) -> std::collections::BTreeMap<String, String> {
        self.services.synced().await;
        let view = self.services.view();
        let own: Vec<_> = match pod.spec.enable_service_links {
            Some(false) => vec![],
            Some(true) | None => view.list(SERVICES, pod.namespace()).cloned().collect(),
        };
        let master = view.get(SERVICES, "default", "kubernetes").cloned();
        env::service_variables(master.iter().chain(&own).map(|o| o.value()))
    }
}
