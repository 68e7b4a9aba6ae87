//! What runs inside a node container.
//!
//! Owns: PID 1, and the wiring of components into the processes `control-plane` and `kubelet`.
//! Called by: the binary's `main` for every verb that is not the CLI's.
//! Never: decides anything a component should decide.

mod cgroup;
pub mod config;
mod entry;
mod init;
mod logging;

pub use entry::entry;
