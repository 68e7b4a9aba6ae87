//! Private keys for pod certificates, and the proof that they are held.
//!
//! Owns: making a key of each type the API names, its PKCS#8 form, and an otherwise empty PKCS#10 request signed with it
//! (RFC 2986), as DER written by hand: no one crate signs with all of these types.
//! Called by: pod certificates; an RSA key takes seconds, so from a thread that may block.
//! Never: writes a key anywhere.

use p521::pkcs8::EncodePrivateKey as _;
use ring::rand::SystemRandom;
use ring::signature::{self as sig, KeyPair as _};
use rsa::pkcs8::EncodePublicKey as _;
use rsa::rand_core::OsRng;
use rsa::signature::{SignatureEncoding as _, Signer as _};

use super::pem;

pub struct PrivateKey {
    pub pem: String,
    /// DER.
    pub request: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("unknown key type {0:?}")]
    Unknown(String),
    #[error("while generating {0} key")]
    Generate(&'static str),
}

pub fn generate(key_type: &str) -> Result<PrivateKey, KeyError> {
    match key_type {
        "ED25519" => ed25519().map_err(|_| KeyError::Generate("Ed25519")),
        "ECDSAP256" => ecdsa(&sig::ECDSA_P256_SHA256_ASN1_SIGNING, P256, ECDSA_SHA256)
            .map_err(|_| KeyError::Generate("ECDSA P256")),
        "ECDSAP384" => ecdsa(&sig::ECDSA_P384_SHA384_ASN1_SIGNING, P384, ECDSA_SHA384)
            .map_err(|_| KeyError::Generate("ECDSA P384")),
        "ECDSAP521" => ecdsa_p521().map_err(|_| KeyError::Generate("ECDSA P521")),
        "RSA3072" => rsa_key(3072).map_err(|_| KeyError::Generate("RSA 3072")),
        "RSA4096" => rsa_key(4096).map_err(|_| KeyError::Generate("RSA 4096")),
        other => Err(KeyError::Unknown(other.into())),
    }
}

// Object identifiers, encoded.
const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
const ECDSA_SHA256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ECDSA_SHA384: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
const ECDSA_SHA512: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04];
/// With the NULL that RFC 4055 wants as its parameters.
const RSA_SHA256: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00];

/// RFC 8410's first version: older OpenSSL does not read the second, which ring would write.
const ED25519_PKCS8: &[u8] =
    &[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

fn ed25519() -> Result<PrivateKey, Box<dyn std::error::Error>> {
    let seed: [u8; 32] = ring::rand::generate(&SystemRandom::new()).map_err(|_| "no randomness")?.expose();
    let key = sig::Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| "refused")?;
    let spki = spki(&[ED25519], key.public_key().as_ref());
    let pkcs8 = [ED25519_PKCS8, &seed].concat();
    Ok(signed(&pkcs8, &spki, ED25519, |body| key.sign(body).as_ref().to_vec()))
}

fn ecdsa(
    algorithm: &'static sig::EcdsaSigningAlgorithm,
    curve: &[u8],
    signature: &[u8],
) -> Result<PrivateKey, ring::error::Unspecified> {
    let random = SystemRandom::new();
    let pkcs8 = sig::EcdsaKeyPair::generate_pkcs8(algorithm, &random)?;
    let key =
        sig::EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).map_err(|_| ring::error::Unspecified)?;
    let body = info(&spki(&[EC_PUBLIC_KEY, curve], key.public_key().as_ref()));
    let signed = key.sign(&random, &body)?;
    Ok(PrivateKey { pem: key_pem(pkcs8.as_ref()), request: request(&body, signature, signed.as_ref()) })
}

fn ecdsa_p521() -> Result<PrivateKey, Box<dyn std::error::Error>> {
    let secret = p521::SecretKey::random(&mut OsRng);
    let pkcs8 = secret.to_pkcs8_der()?;
    let key = p521::ecdsa::SigningKey::from_slice(&secret.to_bytes())?;
    let point = p521::ecdsa::VerifyingKey::from(&key).to_encoded_point(false);
    let spki = spki(&[EC_PUBLIC_KEY, P521], point.as_bytes());
    let sign = |body: &[u8]| {
        let signature: p521::ecdsa::Signature = key.sign(body);
        signature.to_der().as_bytes().to_vec()
    };
    Ok(signed(pkcs8.as_bytes(), &spki, ECDSA_SHA512, sign))
}

fn rsa_key(bits: usize) -> Result<PrivateKey, Box<dyn std::error::Error>> {
    let private = rsa::RsaPrivateKey::new(&mut OsRng, bits)?;
    let pkcs8 = private.to_pkcs8_der()?;
    let spki = private.to_public_key().to_public_key_der()?;
    let key = rsa::pkcs1v15::SigningKey::<rsa::sha2::Sha256>::new(private);
    Ok(signed(pkcs8.as_bytes(), spki.as_bytes(), RSA_SHA256, |body| key.sign(body).to_vec()))
}

fn signed(pkcs8: &[u8], spki: &[u8], algorithm: &[u8], sign: impl Fn(&[u8]) -> Vec<u8>) -> PrivateKey {
    let body = info(spki);
    PrivateKey { pem: key_pem(pkcs8), request: request(&body, algorithm, &sign(&body)) }
}

fn key_pem(pkcs8: &[u8]) -> String {
    pem::encode("PRIVATE KEY", pkcs8)
}

/// SubjectPublicKeyInfo.
fn spki(algorithm: &[&[u8]], key: &[u8]) -> Vec<u8> {
    sequence(&[&sequence(algorithm), &bit_string(key)])
}

/// CertificationRequestInfo: version 0, no subject, the key, no attributes.
fn info(spki: &[u8]) -> Vec<u8> {
    sequence(&[&[0x02, 0x01, 0x00], &sequence(&[]), spki, &[0xa0, 0x00]])
}

fn request(info: &[u8], algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    sequence(&[info, &sequence(&[algorithm]), &bit_string(signature)])
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    value(0x30, &parts.concat())
}

fn bit_string(bytes: &[u8]) -> Vec<u8> {
    value(0x03, &[&[0], bytes].concat())
}

fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    match content.len() {
        short @ 0..=0x7f => der.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let bytes: Vec<u8> = bytes.into_iter().skip_while(|b| *b == 0).collect();
            der.push(0x80 | bytes.len() as u8);
            der.extend(bytes);
        }
    }
    der.extend(content);
    der
}

#[cfg(test)]
mod tests {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer;

    use super::*;

    fn check(key_type: &str) {
        let key = generate(key_type).expect("generated");
        assert!(key.pem.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{}", key.pem);
        assert!(rustls_pemfile::private_key(&mut key.pem.as_bytes()).expect("PEM").is_some());
        let (rest, request) = X509CertificationRequest::from_der(&key.request).expect("a request");
        assert!(rest.is_empty());
        if key_type != "ECDSAP521" {
            request.verify_signature().expect("signed with its own key");
        }
        assert_eq!(request.certification_request_info.subject.iter().count(), 0);
    }

    #[test]
    fn every_type_of_key_proves_itself_with_an_empty_request() {
        for key_type in ["ED25519", "ECDSAP256", "ECDSAP384", "ECDSAP521"] {
            check(key_type);
        }
    }

    #[test]
    fn rsa_keys_prove_themselves_too() {
        check("RSA3072");
    }

    #[test]
    fn an_unknown_type_is_refused() {
        assert_eq!(generate("RSA1024").err().expect("refused").to_string(), r#"unknown key type "RSA1024""#);
    }
}
