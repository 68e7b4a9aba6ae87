//! One container per node: create it, send it its files, start it.
//!
//! Owns: what a node container may do (capabilities, devices, mounts), and taking it away again.
//! Called by: `start`, `stop`, `delete`, `node`.
//! Never: uses `--privileged`: where Docker itself lacks a capability that fails as a whole.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigCgroupnsModeEnum, Mount,
    MountType, MountVolumeOptions, NetworkingConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum, SystemInfo,
    SystemInfoCgroupVersionEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions, StartContainerOptions,
    StopContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use minik_node::config::{API_PORT, IMAGES, NodeConfig, STATE};

use crate::cluster::{
    LABEL_ADDRESS, LABEL_API_PORT, LABEL_PROFILE, LABEL_ROLE, LABEL_VERSION, images_volume, network_name, node_volume,
};
use crate::docker;
use crate::error::CliError;
use crate::pki::NodeFile;

/// PID 1 drains components and containers within its own limits, which add up to less.
const STOP_SECONDS: i32 = 12;
const CERTIFICATES: &str = "ca-certificates.crt";
/// Bit of CAP_SYS_RESOURCE in the capability masks of /proc/self/status (capabilities(7)).
const CAP_SYS_RESOURCE: u64 = 1 << 24;

pub struct NodeSpec<'a> {
    pub config: &'a NodeConfig,
    pub image: &'a str,
    pub files: Vec<NodeFile>,
    /// Where the API server is published on the host; the control plane's only.
    pub api: Option<Publish>,
    pub memory: Option<i64>,
    pub cpus: Option<f64>,
    pub cgroups: Cgroups,
}

/// How the host counts what processes use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroups {
    V1,
    V2,
}

/// What Docker says of its host.
pub async fn host(docker: &Docker) -> Result<(SystemInfo, Cgroups), CliError> {
    let info = docker.info().await.map_err(docker::failed("ask Docker for its host"))?;
    let cgroups = match info.cgroup_version {
        Some(SystemInfoCgroupVersionEnum::_2) => Cgroups::V2,
        _ => Cgroups::V1,
    };
    Ok((info, cgroups))
}

#[derive(Clone, Debug)]
pub struct Publish {
    pub address: String,
    pub port: u16,
}

/// Creates a container; nothing runs yet, so that its output can be attached before it says anything.
pub async fn create(docker: &Docker, spec: &NodeSpec<'_>) -> Result<(), CliError> {
    let name = &spec.config.name;
    create_container(docker, spec, Capabilities::guess()).await?;
    let certificates = host_certificates();
    let files = spec.files.iter().chain(certificates.as_ref());
    let tar = pack(files).map_err(|source| CliError::Io { what: "the node's files".into(), source })?;
    let options = UploadToContainerOptionsBuilder::new().path("/").build();
    docker
        .upload_to_container(name, Some(options), bollard::body_full(tar.into()))
        .await
        .map_err(docker::failed(format!("send node {name} its files")))
}

async fn create_container(docker: &Docker, spec: &NodeSpec<'_>, capabilities: Capabilities) -> Result<(), CliError> {
    let name = &spec.config.name;
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    match docker.create_container(Some(options), body(spec, capabilities)).await {
        Ok(_) => Ok(()),
        Err(e) if docker::code(&e) == Some(409) => Err(CliError::NameTaken { name: name.clone(), by: "container" }),
        Err(e) => Err(docker::failed(format!("create node {name}"))(e)),
    }
}

/// Starts a created or stopped node. Where Docker itself lacks CAP_SYS_RESOURCE it refuses to give it; the node is
/// then made again without (its volumes, and so its files, stay).
pub async fn start(docker: &Docker, spec: &NodeSpec<'_>) -> Result<(), CliError> {
    match resume(docker, &spec.config.name, spec.api.as_ref()).await {
        Err(CliError::Docker { source, .. }) if docker::message(&source).contains("unable to apply caps") => {
            remove_container(docker, &spec.config.name).await?;
            create_container(docker, spec, Capabilities::WithoutSysResource).await?;
            resume(docker, &spec.config.name, spec.api.as_ref()).await
        }
        other => other,
    }
}

