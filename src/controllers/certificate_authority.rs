//! The cluster's authority as a signer of requests: what goes into a certificate, and its signature.
//!
//! Owns: the authority's key, and the shape of the certificates it gives out (RFC 5280).
//! Called by: `certificate_signer`.
//! Never: decides whether a request may be signed, or shows the key to anybody.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use crate::certificate_request::{Names, Request, pem_block};
use crate::der;

/// Clocks of others may lag; upstream's allowance.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// A certificate this short-lived ends when asked for, though it began earlier; upstream's limit.
const SHORT: SignedDuration = SignedDuration::from_hours(8);
const SERIAL_BYTES: usize = 16;
const PEM_LINE: usize = 64;

/// Content of the object identifiers in a certificate.
mod oid {
    pub const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    pub const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
    pub const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
    pub const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
    pub const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
    pub const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
}

/// Usages by the names of the API: what they are in a certificate.
enum Usage {
    /// The number of a bit of KeyUsage.
    Bit(u8),
    /// The content of an object identifier.
    Extended(&'static [u8]),
}

fn usage(name: &str) -> Option<Usage> {
    const PKIX: [&[u8]; 9] = [
        &[0x2b, 6, 1, 5, 5, 7, 3, 1],
        &[0x2b, 6, 1, 5, 5, 7, 3, 2],
        &[0x2b, 6, 1, 5, 5, 7, 3, 3],
        &[0x2b, 6, 1, 5, 5, 7, 3, 4],
        &[0x2b, 6, 1, 5, 5, 7, 3, 5],
        &[0x2b, 6, 1, 5, 5, 7, 3, 6],
        &[0x2b, 6, 1, 5, 5, 7, 3, 7],
        &[0x2b, 6, 1, 5, 5, 7, 3, 8],
        &[0x2b, 6, 1, 5, 5, 7, 3, 9],
    ];
    Some(match name {
        "signing" | "digital signature" => Usage::Bit(0),
        "content commitment" => Usage::Bit(1),
        "key encipherment" => Usage::Bit(2),
        "data encipherment" => Usage::Bit(3),
        "key agreement" => Usage::Bit(4),
        "cert sign" => Usage::Bit(5),
        "crl sign" => Usage::Bit(6),
        "encipher only" => Usage::Bit(7),
        "decipher only" => Usage::Bit(8),
        "any" => Usage::Extended(&[0x55, 0x1d, 0x25, 0]),
        "server auth" => Usage::Extended(PKIX[0]),
        "client auth" => Usage::Extended(PKIX[1]),
        "code signing" => Usage::Extended(PKIX[2]),
        "email protection" | "s/mime" => Usage::Extended(PKIX[3]),
        "ipsec end system" => Usage::Extended(PKIX[4]),
        "ipsec tunnel" => Usage::Extended(PKIX[5]),
        "ipsec user" => Usage::Extended(PKIX[6]),
        "timestamping" => Usage::Extended(PKIX[7]),
        "ocsp signing" => Usage::Extended(PKIX[8]),
        "microsoft sgc" => Usage::Extended(&[0x2b, 6, 1, 4, 1, 0x82, 0x37, 10, 3, 3]),
        "netscape sgc" => Usage::Extended(&[0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 4, 1]),
        _ => return None,
    })
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("the authority's certificate cannot be read")]
    Certificate,
    #[error("the authority's key is not an ECDSA P-256 key in PKCS#8")]
    Key,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error("unrecognized usage values: [{0:?}]")]
    Usage(String),
    #[error("refusing to sign a certificate that expired in the past: NotAfter={0}")]
    AuthorityExpired(Timestamp),
    #[error("the key could not sign")]
    Key,
}

