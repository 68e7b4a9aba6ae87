//! The Node object of this machine: registered, kept alive, and told the truth about.
//!
//! Owns: registration, status, lease, and the mirror pods of components that are no pods.
//! Called by: `run`.
//! Never: touches pods that run here.

pub mod capacity;
pub mod cgroup;
mod lease;
pub mod mirror;
mod register;
mod report;
mod status;

use k8s_cri::v1::VersionResponse;

pub use lease::run as run_lease;
pub use register::Registration;
pub use report::{Reporter, run as run_reports};

use crate::config::Config;

/// What the Node says of its machine and never changes while this kubelet runs.
pub fn facts(config: &Config, version: &VersionResponse, measured: &capacity::Capacity) -> status::Facts {
    let read = |path: &str| std::fs::read_to_string(path).map(|t| t.trim().to_string()).unwrap_or_default();
    let machine_id = Some(read("/etc/machine-id")).filter(|id| !id.is_empty());
    status::Facts {
        node_ip: config.node_ip.to_string(),
        hostname: config.hostname.clone(),
        capacity: measured.capacity.clone(),
        allocatable: measured.allocatable.clone(),
        runtime_version: format!("{}://{}", version.runtime_name, version.runtime_version),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        os_image: os_image(&read("/etc/os-release")),
        // A node image has no machine-id of its own; the name is what tells nodes of one machine apart.
        machine_id: machine_id.unwrap_or_else(|| stable_id(&config.node_name)),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
    }
}

fn os_image(os_release: &str) -> String {
    let pretty = os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    pretty.map_or_else(|| "minik".to_string(), |name| name.trim_matches('"').to_string())
}

fn stable_id(name: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(name)[..16].iter().map(|b| format!("{b:02x}")).collect()
}
