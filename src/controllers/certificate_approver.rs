//! Approves the certificates kubelets ask for as clients, if RBAC lets whoever asked have one.
//!
//! Owns: which requests are recognized, and the question whether they are permitted.
//! Called by: the driver.
//! Never: approves a serving certificate, or denies anything: that is for people and for other approvers.

use jiff::{SignedDuration, Timestamp};
use minik_api::resources::{CERTIFICATESIGNINGREQUESTS, SUBJECTACCESSREVIEWS};
use minik_api::{ObjectKey, ResourceId};
use minik_client::{Action, Change, Object, Plan, Question, Reconciler, View};
use serde_json::{Value, json};

use crate::certificate_request::{KUBELET_CLIENT, Request, check_kubelet_client, is_issued, usages};
use crate::conditions;
use crate::fields::parse_time;

/// A refused request is looked at again when it is twice as old, as roles may have changed; upstream's back-off has
/// the same cap.
const AGAIN_FIRST: SignedDuration = SignedDuration::from_secs(1);
const AGAIN_CAP: SignedDuration = SignedDuration::from_secs(1000);

pub(crate) struct CertificateApprover;

/// What the right to such a certificate is called, and what the approval then says.
#[derive(Clone, Copy)]
struct Right {
    subresource: &'static str,
    message: &'static str,
}

const SELF: Right = Right {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const OTHER: Right = Right {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

impl Reconciler for CertificateApprover {
    fn name(&self) -> &'static str {
        "csrapproving"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[CERTIFICATESIGNINGREQUESTS]
    }
    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        vec![change.key.clone()]
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some(object) = view.get_key(CERTIFICATESIGNINGREQUESTS, key) else { return Plan::nothing() };
        let decided = |kind| conditions::find(&object["status"], kind).is_some();
        if is_issued(object) || decided("Approved") || decided("Denied") {
            return Plan::nothing();
        }
        let rights = recognized(object);
        if rights.is_empty() {
            return Plan::nothing();
        }
        let questions = rights.iter().map(|right| question(object, right)).collect();
        let object = object.clone();
        Plan::asking(questions, move |answers, now| {
            let granted = |a: &Result<Value, _>| a.as_ref().is_ok_and(|review| review["status"]["allowed"] == true);
            match rights.iter().zip(&answers).find(|(_, answer)| granted(answer)) {
                Some((right, _)) => Plan::of(approve(&object, right).into_iter().collect()),
                None => Plan { requeue_at: Some(again(&object, now)), ..Plan::nothing() },
            }
        })
    }
}

/// A node may ask for itself, or somebody for a node.
fn recognized(object: &Value) -> Vec<Right> {
    if object["spec"]["signerName"] != KUBELET_CLIENT {
        return Vec::new();
    }
    let Ok(request) = Request::of(object) else { return Vec::new() };
    if check_kubelet_client(&request, &usages(object)).is_err() {
        return Vec::new();
    }
    if object["spec"]["username"] == request.common_name.as_str() { vec![SELF, OTHER] } else { vec![OTHER] }
}

fn question(object: &Value, right: &Right) -> Question {
    let asker = &object["spec"];
    let body = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "metadata": {},
        "spec": {
            "user": asker["username"], "uid": asker["uid"], "groups": asker["groups"], "extra": asker["extra"],
            "resourceAttributes": {
                "group": "certificates.k8s.io", "resource": "certificatesigningrequests", "verb": "create",
                "subresource": right.subresource, "version": "*",
            },
        },
    });
    Question::Review { resource: SUBJECTACCESSREVIEWS, body }
}

fn approve(object: &Object, right: &Right) -> Option<Action> {
    let mut changed = object.value().clone();
    let condition = json!({"type": "Approved", "status": "True", "reason": "AutoApproved", "message": right.message});
    conditions::put(&mut changed["status"], condition);
    Action::replace(CERTIFICATESIGNINGREQUESTS, "approval", object, changed)
}

fn again(object: &Value, now: Timestamp) -> Timestamp {
    let created = parse_time(&object["metadata"]["creationTimestamp"]).unwrap_or(now);
    now + now.duration_since(created).clamp(AGAIN_FIRST, AGAIN_CAP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate_request::fixture::request;
    use expect_test::{Expect, expect};

    const USAGES: [&str; 2] = ["digital signature", "client auth"];

    fn node() -> Value {
        request(KUBELET_CLIENT, "system:node:n1", "system:nodes", &[], &USAGES)
    }
    fn check(object: Value, allowed: &[bool], asks: Expect, then: Expect) {
        let view = View::of([(CERTIFICATESIGNINGREQUESTS, object)]);
        let now = "2026-01-01T00:00:30Z".parse().unwrap();
        let plan = CertificateApprover.plan(&view, &ObjectKey::new("", "r"), now);
        asks.assert_eq(&plan.to_string());
        let answers = allowed.iter().map(|allowed| Ok(json!({"status": {"allowed": allowed}}))).collect();
        then.assert_eq(&plan.answered(answers, now).to_string());
    }

    #[test]
    fn a_nodes_own_request_is_approved_by_the_first_right_it_has() {
        check(
            node(),
            &[true, false],
            expect![[r#"
                ask subjectaccessreviews {"extra":null,"groups":["system:nodes","system:authenticated"],"resourceAttributes":{"group":"certificates.k8s.io","resource":"certificatesigningrequests","subresource":"selfnodeclient","verb":"create","version":"*"},"uid":null,"user":"system:node:n1"}
                ask subjectaccessreviews {"extra":null,"groups":["system:nodes","system:authenticated"],"resourceAttributes":{"group":"certificates.k8s.io","resource":"certificatesigningrequests","subresource":"nodeclient","verb":"create","version":"*"},"uid":null,"user":"system:node:n1"}
            "#]],
            expect![[r#"
                update certificatesigningrequests/approval r {"status":{"conditions":[{"message":"Auto approving self kubelet client certificate after SubjectAccessReview.","reason":"AutoApproved","status":"True","type":"Approved"}]}}
            "#]],
        );
    }

    #[test]
    fn who_may_not_have_one_is_looked_at_again_later() {
        let mut other = node();
        other["spec"]["username"] = "bootstrapper".into();
        check(
            other,
            &[false],
            expect![[r#"
                ask subjectaccessreviews {"extra":null,"groups":["system:nodes","system:authenticated"],"resourceAttributes":{"group":"certificates.k8s.io","resource":"certificatesigningrequests","subresource":"nodeclient","verb":"create","version":"*"},"uid":null,"user":"bootstrapper"}
            "#]],
            expect![[r#"
                again at 2026-01-01T00:01:00Z
            "#]],
        );
    }

    #[test]
    fn what_is_decided_or_not_a_kubelets_is_left_alone() {
        let mut denied = node();
        denied["status"]["conditions"] = json!([{"type": "Denied", "status": "True"}]);
        let person = request("kubernetes.io/kube-apiserver-client", "jane", "devs", &[], &USAGES);
        for object in [denied, person] {
            check(object, &[], expect![[""]], expect![[""]]);
        }
    }
}
