//! The default roles and bindings, read from the embedded manifests.
//!
//! Owns: which files there are, what every object of them gets, and the one role that is computed.
//! Called by: the reconciler, the Node authorizer for its static rules.
//! Never: changes a rule: the manifests say what upstream's server says.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::authz::rule::Rule;

const RBAC: [&str; 7] = [
    include_str!("../../../manifests/rbac/users.yaml"),
    include_str!("../../../manifests/rbac/system.yaml"),
    include_str!("../../../manifests/rbac/components.yaml"),
    include_str!("../../../manifests/rbac/certificates.yaml"),
    include_str!("../../../manifests/rbac/controllers.yaml"),
    include_str!("../../../manifests/rbac/namespaced.yaml"),
    include_str!("../../../manifests/rbac/minik.yaml"),
];
const PRIORITY_CLASSES: &str = include_str!("../../../manifests/priority-classes.yaml");

/// minik's controllers share one identity, so one role has the rules of all of theirs.
const ALL_CONTROLLERS: &str = "minik:kube-controller-manager";

fn documents(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).expect("a test reads every embedded manifest"))
        .collect()
}

/// Every default Role, RoleBinding, ClusterRole and ClusterRoleBinding, marked as what the server keeps.
pub fn rbac() -> Vec<Value> {
    let mut objects: Vec<Value> = RBAC.iter().flat_map(|text| documents(text)).collect();
    objects.push(all_controllers(&objects));
    for object in &mut objects {
        // Who lists the defaults of Kubernetes by this label does not expect what minik adds to them.
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if !["minik:", "kubeadm:"].iter().any(|owner| name.starts_with(owner)) {
            object["metadata"]["labels"]["kubernetes.io/bootstrapping"] = "rbac-defaults".into();
        }
        object["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "true".into();
    }
    objects
}

fn all_controllers(objects: &[Value]) -> Value {
    let mut rules: Vec<Value> = Vec::new();
    for role in objects.iter().filter(|o| o["kind"] == "ClusterRole" || o["kind"] == "Role") {
        let controller = role["metadata"]["name"].as_str().is_some_and(|n| n.starts_with("system:controller:"));
        for rule in role["rules"].as_array().into_iter().flatten().filter(|_| controller) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": ALL_CONTROLLERS}, "rules": rules})
}

pub fn priority_classes() -> Vec<Value> {
    documents(PRIORITY_CLASSES)
}

/// The rules of `system:node`, which the Node authorizer grants without a binding.
pub fn node_rules() -> Vec<Rule> {
    let components = documents(RBAC[2]);
    let role = components.iter().find(|o| o["kind"] == "ClusterRole" && o["metadata"]["name"] == "system:node");
    role.map(Rule::list).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::authn::UserInfo;
    use crate::authz::rbac::Rbac;
    use crate::authz::{Attributes, Authorizer, ResourceTarget, Target};
    use crate::objects::Change;

    fn may(user: &UserInfo, verb: &str, group: &str, resource: &str, namespace: &str) -> bool {
        let index = Rbac::default();
        for object in rbac() {
            index.apply(&Change::Put(Arc::new(object)));
        }
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let target = ResourceTarget { group, resource, subresource, namespace, ..Default::default() };
        index.authorize(&Attributes { user, verb, target: Target::Resource(target) }).is_allowed()
    }

    #[test]
    fn every_manifest_is_read_and_names_are_unique() {
        let objects = rbac();
        let mut keys: Vec<String> = objects
            .iter()
            .map(|o| format!("{} {} {}", o["kind"], o["metadata"]["namespace"], o["metadata"]["name"]))
            .collect();
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
        // What kube-apiserver v1.37.2 makes, and minik's own eight.
        assert_eq!(count, 73 + 54 + 7 + 7 + 8);
        assert_eq!(priority_classes().len(), 2);
        assert_eq!(node_rules().len(), 27);
    }

    #[test]
    fn the_identities_of_a_cluster_have_the_rights_they_need() {
        let controllers = UserInfo::new("system:kube-controller-manager", &["system:authenticated"]);
        assert!(may(&controllers, "update", "apps", "replicasets/status", "a"));
        assert!(may(&controllers, "create", "", "pods", "a"));
        assert!(!may(&controllers, "create", "", "pods/exec", "a"));
        let scheduler = UserInfo::new("system:kube-scheduler", &[]);
        assert!(may(&scheduler, "create", "", "pods/binding", "a"));
        assert!(!may(&scheduler, "create", "", "pods", "a"));
        let dns = UserInfo::new("system:kube-dns", &[]);
        assert!(may(&dns, "watch", "discovery.k8s.io", "endpointslices", ""));
        let provisioner = UserInfo::new("system:volume-provisioner", &[]);
        assert!(may(&provisioner, "create", "", "persistentvolumes", ""));
        let proxy = UserInfo::new("system:kube-proxy", &["system:node-proxier"]);
        assert!(may(&proxy, "watch", "", "services", ""));
        let kubelet_client = UserInfo::new("kube-apiserver-kubelet-client", &[]);
        assert!(
            may(&kubelet_client, "create", "", "nodes/proxy", "") && may(&kubelet_client, "get", "", "nodes/stats", "")
        );
        let admin = UserInfo::new("jane", &["kubeadm:cluster-admins"]);
        assert!(may(&admin, "delete", "x.io", "anything/at-all", ""));
        let nobody = UserInfo::new("joe", &["system:authenticated"]);
        assert!(may(&nobody, "create", "authorization.k8s.io", "selfsubjectaccessreviews", ""));
        assert!(!may(&nobody, "get", "", "pods", "a"));
    }
}
