//! What a whole pod asks for, from what its containers ask for.
//!
//! Owns: the sum over containers, the peak of init containers, sidecars, pod-level amounts and overhead.
//! Called by: LimitRanger, ResourceQuota, the quota controller.
//! Never: knows what a node has.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;

pub type Amounts = BTreeMap<String, Quantity>;

/// A `ResourceList`; what cannot be read counts as nothing, validation has complained about it.
pub fn amounts(list: &Value) -> Amounts {
    let pairs = list.as_object().into_iter().flatten();
    pairs.filter_map(|(name, value)| Some((name.clone(), Quantity::from_json(value).ok()?))).collect()
}

pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.get(name).copied().unwrap_or(Quantity::ZERO).add(*amount);
        total.insert(name.clone(), sum);
    }
}

fn peak(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        if total.get(name).is_none_or(|held| amount > held) {
            total.insert(name.clone(), *amount);
        }
    }
}

/// `field` is `requests` or `limits`. Sidecars (init containers that restart always) run beside all that come later.
pub fn of_pod(pod: &Value, field: &str) -> Amounts {
    let containers = |list: &str| pod["spec"][list].as_array().into_iter().flatten();
    let mut total = Amounts::new();
    for container in containers("containers") {
        add(&mut total, &amounts(&container["resources"][field]));
    }
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in containers("initContainers") {
        let own = amounts(&container["resources"][field]);
        let mut at_once = own.clone();
        if container["restartPolicy"] == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            at_once = sidecars.clone();
        } else {
            add(&mut at_once, &sidecars);
        }
        peak(&mut starting, &at_once);
    }
    peak(&mut total, &starting);
    // Amounts of the pod itself replace the sum.
    for (name, amount) in amounts(&pod["spec"]["resources"][field]) {
        total.insert(name, amount);
    }
    for (name, amount) in amounts(&pod["spec"]["overhead"]) {
        // A limit that nobody set stays unset.
        if field == "requests" || total.contains_key(&name) {
            let sum = total.get(&name).copied().unwrap_or(Quantity::ZERO).add(amount);
            total.insert(name, sum);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn init_containers_count_by_their_peak_and_sidecars_with_the_rest() {
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
        let pod = json!({"spec": {"overhead": {"cpu": "10m"},
            "containers": [{"resources": cpu("100m")}, {"resources": cpu("200m")}],
            "initContainers": [{"resources": cpu("1")}, {"resources": cpu("50m"), "restartPolicy": "Always"}, {"resources": cpu("900m")}]}});
        assert_eq!(of_pod(&pod, "requests")["cpu"].to_string(), "1010m");
        let pod = json!({"spec": {"containers": [{"resources": cpu("100m")}],
            "initContainers": [{"resources": cpu("50m"), "restartPolicy": "Always"}]}});
        assert_eq!(of_pod(&pod, "requests")["cpu"].to_string(), "150m");
    }
}
