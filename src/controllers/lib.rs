//! Makes the cluster what its objects say.
//!
//! Owns: one controller a file, each a plan from a snapshot.
//! Called by: whoever wires a control plane: `run`.
//! Never: opens the store, or does anything a client with the same rights could not.

mod claim_binder;
mod claim_expansion;
mod claim_protection;
mod cluster_role_aggregation;
mod conditions;
mod cronjob;
mod daemonset;
mod deployment;
mod deployment_rollout;
mod deployment_status;
mod discovery;
mod disruption;
mod endpoint_slice_mirroring;
mod endpoint_slices;
mod endpoints;
mod ephemeral_volumes;
mod fields;
mod garbage_collector;
mod job;
mod job_indexes;
mod job_policy;
mod job_tracking;
mod namespace;
mod namespace_starters;
mod node_ipam;
mod node_lifecycle;
mod pod_gc;
mod pods;
mod replicaset;
mod resource_quota;
mod revisions;
mod run;
mod schedule;
mod service_pods;
mod statefulset;
mod taint_eviction;
mod volume_binder;
mod volume_protection;

pub use node_ipam::Cidr;
pub use run::{Config, run};
