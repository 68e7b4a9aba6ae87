//! What is written to `/status`.
//!
//! Owns: the statuses of all kinds but certificates.
//! Called by: `validation`.
//! Never: looks at the rest of the object but to tell whether a status fits it.

use serde_json::Value;

use super::check::{At, Errors};
use super::workload_status;
use super::{core, pod_annotations};
use crate::names;

pub fn update(kind: &str, object: &At<'_>, old: &Value, errors: &mut Errors) {
    let status = object.get("status");
    match kind {
        "Pod" => pod(object, old, errors),
        "Namespace" => namespace(object, errors),
        "Service" => {
            let ingress = status.get("loadBalancer");
            if ingress.get("ingress").len() > 0 && object.value["spec"]["type"] != "LoadBalancer" {
                let why = "may only be used when `spec.type` is 'LoadBalancer'";
                return errors.forbidden(&ingress.get("ingress"), why);
            }
            load_balancer(&ingress, true, errors);
        }
        "Ingress" => load_balancer(&status.get("loadBalancer"), false, errors),
        "ResourceQuota" => ["hard", "used"].iter().for_each(|field| core::quota_amounts(&status.get(field), errors)),
        "HorizontalPodAutoscaler" => errors.all_non_negative(&status, &["currentReplicas", "desiredReplicas"]),
        "PodDisruptionBudget" => {
            let fields = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
            errors.all_non_negative(&status, &fields);
            conditions(&status.get("conditions"), errors);
        }
        "ResourceClaim" => {
            let reserved = status.get("reservedFor");
            if reserved.len() > 0 && status.get("allocation").is_null() {
                errors.forbidden(&reserved, "may not be specified when `allocated` is not set");
            }
        }
        "PersistentVolumeClaim" => {
            let capacity = status.get("capacity");
            for (_, amount) in capacity.entries() {
                let quantity = crate::quantity::Quantity::from_json(amount.value);
                if quantity.is_ok_and(|q| q.signum() < 0) {
                    errors.invalid(&amount, "must be a valid resource quantity");
                }
            }
        }
        _ => workload_status::update(kind, object, old, errors),
    }
}

fn namespace(object: &At<'_>, errors: &mut Errors) {
    let deleting = crate::object::is_deleting(object.value);
    let status = object.get("status");
    let phase = status.get("phase");
    // Upstream names the field as its own struct does.
    let named = status.get("Phase");
    let at = named.showing(phase.value);
    match (deleting, phase.text()) {
        (true, "Terminating") | (false, "Active" | "") => {}
        (true, _) => errors.invalid(&at, "may only be 'Terminating' if `deletionTimestamp` is not empty"),
        (false, _) => errors.invalid(&at, "may only be 'Active' if `deletionTimestamp` is empty"),
    }
}

fn load_balancer(balancer: &At<'_>, has_mode: bool, errors: &mut Errors) {
    let all = balancer.get("ingress");
    for ingress in all.items() {
        let (ip, host, mode) = (ingress.get("ip"), ingress.get("hostname"), ingress.get("ipMode"));
        if !ip.text().is_empty() {
            errors.faults(&ip, names::ip(ip.text()));
        }
        if has_mode && !mode.is_null() {
            if ip.text().is_empty() {
                errors.forbidden(&mode, "may not be specified when `ip` is not set");
            } else if !matches!(mode.text(), "VIP" | "Proxy") {
                errors.not_supported(&mode, &["Proxy", "VIP"]);
            }
        }
        if !host.text().is_empty() {
            errors.subdomain(&host);
            if host.text().parse::<std::net::IpAddr>().is_ok() {
                errors.invalid(&host, "must be a DNS name, not an IP address");
            }
        }
    }
}

