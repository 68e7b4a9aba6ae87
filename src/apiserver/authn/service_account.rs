//! Service-account tokens: what they claim and when the claim still holds.
//!
//! Owns: the `kubernetes.io` claims, legacy secret tokens, and the check of the objects a token is bound to.
//! Called by: authentication of bearer tokens, TokenReview, TokenRequest.
//! Never: decides whether somebody may ask for a token.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine;
use jiff::Timestamp;
use minik_api::{object, resources};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::jwt::{KeyError, Keys, claims};
use super::{UserInfo, groups, names};
use crate::objects::Objects;

/// Clocks of machines differ; upstream allows a minute.
const LEEWAY_SECONDS: i64 = 60;
/// How many signatures are remembered as checked; a check costs a tenth of a millisecond.
const REMEMBERED_TOKENS_MAX: usize = 4096;
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// A token that is not believed, with the sentence that TokenReview shows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("{0}")]
    Refused(String),
    #[error("token audiences {0} is invalid for the target audiences {1}")]
    Audience(String, String),
}

pub struct ServiceAccountTokens {
    keys: Keys,
    /// `https://kubernetes.default.svc.cluster.local`: also the audience of a token that names none.
    issuer: String,
    audiences: Vec<String>,
    objects: Arc<dyn Objects>,
    signatures: Mutex<HashMap<[u8; 32], Arc<Value>>>,
}

/// What a new token says.
#[derive(Clone, Debug, Default)]
pub struct Grant<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub audiences: Vec<String>,
    pub seconds: i64,
    /// Seconds after which use of the token is old-fashioned though not yet refused.
    pub warn_after: Option<i64>,
    /// `pod`, `secret`, `node` with name and uid.
    pub bound: Vec<(&'static str, String, String)>,
}

