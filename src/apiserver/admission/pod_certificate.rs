//! NodeRestriction for pod certificates: a node asks for its own pods, for signers that they mount.
//!
//! Owns: comparing what a request says with the node, the pod and the service account that are there.
//! Called by: NodeRestriction.
//! Never: forbids what may only be early: an object that is not known yet is a reason to try again.

use minik_api::pod_annotations::MIRROR;
use minik_api::{Status, object, resources};

use super::plugin::World;
use super::{Operation, Review};
use crate::authz::{Attributes, ResourceTarget, Target};

pub fn check(review: &Review, world: &World, node: &str) -> Result<(), Status> {
    if review.operation != Operation::Create {
        return Err(review.forbid(&format!("unexpected operation {}", review.operation.as_str())));
    }
    if !review.subresource.is_empty() {
        return Err(review.forbid(&format!("unexpected subresource {}", review.subresource)));
    }
    let text = |field: &str| review.object["spec"][field].as_str().unwrap_or("");
    if text("nodeName") != node {
        let said = text("nodeName");
        let why = format!("PodCertificateRequest.Spec.NodeName={said:?}, which is not the requesting node {node:?}");
        return Err(review.forbid(&why));
    }
    let (namespace, name) = (&review.namespace, text("podName"));
    let (pod_name, account_name) = (format!("{namespace}/{name}"), text("serviceAccountName"));
    let found = world.objects.get(resources::NODES, "", node).ok_or_else(|| Status::not_found("nodes", node))?;
    if object::uid(&found) != text("nodeUID") {
        let (said, is) = (text("nodeUID"), object::uid(&found));
        return Err(early(format!(
            "PodCertificateRequest for pod {pod_name:?} names node UID {said:?}, inconsistent with the running node ({is:?})"
        )));
    }
    let pod = world.objects.get(resources::PODS, namespace, name).ok_or_else(|| Status::not_found("pods", name))?;
    if object::uid(&pod) != text("podUID") {
        let (said, is) = (text("podUID"), object::uid(&pod));
        return Err(early(format!(
            "PodCertificateRequest for pod {pod_name:?} contains pod UID ({said:?}) which differs from running pod {is:?}"
        )));
    }
    if pod["spec"]["nodeName"] != node {
        let why = format!("pod {pod_name:?} is not running on node {node:?} named in the PodCertificateRequest");
        return Err(review.forbid(&why));
    }
    if object::annotation(&pod, MIRROR).is_some() {
        return Err(review.forbid(&format!("pod {pod_name:?} is a mirror pod")));
    }
    if pod["spec"]["serviceAccountName"] != account_name {
        let is = pod["spec"]["serviceAccountName"].as_str().unwrap_or("");
        return Err(review.forbid(&format!(
            "PodCertificateRequest for pod {pod_name:?} contains serviceAccountName ({account_name:?}) that differs from running pod ({is:?})"
        )));
    }
    let account = world.objects.get(resources::SERVICEACCOUNTS, namespace, account_name);
    let account = account.ok_or_else(|| Status::not_found("serviceaccounts", account_name))?;
    if object::uid(&account) != text("serviceAccountUID") {
        let (said, is) = (text("serviceAccountUID"), object::uid(&account));
        return Err(early(format!(
            "PodCertificateRequest for pod {pod_name:?} names service account UID {said:?}, which differs from the running service account ({is:?})"
        )));
    }
    let signer = text("signerName");
    if mounts(&pod, signer) || may_ask(review, world, signer, account_name) {
        return Ok(());
    }
    Err(review
        .forbid(&format!("pod {pod_name:?} does not mount a podCertificate projected volume for signer {signer:?}")))
}

fn early(why: String) -> Status {
    Status::internal(why)
}

fn mounts(pod: &serde_json::Value, signer: &str) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut sources = volumes.flat_map(|v| v["projected"]["sources"].as_array().into_iter().flatten());
    sources.any(|s| s["podCertificate"]["signerName"] == signer)
}

/// A signer's name has a slash, which no resource has: it is asked about as trust bundles are named.
fn may_ask(review: &Review, world: &World, signer: &str, account: &str) -> bool {
    let resource = signer.replace('/', ":");
    let target = ResourceTarget {
        group: &review.group,
        version: &review.version,
        resource: &resource,
        namespace: &review.namespace,
        name: account,
        ..Default::default()
    };
    let verb = "request-serviceaccounts-podcertificate-signer";
    world.authorizer.authorize(&Attributes { user: &review.user, verb, target: Target::Resource(target) }).is_allowed()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::fixture::{review, world};
    use super::*;
    use crate::authn::UserInfo;

    fn check_request(change: &str, to: &str) -> Result<(), String> {
        let mut object = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest",
            "metadata": {"name": "r", "namespace": "a"},
            "spec": {"signerName": "x.io/s", "podName": "mine", "podUID": "p1", "serviceAccountName": "default",
                "serviceAccountUID": "s1", "nodeName": "n1", "nodeUID": "n-uid"}});
        if !change.is_empty() {
            object["spec"][change] = to.into();
        }
        let pod = |name: &str, uid: &str, node: &str| -> Value {
            json!({"kind": "Pod", "metadata": {"name": name, "namespace": "a", "uid": uid},
                "spec": {"nodeName": node, "serviceAccountName": "default",
                    "volumes": [{"name": "c", "projected": {"sources": [{"podCertificate": {"signerName": "x.io/s"}}]}}]}})
        };
        let found = world(vec![
            json!({"kind": "Node", "metadata": {"name": "n1", "uid": "n-uid"}}),
            json!({"kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "a", "uid": "s1"}}),
            pod("mine", "p1", "n1"),
            pod("theirs", "p1", "n2"),
        ]);
        let world = World { authorizer: Arc::new(crate::authz::rbac::Rbac::default()), ..found };
        let mut review = review(Operation::Create, object);
        review.user = Arc::new(UserInfo::new("system:node:n1", &["system:nodes"]));
        check(&review, &world, "n1").map_err(|s| s.message)
    }

    #[test]
    fn a_node_asks_for_certificates_of_its_own_pods_as_they_mount_them() {
        assert_eq!(check_request("", ""), Ok(()));
        let refused = |field: &str, to: &str| check_request(field, to).expect_err("refused");
        assert!(refused("nodeName", "n2").contains("which is not the requesting node"));
        assert!(refused("podName", "theirs").contains("is not running on node"));
        assert!(refused("podUID", "p9").contains("which differs from running pod"));
        assert!(refused("serviceAccountUID", "s9").contains("differs from the running service account"));
        assert!(refused("signerName", "x.io/other").contains("does not mount a podCertificate projected volume"));
    }
}
