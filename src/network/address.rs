//! Addresses of the cluster's network: prefixes and transport protocols.
//!
//! Owns: how a CIDR is read, written and enumerated.
//! Called by: everything in this crate, and `proxy`.
//! Never: does IO.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 prefix, `10.244.1.0/24`. Host bits are cleared when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Cidr {
    network: Ipv4Addr,
    prefix: u8,
}

/// The text is no IPv4 prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an IPv4 CIDR such as 10.244.1.0/24")]
pub struct InvalidCidr(pub String);

impl Ipv4Cidr {
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Option<Ipv4Cidr> {
        if prefix > 32 {
            return None;
        }
        let network = Ipv4Addr::from_bits(address.to_bits() & mask_bits(prefix));
        Some(Ipv4Cidr { network, prefix })
    }

    /// The prefix that holds one address only.
    pub const fn host(address: Ipv4Addr) -> Ipv4Cidr {
        Ipv4Cidr { network: address, prefix: 32 }
    }

    pub const fn network(&self) -> Ipv4Addr {
        self.network
    }

    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    pub const fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask_bits(self.prefix))
    }

    pub const fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask_bits(self.prefix) == self.network.to_bits()
    }

    /// The address pods see as their gateway: the first one after the network's own.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits().saturating_add(1))
    }

    /// First and last address a pod may have: without network, gateway and broadcast. `None` when none is left.
    pub fn pod_range(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        if self.prefix > 29 {
            return None;
        }
        let last = self.network.to_bits() | !mask_bits(self.prefix);
        Some((Ipv4Addr::from_bits(self.network.to_bits() + 2), Ipv4Addr::from_bits(last - 1)))
    }
}

const fn mask_bits(prefix: u8) -> u32 {
    if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) }
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Ipv4Cidr {
    type Err = InvalidCidr;
    fn from_str(text: &str) -> Result<Ipv4Cidr, InvalidCidr> {
        let invalid = || InvalidCidr(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address = address.parse().map_err(|_| invalid())?;
        let prefix = prefix.parse().map_err(|_| invalid())?;
        Ipv4Cidr::new(address, prefix).ok_or_else(invalid)
    }
}

impl TryFrom<String> for Ipv4Cidr {
    type Error = InvalidCidr;
    fn try_from(text: String) -> Result<Ipv4Cidr, InvalidCidr> {
        text.parse()
    }
}

impl From<Ipv4Cidr> for String {
    fn from(cidr: Ipv4Cidr) -> String {
        cidr.to_string()
    }
}

/// A transport protocol Kubernetes knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// IANA's protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// nft's spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    /// Kubernetes' spelling; an absent protocol is TCP.
    pub fn from_kubernetes(text: Option<&str>) -> Option<Protocol> {
        match text {
            None | Some("" | "TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some("SCTP") => Some(Protocol::Sctp),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cidr_keeps_its_network_and_names_its_gateway_and_pod_range() {
        let cidr: Ipv4Cidr = "10.244.3.9/24".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.244.3.0/24");
        assert_eq!(cidr.gateway(), Ipv4Addr::new(10, 244, 3, 1));
        assert_eq!(cidr.pod_range(), Some((Ipv4Addr::new(10, 244, 3, 2), Ipv4Addr::new(10, 244, 3, 254))));
        assert!(cidr.contains(Ipv4Addr::new(10, 244, 3, 255)));
        assert!(!cidr.contains(Ipv4Addr::new(10, 244, 4, 0)));
    }

    #[test]
    fn text_that_is_no_cidr_is_refused_and_named() {
        for text in ["", "10.0.0.1", "10.0.0.0/33", "10.0.0/8", "fd00::/64", "10.0.0.0/-1"] {
            assert_eq!(text.parse::<Ipv4Cidr>(), Err(InvalidCidr(text.to_owned())));
        }
    }

    #[test]
    fn prefixes_too_long_for_a_pod_have_no_range() {
        assert_eq!("10.0.0.0/30".parse::<Ipv4Cidr>().unwrap().pod_range(), None);
        let eight: Ipv4Cidr = "10.0.0.0/29".parse().unwrap();
        assert_eq!(eight.pod_range(), Some((Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 6))));
    }
}
