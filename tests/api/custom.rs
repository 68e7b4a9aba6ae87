//! Custom resources: defined, served, checked, and gone with their definition.

use serde_json::{Value, json};

use crate::server::Server;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const TABS: &str = "/apis/example.com/v1/namespaces/default/crontabs";

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "shortNames": ["ct"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "additionalPrinterColumns": [{"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["cronSpec"], "properties": {
                        "cronSpec": {"type": "string", "pattern": "^[0-9* ]+$"},
                        "replicas": {"type": "integer", "default": 3, "maximum": 9},
                    }},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
                }}},
            }],
        },
    })
}

async fn established() -> Server {
    let server = Server::start().await;
    server.define(&definition()).await;
    server
}

fn tab(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn an_established_definition_serves_its_objects() {
    let server = established().await;
    let created = server.post(TABS, &tab("a", json!({"cronSpec": "* *", "extra": 1}))).await;
    assert_eq!(created.headers["warning"], r#"299 - "unknown field \"spec.extra\"""#);
    let created = created.ok();
    assert_eq!(
        (&created["spec"], &created["metadata"]["generation"]),
        (&json!({"cronSpec": "* *", "replicas": 3}), &json!(1))
    );
    let scaled = server.patch("merge", &format!("{TABS}/a/scale"), &json!({"spec": {"replicas": 5}})).await.ok();
    assert_eq!(scaled["spec"]["replicas"], 5);
    let patched = server
        .patch("merge", &format!("{TABS}/a"), &json!({"spec": {"cronSpec": "1"}, "status": {"replicas": 1}}))
        .await
        .ok();
    assert_eq!((&patched["spec"]["replicas"], patched.get("status")), (&json!(5), None));
    let status = server.patch("merge", &format!("{TABS}/a/status"), &json!({"status": {"replicas": 1}})).await.ok();
    assert_eq!((&status["status"]["replicas"], &status["metadata"]["generation"]), (&json!(1), &json!(3)));
    let strategic = server.patch("strategic-merge", &format!("{TABS}/a"), &json!({})).await;
    assert_eq!(strategic.code, 415);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = server.send("GET", TABS, &[("accept", accept)], "").await.ok();
    assert_eq!(table["rows"][0]["cells"], json!(["a", "1"]));
    let applied =
        server.patch("apply", &format!("{TABS}/b?fieldManager=me"), &tab("b", json!({"cronSpec": "2"}))).await;
    let applied = (applied.code, applied.ok());
    assert_eq!((applied.0, &applied.1["metadata"]["managedFields"][0]["manager"]), (201, &json!("me")));
}

#[tokio::test]
async fn an_object_that_does_not_fit_its_schema_is_refused() {
    let server = established().await;
    let refused = server.post(TABS, &tab("a", json!({"cronSpec": "x", "replicas": 10}))).await.refusal();
    assert_eq!(
        refused,
        "422 Invalid: CronTab.example.com \"a\" is invalid: [spec.cronSpec: Invalid value: \"x\": spec.cronSpec in body should match '^[0-9* ]+$', spec.replicas: Invalid value: 10: spec.replicas in body should be less than or equal to 9]"
    );
    let strict = server
        .post(&format!("{TABS}?fieldValidation=Strict"), &tab("a", json!({"cronSpec": "1", "b": 1})))
        .await
        .refusal();
    assert!(strict.contains(r#"strict decoding error: unknown field "spec.b""#), "{strict}");
}

/// Each layer of upstream tells what it finds, where a kind has no declarative validation.
#[tokio::test]
async fn a_fault_of_metadata_is_a_cause_for_every_layer_that_finds_it() {
    let server = established().await;
    server.post(TABS, &tab("a", json!({"cronSpec": "*"}))).await.ok();
    let (one, label) = (format!("{TABS}/a"), json!({"metadata": {"labels": {"a": "no label!"}}}));
    for (path, causes) in [
        (one.as_str(), 3),
        (&format!("{DEFINITIONS}/crontabs.example.com"), 3),
        ("/apis/apiregistration.k8s.io/v1/apiservices/v1.apps", 4),
        ("/api/v1/namespaces/default", 1),
    ] {
        let refused = server.patch("merge", path, &label).await;
        assert_eq!(refused.body["details"]["causes"].as_array().map(Vec::len), Some(causes), "{path}");
        assert_eq!(refused.body["message"].as_str().expect("a sentence").matches("metadata.labels").count(), 1);
    }
    let finalizer = json!({"metadata": {"finalizers": ["not valid"]}});
    assert_eq!(server.patch("merge", &one, &finalizer).await.code, 422);
}

#[tokio::test]
async fn a_patch_cannot_change_who_an_object_is() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default";
    for patch in [json!({"uid": "other"}), json!({"deletionTimestamp": "2020-01-01T00:00:00Z"})] {
        let refused = server.patch("merge", path, &json!({"metadata": patch})).await;
        assert!(refused.refusal().contains("field is immutable"), "{}", refused.body);
    }
    server.patch("merge", path, &json!({"metadata": {"uid": null, "creationTimestamp": null}})).await.ok();
}

#[tokio::test]
async fn discovery_and_openapi_follow_definitions() {
    let server = established().await;
    let list = server.get("/apis/example.com/v1").await.ok();
    let names: Vec<&str> =
        list["resources"].as_array().expect("resources").iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["crontabs", "crontabs/scale", "crontabs/status"]);
    let index = server.get("/openapi/v3").await.ok();
    assert!(index["paths"]["apis/example.com/v1"].is_object());
    let document = server.get("/openapi/v3/apis/example.com/v1").await.ok();
    assert!(document["components"]["schemas"]["com.example.v1.CronTab"]["properties"]["spec"].is_object());
}

#[tokio::test]
async fn a_definition_takes_its_objects_with_it() {
    let server = established().await;
    server.post(TABS, &tab("a", json!({"cronSpec": "1"}))).await.ok();
    let mut held = tab("b", json!({"cronSpec": "1"}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(TABS, &held).await.ok();
    let mut events = server.watch(&format!("{DEFINITIONS}?watch=1")).await;
    assert_eq!(events.line().await, "ADDED crontabs.example.com");
    server.delete(&format!("{DEFINITIONS}/crontabs.example.com")).await.ok();
    // It is to go; its objects are going.
    for _ in 0..2 {
        assert_eq!(events.line().await, "MODIFIED crontabs.example.com");
    }
    let mut tabs = server.watch(&format!("{TABS}?watch=1")).await;
    while server.get(&format!("{TABS}/b")).await.ok()["metadata"]["deletionTimestamp"].is_null() {
        tabs.line().await;
    }
    let free = json!({"metadata": {"finalizers": null}});
    server.patch("merge", &format!("{TABS}/b"), &free).await.ok();
    assert_eq!(events.line().await, "DELETED crontabs.example.com");
    // The server hears of it at the same time as this test.
    while server.get(TABS).await.code != 404 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_applied_field_that_the_schema_does_not_know_is_refused() {
    let server = established().await;
    let path = format!("{TABS}/a?fieldManager=me");
    let mut unknown = tab("a", json!({"cronSpec": "1"}));
    unknown["unknownField"] = "x".into();
    assert_eq!(
        server.patch("apply", &path, &unknown).await.refusal(),
        "500 : failed to create typed patch object (/a; example.com/v1, Kind=CronTab): .unknownField: field not \
         declared in schema"
    );
    let mut meta = tab("a", json!({"cronSpec": "1"}));
    meta["metadata"]["unknownMeta"] = "x".into();
    let refusal = server.patch("apply", &path, &meta).await.refusal();
    assert!(refusal.ends_with(".metadata.unknownMeta: field not declared in schema"), "{refusal}");
    let twice =
        "apiVersion: example.com/v1\nkind: CronTab\nmetadata:\n  name: a\nspec:\n  cronSpec: '1'\n  cronSpec: '2'\n";
    let headers = [("content-type", "application/apply-patch+yaml")];
    let refused = server.send("PATCH", &format!("{path}&fieldValidation=Strict"), &headers, twice).await.refusal();
    assert!(refused.starts_with("400 BadRequest: error strict decoding patch: "), "{refused}");
    assert!(refused.ends_with("line 7: key \"cronSpec\" already set in map"), "{refused}");
}

/// As Gateway API and Istio have them for labels; they were refused as too costly, since nothing bounds a key.
#[tokio::test]
async fn rules_over_the_keys_of_a_map_are_cheap_enough() {
    let mut definition = definition();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["labels"] = json!({
        "type": "object", "maxProperties": 64, "additionalProperties": {"type": "string", "maxLength": 63},
        "x-kubernetes-validations": [
            {"rule": "self.all(key, key.matches(r\"\"\"^([a-z.-]+/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$\"\"\"))"},
            {"rule": "self.all(key, key.split('/')[0].size() < 253)"},
        ],
    });
    Server::start().await.post(DEFINITIONS, &definition).await.ok();
}
