//! DefaultStorageClass: a claim that names no class gets the default one.
//!
//! Owns: which class is the default.
//! Called by: the admission chain for new claims.
//! Never: overrules a class that is named, even the empty one.

use std::sync::Arc;

use minik_api::{Status, object, resources};
use serde_json::Value;

use super::plugin::{Plugin, World};
use super::{Operation, Review};

pub struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    fn mutate(&self, review: &mut Review, world: &World) -> Result<(), Status> {
        if review.operation != Operation::Create || !review.is("", "persistentvolumeclaims", "") {
            return Ok(());
        }
        let named = !review.object["spec"]["storageClassName"].is_null()
            || object::annotation(&review.object, "volume.beta.kubernetes.io/storage-class").is_some();
        if !named {
            let marks =
                ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
            if let Some(class) = newest_marked(world.objects.list(resources::STORAGECLASSES, ""), &marks) {
                review.object["spec"]["storageClassName"] = object::name(&class).into();
            }
        }
        Ok(())
    }
}

/// The newest object with one of the annotations set to `true`; of equally new ones the first by name.
pub fn newest_marked(objects: Vec<Arc<Value>>, marks: &[&str]) -> Option<Arc<Value>> {
    let marked = |o: &Arc<Value>| marks.iter().any(|mark| object::annotation(o, mark) == Some("true"));
    let created = |o: &Arc<Value>| o["metadata"]["creationTimestamp"].as_str().unwrap_or("").to_string();
    objects
        .into_iter()
        .filter(marked)
        .min_by(|a, b| created(b).cmp(&created(a)).then_with(|| object::name(a).cmp(object::name(b))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{review, world};
    use super::*;

    fn check(spec: Value) -> Value {
        let class = |name: &str, created: &str, default: &str| {
            json!({"kind": "StorageClass", "metadata": {"name": name, "creationTimestamp": created,
                "annotations": {"storageclass.kubernetes.io/is-default-class": default}}})
        };
        let world = world(vec![
            class("old", "2026-01-01T00:00:00Z", "true"),
            class("new", "2026-02-01T00:00:00Z", "true"),
            class("newest", "2026-03-01T00:00:00Z", "false"),
        ]);
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "a"}, "spec": spec});
        let mut review = review(Operation::Create, claim);
        DefaultStorageClass.mutate(&mut review, &world).expect("never refuses");
        review.object["spec"]["storageClassName"].take()
    }

    #[test]
    fn the_newest_default_is_taken_where_none_is_named() {
        assert_eq!(check(json!({})), "new");
        assert_eq!(check(json!({"storageClassName": ""})), "");
        assert_eq!(check(json!({"storageClassName": "x"})), "x");
    }
}
