//! Connects a pod's network namespace to its node, and disconnects it.
//!
//! A pod hangs on the node by a point-to-point veth, with no bridge: its address is a /32, everything it sends goes to
//! the node, and the node has one host route per pod. So traffic between two pods of a node passes the node's
//! forwarding path like all other traffic does, and Services work on it without br_netfilter.
//!
//! Owns: links, addresses and routes of a pod, and the address leases.
//! Called by: `cri`.
//! Never: makes or removes the namespace itself (`netns` does), or asks the API server anything.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nlink::netlink::addr::Ipv4Address;
use nlink::netlink::link::VethLink;
use nlink::netlink::namespace::Netns;
use nlink::netlink::route::Ipv4Route;
use nlink::netlink::types::route::RouteScope;
use nlink::{Connection, Route};

use crate::address::Ipv4Cidr;
use crate::hostport::{self, HostPort};
use crate::lease::{self, Lease, Leases};

/// The name every pod knows its link by.
pub const POD_INTERFACE: &str = "eth0";

/// Host ends of pods start so; rules that speak of "from a pod of this node" match the prefix.
pub const HOST_INTERFACE_PREFIX: &str = "mk";

#[derive(Debug, Clone)]
pub struct Config {
    /// Where the leases are kept (`leases.json`). A tmpfs is right: the namespaces vanish with it.
    pub run_dir: PathBuf,
    /// MTU of pod links; `None` takes that of the node's default route.
    pub mtu: Option<u32>,
}

