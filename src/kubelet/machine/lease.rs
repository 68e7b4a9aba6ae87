//! The Node's Lease: the sign of life the node lifecycle controller waits for.
//!
//! Owns: creating and renewing it: every 10 s for 40 s, as upstream.
//! Called by: `run`.
//! Never: says anything about the node's health but that its kubelet lives.

use std::time::Duration;

use jiff::Timestamp;
use minik_api::resources::LEASES;
use minik_client::{Client, Error, Patch};
use serde_json::{Value, json};

const NAMESPACE: &str = "kube-node-lease";
const DURATION_SECONDS: u64 = 40;
const RENEW_EVERY: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(7);

/// Forever. `node` is the registered Node.
pub async fn run(client: Client, name: String, uid: String) {
    let mut retry = RETRY_FIRST;
    loop {
        match renew(&client, &name, &uid).await {
            Ok(()) => {
                retry = RETRY_FIRST;
                tokio::time::sleep(RENEW_EVERY).await;
            }
            Err(error) => {
                tracing::warn!(error = %error.chain(), "lease not renewed; will retry");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

async fn renew(client: &Client, name: &str, uid: &str) -> Result<(), Error> {
    // MicroTime has exactly six digits.
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let patch = Patch::Merge(json!({"spec": {"holderIdentity": name, "renewTime": now}}));
    match client.patch(LEASES, NAMESPACE, name, "", &patch).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => {
            client.create(LEASES, NAMESPACE, &lease(name, uid, &now)).await.map(|_| ())
        }
        Err(error) => Err(error),
    }
}

fn lease(name: &str, uid: &str, now: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": name, "namespace": NAMESPACE,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}],
        },
        "spec": {"holderIdentity": name, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": now},
    })
}
