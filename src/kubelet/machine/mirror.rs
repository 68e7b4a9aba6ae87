//! Mirror pods: components of this node that are processes of their own, shown where users look for them.
//!
//! Owns: creating them and telling that they run.
//! Called by: `run`, as a task; the node server for their logs.
//! Never: starts or ends a component.

use std::time::Duration;

use jiff::Timestamp;
use minik_api::pod_annotations::MIRROR;
use minik_api::resources::PODS;
use minik_client::{Client, Error, Patch};
use serde_json::{Value, json};

use crate::config::StaticComponent;
use crate::names;

pub const NAMESPACE: &str = "kube-system";
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A mirror pod that somebody deleted comes back after this.
const LOOK_EVERY: Duration = Duration::from_secs(60);

pub struct Mirrors {
    pub client: Client,
    pub node_name: String,
    pub node_uid: String,
    pub node_ip: String,
    pub components: Vec<StaticComponent>,
}

/// `kube-apiserver` on node `n` is pod `kube-apiserver-n`.
pub fn pod_name(component: &str, node: &str) -> String {
    format!("{component}-{node}")
}

/// Forever.
pub async fn run(mirrors: Mirrors) {
    let started = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut retry = RETRY_FIRST;
    loop {
        let mut failed = false;
        for component in &mirrors.components {
            if let Err(error) = mirrors.show(component, &started).await {
                tracing::debug!(component = component.name, error = %error.chain(), "mirror pod not shown yet");
                failed = true;
            }
        }
        tokio::time::sleep(if failed { retry } else { LOOK_EVERY }).await;
        retry = if failed { (retry * 2).min(RETRY_MAX) } else { RETRY_FIRST };
    }
}

impl Mirrors {
    async fn show(&self, component: &StaticComponent, started: &str) -> Result<(), Error> {
        let name = pod_name(&component.name, &self.node_name);
        // Created before it is read: a node may read only pods that exist and are bound to it.
        let pod = match self.client.create(PODS, NAMESPACE, &self.object(component, started)).await {
            Err(error) if error.is_already_exists() => self.client.get(PODS, NAMESPACE, &name).await?,
            other => other?,
        };
        let container = &pod["status"]["containerStatuses"][0];
        if pod["status"]["phase"] == "Running" && container["state"]["running"]["startedAt"] == *started {
            return Ok(());
        }
        let restarts = container["restartCount"].as_i64().map_or(0, |n| n + 1);
        let body = Patch::Strategic(json!({"status": self.status(component, &pod, started, restarts)}));
        self.client.patch(PODS, NAMESPACE, &name, "status", &body).await.map(|_| ())
    }

    fn object(&self, component: &StaticComponent, started: &str) -> Value {
        let hash = format!("{}-{}", component.name, self.node_name);
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": pod_name(&component.name, &self.node_name), "namespace": NAMESPACE,
                "labels": {"component": component.name, "tier": "control-plane"},
                "annotations": {
                    (MIRROR): hash, (names::CONFIG_HASH): hash,
                    (names::CONFIG_SOURCE): "file", (names::CONFIG_SEEN): started,
                },
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Node", "name": self.node_name, "uid": self.node_uid, "controller": true,
                }],
            },
            "spec": {
                "nodeName": self.node_name, "hostNetwork": true, "priorityClassName": component.priority_class,
                "enableServiceLinks": true, "automountServiceAccountToken": false,
                "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
                "containers": [{
                    "name": component.name, "image": component.image, "command": component.command,
                    "imagePullPolicy": "IfNotPresent",
                }],
            },
        })
    }

    fn status(&self, component: &StaticComponent, pod: &Value, started: &str, restarts: i64) -> Value {
        let conditions: Vec<Value> =
            ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
                .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": started}))
                .into();
        json!({
            "phase": "Running", "conditions": conditions, "startTime": started, "qosClass": "BestEffort",
            "hostIP": self.node_ip, "hostIPs": [{"ip": self.node_ip}],
            "podIP": self.node_ip, "podIPs": [{"ip": self.node_ip}],
            "observedGeneration": pod["metadata"]["generation"],
            "containerStatuses": [{
                "name": component.name, "image": component.image, "imageID": component.image,
                "containerID": format!("minik://{}", component.name),
                "ready": true, "started": true, "restartCount": restarts,
                "state": {"running": {"startedAt": started}}, "lastState": {},
            }],
        })
    }
}