/// What a pod got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodAddress {
    pub ip: Ipv4Addr,
    pub gateway: Ipv4Addr,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the node has no pod CIDR yet")]
    NoPodCidr,
    #[error(transparent)]
    Lease(#[from] lease::Error),
    #[error("could not {verb} for sandbox {sandbox}")]
    Link { verb: &'static str, sandbox: String, source: nlink::Error },
    #[error("could not write the host port rules")]
    HostPorts(#[source] crate::nft_apply::Error),
}

/// The network of this node's pods. Share it by `Arc`.
pub struct PodNetwork {
    state_file: PathBuf,
    mtu: Option<u32>,
    state: Mutex<State>,
    /// Host port rules are rewritten whole, so two writers must not interleave.
    host_port_writer: tokio::sync::Mutex<()>,
}

struct State {
    cidr: Option<Ipv4Cidr>,
    leases: Leases,
}

impl PodNetwork {
    /// Reads the leases a former process of this node left.
    pub fn new(config: Config) -> Result<PodNetwork, Error> {
        let state_file = config.run_dir.join("leases.json");
        let leases = Leases::load(&state_file)?;
        Ok(PodNetwork {
            state_file,
            mtu: config.mtu,
            state: Mutex::new(State { cidr: None, leases }),
            host_port_writer: tokio::sync::Mutex::new(()),
        })
    }

    /// The node's `spec.podCIDR`. Pods that run keep their address when it changes.
    pub fn set_cidr(&self, cidr: Ipv4Cidr) {
        self.state().cidr = Some(cidr);
    }

    pub fn cidr(&self) -> Option<Ipv4Cidr> {
        self.state().cidr
    }

    /// Gives the namespace at `netns` an address and a way out. Called again for the same sandbox it does the same
    /// again, with the same address. On an error nothing is left behind.
    pub async fn attach(&self, netns: &Path, sandbox: &str, host_ports: &[HostPort]) -> Result<PodAddress, Error> {
        let address = {
            let mut state = self.state();
            let cidr = state.cidr.ok_or(Error::NoPodCidr)?;
            let ip = state.leases.acquire(cidr, sandbox, host_ports)?;
            state.leases.save(&self.state_file)?;
            PodAddress { ip, gateway: cidr.gateway() }
        };
        let mtu = self.mtu.or_else(default_route_mtu);
        let connected = match connect(netns, sandbox, address, mtu).await {
            Ok(()) if host_ports.is_empty() => Ok(()),
            Ok(()) => {
                allow_loopback(sandbox);
                self.write_host_ports().await
            }
            Err((verb, source)) => Err(Error::Link { verb, sandbox: sandbox.to_owned(), source }),
        };
        if let Err(error) = connected {
            if let Err(second) = self.detach(sandbox).await {
                tracing::warn!(sandbox, error = %second, "a sandbox's network could not be taken back");
            }
            return Err(error);
        }
        tracing::debug!(sandbox, ip = %address.ip, "pod network attached");
        Ok(address)
    }

    /// Takes the link away and frees the address. Idempotent, and works when the namespace is gone already.
    pub async fn detach(&self, sandbox: &str) -> Result<(), Error> {
        let failed = |source| Error::Link { verb: "remove the link", sandbox: sandbox.to_owned(), source };
        let node = Connection::<Route>::new().map_err(failed)?;
        node.del_link_if_exists(host_interface(sandbox)).await.map_err(failed)?;
        // Only now: an address whose link still stands would be given to another pod.
        let released = {
            let mut state = self.state();
            let released = state.leases.release(sandbox);
            if released.is_some() {
                state.leases.save(&self.state_file)?;
            }
            released
        };
        if released.is_some_and(|lease| !lease.host_ports.is_empty()) {
            self.write_host_ports().await?;
        }
        Ok(())
    }

    /// The address a sandbox has, also after a restart of the process.
    pub fn address(&self, sandbox: &str) -> Option<PodAddress> {
        let state = self.state();
        let ip = state.leases.get(sandbox)?.ip;
        let gateway = state.cidr.filter(|cidr| cidr.contains(ip)).map_or(ip, |cidr| cidr.gateway());
        Some(PodAddress { ip, gateway })
    }

    /// Detaches every sandbox that `is_live` does not know: what a crash between two steps may have left.
    pub async fn collect_garbage(&self, is_live: impl Fn(&str) -> bool) -> Result<(), Error> {
        let dead: Vec<String> = {
            let state = self.state();
            let known = state.leases.oldest_first();
            known.into_iter().map(|(sandbox, _)| sandbox.to_owned()).filter(|s| !is_live(s)).collect()
        };
        for sandbox in dead {
            self.detach(&sandbox).await?;
        }
        Ok(())
    }

    async fn write_host_ports(&self) -> Result<(), Error> {
        let _writer = self.host_port_writer.lock().await;
        let leases: Vec<Lease> = self.state().leases.oldest_first().into_iter().map(|(_, l)| l.clone()).collect();
        hostport::apply(&leases).await.map_err(Error::HostPorts)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic while the lock was held leaves whole values behind: every change is one call.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The name of a sandbox's link on the node: derived, so that removing it needs no memory. Linux allows 15 characters;
/// 13 hexadecimal digits of FNV-1a (52 bits) make two sandboxes of one node sharing a name practically impossible.
pub fn host_interface(sandbox: &str) -> String {
    let hash = sandbox
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{HOST_INTERFACE_PREFIX}{:013x}", hash >> 12)
}

type Step<T> = Result<T, (&'static str, nlink::Error)>;

async fn connect(netns: &Path, sandbox: &str, address: PodAddress, mtu: Option<u32>) -> Step<()> {
    let namespace = Netns::from_path(netns).map_err(|e| ("open the network namespace", e))?;
    let node = Connection::<Route>::new().map_err(|e| ("open netlink", e))?;
    let pod = Connection::<Route>::new_in(&namespace).map_err(|e| ("open netlink in the pod", e))?;
    let host_end = host_interface(sandbox);
    // A former attempt may have got half way; its link would hold the name.
    node.del_link_if_exists(host_end.clone()).await.map_err(|e| ("remove a former link", e))?;
    let mut veth = VethLink::new(&host_end, POD_INTERFACE).peer_netns_fd(&namespace);
    if let Some(mtu) = mtu {
        veth = veth.mtu(mtu);
    }
    node.add_link(veth).await.map_err(|e| ("make the veth pair", e))?;
    connect_node_end(&node, &host_end, address).await.map_err(|e| ("set up the node's end", e))?;
    connect_pod_end(&pod, address).await.map_err(|e| ("set up the pod's end", e))
}

async fn connect_node_end(node: &Connection<Route>, name: &str, address: PodAddress) -> nlink::Result<()> {
    let index = node.resolve_interface(&name.to_owned().into()).await?;
    // No link-local IPv6 address: it would only send router solicitations that nobody answers.
    node.set_addr_gen_mode_by_index(index, nlink::netlink::devconf::AddrGenMode::None).await?;
    node.set_link_up_by_index(index).await?;
    // The gateway's address on every pod link: it answers the pod's ARP, and is what a pod sees the node come from.
    node.add_address(Ipv4Address::with_index(index, address.gateway, 32)).await?;
    let route = Ipv4Route::from_addr(address.ip, 32).dev_index(index).scope(RouteScope::Link);
    // Replace: the route of a former pod with this address may still lie there when its link goes down slowly.
    node.replace_route(route).await
}

async fn connect_pod_end(pod: &Connection<Route>, address: PodAddress) -> nlink::Result<()> {
    pod.set_link_up("lo").await?;
    let index = pod.resolve_interface(&POD_INTERFACE.to_owned().into()).await?;
    pod.set_addr_gen_mode_by_index(index, nlink::netlink::devconf::AddrGenMode::None).await?;
    pod.replace_address_by_index(index, IpAddr::V4(address.ip), 32).await?;
    pod.set_link_up_by_index(index).await?;
    let gateway = Ipv4Route::from_addr(address.gateway, 32).dev_index(index).scope(RouteScope::Link);
    pod.replace_route(gateway).await?;
    pod.replace_route(Ipv4Route::default_route().gateway(address.gateway).dev_index(index)).await
}

/// Lets a host port on 127.0.0.1 be translated to the pod: the kernel refuses loopback addresses on other links else.
/// `masquerade`'s loopback guard keeps the pod from using it the other way.
fn allow_loopback(sandbox: &str) {
    let path = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", host_interface(sandbox));
    if let Err(error) = std::fs::write(&path, "1") {
        tracing::warn!(sandbox, path, %error, "host ports will not answer on the node's loopback address");
    }
}

/// MTU of the link the node's default route leaves by, from the kernel's own tables.
fn default_route_mtu() -> Option<u32> {
    let routes = std::fs::read_to_string("/proc/net/route").ok()?;
    let device = routes.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace();
        let (device, destination) = (columns.next()?, columns.next()?);
        (destination == "00000000").then(|| device.to_owned())
    })?;
    std::fs::read_to_string(format!("/sys/class/net/{device}/mtu")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_name_fits_linux_and_differs_by_sandbox() {
        let names: std::collections::BTreeSet<String> = (0..10_000).map(|n| host_interface(&n.to_string())).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.len() == 15 && name.starts_with(HOST_INTERFACE_PREFIX)));
    }

    #[tokio::test]
    async fn a_pod_without_a_cidr_on_its_node_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let network = PodNetwork::new(Config { run_dir: folder.path().to_owned(), mtu: None }).unwrap();
        let error = network.attach(Path::new("/nowhere"), "a", &[]).await.unwrap_err();
        assert_eq!(error.to_string(), "the node has no pod CIDR yet");
    }
}
