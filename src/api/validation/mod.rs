//! What makes an object invalid, in Kubernetes' words and with its field paths.
//!
//! Owns: the rules of every kind, for create, update and status update.
//! Called by: the API server after admission.
//! Never: changes the object or looks at another one.

mod certificates;
mod check;
mod containers;
mod core;
mod definition;
mod flowcontrol;
mod metadata;
mod network;
mod others;
mod pod;
mod pod_certificates;
mod rbac;
mod resize;
mod scheduling;
mod service;
mod storage;
#[cfg(test)]
mod tests;
mod volumes;
mod workloads;

pub use pod_certificates::outcome as certificate_outcome;

use serde_json::Value;

use crate::FieldError;
use crate::registry;
use check::{At, Errors};
use metadata::NameRule;

/// What names of a kind must look like.
fn name_rule(kind: &str) -> NameRule {
    match kind {
        "Namespace" | "Service" => NameRule::Label,
        "Role" | "ClusterRole" | "RoleBinding" | "ClusterRoleBinding" | "ClusterTrustBundle" => NameRule::PathSegment,
        "CustomResourceDefinition" | "APIService" | "Binding" | "Eviction" | "Scale" => NameRule::Free,
        "CertificateSigningRequest" => NameRule::Free,
        "IPAddress" => NameRule::Address,
        _ => NameRule::Subdomain,
    }
}

fn is_namespaced(group: &str, version: &str, kind: &str) -> bool {
    registry::by_kind(group, version, kind).is_none_or(|r| r.is_namespaced())
}

/// Reviews and other bodies that are never stored have no name of their own.
fn is_stored(group: &str, version: &str, kind: &str) -> bool {
    registry::by_kind(group, version, kind).is_some_and(registry::Resource::is_stored)
}

pub fn create(group: &str, version: &str, kind: &str, object: &Value) -> Vec<FieldError> {
    let (at, mut errors) = (At::root(object), Errors::default());
    if is_stored(group, version, kind) {
        metadata::create(&at, name_rule(kind), is_namespaced(group, version, kind), &mut errors);
    }
    by_group(group, kind, &at, None, &mut errors);
    errors.into_list()
}

/// A write to the object itself.
pub fn update(group: &str, version: &str, kind: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    let (at, mut errors) = (At::root(new), Errors::default());
    if is_stored(group, version, kind) {
        metadata::update(&at, old, &mut errors);
    }
    by_group(group, kind, &at, Some(old), &mut errors);
    errors.into_list()
}

/// A custom resource's metadata; its schema is checked elsewhere.
pub fn custom(new: &Value, old: Option<&Value>, namespaced: bool) -> Vec<FieldError> {
    let (at, mut errors) = (At::root(new), Errors::default());
    match old {
        None => metadata::create(&at, NameRule::Subdomain, namespaced, &mut errors),
        Some(old) => metadata::update(&at, old, &mut errors),
    }
    errors.into_list()
}

