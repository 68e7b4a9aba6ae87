//! Makes the cluster what its objects say.
//!
//! Owns: one controller a file, each a plan from a snapshot.
//! Called by: whoever wires a control plane: `run`.
//! Never: opens the store, or does anything a client with the same rights could not.

mod conditions;
mod deployment;
mod deployment_rollout;
mod deployment_status;
mod fields;
mod namespace_starters;
mod node_ipam;
mod pods;
mod replicaset;
mod run;

pub use node_ipam::Cidr;
pub use run::{Config, run};
