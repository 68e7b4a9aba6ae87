//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction, ClusterTrustBundleAttest: who may do what with
//! which signer.
//!
//! Owns: the extra right that approving, signing and attesting need, and the group nobody may ask for.
//! Called by: the admission chain for CertificateSigningRequests and ClusterTrustBundles.
//! Never: signs.

use base64::Engine;
use minik_api::Status;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::plugin::{Plugin, World};
use super::{Operation, Review};
use crate::authn::UserInfo;
use crate::authz::{Attributes, Authorizer, ResourceTarget, Target};

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";

pub struct CertificateApproval;
pub struct CertificateSigning;
pub struct CertificateSubjectRestriction;
pub struct ClusterTrustBundleAttest;

/// By the signer's name, or by `domain/*` for all signers of a domain.
pub fn may(authorizer: &dyn Authorizer, user: &UserInfo, verb: &str, signer: &str) -> bool {
    let ask = |name: &str| {
        let target = ResourceTarget { group: GROUP, version: "*", resource: "signers", name, ..Default::default() };
        authorizer.authorize(&Attributes { user, verb, target: Target::Resource(target) }).is_allowed()
    };
    ask(signer) || signer.split_once('/').is_some_and(|(domain, _)| ask(&format!("{domain}/*")))
}

impl Plugin for CertificateApproval {
    fn validate(&self, review: &Review, world: &World) -> Result<(), Status> {
        if review.operation != Operation::Update || !review.is(GROUP, RESOURCE, "approval") {
            return Ok(());
        }
        let signer = review.old["spec"]["signerName"].as_str().unwrap_or("");
        if may(world.authorizer.as_ref(), &review.user, "approve", signer) {
            return Ok(());
        }
        Err(review.forbid(&format!("user not permitted to approve requests with signerName {signer:?}")))
    }
}

impl Plugin for CertificateSigning {
    fn validate(&self, review: &Review, world: &World) -> Result<(), Status> {
        if review.operation != Operation::Update || !review.is(GROUP, RESOURCE, "status") {
            return Ok(());
        }
        let (new, old) = (&review.object["status"], &review.old["status"]);
        if new["certificate"] == old["certificate"] && new["conditions"] == old["conditions"] {
            return Ok(());
        }
        let signer = review.old["spec"]["signerName"].as_str().unwrap_or("");
        if may(world.authorizer.as_ref(), &review.user, "sign", signer) {
            return Ok(());
        }
        Err(review.forbid(&format!("user not permitted to sign requests with signerName {signer:?}")))
    }
}

impl Plugin for CertificateSubjectRestriction {
    fn validate(&self, review: &Review, _: &World) -> Result<(), Status> {
        const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
        if review.operation != Operation::Create || !review.is(GROUP, RESOURCE, "") {
            return Ok(());
        }
        if review.object["spec"]["signerName"] != SIGNER {
            return Ok(());
        }
        let subject = subject(&review.object["spec"]["request"])
            .map_err(|why| review.forbid(&format!("failed to parse CSR: {why}")))?;
        if subject.organizations.iter().any(|o| o == "system:masters") {
            return Err(review.forbid(&format!("use of {SIGNER} signer with system:masters group is not allowed")));
        }
        Ok(())
    }
}

impl Plugin for ClusterTrustBundleAttest {
    fn validate(&self, review: &Review, world: &World) -> Result<(), Status> {
        let writes = matches!(review.operation, Operation::Create | Operation::Update);
        let signer = review.object["spec"]["signerName"].as_str().unwrap_or("");
        if !writes || !review.is(GROUP, "clustertrustbundles", "") || signer.is_empty() {
            return Ok(());
        }
        // The garbage collector and a rewrite of the storage attest nothing.
        if review.operation == Operation::Update && without_owners(&review.object) == without_owners(&review.old) {
            return Ok(());
        }
        if may(world.authorizer.as_ref(), &review.user, "attest", signer) {
            return Ok(());
        }
        Err(review.forbid(&format!("user not permitted to attest for signerName {signer:?}")))
    }
}

fn without_owners(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation"] {
            metadata.remove(field);
        }
    }
    object
}

#[derive(Debug)]
pub struct RequestSubject {
    pub common_name: String,
    pub organizations: Vec<String>,
}

/// The subject of a PEM request as objects carry it, in base64.
pub fn subject(request: &Value) -> Result<RequestSubject, &'static str> {
    let der = der(request)?;
    let parsed = parse(&der)?;
    let name = &parsed.certification_request_info.subject;
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().unwrap_or("").to_string();
    Ok(RequestSubject {
        common_name: name.iter_common_name().last().map(&text).unwrap_or_default(),
        organizations: name.iter_organization().map(&text).collect(),
    })
}

/// Whether whoever made the request holds its key.
pub fn verify(request: &Value) -> Result<(), &'static str> {
    let der = der(request)?;
    parse(&der)?.verify_signature().map_err(|_| "x509: signature verification failed")
}

fn der(request: &Value) -> Result<Vec<u8>, &'static str> {
    const UNREADABLE: &str = "PEM block type must be CERTIFICATE REQUEST";
    let standard = base64::engine::general_purpose::STANDARD;
    let pem = standard.decode(request.as_str().unwrap_or("")).map_err(|_| UNREADABLE)?;
    let pem = String::from_utf8(pem).map_err(|_| UNREADABLE)?;
    let body = pem.split_once("-----BEGIN CERTIFICATE REQUEST-----").ok_or(UNREADABLE)?.1;
    let body: String = body.split("-----END").next().unwrap_or("").split_whitespace().collect();
    standard.decode(body).map_err(|_| UNREADABLE)
}

fn parse(der: &[u8]) -> Result<X509CertificationRequest<'_>, &'static str> {
    X509CertificationRequest::from_der(der).map(|(_, parsed)| parsed).map_err(|_| "asn1: structure error")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{review, world};
    use super::*;

    #[test]
    fn nobody_becomes_a_master_by_certificate() {
        let check = |organization: &str| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
            let key = rcgen::KeyPair::generate().expect("test");
            let pem = params.serialize_request(&key).expect("test").pem().expect("test");
            let request = base64::engine::general_purpose::STANDARD.encode(pem);
            let object = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "x"},
                "spec": {"signerName": "kubernetes.io/kube-apiserver-client", "request": request}});
            CertificateSubjectRestriction
                .validate(&review(Operation::Create, object), &world(vec![]))
                .map_err(|s| s.message)
        };
        assert_eq!(check("devs"), Ok(()));
        assert_eq!(
            check("system:masters"),
            Err(r#"certificatesigningrequests.certificates.k8s.io "x" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"#.into())
        );
    }
}
