//! CRI RuntimeService and ImageService.
//!
//! Owns: pod sandboxes, containers and images of one node, as CRI v1 sees them.
//! Called by: the kubelet in process, and anyone on `/run/minik/cri.sock`.
//! Never: knows of the Kubernetes API.

mod hello;
pub mod images;

pub use hello::main as hello_main;
