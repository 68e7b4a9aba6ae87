//! What of a Pod may change through its subresource `resize`.
//!
//! Owns: that only CPU and memory change, that none is taken away, and that the class of service stays.
//! Called by: `validation` for writes to `resize`.
//! Never: asks whether the node has room.

use serde_json::Value;

use super::check::{At, Errors};
use super::pod;
use crate::quantity::Quantity;
use crate::strategy::qos_class;

const RESIZABLE: [&str; 2] = ["cpu", "memory"];

pub fn check(at: &At<'_>, old: &Value, errors: &mut Errors) {
    let spec = at.get("spec");
    pod::pod_spec(&spec, errors);
    if crate::object::annotation(old, crate::pod_annotations::MIRROR).is_some() {
        *errors = Errors::default();
        return errors.forbidden(&At::root(at.value), "static pods cannot be resized");
    }
    let before = old["status"]["qosClass"].as_str().unwrap_or_else(|| qos_class(old));
    if qos_class(at.value) != before {
        let shown = Value::from(before);
        errors.invalid(&spec.showing(&shown), "Pod QOS Class may not change as a result of resizing");
    }
    for list in ["initContainers", "containers"] {
        for (index, container) in spec.get(list).items().enumerate() {
            of_container(&spec, &container, &old["spec"][list][index], errors);
        }
    }
}

fn of_container(spec: &At<'_>, new: &At<'_>, old: &Value, errors: &mut Errors) {
    let resources = new.get("resources");
    for (field, what) in [("requests", "resource requests"), ("limits", "resource limits")] {
        let (list, before) = (resources.get(field), &old["resources"][field]);
        let mut names = before.as_object().into_iter().flatten().map(|(name, _)| name);
        if names.any(|name| list.value[name].is_null()) {
            errors.forbidden(&list, format!("{what} cannot be removed"));
        }
        let mut given = list.entries();
        if given.any(|(name, amount)| !RESIZABLE.contains(&name) && !same(amount.value, &before[name])) {
            errors.forbidden(spec, "only cpu and memory resources are mutable");
        }
    }
    if resources.get("claims").value != &old["resources"]["claims"] {
        errors.forbidden(spec, "only cpu and memory resources are mutable");
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (Quantity::from_json(a), Quantity::from_json(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(to: Value) -> Vec<String> {
        let pod = |resources: Value| {
            json!({"metadata": {"name": "p"}, "spec": {
                "terminationGracePeriodSeconds": 30, "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
                "containers": [{"name": "a", "image": "i", "imagePullPolicy": "Always", "terminationMessagePath": "/m",
                    "terminationMessagePolicy": "File", "resources": resources}]}})
        };
        let from = pod(json!({"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "200m"}}));
        let mut errors = Errors::default();
        let to = pod(to);
        check(&At::root(&to), &from, &mut errors);
        errors.into_list().iter().map(|e| format!("{}: {}", e.path, e.detail)).collect()
    }

    #[test]
    fn cpu_and_memory_change_and_nothing_is_taken_away() {
        let more = json!({"requests": {"cpu": "150m", "memory": "2Gi"}, "limits": {"cpu": "200m", "memory": "3Gi"}});
        assert_eq!(faults(more), Vec::<String>::new());
        assert_eq!(
            faults(json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}})),
            ["spec.containers[0].resources.requests: resource requests cannot be removed"]
        );
        let disk = json!({"requests": {"cpu": "100m", "memory": "1Gi", "ephemeral-storage": "1Gi"}, "limits": {"cpu": "200m"}});
        assert_eq!(faults(disk), ["spec: only cpu and memory resources are mutable"]);
        let all = json!({"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "100m", "memory": "1Gi"}});
        assert_eq!(faults(all), ["spec: Pod QOS Class may not change as a result of resizing"]);
    }
}