/// A certificate authority with an ECDSA P-256 key.
pub struct Authority {
    /// DER of its name.
    name: Vec<u8>,
    key_id: Option<Vec<u8>>,
    not_after: Timestamp,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Authority {
    /// Both in PEM.
    pub fn load(certificate: &str, key: &str) -> Result<Authority, AuthorityError> {
        let der = pem_block(certificate, "CERTIFICATE").ok_or(AuthorityError::Certificate)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| AuthorityError::Certificate)?;
        let key_id = parsed.extensions().iter().find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let not_after = Timestamp::from_second(parsed.validity().not_after.timestamp());
        let random = SystemRandom::new();
        let pkcs8 = pem_block(key, "PRIVATE KEY").ok_or(AuthorityError::Key)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &random)
            .map_err(|_| AuthorityError::Key)?;
        Ok(Authority {
            name: parsed.subject().as_raw().to_vec(),
            key_id,
            not_after: not_after.map_err(|_| AuthorityError::Certificate)?,
            key,
            random,
        })
    }

    /// A certificate in PEM, valid for so long from now, but no longer than the authority itself.
    pub(crate) fn sign(
        &self,
        request: &Request,
        usages: &[&str],
        lifetime: SignedDuration,
        now: Timestamp,
    ) -> Result<String, SignError> {
        if now >= self.not_after {
            return Err(SignError::AuthorityExpired(self.not_after));
        }
        let until = now + if lifetime < SHORT { lifetime } else { lifetime - BACKDATE };
        let validity = [der::time(now - BACKDATE), der::time(until.min(self.not_after))];
        let algorithm = der::sequence(&[der::oid(oid::ECDSA_WITH_SHA256)]);
        const VERSION_3: u8 = 2;
        let body = der::sequence(&[
            der::explicit(0, &der::unsigned(&[VERSION_3])),
            der::unsigned(&self.serial()?),
            algorithm.clone(),
            self.name.clone(),
            der::sequence(&validity),
            request.subject.clone(),
            request.public_key.clone(),
            der::explicit(3, &der::sequence(&self.extensions(request, usages)?)),
        ]);
        let signature = self.key.sign(&self.random, &body).map_err(|_| SignError::Key)?;
        Ok(pem(&der::sequence(&[body, algorithm, der::bits(signature.as_ref())])))
    }

    fn serial(&self) -> Result<[u8; SERIAL_BYTES], SignError> {
        let mut serial = [0; SERIAL_BYTES];
        self.random.fill(&mut serial).map_err(|_| SignError::Key)?;
        Ok(serial)
    }

    fn extensions(&self, request: &Request, usages: &[&str]) -> Result<Vec<Vec<u8>>, SignError> {
        let (mut bits, mut extended) = (0_u16, Vec::new());
        for name in usages {
            match usage(name).ok_or_else(|| SignError::Usage((*name).into()))? {
                Usage::Bit(bit) => bits |= 1 << bit,
                Usage::Extended(oid) if !extended.contains(&oid) => extended.push(oid),
                Usage::Extended(_) => {}
            }
        }
        let mut all = Vec::new();
        if bits != 0 {
            all.push(extension(oid::KEY_USAGE, Critical::Yes, &der::named_bits(bits)));
        }
        if !extended.is_empty() {
            let oids: Vec<Vec<u8>> = extended.into_iter().map(der::oid).collect();
            all.push(extension(oid::EXTENDED_KEY_USAGE, Critical::No, &der::sequence(&oids)));
        }
        // Says by its emptiness that this is no authority.
        all.push(extension(oid::BASIC_CONSTRAINTS, Critical::Yes, &der::sequence(&[])));
        if let Some(id) = &self.key_id {
            all.push(extension(oid::AUTHORITY_KEY_ID, Critical::No, &der::sequence(&[der::implicit(0, id)])));
        }
        if !request.names.is_empty() {
            let empty_subject = der::sequence(&[]);
            let critical = if request.subject == empty_subject { Critical::Yes } else { Critical::No };
            all.push(extension(oid::SUBJECT_ALT_NAME, critical, &alternative_names(&request.names)));
        }
        Ok(all)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Critical {
    Yes,
    No,
}

fn extension(oid: &[u8], critical: Critical, content: &[u8]) -> Vec<u8> {
    let mut parts = vec![der::oid(oid)];
    if critical == Critical::Yes {
        parts.push(der::yes());
    }
    parts.push(der::octets(content));
    der::sequence(&parts)
}

fn alternative_names(names: &Names) -> Vec<u8> {
    let (rfc822_name, dns_name, uri, ip_address) = (1, 2, 6, 7);
    let texts = [(dns_name, &names.dns), (rfc822_name, &names.emails), (uri, &names.uris)];
    let mut parts: Vec<Vec<u8>> =
        texts.into_iter().flat_map(|(tag, all)| all.iter().map(move |t| der::implicit(tag, t.as_bytes()))).collect();
    parts.extend(names.addresses.iter().map(|a| der::implicit(ip_address, a)));
    der::sequence(&parts)
}

fn pem(der: &[u8]) -> String {
    let encoded = BASE64.encode(der);
    let lines: Vec<&str> =
        encoded.as_bytes().chunks(PEM_LINE).map(|c| std::str::from_utf8(c).expect("base64 is ASCII")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

    /// An authority that lives until 4096, and its certificate.
    pub(crate) fn authority() -> (Authority, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("test");
        let certificate = params.self_signed(&key).expect("test").pem();
        (Authority::load(&certificate, &key.serialize_pem()).expect("test"), certificate)
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::authority;
    use super::*;
    use crate::certificate_request::fixture::request;

    #[test]
    fn a_certificate_says_what_was_asked_for_and_is_the_authoritys() {
        let (authority, own) = authority();
        let object = request("s", "robot", "devs", &["robot.local"], &[]);
        let asked = Request::of(&object).expect("readable");
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let usages = ["digital signature", "key encipherment", "client auth"];
        let pem = authority.sign(&asked, &usages, SignedDuration::from_hours(24), now).expect("signed");
        let der = pem_block(&pem, "CERTIFICATE").unwrap();
        let (rest, certificate) = X509Certificate::from_der(&der).expect("a certificate");
        assert!(rest.is_empty());
        let own = pem_block(&own, "CERTIFICATE").unwrap();
        let (_, own) = X509Certificate::from_der(&own).unwrap();
        certificate.verify_signature(Some(own.public_key())).expect("signed by the authority");
        assert_eq!(certificate.subject().to_string(), "O=devs, CN=robot");
        assert_eq!(certificate.issuer().to_string(), "CN=kubernetes");
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.digital_signature() && usage.value.key_encipherment());
        assert!(!usage.value.key_cert_sign() && !certificate.is_ca());
        assert!(certificate.extended_key_usage().unwrap().unwrap().value.client_auth);
        let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(format!("{names:?}"), r#"[DNSName("robot.local")]"#);
        let seconds = |t: x509_parser::time::ASN1Time| t.timestamp() - now.as_second();
        assert_eq!(seconds(certificate.validity().not_before), -300);
        assert_eq!(seconds(certificate.validity().not_after), 24 * 3600 - 300);
    }

    #[test]
    fn several_organizations_all_come_into_the_certificate() {
        let (authority, _) = authority();
        let mut asked = Request::of(&request("s", "robot", "devs", &[], &[])).expect("readable");
        // Two sets of one attribute each: O=devs, O=ops. rcgen cannot write such a name, kubeconfigs often have it.
        let organization = |name: &str| {
            let utf8 = der::value(0x0c, name.as_bytes());
            der::value(0x31, &der::sequence(&[der::oid(&[0x55, 4, 10]), utf8]))
        };
        asked.subject = der::sequence(&[organization("devs"), organization("ops")]);
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let pem = authority.sign(&asked, &["client auth"], SignedDuration::from_hours(1), now).expect("signed");
        let der = pem_block(&pem, "CERTIFICATE").unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(certificate.subject().to_string(), "O=devs, O=ops");
        assert_eq!(certificate.validity().not_after.timestamp() - now.as_second(), 3600, "short-lived: not backdated");
    }

    #[test]
    fn a_usage_nobody_knows_is_refused() {
        let (authority, _) = authority();
        let asked = Request::of(&request("s", "robot", "", &[], &[])).expect("readable");
        let refused = authority.sign(&asked, &["tea"], SignedDuration::from_hours(1), Timestamp::UNIX_EPOCH);
        assert_eq!(refused.unwrap_err().to_string(), r#"unrecognized usage values: ["tea"]"#);
    }
}
