//! What Docker says about a cluster: the labels on containers are the database.
//!
//! Owns: the labels, the names of everything that belongs to a profile, and reading them back.
//! Called by: every command.
//! Never: writes; steps do.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use bollard::Docker;
use bollard::models::ContainerSummaryStateEnum;
use bollard::query_parameters::ListContainersOptionsBuilder;
use minik_node::config::{API_PORT, Role};

use crate::docker;
use crate::error::CliError;

pub const LABEL_PROFILE: &str = "dev.minik.profile";
pub const LABEL_ROLE: &str = "dev.minik.role";
pub const LABEL_VERSION: &str = "dev.minik.version";
pub const LABEL_ADDRESS: &str = "dev.minik.address";
pub const LABEL_API_PORT: &str = "dev.minik.api-port";

/// A profile's name becomes part of host names, so it is a DNS label with room for `-control-plane`.
const PROFILE_CHARS_MAX: usize = 40;

pub fn check_profile(name: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty() || name.len() > PROFILE_CHARS_MAX {
        return Err(format!("a profile has 1 to {PROFILE_CHARS_MAX} characters"));
    }
    if !name.chars().all(inner) || !name.starts_with(edge) || !name.ends_with(edge) {
        return Err("a profile consists of a-z, 0-9 and `-`, and begins and ends with a letter or digit".into());
    }
    Ok(name.into())
}

pub fn network_name(profile: &str) -> String {
    format!("minik-{profile}")
}
pub fn images_volume(profile: &str) -> String {
    format!("minik-{profile}-images")
}
pub fn node_volume(node: &str) -> String {
    format!("minik-node-{node}")
}
/// `dev-control-plane`, `dev-worker`, `dev-worker2`, ...
pub fn node_name(profile: &str, index: u32) -> String {
    match index {
        0 => format!("{profile}-control-plane"),
        1 => format!("{profile}-worker"),
        n => format!("{profile}-worker{n}"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Running,
    Paused,
    Stopped,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Running => "Running",
            State::Paused => "Paused",
            State::Stopped => "Stopped",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub role: Role,
    pub state: State,
    pub address: Option<Ipv4Addr>,
    /// Host port of the API server; the control plane's only.
    pub api_port: Option<u16>,
    pub version: String,
}

/// Nodes in order: control plane first, then workers by number.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub profile: String,
    pub nodes: Vec<Node>,
}

impl Cluster {
    pub fn control_plane(&self) -> Option<&Node> {
        self.nodes.iter().find(|n| n.role == Role::ControlPlane)
    }
    pub fn is_running(&self) -> bool {
        self.nodes.iter().all(|n| n.state == State::Running)
    }
    pub fn node(&self, name: &str) -> Result<&Node, CliError> {
        let wanted = |n: &&Node| n.name == name || n.name.strip_prefix(&format!("{}-", self.profile)) == Some(name);
        let missing = || CliError::NoSuchNode { profile: self.profile.clone(), node: name.into() };
        self.nodes.iter().find(wanted).ok_or_else(missing)
    }
    /// The lowest number no node of the cluster has.
    pub fn free_index(&self) -> u32 {
        let taken = |i: &u32| self.nodes.iter().any(|n| n.name == node_name(&self.profile, *i));
        (0..).find(|i| !taken(i)).expect("a cluster has fewer nodes than there are numbers")
    }
    pub fn api_url(&self) -> Option<String> {
        let node = self.control_plane()?;
        Some(match node.api_port {
            Some(port) => format!("https://127.0.0.1:{port}"),
            None => format!("https://{}:{API_PORT}", node.address?),
        })
    }
}

/// Every cluster of this Docker daemon by profile.
pub async fn all(docker: &Docker) -> Result<BTreeMap<String, Cluster>, CliError> {
    find(docker, LABEL_PROFILE.to_string()).await
}

/// The cluster of one profile, if it has at least one container.
pub async fn observe(docker: &Docker, profile: &str) -> Result<Option<Cluster>, CliError> {
    Ok(find(docker, format!("{LABEL_PROFILE}={profile}")).await?.remove(profile))
}

/// As `observe`, for commands that need one.
pub async fn require(docker: &Docker, profile: &str) -> Result<Cluster, CliError> {
    observe(docker, profile).await?.ok_or_else(|| CliError::NoSuchCluster { profile: profile.into() })
}

async fn find(docker: &Docker, label: String) -> Result<BTreeMap<String, Cluster>, CliError> {
    let filters = HashMap::from([("label".to_string(), vec![label])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let found = docker.list_containers(Some(options)).await.map_err(docker::failed("list containers"))?;
    let mut clusters = BTreeMap::<String, Cluster>::new();
    for container in found {
        let labels = container.labels.unwrap_or_default();
        let Some(profile) = labels.get(LABEL_PROFILE).cloned() else { continue };
        let name = container.names.unwrap_or_default().first().map_or("", |n| n.trim_start_matches('/')).to_string();
        let node = Node {
            name,
            role: if labels.get(LABEL_ROLE).is_some_and(|r| r == "control-plane") {
                Role::ControlPlane
            } else {
                Role::Worker
            },
            state: match container.state {
                Some(ContainerSummaryStateEnum::RUNNING) => State::Running,
                Some(ContainerSummaryStateEnum::PAUSED) => State::Paused,
                _ => State::Stopped,
            },
            address: labels.get(LABEL_ADDRESS).and_then(|a| a.parse().ok()),
            api_port: labels.get(LABEL_API_PORT).and_then(|p| p.parse().ok()),
            version: labels.get(LABEL_VERSION).cloned().unwrap_or_default(),
        };
        clusters.entry(profile.clone()).or_insert_with(|| Cluster { profile, nodes: Vec::new() }).nodes.push(node);
    }
    for cluster in clusters.values_mut() {
        let rank = |n: &Node| (n.role != Role::ControlPlane, n.name.len(), n.name.clone());
        cluster.nodes.sort_by_key(rank);
    }
    Ok(clusters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_must_be_usable_as_a_host_name() {
        assert!(check_profile("dev-2").is_ok());
        for bad in ["", "Dev", "-dev", "dev-", "a_b", &"x".repeat(41)] {
            assert!(check_profile(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn a_removed_worker_frees_its_number() {
        let node = |name: &str| Node {
            name: name.into(),
            role: Role::Worker,
            state: State::Running,
            address: None,
            api_port: None,
            version: String::new(),
        };
        let cluster = Cluster { profile: "d".into(), nodes: vec![node("d-control-plane"), node("d-worker2")] };
        assert_eq!(node_name("d", cluster.free_index()), "d-worker");
    }
}
