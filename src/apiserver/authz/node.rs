//! What a node may do: its own objects, and those its pods need.
//!
//! Owns: the rules of the Node authorizer and the sentences it refuses with.
//! Called by: the authorizer chain, first; users that are no nodes pass through without an opinion.
//! Never: checks bodies: that a node writes only its own objects is NodeRestriction's business.

use std::sync::Arc;

use minik_api::selector::FieldOperator;
use minik_api::{ObjectKey, resources};
use parking_lot::RwLock;

use super::node_graph::{Graph, Kind, needs};
use super::rule::Rule;
use super::{Attributes, Authorizer, Decision, ResourceTarget, Rules, Target};
use crate::authn::UserInfo;
use crate::objects::{Change, Objects};

pub struct NodeAuthorizer {
    graph: RwLock<Graph>,
    objects: Arc<dyn Objects>,
    /// What every node may do, when the resource is not one of those with a relation.
    rules: Vec<Rule>,
}

impl NodeAuthorizer {
    pub fn new(objects: Arc<dyn Objects>, rules: Vec<Rule>) -> Self {
        Self { graph: RwLock::default(), objects, rules }
    }

    pub fn apply(&self, change: &Change) {
        self.graph.write().apply(change);
    }

    pub fn clear(&self) {
        *self.graph.write() = Graph::default();
    }

    fn related(&self, kind: Kind, target: &ResourceTarget<'_>, node: &str) -> Decision {
        if target.name.is_empty() {
            return no("No Object name found");
        }
        let vertex = (kind, ObjectKey::new(target.namespace, target.name));
        if self.graph.read().leads_to(&vertex, node) || self.related_just_now(&vertex, node) {
            return Decision::Allow(String::new());
        }
        no(&format!("no relationship found between node '{node}' and this object"))
    }

    /// The graph follows the store and may lag behind it by a moment, in which a kubelet that just learned of its
    /// pod must not be refused. Misses are rare, so looking at the pods themselves costs little.
    fn related_just_now(&self, vertex: &(Kind, ObjectKey), node: &str) -> bool {
        let namespace = &vertex.1.namespace;
        if namespace.is_empty() {
            return false;
        }
        if vertex.0 == Kind::Pod {
            let pod = self.objects.get(resources::PODS, namespace, &vertex.1.name);
            return pod.is_some_and(|pod| pod["spec"]["nodeName"] == node);
        }
        let pods = self.objects.list(resources::PODS, namespace);
        pods.iter().any(|pod| pod["spec"]["nodeName"] == node && needs(pod).contains(vertex))
    }

