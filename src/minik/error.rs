//! What can go wrong on the host's side, what to do about it, and the exit code each fault has.
//!
//! Owns: the documented exit codes and the hints.
//! Called by: every step and command; `main` prints it.
//! Never: repeats its source in its own text: `main` prints the chain.

use std::path::PathBuf;

/// Exit codes are interface: scripts branch on them. The README lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    Failure = 1,
    /// clap's own.
    Usage = 2,
    DockerUnreachable = 10,
    DockerPermission = 11,
    NameTaken = 12,
    NoAddressSpace = 13,
    PortTaken = 14,
    TooLittleMemory = 15,
    Kubeconfig = 16,
    NoSuchCluster = 17,
    NotReady = 18,
    NotRunning = 19,
    DiskFull = 20,
    Interrupted = 130,
}

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("Docker is not reachable at {endpoint}")]
    DockerUnreachable { endpoint: String, source: bollard::errors::Error },
    #[error("no permission to talk to Docker at {endpoint}")]
    DockerPermission { endpoint: String, source: bollard::errors::Error },
    #[error("could not {what}")]
    Docker { what: String, source: bollard::errors::Error },
    #[error("the name `{name}` is taken by {by} that minik did not make")]
    NameTaken { name: String, by: &'static str },
    #[error("no free address space for the network of cluster `{profile}`")]
    NoAddressSpace { profile: String },
    #[error("port {port} on {address} is taken")]
    PortTaken { address: String, port: u16, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{nodes} nodes need about {need_mb} MB of memory, Docker has {have_mb} MB")]
    TooLittleMemory { nodes: u32, need_mb: u64, have_mb: u64 },
    #[error("the disk Docker writes to is full")]
    DiskFull { source: bollard::errors::Error },
    #[error("could not use the kubeconfig {path}")]
    Kubeconfig { path: PathBuf, source: crate::kubeconfig::KubeconfigError },
    #[error("there is no cluster `{profile}`")]
    NoSuchCluster { profile: String },
    #[error("there is no node `{node}` in cluster `{profile}`")]
    NoSuchNode { profile: String, node: String },
    #[error("cluster `{profile}` is not running")]
    NotRunning { profile: String },
    #[error("cluster `{profile}` exists with {have} nodes, asked for {asked}")]
    NodeCount { profile: String, have: usize, asked: u32 },
    #[error("node `{node}` was not Ready within {seconds} s")]
    NotReady { node: String, seconds: u64, reason: String },
    #[error("node `{node}` stopped while the cluster was starting")]
    NodeDied { node: String, last_words: String },
    #[error("could not make the cluster's keys")]
    Pki(#[from] crate::pki::PkiError),
    #[error("could not talk to the API server of `{profile}`")]
    Api { profile: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{component} ended")]
    Component { component: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("could not read {what}")]
    Io { what: String, source: std::io::Error },
    #[error("{0}")]
    Invalid(String),
    #[error("interrupted")]
    Interrupted { left: Option<String> },
}

impl CliError {
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::DockerUnreachable { .. } => ExitCode::DockerUnreachable,
            Self::DockerPermission { .. } => ExitCode::DockerPermission,
            Self::NameTaken { .. } => ExitCode::NameTaken,
            Self::NoAddressSpace { .. } => ExitCode::NoAddressSpace,
            Self::PortTaken { .. } => ExitCode::PortTaken,
            Self::TooLittleMemory { .. } => ExitCode::TooLittleMemory,
            Self::Kubeconfig { .. } => ExitCode::Kubeconfig,
            Self::NoSuchCluster { .. } | Self::NoSuchNode { .. } => ExitCode::NoSuchCluster,
            Self::NotReady { .. } | Self::NodeDied { .. } => ExitCode::NotReady,
            Self::NotRunning { .. } => ExitCode::NotRunning,
            Self::DiskFull { .. } => ExitCode::DiskFull,
            Self::Invalid(_) | Self::NodeCount { .. } => ExitCode::Usage,
            Self::Interrupted { .. } => ExitCode::Interrupted,
            Self::Docker { .. } | Self::Pki(_) | Self::Api { .. } | Self::Component { .. } | Self::Io { .. } => {
                ExitCode::Failure
            }
        }
    }

    /// How to mend it, in one sentence with the command to type.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::DockerUnreachable { .. } => {
                "start Docker (`systemctl start docker`, or Docker Desktop), or point DOCKER_HOST at a running one"
                    .into()
            }
            Self::DockerPermission { .. } => {
                "add yourself to the group `docker` (`sudo usermod -aG docker $USER`, then log in again)".into()
            }
            Self::NameTaken { name, by } => {
                format!("choose another profile with `-p NAME`, or remove the {by} `{name}` yourself")
            }
            Self::NoAddressSpace { .. } => {
                "remove unused networks with `docker network prune`, or name a free one with `--subnet 10.123.45.0/24`"
                    .into()
            }
            Self::PortTaken { .. } => "end what listens there, or choose another with `--api-port`".into(),
            Self::TooLittleMemory { .. } => {
                "use fewer nodes, or give Docker more memory; `--force` starts anyway".into()
            }
            Self::DiskFull { .. } => "make room: `docker system df` shows what uses it".into(),
            Self::Kubeconfig { .. } => {
                "mend the file's permissions or syntax, or write elsewhere with `KUBECONFIG=FILE minik start`".into()
            }
            Self::NoSuchCluster { .. } => "`minik profile list` shows all; `minik start` makes one".into(),
            Self::NoSuchNode { .. } => "`minik node list` shows all".into(),
            Self::NotRunning { profile } => format!("start it with `minik start -p {profile}`"),
            Self::NodeCount { profile, .. } => {
                format!("add nodes with `minik node add -p {profile}`, or `minik delete -p {profile}` and start again")
            }
            Self::NotReady { node, reason, .. } => {
                format!(
                    "{reason}; read its log with `minik logs --node {node}`; keep the nodes next time with `--retain`"
                )
            }
            Self::NodeDied { last_words, .. } => format!("its last words: {last_words}"),
            Self::Interrupted { left: Some(command) } => format!("something is left; remove it with `{command}`"),
            Self::Docker { .. }
            | Self::Pki(_)
            | Self::Api { .. }
            | Self::Io { .. }
            | Self::Invalid(_)
            | Self::Component { .. }
            | Self::Interrupted { left: None } => return None,
        })
    }
}