impl ServiceAccountTokens {
    pub fn new(keys: Keys, issuer: String, audiences: Vec<String>, objects: Arc<dyn Objects>) -> Self {
        let audiences = if audiences.is_empty() { vec![issuer.clone()] } else { audiences };
        Self { keys, issuer, audiences, objects, signatures: Mutex::default() }
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    pub fn issue(&self, grant: &Grant<'_>, now: Timestamp) -> Result<String, KeyError> {
        let seconds = now.as_second();
        let mut private =
            json!({"namespace": grant.namespace, "serviceaccount": {"name": grant.name, "uid": grant.uid}});
        for (kind, name, uid) in &grant.bound {
            private[*kind] = if uid.is_empty() { json!({"name": name}) } else { json!({"name": name, "uid": uid}) };
        }
        if let Some(warn_after) = grant.warn_after {
            private["warnafter"] = (seconds + warn_after).into();
        }
        self.keys.sign(&json!({
            "aud": grant.audiences, "exp": seconds + grant.seconds, "iat": seconds, "nbf": seconds, "iss": self.issuer,
            "jti": uuid::Uuid::new_v4().to_string(), "kubernetes.io": private,
            "sub": format!("{}{}:{}", names::SERVICE_ACCOUNT, grant.namespace, grant.name),
        }))
    }

    /// A token without expiry, kept in a Secret of type `kubernetes.io/service-account-token`.
    pub fn issue_legacy(&self, account: &Value, secret: &str) -> Result<String, KeyError> {
        let (namespace, name) = (object::namespace(account), object::name(account));
        self.keys.sign(&json!({
            "iss": LEGACY_ISSUER, "sub": format!("{}{namespace}:{name}", names::SERVICE_ACCOUNT),
            "kubernetes.io/serviceaccount/namespace": namespace, "kubernetes.io/serviceaccount/secret.name": secret,
            "kubernetes.io/serviceaccount/service-account.name": name,
            "kubernetes.io/serviceaccount/service-account.uid": object::uid(account),
        }))
    }

    /// `None`: not a token of ours. Otherwise the user and those of `audiences` that the token is for.
    pub fn check(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Option<Result<(UserInfo, Vec<String>), TokenError>> {
        let unverified = claims(token)?;
        let legacy = match unverified["iss"].as_str()? {
            LEGACY_ISSUER => true,
            issuer if issuer == self.issuer => false,
            _ => return None,
        };
        let Some(claims) = self.verified(token, unverified) else {
            return Some(Err(refuse("invalid signature")));
        };
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        let own = if legacy { self.audiences.clone() } else { audiences_of(&claims) };
        let shared: Vec<String> = own.iter().filter(|a| wanted.contains(a)).cloned().collect();
        if shared.is_empty() {
            return Some(Err(TokenError::Audience(go_list(&own), go_list(wanted))));
        }
        let user = if legacy { self.check_legacy(token, &claims) } else { self.check_bound(&claims, now) };
        Some(user.map(|user| (user, shared)))
    }

    /// Checking a signature is the dear part, so what was once checked is remembered.
    fn verified(&self, token: &str, unverified: Value) -> Option<Arc<Value>> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(claims) = self.signatures.lock().get(&digest) {
            return Some(claims.clone());
        }
        if !self.keys.verify(token) {
            return None;
        }
        let claims = Arc::new(unverified);
        let mut signatures = self.signatures.lock();
        if signatures.len() >= REMEMBERED_TOKENS_MAX {
            signatures.clear();
        }
        signatures.insert(digest, claims.clone());
        Some(claims)
    }

    fn check_bound(&self, claims: &Value, now: Timestamp) -> Result<UserInfo, TokenError> {
        let now_seconds = now.as_second();
        let at = |claim: &str| claims[claim].as_f64().map(|n| n as i64);
        if at("nbf").is_some_and(|nbf| now_seconds + LEEWAY_SECONDS < nbf) {
            return Err(refuse("service account token is not valid yet"));
        }
        if at("exp").is_some_and(|exp| now_seconds - LEEWAY_SECONDS > exp) {
            return Err(refuse("service account token has expired"));
        }
        if at("iat").is_some_and(|iat| now_seconds + LEEWAY_SECONDS < iat) {
            return Err(refuse("service account token is issued in the future"));
        }
        let private = &claims["kubernetes.io"];
        let namespace = private["namespace"].as_str().unwrap_or("");
        let (name, uid) = reference(&private["serviceaccount"]);
        let account = self.objects.get(resources::SERVICEACCOUNTS, namespace, name);
        let account = account.ok_or_else(|| refuse(format!("serviceaccounts {name:?} not found")))?;
        if object::uid(&account) != uid {
            return Err(refuse(format!(
                "service account UID ({}) does not match claim ({uid})",
                object::uid(&account)
            )));
        }
        if deleted_before(&account, now) {
            return Err(refuse(format!("service account {namespace}/{name} has been deleted")));
        }
        self.check_objects(private, namespace, now)?;
        Ok(user_of(namespace, name, uid, private, claims["jti"].as_str()))
    }

    /// A token dies with the pod, secret or node it is bound to.
    fn check_objects(&self, private: &Value, namespace: &str, now: Timestamp) -> Result<(), TokenError> {
        let pod_bound = private["pod"].is_object();
        let bound = [
            ("secret", resources::SECRETS, namespace),
            ("pod", resources::PODS, namespace),
            ("node", resources::NODES, ""),
        ];
        for (kind, resource, namespace) in bound {
            // A pod's token names the node only to tell others where the pod runs.
            if !private[kind].is_object() || (kind == "node" && pod_bound) {
                continue;
            }
            let (name, uid) = reference(&private[kind]);
            let gone = || refuse("service account token has been invalidated");
            let object = self.objects.get(resource, namespace, name).ok_or_else(gone)?;
            let found = object::uid(&object);
            if found != uid {
                let word = match kind {
                    "secret" => "Secret",
                    "pod" => "Pod",
                    _ => "Node",
                };
                let lower = word.to_lowercase();
                return Err(refuse(format!(
                    "{lower} UID ({found}) does not match service account {lower} ref claim ({uid})"
                )));
            }
            if deleted_before(&object, now) {
                return Err(gone());
            }
        }
        Ok(())
    }

    fn check_legacy(&self, token: &str, claims: &Value) -> Result<UserInfo, TokenError> {
        let claim = |key: &str, short: &str| {
            let value = claims[format!("kubernetes.io/serviceaccount/{key}")].as_str().filter(|v| !v.is_empty());
            value.ok_or_else(|| refuse(format!("{short} claim is missing")))
        };
        let subject = claims["sub"].as_str().filter(|s| !s.is_empty()).ok_or_else(|| refuse("sub claim is missing"))?;
        let namespace = claim("namespace", "namespace")?;
        let secret_name = claim("secret.name", "secretName")?;
        let name = claim("service-account.name", "serviceAccountName")?;
        let uid = claim("service-account.uid", "serviceAccountUID")?;
        if subject != format!("{}{namespace}:{name}", names::SERVICE_ACCOUNT) {
            return Err(refuse("sub claim is invalid"));
        }
        let secret = self.objects.get(resources::SECRETS, namespace, secret_name);
        let secret = secret.filter(|s| !object::is_deleting(s)).ok_or_else(|| refuse("Token has been invalidated"))?;
        let stored = secret["data"]["token"].as_str().unwrap_or("");
        let stored = base64::engine::general_purpose::STANDARD.decode(stored).unwrap_or_default();
        if stored != token.as_bytes() {
            return Err(refuse("Token does not match server's copy"));
        }
        let account = self.objects.get(resources::SERVICEACCOUNTS, namespace, name);
        let account = account.ok_or_else(|| refuse(format!("serviceaccounts {name:?} not found")))?;
        if object::is_deleting(&account) {
            return Err(refuse(format!("ServiceAccount {namespace}/{name} has been deleted")));
        }
        if object::uid(&account) != uid {
            let found = object::uid(&account);
            return Err(refuse(format!("ServiceAccount UID ({found}) does not match claim ({uid})")));
        }
        const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
        if object::label(&secret, INVALID_SINCE).is_some_and(|since| !since.is_empty()) {
            return Err(refuse(format!(
                "the token in secret {namespace}/{secret_name} for service account {namespace}/{name} has been marked \
                 invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the \
                 '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
            )));
        }
        Ok(user_of(namespace, name, uid, &Value::Null, None))
    }
}

fn refuse(why: impl Into<String>) -> TokenError {
    TokenError::Refused(why.into())
}

fn reference(value: &Value) -> (&str, &str) {
    (value["name"].as_str().unwrap_or(""), value["uid"].as_str().unwrap_or(""))
}

fn audiences_of(claims: &Value) -> Vec<String> {
    match &claims["aud"] {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).map(str::to_string).collect(),
        _ => vec![],
    }
}

