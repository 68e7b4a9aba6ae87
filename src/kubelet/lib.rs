//! Runs the Pods bound to one Node.
//!
//! Owns: the Node object's status and lease, pod workers, probes, volumes, pod status, and the node server on 10250.
//! Called by: the node's wiring, through `run`.
//! Never: talks to a runtime but over CRI, or to the API but through `minik_client`.

mod admission;
mod backoff;
mod config;
mod container_config;
mod container_status;
mod context;
pub mod cri;
mod dispatcher;
mod dns;
mod downward;
mod env;
mod events;
mod expand;
mod gc;
mod hooks;
mod hosts;
mod images;
mod lifecycle;
mod log_rotation;
mod machine;
mod memory;
mod mounts;
mod names;
mod observed;
mod plan;
mod pod;
mod probe;
mod resize;
mod resources;
mod room;
mod run;
mod sandbox_config;
mod security;
mod server;
mod sources;
mod start;
mod status;
mod status_writer;
mod stop;
mod termination_message;
mod volumes;
mod worker;

#[cfg(test)]
mod pods_tests;
#[cfg(test)]
mod testing;

pub use config::{Config, KUBELET_VERSION, RegisterTaint, Resources, SERVER_PORT, ServerConfig, StaticComponent};
pub use cri::Cri;
pub use run::run;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot serve on {address}")]
    Listen {
        address: std::net::SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot use the node server's {what}")]
    ServerIdentity { what: &'static str },
    #[error("cannot make {path}")]
    Directory {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
}
