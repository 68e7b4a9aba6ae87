//! What runs inside a node container.
//!
//! Owns: PID 1, and the wiring of components into the processes `control-plane` and `kubelet`, or each on its own.
//! Called by: the binary's `main` for every verb that is not the CLI's.
//! Never: decides anything a component should decide.

mod addons;
pub mod alone;
mod cgroup;
pub mod config;
mod control_plane;
mod entry;
mod in_process;
mod init;
mod kubelet;
mod logging;
mod memory;
mod process;
mod role;

pub use entry::entry;
pub use minik_cri::images::Mirror;
