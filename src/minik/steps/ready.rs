//! Waits until a cluster answers: woken by the control plane's own word and by a watch on its Nodes.
//!
//! Owns: what "started" means: the API answers and every node is Ready.
//! Called by: `start`, `node add`.
//! Never: polls.

use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::container::AttachContainerResults;
use bollard::query_parameters::{AttachContainerOptionsBuilder, LogsOptionsBuilder};
use futures::{StreamExt, TryStreamExt};
use minik_api::resources::NODES;
use minik_client::{Cache, Client, Credentials, Endpoint, Remote, Tasks, Wait};
use minik_node::config::API_READY;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::docker;
use crate::error::CliError;
use crate::pki::Identity;

/// How many of a dead node's last lines an error shows.
const LAST_WORDS_LINES: &str = "5";

/// What of a container's output a listener gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Also what was said before: for a container that is new.
    Creation,
    /// Only what comes: for one that is about to be started again.
    Now,
}

/// The control plane's output.
pub async fn listen(docker: &Docker, node: &str, since: Since) -> Result<AttachContainerResults, CliError> {
    let replay = since == Since::Creation;
    let options = AttachContainerOptionsBuilder::new().stream(true).logs(replay).stdout(true).stderr(true).build();
    let attached = docker.attach_container(node, Some(options)).await;
    attached.map_err(docker::failed(format!("listen to node {node}")))
}

/// Returns when the API server has said that it answers.
pub async fn api(
    docker: &Docker,
    node: &str,
    mut output: AttachContainerResults,
    limit: Duration,
) -> Result<(), CliError> {
    let said = async {
        while let Some(Ok(line)) = output.output.next().await {
            if line.to_string().contains(API_READY) {
                return true;
            }
        }
        false
    };
    match tokio::time::timeout(limit, said).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(CliError::NodeDied { node: node.into(), last_words: last_words(docker, node).await }),
        Err(_) => {
            let reason = "its API server does not answer".into();
            Err(CliError::NotReady { node: node.into(), seconds: limit.as_secs(), reason })
        }
    }
}

pub async fn last_words(docker: &Docker, node: &str) -> String {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(LAST_WORDS_LINES).build();
    let lines: Vec<_> = docker.logs(node, Some(options)).try_collect().await.unwrap_or_default();
    lines.iter().map(ToString::to_string).collect::<String>().trim().to_string()
}

/// A client with the admin's identity.
pub fn client(profile: &str, server: &str, ca: &str, admin: &Identity) -> Result<Client, CliError> {
    let endpoint = Endpoint {
        server: server.into(),
        ca_pem: ca.as_bytes().to_vec(),
        insecure_skip_tls_verify: false,
        tls_server_name: None,
        credentials: Credentials::ClientCertificate {
            certificate_pem: admin.certificate.as_bytes().to_vec(),
            key_pem: admin.key.as_bytes().to_vec(),
        },
    };
    let remote = Remote::new(endpoint).map_err(|e| CliError::Api { profile: profile.into(), source: Box::new(e) })?;
    Ok(Client::new(Arc::new(remote)))
}

/// Returns when every named node is Ready.
pub async fn nodes(client: Client, names: &[String], limit: Duration) -> Result<(), CliError> {
    let cancel = CancellationToken::new();
    let _stop = cancel.clone().drop_guard();
    let cache = Cache::builder(client).watch(NODES).start(&Tasks::new(cancel));
    let ready =
        |name: &String, view: &minik_client::View| view.get(NODES, "", name).is_some_and(|n| is_ready(n).is_ok());
    let all_ready = cache.wait_for(limit, |view| names.iter().all(|n| ready(n, view))).await;
    if matches!(all_ready, Wait::Met) {
        return Ok(());
    }
    let view = cache.view();
    let late = names.iter().find(|n| !ready(n, &view)).unwrap_or(&names[0]);
    let reason = match view.get(NODES, "", late) {
        Some(node) => is_ready(node).err().unwrap_or_default(),
        None => "its kubelet has not registered it".into(),
    };
    Err(CliError::NotReady { node: late.clone(), seconds: limit.as_secs(), reason })
}

/// The kubelet's own word on why not.
pub fn is_ready(node: &Value) -> Result<(), String> {
    let conditions = node["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    match conditions.iter().find(|c| c["type"] == "Ready") {
        Some(c) if c["status"] == "True" => Ok(()),
        Some(c) => Err(format!("its kubelet says: {}", c["message"].as_str().unwrap_or("nothing"))),
        None => Err("its kubelet has not reported yet".into()),
    }
}
