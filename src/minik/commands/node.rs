//! `minik node`: the nodes of a cluster, one by one.
//!
//! Owns: listing, stopping and starting single nodes.
//! Called by: `main`.
//! Never: touches Node objects: the cluster's own controllers notice.

use crate::cluster;
use crate::docker;
use crate::error::CliError;
use crate::output::{Format, Progress, table};
use crate::steps::nodes;

#[derive(clap::Subcommand, Debug)]
pub enum Verb {
    /// List the nodes.
    List,
    /// Stop one node, as a machine that is switched off.
    Stop { node: String },
    /// Start a stopped node.
    Start { node: String },
}

pub async fn run(profile: &str, verb: &Verb, format: Format) -> Result<(), CliError> {
    let docker = docker::connect().await?;
    let cluster = cluster::require(&docker, profile).await?;
    let progress = Progress::new(format);
    match verb {
        Verb::List => list(&cluster, format),
        Verb::Stop { node } => {
            let node = cluster.node(node)?;
            progress.step(&format!("Stopping node `{}`", node.name));
            nodes::stop(&docker, &node.name).await?;
            progress.done(&format!("Stopped node `{}`", node.name));
        }
        Verb::Start { node } => {
            let node = cluster.node(node)?;
            nodes::resume(&docker, &node.name, None).await?;
            progress.done(&format!("Started node `{}`", node.name));
        }
    }
    Ok(())
}

fn list(cluster: &cluster::Cluster, format: Format) {
    let address = |n: &cluster::Node| n.address.map(|a| a.to_string()).unwrap_or_default();
    if format == Format::Json {
        let all: Vec<_> = cluster.nodes.iter().map(|n| serde_json::json!({"name": n.name, "role": n.role.as_str(),
            "address": n.address, "status": n.state.as_str()})).collect();
        println!("{}", serde_json::Value::from(all));
        return;
    }
    let row = |n: &cluster::Node| vec![n.name.clone(), n.role.as_str().into(), address(n), n.state.as_str().into()];
    print!("{}", table(&["NODE", "ROLE", "ADDRESS", "STATUS"], &cluster.nodes.iter().map(row).collect::<Vec<_>>()));
}
