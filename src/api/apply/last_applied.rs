//! The annotation in which kubectl's client-side apply keeps its configuration.
//!
//! Owns: what kubectl's server-side apply may take over from it, and that it follows what was applied since.
//! Called by: an apply by the manager `kubectl`; who wants nothing of it chooses another name.
//! Never: writes the annotation on an object that has none.

use serde_json::Value;

use super::set::Set;
use super::walk;
use crate::structure::Structure;
use crate::validation::ANNOTATIONS_BYTES_MAX;
use crate::{go_json, object};

pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The fields of the last configuration that still have the value they were given there. What differs now was set by
/// somebody else, whose it is. A configuration in another version says nothing.
pub fn unchanged(structure: Structure<'_>, live: &Value, api_version: &str) -> Set {
    let last = object::annotation(live, LAST_APPLIED).and_then(|text| serde_json::from_str(text).ok());
    let Some(last) = last.filter(|last: &Value| last["apiVersion"] == api_version) else { return Set::default() };
    let Ok(mut said) = walk::said(structure, &last) else { return Set::default() };
    let comparison = walk::compare(structure, &last, live);
    for changed in [&comparison.modified, &comparison.added, &comparison.removed] {
        said.subtract(changed);
    }
    said
}

/// Writes what was applied into the annotation, where there is one, so that a client-side apply could go on from there.
pub fn follow(object: &mut Value, applied: &Value) {
    if object::annotation(object, LAST_APPLIED).is_none_or(str::is_empty) {
        return;
    }
    let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else { return };
    annotations.insert(LAST_APPLIED.into(), configuration(applied).into());
    let lengths = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len));
    if lengths.sum::<usize>() > ANNOTATIONS_BYTES_MAX {
        annotations.remove(LAST_APPLIED);
    }
}

/// Without the annotation itself.
fn configuration(applied: &Value) -> String {
    let mut configuration = applied.clone();
    if let Some(metadata) = configuration["metadata"].as_object_mut() {
        match metadata.get_mut("annotations") {
            Some(Value::Object(annotations)) => drop(annotations.remove(LAST_APPLIED)),
            _ => drop(metadata.remove("annotations")),
        }
    }
    go_json::escaped(&configuration.to_string()) + "\n"
}
