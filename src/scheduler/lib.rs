//! Chooses a Node for each Pod that has none.
//!
//! Owns: filters, scores, queues, the scheduler's own picture of Nodes and Pods, and the loop around them.
//! Called by: whoever wires a control plane: `run`.
//! Never: starts a container or changes a Pod beyond its binding and its PodScheduled condition.

mod affinity;
mod choose;
mod cluster;
mod node;
mod pod;
mod preempt;
mod queue;
mod request;
mod resources;
mod run;
mod score;
mod spread;
mod verdict;
mod volumes;

pub use run::{Config, run};
