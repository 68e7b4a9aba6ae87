//! What a node must allow and rewrite so that pods reach the world: forwarding sysctls and source NAT.
//!
//! Owns: the nf_tables table `minik-masquerade` and the node's forwarding sysctls.
//! Called by: `proxy`'s route loop, whenever the node's pod CIDR or the set of node addresses changes.
//! Never: touches what Services do (`proxy` has a table of its own).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::address::Ipv4Cidr;
use crate::nft::Verdict;
use crate::nft::{Datum, Field, FieldType, Hook, HookKind, HookPoint, Interface, Is, Item, Rule, Set, Table, Value};
use crate::nft_apply;
use crate::pod::HOST_INTERFACE_PREFIX;

const TABLE: &str = "minik-masquerade";
const NODES: &str = "node-addresses";

/// What the table depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masquerade {
    pub pod_cidr: Ipv4Cidr,
    pub cluster_cidr: Ipv4Cidr,
    /// Every node's address: they have routes to pods, so they see a pod's own address. Others on the same network
    /// (the host itself, say) have none and see the node's.
    pub node_addresses: BTreeSet<Ipv4Addr>,
}

impl Masquerade {
    /// The table, as data.
    pub fn plan(&self) -> Table {
        let mut table = Table::default();
        let mut nodes = Set::of(&[FieldType::Address]);
        nodes.elements = self.node_addresses.iter().map(|ip| (vec![Datum::Address(*ip)], Value::None)).collect();
        table.sets.insert(NODES.to_owned(), nodes);
        let multicast = Ipv4Cidr::new(Ipv4Addr::new(224, 0, 0, 0), 4).expect("4 is a prefix length");
        let loopback = Ipv4Cidr::new(Ipv4Addr::LOCALHOST, 8).expect("8 is a prefix length");
        table.chain(
            "postrouting",
            Some(Hook { kind: HookKind::Nat, at: HookPoint::Postrouting, priority: 100 }),
            vec![Rule(vec![
                Item::Saddr(Is::In, self.pod_cidr),
                Item::Daddr(Is::NotIn, self.cluster_cidr),
                Item::Daddr(Is::NotIn, multicast),
                Item::InSet(vec![Field::Daddr], Is::NotIn, NODES.to_owned()),
                Item::Masquerade,
            ])],
        );
        // Host ports on 127.0.0.1 need route_localnet on pod links; without this rule that would also let a pod speak
        // to whatever listens on the node's loopback only (CVE-2020-8558). Before conntrack, so answers pass.
        table.chain(
            "loopback-guard",
            Some(Hook { kind: HookKind::Filter, at: HookPoint::Prerouting, priority: -300 }),
            vec![Rule(vec![
                Item::InInterface(Is::In, Interface::Prefix(HOST_INTERFACE_PREFIX.to_owned())),
                Item::Daddr(Is::In, loopback),
                Item::Verdict(Verdict::Drop),
            ])],
        );
        table
    }

    pub async fn apply(&self) -> Result<(), nft_apply::Error> {
        nft_apply::replace(TABLE, &self.plan()).await
    }
}

/// Turns the node into a router. Reverse-path filtering is loosened to "any route" where it was strict: an answer to
/// a masqueraded or translated packet may come by another link than the kernel would choose.
pub fn enable_forwarding() -> std::io::Result<()> {
    let ipv4 = Path::new("/proc/sys/net/ipv4");
    write_if_different(&ipv4.join("ip_forward"), "1")?;
    for name in ["all", "default"] {
        let path = ipv4.join("conf").join(name).join("rp_filter");
        if std::fs::read_to_string(&path)?.trim() == "1" {
            std::fs::write(&path, "2")?;
        }
    }
    Ok(())
}

fn write_if_different(path: &Path, value: &str) -> std::io::Result<()> {
    if std::fs::read_to_string(path)?.trim() == value {
        return Ok(());
    }
    std::fs::write(path, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn pods_are_masqueraded_towards_everything_but_the_cluster_and_its_nodes() {
        let masquerade = Masquerade {
            pod_cidr: "10.244.1.0/24".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            node_addresses: [Ipv4Addr::new(172, 20, 0, 2), Ipv4Addr::new(172, 20, 0, 3)].into(),
        };
        expect![[r#"
            table ip minik-masquerade {
              set node-addresses {
                type ipv4_addr
                172.20.0.2
                172.20.0.3
              }
              chain loopback-guard {
                type filter hook prerouting priority -300; policy accept;
                iifname "mk*" ip daddr 127.0.0.0/8 drop
              }
              chain postrouting {
                type nat hook postrouting priority 100; policy accept;
                ip saddr 10.244.1.0/24 ip daddr != 10.244.0.0/16 ip daddr != 224.0.0.0/4 ip daddr != @node-addresses masquerade fully-random
              }
            }
        "#]]
        .assert_eq(&masquerade.plan().text(TABLE));
    }
}
