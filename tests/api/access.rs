//! Who is who, who may what, and what admission makes of a write: through the whole API server.
//!
//! Owns: the behaviour of authentication, authorization and admission as a client sees it.
//! Called by: the test harness.
//! Never: repeats what the unit tests of a plugin show.

use std::sync::Arc;

use http::Request;
use http_body_util::BodyExt;
use minik_apiserver::{ApiServer, Config, UserInfo, body};
use minik_store::Store;
use serde_json::{Value, json};

use crate::server::{Answer, Server};

async fn server() -> Server {
    let mut config = Config::new(Store::memory());
    config.static_tokens = vec![("alice".into(), UserInfo::new("alice", &["devs"]))];
    Server(ApiServer::build(config).await.expect("an API server on an empty store"))
}

/// A request that brings nothing but its headers.
async fn ask(server: &Server, method: &str, path: &str, headers: &[(&str, &str)], content: &Value) -> Answer {
    let mut builder = Request::builder().method(method).uri(path).header("content-type", "application/json");
    for (key, value) in headers {
        builder = builder.header(*key, *value);
    }
    let content = if content.is_null() { String::new() } else { content.to_string() };
    let response = server.0.handle(builder.body(body::full(content)).expect("a request")).await;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
    Answer { code: parts.status.as_u16(), headers: parts.headers, body }
}

async fn as_user(server: &Server, token: &str, method: &str, path: &str, content: &Value) -> Answer {
    ask(server, method, path, &[("authorization", &format!("Bearer {token}"))], content).await
}

const ALICE: &str = "alice";

async fn grant(server: &Server, rules: Value) {
    let role = json!({"metadata": {"name": "r"}, "rules": rules});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await.ok();
    let binding = json!({"metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
        "subjects": [{"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await.ok();
}

#[tokio::test]
async fn anonymous_callers_see_health_and_version_only() {
    let server = server().await;
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(ask(&server, "GET", path, &[], &Value::Null).await.code, 200, "{path}");
    }
    assert_eq!(
        ask(&server, "GET", "/api", &[], &Value::Null).await.refusal(),
        r#"403 Forbidden: forbidden: User "system:anonymous" cannot get path "/api""#
    );
    let wrong = as_user(&server, "wrong", "GET", "/version", &Value::Null).await;
    assert_eq!(wrong.refusal(), "401 Unauthorized: Unauthorized");
}

#[tokio::test]
async fn a_user_may_what_a_role_says() {
    let server = server().await;
    assert_eq!(as_user(&server, ALICE, "GET", "/api", &Value::Null).await.code, 200, "discovery is for all users");
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(
        as_user(&server, ALICE, "GET", pods, &Value::Null).await.refusal(),
        r#"403 Forbidden: pods is forbidden: User "alice" cannot list resource "pods" in API group "" in the namespace "default""#
    );
    grant(&server, json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}])).await;
    assert_eq!(as_user(&server, ALICE, "GET", pods, &Value::Null).await.code, 200);
    assert_eq!(
        as_user(&server, ALICE, "DELETE", &format!("{pods}/x"), &Value::Null).await.refusal(),
        r#"403 Forbidden: pods "x" is forbidden: User "alice" cannot delete resource "pods" in API group "" in the namespace "default""#
    );
}

#[tokio::test]
async fn what_was_granted_or_taken_holds_for_the_next_request() {
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
    let server = server().await;
    let code = async || as_user(&server, ALICE, "GET", "/api/v1/pods", &Value::Null).await.code;
    for round in 0..20 {
        grant(&server, json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}])).await;
        assert_eq!(code().await, 200, "granted, round {round}");
        let role = format!("{RBAC}/clusterroles/r");
        let less = json!([{"op": "replace", "path": "/rules/0/verbs", "value": ["get"]}]);
        server.patch("json", &role, &less).await.ok();
        assert_eq!(code().await, 403, "less, round {round}");
        let more = json!([{"op": "replace", "path": "/rules/0/verbs", "value": ["get", "list"]}]);
        server.patch("json", &role, &more).await.ok();
        assert_eq!(code().await, 200, "more, round {round}");
        server.delete(&format!("{RBAC}/clusterrolebindings/b")).await.ok();
        assert_eq!(code().await, 403, "taken, round {round}");
        server.delete(&role).await.ok();
    }
}

#[tokio::test]
async fn reviews_answer_as_the_server_decides() {
    let server = server().await;
    let review = |spec: Value| {
        let server = server.clone();
        async move {
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
            server.post(path, &body).await.ok()["status"].clone()
        }
    };
    let kubelet = |sub: &str| {
        json!({"user": "kube-apiserver-kubelet-client",
        "resourceAttributes": {"verb": "get", "resource": "nodes", "subresource": sub, "name": "n"}})
    };
    for sub in ["proxy", "log", "metrics", "stats"] {
        assert_eq!(review(kubelet(sub)).await["allowed"], true, "{sub}");
    }
    assert_eq!(
        review(json!({"user": "system:node:n1", "groups": ["system:nodes"],
            "resourceAttributes": {"verb": "get", "resource": "secrets", "namespace": "default", "name": "s"}}))
        .await,
        json!({"allowed": false, "reason": "node: no relationship found between node 'n1' and this object"})
    );
    let own = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let me = as_user(&server, ALICE, "POST", own, &me).await.ok();
    assert_eq!(me["status"]["userInfo"], json!({"username": "alice", "groups": ["devs", "system:authenticated"]}));
}

