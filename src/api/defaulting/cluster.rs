//! Defaults of the remaining groups: access rules, networking, storage, autoscaling, admission, flow control, devices.
//!
//! Owns: those kinds.
//! Called by: the walk in `defaulting`.
//! Never: sets `timeAdded` of device taints, which needs a clock.

use serde_json::{Map, Value, json};

use super::{Object, if_absent, if_empty, inside, is_empty, text};

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn complete(package: &str, name: &str, object: &mut Object) {
    match (package.rsplit('/').nth(1).unwrap_or_default(), name) {
        ("rbac", "RoleBinding" | "ClusterRoleBinding") => if_empty(inside(object, "roleRef"), "apiGroup", RBAC),
        ("rbac", "Subject") if matches!(text(object, "kind"), "User" | "Group") => if_empty(object, "apiGroup", RBAC),
        ("networking", "NetworkPolicyPort") => if_absent(object, "protocol", "TCP"),
        ("networking", "NetworkPolicy") => {
            let spec = inside(object, "spec");
            let types: &[&str] = if is_empty(spec, "egress") { &["Ingress"] } else { &["Ingress", "Egress"] };
            if_empty(spec, "policyTypes", types.to_vec());
        }
        ("networking", "IngressClassParametersReference") => if_absent(object, "scope", "Cluster"),
        ("discovery", "EndpointPort") => {
            if_absent(object, "name", "");
            if_absent(object, "protocol", "TCP");
        }
        ("storage", "StorageClass") => {
            if_absent(object, "reclaimPolicy", "Delete");
            if_absent(object, "volumeBindingMode", "Immediate");
        }
        ("storage", "CSIDriverSpec") => csi_driver(object),
        ("scheduling", "PriorityClass") => if_absent(object, "preemptionPolicy", "PreemptLowerPriority"),
        ("autoscaling", "HorizontalPodAutoscalerSpec") => autoscaler(package, object),
        ("admissionregistration", _) => admission(name, object),
        ("flowcontrol", _) => flow_control(name, object),
        ("resource", "ExactDeviceRequest" | "DeviceSubRequest") => {
            if_empty(object, "allocationMode", "ExactCount");
            if text(object, "allocationMode") == "ExactCount" {
                if_empty(object, "count", 1);
            }
        }
        ("authentication", "TokenRequestSpec") => if_absent(object, "expirationSeconds", 3600),
        ("apiextensions" | "apiregistration", "ServiceReference") => if_absent(object, "port", 443),
        ("apiextensions", "CustomResourceDefinition") => definition(object),
        _ => {}
    }
}

fn csi_driver(spec: &mut Object) {
    if_absent(spec, "attachRequired", true);
    for field in
        ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount", "preventPodSchedulingIfMissing"]
    {
        if_absent(spec, field, false);
    }
    if_absent(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if_empty(spec, "volumeLifecycleModes", vec!["Persistent"]);
}

/// Upstream's answer when nobody says by what to scale: 80 % CPU.
const CPU_UTILIZATION: i64 = 80;

fn autoscaler(package: &str, spec: &mut Object) {
    if_absent(spec, "minReplicas", 1);
    if package.ends_with("/v1") {
        if_absent(spec, "targetCPUUtilizationPercentage", CPU_UTILIZATION);
        return;
    }
    if_empty(
        spec,
        "metrics",
        json!([{"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": CPU_UTILIZATION}}}]),
    );
    if let Some(Value::Object(behavior)) = spec.get_mut("behavior") {
        let up = inside(behavior, "scaleUp");
        if_absent(up, "stabilizationWindowSeconds", 0);
        if_absent(up, "selectPolicy", "Max");
        if_absent(
            up,
            "policies",
            json!([
            {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]),
        );
        let down = inside(behavior, "scaleDown");
        if_absent(down, "selectPolicy", "Max");
        if_absent(down, "policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
    }
}

fn admission(name: &str, object: &mut Object) {
    let selectors = |object: &mut Object| {
        if_absent(object, "matchPolicy", "Equivalent");
        if_absent(object, "namespaceSelector", Map::new());
        if_absent(object, "objectSelector", Map::new());
    };
    match name {
        "ValidatingWebhook" | "MutatingWebhook" => {
            if_absent(object, "failurePolicy", "Fail");
            selectors(object);
            if_absent(object, "timeoutSeconds", 10);
            if name == "MutatingWebhook" {
                if_absent(object, "reinvocationPolicy", "Never");
            }
        }
        "Rule" | "RuleWithOperations" | "NamedRuleWithOperations" => if_absent(object, "scope", "*"),
        "ServiceReference" => if_absent(object, "port", 443),
        "ValidatingAdmissionPolicySpec" | "MutatingAdmissionPolicySpec" => if_absent(object, "failurePolicy", "Fail"),
        "MatchResources" => selectors(object),
        _ => {}
    }
}

fn flow_control(name: &str, object: &mut Object) {
    match name {
        "FlowSchemaSpec" => if_empty(object, "matchingPrecedence", 1000),
        "ExemptPriorityLevelConfiguration" => {
            if_absent(object, "nominalConcurrencyShares", 0);
            if_absent(object, "lendablePercent", 0);
        }
        "LimitedPriorityLevelConfiguration" => {
            if_absent(object, "nominalConcurrencyShares", 30);
            if_absent(object, "lendablePercent", 0);
        }
        "QueuingConfiguration" => {
            if_empty(object, "handSize", 8);
            if_empty(object, "queues", 64);
            if_empty(object, "queueLengthLimit", 50);
        }
        _ => {}
    }
}

fn definition(definition: &mut Object) {
    let spec = inside(definition, "spec");
    let names = inside(spec, "names");
    let kind = text(names, "kind").to_string();
    if !kind.is_empty() {
        if_empty(names, "singular", kind.to_lowercase());
        if_empty(names, "listKind", format!("{kind}List"));
    }
    if_absent(spec, "conversion", json!({"strategy": "None"}));
    let stored = spec.get("versions").and_then(Value::as_array).into_iter().flatten().find(|v| v["storage"] == true);
    let stored = stored.and_then(|v| v["name"].as_str()).map(str::to_string);
    if let Some(stored) = stored {
        if_empty(inside(definition, "status"), "storedVersions", vec![stored]);
    }
}
