//! What an object counts against the ResourceQuotas of its namespace.
//!
//! Owns: usage per resource, which quota is about which object (scopes included), and which names of a quota a
//! resource answers for.
//! Called by: admission, which charges, and the quota controller, which counts anew.
//! Never: compares usage with a limit.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::pod_resources::{self, Amounts};
use crate::quantity::{Format, Quantity};

const STORAGE_CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";

fn one(count: i64) -> Quantity {
    Quantity::from_value(count, Format::DecimalSi)
}

/// `count/deployments.apps`, `count/pods`.
pub fn count_name(group: &str, resource: &str) -> String {
    if group.is_empty() { format!("count/{resource}") } else { format!("count/{resource}.{group}") }
}

/// What `object` uses at `now`.
pub fn usage(group: &str, resource: &str, object: &Value, now: Timestamp) -> Amounts {
    let mut used: Amounts = BTreeMap::from([(count_name(group, resource), one(1))]);
    match (group, resource) {
        ("", "pods") if counts_as_running(object, now) => pod_usage(object, &mut used),
        ("", "services") => service_usage(object, &mut used),
        ("", "persistentvolumeclaims") => claim_usage(object, &mut used),
        ("", "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas") => {
            used.insert(resource.into(), one(1));
        }
        _ => {}
    }
    used
}

/// A pod that has ended, or should have by now, uses nothing but its place in the store.
fn counts_as_running(pod: &Value, now: Timestamp) -> bool {
    if matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded")) {
        return false;
    }
    let metadata = &pod["metadata"];
    let deleted = metadata["deletionTimestamp"].as_str().and_then(|t| t.parse::<Timestamp>().ok());
    match (deleted, metadata["deletionGracePeriodSeconds"].as_i64()) {
        (Some(at), Some(grace)) => at.saturating_add(SignedDuration::from_secs(grace)).is_ok_and(|end| now <= end),
        _ => true,
    }
}

fn pod_usage(pod: &Value, used: &mut Amounts) {
    used.insert("pods".into(), one(1));
    let (requests, limits) = (pod_resources::of_pod(pod, "requests"), pod_resources::of_pod(pod, "limits"));
    compute_usage(&requests, &limits, used);
}

fn compute_usage(requests: &Amounts, limits: &Amounts, used: &mut Amounts) {
    for (name, amount) in requests {
        match name.as_str() {
            "cpu" | "memory" | "ephemeral-storage" => {
                used.insert(name.clone(), *amount);
                used.insert(format!("requests.{name}"), *amount);
            }
            _ if name.starts_with("hugepages-") => {
                used.insert(name.clone(), *amount);
                used.insert(format!("requests.{name}"), *amount);
            }
            _ if is_extended(name) => {
                used.insert(format!("requests.{name}"), *amount);
            }
            _ => {}
        }
    }
    for (name, amount) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), *amount);
        }
    }
}

/// `example.com/gpu`: of a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, _)| !domain.ends_with("kubernetes.io"))
}

fn service_usage(service: &Value, used: &mut Amounts) {
    let ports = service["spec"]["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let all = ports.len() as i64;
    let (node_ports, balancers) = match service["spec"]["type"].as_str() {
        Some("NodePort") => (all, 0),
        Some("LoadBalancer") if service["spec"]["allocateLoadBalancerNodePorts"] == false => {
            (ports.iter().filter(|p| p["nodePort"].as_i64().unwrap_or(0) != 0).count() as i64, 1)
        }
        Some("LoadBalancer") => (all, 1),
        _ => (0, 0),
    };
    used.insert("services".into(), one(1));
    used.insert("services.nodeports".into(), one(node_ports));
    used.insert("services.loadbalancers".into(), one(balancers));
}

fn claim_usage(claim: &Value, used: &mut Amounts) {
    let class = claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"]
        .as_str()
        .or(claim["spec"]["storageClassName"].as_str())
        .unwrap_or("");
    let mut charge = |name: &str, amount: Quantity| {
        used.insert(name.into(), amount);
        if !class.is_empty() {
            used.insert(format!("{class}{STORAGE_CLASS_SUFFIX}{name}"), amount);
        }
    };
    charge("persistentvolumeclaims", one(1));
    let asked = &claim["spec"]["resources"]["requests"]["storage"];
    if let Some(asked) = (!asked.is_null()).then(|| Quantity::from_json(asked).ok()).flatten() {
        let allocated = &claim["status"]["allocatedResources"]["storage"];
        let allocated = (!allocated.is_null()).then(|| Quantity::from_json(allocated).ok()).flatten();
        let larger = allocated.filter(|a| *a > asked).unwrap_or(asked);
        // A fraction of a byte counts as a byte.
        charge("requests.storage", Quantity::from_value(larger.value(), larger.format()));
    }
}

/// Those of a quota's names that objects of this resource count against.
pub fn names_of<'a>(group: &str, resource: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let count = count_name(group, resource);
    names.filter(|name| *name == count || answers_for(group, resource, name)).collect()
}

