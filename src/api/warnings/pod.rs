//! Warnings about Pods and the templates they are made from.
//!
//! Owns: what is odd in a Pod's metadata and spec besides its volumes.
//! Called by: `warnings` for Pods, `workloads` for templates.
//! Never: compares with an old Pod: whoever calls knows whether anything is worth saying again.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::node_labels::{self, Values};
use super::{Warnings, network, volumes};
use crate::pod_annotations::{SECCOMP_OF_CONTAINER, SECCOMP_OF_POD};
use crate::strategy::app_armor;
use crate::validation::check::At;
use crate::validation::containers;

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    ("security.alpha.kubernetes.io/sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
    ("security.alpha.kubernetes.io/unsafe-sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
];
const SECCOMP: &str = r#"non-functional in v1.27+; use the "seccompProfile" field instead"#;
const MATCHES_NOTHING: &str = "a null labelSelector results in matching no pod";
const BYTES: [&str; 2] = ["memory", "ephemeral-storage"];

/// Who is looked at. What a Pod's annotations say of AppArmor was told when its fields were made of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Pod,
    Template,
}

pub(super) fn pod(pod: &At<'_>, warnings: &mut Warnings) {
    whole(pod, Of::Pod, warnings);
}

pub(super) fn template(template: &At<'_>, warnings: &mut Warnings) {
    whole(template, Of::Template, warnings);
}

fn whole(pod: &At<'_>, of: Of, warnings: &mut Warnings) {
    let (metadata, spec) = (pod.get("metadata"), pod.get("spec"));
    placement(&spec, warnings);
    warnings.annotations(&metadata, &ANNOTATIONS);
    volumes::volumes(&spec.get("volumes"), warnings);
    references(&spec, warnings);
    let overhead = spec.get("overhead");
    BYTES.iter().for_each(|resource| warnings.whole_bytes(&overhead, resource));
    if spec.value["securityContext"]["seccompProfile"].is_null() {
        warnings.annotations(&metadata, &[(SECCOMP_OF_POD, SECCOMP)]);
    }
    containers::each(&spec, |container| {
        seccomp(container, &metadata, warnings);
        if of == Of::Template {
            app_armor(container, &metadata, &spec, warnings);
        }
        resources(container, warnings);
        environment(&container.get("env"), warnings);
    });
    ports(&spec, warnings);
    port_names(&spec, warnings);
    let grace = spec.get("terminationGracePeriodSeconds");
    if grace.number().is_some_and(|seconds| seconds < 0) {
        warnings.at(&grace, "must be >= 0; negative values are invalid and will be treated as 1");
    }
    neighbours(&spec, warnings);
    addresses(&spec, warnings);
}

/// By which labels Nodes are chosen.
fn placement(spec: &At<'_>, warnings: &mut Warnings) {
    node_labels::keys(&spec.get("nodeSelector"), warnings);
    let affinity = spec.get("affinity");
    let nodes = affinity.get("nodeAffinity");
    let required = nodes.get("requiredDuringSchedulingIgnoredDuringExecution");
    let terms = required.get("nodeSelectorTerms");
    terms.items().for_each(|term| node_labels::term(&term, Values::Refused, warnings));
    for preferred in nodes.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        node_labels::term(&preferred.get("preference"), Values::Judged, warnings);
    }
    for constraint in spec.get("topologySpreadConstraints").items() {
        node_labels::named(&constraint.get("topologyKey"), warnings);
        selects_something(&constraint, warnings);
    }
}

fn selects_something(term: &At<'_>, warnings: &mut Warnings) {
    let selector = term.get("labelSelector");
    if selector.is_null() {
        warnings.at(&selector, MATCHES_NOTHING);
    }
}

/// Which Pods are sought or shunned.
fn neighbours(spec: &At<'_>, warnings: &mut Warnings) {
    let affinity = spec.get("affinity");
    for kind in ["podAffinity", "podAntiAffinity"] {
        let terms = affinity.get(kind);
        for term in terms.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            selects_something(&term, warnings);
        }
        for weighted in terms.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            selects_something(&weighted.get("podAffinityTerm"), warnings);
        }
    }
}

