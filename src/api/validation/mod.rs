//! What makes an object invalid, in Kubernetes' words and with its field paths.
//!
//! Owns: the rules of every kind, for create, update and status update.
//! Called by: the API server after admission.
//! Never: changes the object or looks at another one.

mod admission;
mod autoscaling;
mod certificates;
pub(crate) mod check;
pub(crate) mod containers;
mod core;
mod definition;
mod definition_schema;
mod devices;
mod events;
mod flowcontrol;
mod jobs;
mod metadata;
mod network;
mod others;
mod pod;
mod pod_annotations;
mod pod_certificates;
mod rbac;
mod resize;
mod scheduling;
mod service;
mod status;
mod storage;
#[cfg(test)]
mod tests;
mod volumes;
mod workload_status;
mod workloads;

pub use definition::schemas;
pub(crate) use metadata::ANNOTATIONS_BYTES_MAX;
pub use pod_certificates::outcome as certificate_outcome;

use serde_json::Value;

use crate::schema::Type;
use crate::{FieldError, go_json, registry};
use check::{At, Errors};
use metadata::{FinalizerRule, Layers, NameRule};

/// What names of a kind must look like.
fn name_rule(group: &str, kind: &str) -> NameRule<'static> {
    match kind {
        "Event" if is_core_event(group, kind) => NameRule::PathSegment,
        "Namespace" | "Service" | "StatefulSet" => NameRule::Label,
        "Role" | "ClusterRole" | "RoleBinding" | "ClusterRoleBinding" | "PodDisruptionBudget" => NameRule::PathSegment,
        "Binding" | "Eviction" | "Scale" => NameRule::Free,
        "CertificateSigningRequest" => NameRule::Free,
        "IPAddress" => NameRule::Address,
        _ => NameRule::Subdomain,
    }
}

/// The older sort of Events has no rules for its metadata but those of every object, which come last.
fn is_core_event(group: &str, kind: &str) -> bool {
    group.is_empty() && kind == "Event"
}

/// Upstream checks most kinds with more rules than the others.
fn finalizer_rule(group: &str, kind: &str) -> FinalizerRule {
    match group {
        _ if is_core_event(group, kind) => FinalizerRule::Any,
        "admissionregistration.k8s.io"
        | "apiextensions.k8s.io"
        | "apiregistration.k8s.io"
        | "coordination.k8s.io"
        | "node.k8s.io"
        | "policy" => FinalizerRule::Any,
        _ => FinalizerRule::Standard,
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
    if is_core_event(group, kind) {
        by_group(group, kind, &at, None, &mut errors);
        if errors.is_empty() {
            metadata_of_new(group, version, kind, &at, &mut errors);
        }
        return told(group, errors);
    }
    // Events of the newer group say first what Events of either must be.
    if is_stored(group, version, kind) && group != "events.k8s.io" {
        metadata_of_new(group, version, kind, &at, &mut errors);
    }
    by_group(group, kind, &at, None, &mut errors);
    told(group, errors)
}

/// Servers of definitions and of other servers repeat a fault that was found twice; all other kinds do not.
fn told(group: &str, errors: Errors) -> Vec<FieldError> {
    match group {
        "apiextensions.k8s.io" | "apiregistration.k8s.io" => errors.into_list(),
        _ => errors.into_distinct(),
    }
}

fn metadata_of_new(group: &str, version: &str, kind: &str, at: &At<'_>, errors: &mut Errors) {
    let (of_definition, of_service);
    let rule = match kind {
        "CustomResourceDefinition" => {
            of_definition = definition::name(at.value);
            NameRule::Definition(&of_definition)
        }
        "APIService" => {
            of_service = others::api_service_name(at.value);
            NameRule::ApiService(&of_service)
        }
        "ClusterTrustBundle" => NameRule::TrustBundle(at.value["spec"]["signerName"].as_str().unwrap_or_default()),
        _ => name_rule(group, kind),
    };
    metadata::create(at, rule, finalizer_rule(group, kind), is_namespaced(group, version, kind), errors);
}

/// Of a new Service, what has to be sound before an address can be given.
pub fn service_addressing(service: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    service::addressing(&At::root(service), &mut errors);
    errors.into_list()
}

/// A write to the object itself.
pub fn update(group: &str, version: &str, kind: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    let (at, mut errors) = (At::root(new), Errors::default());
    if is_stored(group, version, kind) {
        match kind {
            "CustomResourceDefinition" => metadata::update_by_layers(&at, old, Layers::Two, &mut errors),
            "APIService" => {
                let name = others::api_service_name(new);
                metadata::update_by_layers(&at, old, Layers::Three(NameRule::ApiService(&name)), &mut errors);
            }
            _ => metadata::update(&at, old, finalizer_rule(group, kind), &mut errors),
        }
    }
    by_group(group, kind, &at, Some(old), &mut errors);
    told(group, errors)
}

/// A custom resource's metadata; its schema is checked elsewhere.
pub fn custom(new: &Value, old: Option<&Value>, namespaced: bool) -> Vec<FieldError> {
    let (at, mut errors) = (At::root(new), Errors::default());
    match old {
        None => metadata::create(&at, NameRule::Subdomain, FinalizerRule::Any, namespaced, &mut errors),
        Some(old) => metadata::update_by_layers(&at, old, Layers::Two, &mut errors),
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
        ("", "ReplicationController") | ("apps", _) => (workloads::create, workloads::update),
        ("batch", _) => (jobs::create, jobs::update),
        ("", "Event") => (events::create_core, events::update_core),
        ("events.k8s.io", _) => (events::create_newer, events::update_newer),
        ("", _) => (core::create, core::update),
        ("resource.k8s.io", _) => (devices::create, devices::update),
        ("autoscaling", "HorizontalPodAutoscaler") => (autoscaling::create, autoscaling::update),
        ("admissionregistration.k8s.io", _) => (admission::create, admission::update),
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
    match kind {
        "CustomResourceDefinition" | "APIService" => metadata::update_by_layers(&at, old, Layers::Two, &mut errors),
        _ => metadata::update(&at, old, finalizer_rule(group, kind), &mut errors),
    }
    match (kind, subresource) {
        ("Node", "status") => core::update(kind, &at, old, &mut errors),
        ("CertificateSigningRequest", "status" | "approval") => {
            certificates::update_decision(subresource, &at, old, &mut errors);
        }
        ("PodCertificateRequest", "status") => pod_certificates::request_status(&at, old, &mut errors),
        ("Pod", "ephemeralcontainers") => ephemeral_containers(&at, old, &mut errors),
        ("Pod", "resize") => resize::check(&at, old, &mut errors),
        (_, "status") => status::update(kind, &at, old, &mut errors),
        _ => {}
    }
    told(group, errors)
}

/// A type of the core group.
fn core_type(name: &str) -> Type {
    Type::api("core.v1", name)
}

fn ephemeral_containers(at: &At<'_>, old: &Value, errors: &mut Errors) {
    let spec = at.get("spec");
    pod::pod_spec(&spec, errors);
    let list = spec.get("ephemeralContainers");
    for before in old["spec"]["ephemeralContainers"].as_array().into_iter().flatten() {
        let name = &before["name"];
        match list.items().find(|c| c.get("name").value == name) {
            None => errors.forbidden(&list, format!("existing ephemeral containers {name} may not be removed\n")),
            Some(now) if now.value != before => {
                let difference = go_json::difference(core_type("EphemeralContainer"), before, now.value);
                let why = format!("existing ephemeral containers {name} may not be changed\n{difference}");
                errors.forbidden(&list, why);
            }
            Some(_) => {}
        }
    }
}
