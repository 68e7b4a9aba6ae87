//! Addresses and ranges of addresses.
//!
//! Owns: Kubernetes' IP and CIDR libraries.
//! Called by: the evaluation.
//! Never: accepts an IPv4 address that is mapped into IPv6, or one with a zone, as upstream does not.

use std::fmt;
use std::net::IpAddr;

use super::{Run, text};
use crate::failure::Failure;
use crate::value::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    ip: IpAddr,
    prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl Cidr {
    /// How many bytes the prefix spans.
    pub fn bytes(&self) -> usize {
        usize::from(self.prefix).div_ceil(8)
    }
    fn bits(ip: IpAddr) -> (u128, u32) {
        match ip {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        }
    }
    fn network(ip: IpAddr, prefix: u8) -> u128 {
        let (bits, width) = Self::bits(ip);
        let host = width - u32::from(prefix).min(width);
        if host >= 128 { 0 } else { bits >> host << host }
    }
    fn contains(&self, ip: IpAddr) -> bool {
        self.ip.is_ipv4() == ip.is_ipv4() && Self::network(self.ip, self.prefix) == Self::network(ip, self.prefix)
    }
    fn contains_cidr(&self, other: &Cidr) -> bool {
        other.prefix >= self.prefix && self.contains(other.ip)
    }
    fn masked(self) -> Self {
        let network = Self::network(self.ip, self.prefix);
        let ip = match self.ip {
            // The upper bits of a v4 network are zero, so nothing is cut off.
            IpAddr::V4(_) => IpAddr::V4((network as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(network.into()),
        };
        Self { ip, ..self }
    }
}

pub fn find(name: &str) -> Option<Run> {
    Some(match name {
        "ip" => |args| match &args[0] {
            Value::Cidr(cidr) => Ok(Value::Ip(cidr.ip)),
            _ => address(text::text(&args, 0)?).map(Value::Ip),
        },
        "isIP" => |args| Ok(Value::Bool(address(text::text(&args, 0)?).is_ok())),
        "ip.isCanonical" => |args| {
            let given = text::text(&args, 0)?;
            Ok(Value::Bool(address(given)?.to_string() == given))
        },
        "family" => |args| ip(&args).map(|ip| Value::Int(if ip.is_ipv4() { 4 } else { 6 })),
        "isUnspecified" => |args| ip(&args).map(|ip| Value::Bool(ip.is_unspecified())),
        "isLoopback" => |args| ip(&args).map(|ip| Value::Bool(ip.is_loopback())),
        "isLinkLocalMulticast" => |args| ip(&args).map(|ip| Value::Bool(link_local_multicast(ip))),
        "isLinkLocalUnicast" => |args| ip(&args).map(|ip| Value::Bool(link_local_unicast(ip))),
        "isGlobalUnicast" => |args| ip(&args).map(|ip| Value::Bool(global_unicast(ip))),
        "cidr" => |args| range(text::text(&args, 0)?).map(Value::Cidr),
        "isCIDR" => |args| Ok(Value::Bool(range(text::text(&args, 0)?).is_ok())),
        "containsIP" => |args| {
            let other = match &args[1] {
                Value::Ip(ip) => *ip,
                _ => address(text::text(&args, 1)?)?,
            };
            Ok(Value::Bool(cidr(&args)?.contains(other)))
        },
        "containsCIDR" => |args| {
            let other = match &args[1] {
                Value::Cidr(cidr) => *cidr,
                _ => range(text::text(&args, 1)?)?,
            };
            Ok(Value::Bool(cidr(&args)?.contains_cidr(&other)))
        },
        "prefixLength" => |args| Ok(Value::Int(i64::from(cidr(&args)?.prefix))),
        "masked" => |args| Ok(Value::Cidr(cidr(&args)?.masked())),
        _ => return None,
    })
}

fn ip(args: &[Value<'_>]) -> Result<IpAddr, Failure> {
    match &args[0] {
        Value::Ip(ip) => Ok(*ip),
        _ => Err(Failure::no_such_overload()),
    }
}

fn cidr(args: &[Value<'_>]) -> Result<Cidr, Failure> {
    match &args[0] {
        Value::Cidr(cidr) => Ok(*cidr),
        _ => Err(Failure::no_such_overload()),
    }
}

fn mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

fn address(given: &str) -> Result<IpAddr, Failure> {
    if given.contains('%') {
        return Err(Failure::new(format!("IP address {given:?} with zone value is not allowed")));
    }
    let ip: IpAddr = given.parse().map_err(|_| {
        Failure::new(format!(
            "IP Address {given:?} parse error during conversion from string: ParseAddr({given:?}): unable to parse IP"
        ))
    })?;
    if mapped(ip) {
        return Err(Failure::new(format!("IPv4-mapped IPv6 address {given:?} is not allowed")));
    }
    Ok(ip)
}

fn range(given: &str) -> Result<Cidr, Failure> {
    let wrong = || {
        let why = format!("netip.ParsePrefix({given:?}): no '/'");
        Failure::new(format!("network address parse error during conversion from string: {why}"))
    };
    let (ip, prefix) = given.split_once('/').ok_or_else(wrong)?;
    let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
    if mapped(ip) {
        return Err(Failure::new(format!("IPv4-mapped IPv6 address {:?} is not allowed", ip.to_string())));
    }
    let plain = !prefix.is_empty()
        && prefix.bytes().all(|b| b.is_ascii_digit())
        && !(prefix.len() > 1 && prefix.starts_with('0'));
    let prefix: u8 = prefix.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
    let width = if ip.is_ipv4() { 32 } else { 128 };
    if prefix > width {
        return Err(wrong());
    }
    Ok(Cidr { ip, prefix })
}

fn link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

/// As Go has it: private addresses count, broadcast does not.
fn global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !link_local_unicast(ip) && !broadcast
}
