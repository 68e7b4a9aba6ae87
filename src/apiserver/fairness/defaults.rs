//! The FlowSchemas and PriorityLevelConfigurations that every cluster has.
//!
//! Owns: their names and specs, which are upstream's of v1.37, and which of them are mandatory.
//! Called by: the keeper, which maintains the objects; the first moments of a server, before there are objects.
//! Never: reads the store.

use serde_json::{Value, json};

pub const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Objects whose spec nobody may change.
pub fn is_mandatory(object: &Value) -> bool {
    matches!(object["metadata"]["name"].as_str(), Some("exempt" | "catch-all"))
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}}, "spec": spec,
    })
}

fn level(name: &str, spec: Value) -> Value {
    object("PriorityLevelConfiguration", name, spec)
}

/// A level whose requests wait in `queues`, each flow in `hand` of them.
fn queued(name: &str, shares: u32, lendable: u32, queues: u32, hand: u32) -> Value {
    let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
    let limited = json!({
        "nominalConcurrencyShares": shares, "lendablePercent": lendable,
        "limitResponse": {"type": "Queue", "queuing": queuing},
    });
    level(name, json!({"type": "Limited", "limited": limited}))
}

pub fn levels() -> Vec<Value> {
    let nothing = json!({"nominalConcurrencyShares": 0, "lendablePercent": 0});
    let last = json!({"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}});
    vec![
        level("catch-all", json!({"type": "Limited", "limited": last})),
        level("exempt", json!({"type": "Exempt", "exempt": nothing})),
        queued("system", 30, 33, 64, 6),
        queued("node-high", 40, 25, 64, 6),
        queued("leader-election", 10, 0, 16, 4),
        queued("workload-high", 40, 50, 128, 6),
        queued("workload-low", 100, 90, 128, 6),
        queued("global-default", 20, 50, 128, 6),
    ]
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}
fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}
fn kube_system() -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}})
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

/// A schema about everything that `subjects` ask for.
fn all(name: &str, level: &str, precedence: u32, by: &str, subjects: Value) -> Value {
    let rule = json!({
        "subjects": subjects, "resourceRules": [resources(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    });
    schema(name, level, precedence, by, rule)
}

fn schema(name: &str, level: &str, precedence: u32, by: &str, rule: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule],
    });
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    object("FlowSchema", name, spec)
}

pub fn schemas() -> Vec<Value> {
    let everybody = || json!([group("system:unauthenticated"), group("system:authenticated")]);
    let (manager, scheduler) = (user("system:kube-controller-manager"), user("system:kube-scheduler"));
    let leases = |verbs: &[&str]| resources(verbs, "coordination.k8s.io", &["leases"], false);
    let probes = json!({"subjects": everybody(), "nonResourceRules": [
        {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]});
    let elections = json!({"subjects": [manager, scheduler, kube_system()],
        "resourceRules": [leases(&["get", "create", "update"])]});
    let nodes = json!({"subjects": [group("system:nodes")], "resourceRules": [
        resources(&["*"], "", &["nodes", "nodes/status"], true), leases(&["*"])]});
    vec![
        all("exempt", "exempt", 1, "", json!([group("system:masters")])),
        all("catch-all", "catch-all", 10000, "ByUser", everybody()),
        all("system-nodes", "system", 500, "ByUser", json!([group("system:nodes")])),
        schema("system-node-high", "node-high", 400, "ByUser", nodes),
        schema("probes", "exempt", 2, "", probes),
        schema("system-leader-election", "leader-election", 100, "ByUser", elections),
        all("kube-controller-manager", "workload-high", 800, "ByNamespace", json!([manager])),
        all("kube-scheduler", "workload-high", 800, "ByNamespace", json!([scheduler])),
        all("kube-system-service-accounts", "workload-high", 900, "ByNamespace", json!([kube_system()])),
        all("service-accounts", "workload-low", 9000, "ByUser", json!([group("system:serviceaccounts")])),
        all("global-default", "global-default", 9900, "ByUser", everybody()),
    ]
}
