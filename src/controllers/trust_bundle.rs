//! Publishes the authority behind the API server's certificate as a ClusterTrustBundle, for Pods to mount.
//!
//! Owns: the one bundle of the signer `kubernetes.io/kube-apiserver-serving`.
//! Called by: the driver.
//! Never: touches another signer's bundles.

use jiff::Timestamp;
use minik_api::resources::{CLUSTERTRUSTBUNDLES, NAMESPACES};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Plan, Reconciler, View};
use serde_json::json;
use sha2::{Digest, Sha256};

const SIGNER: &str = "kubernetes.io/kube-apiserver-serving";
/// Of the hash in the bundle's name.
const HASH_BYTES: usize = 12;

pub(crate) struct TrustBundle {
    pub pem: String,
}

impl TrustBundle {
    /// A new authority is a new name, so that nobody reads half of a change.
    fn bundle_name(&self) -> String {
        let hash = Sha256::digest(&self.pem);
        let hex: String = hash[..HASH_BYTES].iter().map(|b| format!("{b:02x}")).collect();
        format!("{}:{hex}", SIGNER.replace('/', ":"))
    }
}

impl Reconciler for TrustBundle {
    fn name(&self) -> &'static str {
        "kube-apiserver-serving-clustertrustbundle-publisher"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[CLUSTERTRUSTBUNDLES, NAMESPACES]
    }
    /// There is one bundle; kube-system stands for the cluster being there at all.
    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        let concerned = match change.resource {
            NAMESPACES => change.old.is_none() && change.key.name == "kube-system",
            _ => change.object()["spec"]["signerName"] == SIGNER,
        };
        if concerned { vec![ObjectKey::new("", SIGNER)] } else { Vec::new() }
    }

    fn plan(&self, view: &View, _: &ObjectKey, _: Timestamp) -> Plan {
        let name = self.bundle_name();
        let mut plan = Plan::nothing();
        match view.get(CLUSTERTRUSTBUNDLES, "", &name) {
            None => plan.push(Action::create(
                CLUSTERTRUSTBUNDLES,
                json!({
                    "apiVersion": "certificates.k8s.io/v1", "kind": "ClusterTrustBundle", "metadata": {"name": name},
                    "spec": {"signerName": SIGNER, "trustBundle": self.pem},
                }),
            )),
            Some(bundle) => {
                let mut changed = bundle.value().clone();
                changed["spec"]["trustBundle"] = self.pem.as_str().into();
                plan.actions.extend(Action::replace(CLUSTERTRUSTBUNDLES, "", bundle, changed));
            }
        }
        let old = view.list(CLUSTERTRUSTBUNDLES, "");
        let old = old.filter(|b| b["spec"]["signerName"] == SIGNER && object::name(b) != name);
        plan.actions.extend(old.map(|b| Action::delete(CLUSTERTRUSTBUNDLES, b)));
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_is_that_of_todays_authority_and_no_other() {
        let publisher = TrustBundle { pem: "PEM".into() };
        let of = |name: &str, signer: &str| {
            let spec = json!({"signerName": signer, "trustBundle": "OLD"});
            (CLUSTERTRUSTBUNDLES, json!({"metadata": {"name": name}, "spec": spec}))
        };
        let view = View::of([of("old", SIGNER), of("theirs", "example.com/x")]);
        let plan = publisher.plan(&view, &ObjectKey::new("", SIGNER), Timestamp::UNIX_EPOCH);
        let name = publisher.bundle_name();
        assert!(name.starts_with("kubernetes.io:kube-apiserver-serving:") && name.len() == 37 + 24, "{name}");
        let expected = format!("create clustertrustbundles {name}\ndelete clustertrustbundles old\n");
        assert_eq!(plan.to_string(), expected);
    }
}
