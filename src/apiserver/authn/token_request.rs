//! `serviceaccounts/token`: a new token for a service account.
//!
//! Owns: the checks of a TokenRequest, the objects it may be bound to, and its answer.
//! Called by: the pipeline for a create of that subresource, after authorization and admission.
//! Never: stores anything: a token is known by its signature.

use jiff::Timestamp;
use minik_api::{FieldError, Status, object, resources};
use serde_json::{Value, json};

use super::service_account::{Grant, ServiceAccountTokens};
use crate::objects::Objects;

const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;
const SECONDS_DEFAULT: i64 = 3600;
/// Kubelets ask for exactly this much for a pod's own token; such a token is given a year, so that clients that never
/// read it again go on working, and is called stale after what was asked for.
const SECONDS_PROJECTED: i64 = 3607;
const SECONDS_EXTENDED: i64 = 365 * 24 * 3600;

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";

/// RFC 3339 to the second, as Kubernetes writes times.
pub fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Answers the request with its status filled in.
pub fn create(
    tokens: &ServiceAccountTokens,
    objects: &dyn Objects,
    namespace: &str,
    name: &str,
    mut request: Value,
    now: Timestamp,
) -> Result<Value, Status> {
    for (field, wanted, what) in [("name", name, "name"), ("namespace", namespace, "namespace")] {
        let given = request["metadata"][field].as_str().unwrap_or("");
        if !given.is_empty() && given != wanted {
            let detail = format!("must match the service account {what} if specified");
            let error = FieldError::invalid(format!("metadata.{field}"), &json!(given), detail);
            return Err(Status::invalid(GROUP, KIND, name, &[error]));
        }
    }
    let account = objects.get(resources::SERVICEACCOUNTS, namespace, name);
    let account = account.ok_or_else(|| Status::not_found("serviceaccounts", name))?;
    let uid = object::uid(&account);
    let given = object::uid(&request);
    if !given.is_empty() && given != uid {
        let why =
            format!("the UID in the token request ({given}) does not match the UID of the service account ({uid})");
        return Err(Status::conflict("TokenRequest.authentication.k8s.io", name, &why));
    }
    if request["spec"]["audiences"].as_array().is_none_or(Vec::is_empty) {
        request["spec"]["audiences"] = json!(tokens.audiences());
    }
    if request["spec"]["expirationSeconds"].is_null() {
        request["spec"]["expirationSeconds"] = SECONDS_DEFAULT.into();
    }
    let asked = request["spec"]["expirationSeconds"].as_i64().unwrap_or(0);
    check_seconds(asked)?;
    let bound = bound_objects(objects, namespace, name, &request["spec"]["boundObjectRef"])?;
    let audiences = request["spec"]["audiences"].as_array().into_iter().flatten();
    let audiences: Vec<String> = audiences.filter_map(Value::as_str).map(str::to_string).collect();
    let for_us = audiences.iter().all(|a| tokens.audiences().contains(a));
    let extended = asked == SECONDS_PROJECTED && for_us && bound.iter().any(|(kind, ..)| *kind == "pod");
    let grant = Grant {
        namespace,
        name,
        uid,
        audiences,
        seconds: if extended { SECONDS_EXTENDED } else { asked },
        warn_after: extended.then_some(asked),
        bound,
    };
    let token = tokens.issue(&grant, now).map_err(|e| Status::internal(format!("failed to generate token: {e}")))?;
    request["metadata"]["name"] = name.into();
    request["metadata"]["namespace"] = namespace.into();
    request["metadata"]["uid"] = uid.into();
    request["metadata"]["creationTimestamp"] = seconds(now).into();
    if request["spec"].get("boundObjectRef").is_none() {
        request["spec"]["boundObjectRef"] = Value::Null;
    }
    let until = now.saturating_add(jiff::SignedDuration::from_secs(asked)).unwrap_or(now);
    request["status"] = json!({"token": token, "expirationTimestamp": seconds(until)});
    Ok(request)
}

