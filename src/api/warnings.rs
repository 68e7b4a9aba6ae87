//! What a client is told about an object that is accepted all the same: the texts of `Warning` headers.
//!
//! Owns: which fields of which kinds are warned about, in Kubernetes' words and with its field paths.
//! Called by: the API server, once a write has been found valid.
//! Never: refuses or changes an object. Where upstream finds them in the order of a Go map, they come sorted here.

mod admission;
mod custom;
mod key_pair;
mod network;
mod node_labels;
mod pod;
mod storage;
mod volumes;
mod workloads;

use serde_json::Value;

use crate::names;
use crate::object;
use crate::quantity::Quantity;
use crate::registry::Resource;
use crate::validation::check::At;

/// How an object comes to be as it is. An update that goes by another face of the object, such as its scale, is one.
#[derive(Clone, Copy)]
pub enum Occasion<'a> {
    Create,
    Update { old: &'a Value },
    Status,
}

/// The texts for the object as it will be stored. One may be there twice; a client needs it once.
pub fn of(resource: &Resource, occasion: Occasion<'_>, object: &Value) -> Vec<String> {
    let mut warnings = Warnings::default();
    let at = At::root(object);
    let old = match occasion {
        Occasion::Create => None,
        Occasion::Update { old } => Some(old),
        Occasion::Status => {
            of_status(resource, &at, &mut warnings);
            return warnings.0;
        }
    };
    match resource.id() {
        None => custom::finalizers(&at, old, &mut warnings),
        Some(id) => of_object(id.group, &resource.kind, old, &at, &mut warnings),
    }
    warnings.0
}

fn of_status(resource: &Resource, at: &At<'_>, warnings: &mut Warnings) {
    match (resource.id().map(|id| id.group), &*resource.kind) {
        (Some(""), "Pod") => network::pod_addresses(at, warnings),
        (Some(""), "Service") | (Some("networking.k8s.io"), "Ingress") => network::balancer_addresses(at, warnings),
        _ => {}
    }
}

fn of_object(group: &str, kind: &str, old: Option<&Value>, at: &At<'_>, warnings: &mut Warnings) {
    match group {
        "" => of_core(kind, old, at, warnings),
        "admissionregistration.k8s.io" => admission::without_effect(at, warnings),
        "apiextensions.k8s.io" => custom::definition(at, old, warnings),
        "apps" | "batch" => workloads::workload(kind, old, at, warnings),
        "discovery.k8s.io" => network::endpoint_slice(at, old, warnings),
        "networking.k8s.io" => network::of_policies(kind, old, at, warnings),
        "node.k8s.io" => node_labels::runtime_class(at, warnings),
        "resource.k8s.io" if kind == "ResourceSlice" => driver_name(at, warnings),
        "storage.k8s.io" => storage::of_classes(kind, old, at, warnings),
        _ => {}
    }
}

fn of_core(kind: &str, old: Option<&Value>, at: &At<'_>, warnings: &mut Warnings) {
    match (kind, old) {
        ("Pod", None) => {
            warnings.unless_label(at, "the Pod's hostname");
            pod::pod(at, warnings);
        }
        ("PodTemplate" | "ReplicationController", _) => workloads::workload(kind, old, at, warnings),
        ("Service", _) => network::service(at, warnings),
        ("Endpoints", _) => network::endpoints(at, warnings),
        ("PersistentVolume", _) => storage::volume(at, warnings),
        ("PersistentVolumeClaim", _) => storage::claim(at, warnings),
        ("Node", _) => node(at, warnings),
        ("ResourceQuota", None) => quota(at, warnings),
        ("Secret", _) if at.value["type"] == "kubernetes.io/tls" => {
            warnings.0.extend(key_pair::fault(&at.value["data"]["tls.crt"], &at.value["data"]["tls.key"]));
        }
        ("ServiceAccount", _) => service_account(at, old, warnings),
        _ => {}
    }
}

/// The texts, in the order in which they are found.
#[derive(Default)]
struct Warnings(Vec<String>);

impl Warnings {
    fn say(&mut self, text: impl Into<String>) {
        self.0.push(text.into());
    }

    fn at(&mut self, at: &At<'_>, text: impl std::fmt::Display) {
        self.0.push(format!("{}: {text}", at.path()));
    }

    /// A name that is used where only a DNS label will do.
    fn unless_label(&mut self, object: &At<'_>, used_in: &str) {
        let faults = names::dns1123_label(object::name(object.value));
        if !faults.is_empty() {
            self.say(format!(
                "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is \
                 recommended: [{}]",
                faults.join(" ")
            ));
        }
    }

    fn annotations(&mut self, metadata: &At<'_>, deprecated: &[(&str, &str)]) {
        let annotations = metadata.get("annotations");
        for (key, text) in deprecated {
            let at = annotations.key(key);
            if !at.is_null() {
                self.at(&at, text);
            }
        }
    }

    /// Bytes do not come in parts.
    fn whole_bytes(&mut self, amounts: &At<'_>, resource: &str) {
        let at = amounts.key(resource);
        let Ok(amount) = Quantity::from_json(at.value) else { return };
        // Counted in thousandths as upstream does, where petabytes are more than a number can hold and so no whole one.
        if amount.milli_value() % 1000 != 0 {
            let shown = at.value.as_str().map_or_else(|| amount.to_string(), String::from);
            self.at(&at, format!("fractional byte value {shown:?} is invalid, must be an integer"));
        }
    }
}

fn node(node: &At<'_>, warnings: &mut Warnings) {
    let spec = node.get("spec");
    if !spec.get("externalID").text().is_empty() {
        warnings.say("spec.externalID: this field is deprecated, and is unused by Kubernetes");
    }
    spec.get("podCIDRs").items().for_each(|cidr| network::cidr(&cidr, warnings));
}

/// Requests that no limits would allow.
fn quota(quota: &At<'_>, warnings: &mut Warnings) {
    let hard = &quota.value["spec"]["hard"];
    for resource in ["cpu", "memory", "ephemeral-storage"] {
        let (prefixed, limits) = (format!("requests.{resource}"), format!("limits.{resource}"));
        let bare = matches!(resource, "cpu" | "memory") && hard[&prefixed].is_null();
        let requests = if bare { resource } else { &prefixed };
        let amount = |name: &str| Quantity::from_json(hard.get(name)?).ok();
        if let (Some(requested), Some(limit)) = (amount(requests), amount(&limits))
            && requested > limit
        {
            warnings.say(format!("ResourceQuota {requests} ({requested}) should be less than {limits} ({limit})"));
        }
    }
}

fn service_account(account: &At<'_>, old: Option<&Value>, warnings: &mut Warnings) {
    const KEY: &str = "kubernetes.io/enforce-mountable-secrets";
    const TEXT: &str = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
    if old.is_none_or(|old| object::annotation(old, KEY).is_none()) {
        warnings.annotations(&account.get("metadata"), &[(KEY, TEXT)]);
    }
}

fn driver_name(slice: &At<'_>, warnings: &mut Warnings) {
    let driver = slice.value["spec"]["driver"].as_str().unwrap_or("");
    if driver != driver.to_lowercase() {
        let text = format!("driver names should be lowercase; {driver:?} contains uppercase characters");
        warnings.say(format!("spec.driver: {text}"));
    }
}

#[cfg(test)]
mod tests;