/// A deleted object keeps its tokens alive for the leeway, so that a terminating pod can still say goodbye.
fn deleted_before(object: &Value, now: Timestamp) -> bool {
    let deleted = object["metadata"]["deletionTimestamp"].as_str().and_then(|t| t.parse::<Timestamp>().ok());
    deleted.is_some_and(|t| t.as_second() < now.as_second() - LEEWAY_SECONDS)
}

/// As Go prints a list of strings with `%q`.
fn go_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|a| format!("{a:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// The user a service account is, without what a token adds.
pub fn user(namespace: &str, name: &str, uid: &str) -> UserInfo {
    UserInfo {
        name: format!("{}{namespace}:{name}", names::SERVICE_ACCOUNT),
        uid: uid.into(),
        groups: groups_of(namespace),
        extra: BTreeMap::new(),
    }
}

pub fn groups_of(namespace: &str) -> Vec<String> {
    vec![groups::SERVICE_ACCOUNTS.into(), format!("{}{namespace}", groups::SERVICE_ACCOUNTS_OF)]
}

fn user_of(namespace: &str, name: &str, uid: &str, private: &Value, id: Option<&str>) -> UserInfo {
    let mut user = user(namespace, name, uid);
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.into()]);
        }
    };
    if let Some(id) = id.filter(|id| !id.is_empty()) {
        put("credential-id", &format!("JTI={id}"));
    }
    for kind in ["pod", "node"] {
        let (name, uid) = reference(&private[kind]);
        put(&format!("{kind}-name"), name);
        put(&format!("{kind}-uid"), uid);
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::fixture::Fixture;

    const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("test")
    }

    fn tokens(extra: Vec<Value>) -> ServiceAccountTokens {
        let mut objects = vec![json!({"kind": "ServiceAccount", "apiVersion": "v1",
            "metadata": {"name": "robot", "namespace": "a", "uid": "u1"}})];
        objects.extend(extra);
        let keys = Keys::generate().expect("test");
        ServiceAccountTokens::new(keys, ISSUER.into(), vec![], Arc::new(Fixture::of(objects)))
    }

    fn grant(bound: Vec<(&'static str, String, String)>) -> Grant<'static> {
        Grant {
            namespace: "a",
            name: "robot",
            uid: "u1",
            audiences: vec![ISSUER.into()],
            seconds: 3600,
            bound,
            ..Grant::default()
        }
    }

    fn check(tokens: &ServiceAccountTokens, token: &str, after: i64) -> Result<UserInfo, String> {
        let at = Timestamp::from_second(now().as_second() + after).expect("test");
        let checked = tokens.check(token, &[], at).expect("a token of ours");
        checked.map(|(user, _)| user).map_err(|e| e.to_string())
    }

    #[test]
    fn a_token_is_its_service_account_until_it_expires() {
        let tokens = tokens(vec![]);
        let token = tokens.issue(&grant(vec![]), now()).expect("test");
        let user = check(&tokens, &token, 10).expect("fresh");
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:a:robot", "u1"));
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a"]);
        assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("JTI="));
        assert!(check(&tokens, &token, 3600 + 59).is_ok(), "within the leeway");
        assert_eq!(check(&tokens, &token, 3600 + 61), Err("service account token has expired".into()));
    }

    #[test]
    fn a_token_for_another_audience_is_refused_here() {
        let tokens = tokens(vec![]);
        let token = tokens.issue(&Grant { audiences: vec!["vault".into()], ..grant(vec![]) }, now()).expect("test");
        assert_eq!(
            check(&tokens, &token, 0),
            Err(format!(r#"token audiences ["vault"] is invalid for the target audiences ["{ISSUER}"]"#))
        );
        let checked = tokens.check(&token, &["vault".into(), "x".into()], now()).expect("ours").expect("for vault");
        assert_eq!(checked.1, ["vault"]);
    }

    #[test]
    fn a_token_dies_with_its_pod_and_names_pod_and_node() {
        let pod = |uid: &str| json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "a", "uid": uid}});
        let bound = vec![("pod", "p".to_string(), "u2".to_string()), ("node", "n1".to_string(), "u3".to_string())];
        let with = tokens(vec![pod("u2")]);
        let token = with.issue(&grant(bound.clone()), now()).expect("test");
        let user = check(&with, &token, 0).expect("the pod is there");
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
        assert_eq!(user.extra["authentication.kubernetes.io/node-name"], ["n1"]);
        let without = tokens(vec![]);
        let token = without.issue(&grant(bound.clone()), now()).expect("test");
        assert_eq!(check(&without, &token, 0), Err("service account token has been invalidated".into()));
        let other = tokens(vec![pod("u9")]);
        let token = other.issue(&grant(bound), now()).expect("test");
        assert_eq!(
            check(&other, &token, 0),
            Err("pod UID (u9) does not match service account pod ref claim (u2)".into())
        );
    }

    #[test]
    fn a_recreated_service_account_is_another_one() {
        let tokens = tokens(vec![]);
        let token = tokens.issue(&Grant { uid: "old", ..grant(vec![]) }, now()).expect("test");
        assert_eq!(check(&tokens, &token, 0), Err("service account UID (u1) does not match claim (old)".into()));
    }

    #[test]
    fn a_foreign_issuer_is_somebody_elses_business() {
        let ours = tokens(vec![]);
        let token = ours.keys().sign(&json!({"iss": "https://else", "sub": "x"})).expect("test");
        assert!(ours.check(&token, &[], now()).is_none());
        assert!(ours.check("a.b", &[], now()).is_none());
    }

    #[test]
    fn a_legacy_token_holds_while_its_secret_has_it() {
        let account = json!({"metadata": {"name": "robot", "namespace": "a", "uid": "u1"}});
        let plain = tokens(vec![]);
        let token = plain.issue_legacy(&account, "s").expect("test");
        assert_eq!(check(&plain, &token, 0), Err("Token has been invalidated".into()));
        let data = base64::engine::general_purpose::STANDARD.encode(&token);
        let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s", "namespace": "a"}, "data": {"token": data}});
        let account = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "robot", "namespace": "a", "uid": "u1"}});
        let with = ServiceAccountTokens { objects: Arc::new(Fixture::of(vec![account, secret])), ..plain };
        assert_eq!(check(&with, &token, 0).expect("in the secret").name, "system:serviceaccount:a:robot");
    }
}