#[tokio::test]
async fn a_service_account_gets_a_token_and_is_known_by_it() {
    let server = server().await;
    server.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "robot"}})).await.ok();
    let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let answer = server.post(path, &request).await;
    assert_eq!(answer.code, 201);
    let token = answer.ok()["status"]["token"].as_str().expect("a token").to_string();
    let own = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let me = as_user(&server, &token, "POST", own, &me).await.ok();
    assert_eq!(me["status"]["userInfo"]["username"], "system:serviceaccount:default:robot");
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let review = server.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.ok();
    assert_eq!(review["status"]["authenticated"], true);
    let keys = as_user(&server, &token, "GET", "/openid/v1/jwks", &Value::Null).await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    assert_eq!(keys.body["keys"][0]["alg"], "ES256");
    server.delete("/api/v1/namespaces/default/serviceaccounts/robot").await.ok();
    assert_eq!(as_user(&server, &token, "GET", "/api", &Value::Null).await.code, 401, "gone with its account");
}

#[tokio::test]
async fn somebody_else_may_be_impersonated_with_the_right_to() {
    let server = server().await;
    let own = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let bob: [(&str, &str); 3] =
        [("authorization", "Bearer alice"), ("impersonate-user", "bob"), ("impersonate-group", "ops")];
    assert_eq!(ask(&server, "POST", own, &bob, &me).await.code, 403);
    grant(&server, json!([{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users", "groups"]}])).await;
    let mut answer = ask(&server, "POST", own, &bob, &me).await;
    for _ in 0..1000 {
        if answer.code != 403 {
            break;
        }
        tokio::task::yield_now().await;
        answer = ask(&server, "POST", own, &bob, &me).await;
    }
    let user = answer.ok()["status"]["userInfo"].clone();
    assert_eq!(user, json!({"username": "bob", "groups": ["ops", "system:authenticated"]}));
}

#[tokio::test]
async fn nobody_grants_more_than_they_have() {
    let server = server().await;
    let rbac = json!([{"verbs": ["create"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"]}]);
    grant(&server, rbac).await;
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "x"},
        "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]});
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let mut refusal = as_user(&server, ALICE, "POST", path, &role).await.refusal();
    while refusal.contains("cannot create") {
        tokio::task::yield_now().await;
        refusal = as_user(&server, ALICE, "POST", path, &role).await.refusal();
    }
    assert_eq!(
        refusal,
        "403 Forbidden: clusterroles.rbac.authorization.k8s.io \"x\" is forbidden: user \"alice\" (groups=[\"devs\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"
    );
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test]
async fn a_pod_is_completed_by_admission() {
    let server = server().await;
    server.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await.ok();
    let pod = server.post("/api/v1/namespaces/default/pods", &pod("p")).await.ok();
    let spec = &pod["spec"];
    assert_eq!((&spec["serviceAccountName"], &spec["priority"]), (&json!("default"), &json!(0)));
    assert_eq!(spec["preemptionPolicy"], "PreemptLowerPriority");
    assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(2));
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(spec["volumes"][0]["projected"]["defaultMode"], 420);
}

#[tokio::test]
async fn the_first_pod_of_a_namespace_waits_for_its_service_account() {
    let server = server().await;
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": "a"}})).await.ok();
    let pod = pod("p");
    let (created, ()) = tokio::join!(server.post("/api/v1/namespaces/a/pods", &pod), async {
        let account = json!({"metadata": {"name": "default"}});
        server.post("/api/v1/namespaces/a/serviceaccounts", &account).await.ok();
    });
    assert_eq!(created.code, 201, "{}", created.body);
}

#[tokio::test]
async fn pods_at_once_never_exceed_their_quota() {
    let server = server().await;
    server.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await.ok();
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "3"}}});
    let mut quota = server.post("/api/v1/namespaces/default/resourcequotas", &quota).await.ok();
    quota["status"] = json!({"hard": {"pods": "3"}, "used": {"pods": "0"}});
    server.put("/api/v1/namespaces/default/resourcequotas/q/status", &quota).await.ok();
    let server = Arc::new(server);
    let creates = (0..10).map(|n| {
        let server = server.clone();
        async move { server.post("/api/v1/namespaces/default/pods", &pod(&format!("p{n}"))).await }
    });
    let answers = crate::server::all(creates).await;
    assert_eq!(answers.iter().filter(|a| a.code == 201).count(), 3);
    let refused = answers.iter().find(|a| a.code == 403).expect("seven are refused");
    assert!(refused.refusal().ends_with("exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3"));
    let used = server.get("/api/v1/namespaces/default/resourcequotas/q").await.ok();
    assert_eq!(used["status"]["used"]["pods"], "3");
}

#[tokio::test]
async fn a_server_that_starts_again_mends_its_policy_and_keeps_what_was_added() {
    let store = Store::memory();
    let server = Server(ApiServer::build(Config::new(store.clone())).await.expect("a first start"));
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node-problem-detector";
    let mut role = server.get(path).await.ok();
    let extra = json!({"verbs": ["get"], "apiGroups": ["x.io"], "resources": ["things"]});
    role["rules"] = json!([extra]);
    server.put(path, &role).await.ok();
    server.0.stop().await;
    let server = Server(ApiServer::build(Config::new(store)).await.expect("a second start"));
    let rules = server.get(path).await.ok()["rules"].clone();
    let rules = rules.as_array().expect("rules").clone();
    assert!(rules.contains(&extra) && rules.len() > 1, "{rules:?}");
}
