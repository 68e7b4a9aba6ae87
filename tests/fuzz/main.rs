//! Garbage in: whatever is sent, the API server answers, soon, and blames the sender.
//!
//! Owns: seeded random bodies, patches, paths, queries and expressions, made from valid ones by damaging them.
//! Called by: `cargo test`, and for longer with `MINIK_FUZZ_ROUNDS`.
//! Never: accepts an answer that blames the server.

#[path = "../api/server.rs"]
#[allow(dead_code, reason = "the API tests use more of it")]
mod server;

use std::time::Duration;

use http_body_util::BodyExt;
use minik_apiserver::body::Body;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use server::Server;

/// Some seconds' worth in a debug build.
const ROUNDS: usize = 300;
/// No answer may take longer, however slow the machine.
const ANSWER_MAX: Duration = Duration::from_secs(10);

fn rounds() -> usize {
    std::env::var("MINIK_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS)
}

/// Replaces, drops, doubles and inserts bytes.
fn damaged(text: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..5) {
            0 if at < bytes.len() => bytes[at] = random.random(),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.insert(at, *b"{}[]\",:0-e\\\0\xff".get(random.random_range(0..13)).unwrap_or(&b'x')),
            3 => {
                let end = random.random_range(at..=bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Sends bytes that need not be text, and demands an answer that does not blame the server.
async fn send(server: &Server, method: &str, path: &str, media: &str, content: &[u8]) {
    let Ok(uri) = path.parse::<http::Uri>() else { return };
    let mut request = Server::request(method, "/", &[("content-type", media)], "");
    *request.uri_mut() = uri;
    let request: http::Request<Body> = request.map(|_| minik_apiserver::body::full(content.to_vec()));
    let answer = tokio::time::timeout(ANSWER_MAX, server.0.handle(request)).await;
    let shown = || format!("{method} {path} {media}\n{}", String::from_utf8_lossy(content));
    let answer = answer.unwrap_or_else(|_| panic!("no answer in time: {}", shown()));
    // Upstream too blames itself for a strategic patch that does not fit its schema.
    // And for an applied one with a field that the schema does not have.
    let is_patch = media.contains("strategic") || media.contains("apply-patch");
    let excused = is_patch && answer.status() == 500;
    assert!(answer.status().as_u16() < 500 || excused, "{} for {}", answer.status(), shown());
    if excused {
        let text = answer.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains("handler failed"), "{}", shown());
        let typed = text.contains("failed to create typed patch object");
        assert!(media.contains("strategic") || typed, "{text} for {}", shown());
    }
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "250m", "memory": "1Gi"}}}]}}},
    })
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[tokio::test]
async fn damaged_bodies_are_refused_or_understood() {
    let (server, mut random) = (Server::start().await, StdRng::seed_from_u64(1));
    let json = deployment().to_string();
    let media = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "text/plain"];
    for _ in 0..rounds() {
        let body = damaged(json.as_bytes(), &mut random);
        send(&server, "POST", DEPLOYMENTS, media[random.random_range(0..media.len())], &body).await;
    }
    let envelope: Vec<u8> = [&b"k8s\0\x0a\x15\x0a\x07apps/v1\x12\x0aDeployment\x12\x20"[..], &[0x0a; 32]].concat();
    for _ in 0..rounds() {
        let body = damaged(&envelope, &mut random);
        send(&server, "POST", DEPLOYMENTS, "application/vnd.kubernetes.protobuf", &body).await;
    }
}

#[tokio::test]
async fn damaged_patches_are_refused_or_applied() {
    let (server, mut random) = (Server::start().await, StdRng::seed_from_u64(2));
    server.post(DEPLOYMENTS, &deployment()).await.ok();
    let operations = json!([{"op": "replace", "path": "/spec/replicas", "value": 3}, {"op": "test", "path": "/a/0/-", "value": null},
        {"op": "copy", "from": "/metadata/labels", "path": "/metadata/annotations"}, {"op": "remove", "path": "/spec/template/spec/containers/0"}]);
    let merge = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "$patch": "delete"}],
        "$setElementOrder/containers": [{"name": "c"}], "$retainKeys": ["containers"]}}}});
    let kinds = [
        ("application/json-patch+json", operations.to_string()),
        ("application/merge-patch+json", merge.to_string()),
        ("application/strategic-merge-patch+json", merge.to_string()),
        ("application/apply-patch+yaml", deployment().to_string()),
    ];
    for _ in 0..rounds() {
        let (media, text) = &kinds[random.random_range(0..kinds.len())];
        let path = format!("{DEPLOYMENTS}/web?fieldManager=me&force=true");
        let path = if *media == "application/apply-patch+yaml" { path } else { format!("{DEPLOYMENTS}/web") };
        send(&server, "PATCH", &path, media, &damaged(text.as_bytes(), &mut random)).await;
    }
}

