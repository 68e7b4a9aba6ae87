//! Admission policies, validation rules of definitions: CEL as clients meet it.

use serde_json::{Value, json};

use crate::server::Server;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn about_config_maps() -> Value {
    json!({"resourceRules": [
        {"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]})
}

fn policy(kind: &str, name: &str, mut spec: Value) -> Value {
    spec["matchConstraints"] = about_config_maps();
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

#[tokio::test]
async fn a_mutating_policy_changes_what_is_written() {
    let server = Server::start().await;
    let spec = json!({
        "reinvocationPolicy": "Never", "variables": [{"name": "team", "expression": "'team-' + request.userInfo.username"}],
        "matchConditions": [{"name": "named", "expression": "object.metadata.name != 'left-alone'"}],
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{metadata: Object.metadata{labels: {'team': variables.team}}, data: {'added': 'yes'}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/x'), value: object.metadata.labels.team + '!'.replace('!', '-x')}]"}},
        ],
    });
    let policies = format!("{GROUP}/mutatingadmissionpolicies");
    let created = server.post(&policies, &policy("MutatingAdmissionPolicy", "p", spec)).await.ok();
    assert_eq!(created["spec"]["failurePolicy"], "Fail");
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p"}});
    server.post(&format!("{GROUP}/mutatingadmissionpolicybindings"), &binding).await.ok();
    let changed = server.post(MAPS, &map("a", json!({"k": "v"}))).await.ok();
    assert_eq!(changed["data"], json!({"added": "yes", "k": "v"}));
    assert_eq!(changed["metadata"]["labels"], json!({"team": "team-admin", "example.com/x": "team-admin-x"}));
    let left = server.post(MAPS, &map("left-alone", json!({"k": "v"}))).await.ok();
    assert_eq!(left["data"], json!({"k": "v"}));
}

#[tokio::test]
async fn a_policy_whose_expressions_do_not_compile_is_refused() {
    let server = Server::start().await;
    let mutation = |expression: &str| {
        json!({"reinvocationPolicy": "Never", "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]})
    };
    let policies = format!("{GROUP}/mutatingadmissionpolicies");
    let refused = server.post(&policies, &policy("MutatingAdmissionPolicy", "p", mutation("Object{spec: nope}"))).await;
    assert_eq!(
        refused.refusal(),
        "422 Invalid: MutatingAdmissionPolicy.admissionregistration.k8s.io \"p\" is invalid: spec.mutations[0].applyConfiguration.expression: Invalid value: \"Object{spec: nope}\": compilation failed: ERROR: <input>:1:14: undeclared reference to 'nope' (in container '')\n | Object{spec: nope}\n | .............^"
    );
    let validations = format!("{GROUP}/validatingadmissionpolicies");
    let spec = json!({"validations": [{"expression": "request.nope == 1"}, {"expression": "'text'"}]});
    let refused = server.post(&validations, &policy("ValidatingAdmissionPolicy", "p", spec)).await.refusal();
    assert!(refused.contains("spec.validations[0].expression: Invalid value: \"request.nope == 1\": compilation failed: ERROR: <input>:1:8: undefined field 'nope'"), "{refused}");
    assert!(
        refused.contains("spec.validations[1].expression: Invalid value: \"'text'\": must evaluate to bool"),
        "{refused}"
    );
}

fn definition(rules: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "ranges.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "ranges", "singular": "range", "kind": "Range", "listKind": "RangeList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": rules,
                    "properties": {"low": {"type": "integer"}, "high": {"type": "integer"}, "fixed": {"type": "string",
                        "maxLength": 20, "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]}}}}}}}],
        },
    })
}

#[tokio::test]
async fn a_definitions_rules_hold_for_its_objects() {
    let server = Server::start().await;
    let refused = server.post(DEFINITIONS, &definition(json!([{"rule": "self.low < self.nope"}]))).await.refusal();
    let place = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule";
    assert!(refused.contains(place) && refused.contains("ERROR: <input>:1:16: undefined field 'nope'"), "{refused}");
    let rules = json!([{"rule": "self.low <= self.high", "messageExpression": "self.high > 3 ? 'low is above a large high' : 'low is above high'"}]);
    server.define(&definition(rules)).await;
    let ranges = "/apis/example.com/v1/namespaces/default/ranges";
    let range = |low: i64, fixed: &str| {
        json!({"apiVersion": "example.com/v1", "kind": "Range", "metadata": {"name": "r"},
            "spec": {"low": low, "high": 5, "fixed": fixed}})
    };
    assert_eq!(
        server.post(ranges, &range(6, "a")).await.refusal(),
        "422 Invalid: Range.example.com \"r\" is invalid: spec: Invalid value: low is above a large high"
    );
    server.post(ranges, &range(1, "a")).await.ok();
    assert_eq!(
        server.patch("merge", &format!("{ranges}/r"), &json!({"spec": {"fixed": "b"}})).await.refusal(),
        "422 Invalid: Range.example.com \"r\" is invalid: spec.fixed: Invalid value: \"b\": is immutable"
    );
}
