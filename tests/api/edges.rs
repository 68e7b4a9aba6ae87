//! Requests at the edges: paths, methods and media types that are none of ours, and watches that begin with a list.
//!
//! Owns: what is expected of them, compared with the reference server by hand.
//! Called by: the test harness.
//! Never: needs a cluster.

use serde_json::{Value, json};

use crate::server::Server;

const METHOD: &str = "405 MethodNotAllowed: the server does not allow this method on the requested resource";
const PATH: &str = "404 NotFound: the server could not find the requested resource";
const MEDIA: &str = "406 NotAcceptable: only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";

#[tokio::test]
async fn what_no_route_knows_is_told_as_a_status() {
    let server = Server::start().await;
    for (method, path, expected) in [
        ("OPTIONS", "/api/v1/namespaces/default", METHOD),
        ("HEAD", "/api/v1/namespaces/default", METHOD),
        ("POST", "/api/v1/namespaces/default", METHOD),
        ("PUT", "/api/v1/namespaces", METHOD),
        ("DELETE", "/api/v1/namespaces", METHOD),
        ("POST", "/api/v1/pods", METHOD),
        ("POST", "/version", METHOD),
        ("DELETE", "/api/v1", METHOD),
        ("POST", "/api/v1/namespaces/default/pods/x/log", METHOD),
        ("GET", "/api/v1/nothings", PATH),
        ("GET", "/api/v1/pods/x", PATH),
        ("GET", "/api/v1/namespaces/default/nodes", PATH),
        ("GET", "/api/v1/namespaces/default/pods/x/foo", PATH),
        ("GET", "/apis/apps/v9", PATH),
        ("GET", "/apis/apps/v9/deployments", PATH),
    ] {
        assert_eq!(server.send(method, path, &[], "{}").await.refusal(), expected, "{method} {path}");
    }
    for path in ["/apis/nothing", "/apis/nothing/v1", "/apis/nothing/v1/things", "/foo"] {
        let answer = server.get(path).await;
        assert_eq!((answer.code, &answer.body), (404, &json!("404 page not found\n")), "{path}");
    }
    assert_eq!(server.send("POST", "/healthz", &[], "").await.code, 200);
}

#[tokio::test]
async fn media_types_are_negotiated() {
    let server = Server::start().await;
    let namespaces = "/api/v1/namespaces";
    let cbor = [("accept", "application/cbor, application/json;q=0.9")];
    assert_eq!(server.send("GET", namespaces, &cbor, "").await.ok()["kind"], "NamespaceList");
    let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
    assert_eq!(server.send("GET", namespaces, &[("accept", table)], "").await.refusal(), MEDIA);
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}).to_string();
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let headers = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"), ("content-type", "application/json")];
    assert_eq!(server.send("POST", path, &headers, &review).await.refusal(), MEDIA);
    let sent = server.send("POST", namespaces, &[("content-type", "application/cbor")], "xx").await;
    assert_eq!(
        sent.refusal(),
        "415 UnsupportedMediaType: the body of the request was in an unknown format - accepted media types include: \
         application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
    let patch = server.send("PATCH", "/api/v1/namespaces/default", &[("content-type", "application/json")], "{}").await;
    assert_eq!(patch.refusal(), "415 UnsupportedMediaType: 415: Unsupported Media Type");
}

#[tokio::test]
async fn what_is_nested_too_deeply_is_refused_at_once() {
    let server = Server::start().await;
    let deep = format!(r#"{{"metadata":{{"name":"a"}},"data":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    let path = "/api/v1/namespaces/default/configmaps";
    let started = std::time::Instant::now();
    assert_eq!(server.send("POST", path, &[], &deep).await.code, 400);
    assert_eq!(server.send("POST", path, &[("content-type", "application/yaml")], &deep).await.code, 400);
    let apply = [("content-type", "application/apply-patch+yaml")];
    assert_eq!(server.send("PATCH", &format!("{path}/a?fieldManager=m"), &apply, &deep).await.code, 400);
    assert!(started.elapsed() < std::time::Duration::from_secs(2), "{:?}", started.elapsed());
}

async fn maps(server: &Server, names: &[&str]) {
    for name in names {
        server.post("/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": name}})).await.ok();
    }
}

fn ends_the_list(event: &Value) -> bool {
    event["type"] == "BOOKMARK" && event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"
}

