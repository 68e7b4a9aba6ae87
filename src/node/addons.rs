//! What a cluster is born with beyond what the API server itself makes: the DNS Service and the default storage class.
//!
//! Owns: creating the objects of `manifests/addons/` that are missing.
//! Called by: the wiring of the control plane, once per start.
//! Never: changes an object that exists: it may be the user's by now.

use std::time::Duration;

use minik_api::ResourceId;
use minik_api::object;
use minik_api::resources::{SERVICES, STORAGECLASSES};
use minik_client::Client;
use serde::Deserialize;
use serde_json::Value;

const ADDONS: [(ResourceId, &str); 2] = [
    (SERVICES, include_str!("../../manifests/addons/dns.yaml")),
    (STORAGECLASSES, include_str!("../../manifests/addons/storage-class.yaml")),
];
/// The API server answers in process from the start, so a failure is one of the store.
const TRIES_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

fn objects() -> Vec<(ResourceId, Value)> {
    let documents = |text: &'static str| {
        let parsed = serde_yaml::Deserializer::from_str(text).map(Value::deserialize);
        parsed.map(|v| v.expect("the manifest is part of the binary and tested"))
    };
    ADDONS.into_iter().flat_map(|(resource, text)| documents(text).map(move |v| (resource, v))).collect()
}

pub async fn ensure(client: Client) {
    for (resource, body) in objects() {
        for attempt in 1..=TRIES_MAX {
            match client.create(resource, object::namespace(&body), &body).await {
                Ok(_) => break,
                Err(e) if e.is_already_exists() => break,
                Err(e) => {
                    tracing::warn!(object = %minik_api::ObjectKey::of(&body), attempt, error = %e, "not created yet");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dns_service_has_the_address_that_pods_are_told() {
        let (_, service) = &objects()[0];
        assert_eq!(service["spec"]["clusterIP"], crate::config::CLUSTER_DNS.to_string());
        assert_eq!(object::namespace(service), "kube-system");
    }
}
