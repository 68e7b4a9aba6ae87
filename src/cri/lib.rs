//! CRI RuntimeService and ImageService.
//!
//! Owns: pod sandboxes, containers and images of one node, as CRI v1 sees them.
//! Called by: the kubelet in process, and anyone on `/run/minik/cri.sock`.
//! Never: knows of the Kubernetes API.

mod capability;
mod config;
mod container;
mod create;
mod device;
mod error;
mod exec;
mod hello;
mod image_service;
pub mod images;
mod mounts;
mod namespaces;
mod port_forward;
mod record;
mod rootfs;
mod runtime;
mod runtime_service;
mod sandbox;
mod seccomp;
mod serve;
mod shim_process;
mod spec;
mod stats;
mod status;
mod stream_server;
mod update;
mod user;

pub use config::Config;
pub use error::Error;
pub use hello::main as hello_main;
pub use runtime::Runtime;
pub use serve::ServeError;
