//! A Pod as the scheduler needs it, parsed once.
//!
//! Owns: which Pods are the scheduler's business, and what of a Pod decides where it may go.
//! Called by: the picture of the cluster and the queue.
//! Never: keeps a copy of what the cached object holds.

use std::sync::Arc;

use minik_api::{ObjectKey, object};
use minik_client::Object;
use serde_json::Value;

use minik_api::node_affinity::NodeWants;
use minik_api::volume_binding::{Use, claims_of};

use crate::affinity::PodWants;
use crate::resources::{PodResources, of_pod};
use crate::spread::Constraint;
use minik_api::taints::{Toleration, tolerations};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i64,
}

pub(crate) struct Pod {
    pub object: Arc<Object>,
    pub key: ObjectKey,
    pub uid: String,
    pub priority: i64,
    pub resources: PodResources,
    pub host_ports: Vec<HostPort>,
    pub tolerations: Vec<Toleration>,
    pub node_wants: NodeWants,
    pub pod_wants: PodWants,
    pub spread: Vec<Constraint>,
    /// The claims it uses, by name.
    pub claims: Vec<(String, Use)>,
}

impl Pod {
    pub(crate) fn new(object: Arc<Object>) -> Pod {
        let spec = &object["spec"];
        let labels = &object["metadata"]["labels"];
        let namespace = object::namespace(&object);
        Pod {
            key: object.key(),
            uid: object::uid(&object).to_string(),
            priority: spec["priority"].as_i64().unwrap_or(0),
            resources: of_pod(spec),
            host_ports: host_ports(spec),
            tolerations: tolerations(&spec["tolerations"]),
            node_wants: NodeWants::parse(spec),
            pod_wants: PodWants::parse(spec, namespace, labels),
            spread: Constraint::parse_all(&spec["topologySpreadConstraints"], labels),
            claims: claims_of(&object).collect(),
            object,
        }
    }

    pub(crate) fn labels(&self) -> &Value {
        &self.object["metadata"]["labels"]
    }
    pub(crate) fn spec(&self) -> &Value {
        &self.object["spec"]
    }
    pub(crate) fn namespace(&self) -> &str {
        &self.key.namespace
    }
    pub(crate) fn claim_keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.claims.iter().map(|(name, _)| ObjectKey::new(self.namespace(), name.as_str()))
    }
    /// Where it would go by its own request, by `spec.nodeName` of a DaemonSet's older kind or a test.
    pub(crate) fn node_name(&self) -> &str {
        node_name(&self.object)
    }
    pub(crate) fn nominated_node(&self) -> &str {
        self.object["status"]["nominatedNodeName"].as_str().unwrap_or("")
    }
}

pub(crate) fn node_name(pod: &Value) -> &str {
    pod["spec"]["nodeName"].as_str().unwrap_or("")
}

/// It has ended and takes nothing of its Node any more.
pub(crate) fn is_terminal(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// Waits for this scheduler.
pub(crate) fn is_pending(pod: &Value, scheduler_name: &str) -> bool {
    let named = pod["spec"]["schedulerName"].as_str().unwrap_or("default-scheduler");
    let is_free = node_name(pod).is_empty() && !object::is_gated(pod);
    is_free && named == scheduler_name && !object::is_deleting(pod) && !is_terminal(pod)
}

fn host_ports(spec: &Value) -> Vec<HostPort> {
    let sidecar = |c: &&Value| c["restartPolicy"] == "Always";
    let list = |name: &str| spec[name].as_array().into_iter().flatten();
    let containers = list("containers").chain(list("initContainers").filter(sidecar));
    let ports = containers.flat_map(|c| c["ports"].as_array().into_iter().flatten());
    ports
        .filter_map(|p| {
            let port = p["hostPort"].as_i64().filter(|n| *n > 0)?;
            let ip = p["hostIP"].as_str().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
            let protocol = p["protocol"].as_str().unwrap_or("TCP");
            Some(HostPort { ip: ip.into(), protocol: protocol.into(), port })
        })
        .collect()
}

impl HostPort {
    pub(crate) fn conflicts(&self, other: &HostPort) -> bool {
        let same_ip = self.ip == other.ip || self.ip == "0.0.0.0" || other.ip == "0.0.0.0";
        self.port == other.port && self.protocol == other.protocol && same_ip
    }
}