    fn read_namespaced(&self, kind: Kind, attributes: &Attributes<'_>, t: &ResourceTarget<'_>, node: &str) -> Decision {
        if !matches!(attributes.verb, "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !t.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if t.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related(kind, t, node)
    }

    fn get_only(&self, kind: Kind, attributes: &Attributes<'_>, t: &ResourceTarget<'_>, node: &str) -> Decision {
        if attributes.verb != "get" {
            return no("can only get individual resources of this type");
        }
        if !t.subresource.is_empty() {
            return no("cannot get subresource");
        }
        self.related(kind, t, node)
    }

    fn service_account(&self, attributes: &Attributes<'_>, t: &ResourceTarget<'_>, node: &str) -> Decision {
        match (attributes.verb, t.subresource) {
            ("get", "") => self.read_namespaced(Kind::ServiceAccount, attributes, t, node),
            ("create", _) if t.name.is_empty() => no("can only create tokens for individual service accounts"),
            ("create", "token") => self.related(Kind::ServiceAccount, t, node),
            ("create", _) => no("can only create token subresource of serviceaccount"),
            _ => no("can only create tokens for individual service accounts"),
        }
    }

    fn claim(&self, attributes: &Attributes<'_>, t: &ResourceTarget<'_>, node: &str) -> Decision {
        match (t.subresource, attributes.verb) {
            ("status", "update" | "patch") => self.related(Kind::Claim, t, node),
            ("status", _) => no("can only get/update/patch this type"),
            _ => self.get_only(Kind::Claim, attributes, t, node),
        }
    }

    fn resource_slice(&self, attributes: &Attributes<'_>, t: &ResourceTarget<'_>, node: &str) -> Decision {
        if !t.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match attributes.verb {
            "create" => yes(),
            "get" | "update" | "patch" | "delete" => self.related(Kind::ResourceSlice, t, node),
            "watch" | "list" | "deletecollection" if selects(t, "spec.nodeName", node) => yes(),
            "watch" | "list" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn certificate_request(&self, attributes: &Attributes<'_>, t: &ResourceTarget<'_>, node: &str) -> Decision {
        if !t.subresource.is_empty() {
            return no("nodes may not access the status subresource of PodCertificateRequests");
        }
        match attributes.verb {
            "create" => yes(),
            "get" => self.related(Kind::PodCertificateRequest, t, node),
            "list" | "watch" if selects(t, "spec.nodeName", node) => yes(),
            "list" | "watch" => no("can only list/watch podcertificaterequests with nodeName field selector"),
            verb => no(&format!("nodes may not {verb} podcertificaterequests")),
        }
    }

    fn pod(&self, attributes: &Attributes<'_>, t: &ResourceTarget<'_>, node: &str) -> Decision {
        match (t.subresource, attributes.verb) {
            ("", "get") => self.related(Kind::Pod, t, node),
            ("", "list" | "watch") if selects(t, "spec.nodeName", node) => yes(),
            ("", "list" | "watch") if !t.name.is_empty() => self.related(Kind::Pod, t, node),
            ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => yes(),
            _ => no(""),
        }
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let Some(node) = attributes.user.node() else { return no("") };
        if node.is_empty() {
            return no(&format!("unknown node for user {:?}", attributes.user.name));
        }
        if let Target::Resource(t) = &attributes.target {
            match (t.group, t.resource) {
                ("", "secrets") => return self.read_namespaced(Kind::Secret, attributes, t, node),
                ("", "configmaps") => return self.read_namespaced(Kind::ConfigMap, attributes, t, node),
                ("", "persistentvolumeclaims") => return self.claim(attributes, t, node),
                ("", "persistentvolumes") => return self.get_only(Kind::Volume, attributes, t, node),
                ("resource.k8s.io", "resourceclaims") => {
                    return self.get_only(Kind::ResourceClaim, attributes, t, node);
                }
                ("storage.k8s.io", "volumeattachments") => {
                    return self.get_only(Kind::VolumeAttachment, attributes, t, node);
                }
                ("", "serviceaccounts") => return self.service_account(attributes, t, node),
                ("coordination.k8s.io", "leases") => return lease(attributes, t, node),
                ("storage.k8s.io", "csinodes") => return csi_node(attributes, t, node),
                ("resource.k8s.io", "resourceslices") => return self.resource_slice(attributes, t, node),
                ("", "nodes") => return own_node(attributes, t, node),
                ("", "pods") => return self.pod(attributes, t, node),
                ("certificates.k8s.io", "podcertificaterequests") => {
                    return self.certificate_request(attributes, t, node);
                }
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| rule.allows(attributes.verb, &attributes.target)) { yes() } else { no("") }
    }

    fn rules(&self, user: &UserInfo, _: &str) -> Rules {
        let incomplete = match user.node() {
            Some(_) => "node authorizer does not support user rule resolution".to_string(),
            None => String::new(),
        };
        Rules { incomplete, ..Rules::default() }
    }
}

fn yes() -> Decision {
    Decision::Allow(String::new())
}

fn no(reason: &str) -> Decision {
    Decision::NoOpinion(reason.to_string())
}

fn selects(target: &ResourceTarget<'_>, field: &str, node: &str) -> bool {
    target.fields.iter().any(|r| r.path == field && r.operator == FieldOperator::Equals && r.value == node)
}

fn lease(attributes: &Attributes<'_>, t: &ResourceTarget<'_>, node: &str) -> Decision {
    const NAMESPACE: &str = "kube-node-lease";
    match attributes.verb {
        "get" | "create" | "update" | "patch" | "delete" => {}
        _ => return no("can only get, create, update, patch, or delete a node lease"),
    }
    if t.namespace != NAMESPACE {
        return no(&format!("can only access leases in the {NAMESPACE:?} system namespace"));
    }
    // The name of a lease to be created is in its body, which NodeRestriction looks at.
    if attributes.verb != "create" && t.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    yes()
}

fn csi_node(attributes: &Attributes<'_>, t: &ResourceTarget<'_>, node: &str) -> Decision {
    match t.subresource {
        "" => {}
        "status" => return no("CSINode status access requires CSIVolumeHealth feature"),
        _ => return no("cannot authorize CSINode subresources"),
    }
    match attributes.verb {
        "get" | "create" | "update" | "patch" | "delete" => {}
        _ => return no("can only get, create, update, patch, or delete a CSINode"),
    }
    if attributes.verb != "create" && t.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    yes()
}

fn own_node(attributes: &Attributes<'_>, t: &ResourceTarget<'_>, node: &str) -> Decision {
    match (t.subresource, attributes.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => yes(),
        ("", "get" | "list" | "watch") => match t.name {
            name if name == node => yes(),
            "" => no(&format!("node '{node}' cannot read all nodes, only its own Node object")),
            other => no(&format!("node '{node}' cannot read '{other}', only its own Node object")),
        },
        _ => no(""),
    }
}

#[cfg(test)]
mod tests {
    use minik_api::selector::FieldSelector;
    use serde_json::{Value, json};

    use super::*;
    use crate::objects::fixture::Fixture;

    fn pod(name: &str, node: &str, secret: &str) -> Value {
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "a"},
            "spec": {"nodeName": node, "serviceAccountName": "default", "containers": [{"name": "c",
                "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}}]}],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}})
    }

    fn authorizer() -> NodeAuthorizer {
        let authorizer = NodeAuthorizer::new(Arc::new(Fixture::default()), vec![]);
        authorizer.apply(&Change::Put(Arc::new(pod("web", "n1", "password"))));
        let volume = json!({"kind": "PersistentVolume", "metadata": {"name": "pv1"}, "spec": {
            "claimRef": {"namespace": "a", "name": "data"},
            "csi": {"nodePublishSecretRef": {"namespace": "csi", "name": "key"}}}});
        authorizer.apply(&Change::Put(Arc::new(volume)));
        authorizer
    }

    fn ask(a: &NodeAuthorizer, node: &str, verb: &str, resource: &str, ns: &str, name: &str, fields: &str) -> Decision {
        let user = UserInfo::new(&format!("system:node:{node}"), &["system:nodes"]);
        let fields = FieldSelector::parse(fields).expect("test");
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let target = ResourceTarget {
            resource,
            subresource,
            namespace: ns,
            name,
            fields: fields.requirements(),
            ..Default::default()
        };
        a.authorize(&Attributes { user: &user, verb, target: Target::Resource(target) })
    }

    #[test]
    fn a_node_reads_what_its_pods_name_and_nothing_else() {
        let a = authorizer();
        assert!(ask(&a, "n1", "get", "secrets", "a", "password", "").is_allowed());
        assert!(ask(&a, "n1", "watch", "secrets", "a", "password", "").is_allowed());
        assert!(ask(&a, "n1", "create", "serviceaccounts/token", "a", "default", "").is_allowed());
        assert!(ask(&a, "n1", "get", "persistentvolumes", "", "pv1", "").is_allowed());
        assert!(ask(&a, "n1", "get", "secrets", "csi", "key", "").is_allowed());
        assert_eq!(
            ask(&a, "n2", "get", "secrets", "a", "password", ""),
            no("no relationship found between node 'n2' and this object")
        );
        assert_eq!(ask(&a, "n1", "list", "secrets", "a", "", ""), no("No Object name found"));
        assert_eq!(ask(&a, "n1", "list", "secrets", "", "", ""), no("can only read namespaced object of this type"));
        assert_eq!(ask(&a, "n1", "delete", "secrets", "a", "password", ""), no("can only read resources of this type"));
    }

    #[test]
    fn a_deleted_pod_takes_the_right_to_its_secrets_with_it() {
        let a = authorizer();
        a.apply(&Change::Put(Arc::new(pod("api", "n1", "password"))));
        a.apply(&Change::Delete(Arc::new(pod("web", "n1", "password"))));
        assert!(ask(&a, "n1", "get", "secrets", "a", "password", "").is_allowed(), "another pod still needs it");
        a.apply(&Change::Delete(Arc::new(pod("api", "n1", "password"))));
        assert!(!ask(&a, "n1", "get", "secrets", "a", "password", "").is_allowed());
        assert!(!ask(&a, "n1", "get", "persistentvolumes", "", "pv1", "").is_allowed());
    }

    #[test]
    fn a_pod_the_graph_has_not_heard_of_yet_counts_already() {
        let a = NodeAuthorizer::new(Arc::new(Fixture::of(vec![pod("web", "n1", "password")])), vec![]);
        assert!(ask(&a, "n1", "get", "secrets", "a", "password", "").is_allowed());
        assert!(!ask(&a, "n2", "get", "secrets", "a", "password", "").is_allowed());
    }

    #[test]
    fn a_node_lists_its_own_pods_only_and_reads_its_own_node_only() {
        let a = authorizer();
        assert!(ask(&a, "n1", "watch", "pods", "", "", "spec.nodeName=n1").is_allowed());
        assert_eq!(
            ask(&a, "n1", "watch", "pods", "", "", "spec.nodeName=n2"),
            no("can only list/watch pods with spec.nodeName field selector")
        );
        assert!(ask(&a, "n1", "get", "nodes", "", "n1", "").is_allowed());
        assert_eq!(
            ask(&a, "n1", "get", "nodes", "", "n2", ""),
            no("node 'n1' cannot read 'n2', only its own Node object")
        );
    }

    #[test]
    fn who_is_no_node_is_not_this_authorizers_business() {
        let user = UserInfo::new("system:node:n1", &[]);
        let target = ResourceTarget { resource: "nodes", name: "n1", ..Default::default() };
        let decision =
            authorizer().authorize(&Attributes { user: &user, verb: "get", target: Target::Resource(target) });
        assert_eq!(decision, no(""));
    }
}
