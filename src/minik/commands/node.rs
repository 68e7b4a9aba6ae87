//! `minik node`: the nodes of a cluster, one by one.
//!
//! Owns: listing, adding, deleting, stopping and starting single nodes.
//! Called by: `main`.
//! Never: deletes the control plane: that is `minik delete`.

use std::time::Duration;

use bollard::Docker;
use minik_api::resources::NODES;
use minik_client::DeleteParams;
use minik_node::config::{Role, STATE};

use crate::cluster::{self, Cluster};
use crate::commands::start;
use crate::docker;
use crate::error::CliError;
use crate::output::{Format, Progress, table};
use crate::pki::{self, Authority};
use crate::steps::nodes::{self, NodeSpec};
use crate::steps::{image, network, ready};

const READY_LIMIT: Duration = Duration::from_secs(120);

#[derive(clap::Subcommand, Debug)]
pub enum Verb {
    /// List the nodes.
    List,
    /// Add a worker.
    Add(Box<start::Args>),
    /// Delete a worker with everything on it.
    #[command(visible_alias = "rm")]
    Delete { node: String },
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
        Verb::Add(args) => add(&docker, &cluster, args, &progress).await?,
        Verb::Delete { node } => delete(&docker, &cluster, node, &progress).await?,
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

/// A worker like those of `start`: its keys are signed by the authority in the control plane's volume.
async fn add(docker: &Docker, cluster: &Cluster, args: &start::Args, progress: &Progress) -> Result<(), CliError> {
    let profile = cluster.profile.as_str();
    let not_running = || CliError::NotRunning { profile: profile.into() };
    let api_address = cluster.control_plane().and_then(|n| n.address).ok_or_else(not_running)?;
    let server = cluster.api_url().ok_or_else(not_running)?;
    let index = cluster.free_index();
    let full = || CliError::NoAddressSpace { profile: profile.into() };
    let address = network::subnet_of(api_address).node(index).ok_or_else(full)?;
    let config = start::node_config(profile, index, address, api_address, true, args);
    progress.step(&format!("Adding node `{}`", config.name));
    let key = start::read_file(docker, cluster, &format!("{STATE}/pki/ca.key")).await?;
    let (ca, admin) = start::admin(docker, cluster).await?;
    let authority = Authority::load(&ca, &String::from_utf8_lossy(&key))?;
    let image = image::ensure(docker).await?;
    let files = pki::node_files(&authority, &config)?;
    let (_, cgroups) = nodes::host(docker).await?;
    let spec = NodeSpec {
        config: &config,
        image: &image.tag,
        files,
        api: None,
        memory: args.memory,
        cpus: args.cpus,
        cgroups,
    };
    let made = async {
        nodes::create(docker, &spec).await?;
        nodes::start(docker, &spec).await?;
        let client = ready::client(profile, &server, &ca, &admin)?;
        ready::nodes(client, std::slice::from_ref(&config.name), READY_LIMIT).await
    };
    if let Err(error) = made.await {
        if !args.retain && !matches!(error, CliError::NameTaken { .. }) {
            nodes::remove(docker, &config.name).await?;
        }
        return Err(error);
    }
    progress.done(&format!("Added node `{}`", config.name));
    Ok(())
}

/// The Node object goes last, so that nothing is scheduled to a node that is on its way out.
async fn delete(docker: &Docker, cluster: &Cluster, name: &str, progress: &Progress) -> Result<(), CliError> {
    let node = cluster.node(name)?;
    if node.role == Role::ControlPlane {
        let what =
            format!("`{}` is the control plane; `minik delete -p {}` deletes the cluster", node.name, cluster.profile);
        return Err(CliError::Invalid(what));
    }
    progress.step(&format!("Deleting node `{}`", node.name));
    nodes::remove(docker, &node.name).await?;
    let (ca, admin) = start::admin(docker, cluster).await?;
    let not_running = || CliError::NotRunning { profile: cluster.profile.clone() };
    let client = ready::client(&cluster.profile, &cluster.api_url().ok_or_else(not_running)?, &ca, &admin)?;
    match client.delete(NODES, "", &node.name, &DeleteParams::default()).await {
        Ok(_) => {}
        Err(e) if e.is_not_found() => {}
        Err(e) => return Err(CliError::Api { profile: cluster.profile.clone(), source: Box::new(e) }),
    }
    progress.done(&format!("Deleted node `{}`", node.name));
    Ok(())
}

fn list(cluster: &Cluster, format: Format) {
    let address = |n: &cluster::Node| n.address.map(|a| a.to_string()).unwrap_or_default();
    if format == Format::Json {
        let all: Vec<_> = cluster
            .nodes
            .iter()
            .map(|n| {
                serde_json::json!({"name": n.name, "role": n.role.as_str(),
            "address": n.address, "status": n.state.as_str()})
            })
            .collect();
        println!("{}", serde_json::Value::from(all));
        return;
    }
    let row = |n: &cluster::Node| vec![n.name.clone(), n.role.as_str().into(), address(n), n.state.as_str().into()];
    print!("{}", table(&["NODE", "ROLE", "ADDRESS", "STATUS"], &cluster.nodes.iter().map(row).collect::<Vec<_>>()));
}
