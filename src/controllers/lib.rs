//! Makes the cluster what its objects say.
//!
//! Owns: one controller a file, each a plan from a snapshot.
//! Called by: whoever wires a control plane: `run`.
//! Never: opens the store, or does anything a client with the same rights could not.

mod autoscaler;
mod autoscaler_limits;
mod autoscaler_metrics;
mod autoscaler_replicas;
mod bootstrap_tokens;
mod certificate_approver;
mod certificate_authority;
mod certificate_cleaner;
mod certificate_request;
mod certificate_signer;
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
mod der;
mod discovery;
mod disruption;
mod endpoint_slice_mirroring;
mod endpoint_slices;
mod endpoints;
mod ephemeral_volumes;
mod fields;
mod garbage_collector;
mod identity;
mod job;
mod job_indexes;
mod job_policy;
mod job_tracking;
mod namespace;
mod namespace_starters;
mod node_ipam;
mod node_lifecycle;
mod node_ttl;
mod pod_gc;
mod pods;
mod policy_status;
mod replicaset;
mod resource_claims;
mod resource_quota;
mod revisions;
mod run;
mod schedule;
mod service_account_tokens;
mod service_cidr;
mod service_pods;
mod statefulset;
mod storage_migration;
mod taint_eviction;
mod token_signer;
mod trust_bundle;
mod volume_binder;
mod volume_protection;

pub use certificate_authority::{Authority, AuthorityError};
pub use identity::Identities;
pub use node_ipam::Cidr;
pub use run::{Config, run};
pub use token_signer::{TokenKeyError, TokenSigner};
