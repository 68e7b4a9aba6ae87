//! What the server derives for a Pod: its first phase, its quality of service class.
//!
//! Owns: those fields and the generation of Pods.
//! Called by: `strategy`.
//! Never: looks at the node.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::app_armor;
use crate::object;
use crate::quantity::Quantity;

pub(super) fn prepare_create(pod: &mut Value) -> Vec<String> {
    pod["status"] = json!({"phase": "Pending", "qosClass": qos_class(pod)});
    if object::is_gated(pod) {
        pod["status"]["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": pod["metadata"]["creationTimestamp"],
        }]);
    }
    app_armor::to_fields(pod)
}

pub(super) fn prepare_update(new: &mut Value, old: &Value) {
    if new["spec"]["resources"].is_null() && !old["spec"]["resources"].is_null() {
        new["spec"]["resources"] = old["spec"]["resources"].clone();
    }
}

/// The class is fixed at creation; a status without it keeps it.
pub(super) fn prepare_status_update(new: &mut Value, old: &Value) {
    let class = old["status"]["qosClass"].clone();
    if new["status"]["qosClass"].is_null() && !class.is_null() {
        new["status"]["qosClass"] = class;
    }
}

type Amounts = BTreeMap<String, Quantity>;

fn amounts(list: &Value) -> Amounts {
    let counted = |(name, value): (&String, &Value)| {
        let quantity = Quantity::from_json(value).ok().filter(|q| q.signum() > 0)?;
        matches!(name.as_str(), "cpu" | "memory").then(|| (name.clone(), quantity))
    };
    list.as_object().into_iter().flatten().filter_map(counted).collect()
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by CPU and memory of all containers or of the Pod as a whole.
pub fn qos_class(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    let whole = &spec["resources"];
    if whole["limits"].is_object() || whole["requests"].is_object() {
        return class(std::slice::from_ref(spec));
    }
    let containers =
        ["containers", "initContainers"].into_iter().flat_map(|l| spec[l].as_array().into_iter().flatten());
    class(&containers.cloned().collect::<Vec<_>>())
}

fn class(containers: &[Value]) -> &'static str {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    let mut guaranteed = true;
    for container in containers {
        let request = amounts(&container["resources"]["requests"]);
        let limit = amounts(&container["resources"]["limits"]);
        guaranteed &= limit.len() == 2;
        for (sum, part) in [(&mut requests, request), (&mut limits, limit)] {
            for (name, quantity) in part {
                let total = sum.get(&name).copied().unwrap_or(Quantity::ZERO) + quantity;
                sum.insert(name, total);
            }
        }
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
