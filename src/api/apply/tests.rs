//! Server-side apply, as a user of kubectl would see it.

use super::last_applied::LAST_APPLIED;
use super::*;
use expect_test::{Expect, expect};

const NOW: &str = "2026-01-01T00:00:00Z";
const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"}, "spec": spec})
}

fn run(live: Option<&Value>, applied: Value, manager: &str, force: bool) -> Result<Value, Status> {
    apply(live, &applied, manager, force, DEPLOYMENT, "", NOW)
}

fn ok(live: Option<&Value>, applied: Value, manager: &str) -> Value {
    run(live, applied, manager, false).expect("no conflict")
}

fn fields(object: &Value, expected: Expect) {
    let mut text = String::new();
    for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
        let head = format!("{} {} {}", entry["manager"], entry["operation"], entry["subresource"]).replace(" null", "");
        text.push_str(&format!("{head}: {}\n", entry["fieldsV1"]));
    }
    expected.assert_eq(&text);
}

fn containers(list: Value) -> Value {
    json!({"template": {"spec": {"containers": list}}})
}

#[test]
fn an_applier_owns_what_it_says() {
    let live = ok(
        None,
        deployment(json!({"replicas": 3, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
        {"name": "c", "image": "i", "args": ["x"], "ports": [{"containerPort": 80}]}]}}})),
        "me",
    );
    assert_eq!(live["spec"]["replicas"], 3);
    fields(
        &live,
        expect![[r#"
        "me" "Apply": {"f:spec":{"f:replicas":{},"f:template":{"f:metadata":{"f:labels":{"f:a":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:args":{},"f:image":{},"f:name":{},"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}}}}}}
    "#]],
    );
}

#[test]
fn another_value_for_an_owned_field_is_a_conflict_that_names_the_owner() {
    let live = ok(None, deployment(json!({"replicas": 3})), "one");
    let status = run(Some(&live), deployment(json!({"replicas": 5})), "two", false).unwrap_err();
    assert_eq!(status.code, 409);
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let forced = run(Some(&live), deployment(json!({"replicas": 5})), "two", true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 5);
    fields(
        &forced,
        expect![[r#"
        "two" "Apply": {"f:spec":{"f:replicas":{}}}
    "#]],
    );
}

#[test]
fn the_same_value_is_shared() {
    let live = ok(None, deployment(json!({"replicas": 3})), "one");
    let live = ok(Some(&live), deployment(json!({"replicas": 3})), "two");
    fields(
        &live,
        expect![[r#"
            "two" "Apply": {"f:spec":{"f:replicas":{}}}
            "one" "Apply": {"f:spec":{"f:replicas":{}}}
        "#]],
    );
    let live = ok(Some(&live), deployment(json!({})), "one");
    assert_eq!(live["spec"]["replicas"], 3, "the other owner still wants it");
    let live = ok(Some(&live), deployment(json!({})), "two");
    assert_eq!(live["spec"].get("replicas"), None);
}

#[test]
fn what_an_applier_drops_is_removed_and_what_others_added_stays() {
    let applied = deployment(containers(
        json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "1"}]),
    ));
    let mut live = ok(None, applied, "me");
    let before = live.clone();
    live["spec"]["template"]["spec"]["containers"][0]["env"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "Y", "value": "2"}));
    live["spec"]["paused"] = true.into();
    track_update(Some(&before), &mut live, "kubectl-edit", Operation::Update, DEPLOYMENT, "apps/v1", "", NOW);
    let live = ok(Some(&live), deployment(containers(json!([{"name": "a", "image": "2"}]))), "me");
    assert_eq!(
        live["spec"]["template"]["spec"]["containers"],
        json!([{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}])
    );
    assert_eq!(live["spec"]["paused"], true);
    fields(
        &live,
        expect![[r#"
        "me" "Apply": {"f:spec":{"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:image":{},"f:name":{}}}}}}}
        "kubectl-edit" "Update": {"f:spec":{"f:paused":{},"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{"f:env":{"k:{\"name\":\"Y\"}":{".":{},"f:name":{},"f:value":{}}}}}}}}}
    "#]],
    );
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let live = ok(None, deployment(json!({"replicas": 3})), "me");
    let again =
        apply(Some(&live), &deployment(json!({"replicas": 3})), "me", false, DEPLOYMENT, "", "2026-02-02T00:00:00Z")
            .unwrap();
    assert_eq!(again, live);
}

