//! What requests for certificates and trust bundles carry: certificates, and proof that a key is held.
//!
//! Owns: the part of their validation that must read X.509, and who may sign a pod certificate.
//! Called by: validation; the admission chain, for what depends on who asks.
//! Never: verifies a chain: whom to trust is the reader's decision.

use base64::Engine;
use jiff::{SignedDuration, Timestamp};
use minik_api::{FieldError, Status, object, validation};
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::certificates::{self, may};
use super::plugin::{Plugin, World};
use super::{Operation, Review};

const GROUP: &str = "certificates.k8s.io";
const BUNDLE_BYTES_MAX: usize = 1024 * 1024;
const REQUEST_BYTES_MAX: usize = 10 * 1024;
const CHAIN_BYTES_MAX: usize = 100 * 1024;
const LIFE_MIN: SignedDuration = SignedDuration::from_hours(1);
/// Between what a signer calls now and what this server calls now.
const SKEW_MAX: SignedDuration = SignedDuration::from_mins(5);
/// Renewal begins neither right after the issue nor right before the end.
const REFRESH_MARGIN: SignedDuration = SignedDuration::from_mins(10);

const OMITTED: &str = "<value omitted>";
const BUNDLE: &str = "spec.trustBundle";
const REQUEST: &str = "spec.stubPKCS10Request";
const CHAIN: &str = "status.certificateChain";

pub struct CertificateContents;

type Checked = Result<(), FieldError>;

impl Plugin for CertificateContents {
    fn validate(&self, review: &Review, world: &World) -> Result<(), Status> {
        if !review.is(GROUP, "podcertificaterequests", "status") || review.operation != Operation::Update {
            return Ok(());
        }
        let refuse = |fault| Status::invalid(GROUP, &review.kind.kind, object::name(&review.object), &[fault]);
        status(review, world).map_err(refuse)
    }
}

