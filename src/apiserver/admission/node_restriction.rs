//! NodeRestriction: a node writes about itself and its own pods only.
//!
//! Owns: what the body of a node's request may say.
//! Called by: the admission chain when the user is a node.
//! Never: asks which requests a node may make; the Node authorizer has answered that.

use minik_api::pod_annotations::MIRROR;
use minik_api::{Status, object, resources};
use serde_json::{Value, json};

use super::plugin::{Plugin, World};
use super::{Operation, Review, certificates, pod_certificate};
use crate::authz::node_graph::{self, Kind};
use crate::authz::{Attributes, ResourceTarget, Target};

pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn mutate(&self, review: &mut Review, world: &World) -> Result<(), Status> {
        let user = review.user.clone();
        let Some(node) = user.node() else { return Ok(()) };
        if node.is_empty() {
            return Err(review.forbid(&format!("could not determine node from user {:?}", user.name)));
        }
        match (review.group.as_str(), review.resource.as_str(), review.subresource.as_str()) {
            ("", "pods", "") => pod(review, world, node),
            ("", "pods", "status") => pod_status(review, node),
            ("", "pods", "eviction") => own_pod(review, world, node, &review.name, "node", "evict"),
            ("", "pods", sub) => {
                Err(review
                    .forbid(&format!("unexpected pod subresource {sub:?}, only 'status' and 'eviction' are allowed")))
            }
            ("", "nodes", _) => own_node(review, node),
            ("", "persistentvolumeclaims", "status") => claim_status(review, node),
            ("", "persistentvolumeclaims", _) => Err(review.forbid("may only update PVC status")),
            ("", "serviceaccounts", "token") => token(review, world, node),
            ("coordination.k8s.io", "leases", _) => lease(review, node),
            ("storage.k8s.io", "csinodes", _) => same_name(review, node, "CSINode"),
            ("resource.k8s.io", "resourceslices", _) => resource_slice(review, node),
            ("certificates.k8s.io", "certificatesigningrequests", _) => signing_request(review, node),
            ("certificates.k8s.io", "podcertificaterequests", _) => pod_certificate::check(review, world, node),
            _ => Ok(()),
        }
    }
}

fn pod(review: &Review, world: &World, node: &str) -> Result<(), Status> {
    match review.operation {
        Operation::Create => new_pod(review, world, node),
        Operation::Delete => {
            let pod = world.objects.get(resources::PODS, &review.namespace, &review.name);
            let pod = pod.ok_or_else(|| Status::not_found("pods", &review.name))?;
            if pod["spec"]["nodeName"] == node {
                return Ok(());
            }
            Err(review.forbid(&format!("node {node:?} can only delete pods with spec.nodeName set to itself")))
        }
        other => Err(review.forbid(&format!(
            "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
            other.as_str()
        ))),
    }
}