#[test]
fn an_update_takes_fields_and_a_status_write_has_its_own_entry() {
    let live = ok(None, deployment(json!({"replicas": 3})), "me");
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = 7.into();
    track_update(Some(&live), &mut scaled, "kubectl-scale", Operation::Update, DEPLOYMENT, "apps/v1", "scale", NOW);
    let before = scaled.clone();
    scaled["status"] = json!({"replicas": 7});
    track_update(Some(&before), &mut scaled, "controller", Operation::Update, DEPLOYMENT, "apps/v1", "status", NOW);
    fields(
        &scaled,
        expect![[r#"
        "controller" "Update" "status": {"f:status":{"f:replicas":{}}}
        "kubectl-scale" "Update" "scale": {"f:spec":{"f:replicas":{}}}
    "#]],
    );
    let status = run(Some(&scaled), deployment(json!({"replicas": 3})), "me", false).unwrap_err();
    assert_eq!(
        status.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-scale\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
}

#[test]
fn a_create_owns_maps_it_made() {
    let mut new = decode::from_value(
        crate::schema::Type::of("v1", "Pod").unwrap(),
        json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .unwrap()
    .object;
    track_update(None, &mut new, "kubectl-create", Operation::Update, "io.k8s.api.core.v1.Pod", "v1", "", NOW);
    fields(
        &new,
        expect![[r#"
        "kubectl-create" "Update": {"f:metadata":{"f:labels":{".":{},"f:a":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{},"f:resources":{}}}}}
    "#]],
    );
}

#[test]
fn kubectl_takes_over_from_its_own_client_side_apply() {
    let configuration = deployment(json!({"replicas": 3}));
    let mut created = configuration.clone();
    created["metadata"]["annotations"] = json!({LAST_APPLIED: configuration.to_string()});
    track_update(None, &mut created, "kubectl-client-side-apply", Operation::Update, DEPLOYMENT, "apps/v1", "", NOW);
    let changed = deployment(json!({"replicas": 5}));
    assert_eq!(run(Some(&created), changed.clone(), "other", false).unwrap_err().code, 409);
    let live = ok(Some(&created), changed, "kubectl");
    assert_eq!(live["spec"]["replicas"], 5);
}

/// kubectl once took whatever its last configuration named, also what somebody else had changed since.
#[test]
fn kubectl_does_not_take_over_what_others_changed_since_its_client_side_apply() {
    let configuration = deployment(json!({"replicas": 3}));
    let mut created = configuration.clone();
    created["metadata"]["annotations"] = json!({LAST_APPLIED: configuration.to_string()});
    track_update(None, &mut created, "kubectl-client-side-apply", Operation::Update, DEPLOYMENT, "apps/v1", "", NOW);
    let mut scaled = created.clone();
    scaled["spec"]["replicas"] = 4.into();
    track_update(Some(&created), &mut scaled, "other", Operation::Update, DEPLOYMENT, "apps/v1", "", NOW);
    assert_eq!(run(Some(&scaled), deployment(json!({"replicas": 5})), "kubectl", false).unwrap_err().code, 409);
}

#[test]
fn the_last_configuration_follows_what_kubectl_applies() {
    let mut applied = deployment(json!({"replicas": 3}));
    applied["metadata"]["annotations"] = Value::Null;
    applied["metadata"]["labels"] = json!({"a": "<b>"});
    let mut live = ok(None, applied.clone(), "kubectl");
    assert!(live["metadata"]["annotations"].get(LAST_APPLIED).is_none());
    live["metadata"]["annotations"] = json!({LAST_APPLIED: "anything"});
    let said = |live: &Value, manager| ok(Some(live), applied.clone(), manager)["metadata"]["annotations"].clone();
    assert_eq!(said(&live, "other")[LAST_APPLIED], "anything");
    expect![[r#""{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"labels\":{\"a\":\"\\u003cb\\u003e\"},\"name\":\"web\",\"namespace\":\"default\"},\"spec\":{\"replicas\":3}}\n""#]]
        .assert_eq(&said(&live, "kubectl")[LAST_APPLIED].to_string());
}

#[test]
fn null_for_a_map_or_a_list_takes_nothing_from_others() {
    let live = ok(None, deployment(containers(json!([{"name": "a", "image": "i"}]))), "one");
    let mut said = deployment(containers(Value::Null));
    said["metadata"]["labels"] = Value::Null;
    let applied = ok(Some(&live), said, "two");
    assert_eq!(applied["spec"], live["spec"]);
}

#[test]
fn what_stands_twice_under_one_key_has_no_fields_of_its_own() {
    let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "env": [
        {"name": "A", "value": "a"}, {"name": "B", "value": "b"}, {"name": "A", "value": "c"}]}]}});
    track_update(None, &mut pod, "me", Operation::Update, "io.k8s.api.core.v1.Pod", "v1", "", NOW);
    fields(
        &pod,
        expect![[r#"
        "me" "Update": {"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:env":{".":{},"k:{\"name\":\"A\"}":{},"k:{\"name\":\"B\"}":{".":{},"f:name":{},"f:value":{}}},"f:name":{}}}}}
    "#]],
    );
}

#[test]
fn an_unknown_field_or_a_missing_key_is_told_with_its_place() {
    let status = run(None, deployment(json!({"replcas": 3})), "me", false).unwrap_err();
    assert_eq!(
        status.message,
        "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): .spec.replcas: field not declared in schema"
    );
    let status = run(None, deployment(json!({"replicas": "many"})), "me", false).unwrap_err();
    assert!(
        status.message.ends_with(".spec.replicas: expected numeric (int or float), got string"),
        "{}",
        status.message
    );
    let applied = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [], "hostAliases": [{"hostnames": []}]}});
    let status = apply(None, &applied, "me", false, "io.k8s.api.core.v1.Pod", "", NOW);
    assert_eq!(status.map(|_| ()), Ok(()), "a key that Go always writes is empty when it is left out");
    let schema = json!({"properties": {"list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"], "items": {"properties": {"id": {}}}}}});
    let write = Write { manager: "me", api_version: "x.y/v1", subresource: "", now: NOW, ignored: &[] };
    let status = apply_to(None, &json!({"list": [{}]}), false, Structure::custom(&schema), &write).unwrap_err();
    assert!(status.message.ends_with(".list: element 0: associative list with keys has an element that omits key field \"id\" (and doesn't have default value)"), "{}", status.message);
}

