//! Which sandbox has which address, remembered across a restart of the process.
//!
//! Owns: choosing a free address, the one that has been free longest first, and the file it is remembered in.
//! Called by: `PodNetwork`, once per sandbox made or removed.
//! Never: touches a link; a lease is a promise, not a configuration.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::address::Ipv4Cidr;
use crate::hostport::HostPort;

/// What one sandbox holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub ip: Ipv4Addr,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
    /// Counts up with every lease, so that of two sandboxes claiming a host port the younger is known.
    pub sequence: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("every address of {cidr} is taken")]
    Exhausted { cidr: Ipv4Cidr },
    #[error("could not read address leases from {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} does not hold address leases")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("could not write address leases to {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// All leases of a node. Pure but for `load` and `save`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leases {
    by_sandbox: BTreeMap<String, Lease>,
    /// The address given last. The next search starts behind it and wraps, so an address rests as long as possible
    /// before it is given again: peers may still hold connections to its former owner.
    last: Option<Ipv4Addr>,
    sequence: u64,
}

impl Leases {
    /// Reads the file; a missing one is a node without leases.
    pub fn load(path: &Path) -> Result<Leases, Error> {
        match fs::read(path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| Error::Parse { path: path.to_owned(), source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Leases::default()),
            Err(source) => Err(Error::Read { path: path.to_owned(), source }),
        }
    }

    /// Replaces the file by a rename, so a reader never sees half of it.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::Write { path: path.to_owned(), source };
        let bytes = serde_json::to_vec(self).expect("leases are plain maps, strings and numbers");
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let beside = path.with_extension("new");
        fs::write(&beside, bytes).map_err(failed)?;
        fs::rename(&beside, path).map_err(failed)
    }

    /// The sandbox's address: the one it has, if it lies in `cidr`, or a free one.
    pub fn acquire(&mut self, cidr: Ipv4Cidr, sandbox: &str, host_ports: &[HostPort]) -> Result<Ipv4Addr, Error> {
        let ip = match self.by_sandbox.get(sandbox) {
            Some(lease) if cidr.contains(lease.ip) => lease.ip,
            _ => self.free(cidr).ok_or(Error::Exhausted { cidr })?,
        };
        self.last = Some(ip);
        self.sequence += 1;
        let lease = Lease { ip, host_ports: host_ports.to_vec(), sequence: self.sequence };
        self.by_sandbox.insert(sandbox.to_owned(), lease);
        Ok(ip)
    }

    pub fn release(&mut self, sandbox: &str) -> Option<Lease> {
        self.by_sandbox.remove(sandbox)
    }

    pub fn get(&self, sandbox: &str) -> Option<&Lease> {
        self.by_sandbox.get(sandbox)
    }

    /// Sandboxes with their leases, in the order the leases were given.
    pub fn oldest_first(&self) -> Vec<(&str, &Lease)> {
        let mut all: Vec<_> = self.by_sandbox.iter().map(|(sandbox, lease)| (sandbox.as_str(), lease)).collect();
        all.sort_by_key(|(_, lease)| lease.sequence);
        all
    }

    fn free(&self, cidr: Ipv4Cidr) -> Option<Ipv4Addr> {
        let (first, end) = cidr.pod_range()?;
        let (first, end) = (first.to_bits(), end.to_bits());
        let start = match self.last {
            Some(last) if (first..end).contains(&last.to_bits()) => last.to_bits() + 1,
            _ => first,
        };
        let taken: std::collections::BTreeSet<u32> = self.by_sandbox.values().map(|l| l.ip.to_bits()).collect();
        (start..=end).chain(first..start).find(|bits| !taken.contains(bits)).map(Ipv4Addr::from_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr() -> Ipv4Cidr {
        "10.244.1.0/29".parse().unwrap()
    }

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, 1, last)
    }

    #[test]
    fn a_released_address_rests_until_every_other_was_used() {
        let mut leases = Leases::default();
        assert_eq!(leases.acquire(cidr(), "a", &[]).unwrap(), ip(2));
        leases.release("a");
        let given: Vec<_> = ["b", "c", "d", "e"].map(|s| leases.acquire(cidr(), s, &[]).unwrap()).to_vec();
        assert_eq!(given, [ip(3), ip(4), ip(5), ip(6)]);
        assert_eq!(leases.acquire(cidr(), "f", &[]).unwrap(), ip(2));
    }

    #[test]
    fn a_sandbox_that_asks_twice_keeps_its_address() {
        let mut leases = Leases::default();
        assert_eq!(leases.acquire(cidr(), "a", &[]).unwrap(), leases.acquire(cidr(), "a", &[]).unwrap());
    }

    #[test]
    fn a_full_range_is_an_error_that_names_it() {
        let mut leases = Leases::default();
        for sandbox in ["a", "b", "c", "d", "e"] {
            leases.acquire(cidr(), sandbox, &[]).unwrap();
        }
        let error = leases.acquire(cidr(), "f", &[]).unwrap_err();
        assert_eq!(error.to_string(), "every address of 10.244.1.0/29 is taken");
        leases.release("c");
        assert_eq!(leases.acquire(cidr(), "f", &[]).unwrap(), ip(4));
    }

    #[test]
    fn leases_survive_a_restart_and_are_not_handed_out_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("network/leases.json");
        let mut before = Leases::load(&path).unwrap();
        before.acquire(cidr(), "a", &[]).unwrap();
        before.save(&path).unwrap();
        let mut after = Leases::load(&path).unwrap();
        assert_eq!(after, before);
        assert_eq!(after.acquire(cidr(), "b", &[]).unwrap(), ip(3));
    }

    #[test]
    fn a_node_that_gets_another_range_gives_from_the_new_one() {
        let mut leases = Leases::default();
        leases.acquire(cidr(), "a", &[]).unwrap();
        let other = "10.244.9.0/24".parse().unwrap();
        assert_eq!(leases.acquire(other, "b", &[]).unwrap(), Ipv4Addr::new(10, 244, 9, 2));
    }
}
