//! What a cluster is born with, besides its policy: namespaces, the `kubernetes` Service, the
//! APIServices of the built-in groups.
//!
//! Owns: those objects, created when they are missing, and where the `kubernetes` Service leads.
//! Called by: `ApiServer::build`, before the first request.
//! Never: overwrites what somebody changed, but for the addresses of this API server.

use std::sync::Arc;

use http::Method;
use minik_api::{Status, object, resources};
use serde_json::{Value, json};

use crate::call::now;
use crate::objects::Loopback;
use crate::server::Core;
use crate::services::Network;
use crate::{aggregation, bootstrap};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";
/// Upstream's name for whoever says that the first ServiceCIDR is ready.
const CIDR_MANAGER: &str = "kubernetes-service-cidr-controller";
const HTTPS_PORT: u16 = 443;

pub async fn ensure(core: &Arc<Core>) -> Result<(), Status> {
    // All at once, so that they wait for one commit.
    let namespaces = NAMESPACES.map(|name| create(core, "/api/v1/namespaces", json!({"metadata": {"name": name}})));
    futures::future::try_join_all(namespaces).await?;
    let client_ca = core.config.tls.as_ref().and_then(|tls| tls.client_ca.as_deref());
    let authentication = bootstrap::authentication_settings(client_ca, core.config.front_proxy_ca.as_deref());
    let policy = bootstrap::ensure(core.objects.as_ref(), core, authentication);
    futures::future::try_join(policy, aggregation::register(core)).await?;
    service_cidr(core).await?;
    kubernetes_service(core).await
}

/// Creates what is not there yet.
async fn create(core: &Arc<Core>, path: &str, body: Value) -> Result<(), Status> {
    match core.call(Method::POST, path, Some(&body)).await {
        Ok(_) => Ok(()),
        Err(status) if status.is_already_exists() => Ok(()),
        Err(status) => Err(status),
    }
}

/// The network that Services get their addresses from. This server uses it from the start, so it says itself that it
/// is ready, unless somebody has said otherwise.
async fn service_cidr(core: &Arc<Core>) -> Result<(), Status> {
    let cidrs = json!([core.config.service_cidr]);
    create(core, CIDRS, json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}})).await?;
    let Some(known) = core.objects.get(resources::SERVICECIDRS, "", "kubernetes") else { return Ok(()) };
    let conditions = known["status"]["conditions"].as_array();
    let said = conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] != "Unknown");
    if said || object::is_deleting(&known) || known["spec"]["cidrs"] != cidrs {
        return Ok(());
    }
    let ready = json!({
        "kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": "kubernetes"},
        "status": {"conditions": [{
            "type": "Ready", "status": "True", "message": "Kubernetes default Service CIDR is ready",
            "lastTransitionTime": now(),
        }]},
    });
    core.apply(&format!("{CIDRS}/kubernetes/status"), CIDR_MANAGER, &ready).await.map(drop)
}

/// The Service by which pods find this server. There is one API server, so its address is the only endpoint.
async fn kubernetes_service(core: &Arc<Core>) -> Result<(), Status> {
    let Some(network) = Network::parse(&core.config.service_cidr) else {
        return Err(Status::internal(format!("the service network {:?} cannot be used", core.config.service_cidr)));
    };
    let (address, port) = (core.config.advertise_address.to_string(), core.config.port);
    let service = json!({
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": network.nth(1).to_string(), "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None", "type": "ClusterIP",
            "ports": [{"name": "https", "protocol": "TCP", "port": HTTPS_PORT, "targetPort": port}],
        },
    });
    // Creating it again would fail for its address, which it holds itself.
    if core.objects.get(resources::SERVICES, "default", "kubernetes").is_none() {
        create(core, "/api/v1/namespaces/default/services", service).await?;
    }
    // A loopback address cannot be an endpoint; a server that nobody reaches from outside has none.
    if core.config.advertise_address.is_loopback() {
        return Ok(());
    }
    let endpoints = json!({
        "metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "protocol": "TCP", "port": port}]}],
    });
    put(core, "/api/v1/namespaces/default/endpoints", endpoints).await?;
    let slice = json!({
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "protocol": "TCP", "port": port}],
    });
    put(core, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await
}

/// Creates, or overwrites when the address has changed.
async fn put(core: &Arc<Core>, collection: &str, body: Value) -> Result<(), Status> {
    match core.call(Method::POST, collection, Some(&body)).await {
        Err(status) if status.is_already_exists() => {
            let name = body["metadata"]["name"].as_str().unwrap_or_default();
            core.call(Method::PUT, &format!("{collection}/{name}"), Some(&body)).await.map(drop)
        }
        outcome => outcome.map(drop),
    }
}
