//! PersistentVolumes on a node's own disk: the provisioner of the class `standard`.
//!
//! Owns: a directory for each claim whose Pod was placed on this node, the volume that names it, and its removal.
//! Called by: the wiring of a node; one runs beside every kubelet.
//! Never: touches a directory outside its folder, or a volume of another node that still exists.

mod provision;
mod reclaim;
mod run;
mod volume;

pub use run::{Config, run};