/// Conditions of the common sort.
fn conditions(all: &At<'_>, errors: &mut Errors) {
    for condition in all.items() {
        let (kind, state, reason) = (condition.get("type"), condition.get("status"), condition.get("reason"));
        if kind.text().is_empty() {
            errors.required(&kind, "");
        }
        if !matches!(state.text(), "True" | "False" | "Unknown") {
            errors.not_supported(&state, &["False", "True", "Unknown"]);
        }
        if condition.get("lastTransitionTime").is_null() {
            errors.required(&condition.get("lastTransitionTime"), "");
        }
        if reason.text().is_empty() {
            errors.required(&reason, "");
        }
    }
}

fn pod(object: &At<'_>, old: &Value, errors: &mut Errors) {
    let (metadata, spec, status) = (object.get("metadata"), object.get("spec"), object.get("status"));
    pod_annotations::update(&metadata.get("annotations"), &old["metadata"]["annotations"], &spec, errors);
    errors.immutable(&spec.get("nodeName"), &old["spec"]["nodeName"]);
    let nominated = status.get("nominatedNodeName");
    if !nominated.text().is_empty() {
        errors.subdomain(&nominated);
    }
    for ip in status.get("podIPs").items() {
        errors.faults(&ip.get("ip"), names::ip(ip.get("ip").text()));
    }
    let class = &old["status"]["qosClass"];
    if !class.is_null() && status.get("qosClass").value != class {
        errors.invalid(&status.get("qosClass"), "field is immutable");
    }
    if ["Succeeded", "Failed"].contains(&old["status"]["phase"].as_str().unwrap_or("")) {
        return;
    }
    let restarts = spec.get("restartPolicy").text();
    ended_containers_stay(&status.get("containerStatuses"), &old["status"]["containerStatuses"], restarts, errors);
}

/// A container that ended and is not to be restarted cannot run again.
fn ended_containers_stay(list: &At<'_>, old: &Value, restart_policy: &str, errors: &mut Errors) {
    if restart_policy == "Always" {
        return;
    }
    for before in old.as_array().into_iter().flatten() {
        let ended = &before["state"]["terminated"];
        let failed = ended["exitCode"].as_i64().unwrap_or(0) != 0;
        if ended.is_null() || (failed && restart_policy == "OnFailure") {
            continue;
        }
        for now in list.items().filter(|s| s.get("name").value == &before["name"]) {
            let state = now.get("state");
            if state.get("terminated").is_null() {
                errors.forbidden(&state, "may not be transitioned to non-terminated state");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(kind: &str, object: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        update(kind, &At::root(object), &Value::Null, &mut errors);
        errors.into_texts()
    }

    #[test]
    fn a_phase_fits_the_life_of_its_namespace() {
        let living = json!({"metadata": {}, "status": {"phase": "Terminating"}});
        let why = "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty";
        assert_eq!(faults("Namespace", &living), [why]);
        let ending =
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Terminating"}});
        assert!(faults("Namespace", &ending).is_empty());
    }

    #[test]
    fn only_load_balancers_have_addresses_and_only_sound_ones() {
        let service = |kind: &str, ingress: Value| json!({"spec": {"type": kind}, "status": {"loadBalancer": {"ingress": [ingress]}}});
        assert!(faults("Service", &service("LoadBalancer", json!({"ip": "1.2.3.4", "ipMode": "VIP"}))).is_empty());
        assert_eq!(
            faults("Service", &service("ClusterIP", json!({"ip": "1.2.3.4"}))),
            ["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"]
        );
        assert_eq!(
            faults("Service", &service("LoadBalancer", json!({"hostname": "1.2.3.4", "ipMode": "VIP"}))),
            [
                "status.loadBalancer.ingress[0].ipMode: Forbidden: may not be specified when `ip` is not set",
                "status.loadBalancer.ingress[0].hostname: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
            ]
        );
    }

    #[test]
    fn numbers_of_pods_are_not_negative() {
        let budget = json!({"status": {"disruptionsAllowed": -1, "currentHealthy": 0}});
        let why = "status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0";
        assert_eq!(faults("PodDisruptionBudget", &budget), [why]);
        let claim = json!({"status": {"reservedFor": [{"name": "p"}]}});
        assert_eq!(
            faults("ResourceClaim", &claim),
            ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]
        );
    }
}
