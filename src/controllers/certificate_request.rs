//! What a CertificateSigningRequest asks for, read from its PKCS#10 request.
//!
//! Owns: reading the request, the usages there are, and what kubelets may ask for.
//! Called by: the controllers that approve, sign and clean up requests.
//! Never: signs.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::conditions;
use crate::fields::{list, text};

pub(crate) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(crate) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub(crate) const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(crate) const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

/// A request whose signature shows that whoever made it holds the key.
#[derive(Debug)]
pub(crate) struct Request {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub names: Names,
    /// DER of the subject and of the public key, as they came.
    pub subject: Vec<u8>,
    pub public_key: Vec<u8>,
}

/// Alternative names of the subject. Addresses are 4 or 16 bytes.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub dns: Vec<String>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
    pub addresses: Vec<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    NotPem,
    #[error("the certificate request cannot be read")]
    Unreadable,
    #[error("unable to verify certificate request signature")]
    Signature,
}

impl Request {
    /// Of a CertificateSigningRequest.
    pub(crate) fn of(object: &Value) -> Result<Request, RequestError> {
        let pem = BASE64.decode(text(&object["spec"]["request"])).map_err(|_| RequestError::NotPem)?;
        let pem = String::from_utf8(pem).map_err(|_| RequestError::NotPem)?;
        let der = pem_block(&pem, "CERTIFICATE REQUEST").ok_or(RequestError::NotPem)?;
        let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|_| RequestError::Unreadable)?;
        parsed.verify_signature().map_err(|_| RequestError::Signature)?;
        let info = &parsed.certification_request_info;
        let read = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().unwrap_or("").to_string();
        let mut names = Names::default();
        for extension in parsed.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(all) = extension {
                all.general_names.iter().for_each(|name| names.add(name));
            }
        }
        Ok(Request {
            common_name: info.subject.iter_common_name().last().map(read).unwrap_or_default(),
            organizations: info.subject.iter_organization().map(read).collect(),
            names,
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
        })
    }
}

impl Names {
    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(dns) => self.dns.push((*dns).into()),
            GeneralName::RFC822Name(email) => self.emails.push((*email).into()),
            GeneralName::URI(uri) => self.uris.push((*uri).into()),
            GeneralName::IPAddress(address) => self.addresses.push(address.to_vec()),
            // Not taken over into the certificate, as upstream does not.
            _ => {}
        }
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.dns.is_empty() && self.emails.is_empty() && self.uris.is_empty() && self.addresses.is_empty()
    }
}

/// The content of the first PEM block of a type.
pub(crate) fn pem_block(pem: &str, kind: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once(&format!("-----BEGIN {kind}-----"))?;
    let (body, _) = rest.split_once("-----END")?;
    BASE64.decode(body.split_whitespace().collect::<String>()).ok()
}

pub(crate) fn usages(object: &Value) -> BTreeSet<&str> {
    list(&object["spec"]["usages"]).iter().map(text).collect()
}

pub(crate) fn is_approved(object: &Value) -> bool {
    conditions::find(&object["status"], "Approved").is_some()
}

pub(crate) fn is_issued(object: &Value) -> bool {
    !text(&object["status"]["certificate"]).is_empty()
}

/// What a kubelet may ask for to talk to the API server; the text is what upstream's signer says.
pub(crate) fn check_kubelet_client(request: &Request, usages: &BTreeSet<&str>) -> Result<(), String> {
    check_organization(request)?;
    let names = &request.names;
    for (present, what) in [
        (!names.dns.is_empty(), "DNS"),
        (!names.emails.is_empty(), "Email"),
        (!names.addresses.is_empty(), "IP"),
        (!names.uris.is_empty(), "URI"),
    ] {
        if present {
            return Err(format!("{what} subjectAltNames are not allowed"));
        }
    }
    check_common_name(request)?;
    check_usages(usages, "client auth")
}

