//! `minik start`: makes a cluster, or brings a stopped one back.
//!
//! Owns: the order of steps, and taking everything away again when a first start fails or is interrupted.
//! Called by: `main`.
//! Never: changes a cluster that runs: then it only waits until it is ready and mends the kubeconfig.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use bollard::Docker;
use bollard::models::SystemInfo;
use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use futures::TryStreamExt;
use futures::future::try_join_all;
use minik_node::config::{API_PORT, AUDIT_POLICY, NodeConfig, Role, Taint};
use tokio_util::sync::CancellationToken;

use crate::cluster::{self, Cluster, State, node_name};
use crate::commands::delete;
use crate::docker;
use crate::error::CliError;
use crate::kubeconfig;
use crate::output::{Format, Progress};
use crate::pki::{self, ClusterKeys, Identity, NodeFile};
use crate::steps::network::Subnet;
use crate::steps::nodes::{self, Cgroups, NodeSpec, Publish};
use crate::steps::{image, network, ready};

/// minikube's and kind's users expect one control plane and some workers.
const NODES_DEFAULT: u32 = 4;
/// A /24 without Docker's gateway, the network's and the broadcast address.
const NODES_MAX: u32 = 200;
/// Idle nodes use a fraction of this; it leaves room for a few pods.
const MEMORY_MB_PER_NODE: u64 = 128;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// How many nodes in all; the first is the control plane. 1 makes one node that does both.
    #[arg(long, short, value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    pub nodes: Option<u32>,
    /// Port of the API server on this host; a free one is chosen when it is left out.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub api_port: Option<u16>,
    /// Address on this host where the API server listens.
    #[arg(long, default_value = "127.0.0.1")]
    pub listen_address: std::net::Ipv4Addr,
    /// Network of the nodes, such as 10.123.45.0/24; a free one is chosen when it is left out.
    #[arg(long, value_parser = Subnet::parse)]
    pub subnet: Option<Subnet>,
    /// Registry to speak plain HTTP to; may be repeated. localhost always is.
    #[arg(long = "insecure-registry")]
    pub insecure_registries: Vec<String>,
    /// Ask this registry first for the images of another one; may be repeated. Without REGISTRY= it is Docker Hub's.
    #[arg(long = "registry-mirror", value_name = "[REGISTRY=]URL", value_parser = minik_node::Mirror::parse)]
    pub registry_mirrors: Vec<minik_node::Mirror>,
    /// Memory limit of each node, such as 2g or 512m.
    #[arg(long, value_parser = parse_bytes)]
    pub memory: Option<i64>,
    /// CPU limit of each node, such as 1.5.
    #[arg(long)]
    pub cpus: Option<f64>,
    /// Seconds to wait until every node is Ready.
    #[arg(long, default_value_t = 120)]
    pub wait_timeout: u64,
    /// Audit policy (audit.k8s.io/v1) of the API server; events go to /var/lib/minik/audit.log in the first node.
    #[arg(long, value_name = "FILE")]
    pub apiserver_audit_policy: Option<std::path::PathBuf>,
    /// Keep the nodes when the start fails, to look at them.
    #[arg(long)]
    pub retain: bool,
    /// Start although there seems to be too little memory.
    #[arg(long)]
    pub force: bool,
}

fn parse_bytes(text: &str) -> Result<i64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: i64 = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "ki" => 1 << 10,
        "m" | "mb" | "mi" => 1 << 20,
        "g" | "gb" | "gi" => 1 << 30,
        _ => return Err("write it as 512m or 2g".into()),
    };
    let number: i64 = digits.parse().map_err(|_| "write it as 512m or 2g")?;
    let bytes = number.checked_mul(factor).ok_or("that is more memory than there is")?;
    // Docker refuses less than 6 MB; a node with pods needs far more.
    if bytes < 64 << 20 { Err("a node needs at least 64m".into()) } else { Ok(bytes) }
}

