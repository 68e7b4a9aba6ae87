//! Starts all controllers on one cache.
//!
//! Owns: the configuration, and which controllers there are.
//! Called by: whoever wires a control plane.
//! Never: knows what a controller does.

use std::sync::Arc;
use std::time::Duration;

use minik_client::{Cache, Client, DriverConfig, EventRecorder, Executor, Reconciler, Tasks, drive};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::deployment::Deployment;
use crate::namespace_starters::{DefaultServiceAccount, RootCa};
use crate::node_ipam::{Cidr, NodeIpam};
use crate::replicaset::ReplicaSet;

/// Until what was begun is written, after the end was asked for.
const DRAIN_SECONDS_MAX: u64 = 5;

pub struct Config {
    pub client: Client,
    /// What goes into the ConfigMap `kube-root-ca.crt` of each Namespace.
    pub ca_pem: String,
    /// Addresses of Pods; a /24 of it for each Node.
    pub cluster_cidr: Cidr,
    pub node_prefix: u8,
}

impl Config {
    pub fn new(client: Client, ca_pem: String) -> Config {
        let cluster_cidr = Cidr { base: [10, 244, 0, 0].into(), prefix: 16 };
        Config { client, ca_pem, cluster_cidr, node_prefix: 24 }
    }
}

/// Runs until cancelled.
pub async fn run(config: Config, cancel: CancellationToken) {
    let tasks = Tasks::new(cancel.clone());
    let client = config.client.clone();
    let reconcilers = reconcilers(&config);
    let resources = reconcilers.iter().flat_map(|r| r.watches().iter().copied());
    let cache = resources.fold(Cache::builder(client.clone()), |builder, r| builder.watch(r)).start(&tasks);
    for reconciler in reconcilers {
        let recorder = EventRecorder::new(client.clone(), component(reconciler.name()), "", &tasks);
        let executor = Executor { client: client.clone(), cache: cache.clone(), recorder };
        tasks.spawn(drive(executor, reconciler, DriverConfig::default()));
    }
    info!("controllers started");
    cancel.cancelled().await;
    tasks.drained(Duration::from_secs(DRAIN_SECONDS_MAX)).await;
}

fn reconcilers(config: &Config) -> Vec<Arc<dyn Reconciler>> {
    vec![
        Arc::new(NodeIpam { cluster: config.cluster_cidr, node_prefix: config.node_prefix }),
        Arc::new(RootCa { pem: config.ca_pem.clone() }),
        Arc::new(DefaultServiceAccount),
        Arc::new(Deployment),
        Arc::new(ReplicaSet::Set),
        Arc::new(ReplicaSet::Controller),
    ]
}

/// What `kubectl describe` shows under From.
fn component(name: &'static str) -> &'static str {
    match name {
        "deployment" => "deployment-controller",
        "replicaset" => "replicaset-controller",
        "replicationcontroller" => "replication-controller",
        "daemonset" => "daemonset-controller",
        "statefulset" => "statefulset-controller",
        "job" => "job-controller",
        "cronjob" => "cronjob-controller",
        "node-ipam" => "cidrAllocator",
        other => other,
    }
}
