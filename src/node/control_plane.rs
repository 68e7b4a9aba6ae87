//! The process `minik control-plane`: API server, scheduler and controllers, wired together.
//!
//! Owns: which files they read, the identity of each, and the order of start and end.
//! Called by: init on the control-plane node.
//! Never: reaches into a component: each is a client of the API server like any other.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use minik_apiserver::ApiServer;
use minik_apiserver::audit::{Audit, Rotation};
use minik_apiserver::config::{KeyPair, KubeletClient, Tls};
use minik_client::{Client, Tasks};
use minik_store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{API_PORT, API_READY, AUDIT_POLICY, NodeConfig, SERVICE_CIDR, STATE, TOKEN_ISSUER, pki};
use crate::{addons, in_process, logging, process, role};

const STORE_FILE: &str = "state.redb";

pub fn run() -> Result<()> {
    logging::start(logging::CONTROL_PLANE);
    let node = NodeConfig::load()?;
    process::block_on(serve(node))
}

async fn serve(node: NodeConfig) -> Result<()> {
    let cancel = CancellationToken::new();
    // The port first: whoever comes early waits in its queue and is not sent away. Workers may wait for the address
    // itself already.
    let address = (Ipv4Addr::UNSPECIFIED, API_PORT);
    let listener = TcpListener::bind(address).await.with_context(|| format!("could not listen on port {API_PORT}"))?;
    if let Err(error) = minik_network::announce::announce(node.address).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "workers may find the API server a second later");
    }
    let folder = Path::new(STATE).join("store");
    fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    let store = Store::open(&folder.join(STORE_FILE)).context("could not open the store")?;
    let server = ApiServer::build(config(store, Path::new(STATE), IpAddr::V4(node.address), API_PORT)?).await?;
    // The CLI waits for exactly this line on the container's output.
    println!("{API_READY}");
    let mut serving = tokio::spawn(server.clone().serve(listener, cancel.clone()));
    let components = components(&server, node, &cancel)?;
    tokio::select! {
        result = &mut serving => result??,
        () = process::asked_to_end() => {}
    }
    cancel.cancel();
    // Its listener closes first; the components then find a server that still answers them in process.
    components.drained(process::DRAIN_LIMIT).await;
    server.stop().await;
    Ok(())
}

fn components(server: &Arc<ApiServer>, node: NodeConfig, cancel: &CancellationToken) -> Result<Tasks> {
    let tasks = Tasks::new(cancel.clone());
    let scheduler = minik_scheduler::Config::new(in_process::client(server, "system:kube-scheduler", &[]));
    tasks.spawn_to_end(minik_scheduler::run(scheduler, cancel.clone()));
    let client = in_process::client(server, "system:kube-controller-manager", &[]);
    let keys = ControllerKeys {
        authority: Some(authority(&pki("ca.crt"), &pki("ca.key"))?),
        token_signer: Some(token_signer(&pki("sa.key"))?),
    };
    let controllers = controllers(client, &pki("ca.crt"), keys)?;
    tasks.spawn_to_end(minik_controllers::run(controllers, cancel.clone()));
    let setup = in_process::client(server, "system:minik:setup", &["system:masters"]);
    tasks.spawn(addons::ensure(setup.clone()));
    tasks.spawn(role::mark(setup, node, Tasks::new(cancel.clone())));
    Ok(tasks)
}

/// What controllers sign with.
#[derive(Default)]
pub struct ControllerKeys {
    pub authority: Option<minik_controllers::Authority>,
    pub token_signer: Option<minik_controllers::TokenSigner>,
}

pub fn authority(certificate: &Path, key: &Path) -> Result<minik_controllers::Authority> {
    let authority = minik_controllers::Authority::load(&read(certificate)?, &read(key)?);
    authority.with_context(|| format!("could not sign with {}", certificate.display()))
}

pub fn token_signer(key: &Path) -> Result<minik_controllers::TokenSigner> {
    minik_controllers::TokenSigner::load(&read(key)?).with_context(|| format!("could not sign with {}", key.display()))
}

pub fn controllers(client: Client, root_ca: &Path, keys: ControllerKeys) -> Result<minik_controllers::Config> {
    let mut config = minik_controllers::Config::new(client, read(root_ca)?);
    config.authority = keys.authority;
    config.token_signer = keys.token_signer;
    Ok(config)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))
}

fn pair(keys: &Path, name: &str) -> Result<KeyPair> {
    let part = |ending: &str| read(&keys.join(format!("{name}.{ending}")));
    Ok(KeyPair { certificate: part("crt")?, key: part("key")? })
}

/// The API server whose keys lie in `folder/pki` and that others reach at `address` and `port`.
pub fn config(store: Store, folder: &Path, address: IpAddr, port: u16) -> Result<minik_apiserver::Config> {
    let keys = folder.join("pki");
    let ca = read(&keys.join("ca.crt"))?;
    let mut config = minik_apiserver::Config::new(store);
    config.tls = Some(Tls { serving: pair(&keys, "apiserver")?, client_ca: Some(ca.clone()) });
    config.kubelet = Some(KubeletClient { identity: pair(&keys, "apiserver-kubelet-client")?, ca });
    config.front_proxy_ca = Some(read(&keys.join("front-proxy-ca.crt"))?);
    config.front_proxy = Some(pair(&keys, "front-proxy-client")?);
    config.advertise_address = address;
    config.port = port;
    config.service_cidr = SERVICE_CIDR.into();
    config.service_account_issuer = TOKEN_ISSUER.into();
    config.service_account_key = Some(read(&keys.join("sa.key"))?);
    let policy = folder.join(AUDIT_POLICY);
    if policy.exists() {
        let log = folder.join("audit.log");
        config.audit = Some(Audit { policy: read(&policy)?, log, rotation: Rotation::default() });
    }
    Ok(config)
}
