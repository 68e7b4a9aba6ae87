//! The documents are whole, and say what kubectl looks for.

use serde_json::Value;

use super::*;

fn read(path: &str) -> Value {
    let text = document(path, &Descriptions::none()).expect("a served path");
    serde_json::from_str(&text).expect("the document is JSON")
}

#[test]
fn every_document_is_json_and_every_reference_leads_somewhere() {
    for path in paths_served() {
        let text = document(path, &Descriptions::none()).expect("a served path");
        let document: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
        let schemas = &document["components"]["schemas"];
        for reference in text.split("\"#/components/schemas/").skip(1).filter_map(|t| t.split('"').next()) {
            assert!(schemas.get(reference).is_some(), "{path}: {reference}");
        }
    }
}

#[test]
fn a_port_is_told_apart_by_number_and_protocol() {
    let ports = &read("api/v1")["components"]["schemas"]["io.k8s.api.core.v1.Container"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-list-map-keys"], serde_json::json!(["containerPort", "protocol"]));
}

#[test]
fn patching_says_that_fields_are_validated_as_kubectl_asks() {
    let patch = &read("apis/apps/v1")["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let names: Vec<&str> =
        patch["parameters"].as_array().expect("parameters").iter().filter_map(|p| p["name"].as_str()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
}

#[test]
fn the_old_document_has_all_definitions() {
    let text = document_v2(&Descriptions::none(), |_, _| {});
    let document: Value = serde_json::from_str(&text).expect("the document is JSON");
    for reference in text.split("\"#/definitions/").skip(1).filter_map(|t| t.split('"').next()) {
        assert!(document["definitions"].get(reference).is_some(), "{reference}");
    }
}

#[test]
fn descriptions_are_found_by_type_and_by_field() {
    use std::io::Write;
    let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    packer
        .write_all(b"io.k8s.api.core.v1.Pod\tA pod.\nio.k8s.api.core.v1.Pod spec\tSays \\\"what\\\".\n")
        .expect("memory");
    let words = Descriptions::unpack(&packer.finish().expect("memory")).expect("it was packed here");
    assert_eq!(words.of_type("io.k8s.api.core.v1.Pod"), Some("A pod."));
    let text = document("api/v1", &words).expect("a served path");
    let document: Value = serde_json::from_str(&text).expect("the document is JSON");
    let pod = &document["components"]["schemas"]["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["properties"]["spec"]["description"], "Says \"what\".");
}

#[test]
fn a_custom_resource_is_published_with_its_own_schema() {
    let mut foo = crate::registry::lookup("apps", "v1", "deployments").expect("a row to copy").clone();
    (foo.group, foo.plural, foo.kind, foo.list_kind) =
        ("example.com".into(), "foos".into(), "Foo".into(), "FooList".into());
    foo.subresources.iter_mut().filter(|s| s.name == "status").for_each(|s| s.kind.kind = "Foo".into());
    let schema = serde_json::json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "a": {"type": "string", "default": "x"}, "b": {"x-kubernetes-int-or-string": true, "type": "string"}}}}});
    let kinds = [CustomKind { resource: &foo, schema: Some(&schema) }];
    let text = custom_document(&kinds, &Descriptions::none());
    let v3: Value = serde_json::from_str(&text).expect("the document is JSON");
    for reference in text.split("\"#/components/schemas/").skip(1).filter_map(|t| t.split('"').next()) {
        assert!(v3["components"]["schemas"].get(reference).is_some(), "{reference}");
    }
    let published = &v3["components"]["schemas"]["com.example.v1.Foo"];
    assert_eq!(published["properties"]["spec"]["properties"]["a"]["default"], "x");
    assert_eq!(published["x-kubernetes-group-version-kind"][0]["kind"], "Foo");
    assert!(v3["paths"].get("/apis/example.com/v1/namespaces/{namespace}/foos/{name}/scale").is_some());

    let text = document_v2(&Descriptions::none(), |paths, schemas| add_custom(&kinds, paths, schemas));
    let v2: Value = serde_json::from_str(&text).expect("the document is JSON");
    let fields = &v2["definitions"]["com.example.v1.Foo"]["properties"]["spec"]["properties"];
    assert_eq!(fields, &serde_json::json!({"a": {"type": "string"}, "b": {"x-kubernetes-int-or-string": true}}));
}