#[tokio::test]
async fn a_watch_can_begin_with_the_whole_list() {
    let server = Server::start().await;
    maps(&server, &["a", "b"]).await;
    for parameters in [
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
        "allowWatchBookmarks=true",
        "resourceVersion=0&allowWatchBookmarks=1",
    ] {
        let path = format!("/api/v1/namespaces/default/configmaps?watch=1&{parameters}");
        let mut events = server.watch(&path).await;
        assert_eq!((events.line().await, events.line().await), ("ADDED a".into(), "ADDED b".into()), "{parameters}");
        let end = events.next().await.expect("a bookmark");
        assert!(ends_the_list(&end), "{parameters}: {end}");
        assert_eq!(end["object"]["kind"], "ConfigMap");
        let list = server.get("/api/v1/namespaces/default/configmaps").await.ok();
        let number = |tree: &Value| tree["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok());
        assert!(number(&end["object"]) <= number(&list), "{end}");
    }
}

#[tokio::test]
async fn the_end_of_the_list_is_a_row_in_a_table() {
    let server = Server::start().await;
    maps(&server, &["a"]).await;
    let path = "/api/v1/namespaces/default/configmaps?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let mut events = server.watch_as(path, &accept).await;
    let first = events.next().await.expect("an event");
    assert_eq!(first["object"]["rows"].as_array().map(Vec::len), Some(1));
    assert!(first["object"]["columnDefinitions"].is_array());
    let end = events.next().await.expect("a bookmark");
    let row = &end["object"]["rows"][0]["object"];
    assert_eq!(
        (&end["type"], &row["metadata"]["annotations"]["k8s.io/initial-events-end"]),
        (&json!("BOOKMARK"), &json!("true"))
    );
    assert!(end["object"]["columnDefinitions"].is_null());
}

#[tokio::test]
async fn a_selector_may_not_contradict_the_path() {
    let server = Server::start().await;
    let path = "/api/v1/watch/namespaces/default/configmaps/a?fieldSelector=metadata.name%3Db";
    assert_eq!(
        server.get(path).await.refusal(),
        "400 BadRequest: fieldSelector metadata.name doesn't match requested name"
    );
}

#[tokio::test]
async fn a_definition_is_told_what_is_wrong_with_it() {
    let server = Server::start().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let causes = async |spec: Value| -> Vec<String> {
        let refused = server.post(path, &json!({"metadata": {"name": "xs.example.com"}, "spec": spec})).await;
        assert_eq!(refused.code, 422, "{}", refused.body);
        let causes = refused.body["details"]["causes"].as_array().expect("causes").clone();
        let text = |c: &Value, field: &str| c[field].as_str().unwrap_or("").to_string();
        causes.iter().map(|c| format!("{} | {}", text(c, "field"), text(c, "message"))).collect()
    };
    let names = json!({"plural": "xs", "kind": "X"});
    let version =
        |schema: Value| json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]);
    assert_eq!(
        causes(json!({"group": "example.com", "scope": "Foo", "names": names, "versions": [{"name": "v1", "served": true, "storage": true}]})).await,
        [
            "spec.scope | Unsupported value: \"Foo\": supported values: \"Cluster\", \"Namespaced\"",
            "spec.versions[0].schema.openAPIV3Schema | Required value",
        ]
    );
    let schema = json!({"type": "object", "properties": {
        "a": {"type": "foo"}, "b": {"type": "array"}, "f": {},
        "e": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "map"},
        "metadata": {"type": "object", "properties": {"foo": {"type": "string"}}}}});
    let at = "spec.validation.openAPIV3Schema.properties";
    assert_eq!(
        causes(json!({"group": "example.com", "scope": "Cluster", "names": names, "versions": version(schema)})).await,
        [
            format!("{at}[b].items | Required value: must be specified"),
            format!("{at}[f].type | Required value: must not be empty for specified object fields"),
            format!(
                "{at}[metadata] | Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
            ),
            format!(
                "{at}[a].type | Unsupported value: \"foo\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\""
            ),
            format!(
                "{at}[e].x-kubernetes-list-map-keys | Required value: must not be empty if x-kubernetes-list-type is map"
            ),
            format!(
                "{at}[e].items.type | Invalid value: \"string\": must be object if parent array's x-kubernetes-list-type is map"
            ),
        ]
    );
    let conversion = json!({"strategy": "Webhook"});
    let mut versions = version(json!({"type": "object"}));
    versions[0]["selectableFields"] = json!([{"jsonPath": ".spec.b"}]);
    versions[0]["additionalPrinterColumns"] = json!([{"name": "a", "type": "x", "jsonPath": "b"}]);
    assert_eq!(
        causes(json!({"group": "example.com", "scope": "Cluster", "names": names, "conversion": conversion, "versions": versions})).await,
        [
            "spec.additionalPrinterColumns[0].type | Invalid value: \"x\": must be one of boolean,date,integer,number,string",
            "spec.additionalPrinterColumns[0].JSONPath | Invalid value: \"b\": must be a simple json path starting with .",
            "spec.selectableFields[0].jsonPath | Invalid value: \".spec.b\": is an invalid path: does not refer to a valid field",
            "spec.conversion.webhookClientConfig | Required value: required when strategy is set to Webhook",
            "spec.conversion.conversionReviewVersions | Required value",
        ]
    );
}

/// Whether a manager owned the moment depended on whether a second had gone by since the volume was made.
#[tokio::test]
async fn nobody_owns_the_moment_at_which_a_volume_changes_its_phase() {
    let server = Server::start().await;
    let volumes = "/api/v1/persistentvolumes";
    let spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/a", "type": ""}});
    server.post(volumes, &json!({"metadata": {"name": "v"}, "spec": spec})).await.ok();
    let status = format!("{volumes}/v/status");
    let long_ago = json!({"status": {"lastPhaseTransitionTime": "2020-01-01T00:00:00Z"}});
    server.patch("merge", &format!("{status}?fieldManager=one"), &long_ago).await.ok();
    let available = json!({"status": {"phase": "Available"}});
    let volume = server.patch("merge", &format!("{status}?fieldManager=two"), &available).await.ok();
    assert_ne!(volume["status"]["lastPhaseTransitionTime"], "2020-01-01T00:00:00Z");
    let managers = volume["metadata"]["managedFields"].as_array().expect("managers");
    let two = managers.iter().find(|entry| entry["manager"] == "two").expect("the second manager");
    assert_eq!(two["fieldsV1"], json!({"f:status": {"f:phase": {}}}));
}