#[tokio::test]
async fn damaged_paths_and_queries_lead_nowhere_quickly() {
    let (server, mut random) = (Server::start().await, StdRng::seed_from_u64(3));
    let token = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhXHUwMDAwIn0";
    let paths = [
        format!("{DEPLOYMENTS}?labelSelector=a%20in%20(b,c),!d,e!=f&fieldSelector=metadata.name%3Dx"),
        format!("{DEPLOYMENTS}?limit=5&continue={token}&resourceVersion=1&resourceVersionMatch=Exact"),
        "/api/v1/namespaces/default/pods/p/log?follow=0&tailLines=5".to_string(),
        "/apis/apps/v1/namespaces/default/deployments/web/scale?pretty=1&dryRun=All".to_string(),
        "/openapi/v3/apis/apps/v1?hash=ABC".to_string(),
        "/api/v1/namespaces/default/services/http:web:80/proxy/a%2f..%2fb".to_string(),
    ];
    for _ in 0..rounds() {
        let path = damaged(paths[random.random_range(0..paths.len())].as_bytes(), &mut random);
        let path: String = String::from_utf8_lossy(&path).into_owned();
        // A damaged watch would go on; what is asked here ends.
        if !path.contains("watch") && path.starts_with('/') && !path.contains("/proxy") && !path.contains("/log") {
            send(&server, "GET", &path, "", b"").await;
        }
    }
}

#[tokio::test]
async fn damaged_expressions_are_refused_or_compiled() {
    let (server, mut random) = (Server::start().await, StdRng::seed_from_u64(4));
    let expressions = [
        "object.spec.replicas <= 5 && object.metadata.labels.all(k, k.startsWith('a') || k in ['b', 'c'])",
        "has(object.spec.x) ? object.spec.?x[?0].orValue('z').matches('^[a-z]+$') : request.userInfo.groups.exists(g, g == 'x')",
        "quantity('1Gi').isGreaterThan(quantity(object.a)) && cidr('10.0.0.0/8').containsIP(object.ip) && duration('1h') > duration('30m')",
        "authorizer.group('').resource('pods').check('get').allowed() && url('https://a/b?c').getQuery() == {'c': ['']}",
    ];
    for _ in 0..rounds() {
        let text = damaged(expressions[random.random_range(0..expressions.len())].as_bytes(), &mut random);
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"},
            "spec": {"validations": [{"expression": String::from_utf8_lossy(&text)}], "matchConstraints": {"resourceRules": [
                {"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]}},
        });
        let path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies?dryRun=All";
        send(&server, "POST", path, "application/json", policy.to_string().as_bytes()).await;
    }
}

#[tokio::test]
async fn what_is_deep_or_large_is_bounded() {
    let server = Server::start().await;
    let deep = |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let maps = "/api/v1/namespaces/default/configmaps";
    for (media, body) in [
        ("application/json", deep("[", "]", 100_000)),
        ("application/json", deep("{\"a\":", "}", 100_000)),
        ("application/yaml", deep("[", "]", 20_000)),
        ("application/yaml", "a: &a [x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g]\n".into()),
        ("application/json", json!({"metadata": {"name": "m"}, "data": {"k".repeat(2 << 20): "v"}}).to_string()),
    ] {
        send(&server, "POST", maps, media, body.as_bytes()).await;
    }
    let large = server.send("POST", maps, &[("content-type", "application/json")], &" ".repeat((3 << 20) + 1)).await;
    assert_eq!(large.refusal(), "413 RequestEntityTooLarge: Request entity too large: limit is 3145728");
    server.post(maps, &json!({"metadata": {"name": "m"}})).await.ok();
    let operations: Vec<Value> = (0..10_001).map(|_| json!({"op": "test", "path": "/x", "value": null})).collect();
    let many = server.patch("json", &format!("{maps}/m"), &operations.into()).await;
    assert_eq!(
        many.refusal(),
        "413 RequestEntityTooLarge: The allowed maximum operations in a JSON patch is 10000, got 10001"
    );
}
