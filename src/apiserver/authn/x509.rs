//! Client certificates: who the other end of a TLS connection proved to be.
//!
//! Owns: asking for a certificate in the handshake, checking it against an authority, reading the user out of it.
//! Called by: the TLS listener (the verifier) and the chain of authenticators.
//! Never: closes a connection over a bad certificate: the request is answered 401, as upstream does.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::UserInfo;

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("the client authority is no PEM file of certificates")]
    Pem(#[source] std::io::Error),
    #[error("the client authority has no certificate that can be trusted")]
    Empty,
    #[error("could not build a verifier for the client authority")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// Certificates that may vouch for clients.
pub struct Authority {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Authority {
    pub fn from_pem(pem: &[u8]) -> Result<Self, AuthorityError> {
        let mut roots = RootCertStore::empty();
        for certificate in rustls_pemfile::certs(&mut &pem[..]) {
            // An unusable root among usable ones is left out, as Go's CertPool does.
            let _ = roots.add(certificate.map_err(AuthorityError::Pem)?);
        }
        if roots.is_empty() {
            return Err(AuthorityError::Empty);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        Ok(Self { verifier: builder.build().map_err(AuthorityError::Verifier)? })
    }

    /// Whether the chain (leaf first) leads to this authority at `now`, in seconds since 1970.
    pub fn vouches_for(&self, chain: &[Vec<u8>], now: u64) -> bool {
        let Some((leaf, rest)) = chain.split_first() else { return false };
        let rest: Vec<CertificateDer<'_>> = rest.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
        self.verifier.verify_client_cert(&CertificateDer::from(leaf.as_slice()), &rest, now).is_ok()
    }

    /// Names a client picks its certificate by.
    pub fn names(&self) -> Vec<DistinguishedName> {
        self.verifier.root_hint_subjects().to_vec()
    }
}

/// What the leaf says, once an authority vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub uid: String,
    /// Seconds since 1970 between which it is valid.
    pub valid: std::ops::RangeInclusive<i64>,
}

/// Attribute that carries a user's UID in a subject.
const UID_OID: &str = "1.3.6.1.4.1.57683.2";

pub fn subject(leaf: &[u8]) -> Option<Subject> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let name = certificate.subject();
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().unwrap_or("").to_string();
    let validity = certificate.validity();
    Some(Subject {
        // The last one counts when there are several, as in Go.
        common_name: name.iter_common_name().last().map(&text).unwrap_or_default(),
        organizations: name.iter_organization().map(&text).collect(),
        uid: name.iter_attributes().find(|a| a.attr_type().to_id_string() == UID_OID).map(&text).unwrap_or_default(),
        valid: validity.not_before.timestamp()..=validity.not_after.timestamp(),
    })
}

/// Common name is the user, organizations are its groups.
pub fn user(leaf: &[u8], subject: &Subject) -> UserInfo {
    let id = format!("X509SHA256={}", hex::encode(Sha256::digest(leaf)));
    UserInfo {
        name: subject.common_name.clone(),
        uid: subject.uid.clone(),
        groups: subject.organizations.clone(),
        extra: [("authentication.kubernetes.io/credential-id".to_string(), vec![id])].into(),
    }
}

/// For rustls: asks every client for a certificate, insists on none, and checks only that the client holds its key.
#[derive(Debug)]
pub struct AskForCertificate {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl AskForCertificate {
    /// `authorities` are told to the client, so that it can choose among several certificates.
    pub fn new(authorities: &[&Authority]) -> Arc<Self> {
        let hints = authorities.iter().flat_map(|a| a.names()).collect();
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        Arc::new(Self { hints, algorithms })
    }
}

impl ClientCertVerifier for AskForCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    use super::*;

    fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("test");
        let pem = params.self_signed(&key).expect("test").pem();
        (Issuer::new(params, key), pem)
    }

    fn leaf(issuer: &Issuer<'static, KeyPair>, usage: ExtendedKeyUsagePurpose) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "ops");
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("test");
        params.signed_by(&key, issuer).expect("test").der().to_vec()
    }

    const IN_2026: u64 = 1_780_000_000;

    #[test]
    fn a_certificate_is_vouched_for_by_its_own_authority_and_for_clients_only() {
        let (issuer, pem) = authority("ca");
        let (_, other) = authority("other");
        let chain = [leaf(&issuer, ExtendedKeyUsagePurpose::ClientAuth)];
        let ours = Authority::from_pem(pem.as_bytes()).expect("test");
        assert!(ours.vouches_for(&chain, IN_2026));
        assert!(!Authority::from_pem(other.as_bytes()).expect("test").vouches_for(&chain, IN_2026));
        assert!(!ours.vouches_for(&[leaf(&issuer, ExtendedKeyUsagePurpose::ServerAuth)], IN_2026));
        assert!(!ours.vouches_for(&chain, 1_000), "not yet valid");
    }

    #[test]
    fn the_common_name_is_the_user_and_organizations_are_groups() {
        let (issuer, _) = authority("ca");
        let der = leaf(&issuer, ExtendedKeyUsagePurpose::ClientAuth);
        let user = user(&der, &subject(&der).expect("test"));
        assert_eq!((user.name.as_str(), user.groups.as_slice()), ("jane", &["ops".to_string()][..]));
        assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
    }
}
