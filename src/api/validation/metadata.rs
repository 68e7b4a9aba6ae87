//! Rules of `metadata`, which all kinds share.
//!
//! Owns: names, labels, annotations, owners and finalizers, and what of them may not change.
//! Called by: `validation` for every kind.
//! Never: knows which kind has which naming rule; it is told.

use serde_json::Value;

use super::check::{At, Errors};
use super::pod_certificates;
use crate::names;

/// All annotations of an object together.
pub const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
const MANAGER_BYTES_MAX: usize = 128;

/// What a name must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule<'a> {
    Subdomain,
    Label,
    PathSegment,
    /// An IP address in its canonical form.
    Address,
    /// Of a definition: this, its `plural.group`.
    Definition(&'a str),
    /// Of an APIService: this, its `version.group`.
    ApiService(&'a str),
    /// Of a trust bundle of this signer, or of nobody.
    TrustBundle(&'a str),
    /// Checked with the rest of the object.
    Free,
}

impl NameRule<'_> {
    pub fn faults(self, name: &str) -> Vec<String> {
        match self {
            NameRule::Subdomain => names::dns1123_subdomain(name),
            NameRule::Label => names::dns1123_label(name),
            NameRule::PathSegment => names::path_segment(name),
            NameRule::Address => names::ip_address(name),
            NameRule::Definition(wanted) => {
                let mut faults = names::dns1123_subdomain(name);
                faults.extend((name != wanted).then(|| DEFINITION_NAME.to_string()));
                faults
            }
            NameRule::ApiService(wanted) => {
                let faults = names::path_segment(name);
                let other = faults.is_empty() && name != wanted;
                if other { vec![format!("must be `spec.version+\".\"+spec.group`: {wanted:?}")] } else { faults }
            }
            NameRule::TrustBundle(signer) => pod_certificates::bundle_name(name, signer),
            NameRule::Free => Vec::new(),
        }
    }

    fn faults_of_prefix(self, prefix: &str) -> Vec<String> {
        let masked = names::masked_prefix(prefix);
        match self {
            NameRule::PathSegment | NameRule::ApiService(_) => self.faults(prefix),
            NameRule::Definition(wanted) if prefix == wanted => names::dns1123_subdomain(&masked),
            rule => rule.faults(&masked),
        }
    }
}

const DEFINITION_NAME: &str = "must be spec.names.plural+\".\"+spec.group";

/// Which names finalizers may have beside those with a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalizerRule {
    /// Kubernetes' own.
    Standard,
    Any,
}

pub fn create(object: &At<'_>, rule: NameRule<'_>, finalizer: FinalizerRule, namespaced: bool, errors: &mut Errors) {
    let metadata = object.get("metadata");
    let prefix = metadata.get("generateName");
    if !prefix.text().is_empty() {
        errors.faults(&prefix, rule.faults_of_prefix(prefix.text()));
    }
    let name = metadata.get("name");
    if name.text().is_empty() {
        errors.required(&name, "name or generateName is required");
    } else {
        errors.faults(&name, rule.faults(name.text()));
    }
    let namespace = metadata.get("namespace");
    match (namespaced, namespace.text().is_empty()) {
        (true, true) => errors.required(&namespace, ""),
        (true, false) => errors.label(&namespace),
        (false, false) => errors.forbidden(&namespace, "not allowed on this type"),
        (false, true) => {}
    }
    common(&metadata, errors);
    let list = metadata.get("finalizers");
    finalizers(&list, errors);
    standard_finalizers(&list, finalizer, errors);
}

fn common(metadata: &At<'_>, errors: &mut Errors) {
    errors.non_negative(&metadata.get("generation"));
    errors.labels(&metadata.get("labels"));
    annotations(&metadata.get("annotations"), errors);
    owners(&metadata.get("ownerReferences"), errors);
    managed_fields(&metadata.get("managedFields"), errors);
}

pub fn annotations(at: &At<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in at.entries() {
        errors.faults(&at.showing(&key.into()), names::qualified_name(&key.to_lowercase()));
        size += key.len() + value.text().len();
    }
    if size > ANNOTATIONS_BYTES_MAX {
        errors.too_long(at, ANNOTATIONS_BYTES_MAX);
    }
}