fn check_seconds(asked: i64) -> Result<(), Status> {
    let fault = if asked < SECONDS_MIN {
        "may not specify a duration less than 10 minutes"
    } else if asked > SECONDS_MAX {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let error = FieldError::invalid("spec.expirationSeconds", &json!(asked), fault);
    Err(Status::invalid(GROUP, KIND, "", &[error]))
}

type Bound = Vec<(&'static str, String, String)>;

fn bound_objects(objects: &dyn Objects, namespace: &str, account: &str, reference: &Value) -> Result<Bound, Status> {
    if !reference.is_object() {
        return Ok(vec![]);
    }
    let text = |key: &str| reference[key].as_str().unwrap_or("");
    let (group, version) = minik_api::registry::split_api_version(text("apiVersion"));
    let name = text("name");
    let find = |resource, namespace: &str, plural: &str| {
        objects.get(resource, namespace, name).ok_or_else(|| Status::not_found(plural, name))
    };
    let (object, mut bound): (_, Bound) = match (group, text("kind")) {
        ("", "Pod") => {
            let pod = find(resources::PODS, namespace, "pods")?;
            if pod["spec"]["serviceAccountName"] != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            let mut bound = vec![("pod", name.to_string(), object::uid(&pod).to_string())];
            if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
                // The name alone still tells where the pod is assigned when the Node is gone.
                let uid = objects.get(resources::NODES, "", node).map(|n| object::uid(&n).to_string());
                bound.push(("node", node.to_string(), uid.unwrap_or_default()));
            }
            (pod, bound)
        }
        ("", "Node") => (find(resources::NODES, "", "nodes")?, vec![]),
        ("", "Secret") => (find(resources::SECRETS, namespace, "secrets")?, vec![]),
        (_, kind) => {
            let api = if group.is_empty() { format!("/{version}") } else { format!("{group}/{version}") };
            return Err(Status::bad_request(format!("cannot bind token to object of type {api}, Kind={kind}")));
        }
    };
    let uid = object::uid(&object);
    if !text("uid").is_empty() && text("uid") != uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
             deleted and then recreated",
            text("uid")
        );
        return Err(Status::conflict(text("kind"), name, &why));
    }
    match text("kind") {
        "Node" => bound.push(("node", name.into(), uid.into())),
        "Secret" => bound.push(("secret", name.into(), uid.into())),
        _ => {}
    }
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::jwt::{Keys, claims};
    use super::*;
    use crate::objects::fixture::Fixture;

    fn ask(spec: Value) -> Result<Value, String> {
        let objects = Arc::new(Fixture::of(vec![
            json!({"kind": "ServiceAccount", "metadata": {"name": "robot", "namespace": "a", "uid": "u1"}}),
            json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "a", "uid": "u2"},
                "spec": {"serviceAccountName": "robot", "nodeName": "n1"}}),
            json!({"kind": "Pod", "metadata": {"name": "q", "namespace": "a", "uid": "u3"},
                "spec": {"serviceAccountName": "other"}}),
            json!({"kind": "Node", "metadata": {"name": "n1", "uid": "u4"}}),
        ]));
        let keys = Keys::generate().expect("test");
        let tokens = ServiceAccountTokens::new(keys, "https://me".into(), vec![], objects.clone());
        let now = "2026-01-01T00:00:00Z".parse().expect("test");
        create(&tokens, objects.as_ref(), "a", "robot", json!({"spec": spec}), now).map_err(|s| s.message)
    }

    fn claimed(answer: &Value) -> Value {
        claims(answer["status"]["token"].as_str().expect("a token")).expect("test")
    }

    #[test]
    fn a_plain_request_gets_an_hour_for_the_api_server() {
        let answer = ask(json!({})).expect("granted");
        assert_eq!(answer["status"]["expirationTimestamp"], "2026-01-01T01:00:00Z");
        assert_eq!(
            answer["spec"],
            json!({"audiences": ["https://me"], "expirationSeconds": 3600, "boundObjectRef": null})
        );
        assert_eq!(
            answer["metadata"],
            json!({"name": "robot", "namespace": "a", "uid": "u1", "creationTimestamp": "2026-01-01T00:00:00Z"})
        );
        let claims = claimed(&answer);
        assert_eq!(
            claims["kubernetes.io"],
            json!({"namespace": "a", "serviceaccount": {"name": "robot", "uid": "u1"}})
        );
    }

    #[test]
    fn a_pods_own_token_lives_a_year_and_is_stale_after_the_hour() {
        let reference = json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "u2"});
        let answer = ask(json!({"expirationSeconds": 3607, "boundObjectRef": reference})).expect("granted");
        let claims = claimed(&answer);
        let (issued, until) = (claims["iat"].as_i64().expect("test"), claims["exp"].as_i64().expect("test"));
        assert_eq!(until - issued, SECONDS_EXTENDED);
        assert_eq!(claims["kubernetes.io"]["warnafter"], issued + 3607);
        assert_eq!(claims["kubernetes.io"]["pod"], json!({"name": "p", "uid": "u2"}));
        assert_eq!(claims["kubernetes.io"]["node"], json!({"name": "n1", "uid": "u4"}));
        assert_eq!(answer["status"]["expirationTimestamp"], "2026-01-01T01:00:07Z");
    }

    #[test]
    fn refusals_read_as_upstream() {
        let refusal = |spec| ask(spec).expect_err("refused");
        assert_eq!(
            refusal(json!({"expirationSeconds": 5})),
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes"
        );
        let bind = |kind: &str, name: &str, uid: &str| {
            refusal(json!({"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": name, "uid": uid}}))
        };
        assert_eq!(bind("Pod", "x", ""), "pods \"x\" not found");
        assert_eq!(bind("Foo", "x", ""), "cannot bind token to object of type /v1, Kind=Foo");
        assert_eq!(
            bind("Pod", "q", ""),
            "cannot bind token for serviceaccount \"robot\" to pod running with different serviceaccount name."
        );
        assert!(bind("Pod", "p", "zz").contains("the UID in the bound object reference (zz) does not match"));
    }
}