/// What is wrong with what `new` carries, under the path of `subresource`.
pub fn faults(kind: &str, subresource: &str, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let before = |part: &str, field: &str| old.map_or(&Value::Null, |old| &old[part][field]);
    match (kind, subresource) {
        ("CertificateSigningRequest", "") if old.is_none() => {
            let request = &new["spec"]["request"];
            let why = certificates::verify(request).err();
            why.map(|why| FieldError::invalid("spec.request", request, why)).into_iter().collect()
        }
        ("CertificateSigningRequest", "status") => {
            let (now, before) = (&new["status"]["certificate"], before("status", "certificate"));
            // What is there already may be what it wants.
            if now == before || signed(before).is_err() {
                return Vec::new();
            }
            let shown = |why: String| invalid("status.certificate", "<certificate data>", why);
            signed(now).map_err(shown).err().into_iter().collect()
        }
        // What this server once took it takes again, whatever its parser thinks by then.
        ("ClusterTrustBundle", "") if old.is_none() || new["spec"]["trustBundle"] != *before("spec", "trustBundle") => {
            bundle(text(&new["spec"], "trustBundle"))
        }
        // A request without a key or a time is refused for that alone.
        ("PodCertificateRequest", "") if old.is_none() && new["spec"]["maxExpirationSeconds"].is_i64() => {
            let request = Some(text(&new["spec"], "stubPKCS10Request")).filter(|request| !request.is_empty());
            request.and_then(|request| proof(request).err()).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// The certificate of a CertificateSigningRequest's status: PEM in base64, or nothing.
fn signed(certificate: &Value) -> Result<(), String> {
    let pem = base64::engine::general_purpose::STANDARD.decode(certificate.as_str().unwrap_or(""));
    let pem = pem.unwrap_or_default();
    if pem.is_empty() {
        return Ok(());
    }
    let blocks = blocks(&String::from_utf8_lossy(&pem));
    for block in &blocks {
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        if block.has_headers {
            return Err("no PEM block headers are permitted".into());
        }
        if block.der.is_empty() {
            return Err("found CERTIFICATE PEM block containing 0 certificates".into());
        }
        if X509Certificate::from_der(&block.der).is_err() {
            return Err("x509: malformed certificate".into());
        }
    }
    if blocks.is_empty() { Err("must contain at least one CERTIFICATE PEM block".into()) } else { Ok(()) }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or("")
}

fn invalid(path: &str, shown: &str, detail: impl Into<String>) -> FieldError {
    FieldError::invalid(path, &shown.into(), detail)
}

fn hidden(path: &str, detail: &str) -> FieldError {
    FieldError { value: None, ..FieldError::invalid(path, &Value::Null, detail) }
}

fn too_long(path: &str, max: usize) -> FieldError {
    let kind = minik_api::FieldErrorType::TooLong;
    FieldError { kind, path: path.into(), value: None, detail: format!("may not be more than {max} bytes") }
}

/// A block of a PEM text, as Go's decoder finds them: whatever stands between blocks is passed over.
struct Block {
    label: String,
    has_headers: bool,
    der: Vec<u8>,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        rest = after;
        let Some((label, body)) = after.split_once("-----") else { break };
        let Some((body, after)) = body.split_once(&format!("-----END {label}-----")) else { continue };
        let is_header = |line: &&str| line.contains(':');
        let base64: String = body.lines().filter(|l| !is_header(l)).map(str::trim).collect();
        let Ok(der) = base64::engine::general_purpose::STANDARD.decode(base64) else { continue };
        found.push(Block { label: label.into(), has_headers: body.lines().any(|l| is_header(&l)), der });
        rest = after;
    }
    found
}

fn bundle(text: &str) -> Vec<FieldError> {
    if text.len() > BUNDLE_BYTES_MAX {
        return vec![too_long(BUNDLE, BUNDLE_BYTES_MAX)];
    }
    let blocks = blocks(text);
    let wrong = |(index, block): (usize, &Block)| {
        anchor(block).err().map(|why| invalid(BUNDLE, OMITTED, format!("entry {index} {why}")))
    };
    let mut faults: Vec<FieldError> = blocks.iter().enumerate().filter_map(wrong).collect();
    if !faults.is_empty() {
        return faults;
    }
    if blocks.is_empty() {
        faults.push(invalid(BUNDLE, OMITTED, "at least one trust anchor must be provided"));
    }
    for (index, block) in blocks.iter().enumerate() {
        let same: Vec<usize> = (0..blocks.len()).filter(|i| blocks[*i].der == block.der).collect();
        if same.len() > 1 && same[0] == index {
            let indices: Vec<String> = same.iter().map(usize::to_string).collect();
            faults.push(invalid(BUNDLE, OMITTED, format!("duplicate trust anchor (indices [{}])", indices.join(" "))));
        }
    }
    faults
}

fn anchor(block: &Block) -> Result<(), String> {
    if block.label != "CERTIFICATE" {
        return Err(format!("has bad block type: {}", block.label));
    }
    if block.has_headers {
        return Err("has PEM block headers".into());
    }
    let (_, certificate) = X509Certificate::from_der(&block.der).map_err(|_| "does not parse as X.509")?;
    match certificate.basic_constraints() {
        Ok(Some(constraints)) if constraints.value.ca => Ok(()),
        Ok(_) => Err("does not have the CA bit set".into()),
        Err(_) => Err("has invalid basic constraints".into()),
    }
}

/// A request that is signed with the key it is about, of a kind that is strong enough.
fn proof(encoded: &str) -> Checked {
    let der = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
    if der.len() > REQUEST_BYTES_MAX {
        return Err(too_long(REQUEST, REQUEST_BYTES_MAX));
    }
    let unreadable = || hidden(REQUEST, "must be a valid PKCS#10 CSR");
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|_| unreadable())?;
    key_is_strong(&request.certification_request_info.subject_pki)?;
    if is_signed(&request) { Ok(()) } else { Err(hidden(REQUEST, "invalid signature")) }
}

const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const P521: &str = "1.3.132.0.35";
const ED25519: &str = "1.3.101.112";
const ECDSA_SHA512: &str = "1.2.840.10045.4.3.4";

fn key_is_strong(key: &SubjectPublicKeyInfo<'_>) -> Checked {
    if key.algorithm.algorithm.to_id_string() == ED25519 {
        return Ok(());
    }
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => match rsa.key_size() {
            3072 | 4096 => Ok(()),
            bits => {
                let rule = "RSA keys must have modulus size 3072 or 4096";
                Err(invalid(REQUEST, &format!("{bits}-bit modulus"), rule))
            }
        },
        Ok(PublicKey::EC(_)) => match curve(key).as_str() {
            P256 | P384 | P521 => Ok(()),
            other => {
                let rule = "elliptic public keys must use curve P256, P384, or P521";
                Err(invalid(REQUEST, &format!("curve {other}"), rule))
            }
        },
        _ => Err(hidden(REQUEST, "unknown public key type; supported types are Ed25519, ECDSA, and RSA")),
    }
}

fn curve(key: &SubjectPublicKeyInfo<'_>) -> String {
    let parameters = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    parameters.map(|oid| oid.to_id_string()).unwrap_or_default()
}

