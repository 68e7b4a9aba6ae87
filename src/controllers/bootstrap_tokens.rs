//! Bootstrap tokens: deleted when they expire, and each signs the ConfigMap `cluster-info` while it holds.
//!
//! Owns: both, on Secrets of type `bootstrap.kubernetes.io/token` in kube-system.
//! Called by: the driver.
//! Never: makes `cluster-info`; whoever wants nodes to join writes it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use minik_api::resources::{CONFIGMAPS, SECRETS};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Plan, Reconciler, View};
use ring::hmac;
use serde_json::{Value, json};

pub(crate) const TYPE: &str = "bootstrap.kubernetes.io/token";
pub(crate) const NAMESPACE: &str = "kube-system";
pub(crate) const INFO_NAMESPACE: &str = "kube-public";
pub(crate) const INFO: &str = "cluster-info";
/// In front of a token's id in the data of `cluster-info`.
const SIGNATURE: &str = "jws-kubeconfig-";
const NAME: &str = "bootstrap-token-";

pub(crate) struct TokenCleaner;
pub(crate) struct BootstrapSigner;

fn data(secret: &Value, field: &str) -> String {
    let decoded = STANDARD.decode(secret["data"][field].as_str().unwrap_or("")).unwrap_or_default();
    String::from_utf8(decoded).unwrap_or_default()
}

/// `None`: never. What cannot be read counts as long ago.
fn expiry(secret: &Value) -> Option<Timestamp> {
    let text = data(secret, "expiration");
    (!text.is_empty()).then(|| text.parse().unwrap_or(Timestamp::UNIX_EPOCH))
}

impl Reconciler for TokenCleaner {
    fn name(&self) -> &'static str {
        "token-cleaner"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[SECRETS]
    }
    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        vec![change.key.clone()]
    }
    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let secret = view.get_key(SECRETS, key).filter(|s| s["type"] == TYPE && !object::is_deleting(s));
        let Some((secret, expiry)) = secret.and_then(|s| Some((s, expiry(s)?))) else { return Plan::nothing() };
        if expiry > now {
            return Plan { requeue_at: Some(expiry), ..Plan::nothing() };
        }
        Plan::of(vec![Action::delete(SECRETS, secret)])
    }
}

impl Reconciler for BootstrapSigner {
    fn name(&self) -> &'static str {
        "bootstrap-signer"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[SECRETS, CONFIGMAPS]
    }
    /// There is one thing to sign.
    fn keys(&self, _: &View, _: &Change) -> Vec<ObjectKey> {
        vec![ObjectKey::new(INFO_NAMESPACE, INFO)]
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(info) = view.get_key(CONFIGMAPS, key) else { return Plan::nothing() };
        let Some(content) = info["data"]["kubeconfig"].as_str() else { return Plan::nothing() };
        let mut plan = Plan::nothing();
        let mut tokens = BTreeMap::new();
        for secret in view.list(SECRETS, NAMESPACE) {
            if let Some((id, token)) = signs(secret, now) {
                tokens.insert(id, token);
                expiry(secret).into_iter().for_each(|at| plan.requeue_by(at));
            }
        }
        let mut changed = info.value().clone();
        let data = changed["data"].as_object_mut().expect("it has a kubeconfig");
        data.retain(|field, _| !field.starts_with(SIGNATURE));
        for (id, token) in tokens {
            data.insert(format!("{SIGNATURE}{id}"), signature(content, &id, &token).into());
        }
        plan.actions.extend(Action::replace(CONFIGMAPS, "", info, changed));
        plan
    }
}

/// Id and secret of a token that may sign now.
fn signs(secret: &Value, now: Timestamp) -> Option<(String, String)> {
    let (id, token) = (data(secret, "token-id"), data(secret, "token-secret"));
    let named = object::name(secret).strip_prefix(NAME) == Some(id.as_str());
    let may = secret["type"] == TYPE && data(secret, "usage-bootstrap-signing") == "true";
    let holds = expiry(secret).is_none_or(|at| at > now);
    (named && may && holds && !id.is_empty() && !token.is_empty()).then_some((id, token))
}

/// A JSON Web Signature whose content is left out (RFC 7515, appendix F), by HMAC with the token's secret.
fn signature(content: &str, id: &str, token: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(id: &str, expiration: &str) -> Value {
        let data: serde_json::Map<String, Value> = [
            ("token-id", id),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-signing", "true"),
            ("expiration", expiration),
        ]
        .map(|(k, v)| (k.to_string(), STANDARD.encode(v).into()))
        .into_iter()
        .collect();
        json!({"metadata": {"namespace": NAMESPACE, "name": format!("{NAME}{id}"), "uid": id}, "type": TYPE, "data": data})
    }
    fn info(data: Value) -> Value {
        json!({"metadata": {"namespace": INFO_NAMESPACE, "name": INFO}, "data": data})
    }
    fn sign(objects: Vec<(ResourceId, Value)>) -> String {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        BootstrapSigner.plan(&View::of(objects), &ObjectKey::new(INFO_NAMESPACE, INFO), now).to_string()
    }

    #[test]
    fn each_token_signs_and_what_no_token_stands_behind_goes() {
        let old = info(json!({"kubeconfig": "here", "jws-kubeconfig-gone00": "x"}));
        let secrets = [secret("abcdef", "2026-01-02T00:00:00Z"), secret("fedcba", "2025-01-01T00:00:00Z")];
        let objects = secrets.into_iter().map(|s| (SECRETS, s)).chain([(CONFIGMAPS, old)]);
        let signed = signature("here", "abcdef", "0123456789abcdef");
        assert_eq!(
            sign(objects.collect()),
            format!(
                "update configmaps kube-public/cluster-info {{\"data\":{{\"jws-kubeconfig-abcdef\":\"{signed}\",\"jws-kubeconfig-gone00\":null}}}}\nagain at 2026-01-02T00:00:00Z\n"
            )
        );
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"abcdef"}"#);
        assert!(signed.starts_with(&format!("{header}..")));
    }

    #[test]
    fn an_expired_token_is_deleted() {
        let plan = |now: &str| {
            let view = View::of([(SECRETS, secret("abcdef", "2026-01-02T00:00:00Z"))]);
            let key = ObjectKey::new(NAMESPACE, "bootstrap-token-abcdef");
            TokenCleaner.plan(&view, &key, now.parse().unwrap()).to_string()
        };
        assert_eq!(plan("2026-01-01T00:00:00Z"), "again at 2026-01-02T00:00:00Z\n");
        assert_eq!(plan("2026-01-02T00:00:00Z"), "delete secrets kube-system/bootstrap-token-abcdef\n");
    }
}