/// Lists that are merged by a key and may hold it twice.
fn references(spec: &At<'_>, warnings: &mut Warnings) {
    repeated(&spec.get("hostAliases"), "ip", warnings);
    let secrets = spec.get("imagePullSecrets");
    repeated(&secrets, "name", warnings);
    for secret in secrets.items().filter(|secret| secret.get("name").text().is_empty()) {
        warnings.at(&secret.get("name"), r#"invalid empty name """#);
    }
}

fn repeated(list: &At<'_>, key: &str, warnings: &mut Warnings) {
    let mut seen = BTreeSet::new();
    for item in list.items() {
        let name = item.value[key].as_str().unwrap_or("");
        if !seen.insert(name) {
            warnings.at(&item.get(key), format!("duplicate {key} {name:?}"));
        }
    }
}

fn seccomp(container: &At<'_>, metadata: &At<'_>, warnings: &mut Warnings) {
    if container.value["securityContext"]["seccompProfile"].is_null() {
        let key = format!("{SECCOMP_OF_CONTAINER}{}", container.get("name").text());
        warnings.annotations(metadata, &[(&key, SECCOMP)]);
    }
}

/// An annotation that no field repeats, be it the container's or the Pod's.
fn app_armor(container: &At<'_>, metadata: &At<'_>, spec: &At<'_>, warnings: &mut Warnings) {
    if !container.value["securityContext"]["appArmorProfile"].is_null() {
        return;
    }
    let key = app_armor::annotation(container.get("name").text());
    let said = metadata.value["annotations"][&key].as_str().and_then(app_armor::profile);
    let of_pod = &spec.value["securityContext"]["appArmorProfile"];
    if of_pod.is_null() || said.as_ref() != Some(of_pod) {
        warnings.annotations(metadata, &[(&key, app_armor::DEPRECATED)]);
    }
}

fn resources(container: &At<'_>, warnings: &mut Warnings) {
    let resources = container.get("resources");
    for resource in BYTES {
        for side in ["limits", "requests"] {
            warnings.whole_bytes(&resources.get(side), resource);
        }
    }
}

/// A variable may be set again in terms of itself; anything else hides what it was.
fn environment(variables: &At<'_>, warnings: &mut Warnings) {
    let mut seen = BTreeSet::new();
    for variable in variables.items() {
        let (name, value) = (variable.value["name"].as_str().unwrap_or(""), variable.get("value"));
        let itself = format!("$({name})");
        let extends = variable.get("valueFrom").is_null() && value.text() != itself && value.text().contains(&itself);
        if !seen.insert(name) && !extends {
            let text = format!("hides previous definition of {name:?}, which may be dropped when using apply");
            warnings.at(&variable, text);
        }
    }
}

/// What two definitions of the same port mean for each other.
fn conflict(new: &Port, old: &Port) -> Option<&'static str> {
    if (&new.host_ip, new.host_port) == (&old.host_ip, old.host_port) {
        // Validation refuses those that are equal and name a port of the host.
        Some("duplicate port definition")
    } else if new.host_port == 0 || old.host_port == 0 {
        Some("overlapping port definition")
    } else if new.host_port == old.host_port && new.host_ip.is_empty() != old.host_ip.is_empty() {
        Some("dangerously ambiguous port definition")
    } else {
        None
    }
}

/// What a definition of a port claims of its host, and where it stands.
struct Port {
    path: String,
    host_ip: String,
    host_port: i64,
}

/// A port as Go prints it.
fn shown(port: &Value) -> String {
    let text = |field: &str| port[field].as_str().unwrap_or("");
    let number = |field: &str| port[field].as_i64().unwrap_or(0);
    format!(
        "{{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
        text("name"),
        number("hostPort"),
        number("containerPort"),
        text("protocol"),
        text("hostIP")
    )
}

fn ports(spec: &At<'_>, warnings: &mut Warnings) {
    let mut seen: BTreeMap<(i64, String), Vec<Port>> = BTreeMap::new();
    containers::each(spec, |container| {
        for at in container.get("ports").items() {
            let number = |field| at.get(field).number().unwrap_or(0);
            let (host_ip, host_port) = (at.get("hostIP").text().to_string(), number("hostPort"));
            if !host_ip.is_empty() && host_port == 0 {
                warnings.at(&at, format!("hostIP set without hostPort: {}", shown(at.value)));
            }
            let port = Port { path: at.path(), host_ip, host_port };
            let others = seen.entry((number("containerPort"), at.get("protocol").text().into())).or_default();
            for other in others.iter() {
                if let Some(conflict) = conflict(&port, other) {
                    warnings.at(&at, format!("{conflict} with {}", other.path));
                }
            }
            others.push(port);
        }
    });
}

fn port_names(spec: &At<'_>, warnings: &mut Warnings) {
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    containers::each(spec, |container| {
        for at in container.get("ports").items() {
            let name = at.get("name").text().to_string();
            if name.is_empty() {
                continue;
            }
            if let Some(other) = first.get(&name) {
                let text = format!(
                    "duplicate port name {name:?} with {other}, services and probes that select ports by name will use \
                     {other}"
                );
                warnings.at(&at, text);
            } else {
                first.insert(name, at.path());
            }
        }
    });
}

fn addresses(spec: &At<'_>, warnings: &mut Warnings) {
    let dns = spec.get("dnsConfig");
    dns.get("nameservers").items().for_each(|server| network::ip(&server, warnings));
    spec.get("hostAliases").items().for_each(|alias| network::ip(&alias.get("ip"), warnings));
}