pub async fn run(profile: &str, args: &Args, format: Format) -> Result<(), CliError> {
    let progress = Progress::new(format);
    progress.step("Looking for Docker");
    let docker = docker::connect().await?;
    let existing = cluster::observe(&docker, profile).await?;
    let server = match existing {
        Some(cluster) => resume(&docker, &cluster, args, &progress).await?,
        None => create_or_clean_up(&docker, profile, args, &progress).await?,
    };
    let cluster = cluster::require(&docker, profile).await?;
    progress
        .done(&format!("Cluster `{profile}` is ready: {} node(s), Kubernetes v1.37, {server}", cluster.nodes.len()));
    match format {
        Format::Json => println!(
            "{}",
            serde_json::json!({"profile": profile, "server": server, "seconds": progress.elapsed().as_secs_f64(),
                "kubeconfig": kubeconfig::target(), "context": profile,
                "nodes": cluster.nodes.iter().map(|n| n.name.as_str()).collect::<Vec<_>>()})
        ),
        Format::Text => eprintln!("kubectl uses it now (context `{profile}`): try `kubectl get nodes`"),
    }
    Ok(())
}

/// A first start that fails or is interrupted leaves nothing, unless asked to.
async fn create_or_clean_up(
    docker: &Docker,
    profile: &str,
    args: &Args,
    progress: &Progress,
) -> Result<String, CliError> {
    let result = tokio::select! {
        result = create(docker, profile, args, progress) => result,
        _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted { left: None }),
    };
    let error = match result {
        Ok(server) => return Ok(server),
        Err(error) => error,
    };
    if args.retain {
        progress.note(&format!("Kept what was made; remove it with `minik delete -p {profile}`"));
        return Err(error);
    }
    // A container or network of this name that is not ours must stay.
    if matches!(error, CliError::NameTaken { .. }) && cluster::observe(docker, profile).await?.is_none() {
        delete::network_and_images(docker, profile).await?;
        return Err(error);
    }
    progress.step("Removing what was made");
    let removed = delete::everything(docker, profile).await;
    match (error, removed) {
        (CliError::Interrupted { .. }, Err(_)) => {
            Err(CliError::Interrupted { left: Some(format!("minik delete -p {profile}")) })
        }
        (error, _) => Err(error),
    }
}

async fn create(docker: &Docker, profile: &str, args: &Args, progress: &Progress) -> Result<String, CliError> {
    let count = args.nodes.unwrap_or(NODES_DEFAULT);
    let (info, cgroups) = nodes::host(docker).await?;
    if !args.force {
        check_memory(&info, count)?;
    }
    progress.step(&format!("Preparing network, image and keys for {count} node(s)"));
    let keys = tokio::task::spawn_blocking(ClusterKeys::create);
    let (subnet, image) = tokio::try_join!(network::ensure(docker, profile, args.subnet), image::ensure(docker))?;
    let keys = keys.await.expect("making keys does not panic")?;
    if image.imported {
        progress.note("Imported the node image (this executable)");
    }
    let publish = publish(args)?;
    let admin = keys.ca.admin()?;
    let specs = specs(profile, args, subnet, count, &keys, &admin, &image.tag, &publish, cgroups)?;
    progress.step(&format!("Starting {count} node(s)"));
    let control_plane = &specs[0];
    let name = control_plane.config.name.clone();
    // Docker starts containers nearly one after the other: the one that all wait for goes first.
    let its_turn = CancellationToken::new();
    let first = async {
        nodes::create(docker, &control_plane.spec()).await?;
        its_turn.cancel();
        nodes::start(docker, &control_plane.spec()).await
    };
    let others = try_join_all(specs[1..].iter().map(|s| async {
        nodes::create(docker, &s.spec()).await?;
        its_turn.cancelled().await;
        nodes::start(docker, &s.spec()).await
    }));
    let limit = Duration::from_secs(args.wait_timeout);
    let answered = async {
        first.await?;
        ready::api(docker, &name, ready::listen(docker, &name, ready::Since::Creation).await?, limit).await
    };
    tokio::try_join!(others, answered)?;
    let server = format!("https://{}:{}", connect_address(&publish.address), publish.port);
    write_kubeconfig(profile, &server, &keys.ca.certificate, &admin)?;
    progress.step("Waiting for the nodes to be Ready");
    let names: Vec<String> = specs.iter().map(|s| s.config.name.clone()).collect();
    ready::nodes(ready::client(profile, &server, &keys.ca.certificate, &admin)?, &names, limit).await?;
    Ok(server)
}

/// Listening on all addresses is reached by loopback.
fn connect_address(listen: &str) -> &str {
    if listen == "0.0.0.0" { "127.0.0.1" } else { listen }
}

