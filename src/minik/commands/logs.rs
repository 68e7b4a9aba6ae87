//! `minik logs`: what a node's own processes have said.
//!
//! Owns: the verb. Called by: `main`. Never: shows pods' logs; `kubectl logs` does.

use std::io::Write;

use bollard::query_parameters::LogsOptionsBuilder;
use futures::StreamExt;

use crate::cluster;
use crate::docker;
use crate::error::CliError;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Which node; the control plane when it is left out.
    #[arg(long, short)]
    pub node: Option<String>,
    /// Stay and print what comes.
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the last lines.
    #[arg(long, default_value = "all")]
    pub tail: String,
}

pub async fn run(profile: &str, args: &Args) -> Result<(), CliError> {
    let docker = docker::connect().await?;
    let cluster = cluster::require(&docker, profile).await?;
    let missing = || CliError::NoSuchCluster { profile: profile.into() };
    let node = match &args.node {
        Some(name) => cluster.node(name)?,
        None => cluster.control_plane().ok_or_else(missing)?,
    };
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).follow(args.follow).tail(&args.tail).build();
    let mut lines = docker.logs(&node.name, Some(options));
    let mut out = std::io::stdout().lock();
    while let Some(line) = lines.next().await {
        let bytes = line.map_err(docker::failed("read the log"))?.into_bytes();
        // The reader (`head`, say) has seen enough.
        if out.write_all(&bytes).is_err() {
            break;
        }
    }
    Ok(())
}
