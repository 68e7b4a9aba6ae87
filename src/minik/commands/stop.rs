//! `minik stop`: ends the containers of a cluster and keeps everything else.
//!
//! Owns: nothing but the order. Called by: `main`. Never: removes anything.

use futures::future::try_join_all;

use crate::cluster::{self, State};
use crate::docker;
use crate::error::CliError;
use crate::output::{Format, Progress};
use crate::steps::nodes;

pub async fn run(profile: &str, format: Format) -> Result<(), CliError> {
    let progress = Progress::new(format);
    let docker = docker::connect().await?;
    let cluster = cluster::require(&docker, profile).await?;
    progress.step(&format!("Stopping {} node(s)", cluster.nodes.len()));
    try_join_all(cluster.nodes.iter().map(|n| async {
        // Docker does not stop a paused container: its processes could not react.
        if n.state == State::Paused {
            docker.unpause_container(&n.name).await.map_err(docker::failed("unpause a node"))?;
        }
        nodes::stop(&docker, &n.name).await
    }))
    .await?;
    progress.done(&format!("Stopped cluster `{profile}`"));
    if format == Format::Json {
        println!("{}", serde_json::json!({"stopped": profile}));
    }
    Ok(())
}
