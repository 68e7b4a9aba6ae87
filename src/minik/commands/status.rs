//! `minik status`: what Docker and the API server say about a cluster.
//!
//! Owns: the words for a cluster's health and the exit code scripts branch on (19 when it does not run).
//! Called by: `main`.
//! Never: waits: an API server that does not answer at once is reported as such.

use std::time::Duration;

use minik_api::resources::NODES;
use minik_client::ListParams;

use crate::cluster;
use crate::commands::start;
use crate::docker;
use crate::error::CliError;
use crate::kubeconfig;
use crate::output::{Format, table};
use crate::steps::ready;

const ANSWER_LIMIT: Duration = Duration::from_secs(3);

pub async fn run(profile: &str, format: Format) -> Result<(), CliError> {
    let docker = docker::connect().await?;
    let cluster = cluster::require(&docker, profile).await?;
    let url = cluster.api_url().unwrap_or_default();
    let mut api = "Stopped".to_string();
    let mut conditions = std::collections::BTreeMap::new();
    if cluster.control_plane().is_some_and(|n| n.state == cluster::State::Running) {
        let (ca, admin) = start::admin(&docker, &cluster).await?;
        let client = ready::client(profile, &url, &ca, &admin)?;
        let listed = tokio::time::timeout(ANSWER_LIMIT, client.list(NODES, "", &ListParams::default())).await;
        api = match listed {
            Ok(Ok(list)) => {
                for node in &list.items {
                    let ready = ready::is_ready(node).map_or("NotReady", |()| "Ready");
                    conditions.insert(minik_api::object::name(node).to_string(), ready);
                }
                "Running".into()
            }
            Ok(Err(e)) => format!("Error: {e}"),
            Err(_) => format!("no answer within {} s", ANSWER_LIMIT.as_secs()),
        };
    }
    let context = match kubeconfig::server(profile) {
        Some(server) if server == url => "Configured",
        Some(_) => "Misconfigured (run `minik start` to mend it)",
        None => "Missing (run `minik start` to write it)",
    };
    let kubelet = |name: &str| conditions.get(name).copied().unwrap_or("Unknown");
    match format {
        Format::Json => {
            let nodes: Vec<_> = cluster
                .nodes
                .iter()
                .map(|n| {
                    serde_json::json!({"name": n.name, "role": n.role.as_str(),
                "container": n.state.as_str(), "kubelet": kubelet(&n.name), "address": n.address})
                })
                .collect();
            println!(
                "{}",
                serde_json::json!({"profile": profile, "apiServer": api, "server": url,
                "kubeconfig": context, "nodes": nodes})
            );
        }
        Format::Text => {
            println!("profile:     {profile}\napi server:  {api}  {url}\nkubeconfig:  {context}\n");
            let rows: Vec<Vec<String>> = cluster
                .nodes
                .iter()
                .map(|n| {
                    vec![
                        n.name.clone(),
                        n.role.as_str().into(),
                        n.state.as_str().into(),
                        kubelet(&n.name).into(),
                        n.address.map(|a| a.to_string()).unwrap_or_default(),
                    ]
                })
                .collect();
            print!("{}", table(&["NODE", "ROLE", "CONTAINER", "KUBELET", "ADDRESS"], &rows));
        }
    }
    if cluster.is_running() { Ok(()) } else { Err(CliError::NotRunning { profile: profile.into() }) }
}