fn by_group(group: &str, kind: &str, at: &At<'_>, old: Option<&Value>, errors: &mut Errors) {
    type Create = fn(&str, &At<'_>, &mut Errors);
    type Update = fn(&str, &At<'_>, &Value, &mut Errors);
    let (create, update): (Create, Update) = match (group, kind) {
        ("", "Pod") => (|_, at, errors| pod::create(at, errors), |_, at, old, errors| pod::update(at, old, errors)),
        ("", "Service") => {
            (|_, at, errors| service::create(at, errors), |_, at, old, errors| service::update(at, old, errors))
        }
        ("", "ReplicationController") | ("apps" | "batch", _) => (workloads::create, workloads::update),
        ("", _) => (core::create, core::update),
        ("flowcontrol.apiserver.k8s.io", _) => (flowcontrol::create, flowcontrol::update),
        ("rbac.authorization.k8s.io", _) => (rbac::create, rbac::update),
        ("storage.k8s.io", _) => (storage::create, storage::update),
        ("certificates.k8s.io", "CertificateSigningRequest") => (certificates::create, certificates::update),
        ("certificates.k8s.io", "ClusterTrustBundle" | "PodCertificateRequest") => {
            (pod_certificates::create, pod_certificates::update)
        }
        ("networking.k8s.io" | "discovery.k8s.io", _) => (network::create, network::update),
        _ => (others::create, others::update),
    };
    match old {
        None => create(kind, at, errors),
        Some(old) => update(kind, at, old, errors),
    }
}

/// A write to a subresource: `status`, `scale`, `ephemeralcontainers`, `resize`, ...
pub fn update_subresource(
    group: &str,
    version: &str,
    kind: &str,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> Vec<FieldError> {
    let (at, mut errors) = (At::root(new), Errors::default());
    if !is_stored(group, version, kind) {
        return errors.into_list();
    }
    metadata::update(&at, old, &mut errors);
    match (kind, subresource) {
        ("Pod", "status") => pod_status(&at, old, &mut errors),
        ("Node", "status") => core::update(kind, &at, old, &mut errors),
        ("CertificateSigningRequest", "status" | "approval") => {
            certificates::update_decision(subresource, &at, old, &mut errors);
        }
        ("PodCertificateRequest", "status") => pod_certificates::request_status(&at, old, &mut errors),
        ("Pod", "ephemeralcontainers") => ephemeral_containers(&at, old, &mut errors),
        ("Pod", "resize") => resize::check(&at, old, &mut errors),
        (_, "status") => counts(&at.get("status"), &mut errors),
        _ => {}
    }
    errors.into_list()
}

/// Numbers of replicas are never negative.
fn counts(status: &At<'_>, errors: &mut Errors) {
    for field in [
        "replicas",
        "readyReplicas",
        "availableReplicas",
        "updatedReplicas",
        "unavailableReplicas",
        "fullyLabeledReplicas",
        "observedGeneration",
        "active",
        "succeeded",
        "failed",
        "currentNumberScheduled",
        "desiredNumberScheduled",
        "numberReady",
        "numberAvailable",
        "numberMisscheduled",
        "numberUnavailable",
        "updatedNumberScheduled",
    ] {
        errors.non_negative(&status.get(field));
    }
    let replicas = status.get("replicas").number().unwrap_or(0);
    if status.get("replicas").is_null() {
        return;
    }
    for field in ["readyReplicas", "availableReplicas", "updatedReplicas", "fullyLabeledReplicas"] {
        if status.get(field).number().is_some_and(|n| n > replicas) {
            errors.invalid(&status.get(field), "cannot be greater than status.replicas");
        }
    }
}

fn pod_status(at: &At<'_>, old: &Value, errors: &mut Errors) {
    let (spec, status) = (at.get("spec"), at.get("status"));
    errors.immutable(&spec.get("nodeName"), &old["spec"]["nodeName"]);
    let nominated = status.get("nominatedNodeName");
    if !nominated.text().is_empty() {
        errors.subdomain(&nominated);
    }
    for ip in status.get("podIPs").items() {
        errors.faults(&ip.get("ip"), crate::names::ip(ip.get("ip").text()));
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

fn ephemeral_containers(at: &At<'_>, old: &Value, errors: &mut Errors) {
    let spec = at.get("spec");
    pod::pod_spec(&spec, errors);
    let list = spec.get("ephemeralContainers");
    for before in old["spec"]["ephemeralContainers"].as_array().into_iter().flatten() {
        let name = &before["name"];
        match list.items().find(|c| c.get("name").value == name) {
            None => errors.forbidden(&spec, format!("existing ephemeral containers {name} may not be removed\n")),
            Some(now) if now.value != before => {
                let difference = crate::patch::merge::difference(before, now.value);
                errors.forbidden(
                    &spec,
                    format!("existing ephemeral containers {name} may not be changed\n{difference:#}"),
                );
            }
            Some(_) => {}
        }
    }
}
