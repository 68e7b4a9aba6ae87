//! LimitRanger: defaults and bounds of what containers, pods and claims of a namespace may ask for.
//!
//! Owns: reading LimitRanges, completing containers, and the sentences of refusal.
//! Called by: the admission chain for pods and claims.
//! Never: counts what others use; that is ResourceQuota.

use minik_api::pod_resources::{self, Amounts};
use minik_api::quantity::Quantity;
use minik_api::{Status, object, resources};
use serde_json::{Map, Value, json};

use super::plugin::{Plugin, World};
use super::{Operation, Review};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Above this a quantity has no thousandths that fit 64 bits.
const MILLI_MAX: i64 = i64::MAX / 1000;

pub struct LimitRanger;

impl Plugin for LimitRanger {
    fn mutate(&self, review: &mut Review, world: &World) -> Result<(), Status> {
        if applies(review) && review.resource == "pods" {
            for range in world.objects.list(resources::LIMITRANGES, &review.namespace) {
                complete(&mut review.object, &range);
            }
        }
        Ok(())
    }

    fn validate(&self, review: &Review, world: &World) -> Result<(), Status> {
        if !applies(review) {
            return Ok(());
        }
        for range in world.objects.list(resources::LIMITRANGES, &review.namespace) {
            let faults = if review.resource == "pods" {
                pod_faults(&review.object, &range)
            } else {
                claim_faults(&review.object, &range)
            };
            match faults.as_slice() {
                [] => {}
                [one] => return Err(review.forbid(one)),
                many => return Err(review.forbid(&format!("[{}]", many.join(", ")))),
            }
        }
        Ok(())
    }
}

fn applies(review: &Review) -> bool {
    if object::is_deleting(&review.old) || !review.group.is_empty() {
        return false;
    }
    match (review.operation, review.resource.as_str(), review.subresource.as_str()) {
        (Operation::Create, "pods" | "persistentvolumeclaims", "") => true,
        // Containers cannot change on an ordinary update, their resources can in a resize.
        (Operation::Update, "pods", "resize") | (Operation::Update, "persistentvolumeclaims", "") => true,
        _ => false,
    }
}

fn limits<'a>(range: &'a Value, of: &'static str) -> impl Iterator<Item = &'a Value> {
    range["spec"]["limits"].as_array().into_iter().flatten().filter(move |limit| limit["type"] == of)
}

fn complete(pod: &mut Value, range: &Value) {
    let (mut requests, mut bounds) = (Map::new(), Map::new());
    for limit in limits(range, "Container") {
        requests.extend(limit["defaultRequest"].as_object().cloned().unwrap_or_default());
        bounds.extend(limit["default"].as_object().cloned().unwrap_or_default());
    }
    let mut done: Vec<String> = Vec::new();
    for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or("").to_string();
            for (field, defaults, what) in [("requests", &requests, "request"), ("limits", &bounds, "limit")] {
                let mut set: Vec<&str> = Vec::new();
                for (resource, amount) in defaults {
                    let held = &mut container["resources"][field];
                    if held.get(resource).is_none() {
                        held[resource.as_str()] = amount.clone();
                        set.push(resource);
                    }
                }
                if !set.is_empty() {
                    set.sort_unstable();
                    done.push(format!("{} {what} for {word} {name}", set.join(", ")));
                }
            }
            tidy(container);
        }
    }
    if !done.is_empty() {
        pod["metadata"]["annotations"][ANNOTATION] = format!("LimitRanger plugin set: {}", done.join("; ")).into();
    }
}

/// Looking for a field that is not there leaves a null behind.
fn tidy(container: &mut Value) {
    if let Some(resources) = container["resources"].as_object_mut() {
        resources.retain(|_, v| !v.is_null());
    }
    if container["resources"].is_null() {
        container["resources"] = json!({});
    }
}

fn pod_faults(pod: &Value, range: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array().into_iter().flatten() {
            let held = |field: &str| pod_resources::amounts(&container["resources"][field]);
            for limit in limits(range, "Container") {
                check("Container", limit, &held("requests"), &held("limits"), &mut faults);
            }
        }
    }
    for limit in limits(range, "Pod") {
        let (requests, bounds) = (pod_resources::of_pod(pod, "requests"), pod_resources::of_pod(pod, "limits"));
        check("Pod", limit, &requests, &bounds, &mut faults);
    }
    faults
}

fn claim_faults(claim: &Value, range: &Value) -> Vec<String> {
    const KIND: &str = "PersistentVolumeClaim";
    let requests = pod_resources::amounts(&claim["spec"]["resources"]["requests"]);
    let mut faults = Vec::new();
    for limit in limits(range, KIND) {
        for (name, bound) in pod_resources::amounts(&limit["min"]) {
            faults.extend(below(KIND, &name, bound, &requests, &Amounts::new()));
        }
        for (name, bound) in pod_resources::amounts(&limit["max"]) {
            let head = format!("maximum {name} usage per {KIND} is {bound}");
            match requests.get(&name) {
                None => faults.push(format!("{head}.  No request is specified")),
                Some(r) if more(r, &bound) => faults.push(format!("{head}, but request is {r}")),
                Some(_) => {}
            }
        }
    }
    faults
}

