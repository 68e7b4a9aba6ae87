//! Putting a kubelet together: from its configuration to running tasks.
//!
//! Owns: the order of the start and of the end.
//! Called by: whoever runs a node.
//! Never: does any of the work.

use std::sync::Arc;
use std::time::Duration;

use k8s_cri::v1 as cri;
use minik_api::resources::{NODES, PODS, SERVICES};
use minik_client::{Cache, EventRecorder, Tasks};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::context::NodeContext;
use crate::dispatcher::{self, Pods};
use crate::dns::ClusterDns;
use crate::machine::capacity::{Capacity, capacity};
use crate::machine::{self, Registration, Reporter, cgroup, mirror};
use crate::resources::Kernel;
use crate::room::Room;
use crate::sources::Sources;
use crate::{RunError, log_rotation, server};

/// How long tasks get to end once the kubelet is told to.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// The runtime may start at the same time as the kubelet.
const RUNTIME_RETRY: Duration = Duration::from_millis(100);

/// Runs until cancelled. Containers keep running when it ends; the next kubelet adopts them.
pub async fn run(config: Config, cancel: CancellationToken) -> Result<(), RunError> {
    for path in [config.root_dir.join("pods"), config.log_dir.clone()] {
        std::fs::create_dir_all(&path).map_err(|source| RunError::Directory { path, source })?;
    }
    let listener = server::bind(&config.server).await?;
    let tasks = Tasks::new(cancel.clone());
    let ended = cancel.run_until_cancelled(start(config, listener, &tasks)).await;
    if let Some(result) = ended {
        result?;
    }
    cancel.cancelled().await;
    if !tasks.drained(DRAIN_LIMIT).await {
        tracing::warn!("some tasks did not end in time");
    }
    Ok(())
}

async fn start(config: Config, listener: server::Listener, tasks: &Tasks) -> Result<(), RunError> {
    let version = runtime_version(&config.cri).await;
    let measured = capacity(&config);
    let recorder = EventRecorder::new(config.client.clone(), "kubelet", &config.node_name, tasks);
    let nodes = Cache::builder(config.client.clone())
        .watch_selected(NODES, &format!("metadata.name={}", config.node_name), "")
        .start(tasks);
    let mine = Cache::builder(config.client.clone())
        .watch_selected(PODS, &format!("spec.nodeName={}", config.node_name), "")
        .start(tasks);
    let (network_up, network_ready) = watch::channel(false);
    let context = Arc::new(NodeContext {
        network_ready,
        ..context(&config, &version, &measured, recorder.clone(), &nodes, tasks)
    });

    let pods = Pods::default();
    server::start(listener, &config, context.clone(), pods.clone(), tasks);
    tasks.spawn(log_rotation::run(context.clone()));
    tasks.spawn(dispatcher::run(context.clone(), mine, pods, tasks.clone()));

    let node = Registration::of(&config).register(&config.client).await;
    Registration::announce_drivers(&config.client, &node).await;
    let uid = minik_api::object::uid(&node).to_string();
    tasks.spawn(machine::run_reports(Reporter {
        client: config.client.clone(),
        cri: config.cri.clone(),
        name: config.node_name.clone(),
        facts: machine::facts(&config, &version, &measured),
        nodes,
        recorder,
        network_up,
    }));
    tasks.spawn(machine::run_lease(config.client.clone(), config.node_name.clone(), uid.clone()));
    if !config.static_components.is_empty() {
        tasks.spawn(mirror::run(mirror::Mirrors {
            client: config.client.clone(),
            node_name: config.node_name.clone(),
            node_uid: uid,
            node_ip: config.node_ip.to_string(),
            components: config.static_components,
        }));
    }
    Ok(())
}

async fn runtime_version(cri: &crate::Cri) -> cri::VersionResponse {
    loop {
        match cri.runtime().version(cri::VersionRequest { version: "v1".into() }).await {
            Ok(answer) => return answer.into_inner(),
            Err(status) => tracing::warn!(error = status.message(), "waiting for the container runtime"),
        }
        tokio::time::sleep(RUNTIME_RETRY).await;
    }
}

fn context(
    config: &Config,
    version: &cri::VersionResponse,
    measured: &Capacity,
    recorder: EventRecorder,
    nodes: &Cache,
    tasks: &Tasks,
) -> NodeContext {
    NodeContext {
        node_name: config.node_name.clone(),
        node_ip: config.node_ip,
        client: config.client.clone(),
        cri: config.cri.clone(),
        recorder,
        sources: Sources::new(config.client.clone()),
        services: Cache::builder(config.client.clone()).watch(SERVICES).start(tasks),
        dns: ClusterDns { servers: config.cluster_dns.clone(), domain: config.cluster_domain.clone() },
        resolv_conf_path: config.resolv_conf.clone(),
        log_dir: config.log_dir.clone(),
        root_dir: config.root_dir.clone(),
        runtime_name: version.runtime_name.clone(),
        allocatable: measured.allocatable.clone(),
        room: Room::default(),
        node_object: nodes.clone(),
        kernel: Kernel { memory_bytes: measured.total.memory_bytes, unified: cgroup::unified() },
        network_ready: watch::channel(false).1,
    }
}
