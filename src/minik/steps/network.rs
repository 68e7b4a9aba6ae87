//! The cluster's own bridge network, with a subnet of its own so that nodes can have fixed addresses.
//!
//! Owns: choosing a subnet that collides with nothing the host or Docker uses, and the nodes' addresses in it.
//! Called by: `start`.
//! Never: reuses a network minik did not make.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use bollard::Docker;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptions;

use crate::cluster::{LABEL_PROFILE, network_name};
use crate::docker;
use crate::error::CliError;

/// A /24 of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet(pub Ipv4Addr);

/// The control plane is `.2`; `.1` is Docker's gateway.
const FIRST_NODE: u8 = 2;
/// minikube begins at the same place and steps by nine: few home networks live there.
const FIRST_THIRD_OCTET: u8 = 49;
const STEP: u8 = 9;

impl Subnet {
    pub fn parse(text: &str) -> Result<Self, String> {
        let (base, bits) = text.split_once('/').ok_or("write it as 10.123.45.0/24")?;
        let base: Ipv4Addr = base.parse().map_err(|_| "write it as 10.123.45.0/24")?;
        if bits != "24" || base.octets()[3] != 0 || !base.is_private() {
            return Err("a cluster's network is a private /24, such as 10.123.45.0/24".into());
        }
        Ok(Self(base))
    }

    pub fn node(self, index: u32) -> Option<Ipv4Addr> {
        let last = u8::try_from(index).ok()?.checked_add(FIRST_NODE)?;
        let [a, b, c, _] = self.0.octets();
        (last < 255).then(|| Ipv4Addr::new(a, b, c, last))
    }

    fn overlaps(self, other: Range) -> bool {
        let first = u32::from(self.0);
        first <= other.last && other.first <= first + 255
    }

    fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, _] = address.octets();
        Self(Ipv4Addr::new(a, b, c, 0))
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/24", self.0)
    }
}

#[derive(Clone, Copy, Debug)]
struct Range {
    first: u32,
    last: u32,
}

impl Range {
    fn parse(cidr: &str) -> Option<Self> {
        let (base, bits) = cidr.split_once('/')?;
        let (base, bits) = (u32::from(base.parse::<Ipv4Addr>().ok()?), bits.parse::<u32>().ok()?);
        let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
        Some(Self { first: base & mask, last: base | !mask })
    }
}

/// Candidates in order, then the first that is free; pure.
fn choose(used: &[Range], tried: &[Subnet]) -> Option<Subnet> {
    let at_home = (FIRST_THIRD_OCTET..=247).step_by(usize::from(STEP)).map(|c| Subnet(Ipv4Addr::new(192, 168, c, 0)));
    let larger = (0..=255).map(|c| Subnet(Ipv4Addr::new(10, 213, c, 0)));
    at_home.chain(larger).find(|s| !tried.contains(s) && !used.iter().any(|u| s.overlaps(*u)))
}

/// How many times another `start` may take the chosen subnet in the moment between choosing and creating.
const RACES_MAX: usize = 32;

/// Creates the network, or finds the one an earlier `start` of the same profile made.
pub async fn ensure(docker: &Docker, profile: &str, asked: Option<Subnet>) -> Result<Subnet, CliError> {
    let name = network_name(profile);
    let mut tried = Vec::new();
    for _ in 0..RACES_MAX {
        let networks =
            docker.list_networks(None::<ListNetworksOptions>).await.map_err(docker::failed("list networks"))?;
        let mut used = host_routes();
        for network in networks {
            let configs = network.ipam.and_then(|i| i.config).unwrap_or_default();
            let subnets: Vec<String> = configs.into_iter().filter_map(|c| c.subnet).collect();
            if network.name.as_deref() == Some(&name) {
                if network.labels.unwrap_or_default().get(LABEL_PROFILE).map(String::as_str) != Some(profile) {
                    return Err(CliError::NameTaken { name, by: "network" });
                }
                let ours = subnets.first().and_then(|s| Subnet::parse(s).ok());
                return ours.ok_or(CliError::NameTaken { name, by: "network" });
            }
            used.extend(subnets.iter().filter_map(|s| Range::parse(s)));
        }
        let subnet = match asked {
            Some(subnet) if tried.is_empty() => subnet,
            Some(_) => break,
            None => match choose(&used, &tried) {
                Some(subnet) => subnet,
                None => break,
            },
        };
        match create(docker, profile, &name, subnet).await {
            Ok(()) => return Ok(subnet),
            Err(e) if is_overlap(&e) || docker::code(&e) == Some(409) => tried.push(subnet),
            Err(e) => return Err(docker::failed(format!("create network {name}"))(e)),
        }
    }
    Err(CliError::NoAddressSpace { profile: profile.into() })
}

fn is_overlap(error: &bollard::errors::Error) -> bool {
    let message = docker::message(error);
    message.contains("overlap") || message.contains("conflicts with network") || message.contains("non-overlapping")
}

async fn create(docker: &Docker, profile: &str, name: &str, subnet: Subnet) -> Result<(), bollard::errors::Error> {
    let config = IpamConfig { subnet: Some(subnet.to_string()), ..IpamConfig::default() };
    let request = NetworkCreateRequest {
        name: name.into(),
        driver: Some("bridge".into()),
        ipam: Some(Ipam { config: Some(vec![config]), ..Ipam::default() }),
        labels: Some(HashMap::from([(LABEL_PROFILE.to_string(), profile.to_string())])),
        ..NetworkCreateRequest::default()
    };
    docker.create_network(request).await.map(|_| ())
}

/// The subnet a node's address lies in.
pub fn subnet_of(address: Ipv4Addr) -> Subnet {
    Subnet::of(address)
}

/// Networks this host reaches directly: a subnet that hides one would cut the user off. Empty where the host is no
/// Linux; then Docker's own list must do.
fn host_routes() -> Vec<Range> {
    let Ok(table) = std::fs::read_to_string("/proc/net/route") else { return Vec::new() };
    let hex = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::swap_bytes);
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (first, mask) = (hex(fields.get(1)?)?, hex(fields.get(7)?)?);
        (mask != 0).then_some(Range { first, last: first | !mask })
    };
    table.lines().skip(1).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_subnet_is_taken() {
        let used = [Range::parse("192.168.0.0/18").unwrap(), Range::parse("192.168.67.128/25").unwrap()];
        assert_eq!(choose(&used, &[]).unwrap().to_string(), "192.168.76.0/24");
    }

    #[test]
    fn a_host_that_uses_all_of_192_168_gets_another_range() {
        let used = [Range::parse("192.168.0.0/16").unwrap()];
        assert_eq!(choose(&used, &[]).unwrap().to_string(), "10.213.0.0/24");
    }

    #[test]
    fn no_subnet_is_left_when_all_private_space_is_used() {
        assert_eq!(choose(&[Range::parse("0.0.0.0/0").unwrap()], &[]), None);
    }

    #[test]
    fn only_a_private_24_is_a_subnet() {
        assert!(Subnet::parse("10.123.45.0/24").is_ok());
        for bad in ["10.123.45.0", "10.123.45.1/24", "8.8.8.0/24", "10.0.0.0/8", "x/24"] {
            assert!(Subnet::parse(bad).is_err(), "{bad} was accepted");
        }
    }
}
