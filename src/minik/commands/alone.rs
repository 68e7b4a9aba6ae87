//! `minik apiserver`, `minik scheduler`, `minik controller-manager`: one component as a process on this machine.
//!
//! Owns: their flags, and the keys of an API server on its own.
//! Called by: `main`, before there is a runtime: each makes its own.
//! Never: needs Docker.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use minik_node::alone;
use minik_node::config::SERVICE_CIDR;

use crate::error::CliError;
use crate::pki::{self, ClusterKeys, NodeFile};

#[derive(clap::Args, Debug)]
pub struct ApiServer {
    /// Folder of its keys, its kubeconfigs and its store; made when it is not there.
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Keep objects in memory alone.
    #[arg(long)]
    pub in_memory: bool,
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST)]
    pub bind_address: Ipv4Addr,
    /// 0 chooses a free port; it is printed once the server answers.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    #[arg(long, default_value = SERVICE_CIDR)]
    pub service_cluster_ip_range: String,
    /// Bearer tokens, a line each: token,user,uid,"group,group".
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub struct Scheduler {
    /// How it reaches its API server, and as whom.
    #[arg(long)]
    pub kubeconfig: PathBuf,
}

#[derive(clap::Args, Debug)]
pub struct ControllerManager {
    /// How it reaches its API server, and as whom.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Certificate of the authority that Pods trust the API server by.
    #[arg(long)]
    pub root_ca_file: PathBuf,
    /// Certificate of the authority that signs certificate requests; without one none is signed.
    #[arg(long, requires = "cluster_signing_key_file")]
    pub cluster_signing_cert_file: Option<PathBuf>,
    #[arg(long, requires = "cluster_signing_cert_file")]
    pub cluster_signing_key_file: Option<PathBuf>,
    /// Key that signs tokens in Secrets of service accounts; without one such Secrets stay empty.
    #[arg(long)]
    pub service_account_private_key_file: Option<PathBuf>,
}

/// Runs until it is told to end. Its kubeconfigs (`admin`, `scheduler`, `controller-manager`) lie in the data folder.
pub fn api_server(args: &ApiServer) -> Result<(), CliError> {
    let taken = |source| CliError::PortTaken {
        address: args.bind_address.to_string(),
        port: args.secure_port,
        source: Box::new(source),
    };
    let listener = TcpListener::bind((args.bind_address, args.secure_port)).map_err(taken)?;
    let port = listener.local_addr().map_err(taken)?.port();
    let reached = if args.bind_address.is_unspecified() { Ipv4Addr::LOCALHOST } else { args.bind_address };
    write_keys(&args.data_dir, SocketAddrV4::new(reached, port))?;
    let store = (!args.in_memory).then(|| args.data_dir.join("state.redb"));
    let alone = alone::ApiServerAlone {
        listener,
        folder: args.data_dir.clone(),
        store,
        service_cidr: args.service_cluster_ip_range.clone(),
        token_file: args.token_auth_file.clone(),
    };
    alone::api_server(alone).map_err(|source| ended("the API server", source))
}

pub fn scheduler(args: &Scheduler) -> Result<(), CliError> {
    alone::scheduler(&args.kubeconfig).map_err(|source| ended("the scheduler", source))
}

pub fn controller_manager(args: &ControllerManager) -> Result<(), CliError> {
    let alone = alone::ControllerManagerAlone {
        kubeconfig: args.kubeconfig.clone(),
        root_ca: args.root_ca_file.clone(),
        signing: args.cluster_signing_cert_file.clone().zip(args.cluster_signing_key_file.clone()),
        token_key: args.service_account_private_key_file.clone(),
    };
    alone::controller_manager(&alone).map_err(|source| ended("the controller manager", source))
}

fn ended(component: &'static str, source: anyhow::Error) -> CliError {
    CliError::Component { component, source: source.into() }
}

/// The authority and the token key last as long as the folder; certificates are made anew, since the port may be new.
fn write_keys(folder: &Path, api: SocketAddrV4) -> Result<(), CliError> {
    let read = |name: &str| std::fs::read_to_string(folder.join("pki").join(name));
    let keys = match (read("ca.crt"), read("ca.key"), read("sa.key")) {
        (Ok(ca), Ok(key), Ok(token)) => ClusterKeys::load(&ca, &key, &token)?,
        _ => ClusterKeys::create()?,
    };
    let mut files = vec![NodeFile::public("pki/ca.crt", keys.ca.certificate.as_str())];
    files.extend(keys.control_plane_files("localhost", api)?);
    files.push(pki::admin_file(&keys.ca, api, &keys.ca.admin()?));
    let failed = |source| CliError::Io { what: folder.display().to_string(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.join("pki")).map_err(failed)?;
    for file in &files {
        write(&folder.join(&file.path), file).map_err(failed)?;
    }
    Ok(())
}

/// Never readable by others, not even for the moment before its mode is set.
fn write(path: &Path, file: &NodeFile) -> std::io::Result<()> {
    let mut open = std::fs::OpenOptions::new();
    let mut target = open.write(true).create(true).truncate(true).mode(file.mode).open(path)?;
    std::io::Write::write_all(&mut target, &file.bytes)
}