fn is_signed(request: &X509CertificationRequest<'_>) -> bool {
    let info = &request.certification_request_info;
    if request.signature_algorithm.algorithm.to_id_string() != ECDSA_SHA512 {
        return request.verify_signature().is_ok();
    }
    // ring knows no P-521, and no other curve goes with SHA-512.
    use p521::ecdsa::signature::Verifier;
    let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(&info.subject_pki.subject_public_key.data);
    let signature = p521::ecdsa::Signature::from_der(&request.signature_value.data);
    matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(info.raw, &signature).is_ok())
}

fn status(review: &Review, world: &World) -> Checked {
    let (new, old) = (&review.object, review.old.as_ref());
    if new["status"] == old["status"] {
        return Ok(());
    }
    if validation::certificate_outcome(&new["status"]) == Some("Issued") {
        issued(&new["status"], &old["spec"], Timestamp::now())?;
    }
    let signer = text(&old["spec"], "signerName");
    if may(world.authorizer.as_ref(), &review.user, "sign", signer) {
        return Ok(());
    }
    let why = format!("User {:?} is not permitted to \"sign\" for signer {signer:?}", review.user.name);
    Err(FieldError::forbidden("spec.signerName", why))
}

/// The chain begins with a certificate for the requested key, and the times beside it are the certificate's.
fn issued(status: &Value, spec: &Value, now: Timestamp) -> Checked {
    let chain = text(status, "certificateChain");
    if chain.len() > CHAIN_BYTES_MAX {
        return Err(too_long(CHAIN, CHAIN_BYTES_MAX));
    }
    let wrong = |why: &str| invalid(CHAIN, chain, why);
    let blocks = blocks(chain);
    let Some((leaf, others)) = blocks.split_first() else {
        return Err(wrong("issued certificate chain must contain at least one certificate"));
    };
    if leaf.label != "CERTIFICATE" {
        return Err(wrong("issued certificate chain must consist entirely of CERTIFICATE PEM blocks"));
    }
    let parsed = X509Certificate::from_der(&leaf.der);
    let (_, leaf) = parsed.map_err(|_| wrong("leaf certificate does not parse as valid X.509"))?;
    let der = base64::engine::general_purpose::STANDARD.decode(text(spec, "stubPKCS10Request")).unwrap_or_default();
    let request = X509CertificationRequest::from_der(&der);
    let (_, request) = request.map_err(|_| hidden(REQUEST, "must be a valid PKCS#10 CSR"))?;
    if request.certification_request_info.subject_pki.raw != leaf.tbs_certificate.subject_pki.raw {
        return Err(wrong("leaf certificate was not issued to the requested public key"));
    }
    times(status, spec, &leaf, now)?;
    for block in others {
        if block.label != "CERTIFICATE" {
            return Err(wrong("issued certificate chain must consist entirely of CERTFICATE PEM blocks"));
        }
        if X509Certificate::from_der(&block.der).is_err() {
            return Err(wrong("intermediate certificate does not parse as valid X.509"));
        }
    }
    Ok(())
}

