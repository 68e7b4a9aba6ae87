//! What every Namespace is born with: the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`.
//!
//! Owns: both, and bringing them back when they are deleted or changed.
//! Called by: the driver.
//! Never: puts anything into a Namespace that is ending.

use jiff::Timestamp;
use minik_api::resources::{CONFIGMAPS, NAMESPACES, SERVICEACCOUNTS};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Plan, Reconciler, View};
use serde_json::json;

const ROOT_CA: &str = "kube-root-ca.crt";
const DEFAULT: &str = "default";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

/// The key is the Namespace's.
pub(crate) struct RootCa {
    pub pem: String,
}

fn is_alive(view: &View, key: &ObjectKey) -> bool {
    view.get_key(NAMESPACES, key).is_some_and(|n| !object::is_deleting(n) && n["status"]["phase"] != "Terminating")
}

/// The Namespace itself, or the one of a changed object of that name.
fn keys(change: &Change, watched: &str) -> Vec<ObjectKey> {
    if change.resource == NAMESPACES {
        return vec![change.key.clone()];
    }
    if change.key.name == watched { vec![ObjectKey::new("", &change.key.namespace)] } else { Vec::new() }
}

impl Reconciler for RootCa {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[NAMESPACES, CONFIGMAPS]
    }
    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        keys(change, ROOT_CA)
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        if !is_alive(view, key) {
            return Plan::nothing();
        }
        let data = json!({"ca.crt": self.pem});
        let Some(map) = view.get(CONFIGMAPS, &key.name, ROOT_CA) else {
            let body = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"namespace": key.name, "name": ROOT_CA,
                             "annotations": {"kubernetes.io/description": DESCRIPTION}},
                "data": data,
            });
            return Plan::of(vec![Action::create(CONFIGMAPS, body)]);
        };
        if map["data"] == data {
            return Plan::nothing();
        }
        let mut changed = map.value().clone();
        changed["data"] = data;
        changed["metadata"]["annotations"]["kubernetes.io/description"] = DESCRIPTION.into();
        Plan::of(Action::replace(CONFIGMAPS, "", map, changed).into_iter().collect())
    }
}

/// The key is the Namespace's.
pub(crate) struct DefaultServiceAccount;

impl Reconciler for DefaultServiceAccount {
    fn name(&self) -> &'static str {
        "serviceaccount"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[NAMESPACES, SERVICEACCOUNTS]
    }
    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        keys(change, DEFAULT)
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        if !is_alive(view, key) || view.get(SERVICEACCOUNTS, &key.name, DEFAULT).is_some() {
            return Plan::nothing();
        }
        let body = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"namespace": key.name, "name": DEFAULT},
        });
        Plan::of(vec![Action::create(SERVICEACCOUNTS, body)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(of: &dyn Reconciler, view: &View) -> String {
        of.plan(view, &ObjectKey::new("", "d"), Timestamp::UNIX_EPOCH).to_string()
    }

    #[test]
    fn a_namespace_gets_both_and_an_ending_one_neither() {
        let ca = RootCa { pem: "PEM".into() };
        let alive = View::of([(NAMESPACES, json!({"metadata": {"name": "d"}}))]);
        assert_eq!(plan(&ca, &alive), "create configmaps d/kube-root-ca.crt\n");
        assert_eq!(plan(&DefaultServiceAccount, &alive), "create serviceaccounts d/default\n");
        let ending = View::of([(NAMESPACES, json!({"metadata": {"name": "d"}, "status": {"phase": "Terminating"}}))]);
        assert_eq!(plan(&ca, &ending), "");
        assert_eq!(plan(&DefaultServiceAccount, &ending), "");
    }

    #[test]
    fn a_changed_certificate_is_put_right() {
        let ca = RootCa { pem: "PEM".into() };
        let map = json!({"metadata": {"namespace": "d", "name": ROOT_CA}, "data": {"ca.crt": "OLD"}});
        let view = View::of([(NAMESPACES, json!({"metadata": {"name": "d"}})), (CONFIGMAPS, map)]);
        assert!(plan(&ca, &view).starts_with(r#"update configmaps d/kube-root-ca.crt {"data":{"ca.crt":"PEM"}"#));
    }
}
