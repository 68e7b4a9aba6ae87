//! Where a Node's kubelet listens.
//!
//! Owns: the choice among a Node's addresses, and its port.
//! Called by: the relays to kubelets.
//! Never: connects.

use minik_api::{Status, object, resources};
use serde_json::Value;

use crate::objects::Objects;

const DEFAULT_PORT: u16 = 10250;
/// As kubeadm orders them, without the DNS names that nobody resolves here.
const PREFERRED: [&str; 3] = ["InternalIP", "ExternalIP", "Hostname"];

#[derive(Debug, PartialEq, Eq)]
pub struct Kubelet {
    pub host: String,
    pub port: u16,
}

pub fn of_node(objects: &dyn Objects, name: &str) -> Result<Kubelet, Status> {
    let node = objects.get(resources::NODES, "", name).ok_or_else(|| Status::not_found("nodes", name))?;
    read(&node)
}

fn read(node: &Value) -> Result<Kubelet, Status> {
    let addresses = node["status"]["addresses"].as_array().map_or(&[][..], Vec::as_slice);
    let of_kind = |kind: &str| addresses.iter().find(|a| a["type"] == kind).and_then(|a| a["address"].as_str());
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(DEFAULT_PORT);
    match PREFERRED.iter().find_map(|kind| of_kind(kind)) {
        Some(host) => Ok(Kubelet { host: host.into(), port }),
        None => {
            let name = object::name(node);
            Err(Status::new(500, "", format!("no preferred addresses found for node {name:?}; known addresses: []")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_internal_address_and_the_announced_port_are_taken() {
        let node = json!({"status": {
            "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.2"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 1234}},
        }});
        assert_eq!(read(&node), Ok(Kubelet { host: "10.0.0.2".into(), port: 1234 }));
        let bare =
            json!({"metadata": {"name": "n2"}, "status": {"addresses": [{"type": "Hostname", "address": "n2"}]}});
        assert_eq!(read(&bare), Ok(Kubelet { host: "n2".into(), port: 10250 }));
        assert!(read(&json!({"metadata": {"name": "n3"}})).is_err());
    }
}