/// Starts a container that exists.
pub async fn resume(docker: &Docker, name: &str, api: Option<&Publish>) -> Result<(), CliError> {
    let started = docker.start_container(name, None::<StartContainerOptions>).await;
    started.map_err(|e| match api {
        Some(api) if is_port_taken(&e) => {
            CliError::PortTaken { address: api.address.clone(), port: api.port, source: Box::new(e) }
        }
        _ => docker::failed(format!("start node {name}"))(e),
    })
}

fn is_port_taken(error: &bollard::errors::Error) -> bool {
    let message = docker::message(error);
    message.contains("port is already allocated") || message.contains("address already in use")
}

pub async fn stop(docker: &Docker, name: &str) -> Result<(), CliError> {
    let options = StopContainerOptionsBuilder::new().t(STOP_SECONDS).build();
    match docker.stop_container(name, Some(options)).await {
        Ok(()) => Ok(()),
        // 304: it is stopped already.
        Err(e) if docker::code(&e) == Some(304) => Ok(()),
        Err(e) => Err(docker::failed(format!("stop node {name}"))(e)),
    }
}

async fn remove_container(docker: &Docker, name: &str) -> Result<(), CliError> {
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    match docker.remove_container(name, Some(options)).await {
        Ok(()) => Ok(()),
        Err(e) if docker::code(&e) == Some(404) => Ok(()),
        Err(e) => Err(docker::failed(format!("remove node {name}"))(e)),
    }
}

/// The container and its volume.
pub async fn remove(docker: &Docker, name: &str) -> Result<(), CliError> {
    remove_container(docker, name).await?;
    remove_volume(docker, &node_volume(name)).await
}

pub async fn remove_volume(docker: &Docker, volume: &str) -> Result<(), CliError> {
    match docker.remove_volume(volume, None::<RemoveVolumeOptions>).await {
        Ok(()) => Ok(()),
        Err(e) if docker::code(&e) == Some(404) => Ok(()),
        Err(e) => Err(docker::failed(format!("remove volume {volume}"))(e)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Capabilities {
    All,
    WithoutSysResource,
}

impl Capabilities {
    /// A local daemon mostly has the bounds this process has, so asking for less at once saves a failed start.
    fn guess() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bounds = status.lines().find_map(|l| l.strip_prefix("CapBnd:"));
        match bounds.and_then(|b| u64::from_str_radix(b.trim(), 16).ok()) {
            Some(mask) if mask & CAP_SYS_RESOURCE == 0 => Self::WithoutSysResource,
            _ => Self::All,
        }
    }
}

fn volume(profile: &str, name: String, target: &str) -> Mount {
    let labels = HashMap::from([(LABEL_PROFILE.to_string(), profile.to_string())]);
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(name),
        target: Some(target.into()),
        volume_options: Some(MountVolumeOptions { labels: Some(labels), ..MountVolumeOptions::default() }),
        ..Mount::default()
    }
}

fn host_config(spec: &NodeSpec<'_>, capabilities: Capabilities) -> HostConfig {
    let config = spec.config;
    let ports = spec.api.as_ref().map(|api| {
        let binding = PortBinding { host_ip: Some(api.address.clone()), host_port: Some(api.port.to_string()) };
        HashMap::from([(format!("{API_PORT}/tcp"), Some(vec![binding]))])
    });
    let unconfined = ["seccomp=unconfined", "apparmor=unconfined", "label=disable"];
    HostConfig {
        cap_add: Some(vec!["ALL".into()]),
        cap_drop: (capabilities == Capabilities::WithoutSysResource).then(|| vec!["SYS_RESOURCE".into()]),
        security_opt: Some(unconfined.iter().map(ToString::to_string).collect()),
        masked_paths: Some(Vec::new()),
        readonly_paths: Some(Vec::new()),
        device_cgroup_rules: Some(vec!["a *:* rwm".into()]),
        mounts: Some(vec![
            volume(&config.profile, node_volume(&config.name), STATE),
            volume(&config.profile, images_volume(&config.profile), IMAGES),
        ]),
        tmpfs: Some(HashMap::from([("/run".to_string(), "exec,mode=755".to_string())])),
        network_mode: Some(network_name(&config.profile)),
        port_bindings: ports,
        // A v2 node hands controllers on from the root of what it sees, which must be its own: Docker's usual, but a
        // daemon may be told otherwise.
        cgroupns_mode: (spec.cgroups == Cgroups::V2).then_some(HostConfigCgroupnsModeEnum::PRIVATE),
        memory: spec.memory,
        nano_cpus: spec.cpus.map(|c| (c * 1e9) as i64),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        ..HostConfig::default()
    }
}

/// Certificates the host trusts, for pulling images: a FROM scratch image has none, and a company's own authority is
/// known to the host only.
fn host_certificates() -> Option<NodeFile> {
    const BUNDLES: [&str; 4] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
        "/etc/ssl/ca-bundle.pem",
    ];
    let chosen = std::env::var("SSL_CERT_FILE").ok();
    let bundle = chosen.iter().map(String::as_str).chain(BUNDLES).find_map(|p| std::fs::read(p).ok())?;
    Some(NodeFile::public(CERTIFICATES, bundle))
}

