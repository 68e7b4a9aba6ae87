//! Whether the certificate and the key of a Secret belong together, in the words of Go's `tls.X509KeyPair`.
//!
//! Owns: reading PEM as Go does, and the three encodings of private keys.
//! Called by: `warnings` for Secrets of the type `kubernetes.io/tls`.
//! Never: verifies a chain, or says more of a certificate that does not parse than that. A key on a curve that does
//! not name its public half passes for the right one: computing it needs the curve.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::Value;
use x509_parser::der_parser::ber::BerObject;
use x509_parser::der_parser::der::parse_der;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

const RSA: &str = "1.2.840.113549.1.1.1";
const ELLIPTIC: &str = "1.2.840.10045.2.1";
const ED25519: &str = "1.3.101.112";

/// Of both values as JSON has them, in base64.
pub(super) fn fault(certificate: &Value, key: &Value) -> Option<String> {
    let bytes = |value: &Value| STANDARD.decode(value.as_str().unwrap_or("")).unwrap_or_default();
    check(&String::from_utf8_lossy(&bytes(certificate)), &String::from_utf8_lossy(&bytes(key))).err()
}

fn check(certificate: &str, key: &str) -> Result<(), String> {
    let certificate = first_certificate(&blocks(certificate))?;
    let key = first_key(&blocks(key))?;
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&certificate) else {
        return Err("x509: malformed certificate".into());
    };
    let private = private_half(&key).ok_or("tls: failed to parse private key")?;
    let public = public_half(certificate.public_key()).ok_or("tls: unknown public key algorithm")?;
    match (&public, &private) {
        (Half::Rsa(a), Half::Rsa(b)) | (Half::Ed25519(a), Half::Ed25519(b)) if a == b => Ok(()),
        (Half::Elliptic(a), Half::Elliptic(b)) if a.is_none() || b.is_none() || a == b => Ok(()),
        _ if std::mem::discriminant(&public) == std::mem::discriminant(&private) => {
            Err("tls: private key does not match public key".into())
        }
        _ => Err("tls: private key type does not match public key type".into()),
    }
}

/// What both halves of a pair have in common.
enum Half {
    /// The modulus.
    Rsa(Vec<u8>),
    /// The point, where it is said.
    Elliptic(Option<Vec<u8>>),
    /// The public key.
    Ed25519(Vec<u8>),
}

struct Block {
    label: String,
    bytes: Vec<u8>,
}

/// The well-formed blocks of a text; headers and whatever lies between blocks are passed over.
fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    let mut open: Option<(&str, String)> = None;
    while let Some(line) = lines.next().map(str::trim_end) {
        let marked = |mark: &str| line.strip_prefix(mark)?.strip_suffix("-----");
        if let Some(label) = marked("-----BEGIN ") {
            open = Some((label, String::new()));
        } else if let Some(end) = marked("-----END ") {
            if let Some((label, body)) = open.take().filter(|(label, _)| *label == end)
                && let Ok(bytes) = STANDARD.decode(body)
            {
                found.push(Block { label: label.into(), bytes });
            }
        } else if let Some((_, body)) = &mut open
            && !line.contains(':')
        {
            body.extend(line.split_ascii_whitespace());
        }
    }
    found
}

fn labels(blocks: &[Block]) -> String {
    let all: Vec<&str> = blocks.iter().map(|block| block.label.as_str()).collect();
    format!("[{}]", all.join(" "))
}

fn first_certificate(blocks: &[Block]) -> Result<Vec<u8>, String> {
    if let Some(block) = blocks.iter().find(|block| block.label == "CERTIFICATE") {
        return Ok(block.bytes.clone());
    }
    Err(match blocks {
        [] => "tls: failed to find any PEM data in certificate input".into(),
        [one] if one.label.ends_with("PRIVATE KEY") => {
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may \
             have been switched"
                .into()
        }
        others => format!(
            "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the \
             following types: {}",
            labels(others)
        ),
    })
}