fn times(status: &Value, spec: &Value, leaf: &X509Certificate<'_>, now: Timestamp) -> Checked {
    let time = |field: &str, missing: &str| {
        let time = text(status, field).parse::<Timestamp>().ok();
        time.ok_or_else(|| FieldError::required(format!("status.{field}"), missing))
    };
    let consistent = "must be present and consistent with the issued certificate";
    let not_before = time("notBefore", consistent)?;
    let not_after = time("notAfter", consistent)?;
    let refresh = time("beginRefreshAt", "must be present and in the range [notbefore+10min, notafter-10min]")?;
    let wrong = |field: &str, why: &str| invalid(&format!("status.{field}"), text(status, field), why);
    let validity = leaf.validity();
    if not_before.as_second() != validity.not_before.timestamp() {
        return Err(wrong("notBefore", "must be set to the NotBefore time encoded in the leaf certificate"));
    }
    if now.duration_since(not_before).abs() >= SKEW_MAX {
        return Err(wrong("notBefore", "must be set to within 5 minutes of kube-apiserver's current time"));
    }
    if not_after.as_second() != validity.not_after.timestamp() {
        return Err(wrong("notAfter", "must be set to the NotAfter time encoded in the leaf certificate"));
    }
    let life = not_after.duration_since(not_before);
    if life < LIFE_MIN {
        return Err(invalid(CHAIN, &format!("{}s", life.as_secs()), "leaf certificate lifetime must be >= 1 hour"));
    }
    let max = spec["maxExpirationSeconds"].as_i64().unwrap_or(i64::MAX);
    if life.as_secs() > max {
        let why = format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({max})");
        return Err(invalid(CHAIN, &format!("{}s", life.as_secs()), why));
    }
    if refresh < not_before + REFRESH_MARGIN {
        return Err(wrong("beginRefreshAt", "must be at least 10 minutes after status.notBefore"));
    }
    if refresh > not_after - REFRESH_MARGIN {
        return Err(wrong("beginRefreshAt", "must be at least 10 minutes before status.notAfter"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn certificate(key: &rcgen::KeyPair, ca: bool, hours: i64) -> (String, Value) {
        let mut params = rcgen::CertificateParams::default();
        let now = Timestamp::now().as_second();
        let time = |s: i64| std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(s as u64);
        (params.not_before, params.not_after) = (time(now).into(), time(now + hours * 3600).into());
        if ca {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        let pem = params.self_signed(key).expect("test").pem();
        let at = |s: i64| Timestamp::from_second(s).expect("test").to_string();
        let status = json!({"certificateChain": pem, "notBefore": at(now), "notAfter": at(now + hours * 3600),
            "beginRefreshAt": at(now + 1800)});
        (pem, status)
    }

    fn request(key: &rcgen::KeyPair) -> String {
        let request = rcgen::CertificateParams::default().serialize_request(key).expect("test");
        base64::engine::general_purpose::STANDARD.encode(request.der())
    }

    #[test]
    fn a_bundle_holds_different_authorities_and_nothing_else() {
        let key = rcgen::KeyPair::generate().expect("test");
        let (ca, leaf) = (certificate(&key, true, 1).0, certificate(&key, false, 1).0);
        let check = |text: &str| bundle(text).into_iter().map(|f| f.detail).collect::<Vec<_>>();
        assert_eq!(check(&format!("# ours\n{ca}")), Vec::<String>::new());
        assert_eq!(check("nothing"), ["at least one trust anchor must be provided"]);
        assert_eq!(check(&format!("{ca}{ca}")), ["duplicate trust anchor (indices [0 1])"]);
        assert_eq!(check(&format!("{ca}{leaf}")), ["entry 1 does not have the CA bit set"]);
        let key = ca.replace("CERTIFICATE", "PRIVATE KEY");
        assert_eq!(check(&key), ["entry 0 has bad block type: PRIVATE KEY"]);
    }

    #[test]
    fn a_signed_request_carries_certificates_alone() {
        let pem = certificate(&rcgen::KeyPair::generate().expect("test"), false, 1).0;
        let check = |text: &str| signed(&base64::engine::general_purpose::STANDARD.encode(text).into());
        assert_eq!(check(&format!("# chain\n{pem}{pem}")), Ok(()));
        assert_eq!(check("x"), Err("must contain at least one CERTIFICATE PEM block".into()));
        let key = pem.replace("CERTIFICATE", "PRIVATE KEY");
        assert_eq!(check(&key), Err("only CERTIFICATE PEM blocks are allowed, found \"PRIVATE KEY\"".into()));
    }

    #[test]
    fn a_request_is_signed_with_its_own_key() {
        let encoded = request(&rcgen::KeyPair::generate().expect("test"));
        assert!(proof(&encoded).is_ok());
        let mut der = base64::engine::general_purpose::STANDARD.decode(&encoded).expect("test");
        *der.last_mut().expect("test") ^= 1;
        let forged = proof(&base64::engine::general_purpose::STANDARD.encode(der));
        assert_eq!(forged.expect_err("refused").detail, "invalid signature");
        assert_eq!(proof("AAAA").expect_err("refused").detail, "must be a valid PKCS#10 CSR");
    }

    #[test]
    fn a_certificate_is_for_the_requested_key_and_not_longer_than_asked_for() {
        let key = rcgen::KeyPair::generate().expect("test");
        let check = |key: &rcgen::KeyPair, status: &Value| {
            let spec = json!({"stubPKCS10Request": request(key), "maxExpirationSeconds": 7200});
            issued(status, &spec, Timestamp::now()).map_err(|f| f.detail)
        };
        assert_eq!(check(&key, &certificate(&key, false, 2).1), Ok(()));
        let other = rcgen::KeyPair::generate().expect("test");
        let stranger = "leaf certificate was not issued to the requested public key";
        assert_eq!(check(&other, &certificate(&key, false, 2).1), Err(stranger.into()));
        let long = "leaf certificate lifetime must be <= spec.maxExpirationSeconds (7200)";
        assert_eq!(check(&key, &certificate(&key, false, 3).1), Err(long.into()));
    }
}
