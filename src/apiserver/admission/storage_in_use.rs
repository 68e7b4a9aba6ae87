//! StorageObjectInUseProtection: volumes and claims are not removed while something uses them.
//!
//! Owns: the finalizers that hold them.
//! Called by: the admission chain for new volumes, claims and attribute classes.
//! Never: takes a finalizer away; the protection controllers do.

use minik_api::{Status, object};
use serde_json::json;

use super::plugin::{Plugin, World};
use super::{Operation, Review};

pub struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn mutate(&self, review: &mut Review, _: &World) -> Result<(), Status> {
        if review.operation != Operation::Create || !review.subresource.is_empty() {
            return Ok(());
        }
        let finalizer = match (review.group.as_str(), review.resource.as_str()) {
            ("", "persistentvolumes") => "kubernetes.io/pv-protection",
            ("", "persistentvolumeclaims") => "kubernetes.io/pvc-protection",
            ("storage.k8s.io", "volumeattributesclasses") => "kubernetes.io/vac-protection",
            _ => return Ok(()),
        };
        if object::finalizers(&review.object).any(|f| f == finalizer) {
            return Ok(());
        }
        let finalizers = &mut review.object["metadata"]["finalizers"];
        match finalizers.as_array_mut() {
            Some(list) => list.push(finalizer.into()),
            None => *finalizers = json!([finalizer]),
        }
        Ok(())
    }
}
