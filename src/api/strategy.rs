//! What the server does to an object before it is admitted: status and spec kept apart, generations counted.
//!
//! Owns: those rules, from the registry's row and for the few kinds that have more.
//! Called by: the API server for every create, update and status update, before validation.
//! Never: sets names, uids, timestamps or resource versions, or allocates anything.

use serde_json::Value;

use crate::registry::{Resource, StatusWrites};

fn set(object: &mut Value, field: &str, value: Option<Value>) {
    let Some(map) = object.as_object_mut() else { return };
    match value {
        Some(value) => map.insert(field.into(), value),
        None => map.remove(field),
    };
}

fn set_generation(object: &mut Value, generation: i64) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.insert("generation".into(), generation.into());
    }
}

/// Whether something besides metadata, status and type differs.
fn desired_state_differs(new: &Value, old: &Value) -> bool {
    let desired = |o: &Value| {
        let mut map = o.as_object().cloned().unwrap_or_default();
        for field in ["metadata", "status", "kind", "apiVersion"] {
            map.remove(field);
        }
        map
    };
    desired(new) != desired(old)
}

/// Before a create.
pub fn prepare_create(resource: &Resource, object: &mut Value) {
    if resource.status == StatusWrites::Separate {
        set(object, "status", None);
    }
    if resource.generation.starts_at_one {
        set_generation(object, 1);
    } else if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("generation");
    }
}

/// Before an update of the object itself.
pub fn prepare_update(resource: &Resource, new: &mut Value, old: &Value) {
    if resource.status != StatusWrites::WithTheObject {
        set(new, "status", old.get("status").cloned());
    }
    let generation = crate::object::generation(old);
    let counted = resource.generation.counts_changes && desired_state_differs(new, old);
    if generation > 0 || counted {
        set_generation(new, generation + i64::from(counted));
    }
}

/// Before a write to `/status`: everything but the status (and metadata that controllers own) stays as it was.
pub fn prepare_status_update(resource: &Resource, new: &mut Value, old: &Value) {
    let _ = resource;
    let status = new.get("status").cloned();
    let managed = new["metadata"].get("managedFields").cloned();
    let version = new["metadata"].get("resourceVersion").cloned();
    let mut kept = old.clone();
    set(&mut kept, "status", status);
    for (field, value) in [("managedFields", managed), ("resourceVersion", version)] {
        if let Some(value) = value {
            set(&mut kept["metadata"], field, Some(value));
        }
    }
    *new = kept;
}