struct Planned<'a> {
    config: NodeConfig,
    image: &'a str,
    files: std::cell::RefCell<Vec<NodeFile>>,
    api: Option<Publish>,
    args: &'a Args,
    cgroups: Cgroups,
}

impl Planned<'_> {
    fn spec(&self) -> NodeSpec<'_> {
        NodeSpec {
            config: &self.config,
            image: self.image,
            files: self.files.take(),
            api: self.api.clone(),
            memory: self.args.memory,
            cpus: self.args.cpus,
            cgroups: self.cgroups,
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "each is a different part of what a node is made from")]
fn specs<'a>(
    profile: &str,
    args: &'a Args,
    subnet: Subnet,
    count: u32,
    keys: &ClusterKeys,
    admin: &Identity,
    image: &'a str,
    publish: &Publish,
    cgroups: Cgroups,
) -> Result<Vec<Planned<'a>>, CliError> {
    let full = || CliError::NoAddressSpace { profile: profile.into() };
    let api_address = subnet.node(0).ok_or_else(full)?;
    let mut planned = Vec::new();
    for index in 0..count {
        let address = subnet.node(index).ok_or_else(full)?;
        let config = node_config(profile, index, address, api_address, count > 1, args);
        let mut files = pki::node_files(&keys.ca, &config)?;
        if index == 0 {
            let api = SocketAddrV4::new(address, API_PORT);
            files.extend(keys.control_plane_files(&config.name, api)?);
            files.push(pki::admin_file(&keys.ca, api, admin));
            if let Some(path) = &args.apiserver_audit_policy {
                let failed = |source| CliError::Io { what: path.display().to_string(), source };
                files.push(NodeFile::public(AUDIT_POLICY, std::fs::read(path).map_err(failed)?));
            }
        }
        let api = (index == 0).then(|| publish.clone());
        planned.push(Planned { config, image, files: files.into(), api, args, cgroups });
    }
    Ok(planned)
}

/// What a node of a cluster is; `node add` uses it too.
pub fn node_config(
    profile: &str,
    index: u32,
    address: std::net::Ipv4Addr,
    api_address: std::net::Ipv4Addr,
    has_workers: bool,
    args: &Args,
) -> NodeConfig {
    let role = if index == 0 { Role::ControlPlane } else { Role::Worker };
    let mut labels = BTreeMap::new();
    let mut taints = Vec::new();
    if role == Role::ControlPlane {
        labels.insert("node-role.kubernetes.io/control-plane".into(), String::new());
        labels.insert("node.kubernetes.io/exclude-from-external-load-balancers".into(), String::new());
        if has_workers {
            let key = "node-role.kubernetes.io/control-plane".into();
            taints.push(Taint { key, effect: "NoSchedule".into() });
        }
    }
    let proxies = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "MINIK_LOG"];
    let environment = proxies.iter().filter_map(|n| Some((n.to_string(), std::env::var(n).ok()?))).collect();
    NodeConfig {
        profile: profile.into(),
        name: node_name(profile, index),
        role,
        address,
        api_address,
        labels,
        taints,
        insecure_registries: args.insecure_registries.clone(),
        registry_mirrors: args.registry_mirrors.clone(),
        environment,
    }
}

fn check_memory(info: &SystemInfo, nodes: u32) -> Result<(), CliError> {
    let have_mb = u64::try_from(info.mem_total.unwrap_or(i64::MAX)).unwrap_or(u64::MAX) >> 20;
    let need_mb = u64::from(nodes) * MEMORY_MB_PER_NODE;
    if have_mb < need_mb { Err(CliError::TooLittleMemory { nodes, need_mb, have_mb }) } else { Ok(()) }
}

/// A fixed port, so that the kubeconfig stays true over restarts of the container. Binding it here first tells
/// "taken" apart from every other fault before anything is made.
fn publish(args: &Args) -> Result<Publish, CliError> {
    let address = args.listen_address.to_string();
    let port = args.api_port.unwrap_or(0);
    let taken = |source| CliError::PortTaken { address: address.clone(), port, source: Box::new(source) };
    let listener = std::net::TcpListener::bind((args.listen_address, port)).map_err(taken)?;
    let port = listener.local_addr().map_err(taken)?.port();
    Ok(Publish { address, port })
}

