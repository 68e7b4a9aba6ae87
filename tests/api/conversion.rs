//! Custom resources whose versions a webhook turns into one another.
//!
//! Owns: a definition with `hostPort` in v1, and `host` and `port` in v2, and the webhook between them.
//! Called by: the test harness.
//! Never: needs a cluster.

use serde_json::{Value, json};

use crate::server::Server;
use crate::webhooks::listen;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/example.com/v1/namespaces/default/places";
const V2: &str = "/apis/example.com/v2/namespaces/default/places";

fn converted(mut object: Value, wanted: &str) -> Value {
    match wanted {
        "example.com/v2" => {
            let both = object["hostPort"].as_str().unwrap_or("").to_string();
            let (host, port) = both.split_once(':').unwrap_or((&both, ""));
            (object["host"], object["port"]) = (host.into(), port.into());
        }
        _ => {
            let text = |field: &str| object[field].as_str().unwrap_or("").to_string();
            object["hostPort"] = format!("{}:{}", text("host"), text("port")).into();
        }
    }
    object["apiVersion"] = wanted.into();
    object
}

fn answer(review: &Value) -> Value {
    let wanted = review["request"]["desiredAPIVersion"].as_str().expect("a version").to_string();
    let objects = review["request"]["objects"].as_array().expect("objects").clone();
    let refused = objects.iter().any(|o| o["metadata"]["name"] == "stuck" && wanted == "example.com/v2");
    let result = match refused {
        true => json!({"status": "Failed", "message": "it does not fit"}),
        false => json!({"status": "Success"}),
    };
    let objects: Vec<Value> = objects.into_iter().map(|o| converted(o, &wanted)).collect();
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "response": {"uid": review["request"]["uid"], "result": result, "convertedObjects": objects}})
}

async fn server() -> Server {
    let server = Server::start().await;
    let place = listen(|review| Some(answer(&review))).await;
    let version = |name: &str, storage: bool, fields: &[&str]| {
        let properties: serde_json::Map<String, Value> =
            fields.iter().map(|f| (f.to_string(), json!({"type": "string"}))).collect();
        let selectable: Vec<Value> = fields.iter().map(|f| json!({"jsonPath": format!(".{f}")})).collect();
        json!({"name": name, "served": true, "storage": storage, "selectableFields": selectable,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
    };
    let definition = json!({
        "metadata": {"name": "places.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "places", "kind": "Place"},
            "versions": [version("v1", true, &["hostPort"]), version("v2", false, &["host", "port"])],
            "conversion": {"strategy": "Webhook", "webhook": {
                "clientConfig": place, "conversionReviewVersions": ["v1", "v1beta1"]}},
        },
    });
    server.define(&definition).await;
    server
}

fn old(name: &str, host_port: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Place", "metadata": {"name": name}, "hostPort": host_port})
}

#[tokio::test]
async fn an_object_is_read_and_written_in_both_versions() {
    let server = server().await;
    let mut events = server.watch(&format!("{V2}?watch=1")).await;
    server.post(V1, &old("a", "one:1")).await.ok();
    let read = server.get(&format!("{V2}/a")).await.ok();
    assert_eq!((&read["host"], &read["port"], read.get("hostPort")), (&json!("one"), &json!("1"), None));
    let seen = events.next().await.expect("an event");
    assert_eq!((&seen["type"], &seen["object"]["host"]), (&json!("ADDED"), &json!("one")));
    let new =
        json!({"apiVersion": "example.com/v2", "kind": "Place", "metadata": {"name": "b"}, "host": "two", "port": "2"});
    let created = server.post(V2, &new).await.ok();
    assert_eq!((&created["apiVersion"], &created["host"]), (&json!("example.com/v2"), &json!("two")));
    assert_eq!(server.get(&format!("{V1}/b")).await.ok()["hostPort"], "two:2");
    let patched = server.patch("merge", &format!("{V2}/a"), &json!({"port": "3"})).await.ok();
    assert_eq!((&patched["host"], &patched["port"]), (&json!("one"), &json!("3")));
    assert_eq!(server.get(&format!("{V1}/a")).await.ok()["hostPort"], "one:3");
    let list = server.get(V2).await.ok();
    let hosts: Vec<&Value> = list["items"].as_array().expect("items").iter().map(|i| &i["host"]).collect();
    assert_eq!(hosts, ["one", "two"]);
}

#[tokio::test]
async fn fields_are_selected_as_they_are_in_the_version_of_the_request() {
    let server = server().await;
    server.post(V1, &old("a", "one:1")).await.ok();
    server.post(V1, &old("b", "two:2")).await.ok();
    let mut events = server.watch(&format!("{V2}?watch=1&fieldSelector=host%3Dtwo")).await;
    assert_eq!(events.line().await, "ADDED b");
    let list = server.get(&format!("{V2}?fieldSelector=host%3Dtwo")).await.ok();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    server.patch("merge", &format!("{V2}/b"), &json!({"host": "three"})).await.ok();
    let gone = events.next().await.expect("an event");
    assert_eq!((&gone["type"], &gone["object"]["host"]), (&json!("DELETED"), &json!("two")));
}

#[tokio::test]
async fn what_cannot_be_converted_is_told_in_the_webhooks_words() {
    let server = server().await;
    server.post(V1, &old("stuck", "one:1")).await.ok();
    assert_eq!(
        server.get(&format!("{V2}/stuck")).await.refusal(),
        "500 : conversion webhook for example.com/v1, Kind=Place failed: it does not fit"
    );
    assert_eq!(server.get(V2).await.code, 500);
    server.get(&format!("{V1}/stuck")).await.ok();
}

#[tokio::test]
async fn objects_follow_when_another_version_is_stored() {
    let server = server().await;
    server.post(V1, &old("a", "one:1")).await.ok();
    let path = format!("{DEFINITIONS}/places.example.com");
    let switch = json!([{"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true}]);
    server.patch("json", &path, &switch).await.ok();
    let mut events = server.watch(&format!("{DEFINITIONS}?watch=1")).await;
    while events.next().await.expect("an event")["object"]["status"]["storedVersions"] != json!(["v1", "v2"]) {}
    let new =
        json!({"apiVersion": "example.com/v2", "kind": "Place", "metadata": {"name": "b"}, "host": "two", "port": "2"});
    server.post(V2, &new).await.ok();
    for (path, field, expected) in [(V1, "hostPort", ["one:1", "two:2"]), (V2, "host", ["one", "two"])] {
        let list = server.get(path).await.ok();
        let values: Vec<&Value> = list["items"].as_array().expect("items").iter().map(|i| &i[field]).collect();
        assert_eq!(values, expected, "{path}");
    }
}
