//! What is said to a webhook and what its answer means.
//!
//! Owns: `AdmissionReview`, v1, both ways, and the sentence of a refusal.
//! Called by: the dispatch of webhooks; match conditions for the variable `request`.
//! Never: sends anything.

use base64::Engine;
use minik_api::status::Details;
use minik_api::{Status, patch};
use serde_json::{Value, json};

use super::super::Review;

/// The `request` of an AdmissionReview.
pub fn request(review: &Review, uid: &str) -> Value {
    let kind = json!({"group": review.kind.group, "version": review.kind.version, "kind": review.kind.kind});
    let resource = json!({"group": review.group, "version": review.version, "resource": review.resource});
    let mut request = json!({
        "uid": uid, "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
        "operation": review.operation.as_str(), "userInfo": review.user.to_json(),
        "object": review.object, "oldObject": review.old.as_ref(), "dryRun": review.dry_run,
        "options": review.options.to_json(),
    });
    for (key, text) in [
        ("name", &review.name),
        ("namespace", &review.namespace),
        ("subResource", &review.subresource),
        ("requestSubResource", &review.subresource),
    ] {
        if !text.is_empty() {
            request[key] = text.as_str().into();
        }
    }
    request
}

pub fn admission_review(request: Value) -> Value {
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
}

/// What a webhook decided.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub allowed: bool,
    pub patch: Option<Value>,
    pub warnings: Vec<String>,
    status: Value,
}

impl Answer {
    pub fn read(answer: &Value, uid: &str) -> Result<Self, String> {
        let said = (answer["apiVersion"].as_str().unwrap_or(""), answer["kind"].as_str().unwrap_or(""));
        if said != ("admission.k8s.io/v1", "AdmissionReview") {
            let (version, kind) = said;
            return Err(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {version}, Kind={kind}"
            ));
        }
        let response = &answer["response"];
        if !response.is_object() {
            return Err("expected response, got none".into());
        }
        let echoed = response["uid"].as_str().unwrap_or("");
        if echoed != uid {
            return Err(format!("expected response.uid={uid:?}, got {echoed:?}"));
        }
        let texts = response["warnings"].as_array().into_iter().flatten();
        Ok(Self {
            allowed: response["allowed"] == true,
            patch: read_patch(response)?,
            warnings: texts.filter_map(Value::as_str).map(str::to_string).collect(),
            status: response["status"].clone(),
        })
    }

    /// The `Status` that a refused client gets.
    pub fn refusal(&self, webhook: &str) -> Status {
        let mut status: Status = serde_json::from_value(json!({
            "code": self.status["code"].as_u64().unwrap_or(0), "reason": self.status["reason"].as_str().unwrap_or(""),
            "message": self.status["message"].as_str().unwrap_or(""),
        }))
        .unwrap_or_else(|_| Status::bad_request(""));
        let denied = format!("admission webhook {webhook:?} denied the request");
        status.message = match (status.message.as_str(), status.reason.as_str()) {
            ("", "") => format!("{denied} without explanation"),
            ("", reason) => format!("{denied}: {reason}"),
            (message, _) => format!("{denied}: {message}"),
        };
        // A refusal that calls itself a success is none.
        status.code = status.code.max(400);
        status.details = serde_json::from_value::<Details>(self.status["details"].clone()).ok();
        status
    }
}

fn read_patch(response: &Value) -> Result<Option<Value>, String> {
    let Some(encoded) = response["patch"].as_str().filter(|p| !p.is_empty()) else { return Ok(None) };
    if response["patchType"] != "JSONPatch" {
        return Err(format!("invalid patch type: {}", response["patchType"]));
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|e| e.to_string())?;
    serde_json::from_slice(&bytes).map(Some).map_err(|e| e.to_string())
}

/// The object as the webhook wants it.
pub fn patched(object: &Value, patch: &Value) -> Result<Value, String> {
    patch::json::apply(object, patch).map_err(|status| status.message)
}

#[cfg(test)]
mod tests {
    use super::super::super::Operation;
    use super::super::super::fixture::review;
    use super::*;

    fn answer(response: Value) -> Result<Answer, String> {
        let mut response = response;
        response["uid"] = "u".into();
        Answer::read(
            &json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}),
            "u",
        )
    }

    #[test]
    fn a_webhook_is_told_everything_about_the_write() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}});
        let request = request(&review(Operation::Create, pod.clone()), "u");
        assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "Pod"}));
        assert_eq!(request["requestResource"], json!({"group": "", "version": "v1", "resource": "pods"}));
        assert_eq!(
            (&request["object"], &request["oldObject"], &request["operation"]),
            (&pod, &Value::Null, &json!("CREATE"))
        );
        assert!(request.get("subResource").is_none());
    }

    #[test]
    fn a_refusal_names_the_webhook_and_its_reason() {
        let refusal =
            |status: Value| answer(json!({"allowed": false, "status": status})).expect("read").refusal("w.io");
        let plain = refusal(Value::Null);
        assert_eq!(
            (plain.code, plain.message.as_str()),
            (400, r#"admission webhook "w.io" denied the request without explanation"#)
        );
        let said = refusal(json!({"code": 403, "reason": "Forbidden", "message": "no"}));
        assert_eq!((said.code, said.message.as_str()), (403, r#"admission webhook "w.io" denied the request: no"#));
    }

    #[test]
    fn a_patch_is_applied_and_a_wrong_answer_refused() {
        let patch = base64::engine::general_purpose::STANDARD.encode(r#"[{"op":"add","path":"/a","value":1}]"#);
        let read = answer(json!({"allowed": true, "patch": patch, "patchType": "JSONPatch"})).expect("read");
        assert_eq!(patched(&json!({}), &read.patch.expect("a patch")), Ok(json!({"a": 1})));
        assert!(answer(json!({"allowed": true, "patch": patch, "patchType": "Merge"})).is_err());
        let other = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": "x"}});
        assert_eq!(Answer::read(&other, "u"), Err(r#"expected response.uid="u", got "x""#.into()));
    }
}