fn owners(at: &At<'_>, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in at.items() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.get(field).text().is_empty() {
                errors.required(&owner.get(field), "must not be empty");
            }
        }
        let version = owner.get("apiVersion");
        if version.text().matches('/').count() > 1 {
            errors.invalid(&version, "must be <group>/<version> or <version>");
        }
        if owner.get("kind").text() == "Event" && version.text() == "v1" {
            errors.invalid(&owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.get("controller").is_true() {
            let this = format!("{}/{}", owner.get("kind").text(), owner.get("name").text());
            match &controller {
                Some(first) => errors.invalid(at, format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                )),
                None => controller = Some(this),
            }
        }
    }
}

/// Finalizers that need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["foregroundDeletion", "kubernetes", "orphan"];

fn finalizers(at: &At<'_>, errors: &mut Errors) {
    let mut has = [false; 2];
    for finalizer in at.items() {
        errors.faults(&at.showing(finalizer.value), names::qualified_name(finalizer.text()));
        has[0] |= finalizer.text() == "orphan";
        has[1] |= finalizer.text() == "foregroundDeletion";
    }
    if has == [true, true] {
        errors.invalid(at, "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

fn standard_finalizers(at: &At<'_>, rule: FinalizerRule, errors: &mut Errors) {
    for finalizer in at.items().filter(|_| rule == FinalizerRule::Standard) {
        let name = finalizer.text();
        if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
            errors.invalid(&finalizer, "name is neither a standard finalizer name nor is it fully qualified");
        }
    }
}

fn managed_fields(at: &At<'_>, errors: &mut Errors) {
    for entry in at.items() {
        let operation = entry.get("operation");
        match operation.text() {
            "Apply" | "Update" => {}
            "" => errors.required(&operation, "must not be empty"),
            _ => errors.not_supported(&operation, &["Apply", "Update"]),
        }
        let kind = entry.get("fieldsType");
        if !kind.text().is_empty() && kind.text() != "FieldsV1" {
            errors.invalid(&kind, "must be `FieldsV1`");
        }
        if entry.get("manager").text().len() > MANAGER_BYTES_MAX {
            errors.too_long(&entry.get("manager"), MANAGER_BYTES_MAX);
        }
    }
}

pub fn update(object: &At<'_>, old: &Value, finalizer: FinalizerRule, errors: &mut Errors) {
    let metadata = object.get("metadata");
    // What holds for a new object comes first, then what may not change, then what only some kinds ask for.
    common(&metadata, errors);
    finalizers(&metadata.get("finalizers"), errors);
    changed(&metadata, &old["metadata"], errors);
    standard_finalizers(&metadata.get("finalizers"), finalizer, errors);
}

/// What of a kind upstream checks more than once, in the order of its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers<'a> {
    /// The server for every kind, and the kind itself.
    Two,
    /// The kind itself first as changed, then as if it were new.
    Three(NameRule<'a>),
}

/// As `update`, of a kind without declarative validation: what is wrong is told by every layer that sees it.
pub fn update_by_layers(object: &At<'_>, old: &Value, layers: Layers<'_>, errors: &mut Errors) {
    let metadata = object.get("metadata");
    let as_new = |errors: &mut Errors| {
        common(&metadata, errors);
        finalizers(&metadata.get("finalizers"), errors);
    };
    as_new(errors);
    for _ in 0..2 {
        changed(&metadata, &old["metadata"], errors);
        common(&metadata, errors);
    }
    if let Layers::Three(rule) = layers {
        let name = metadata.get("name");
        errors.faults(&name, rule.faults(name.text()));
        as_new(errors);
    }
}

/// What an update may not change of metadata.
fn changed(metadata: &At<'_>, before: &Value, errors: &mut Errors) {
    let list = metadata.get("finalizers");
    if !before["deletionTimestamp"].is_null() {
        let known = before["finalizers"].as_array().map_or(&[][..], Vec::as_slice);
        let added: Vec<&str> = list.items().filter(|f| !known.contains(f.value)).map(|f| f.text()).collect();
        if !added.is_empty() {
            // The list is printed as Go prints a slice of strings.
            let names: Vec<String> = added.iter().map(|f| format!("{f:?}")).collect();
            errors.forbidden(&list, format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                names.join(", ")
            ));
        }
    }
    let version = metadata.get("resourceVersion");
    if version.text().is_empty() {
        errors.invalid(&version.showing(&"".into()), "must be specified for an update");
    }
    let generation = metadata.get("generation");
    if generation.number().unwrap_or(0) < before["generation"].as_i64().unwrap_or(0) {
        errors.invalid(&generation, "must not be decremented");
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        errors.immutable(&metadata.get(field), &before[field]);
    }
}
