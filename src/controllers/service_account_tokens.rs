//! Secrets of type `kubernetes.io/service-account-token`: filled for a service account, and gone with it.
//!
//! Owns: the certificate, namespace and token in such a Secret, and the account's own list of them.
//! Called by: the driver, one key a Secret.
//! Never: makes such a Secret; tokens for Pods are asked for by kubelets and expire.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use minik_api::resources::{SECRETS, SERVICEACCOUNTS};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Object, Plan, Question, Reconciler, View};
use serde_json::{Value, json};

use crate::fields::{list, text};
use crate::token_signer::TokenSigner;

pub(crate) const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

pub(crate) struct ServiceAccountTokens {
    pub signer: TokenSigner,
    /// The cluster's authority, in PEM.
    pub ca_pem: String,
}

/// The account a Secret says it is for; the uid may be empty.
fn account_of(secret: &Value) -> (&str, &str) {
    let annotation = |key| object::annotation(secret, key).unwrap_or("");
    (annotation(ACCOUNT_NAME), annotation(ACCOUNT_UID))
}

fn is_meant(account: &Value, uid: &str) -> bool {
    uid.is_empty() || object::uid(account) == uid
}

impl Reconciler for ServiceAccountTokens {
    fn name(&self) -> &'static str {
        "serviceaccount-token"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[SECRETS, SERVICEACCOUNTS]
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource == SECRETS {
            return vec![change.key.clone()];
        }
        let secrets = view.list(SECRETS, &change.key.namespace);
        secrets.filter(|s| account_of(s).0 == change.key.name).map(|s| s.key()).collect()
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some(secret) = view.get_key(SECRETS, key) else { return forget(view, key) };
        let (name, uid) = account_of(secret);
        if secret["type"] != TYPE || name.is_empty() || object::is_deleting(secret) {
            return Plan::nothing();
        }
        match view.get(SERVICEACCOUNTS, &key.namespace, name).filter(|a| is_meant(a, uid)) {
            Some(account) => Plan::of(self.fill(secret, account).into_iter().collect()),
            None => delete_if_gone(secret),
        }
    }
}

impl ServiceAccountTokens {
    fn fill(&self, secret: &Object, account: &Object) -> Option<Action> {
        let mut changed = secret.value().clone();
        if !changed["data"].is_object() {
            changed["data"] = json!({});
        }
        let ca = BASE64.encode(&self.ca_pem);
        let mut lacking = secret["data"]["ca.crt"] != ca.as_str();
        changed["data"]["ca.crt"] = ca.into();
        if text(&secret["data"]["namespace"]).is_empty() {
            changed["data"]["namespace"] = BASE64.encode(object::namespace(secret)).into();
            lacking = true;
        }
        if text(&secret["data"]["token"]).is_empty() {
            let token = self.signer.token(account, object::name(secret))?;
            changed["data"]["token"] = BASE64.encode(token).into();
            lacking = true;
        }
        if !lacking {
            return None;
        }
        changed["metadata"]["annotations"][ACCOUNT_NAME] = object::name(account).into();
        changed["metadata"]["annotations"][ACCOUNT_UID] = object::uid(account).into();
        Action::replace(SECRETS, "", secret, changed)
    }
}

/// An account that was made a moment ago may not be known here yet, so the API server is asked.
fn delete_if_gone(secret: &Arc<Object>) -> Plan {
    let (name, uid) = account_of(secret);
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/{name}", object::namespace(secret));
    let (secret, uid) = (secret.clone(), uid.to_string());
    Plan::asking(vec![Question::Get { path }], move |answers, _| {
        let gone = match &answers[0] {
            Ok(account) => !is_meant(account, &uid),
            Err(error) => error.is_not_found(),
        };
        if gone { Plan::of(vec![Action::delete(SECRETS, &secret)]) } else { Plan::nothing() }
    })
}

/// Whoever lists a Secret that is gone lists it no longer.
fn forget(view: &View, key: &ObjectKey) -> Plan {
    let lists = |a: &&Arc<Object>| list(&a["secrets"]).iter().any(|s| s["name"] == key.name.as_str());
    let shortened = |account: &Arc<Object>| {
        let mut changed = account.value().clone();
        let left: Vec<Value> =
            list(&account["secrets"]).iter().filter(|s| s["name"] != key.name.as_str()).cloned().collect();
        changed["secrets"] = left.into();
        Action::replace(SERVICEACCOUNTS, "", account, changed)
    };
    let accounts = view.list(SERVICEACCOUNTS, &key.namespace).filter(lists);
    Plan::of(accounts.filter_map(shortened).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik_api::Status;
    use minik_client::Error;

    fn controller() -> ServiceAccountTokens {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        ServiceAccountTokens { signer: TokenSigner::load(&key).unwrap(), ca_pem: "CA".into() }
    }
    fn secret(uid: &str, data: Value) -> (ResourceId, Value) {
        let mut annotations = json!({ACCOUNT_NAME: "robot"});
        if !uid.is_empty() {
            annotations[ACCOUNT_UID] = uid.into();
        }
        let metadata = json!({"namespace": "d", "name": "s", "uid": "su", "annotations": annotations});
        (SECRETS, json!({"metadata": metadata, "type": TYPE, "data": data}))
    }
    fn account(uid: &str) -> (ResourceId, Value) {
        (
            SERVICEACCOUNTS,
            json!({"metadata": {"namespace": "d", "name": "robot", "uid": uid}, "secrets": [{"name": "s"}]}),
        )
    }
    fn plan(objects: Vec<(ResourceId, Value)>) -> Plan {
        controller().plan(&View::of(objects), &ObjectKey::new("d", "s"), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn an_empty_secret_is_filled_once() {
        let filled = plan(vec![secret("", json!(null)), account("u")]);
        let Some(Action::Replace { body, .. }) = filled.actions.first() else { panic!("not filled") };
        assert_eq!(body["data"]["ca.crt"], BASE64.encode("CA"));
        assert_eq!(body["data"]["namespace"], BASE64.encode("d"));
        assert!(text(&body["data"]["token"]).len() > 100);
        assert_eq!(body["metadata"]["annotations"][ACCOUNT_UID], "u");
        assert!(plan(vec![(SECRETS, body.clone()), account("u")]).is_empty());
    }

    #[test]
    fn a_secret_goes_with_its_account() {
        for known in [vec![secret("", json!({}))], vec![secret("u", json!({})), account("other")]] {
            let asked = plan(known);
            assert_eq!(asked.to_string(), "ask /api/v1/namespaces/d/serviceaccounts/robot\n");
            let gone = Err(Error::from(Status::not_found("serviceaccounts", "robot")));
            let then = asked.answered(vec![gone], Timestamp::UNIX_EPOCH);
            assert_eq!(then.to_string(), "delete secrets d/s\n");
        }
        let unsure = plan(vec![secret("", json!({}))]).answered(vec![Ok(account("u").1)], Timestamp::UNIX_EPOCH);
        assert!(unsure.is_empty(), "it is there after all");
    }

    #[test]
    fn an_account_forgets_a_secret_that_is_gone() {
        assert_eq!(plan(vec![account("u")]).to_string(), "update serviceaccounts d/robot {\"secrets\":[]}\n");
    }
}