fn check(kind: &str, limit: &Value, requests: &Amounts, bounds: &Amounts, faults: &mut Vec<String>) {
    for (name, bound) in pod_resources::amounts(&limit["min"]) {
        faults.extend(below(kind, &name, bound, requests, bounds));
    }
    for (name, bound) in pod_resources::amounts(&limit["max"]) {
        faults.extend(above(kind, &name, bound, requests, bounds));
    }
    for (name, bound) in pod_resources::amounts(&limit["maxLimitRequestRatio"]) {
        faults.extend(ratio(kind, &name, bound, requests, bounds));
    }
}

/// Compared in thousandths where they fit.
fn comparable(a: &Quantity, b: &Quantity) -> (i64, i64) {
    if a.value() <= MILLI_MAX && b.value() <= MILLI_MAX {
        (a.milli_value(), b.milli_value())
    } else {
        (a.value(), b.value())
    }
}

fn more(a: &Quantity, b: &Quantity) -> bool {
    let (a, b) = comparable(a, b);
    a > b
}

fn below(kind: &str, name: &str, bound: Quantity, requests: &Amounts, bounds: &Amounts) -> Option<String> {
    let head = format!("minimum {name} usage per {kind} is {bound}");
    match (requests.get(name), bounds.get(name)) {
        (None, _) => Some(format!("{head}.  No request is specified")),
        (Some(r), _) if more(&bound, r) => Some(format!("{head}, but request is {r}")),
        (_, Some(l)) if more(&bound, l) => Some(format!("{head}, but limit is {l}")),
        _ => None,
    }
}

fn above(kind: &str, name: &str, bound: Quantity, requests: &Amounts, bounds: &Amounts) -> Option<String> {
    let head = format!("maximum {name} usage per {kind} is {bound}");
    match (requests.get(name), bounds.get(name)) {
        (_, None) => Some(format!("{head}.  No limit is specified")),
        (_, Some(l)) if more(l, &bound) => Some(format!("{head}, but limit is {l}")),
        (Some(r), _) if more(r, &bound) => Some(format!("{head}, but request is {r}")),
        _ => None,
    }
}

fn ratio(kind: &str, name: &str, bound: Quantity, requests: &Amounts, bounds: &Amounts) -> Option<String> {
    let head = format!("{name} max limit to request ratio per {kind} is {bound}");
    let held = |amounts: &Amounts| amounts.get(name).filter(|a| !a.is_zero()).copied();
    let Some(request) = held(requests) else {
        return Some(format!("{head}, but no request is specified or request is 0"));
    };
    let Some(limit) = held(bounds) else {
        return Some(format!("{head}, but no limit is specified or limit is 0"));
    };
    let (limit, request) = comparable(&limit, &request);
    let ratio = limit as f64 / request as f64;
    (ratio > bound.as_f64()).then(|| format!("{head}, but provided ratio is {ratio:.6}"))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{review, world};
    use super::*;

    fn check(limit: Value, resources: Value) -> Result<Value, String> {
        let range =
            json!({"kind": "LimitRange", "metadata": {"name": "l", "namespace": "a"}, "spec": {"limits": [limit]}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"},
            "spec": {"containers": [{"name": "c", "resources": resources}]}});
        let (mut review, world) = (review(Operation::Create, pod), world(vec![range]));
        LimitRanger.mutate(&mut review, &world).map_err(|s| s.message)?;
        LimitRanger.validate(&review, &world).map_err(|s| s.message)?;
        Ok(review.object)
    }

    #[test]
    fn defaults_are_filled_in_and_said() {
        let limit =
            json!({"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}});
        let pod = check(limit, json!({"limits": {"memory": "2Gi"}})).expect("admitted");
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"limits": {"memory": "2Gi", "cpu": "1"}, "requests": {"cpu": "100m"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
        );
    }

    #[test]
    fn bounds_are_kept_and_all_faults_named() {
        let limit = json!({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "100m"}});
        assert!(check(limit.clone(), json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}})).is_ok());
        assert_eq!(
            check(limit, json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "3"}})),
            Err(r#"pods "p" is forbidden: [minimum cpu usage per Container is 100m, but request is 50m, maximum cpu usage per Container is 2, but limit is 3]"#.into())
        );
        assert_eq!(
            check(json!({"type": "Pod", "max": {"memory": "1Gi"}}), json!({})),
            Err(r#"pods "p" is forbidden: maximum memory usage per Pod is 1Gi.  No limit is specified"#.into())
        );
        assert_eq!(
            check(json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}), json!({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}})),
            Err(r#"pods "p" is forbidden: cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"#.into())
        );
    }
}