fn body(spec: &NodeSpec<'_>, capabilities: Capabilities) -> ContainerCreateBody {
    let config = spec.config;
    let mut environment: Vec<String> = config.environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
    environment.push(format!("SSL_CERT_FILE={STATE}/{CERTIFICATES}"));
    let mut labels = HashMap::from([
        (LABEL_PROFILE.to_string(), config.profile.clone()),
        (LABEL_ROLE.to_string(), config.role.as_str().to_string()),
        (LABEL_VERSION.to_string(), env!("CARGO_PKG_VERSION").to_string()),
        (LABEL_ADDRESS.to_string(), config.address.to_string()),
    ]);
    if let Some(api) = &spec.api {
        labels.insert(LABEL_API_PORT.into(), api.port.to_string());
    }
    let address =
        EndpointIpamConfig { ipv4_address: Some(config.address.to_string()), ..EndpointIpamConfig::default() };
    let endpoint = EndpointSettings { ipam_config: Some(address), ..EndpointSettings::default() };
    ContainerCreateBody {
        hostname: Some(config.name.clone()),
        image: Some(spec.image.into()),
        entrypoint: Some(vec!["/minik".into(), "node".into()]),
        env: Some(environment),
        labels: Some(labels),
        exposed_ports: spec.api.as_ref().map(|_| vec![format!("{API_PORT}/tcp")]),
        stop_signal: Some("SIGTERM".into()),
        stop_timeout: Some(i64::from(STOP_SECONDS)),
        host_config: Some(host_config(spec, capabilities)),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network_name(&config.profile), endpoint)])),
        }),
        ..ContainerCreateBody::default()
    }
}

/// Keys reach a node only as files of its volume: never by an image, an environment or a log.
fn pack<'a>(files: impl Iterator<Item = &'a NodeFile>) -> Result<Vec<u8>, std::io::Error> {
    let mut tar = tar::Builder::new(Vec::new());
    for folder in ["", "/pki"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o700);
        header.set_size(0);
        tar.append_data(&mut header, format!("{}{folder}/", &STATE[1..]), std::io::empty())?;
    }
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(file.mode);
        header.set_size(file.bytes.len() as u64);
        tar.append_data(&mut header, format!("{}/{}", &STATE[1..], file.path), file.bytes.as_slice())?;
    }
    tar.into_inner()
}
