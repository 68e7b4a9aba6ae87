//! Cluster DNS, answered on every node.
//!
//! Owns: the names of Services and pods, and the server that answers for them on the kube-dns Service's address, which
//! every node holds as its own. So a pod's questions never leave its node, and DNS has no pod that could be missing.
//! Called by: `node`, once per kubelet process.
//! Never: writes through the API.

mod answer;
mod forward;
mod server;
mod zone;

pub use server::{Config, Error, run};
pub use zone::Zone;
