//! Keeps the routes to other nodes' pods, and what is masqueraded, in step with the Nodes of the cluster.
//!
//! Owns: which Nodes count, and when to try again.
//! Called by: `run`, as one task.
//! Never: writes a route itself (`minik_network::routes` does).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use minik_api::resources::NODES;
use minik_client::{Cache, View};
use minik_network::masquerade::{self, Masquerade};
use minik_network::routes::{self, NodeRoute};
use minik_network::{Ipv4Cidr, nft_apply};
use serde_json::Value;

/// How long after a failure to try again, if no Node changes before.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Routes(#[from] routes::Error),
    #[error("could not write what is masqueraded")]
    Masquerade(#[from] nft_apply::Error),
}

/// Runs until dropped.
pub async fn run(cache: Cache, own_node: String, cluster_cidr: Ipv4Cidr) {
    if let Err(error) = masquerade::enable_forwarding() {
        tracing::error!(%error, "the node does not forward packets: pods will not reach each other across nodes");
    }
    let mut changes = cache.changes_of(&[NODES]);
    cache.synced().await;
    let mut masqueraded = None;
    loop {
        let outcome = apply(&cache.view(), &own_node, cluster_cidr, &mut masqueraded).await;
        let retry = outcome.is_err();
        if let Err(error) = outcome {
            tracing::warn!(error = &error as &dyn std::error::Error, "node routes are incomplete; will retry");
        }
        if retry {
            let _ = tokio::time::timeout(RETRY, changes.recv()).await;
        } else {
            changes.recv().await;
        }
        while changes.try_recv().is_some() {}
    }
}

async fn apply(
    view: &View,
    own_node: &str,
    cluster_cidr: Ipv4Cidr,
    masqueraded: &mut Option<Masquerade>,
) -> Result<(), Error> {
    let nodes: Vec<NodeRoute> = view.list(NODES, "").filter_map(|node| read(node)).collect();
    let addresses: BTreeSet<Ipv4Addr> = view.list(NODES, "").filter_map(|node| internal_ip(node)).collect();
    if let Some(own) = nodes.iter().find(|node| node.node == own_node) {
        let wanted = Masquerade { pod_cidr: own.pod_cidr, cluster_cidr, node_addresses: addresses };
        if masqueraded.as_ref() != Some(&wanted) {
            wanted.apply().await?;
            *masqueraded = Some(wanted);
        }
    }
    let changed = routes::apply(&routes::plan(own_node, &nodes)).await?;
    if !changed.is_empty() {
        tracing::info!(changes = changed.len(), "routes to other nodes' pods updated");
    }
    Ok(())
}

fn read(node: &Value) -> Option<NodeRoute> {
    let pod_cidr = node["spec"]["podCIDR"].as_str()?.parse().ok()?;
    Some(NodeRoute { node: minik_api::object::name(node).to_owned(), pod_cidr, address: internal_ip(node)? })
}

fn internal_ip(node: &Value) -> Option<Ipv4Addr> {
    let addresses = node["status"]["addresses"].as_array()?;
    let internal = addresses.iter().filter(|address| address["type"] == "InternalIP");
    internal.filter_map(|address| address["address"].as_str()?.parse().ok()).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_without_address_or_cidr_has_no_route_yet() {
        let addresses = json!([{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "fd00::2"}, {"type": "InternalIP", "address": "172.20.0.2"}]);
        let node = |spec: Value, addresses: Value| json!({"metadata": {"name": "n"}, "spec": spec, "status": {"addresses": addresses}});
        assert_eq!(read(&node(json!({}), addresses.clone())), None);
        assert_eq!(read(&node(json!({"podCIDR": "10.244.1.0/24"}), json!([]))), None);
        let route = read(&node(json!({"podCIDR": "10.244.1.0/24"}), addresses)).unwrap();
        assert_eq!(
            (route.pod_cidr.to_string(), route.address.to_string()),
            ("10.244.1.0/24".into(), "172.20.0.2".into())
        );
    }
}