fn write_kubeconfig(profile: &str, server: &str, ca: &str, admin: &Identity) -> Result<(), CliError> {
    let path = kubeconfig::target();
    let entry = kubeconfig::Entry { profile, server, ca, certificate: &admin.certificate, key: &admin.key };
    kubeconfig::merge(&path, &entry).map_err(|source| CliError::Kubeconfig { path, source })
}

/// Starts what is stopped and waits for all; the kubeconfig is written again if it is not in order.
async fn resume(docker: &Docker, cluster: &Cluster, args: &Args, progress: &Progress) -> Result<String, CliError> {
    let profile = &cluster.profile;
    if let Some(asked) = args.nodes.filter(|n| *n as usize != cluster.nodes.len()) {
        return Err(CliError::NodeCount { profile: profile.clone(), have: cluster.nodes.len(), asked });
    }
    let control_plane = cluster.control_plane().ok_or_else(|| CliError::NoSuchCluster { profile: profile.clone() })?;
    progress.step(&format!("Starting {} node(s)", cluster.nodes.len()));
    let limit = Duration::from_secs(args.wait_timeout);
    let was_running = control_plane.state == State::Running;
    let output =
        if was_running { None } else { Some(ready::listen(docker, &control_plane.name, ready::Since::Now).await?) };
    let api = control_plane.api_port.map(|port| Publish { address: args.listen_address.to_string(), port });
    try_join_all(cluster.nodes.iter().map(|node| {
        let api = if node.role == Role::ControlPlane { api.as_ref() } else { None };
        async move {
            match node.state {
                State::Running => Ok(()),
                State::Paused => docker.unpause_container(&node.name).await.map_err(docker::failed("unpause a node")),
                State::Stopped => nodes::resume(docker, &node.name, api).await,
            }
        }
    }))
    .await?;
    if let Some(output) = output {
        ready::api(docker, &control_plane.name, output, limit).await?;
    }
    let (ca, admin) = admin(docker, cluster).await?;
    let server = cluster.api_url().ok_or_else(|| CliError::NoSuchCluster { profile: profile.clone() })?;
    if kubeconfig::server(profile).as_deref() != Some(&server) {
        write_kubeconfig(profile, &server, &ca, &admin)?;
    }
    progress.step("Waiting for the nodes to be Ready");
    let names: Vec<String> = cluster.nodes.iter().map(|n| n.name.clone()).collect();
    ready::nodes(ready::client(profile, &server, &ca, &admin)?, &names, limit).await?;
    Ok(server)
}

/// The cluster's CA and admin identity, read out of the control plane's volume.
pub async fn admin(docker: &Docker, cluster: &Cluster) -> Result<(String, Identity), CliError> {
    use base64::Engine;
    let config = read_file(docker, cluster, "/var/lib/minik/admin.kubeconfig").await?;
    let broken = || CliError::Invalid(format!("the admin kubeconfig in cluster `{}` is damaged", cluster.profile));
    let config: serde_json::Value = serde_json::from_slice(&config).map_err(|_| broken())?;
    let field = |pointer: &str| {
        let text = config.pointer(pointer)?.as_str()?;
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).ok()?).ok()
    };
    let ca = field("/clusters/0/cluster/certificate-authority-data").ok_or_else(broken)?;
    let certificate = field("/users/0/user/client-certificate-data").ok_or_else(broken)?;
    let key = field("/users/0/user/client-key-data").ok_or_else(broken)?;
    Ok((ca, Identity { certificate, key }))
}

/// One file of the control plane, running or not.
pub async fn read_file(docker: &Docker, cluster: &Cluster, path: &str) -> Result<Vec<u8>, CliError> {
    let missing = || CliError::NoSuchCluster { profile: cluster.profile.clone() };
    let node = cluster.control_plane().ok_or_else(missing)?;
    let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
    let what = format!("read {path} of node {}", node.name);
    let tar: Vec<_> = docker
        .download_from_container(&node.name, Some(options))
        .try_collect()
        .await
        .map_err(docker::failed(what.clone()))?;
    let tar = tar.concat();
    let read = || {
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut entry = archive.entries()?.next().ok_or(std::io::ErrorKind::NotFound)??;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source: std::io::Error| CliError::Io { what, source })
}