/// What a kubelet may ask for to serve.
pub(crate) fn check_kubelet_serving(request: &Request, usages: &BTreeSet<&str>) -> Result<(), String> {
    check_organization(request)?;
    let names = &request.names;
    if names.dns.is_empty() && names.addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".into());
    }
    for (present, what) in [(!names.emails.is_empty(), "Email"), (!names.uris.is_empty(), "URI")] {
        if present {
            return Err(format!("{what} subjectAltNames are not allowed"));
        }
    }
    check_usages(usages, "server auth")?;
    check_common_name(request)
}

fn check_organization(request: &Request) -> Result<(), String> {
    let fits = request.organizations == ["system:nodes"];
    if fits { Ok(()) } else { Err("subject organization is not system:nodes".into()) }
}

fn check_common_name(request: &Request) -> Result<(), String> {
    let fits = request.common_name.starts_with("system:node:");
    if fits { Ok(()) } else { Err("subject common name does not begin with system:node:".into()) }
}

/// Only keys of RSA encipher, so that usage may be left out.
fn check_usages(usages: &BTreeSet<&str>, auth: &str) -> Result<(), String> {
    let with_rsa = BTreeSet::from([auth, "digital signature", "key encipherment"]);
    let without = BTreeSet::from([auth, "digital signature"]);
    if *usages == with_rsa || *usages == without {
        return Ok(());
    }
    let wanted: Vec<&str> = with_rsa.into_iter().collect();
    Err(format!("usages did not match [{}]", wanted.join(" ")))
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use serde_json::json;

    /// A CertificateSigningRequest of this subject; `organization` may be empty.
    pub(crate) fn request(signer: &str, name: &str, organization: &str, dns: &[&str], usages: &[&str]) -> Value {
        let names: Vec<String> = dns.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("test");
        params.distinguished_name = DistinguishedName::new();
        if !organization.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("test");
        let pem = params.serialize_request(&key).expect("test").pem().expect("test");
        json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": "r", "uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"signerName": signer, "usages": usages, "request": BASE64.encode(pem), "username": name,
                     "groups": ["system:nodes", "system:authenticated"]},
            "status": {},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::request;
    use super::*;

    const NODE_USAGES: [&str; 2] = ["digital signature", "client auth"];

    #[test]
    fn a_kubelets_request_is_known_by_its_subject_names_and_usages() {
        let check = |name, organization, dns: &[&str], usages: &[&str]| {
            let object = request(KUBELET_CLIENT, name, organization, dns, usages);
            check_kubelet_client(&Request::of(&object).expect("readable"), &super::usages(&object))
        };
        let refused = |text: &str| Err(text.to_string());
        assert_eq!(check("system:node:n1", "system:nodes", &[], &NODE_USAGES), Ok(()));
        assert_eq!(
            check("system:node:n1", "devs", &[], &NODE_USAGES),
            refused("subject organization is not system:nodes")
        );
        assert_eq!(
            check("n1", "system:nodes", &[], &NODE_USAGES),
            refused("subject common name does not begin with system:node:")
        );
        assert_eq!(
            check("system:node:n1", "system:nodes", &["n1"], &NODE_USAGES),
            refused("DNS subjectAltNames are not allowed")
        );
        assert_eq!(
            check("system:node:n1", "system:nodes", &[], &["client auth"]),
            refused("usages did not match [client auth digital signature key encipherment]")
        );
    }

    #[test]
    fn a_request_that_was_tampered_with_is_refused() {
        let mut object = request(KUBELET_CLIENT, "system:node:n1", "system:nodes", &[], &NODE_USAGES);
        let pem = String::from_utf8(BASE64.decode(text(&object["spec"]["request"])).unwrap()).unwrap();
        let mut der = pem_block(&pem, "CERTIFICATE REQUEST").unwrap();
        let at = der.windows(2).position(|w| w == b"n1").unwrap();
        der[at + 1] = b'2';
        let (kind, body) = ("CERTIFICATE REQUEST", BASE64.encode(der));
        let pem = format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n");
        object["spec"]["request"] = BASE64.encode(pem).into();
        assert!(matches!(Request::of(&object), Err(RequestError::Signature)));
        object["spec"]["request"] = "aGVsbG8=".into();
        assert!(matches!(Request::of(&object), Err(RequestError::NotPem)));
    }
}
