//! Pod network namespaces, addresses, and routes between nodes.
//!
//! Owns: the pod's end of the network (namespace, veth, address, routes), the node's routes to the pods of other
//! nodes, masquerading of what leaves the cluster, host ports, and the vocabulary for writing nf_tables.
//! Called by: `cri` (a sandbox's network), `proxy` (routes between nodes, Services).
//! Never: talks to the API server, or flushes a ruleset: Docker's own DNS rules live beside ours.

pub mod address;
pub mod announce;
pub mod hostport;
pub mod lease;
pub mod masquerade;
pub mod netns;
pub mod nft;
pub mod nft_apply;
pub mod nft_change;
pub mod node_address;
pub mod pod;
pub mod routes;

pub use address::{Ipv4Cidr, Protocol};
pub use hostport::HostPort;
pub use pod::{Config, Error, PodAddress, PodNetwork};
