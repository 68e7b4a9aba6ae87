//! Routes to the pods of other nodes.
//!
//! Owns: every route of the main table that bears our protocol number, and nothing else.
//! Called by: `proxy`'s loop over Nodes.
//! Never: asks who the nodes are; that is its argument.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use nlink::netlink::route::Ipv4Route;
use nlink::netlink::types::route::RouteProtocol;
use nlink::{Connection, Route};

use crate::address::Ipv4Cidr;

/// Marks a route as ours, so that another's is never touched. Not among the numbers of /etc/iproute2/rt_protos.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(109);

/// What a route needs to know of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRoute {
    pub node: String,
    pub pod_cidr: Ipv4Cidr,
    pub address: Ipv4Addr,
}

/// Pod CIDR -> node that routes it on.
pub type Routes = BTreeMap<Ipv4Cidr, Ipv4Addr>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not open a netlink socket for routes")]
    Open(#[source] nlink::Error),
    #[error("could not list routes")]
    List(#[source] nlink::Error),
    #[error("could not {verb} the route to pods {pods} by node address {node}")]
    Change { verb: &'static str, pods: Ipv4Cidr, node: Ipv4Addr, source: nlink::Error },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Set(Ipv4Cidr, Ipv4Addr),
    Remove(Ipv4Cidr, Ipv4Addr),
}

/// The routes this node should have: one per other node. A node without an address or CIDR is not in `nodes`.
pub fn plan(own_node: &str, nodes: &[NodeRoute]) -> Routes {
    nodes.iter().filter(|node| node.node != own_node).map(|node| (node.pod_cidr, node.address)).collect()
}

/// The smallest change from one to the other; removals first, so that a CIDR which moves is not removed after all.
pub fn changes(current: &Routes, desired: &Routes) -> Vec<Change> {
    let gone = current.iter().filter(|(cidr, _)| !desired.contains_key(cidr));
    let fresh = desired.iter().filter(|(cidr, node)| current.get(cidr) != Some(node));
    let remove = gone.map(|(cidr, node)| Change::Remove(*cidr, *node));
    remove.chain(fresh.map(|(cidr, node)| Change::Set(*cidr, *node))).collect()
}

/// Reads our routes, and changes those that differ. Returns what was changed; goes on after an error with one route
/// (a node's address may not be reachable yet) and reports the first.
pub async fn apply(desired: &Routes) -> Result<Vec<Change>, Error> {
    let kernel = Connection::<Route>::new().map_err(Error::Open)?;
    let current = observe(&kernel).await?;
    let mut made = Vec::new();
    let mut first_error = None;
    for change in changes(&current, desired) {
        let (verb, pods, node, result) = match change {
            Change::Set(pods, node) => ("set", pods, node, kernel.replace_route(route(pods, node)).await),
            Change::Remove(pods, node) => {
                ("remove", pods, node, kernel.del_route_if_exists(route(pods, node)).await.map(|_| ()))
            }
        };
        match result {
            Ok(()) => made.push(change),
            Err(source) => {
                first_error.get_or_insert(Error::Change { verb, pods, node, source });
            }
        }
    }
    first_error.map_or(Ok(made), Err)
}

fn route(pods: Ipv4Cidr, node: Ipv4Addr) -> Ipv4Route {
    Ipv4Route::from_addr(pods.network(), pods.prefix()).gateway(node).protocol(PROTOCOL)
}

async fn observe(kernel: &Connection<Route>) -> Result<Routes, Error> {
    const MAIN_TABLE: u32 = 254;
    let all = kernel.get_routes_for_table(MAIN_TABLE).await.map_err(Error::List)?;
    let ours = all.into_iter().filter(|route| route.protocol() == PROTOCOL && route.is_ipv4());
    Ok(ours
        .filter_map(|route| match (route.destination(), route.gateway()) {
            (Some(IpAddr::V4(network)), Some(IpAddr::V4(node))) => {
                Some((Ipv4Cidr::new(*network, route.dst_len())?, *node))
            }
            _ => None,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, third: u8, address: u8) -> NodeRoute {
        NodeRoute {
            node: name.to_owned(),
            pod_cidr: Ipv4Cidr::new(Ipv4Addr::new(10, 244, third, 0), 24).unwrap(),
            address: Ipv4Addr::new(172, 20, 0, address),
        }
    }

    #[test]
    fn every_other_node_gets_a_route_and_the_own_none() {
        let routes = plan("a", &[node("a", 0, 2), node("b", 1, 3), node("c", 2, 4)]);
        let lines: Vec<String> = routes.iter().map(|(cidr, via)| format!("{cidr} via {via}")).collect();
        assert_eq!(lines, ["10.244.1.0/24 via 172.20.0.3", "10.244.2.0/24 via 172.20.0.4"]);
    }

    #[test]
    fn only_what_differs_is_changed() {
        let before = plan("a", &[node("b", 1, 3), node("c", 2, 4), node("d", 3, 5)]);
        let after = plan("a", &[node("b", 1, 3), node("c", 2, 9), node("e", 4, 6)]);
        let cidr = |third| Ipv4Cidr::new(Ipv4Addr::new(10, 244, third, 0), 24).unwrap();
        assert_eq!(
            changes(&before, &after),
            [
                Change::Remove(cidr(3), Ipv4Addr::new(172, 20, 0, 5)),
                Change::Set(cidr(2), Ipv4Addr::new(172, 20, 0, 9)),
                Change::Set(cidr(4), Ipv4Addr::new(172, 20, 0, 6)),
            ]
        );
        assert_eq!(changes(&after, &after), []);
    }
}
