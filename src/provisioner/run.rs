//! Starts the provisioner of one node.
//!
//! Owns: its configuration and its cache.
//! Called by: the wiring of a node.
//! Never: knows what is planned.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use minik_api::resources::{NODES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, STORAGECLASSES};
use minik_client::{Cache, Client, DriverConfig, EventRecorder, Executor, Reconciler, Tasks, drive};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::provision::Provision;
use crate::reclaim::Reclaim;
use crate::volume::PROVISIONER;

/// Until what was begun is written, after the end was asked for.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

pub struct Config {
    pub client: Client,
    pub node_name: String,
    /// Where the volumes lie on this node.
    pub root: PathBuf,
}

/// Runs until cancelled.
pub async fn run(config: Config, cancel: CancellationToken) {
    let tasks = Tasks::new(cancel.clone());
    let watched = [NODES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, STORAGECLASSES];
    let builder = watched.into_iter().fold(Cache::builder(config.client.clone()), |b, r| b.watch(r));
    let cache = builder.start(&tasks);
    let recorder = EventRecorder::new(config.client.clone(), PROVISIONER, &config.node_name, &tasks);
    let (node, root) = (config.node_name, config.root);
    let reconcilers: [Arc<dyn Reconciler>; 2] =
        [Arc::new(Provision { node: node.clone(), root: root.clone() }), Arc::new(Reclaim { node, root })];
    for reconciler in reconcilers {
        let executor = Executor { client: config.client.clone(), cache: cache.clone(), recorder: recorder.clone() };
        tasks.spawn(drive(executor, reconciler, DriverConfig::default()));
    }
    info!("providing volumes");
    cancel.cancelled().await;
    tasks.drained(DRAIN_LIMIT).await;
}
