//! Signs approved CertificateSigningRequests of Kubernetes' own signers with the cluster's authority.
//!
//! Owns: what each signer accepts, how long its certificates live, and the condition that says why it refused.
//! Called by: the driver.
//! Never: approves.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use minik_api::resources::CERTIFICATESIGNINGREQUESTS;
use minik_api::{ObjectKey, ResourceId};
use minik_client::{Action, Change, Object, Plan, Reconciler, View};
use serde_json::json;
use tracing::warn;

use crate::certificate_authority::Authority;
use crate::certificate_request::{
    API_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN, Request, check_kubelet_client, check_kubelet_serving,
    is_approved, is_issued, usages,
};
use crate::conditions;
use crate::fields::{list, text, time};

/// `--cluster-signing-duration`: what a certificate lives when it does not ask for less.
const LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Shorter than twice the backdating makes no sense; upstream's limit.
const LIFETIME_MIN: SignedDuration = SignedDuration::from_mins(10);

pub(crate) struct CertificateSigner {
    pub authority: Authority,
}

impl Reconciler for CertificateSigner {
    fn name(&self) -> &'static str {
        "csrsigning"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[CERTIFICATESIGNINGREQUESTS]
    }
    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        vec![change.key.clone()]
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(object) = view.get_key(CERTIFICATESIGNINGREQUESTS, key) else { return Plan::nothing() };
        let failed = conditions::find(&object["status"], "Failed").is_some();
        if is_issued(object) || !is_approved(object) || failed {
            return Plan::nothing();
        }
        let signer = text(&object["spec"]["signerName"]);
        if ![API_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN].contains(&signer) {
            return Plan::nothing();
        }
        let request = match Request::of(object) {
            Ok(request) => request,
            // The API server lets none in that cannot be read; there is nothing to wait for.
            Err(error) => {
                warn!(%key, %error, "a certificate request that was let in cannot be read");
                return Plan::nothing();
            }
        };
        if let Err(why) = accepts(signer, object, &request) {
            return Plan::of(refuse(object, &why, now).into_iter().collect());
        }
        let asked: Vec<&str> = list(&object["spec"]["usages"]).iter().map(text).collect();
        match self.authority.sign(&request, &asked, lifetime(object), now) {
            Ok(certificate) => {
                let mut changed = object.value().clone();
                changed["status"]["certificate"] = BASE64.encode(certificate).into();
                let action = Action::replace(CERTIFICATESIGNINGREQUESTS, "status", object, changed);
                Plan::of(action.into_iter().collect())
            }
            Err(error) => {
                warn!(%key, %error, "a certificate request could not be signed");
                Plan::nothing()
            }
        }
    }
}

fn accepts(signer: &str, object: &Object, request: &Request) -> Result<(), String> {
    let usages = usages(object);
    match signer {
        KUBELET_CLIENT => check_kubelet_client(request, &usages),
        KUBELET_SERVING => check_kubelet_serving(request, &usages),
        API_CLIENT => {
            let allowed = ["digital signature", "key encipherment", "client auth"];
            if let Some(other) = usages.iter().find(|u| !allowed.contains(*u)) {
                return Err(format!("invalid usage for client certificate: {other}"));
            }
            let enough = usages.contains("client auth");
            if enough { Ok(()) } else { Err("missing required usage for client certificate: client auth".into()) }
        }
        _ => Ok(()),
    }
}

fn lifetime(object: &Object) -> SignedDuration {
    match object["spec"]["expirationSeconds"].as_i64() {
        Some(seconds) => SignedDuration::from_secs(seconds).clamp(LIFETIME_MIN, LIFETIME),
        None => LIFETIME,
    }
}

fn refuse(object: &Object, why: &str, now: Timestamp) -> Option<Action> {
    let mut changed = object.value().clone();
    let condition = json!({
        "type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": why,
        "lastUpdateTime": time(now),
    });
    conditions::put(&mut changed["status"], condition);
    Action::replace(CERTIFICATESIGNINGREQUESTS, "status", object, changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate_authority::fixture::authority;
    use crate::certificate_request::fixture::request;
    use crate::certificate_request::pem_block;
    use serde_json::Value;
    use x509_parser::certificate::X509Certificate;
    use x509_parser::prelude::FromDer;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn plan(object: Value) -> Plan {
        let signer = CertificateSigner { authority: authority().0 };
        let view = View::of([(CERTIFICATESIGNINGREQUESTS, object)]);
        signer.plan(&view, &ObjectKey::new("", "r"), NOW.parse().unwrap())
    }
    fn approved(mut object: Value) -> Value {
        object["status"]["conditions"] = json!([{"type": "Approved", "status": "True"}]);
        object
    }
    /// Seconds from now until the certificate in a plan ends.
    fn lives(plan: &Plan) -> i64 {
        let Some(Action::Replace { body, sub: "status", .. }) = plan.actions.first() else { panic!("nothing signed") };
        let pem = BASE64.decode(text(&body["status"]["certificate"])).unwrap();
        let der = pem_block(&String::from_utf8(pem).unwrap(), "CERTIFICATE").unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        certificate.validity().not_after.timestamp() - NOW.parse::<Timestamp>().unwrap().as_second()
    }

    #[test]
    fn an_approved_request_is_signed_for_a_year_or_for_less_when_it_asks_for_less() {
        let mut object = approved(request(API_CLIENT, "jane", "devs", &[], &["client auth"]));
        assert_eq!(lives(&plan(object.clone())), 365 * 24 * 3600 - 300);
        object["spec"]["expirationSeconds"] = 3600.into();
        assert_eq!(lives(&plan(object.clone())), 3600);
        object["spec"]["expirationSeconds"] = 1.into();
        assert_eq!(lives(&plan(object)), 600);
    }

    #[test]
    fn what_a_signer_does_not_sign_fails_with_the_reason() {
        let refusal = |signer, usages: &[&str]| {
            let plan = plan(approved(request(signer, "jane", "devs", &[], usages)));
            let Some(Action::Replace { body, .. }) = plan.actions.first() else { panic!("no refusal") };
            body["status"]["conditions"][1].to_string()
        };
        assert_eq!(
            refusal(API_CLIENT, &["server auth"]),
            r#"{"lastUpdateTime":"2026-01-01T00:00:00Z","message":"invalid usage for client certificate: server auth","reason":"SignerValidationFailure","status":"True","type":"Failed"}"#
        );
        assert!(refusal(API_CLIENT, &["digital signature"]).contains("missing required usage"));
        assert!(refusal(KUBELET_CLIENT, &["client auth"]).contains("subject organization is not system:nodes"));
        assert!(refusal(KUBELET_SERVING, &["server auth"]).contains("subject organization is not system:nodes"));
    }

    #[test]
    fn others_signers_and_the_undecided_are_left_alone() {
        assert!(plan(approved(request("example.com/mine", "jane", "devs", &[], &["client auth"]))).is_empty());
        assert!(plan(request(API_CLIENT, "jane", "devs", &[], &["client auth"])).is_empty());
    }
}
