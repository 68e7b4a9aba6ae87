//! Gives each Node its range of Pod addresses.
//!
//! Owns: which part of the cluster's range is whose.
//! Called by: the driver; all Nodes are planned under one key, so that no two get the same range.
//! Never: takes a range back while its Node exists.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use minik_api::resources::NODES;
use minik_api::{ObjectKey, ResourceId};
use minik_client::{Action, Change, EventType, Plan, Reconciler, View};
use serde_json::{Value, json};

use crate::fields::text;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub base: Ipv4Addr,
    pub prefix: u8,
}

impl Cidr {
    /// `10.244.0.0/16`.
    pub fn parse(text: &str) -> Option<Cidr> {
        let (base, prefix) = text.split_once('/')?;
        let (base, prefix): (Ipv4Addr, u8) = (base.parse().ok()?, prefix.parse().ok()?);
        (prefix <= 32).then_some(Cidr { base, prefix })
    }

    /// The `index`-th part of a larger range.
    fn part(self, index: u32, prefix: u8) -> Cidr {
        let offset = index.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        Cidr { base: Ipv4Addr::from(u32::from(self.base) + offset), prefix }
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

pub(crate) struct NodeIpam {
    pub cluster: Cidr,
    /// Prefix length of a Node's range.
    pub node_prefix: u8,
}

impl Reconciler for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[NODES]
    }
    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        let needs = change.new.as_ref().is_some_and(|n| text(&n["spec"]["podCIDR"]).is_empty());
        // A Node that went frees its range for one that found none.
        if needs || change.new.is_none() { vec![ObjectKey::new("", "all")] } else { Vec::new() }
    }

    fn plan(&self, view: &View, _: &ObjectKey, _: Timestamp) -> Plan {
        let taken: BTreeSet<&str> = view
            .list(NODES, "")
            .flat_map(|n| {
                let more = n["spec"]["podCIDRs"].as_array().into_iter().flatten().filter_map(Value::as_str);
                more.chain(n["spec"]["podCIDR"].as_str())
            })
            .collect();
        let parts = 1_u32 << self.node_prefix.saturating_sub(self.cluster.prefix).min(31);
        let mut free = (0..parts).map(|i| self.cluster.part(i, self.node_prefix).to_string());
        let mut actions = Vec::new();
        for node in view.list(NODES, "").filter(|n| text(&n["spec"]["podCIDR"]).is_empty()) {
            match free.find(|cidr| !taken.contains(cidr.as_str())) {
                Some(cidr) => {
                    let patch = json!({"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
                    actions.push(Action::merge_any_version(NODES, "", node, patch));
                }
                None => {
                    let message = format!("Node {} status is now: CIDRNotAvailable", minik_api::object::name(node));
                    actions.push(Action::event(node, EventType::Normal, "CIDRNotAvailable", message));
                }
            }
        }
        Plan::of(actions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn node(name: &str, cidr: &str) -> (ResourceId, Value) {
        (NODES, json!({"metadata": {"name": name}, "spec": {"podCIDR": cidr}}))
    }

    #[test]
    fn each_node_gets_the_first_free_range() {
        let ipam = NodeIpam { cluster: Cidr::parse("10.244.0.0/16").unwrap(), node_prefix: 24 };
        let view = View::of([node("a", ""), node("b", "10.244.0.0/24"), node("c", ""), node("d", "10.244.2.0/24")]);
        let plan = ipam.plan(&view, &ObjectKey::new("", "all"), Timestamp::UNIX_EPOCH);
        expect![[r#"
            patch nodes a {"spec":{"podCIDR":"10.244.1.0/24","podCIDRs":["10.244.1.0/24"]}}
            patch nodes c {"spec":{"podCIDR":"10.244.3.0/24","podCIDRs":["10.244.3.0/24"]}}
        "#]]
        .assert_eq(&plan.to_string());
    }

    #[test]
    fn a_full_cluster_says_so() {
        let ipam = NodeIpam { cluster: Cidr::parse("10.0.0.0/24").unwrap(), node_prefix: 24 };
        let view = View::of([node("a", "10.0.0.0/24"), node("b", "")]);
        let plan = ipam.plan(&view, &ObjectKey::new("", "all"), Timestamp::UNIX_EPOCH);
        assert_eq!(plan.to_string(), "event Normal CIDRNotAvailable: Node b status is now: CIDRNotAvailable\n");
    }
}
