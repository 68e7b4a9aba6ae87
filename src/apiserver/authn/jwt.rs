//! JSON Web Tokens signed with ES256.
//!
//! Owns: the keys service-account tokens are signed and checked with, and the published key set.
//! Called by: the issuer and the checker of service-account tokens, `/openid/v1/jwks`.
//! Never: judges claims: a signature says who wrote them, not whether they still hold.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key for service account tokens is no PEM file")]
    Pem,
    #[error("the key for service account tokens is no ECDSA P-256 private key in PKCS#8 form")]
    Private,
    #[error("a public key for service account tokens is not on the curve P-256")]
    Public,
    #[error("could not sign a service account token")]
    Sign,
}

/// ASN.1 in front of an uncompressed P-256 point: SubjectPublicKeyInfo of RFC 5480.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// 0x04, x and y.
const POINT_LENGTH: usize = 65;

struct PublicKey {
    id: String,
    point: Vec<u8>,
}

impl PublicKey {
    fn of(point: &[u8]) -> Result<Self, KeyError> {
        if point.len() != POINT_LENGTH || point[0] != 4 {
            return Err(KeyError::Public);
        }
        let mut spki = SPKI_PREFIX.to_vec();
        spki.extend_from_slice(point);
        Ok(Self { id: BASE64.encode(Sha256::digest(&spki)), point: point.to_vec() })
    }
}

/// The key to sign with, and every key that is believed (keys before a rotation stay believed).
pub struct Keys {
    private: EcdsaKeyPair,
    id: String,
    believed: Vec<PublicKey>,
    random: SystemRandom,
}

impl Keys {
    /// `private` is a PKCS#8 PEM; each of `others` a SubjectPublicKeyInfo PEM.
    pub fn load(private: &str, others: &[&str]) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let private = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der(private)?, &random)
            .map_err(|_| KeyError::Private)?;
        let own = PublicKey::of(private.public_key().as_ref())?;
        let id = own.id.clone();
        let mut believed = vec![own];
        for other in others {
            let spki = der(other)?;
            let point = spki.strip_prefix(&SPKI_PREFIX).ok_or(KeyError::Public)?;
            let key = PublicKey::of(point)?;
            if believed.iter().all(|known| known.id != key.id) {
                believed.push(key);
            }
        }
        Ok(Self { private, id, believed, random })
    }

    /// A key of its own, for a server without files (tests, `minik apiserver` alone).
    pub fn generate() -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        let pkcs8 = pkcs8.map_err(|_| KeyError::Private)?;
        let private = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random)
            .map_err(|_| KeyError::Private)?;
        let own = PublicKey::of(private.public_key().as_ref())?;
        Ok(Self { private, id: own.id.clone(), believed: vec![own], random })
    }

    pub fn sign(&self, claims: &Value) -> Result<String, KeyError> {
        let header = json!({"alg": "ES256", "kid": self.id});
        let mut token = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.private.sign(&self.random, token.as_bytes()).map_err(|_| KeyError::Sign)?;
        token.push('.');
        BASE64.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }

    /// Whether one of the believed keys signed `token`.
    pub fn verify(&self, token: &str) -> bool {
        let Some((signed, signature)) = token.rsplit_once('.') else { return false };
        let Ok(signature) = BASE64.decode(signature) else { return false };
        let Some(header) = signed.split_once('.').and_then(|(header, _)| decode(header)) else { return false };
        if header["alg"] != "ES256" {
            return false;
        }
        let wanted = header["kid"].as_str();
        self.believed.iter().filter(|key| wanted.is_none_or(|id| id == key.id)).any(|key| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point).verify(signed.as_bytes(), &signature).is_ok()
        })
    }

    /// RFC 7517 key set, as `/openid/v1/jwks` serves it.
    pub fn key_set(&self) -> Value {
        let keys: Vec<Value> = self
            .believed
            .iter()
            .map(|key| {
                json!({"use": "sig", "kty": "EC", "kid": key.id, "crv": "P-256", "alg": "ES256",
                    "x": BASE64.encode(&key.point[1..33]), "y": BASE64.encode(&key.point[33..])})
            })
            .collect();
        json!({"keys": keys})
    }
}

/// The claims of a token, believed or not.
pub fn claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    decode(payload)
}

fn decode(part: &str) -> Option<Value> {
    serde_json::from_slice(&BASE64.decode(part).ok()?).ok()
}

fn der(pem: &str) -> Result<Vec<u8>, KeyError> {
    let body: String = pem
        .lines()
        .skip_while(|l| !l.starts_with("-----BEGIN"))
        .skip(1)
        .take_while(|l| !l.starts_with("-----"))
        .collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(body.trim()).map_err(|_| KeyError::Pem)?;
    if bytes.is_empty() { Err(KeyError::Pem) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_believed_from_the_own_key_and_from_no_other() {
        let (ours, theirs) = (Keys::generate().expect("test"), Keys::generate().expect("test"));
        let token = ours.sign(&json!({"sub": "jane"})).expect("test");
        assert!(ours.verify(&token));
        assert!(!theirs.verify(&token));
        assert_eq!(claims(&token).expect("test")["sub"], "jane");
    }

    #[test]
    fn a_changed_claim_or_another_algorithm_is_not_believed() {
        let keys = Keys::generate().expect("test");
        let token = keys.sign(&json!({"sub": "jane"})).expect("test");
        let parts: Vec<&str> = token.split('.').collect();
        let forged = BASE64.encode(r#"{"sub":"root"}"#);
        assert!(!keys.verify(&format!("{}.{forged}.{}", parts[0], parts[2])));
        let none = BASE64.encode(r#"{"alg":"none"}"#);
        assert!(!keys.verify(&format!("{none}.{}.", parts[1])));
        assert!(!keys.verify("nonsense"));
    }

    #[test]
    fn keys_are_read_from_pem_and_named_as_upstream_names_them() {
        let private = "-----BEGIN PRIVATE KEY-----\n\
            MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg36RABZnwpFDMIGcx\n\
            9lswWrnS2FBqP0u2rklMr+57Mx+hRANCAATyhyQh0QGH2YtH7MhUO0VogayyvyND\n\
            VCDKhEKFaKXg34SYYo65ZkrK0xPKh2uhp02GEsYyY1FIKpdyk/U9kwP4\n\
            -----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\n\
            MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8ockIdEBh9mLR+zIVDtFaIGssr8j\n\
            Q1QgyoRChWil4N+EmGKOuWZKytMTyodroadNhhLGMmNRSCqXcpP1PZMD+A==\n\
            -----END PUBLIC KEY-----\n";
        let keys = Keys::load(private, &[public]).expect("test");
        assert_eq!(
            keys.key_set(),
            json!({"keys": [{"use": "sig", "kty": "EC", "kid": "ZKpUg7uEq88qTQl5rmNr8KKcAApqQP0qBp4jLKg7IX8",
                "crv": "P-256", "alg": "ES256", "x": "8ockIdEBh9mLR-zIVDtFaIGssr8jQ1QgyoRChWil4N8",
                "y": "hJhijrlmSsrTE8qHa6GnTYYSxjJjUUgql3KT9T2TA_g"}]})
        );
    }
}
