//! `minik delete`: leaves nothing: containers, volumes, network, kubeconfig entries.
//!
//! Owns: the order of removal, and finding leftovers of a half-made cluster by label.
//! Called by: `main`, and `start` to clean up after itself.
//! Never: removes what does not carry the profile's label.

use std::collections::HashMap;

use bollard::Docker;
use bollard::query_parameters::{ListNetworksOptionsBuilder, ListVolumesOptionsBuilder};
use futures::future::try_join_all;

use crate::cluster::{self, LABEL_PROFILE};
use crate::docker;
use crate::error::CliError;
use crate::kubeconfig;
use crate::output::{Format, Progress};
use crate::steps::nodes;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Every cluster, not only that of the profile.
    #[arg(long)]
    pub all: bool,
}

pub async fn run(profile: &str, args: &Args, format: Format) -> Result<(), CliError> {
    let progress = Progress::new(format);
    let docker = docker::connect().await?;
    let mut profiles = vec![profile.to_string()];
    if args.all {
        profiles = cluster::all(&docker).await?.into_keys().collect();
    }
    let mut deleted = Vec::new();
    for profile in profiles {
        progress.step(&format!("Deleting cluster `{profile}`"));
        let found = everything(&docker, &profile).await?;
        kubeconfig::remove(&profile).map_err(|(path, source)| CliError::Kubeconfig { path, source })?;
        if !found && !args.all {
            progress.done(&format!("There was no cluster `{profile}`"));
        } else {
            progress.done(&format!("Deleted cluster `{profile}`"));
            deleted.push(profile);
        }
    }
    if format == Format::Json {
        println!("{}", serde_json::json!({"deleted": deleted}));
    }
    Ok(())
}

/// Containers first, since they hold the rest; tells whether there was anything.
pub async fn everything(docker: &Docker, profile: &str) -> Result<bool, CliError> {
    let cluster = cluster::observe(docker, profile).await?;
    let nodes = cluster.map(|c| c.nodes).unwrap_or_default();
    try_join_all(nodes.iter().map(|n| nodes::remove(docker, &n.name))).await?;
    let more = network_and_images(docker, profile).await?;
    Ok(more || !nodes.is_empty())
}

/// What containers do not own, found by label so that leftovers of a failed start go too.
pub async fn network_and_images(docker: &Docker, profile: &str) -> Result<bool, CliError> {
    let filters = HashMap::from([("label".to_string(), vec![format!("{LABEL_PROFILE}={profile}")])]);
    let networks = async {
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let found = docker.list_networks(Some(options)).await.map_err(docker::failed("list networks"))?;
        let names: Vec<String> = found.into_iter().filter_map(|n| n.name).collect();
        for name in &names {
            match docker.remove_network(name).await {
                Ok(()) => {}
                Err(e) if docker::code(&e) == Some(404) => {}
                Err(e) => return Err(docker::failed(format!("remove network {name}"))(e)),
            }
        }
        Ok(names.len())
    };
    let volumes = async {
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let found = docker.list_volumes(Some(options)).await.map_err(docker::failed("list volumes"))?;
        let names: Vec<String> = found.volumes.unwrap_or_default().into_iter().map(|v| v.name).collect();
        try_join_all(names.iter().map(|n| nodes::remove_volume(docker, n))).await?;
        Ok(names.len())
    };
    let (networks, volumes) = tokio::try_join!(networks, volumes)?;
    Ok(networks + volumes > 0)
}