fn new_pod(review: &Review, world: &World, node: &str) -> Result<(), Status> {
    let pod = &review.object;
    let refuse = |why: String| Err(review.forbid(&why));
    if object::annotation(pod, MIRROR).is_none() {
        return refuse(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if pod["spec"]["nodeName"] != node {
        return refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owner = match object::owner_references(pod) {
        [] => return refuse(format!("node {node:?} can only create pods with an owner reference set to itself")),
        [one] => one,
        _ => return refuse(format!("node {node:?} can only create pods with a single owner reference set to itself")),
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return refuse(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return refuse(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner["blockOwnerDeletion"] == true {
        return refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let stored = world.objects.get(resources::NODES, "", node).ok_or_else(|| Status::not_found("nodes", node))?;
    let (expected, got) = (owner["uid"].as_str().unwrap_or(""), object::uid(&stored));
    if expected != got {
        return refuse(format!("node {node} UID mismatch: expected {expected} got {got}"));
    }
    match api_reference(pod) {
        Some(what) => refuse(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

/// What of the API a pod refers to; a mirror pod may refer to nothing, or a node could read what it likes.
fn api_reference(pod: &Value) -> Option<&'static str> {
    let mut plain = pod.clone();
    plain["metadata"]["annotations"] = Value::Null;
    let needs = node_graph::needs(&plain);
    let has = |kind: Kind| needs.iter().any(|(k, _)| *k == kind);
    let spec = &pod["spec"];
    if has(Kind::ServiceAccount) {
        return Some("serviceaccounts");
    }
    if has(Kind::Secret) {
        return Some("secrets");
    }
    if has(Kind::ConfigMap) {
        return Some("configmaps");
    }
    if spec["resourceClaims"].as_array().is_some_and(|c| !c.is_empty()) {
        return Some("resourceclaims");
    }
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        for (field, what) in [
            ("csi", "csidrivers (via CSI volumes)"),
            ("glusterfs", "endpoints (via glusterFS volumes)"),
            ("persistentVolumeClaim", "persistentvolumeclaims"),
            ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
        ] {
            if volume[field].is_object() {
                return Some(what);
            }
        }
        for source in volume["projected"]["sources"].as_array().into_iter().flatten() {
            for (field, what) in [
                ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
                ("clusterTrustBundle", "clustertrustbundles"),
                ("podCertificate", "podcertificates"),
            ] {
                if source[field].is_object() {
                    return Some(what);
                }
            }
        }
    }
    None
}

fn pod_status(review: &Review, node: &str) -> Result<(), Status> {
    if review.operation != Operation::Update {
        return Err(review.forbid(&format!("unexpected operation {:?}", review.operation.as_str())));
    }
    if review.old["spec"]["nodeName"] != node {
        let why = format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself");
        return Err(review.forbid(&why));
    }
    let labels = |pod: &Value| pod["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    if labels(&review.object) != labels(&review.old) {
        return Err(review.forbid(&format!("node {node:?} cannot update labels through pod status")));
    }
    for (field, what) in [
        ("resourceClaimStatuses", "resource claim statues"),
        ("extendedResourceClaimStatus", "extended resource claim status"),
        ("nodeAllocatableResourceClaimStatuses", "node allocatable resource claim statuses"),
    ] {
        if review.object["status"][field] != review.old["status"][field] {
            return Err(review.forbid(&format!("node {node:?} cannot update {what}")));
        }
    }
    Ok(())
}

fn own_pod(review: &Review, world: &World, node: &str, name: &str, word: &str, verb: &str) -> Result<(), Status> {
    if review.operation != Operation::Create {
        return Err(review.forbid(&format!("unexpected operation {}", review.operation.as_str())));
    }
    let name = if name.is_empty() { object::name(&review.object) } else { name };
    if name.is_empty() {
        return Err(review.forbid("could not determine pod from request data"));
    }
    let pod = world.objects.get(resources::PODS, &review.namespace, name);
    let pod = pod.ok_or_else(|| Status::not_found("pods", name))?;
    if pod["spec"]["nodeName"] == node {
        return Ok(());
    }
    Err(review.forbid(&format!("{word} {node} can only {verb} pods with spec.nodeName set to itself")))
}

fn own_node(review: &Review, node: &str) -> Result<(), Status> {
    let name = if review.name.is_empty() { object::name(&review.object) } else { &review.name };
    if name != node {
        return Err(review.forbid(&format!("node {node:?} is not allowed to modify node {name:?}")));
    }
    let (new, old) = (&review.object, review.old.as_ref());
    match review.operation {
        Operation::Create => {
            if new["spec"]["configSource"].is_object() {
                let why = format!("node {node:?} is not allowed to create pods with a non-nil configSource");
                return Err(review.forbid(&why));
            }
            let labels = forbidden_labels(new, &Value::Null);
            if !labels.is_empty() {
                let why = format!("node {node:?} is not allowed to set the following labels: {}", labels.join(", "));
                return Err(review.forbid(&why));
            }
        }
        Operation::Update => {
            let config = &new["spec"]["configSource"];
            if config.is_object() && *config != old["spec"]["configSource"] {
                let why = format!("node {node:?} is not allowed to update configSource to a new non-nil configSource");
                return Err(review.forbid(&why));
            }
            let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
            if list(&new["spec"]["taints"]) != list(&old["spec"]["taints"]) {
                return Err(review.forbid(&format!("node {node:?} is not allowed to modify taints")));
            }
            if object::owner_references(new) != object::owner_references(old) {
                return Err(review.forbid(&format!("node {node:?} is not allowed to modify ownerReferences")));
            }
            let labels = forbidden_labels(new, old);
            if !labels.is_empty() {
                return Err(review.forbid(&format!("is not allowed to modify labels: {}", labels.join(", "))));
            }
        }
        Operation::Delete | Operation::Connect => {}
    }
    Ok(())
}

/// Labels of Kubernetes that a kubelet has business with.
const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let empty = serde_json::Map::new();
    let labels = |o: &Value| o["metadata"]["labels"].as_object().cloned().unwrap_or_else(|| empty.clone());
    let (new, old) = (labels(new), labels(old));
    let mut changed: Vec<String> =
        new.keys().chain(old.keys()).filter(|key| new.get(*key) != old.get(*key)).cloned().collect();
    changed.retain(|key| is_forbidden(key));
    changed.sort();
    changed.dedup();
    changed
}

fn is_forbidden(key: &str) -> bool {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let within = |domain: &str| namespace == domain || namespace.ends_with(&format!(".{domain}"));
    if within("node-restriction.kubernetes.io") {
        return true;
    }
    let of_kubelet = KUBELET_LABELS.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    (within("kubernetes.io") || within("k8s.io")) && !of_kubelet
}

fn claim_status(review: &Review, node: &str) -> Result<(), Status> {
    if review.operation != Operation::Update {
        return Err(review.forbid(&format!("unexpected operation {:?}", review.operation.as_str())));
    }
    let strip = |claim: &Value| {
        let mut claim = claim.clone();
        for field in ["resourceVersion", "managedFields"] {
            claim["metadata"][field] = Value::Null;
        }
        for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
            claim["status"][field] = Value::Null;
        }
        claim
    };
    if strip(&review.object) == strip(&review.old) {
        return Ok(());
    }
    let why = format!("node {node:?} is not allowed to update fields other than status.quantity and status.conditions");
    Err(review.forbid(&why))
}

fn token(review: &Review, world: &World, node: &str) -> Result<(), Status> {
    if review.operation != Operation::Create {
        return Ok(());
    }
    let reference = &review.object["spec"]["boundObjectRef"];
    let text = |key: &str| reference[key].as_str().unwrap_or("");
    if text("apiVersion") != "v1" || text("kind") != "Pod" || text("name").is_empty() {
        return Err(review.forbid("node requested token not bound to a pod"));
    }
    let uid = text("uid");
    if uid.is_empty() {
        return Err(review.forbid("node requested token with a pod binding without a uid"));
    }
    let pod = world.objects.get(resources::PODS, &review.namespace, text("name"));
    let pod = pod.ok_or_else(|| Status::not_found("pods", text("name")))?;
    if uid != object::uid(&pod) {
        return Err(review.forbid(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        )));
    }
    if pod["spec"]["nodeName"] != node {
        return Err(review.forbid("node requested token bound to a pod scheduled on a different node"));
    }
    let audience = match review.object["spec"]["audiences"].as_array().map_or(&[][..], Vec::as_slice) {
        [] => "",
        [one] => one.as_str().unwrap_or(""),
        _ => return Err(review.forbid("node may only request 0 or 1 audiences")),
    };
    if pod_names_audience(&pod, world, audience) {
        return Ok(());
    }
    let target = ResourceTarget {
        version: "v1",
        resource: audience,
        namespace: &review.namespace,
        name: &review.name,
        ..Default::default()
    };
    let verb = "request-serviceaccounts-token-audience";
    let question = Attributes { user: &review.user, verb, target: Target::Resource(target) };
    if world.authorizer.authorize(&question).is_allowed() {
        return Ok(());
    }
    Err(review.forbid(&format!("{} is not authorized to request tokens for audience {audience:?}", review.user.name)))
}

/// A token for an audience that the pod mounts, itself or through a CSI driver, is the pod's own business.
fn pod_names_audience(pod: &Value, world: &World, audience: &str) -> bool {
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    items(&pod["spec"]["volumes"]).iter().any(|volume| {
        let mounted = items(&volume["projected"]["sources"]).iter().any(|source| {
            let token = &source["serviceAccountToken"];
            token.is_object() && token["audience"].as_str().unwrap_or("") == audience
        });
        if mounted {
            return true;
        }
        let driver = volume_driver(pod, volume, world);
        let driver = driver.and_then(|name| world.objects.get(resources::CSIDRIVERS, "", &name));
        driver.is_some_and(|d| items(&d["spec"]["tokenRequests"]).iter().any(|r| r["audience"] == audience))
    })
}

fn volume_driver(pod: &Value, volume: &Value, world: &World) -> Option<String> {
    if let Some(driver) = volume["csi"]["driver"].as_str() {
        return Some(driver.into());
    }
    let claim = match volume["persistentVolumeClaim"]["claimName"].as_str() {
        Some(claim) => claim.to_string(),
        None if volume["ephemeral"].is_object() => {
            format!("{}-{}", object::name(pod), volume["name"].as_str().unwrap_or(""))
        }
        None => return None,
    };
    let claim = world.objects.get(resources::PERSISTENTVOLUMECLAIMS, object::namespace(pod), &claim)?;
    let volume = world.objects.get(resources::PERSISTENTVOLUMES, "", claim["spec"]["volumeName"].as_str()?)?;
    volume["spec"]["csi"]["driver"].as_str().map(str::to_string)
}

fn lease(review: &Review, node: &str) -> Result<(), Status> {
    const NAMESPACE: &str = "kube-node-lease";
    if review.namespace != NAMESPACE {
        return Err(review.forbid(&format!("can only access leases in the {NAMESPACE:?} system namespace")));
    }
    same_name(review, node, "node lease")
}

fn same_name(review: &Review, node: &str, what: &str) -> Result<(), Status> {
    let name = if review.operation == Operation::Create { object::name(&review.object) } else { &review.name };
    if name == node {
        return Ok(());
    }
    Err(review.forbid(&format!("can only access {what} with the same name as the requesting node")))
}

fn resource_slice(review: &Review, node: &str) -> Result<(), Status> {
    let (object, verb) = match review.operation {
        Operation::Create => (&review.object, "create"),
        Operation::Delete => (review.old.as_ref(), "delete"),
        Operation::Update | Operation::Connect => return Ok(()),
    };
    if object["spec"]["nodeName"] == json!(node) {
        return Ok(());
    }
    Err(review.forbid(&format!("can only {verb} ResourceSlice with the same NodeName as the requesting node")))
}

fn signing_request(review: &Review, node: &str) -> Result<(), Status> {
    let spec = &review.object["spec"];
    let signers = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
    let ours = spec["signerName"].as_str().is_some_and(|s| signers.contains(&s));
    if review.operation != Operation::Create || !ours {
        return Ok(());
    }
    let subject =
        certificates::subject(&spec["request"]).map_err(|why| review.forbid(&format!("unable to parse csr: {why}")))?;
    if subject.common_name == format!("system:node:{node}") {
        return Ok(());
    }
    Err(review.forbid(&format!("can only create a node CSR with CN=system:node:{node}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fixture::{review, world};
    use super::*;
    use crate::authn::UserInfo;

    fn check(operation: Operation, object: Value, old: Value) -> Result<(), String> {
        let world = world(vec![
            json!({"kind": "Pod", "metadata": {"name": "mine", "namespace": "a", "uid": "u1"}, "spec": {"nodeName": "n1",
                "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]}}),
            json!({"kind": "Pod", "metadata": {"name": "theirs", "namespace": "a", "uid": "u2"}, "spec": {"nodeName": "n2"}}),
        ]);
        let mut review = review(operation, object);
        review.old = Arc::new(old);
        review.user = Arc::new(UserInfo::new("system:node:n1", &["system:nodes"]));
        NodeRestriction.mutate(&mut review, &world).map_err(|s| s.message)
    }

    fn node(name: &str, labels: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {}})
    }

    #[test]
    fn a_node_writes_its_own_node_and_only_its_own_labels() {
        let hostname = json!({"kubernetes.io/hostname": "n1", "example.com/rack": "7"});
        assert_eq!(check(Operation::Create, node("n1", hostname), Value::Null), Ok(()));
        assert_eq!(
            check(Operation::Create, node("n2", json!({})), Value::Null),
            Err(r#"nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2""#.into())
        );
        assert_eq!(
            check(Operation::Create, node("n1", json!({"node-restriction.kubernetes.io/x": "1"})), Value::Null),
            Err(r#"nodes "n1" is forbidden: node "n1" is not allowed to set the following labels: node-restriction.kubernetes.io/x"#.into())
        );
        assert_eq!(
            check(Operation::Update, node("n1", json!({"kubernetes.io/role": "x"})), node("n1", json!({}))),
            Err(r#"nodes "n1" is forbidden: is not allowed to modify labels: kubernetes.io/role"#.into())
        );
    }

    #[test]
    fn a_node_reports_on_its_own_pods() {
        let pod = |node: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}, "spec": {"nodeName": node}});
        let status = |node: &str| {
            let mut review = review(Operation::Update, pod(node));
            review.subresource = "status".into();
            review.old = Arc::new(pod(node));
            review.user = Arc::new(UserInfo::new("system:node:n1", &["system:nodes"]));
            NodeRestriction.mutate(&mut review, &world(vec![])).map_err(|s| s.message)
        };
        assert_eq!(status("n1"), Ok(()));
        assert_eq!(
            status("n2"),
            Err(r#"pods "p" is forbidden: node "n1" can only update pod status for pods with spec.nodeName set to itself"#.into())
        );
        assert_eq!(
            check(Operation::Create, pod("n1"), Value::Null),
            Err(r#"pods "p" is forbidden: pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods"#.into())
        );
    }

    #[test]
    fn a_node_gets_tokens_for_its_own_pods_as_they_mount_them() {
        let request = |pod: &str, uid: &str, audiences: Value| {
            let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "s", "namespace": "a"},
                "spec": {"audiences": audiences, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}}});
            let mut review = review(Operation::Create, object);
            review.subresource = "token".into();
            review.user = Arc::new(UserInfo::new("system:node:n1", &["system:nodes"]));
            let pods = world(vec![
                json!({"kind": "Pod", "metadata": {"name": "mine", "namespace": "a", "uid": "u1"}, "spec": {"nodeName": "n1",
                    "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]}}),
                json!({"kind": "Pod", "metadata": {"name": "theirs", "namespace": "a", "uid": "u2"}, "spec": {"nodeName": "n2"}}),
            ]);
            let world = World { authorizer: Arc::new(crate::authz::rbac::Rbac::default()), ..pods };
            NodeRestriction.mutate(&mut review, &world).map_err(|s| s.message)
        };
        assert_eq!(request("mine", "u1", json!([])), Ok(()));
        assert!(request("theirs", "u2", json!([])).expect_err("refused").contains("scheduled on a different node"));
        assert!(request("mine", "u9", json!([])).expect_err("refused").contains("does not match the UID in record"));
        assert_eq!(
            request("mine", "u1", json!(["vault"])),
            Err(r#"serviceaccounts "s" is forbidden: system:node:n1 is not authorized to request tokens for audience "vault""#.into())
        );
    }
}
