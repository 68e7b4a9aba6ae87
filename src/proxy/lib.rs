//! Services and EndpointSlices become nf_tables rules; Nodes become routes.
//!
//! Owns: what a packet to a Service's address meets on this node, the nf_tables table for it, stale UDP connections,
//! the health check ports of load balancers, and the loop that keeps routes between nodes.
//! Called by: `node`, once per kubelet process.
//! Never: answers DNS, or changes anything through the API.

mod conntrack;
mod endpoints;
mod health;
mod node_routes;
mod ruleset;
mod service;
mod sync;

pub use endpoints::{Endpoint, Endpoints};
pub use ruleset::{Node, Plan, plan};
pub use service::Service;
pub use sync::{Config, run};
