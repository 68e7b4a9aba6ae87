//! Webhooks and admission policies: called over TLS, as a client sees what they do.
//!
//! Owns: a webhook of our own on loopback that does what a test tells it.
//! Called by: the test harness.
//! Never: needs a cluster: the webhook is reached by URL.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::server::Server;

fn encode(text: impl AsRef<[u8]>) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// What a webhook answers to a request, or nothing for a while.
type Behaviour = fn(&Value) -> Option<Value>;

/// Serves `behaviour`; answers the `clientConfig` that leads there.
async fn webhook(behaviour: Behaviour) -> Value {
    listen(move |review| {
        let mut response = behaviour(&review["request"])?;
        response["uid"] = review["request"]["uid"].clone();
        Some(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
    })
    .await
}

/// Serves what `answer` says to the body of each request; `None` is silence.
pub async fn listen(answer: impl Fn(Value) -> Option<Value> + Clone + Send + Sync + 'static) -> Value {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("parameters");
    let certificate = params.self_signed(&key).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a private key");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .expect("a server");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let bytes = request.into_body().collect().await?.to_bytes();
                        let review: Value = serde_json::from_slice(&bytes).expect("a review");
                        let Some(answer) = answer(review) else {
                            return std::future::pending().await;
                        };
                        Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from(answer.to_string()))))
                    }
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    json!({"url": format!("https://localhost:{port}/hook"), "caBundle": encode(certificate.pem())})
}

fn configuration(kind: &str, hooks: &[Value]) -> Value {
    let hooks: Vec<Value> = hooks
        .iter()
        .map(|hook| {
            let mut whole = json!({"name": "hook.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]});
            for (key, value) in hook.as_object().expect("fields") {
                whole[key.as_str()] = value.clone();
            }
            whole
        })
        .collect();
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "test"}, "webhooks": hooks})
}

async fn register(server: &Server, kind: &str, hooks: &[Value]) {
    let plural = format!("{}s", kind.to_lowercase());
    let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
    server.post(&path, &configuration(kind, hooks)).await.ok();
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

#[tokio::test]
async fn a_validating_webhook_refuses_and_warns() {
    let server = Server::start().await;
    let place = webhook(|request| {
        let bad = request["object"]["metadata"]["name"] == "bad";
        Some(json!({"allowed": !bad, "warnings": ["careful"], "status": {"code": 403, "reason": "Forbidden", "message": "no bad maps"}}))
    })
    .await;
    register(&server, "ValidatingWebhookConfiguration", &[json!({"clientConfig": place})]).await;
    assert_eq!(
        server.post(MAPS, &map("bad")).await.refusal(),
        r#"403 Forbidden: admission webhook "hook.example.com" denied the request: no bad maps"#
    );
    let good = server.post(MAPS, &map("good")).await;
    assert_eq!(good.headers["warning"], r#"299 - "careful""#);
    good.ok();
}

fn append(request: &Value, letter: &str) -> Option<Value> {
    let before = request["object"]["data"]["seen"].as_str().unwrap_or("");
    let patch = json!([{"op": "add", "path": "/data/seen", "value": format!("{before}{letter}")}]);
    Some(json!({"allowed": true, "patchType": "JSONPatch", "patch": encode(patch.to_string())}))
}

#[tokio::test]
async fn mutating_webhooks_see_each_others_changes_and_are_asked_again_when_they_want() {
    let server = Server::start().await;
    let first = webhook(|request| append(request, "a")).await;
    let second = webhook(|request| append(request, "b")).await;
    let hooks = [
        json!({"name": "a.example.com", "clientConfig": first, "reinvocationPolicy": "IfNeeded"}),
        json!({"name": "b.example.com", "clientConfig": second}),
    ];
    register(&server, "MutatingWebhookConfiguration", &hooks).await;
    assert_eq!(server.post(MAPS, &map("m")).await.ok()["data"]["seen"], "aba");
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_fails_as_its_policy_says() {
    let server = Server::start().await;
    let place = webhook(|_| None).await;
    let hook = json!({"clientConfig": place, "timeoutSeconds": 1, "failurePolicy": "Fail"});
    register(&server, "ValidatingWebhookConfiguration", &[hook]).await;
    let started = std::time::Instant::now();
    let refusal = server.post(MAPS, &map("m")).await.refusal();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(
        refusal.starts_with(r#"500 InternalError: Internal error occurred: failed calling webhook "hook.example.com": failed to call webhook: Post"#)
            && refusal.ends_with("context deadline exceeded"),
        "{refusal}"
    );
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/test";
    let open = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
    server.patch("json", path, &open).await.ok();
    server.post(MAPS, &map("m")).await.ok();
}

#[tokio::test]
async fn a_connection_to_a_pod_can_be_refused() {
    let server = Server::start().await;
    let place = webhook(|request| {
        let attaching = request["object"]["kind"] == "PodAttachOptions" && request["operation"] == "CONNECT";
        Some(json!({"allowed": !attaching, "status": {"code": 403, "message": "attaching is not allowed"}}))
    })
    .await;
    let rules =
        json!([{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/attach"]}]);
    register(&server, "ValidatingWebhookConfiguration", &[json!({"clientConfig": place, "rules": rules})]).await;
    let refusal = server.post("/api/v1/namespaces/default/pods/p/attach?stdin=true", &json!({})).await.refusal();
    assert_eq!(refusal, r#"403 : admission webhook "hook.example.com" denied the request: attaching is not allowed"#);
    let other = server.post("/api/v1/namespaces/default/pods/p/exec?command=ls", &json!({})).await.refusal();
    assert!(other.starts_with("404 NotFound"), "{other}");
}

#[tokio::test]
async fn a_webhook_is_asked_only_where_its_conditions_hold() {
    let server = Server::start().await;
    let place = webhook(|_| Some(json!({"allowed": false}))).await;
    let hook = json!({"clientConfig": place, "matchConditions": [
        {"name": "not-free", "expression": "object.metadata.name != 'free' && request.userInfo.username == 'admin'"}]});
    register(&server, "ValidatingWebhookConfiguration", &[hook]).await;
    server.post(MAPS, &map("free")).await.ok();
    assert_eq!(
        server.post(MAPS, &map("m")).await.refusal(),
        r#"400 : admission webhook "hook.example.com" denied the request without explanation"#
    );
}
