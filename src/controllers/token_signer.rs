//! Signs tokens that do not expire, as Secrets of service accounts hold them.
//!
//! Owns: the key that service-account tokens are signed with, and the claims of such a token.
//! Called by: `service_account_tokens`.
//! Never: shows the key, or judges a token; that is the API server's business.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use minik_api::object;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::certificate_request::pem_block;
use crate::der;

/// Content of the object identifiers in front of a P-256 public key (RFC 5480).
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

#[derive(Debug, thiserror::Error)]
#[error("the key for service account tokens is not an ECDSA P-256 key in PKCS#8")]
pub struct TokenKeyError;

/// The private key, named in each token by the hash of its public half.
pub struct TokenSigner {
    key: EcdsaKeyPair,
    id: String,
    random: SystemRandom,
}

impl std::fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSigner").field("id", &self.id).finish_non_exhaustive()
    }
}

impl TokenSigner {
    pub fn load(pem: &str) -> Result<TokenSigner, TokenKeyError> {
        let random = SystemRandom::new();
        let pkcs8 = pem_block(pem, "PRIVATE KEY").ok_or(TokenKeyError)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random);
        let key = key.map_err(|_| TokenKeyError)?;
        let algorithm = der::sequence(&[der::oid(EC_PUBLIC_KEY), der::oid(P256)]);
        let public = der::sequence(&[algorithm, der::bits(key.public_key().as_ref())]);
        Ok(TokenSigner { id: BASE64.encode(Sha256::digest(public)), key, random })
    }

    /// The token of a service account that the Secret of this name holds.
    pub(crate) fn token(&self, account: &Value, secret: &str) -> Option<String> {
        let (namespace, name) = (object::namespace(account), object::name(account));
        let claim = |key: &str| format!("kubernetes.io/serviceaccount/{key}");
        let claims = json!({
            "iss": "kubernetes/serviceaccount", "sub": format!("system:serviceaccount:{namespace}:{name}"),
            claim("namespace"): namespace, claim("secret.name"): secret, claim("service-account.name"): name,
            claim("service-account.uid"): object::uid(account),
        });
        let header = json!({"alg": "ES256", "kid": self.id});
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.key.sign(&self.random, signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", BASE64.encode(signature)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Public test vector shared with the API server's key set: not a secret of any cluster.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg36RABZnwpFDMIGcx\n\
        9lswWrnS2FBqP0u2rklMr+57Mx+hRANCAATyhyQh0QGH2YtH7MhUO0VogayyvyND\n\
        VCDKhEKFaKXg34SYYo65ZkrK0xPKh2uhp02GEsYyY1FIKpdyk/U9kwP4\n\
        -----END PRIVATE KEY-----\n";

    #[test]
    fn a_token_names_its_account_its_secret_and_the_key() {
        let signer = TokenSigner::load(KEY).expect("a key");
        assert_eq!(signer.id, "ZKpUg7uEq88qTQl5rmNr8KKcAApqQP0qBp4jLKg7IX8");
        let account = json!({"metadata": {"namespace": "d", "name": "robot", "uid": "u"}});
        let token = signer.token(&account, "s").expect("signed");
        let claims = BASE64.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["sub"], "system:serviceaccount:d:robot");
        assert_eq!(claims["kubernetes.io/serviceaccount/secret.name"], "s");
        assert_eq!(claims["kubernetes.io/serviceaccount/service-account.uid"], "u");
    }
}