fn answers_for(group: &str, resource: &str, name: &str) -> bool {
    if !group.is_empty() {
        return false;
    }
    match resource {
        "pods" => {
            const COMPUTE: [&str; 10] = [
                "pods",
                "cpu",
                "memory",
                "ephemeral-storage",
                "requests.cpu",
                "requests.memory",
                "requests.ephemeral-storage",
                "limits.cpu",
                "limits.memory",
                "limits.ephemeral-storage",
            ];
            COMPUTE.contains(&name)
                || name.starts_with("hugepages-")
                || name.strip_prefix("requests.").is_some_and(|n| n.starts_with("hugepages-") || is_extended(n))
        }
        "services" => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
        "persistentvolumeclaims" => {
            let plain = name.split_once(STORAGE_CLASS_SUFFIX).map_or(name, |(_, rest)| rest);
            matches!(plain, "persistentvolumeclaims" | "requests.storage")
        }
        "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas" => name == resource,
        _ => false,
    }
}

/// Whether the scopes of `quota` include `object`.
pub fn in_scope(group: &str, resource: &str, quota: &Value, object: &Value) -> bool {
    let plain = quota["spec"]["scopes"].as_array().into_iter().flatten();
    let plain = plain.filter_map(Value::as_str).map(|scope| (scope, "Exists", &Value::Null));
    let selectors = quota["spec"]["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    let selectors = selectors
        .map(|s| (s["scopeName"].as_str().unwrap_or(""), s["operator"].as_str().unwrap_or("Exists"), &s["values"]));
    plain.chain(selectors).all(|(scope, operator, values)| match (group, resource) {
        ("", "pods") => pod_in_scope(scope, operator, values, object),
        ("", "persistentvolumeclaims") => claim_in_scope(scope, operator, values, object),
        _ => false,
    })
}

fn pod_in_scope(scope: &str, operator: &str, values: &Value, pod: &Value) -> bool {
    match scope {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => selects(operator, values, pod["spec"]["priorityClassName"].as_str().unwrap_or("")),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

fn claim_in_scope(scope: &str, operator: &str, values: &Value, claim: &Value) -> bool {
    let names = [
        &claim["spec"]["volumeAttributesClassName"],
        &claim["status"]["currentVolumeAttributesClassName"],
        &claim["status"]["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
    ];
    let named: Vec<&str> = names.iter().filter_map(|n| n.as_str()).filter(|n| !n.is_empty()).collect();
    scope == "VolumeAttributesClass"
        && match named.as_slice() {
            [] => selects(operator, values, ""),
            names => names.iter().any(|name| selects(operator, values, name)),
        }
}

fn selects(operator: &str, values: &Value, value: &str) -> bool {
    let listed = values.as_array().into_iter().flatten().any(|v| v == value);
    match operator {
        "Exists" => !value.is_empty(),
        "DoesNotExist" => value.is_empty(),
        "In" => !value.is_empty() && listed,
        "NotIn" => !listed,
        _ => false,
    }
}

/// Whether a pod has an end of its own.
pub fn is_terminating(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

fn is_best_effort(pod: &Value) -> bool {
    let claims = |resources: &Value| {
        ["requests", "limits"].iter().any(|field| {
            let amounts = pod_resources::amounts(&resources[*field]);
            ["cpu", "memory"].iter().any(|name| amounts.get(*name).is_some_and(|a| a.signum() > 0))
        })
    };
    let containers =
        ["containers", "initContainers"].iter().flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten());
    !claims(&pod["spec"]["resources"]) && !containers.into_iter().any(|c| claims(&c["resources"]))
}

fn crosses_namespaces(pod: &Value) -> bool {
    let affinity = &pod["spec"]["affinity"];
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let required =
            affinity[*kind]["requiredDuringSchedulingIgnoredDuringExecution"].as_array().into_iter().flatten();
        let preferred =
            affinity[*kind]["preferredDuringSchedulingIgnoredDuringExecution"].as_array().into_iter().flatten();
        required.chain(preferred.map(|p| &p["podAffinityTerm"])).any(|term| {
            term["namespaces"].as_array().is_some_and(|n| !n.is_empty()) || term["namespaceSelector"].is_object()
        })
    })
}

/// What a pod must name, because a quota counts it: `must specify requests.cpu for: a,b`.
pub fn missing_requests(names: &[&str], pod: &Value) -> Option<String> {
    const REQUIRED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
    let of_pod = ["requests", "limits"]
        .iter()
        .any(|field| pod["spec"]["resources"][*field].as_object().is_some_and(|amounts| !amounts.is_empty()));
    if of_pod {
        return None;
    }
    let mut lacking: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array().into_iter().flatten() {
            let held = |field: &str| pod_resources::amounts(&container["resources"][field]);
            let mut used = Amounts::new();
            compute_usage(&held("requests"), &held("limits"), &mut used);
            for name in names.iter().filter(|name| REQUIRED.contains(name) && !used.contains_key(**name)) {
                lacking.entry(name).or_default().push(container["name"].as_str().unwrap_or(""));
            }
        }
    }
    if lacking.is_empty() {
        return None;
    }
    let texts: Vec<String> = lacking
        .into_iter()
        .map(|(name, mut containers)| {
            containers.sort_unstable();
            format!("{name} for: {}", containers.join(","))
        })
        .collect();
    Some(format!("must specify {}", texts.join("; ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("test")
    }

    fn check(resource: &str, object: Value, expected: &str) {
        let used = usage("", resource, &object, now());
        let text: Vec<String> = used.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        assert_eq!(text.join(" "), expected);
    }

    #[test]
    fn a_pod_counts_by_what_it_asks_for_until_it_ends() {
        let spec = json!({"containers": [{"resources": {"requests": {"cpu": "100m", "example.com/gpu": "1"}, "limits": {"memory": "1Gi"}}}]});
        check(
            "pods",
            json!({"spec": spec}),
            "count/pods=1 cpu=100m limits.memory=1Gi pods=1 requests.cpu=100m requests.example.com/gpu=1",
        );
        check("pods", json!({"spec": spec, "status": {"phase": "Succeeded"}}), "count/pods=1");
        let overdue = json!({"deletionTimestamp": "2025-12-31T23:00:00Z", "deletionGracePeriodSeconds": 30});
        check("pods", json!({"spec": spec, "metadata": overdue}), "count/pods=1");
    }

    #[test]
    fn services_and_claims_count_by_their_kind_and_class() {
        let ports = json!([{"port": 1}, {"port": 2}]);
        check(
            "services",
            json!({"spec": {"type": "NodePort", "ports": ports}}),
            "count/services=1 services=1 services.loadbalancers=0 services.nodeports=2",
        );
        check(
            "persistentvolumeclaims",
            json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}}),
            "count/persistentvolumeclaims=1 fast.storageclass.storage.k8s.io/persistentvolumeclaims=1 fast.storageclass.storage.k8s.io/requests.storage=1Gi persistentvolumeclaims=1 requests.storage=1Gi",
        );
    }

    #[test]
    fn scopes_choose_pods() {
        let quota = |scope: &str| json!({"spec": {"scopes": [scope]}});
        let plain = json!({"spec": {"containers": [{}]}});
        assert!(in_scope("", "pods", &quota("BestEffort"), &plain));
        assert!(!in_scope("", "pods", &quota("Terminating"), &plain));
        assert!(in_scope("", "pods", &quota("NotTerminating"), &plain));
        assert!(!in_scope("", "services", &quota("BestEffort"), &json!({})));
        let selector = json!({"spec": {"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}});
        assert!(in_scope("", "pods", &selector, &json!({"spec": {"priorityClassName": "high"}})));
        assert!(!in_scope("", "pods", &selector, &plain));
    }

    #[test]
    fn what_is_counted_must_be_named() {
        let pod =
            json!({"spec": {"containers": [{"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}}}]}});
        assert_eq!(
            missing_requests(&["requests.cpu", "limits.memory", "pods"], &pod).as_deref(),
            Some("must specify limits.memory for: a,b; requests.cpu for: b")
        );
    }
}
