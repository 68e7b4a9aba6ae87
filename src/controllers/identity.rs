//! As whom each controller writes.
//!
//! Owns: the names of upstream's service accounts for controllers, to which its bootstrap policy gives their rights.
//! Called by: `run`.
//! Never: asks for more than a name.

use std::collections::HashMap;
use std::sync::Arc;

use minik_client::{AsServiceAccount, Client, Transport};
use parking_lot::Mutex;

const NAMESPACE: &str = "kube-system";

pub enum Identities {
    /// All are one user, who has the rights of all.
    One,
    /// Each is its service account; the transport brings no identity of its own.
    Each(Arc<dyn Transport>),
}

/// The clients of the controllers; reads of caches are the manager's own.
pub(crate) struct Clients {
    pub manager: Client,
    identities: Identities,
    made: Mutex<HashMap<&'static str, Client>>,
}

impl Clients {
    pub fn new(manager: Client, identities: Identities) -> Clients {
        Clients { manager, identities, made: Mutex::default() }
    }

    pub fn of(&self, controller: &'static str) -> Client {
        let (Identities::Each(anonymous), Some(account)) = (&self.identities, service_account(controller)) else {
            return self.manager.clone();
        };
        let make = || {
            let transport = AsServiceAccount::new(anonymous.clone(), self.manager.clone(), NAMESPACE, account);
            Client::new(Arc::new(transport))
        };
        self.made.lock().entry(account).or_insert_with(make).clone()
    }
}

/// `None`: the manager does it itself.
fn service_account(controller: &'static str) -> Option<&'static str> {
    Some(match controller {
        "serviceaccount-token" => return None,
        "clusterrole-aggregation" => "clusterrole-aggregation-controller",
        "cronjob" => "cronjob-controller",
        "csrapproving" | "csrsigning" | "certificatesigningrequest-cleaner" => "certificate-controller",
        "daemonset" => "daemon-set-controller",
        "deployment" => "deployment-controller",
        "disruption" | "stale-pod-disruption" => "disruption-controller",
        "endpoints" => "endpoint-controller",
        "endpointslice" => "endpointslice-controller",
        "endpointslicemirroring" => "endpointslicemirroring-controller",
        "ephemeral-volume" => "ephemeral-volume-controller",
        "garbage-collector" => "generic-garbage-collector",
        "job" => "job-controller",
        "namespace" => "namespace-controller",
        "node-ipam" | "node-lifecycle" | "taint-eviction-controller" => "node-controller",
        "persistentvolume-binder" | "persistentvolumeclaim-binder" => "persistent-volume-binder",
        "pv-protection" => "pv-protection-controller",
        "pvc-protection" => "pvc-protection-controller",
        "replicaset" => "replicaset-controller",
        "replicationcontroller" => "replication-controller",
        "resource_claim" | "resource_claim_use" => "resource-claim-controller",
        "resourcequota" => "resourcequota-controller",
        "root-ca-certificate-publisher" => "root-ca-cert-publisher",
        "serviceaccount" => "service-account-controller",
        "statefulset" => "statefulset-controller",
        "ttl" => "ttl-controller",
        "volume-expand" => "expand-controller",
        "volumeattributesclass-protection" => "volumeattributesclass-protection-controller",
        same => same,
    })
}