#[test]
fn what_was_there_before_the_first_apply_has_an_owner_of_its_own() {
    let live = deployment(json!({"replicas": 3}));
    let status = run(Some(&live), deployment(json!({"replicas": 4})), "me", false).unwrap_err();
    assert!(status.message.contains("\"before-first-apply\" using apps/v1"), "{}", status.message);
}

/// The quick way of a create and the general one: nobody may notice which was gone.
#[test]
fn a_creator_owns_what_a_comparison_with_nothing_finds() {
    let schema = json!({"type": "object", "properties": {
        "status": {"type": "object"},
        "spec": {"type": "object", "properties": {
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic"}}}}});
    let metadata = json!({"name": "a", "namespace": "n", "uid": "u", "labels": {"l": "1"}, "annotations": {},
        "ownerReferences": [{"uid": "1", "kind": "A"}], "finalizers": ["f", "f"], "creationTimestamp": null});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {}, "spec": {
        "containers": [{"name": "c", "env": [{"name": "A"}, {"name": "A", "value": "2"}], "resources": {},
            "ports": [{"containerPort": 80, "protocol": "TCP"}], "args": [], "command": null}],
        "nodeSelector": {"a": "b"}, "tolerations": [{"key": "k"}], "volumes": [], "securityContext": {}}});
    let custom = |spec: Value| json!({"apiVersion": "e/v1", "kind": "C", "metadata": metadata, "spec": spec, "status": {"s": 1}});
    let named = Structure::named;
    let cases = [
        (named("io.k8s.api.core.v1.Pod"), pod.clone()),
        (
            named(DEPLOYMENT),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "status": {"replicas": 1},
            "spec": {"replicas": 1, "strategy": {"type": "Recreate"}, "template": {"metadata": {}, "spec": pod["spec"]}}}),
        ),
        (
            named("io.k8s.api.core.v1.ConfigMap"),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}),
        ),
        (
            named("io.k8s.api.core.v1.Service"),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"ports": [{"port": 1}, {"port": 1, "protocol": "UDP"}], "selector": {}}, "status": {"loadBalancer": {}}}),
        ),
        (
            Structure::custom(&schema),
            custom(json!({"ports": [{"name": "a", "port": 1}, {"name": "a"}], "tags": ["x", "x", "y"],
            "whole": {"a": 1}, "unknown": [1]})),
        ),
        (Structure::custom(&schema), custom(json!({"ports": [{"port": 1}]}))),
        (
            Structure::custom(&schema),
            json!({"apiVersion": "e/v1", "kind": "C", "metadata": {"name": "a"}, "spec": null}),
        ),
        (Structure::Unknown, custom(json!({"a": {}, "b": [], "c": {"d": [{}]}}))),
    ];
    for (structure, object) in cases {
        for ignored in [&[][..], &["status"]] {
            let write = Write { manager: "m", api_version: "v1", subresource: "", now: NOW, ignored };
            let empty = empty_object(structure);
            let change = walk::compare(structure, &empty, &object);
            let keyless = change.keyless;
            let expected = record(change, Vec::new(), &write).pop().map(|entry| entry.fields.into_json());
            let mut creation = walk::Creation { ignored, keyless: false };
            let fields = creation.fields(structure, &empty, &object);
            assert_eq!(Some(Value::Object(fields)).filter(|f| f != &json!({})), expected, "{object}");
            assert_eq!(creation.keyless, keyless, "{object}");
        }
    }
}
