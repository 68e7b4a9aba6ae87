//! The process `minik kubelet`: kubelet, container runtime, kube-proxy, cluster DNS and volume provisioner of one node.
//!
//! Owns: which files they read, the identity of each, and the order of start and end.
//! Called by: init on every node.
//! Never: stops a container: pods outlive this process.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use minik_client::{Client, Tasks};
use minik_kubelet::{Cri, RegisterTaint, ServerConfig, StaticComponent};
use tokio_util::sync::CancellationToken;

use crate::config::{
    CLUSTER_DNS, CLUSTER_DOMAIN, IMAGES, KUBELET_PORT, NodeConfig, POD_CIDR, RUN, Role, STATE, kubeconfig, pki,
};
use crate::{logging, process, role};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;
/// Below the node's state, so that volumes outlive the node's container.
const VOLUMES: &str = "volumes";
/// As kube-proxy's.
const PROXY_HEALTH_PORT: u16 = 10256;

pub fn run() -> Result<()> {
    logging::start(logging::KUBELET);
    let node = NodeConfig::load()?;
    process::block_on(serve(node))
}

async fn serve(node: NodeConfig) -> Result<()> {
    let cancel = CancellationToken::new();
    let tasks = Tasks::new(cancel.clone());
    let runtime = minik_cri::Runtime::new(minik_cri::Config {
        state: Path::new(STATE).join("cri"),
        run: Path::new(RUN).join("cri"),
        images: IMAGES.into(),
        registries: minik_cri::images::Registries {
            insecure: node.insecure_registries.clone(),
            mirrors: node.registry_mirrors.clone(),
        },
        ..minik_cri::Config::default()
    })
    .await
    .context("could not start the container runtime")?;
    let (containers, images) = runtime.services();
    let cri = Cri::from_services(containers, images);
    let socket_cancel = cancel.clone();
    tasks.spawn_to_end(logged("cri socket", async move {
        runtime.serve(&Path::new(RUN).join("cri.sock"), socket_cancel).await
    }));
    tasks.spawn_to_end(logged("kube-proxy", minik_proxy::run(proxy(&node)?, cancel.clone())));
    tasks.spawn_to_end(logged("dns", minik_dns::run(dns()?, cancel.clone())));
    tasks.spawn_to_end(minik_provisioner::run(provisioner(&node)?, cancel.clone()));
    let kubelet = kubelet(&node, cri)?;
    let mut running = tokio::spawn(minik_kubelet::run(kubelet, cancel.clone()));
    tokio::select! {
        result = &mut running => result??,
        () = process::asked_to_end() => {}
    }
    cancel.cancel();
    tasks.drained(process::DRAIN_LIMIT).await;
    Ok(())
}

/// A node without DNS or Services still runs pods, so their end is no end of the process.
async fn logged<E: std::error::Error>(what: &'static str, work: impl Future<Output = Result<(), E>>) {
    if let Err(error) = work.await {
        let error = error_chain(&error);
        tracing::error!(component = what, error, "ended");
    }
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn client(identity: &str) -> Result<Client> {
    let path = kubeconfig(identity);
    Client::from_kubeconfig(&path).with_context(|| format!("could not use {}", path.display()))
}

fn read(name: &str) -> Result<String> {
    let path = pki(name);
    fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))
}

fn kubelet(node: &NodeConfig, cri: Cri) -> Result<minik_kubelet::Config> {
    let server = ServerConfig {
        listen: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        port: KUBELET_PORT,
        cert_pem: read("kubelet.crt")?,
        key_pem: read("kubelet.key")?,
        client_ca_pem: read("ca.crt")?,
    };
    let mut config = minik_kubelet::Config::new(&node.name, IpAddr::V4(node.address), client("kubelet")?, cri, server);
    config.labels = role::split(node).1;
    let taint =
        |t: &crate::config::Taint| RegisterTaint { key: t.key.clone(), value: String::new(), effect: t.effect.clone() };
    config.register_with_taints = node.taints.iter().map(taint).collect();
    config.static_components = static_components(node.role);
    Ok(config)
}

/// The components users look for in `kube-system`, though none of them is a pod.
fn static_components(role: Role) -> Vec<StaticComponent> {
    let component = |name: &str, process: &str, class: &str| StaticComponent {
        name: name.into(),
        image: format!("minik:{}", env!("CARGO_PKG_VERSION")),
        command: vec!["/minik".into(), process.into()],
        log_file: logging::component_log(name),
        priority_class: class.into(),
    };
    let mut all = vec![component("kube-proxy", "kubelet", "system-node-critical")];
    if role == Role::ControlPlane {
        let names = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "store"];
        all.extend(names.map(|name| component(name, "control-plane", "system-cluster-critical")));
    }
    all
}

fn proxy(node: &NodeConfig) -> Result<minik_proxy::Config> {
    Ok(minik_proxy::Config {
        client: client("proxy")?,
        node_name: node.name.clone(),
        node_ips: vec![node.address],
        cluster_cidr: POD_CIDR.parse().context("the pod CIDR is a constant")?,
        answered_here: vec![CLUSTER_DNS],
        healthz: Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PROXY_HEALTH_PORT))),
    })
}

fn provisioner(node: &NodeConfig) -> Result<minik_provisioner::Config> {
    Ok(minik_provisioner::Config {
        client: client("provisioner")?,
        node_name: node.name.clone(),
        root: Path::new(STATE).join(VOLUMES),
    })
}

fn dns() -> Result<minik_dns::Config> {
    Ok(minik_dns::Config {
        client: client("dns")?,
        listen: SocketAddr::from((CLUSTER_DNS, DNS_PORT)),
        domain: CLUSTER_DOMAIN.into(),
        resolv_conf: RESOLV_CONF.into(),
    })
}
