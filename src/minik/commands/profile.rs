//! `minik profile list`: every cluster of this Docker daemon.
//!
//! Owns: the summary of a cluster in one row. Called by: `main`. Never: asks the clusters themselves.

use crate::cluster::{self, State};
use crate::docker;
use crate::error::CliError;
use crate::output::{Format, table};

#[derive(clap::Subcommand, Debug)]
pub enum Verb {
    /// List all clusters.
    List,
}

pub async fn run(verb: &Verb, format: Format) -> Result<(), CliError> {
    match verb {
        Verb::List => list(format).await,
    }
}

fn summary(cluster: &cluster::Cluster) -> &'static str {
    let count = |s: State| cluster.nodes.iter().filter(|n| n.state == s).count();
    match (count(State::Running), count(State::Stopped), count(State::Paused)) {
        (_, 0, 0) => "Running",
        (0, _, 0) => "Stopped",
        (0, 0, _) => "Paused",
        _ => "Degraded",
    }
}

async fn list(format: Format) -> Result<(), CliError> {
    let clusters = cluster::all(&docker::connect().await?).await?;
    if format == Format::Json {
        let all: Vec<_> = clusters
            .values()
            .map(|c| {
                serde_json::json!({"profile": c.profile, "status": summary(c),
            "server": c.api_url(), "nodes": c.nodes.iter().map(|n| n.name.as_str()).collect::<Vec<_>>()})
            })
            .collect();
        println!("{}", serde_json::Value::from(all));
        return Ok(());
    }
    let version = |c: &cluster::Cluster| c.nodes.first().map(|n| n.version.clone()).unwrap_or_default();
    let rows: Vec<Vec<String>> = clusters
        .values()
        .map(|c| {
            vec![
                c.profile.clone(),
                summary(c).into(),
                c.nodes.len().to_string(),
                c.api_url().unwrap_or_default(),
                version(c),
            ]
        })
        .collect();
    if rows.is_empty() {
        eprintln!("There is no cluster; `minik start` makes one.");
    } else {
        print!("{}", table(&["PROFILE", "STATUS", "NODES", "SERVER", "MINIK"], &rows));
    }
    Ok(())
}
