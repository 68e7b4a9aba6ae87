//! Host ports: a port of the node that leads to a port of one pod.
//!
//! Owns: the nf_tables table `minik-hostports`, rewritten whole whenever a sandbox with host ports comes or goes.
//! Called by: `PodNetwork`.
//! Never: keeps state of its own; the leases know which sandbox wants which port.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::address::{Ipv4Cidr, Protocol};
use crate::lease::Lease;
use crate::nft::{
    Datum, Field, FieldType, Hook, HookKind, HookPoint, Is, Item, Rule, Set, Side, Table, Value, Verdict,
};
use crate::nft_apply;

/// One host port of a pod, as CRI's PortMapping asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    pub protocol: Protocol,
    /// `None`: every address of the node.
    pub host_ip: Option<Ipv4Addr>,
    pub host_port: u16,
    pub container_port: u16,
}

const TABLE: &str = "minik-hostports";
const BY_PORT: &str = "ports";
const BY_ADDRESS: &str = "address-ports";
const HAIRPIN: &str = "hairpin";

/// The table for these leases, oldest first: where two claim a port, the younger has it (the elder is on its way out).
pub fn plan(leases: &[Lease]) -> Table {
    use FieldType::{Address, Port, Protocol as Proto};
    let mut by_port = Set::map(&[Proto, Port], &[Address, Port]);
    let mut by_address = Set::map(&[Address, Proto, Port], &[Address, Port]);
    let mut hairpin = Set::of(&[Address, Address]);
    for lease in leases.iter().filter(|lease| !lease.host_ports.is_empty()) {
        hairpin.elements.insert(vec![Datum::Address(lease.ip); 2], Value::None);
        for port in &lease.host_ports {
            let target = Value::Data(vec![Datum::Address(lease.ip), Datum::Port(port.container_port)]);
            let key = [Datum::Protocol(port.protocol), Datum::Port(port.host_port)];
            match port.host_ip {
                None => by_port.elements.insert(key.to_vec(), target),
                Some(ip) => by_address.elements.insert(vec![Datum::Address(ip), key[0], key[1]], target),
            };
        }
    }
    let mut table = Table::default();
    table.sets.insert(BY_PORT.to_owned(), by_port);
    table.sets.insert(BY_ADDRESS.to_owned(), by_address);
    table.sets.insert(HAIRPIN.to_owned(), hairpin);
    add_chains(&mut table);
    table
}

fn add_chains(table: &mut Table) {
    let to_ports =
        || vec![Rule(vec![Item::Local(Side::Destination), Item::Verdict(Verdict::Jump("translate".to_owned()))])];
    table.chain(
        "translate",
        None,
        vec![
            Rule(vec![Item::DnatMap(vec![Field::Daddr, Field::Protocol, Field::Dport], BY_ADDRESS.to_owned())]),
            Rule(vec![Item::DnatMap(vec![Field::Protocol, Field::Dport], BY_PORT.to_owned())]),
        ],
    );
    // Before the Services' chains (-100): a host port is the more particular claim on a node's port.
    let nat = |at, priority| Some(Hook { kind: HookKind::Nat, at, priority });
    table.chain("prerouting", nat(HookPoint::Prerouting, -110), to_ports());
    table.chain("output", nat(HookPoint::Output, -110), to_ports());
    let loopback = Ipv4Cidr::new(Ipv4Addr::LOCALHOST, 8).expect("8 is a prefix length");
    let masquerade = |item| Rule(vec![Item::CtDnat, item, Item::Masquerade]);
    table.chain(
        "postrouting",
        nat(HookPoint::Postrouting, 90),
        vec![
            // A pod that calls its own host port would else be answered by itself, past the node's translation.
            masquerade(Item::InSet(vec![Field::Saddr, Field::Daddr], Is::In, HAIRPIN.to_owned())),
            // The node's loopback address means something else inside the pod.
            masquerade(Item::Saddr(Is::In, loopback)),
        ],
    );
}

/// Writes the table, or removes it when no lease has host ports.
pub async fn apply(leases: &[Lease]) -> Result<(), nft_apply::Error> {
    if leases.iter().all(|lease| lease.host_ports.is_empty()) {
        return nft_apply::remove(TABLE).await;
    }
    nft_apply::replace(TABLE, &plan(leases)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn lease(last: u8, sequence: u64, host_ports: Vec<HostPort>) -> Lease {
        Lease { ip: Ipv4Addr::new(10, 244, 1, last), host_ports, sequence }
    }

    fn port(host_ip: Option<Ipv4Addr>, host_port: u16) -> HostPort {
        HostPort { protocol: Protocol::Tcp, host_ip, host_port, container_port: 80 }
    }

    #[test]
    fn the_younger_of_two_claims_wins_and_an_address_may_have_its_own() {
        let leases = [
            lease(2, 1, vec![port(None, 8080)]),
            lease(3, 2, vec![port(None, 8080), port(Some(Ipv4Addr::LOCALHOST), 9090)]),
        ];
        expect![[r#"
            table ip minik-hostports {
              map address-ports {
                type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
                127.0.0.1 . tcp . 9090 : 10.244.1.3 . 80
              }
              set hairpin {
                type ipv4_addr . ipv4_addr
                10.244.1.2 . 10.244.1.2
                10.244.1.3 . 10.244.1.3
              }
              map ports {
                type inet_proto . inet_service : ipv4_addr . inet_service
                tcp . 8080 : 10.244.1.3 . 80
              }
              chain output {
                type nat hook output priority -110; policy accept;
                fib daddr type local jump translate
              }
              chain postrouting {
                type nat hook postrouting priority 90; policy accept;
                ct status dnat ip saddr . ip daddr @hairpin masquerade fully-random
                ct status dnat ip saddr 127.0.0.0/8 masquerade fully-random
              }
              chain prerouting {
                type nat hook prerouting priority -110; policy accept;
                fib daddr type local jump translate
              }
              chain translate {
                dnat to ip daddr . meta l4proto . th dport map @address-ports
                dnat to meta l4proto . th dport map @ports
              }
            }
        "#]]
        .assert_eq(&plan(&leases).text(TABLE));
    }
}