fn first_key(blocks: &[Block]) -> Result<Vec<u8>, String> {
    let is_key = |block: &&Block| block.label == "PRIVATE KEY" || block.label.ends_with(" PRIVATE KEY");
    if let Some(block) = blocks.iter().find(is_key) {
        return Ok(block.bytes.clone());
    }
    Err(match blocks {
        [] => "tls: failed to find any PEM data in key input".into(),
        [one] if one.label == "CERTIFICATE" => {
            "tls: found a certificate rather than a key in the PEM for the private key".into()
        }
        others => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks \
             of the following types: {}",
            labels(others)
        ),
    })
}

fn unsigned(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|byte| *byte == 0).collect()
}

fn public_half(key: &SubjectPublicKeyInfo<'_>) -> Option<Half> {
    match (key.algorithm.algorithm.to_id_string().as_str(), key.parsed().ok()?) {
        (RSA, PublicKey::RSA(key)) => Some(Half::Rsa(unsigned(key.modulus))),
        (ELLIPTIC, PublicKey::EC(point)) => Some(Half::Elliptic(Some(point.data().to_vec()))),
        (ED25519, _) => Some(Half::Ed25519(key.subject_public_key.data.to_vec())),
        _ => None,
    }
}

/// From PKCS #1 (RFC 8017), PKCS #8 (RFC 5208) or SEC 1 (RFC 5915), which differ in what follows the version.
fn private_half(der: &[u8]) -> Option<Half> {
    let (_, key) = parse_der(der).ok()?;
    let parts = key.as_sequence().ok()?;
    let (version, second) = (parts.first()?.as_u32().ok()?, parts.get(1)?);
    if let Ok(modulus) = second.as_slice().map(unsigned)
        && version == 0
        && parts.len() > 8
    {
        return Some(Half::Rsa(modulus));
    }
    if let Ok(algorithm) = second.as_sequence() {
        let inner = parts.get(2)?.as_slice().ok()?;
        return match algorithm.first()?.as_oid().ok()?.to_id_string().as_str() {
            RSA => private_half(inner).filter(|half| matches!(half, Half::Rsa(_))),
            ELLIPTIC => elliptic(parse_der(inner).ok()?.1.as_sequence().ok()?),
            ED25519 => {
                let seed = parse_der(inner).ok()?.1;
                let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice().ok()?).ok()?;
                Some(Half::Ed25519(pair.public_key().as_ref().to_vec()))
            }
            _ => None,
        };
    }
    if version == 1 { elliptic(parts) } else { None }
}

/// Of the parts of a SEC 1 key: version, number, and in brackets the curve and the public point.
fn elliptic(parts: &[BerObject<'_>]) -> Option<Half> {
    const POINT: u32 = 1;
    parts.get(1)?.as_slice().ok()?;
    let tagged = parts.iter().find(|part| part.header.is_contextspecific() && part.header.tag().0 == POINT);
    let point = tagged.and_then(|part| {
        let (_, inner) = parse_der(part.as_slice().ok()?).ok()?;
        inner.as_bitstring_ref().ok().map(|bits| bits.data.to_vec())
    });
    Some(Half::Elliptic(point))
}

#[cfg(test)]
mod tests {
    use super::check;

    fn block(label: &str) -> String {
        format!("words\n-----BEGIN {label}-----\nYQ==\n-----END {label}-----\n")
    }

    /// Real pairs are in tests/upstream/corpus/05-warnings.yaml.
    #[test]
    fn what_is_no_pair_is_told_in_gos_words() {
        let (certificate, key, other) = (block("CERTIFICATE"), block("EC PRIVATE KEY"), block("OTHER"));
        let twice = other.repeat(2);
        let cases = [
            ("", "", "tls: failed to find any PEM data in certificate input"),
            (
                &key,
                &certificate,
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs \
                 may have been switched",
            ),
            (
                &twice,
                &key,
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the \
                 following types: [OTHER OTHER]",
            ),
            (&certificate, "", "tls: failed to find any PEM data in key input"),
            (&certificate, &certificate, "tls: found a certificate rather than a key in the PEM for the private key"),
            (
                &certificate,
                &other,
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM \
                 blocks of the following types: [OTHER]",
            ),
            (&certificate, &key, "x509: malformed certificate"),
        ];
        for (certificate, key, fault) in cases {
            assert_eq!(check(certificate, key), Err(fault.to_string()));
        }
    }
}
