//! Who owns an object's replicas, as seen through `/scale`.
//!
//! Owns: the managed fields of a `Scale` made from those of its object, and back.
//! Called by: the API server, around every write to `/scale`.
//! Never: compares objects.
//!
//! Upstream tells updaters apart by their `apiVersion` too, and a `Scale` has another one than its object. So an updater
//! that owned the replicas appears again after any write to `/scale`, as an entry of its own that has no time, and is
//! forgotten by the write after that one. Clients see all of it, so it is the same here.

use serde_json::{Value, json};

use super::managers::{self, Entry};
use super::set::{self, Set};

const API_VERSION: &str = "autoscaling/v1";

fn set_of(path: &str) -> Set {
    let edges: Vec<String> = path.trim_start_matches('.').split('.').map(set::field_edge).collect();
    let mut set = Set::default();
    set.insert(&edges);
    set
}

fn replicas_in_scale() -> Set {
    set_of("spec.replicas")
}

fn owns(entry: &Entry, fields: &Set) -> bool {
    !entry.fields.intersection(fields).is_empty()
}

/// The managed fields of an object's `Scale`; `replicas` is where the object has them: `.spec.replicas`.
pub fn managers_of_scale(object: &Value, replicas: &str) -> Value {
    let path = set_of(replicas);
    let owners = managers::decode(object).unwrap_or_default().into_iter().filter(|e| owns(e, &path));
    let entries =
        owners.map(|owner| Entry { api_version: API_VERSION.into(), fields: replicas_in_scale(), ..owner }).collect();
    let mut holder = json!({"metadata": {}});
    managers::write(&mut holder, entries);
    holder["metadata"]["managedFields"].take()
}

/// Makes the managed fields of `object` say what those of its `scale` say about the replicas.
pub fn take_managers_of_scale(object: &mut Value, api_version: &str, replicas: &str, scale: &Value) {
    let path = set_of(replicas);
    let (Some(before), Some(mut of_scale)) = (managers::decode(object), managers::decode(scale)) else { return };
    let mut entries = Vec::new();
    for mut entry in before.iter().cloned() {
        if owns(&entry, &path) {
            match of_scale.iter().position(|e| e.is_same_manager(&entry)) {
                Some(known) => drop(of_scale.remove(known)),
                None => entry.fields.subtract(&path),
            }
        }
        entries.push(entry);
    }
    for owner in of_scale.into_iter().filter(|e| owns(e, &replicas_in_scale())) {
        let time = before.iter().find(|e| e.is_same_manager(&owner)).and_then(|e| e.time.clone());
        entries.push(Entry { api_version: api_version.into(), time, fields: path.clone(), ..owner });
    }
    managers::write(object, entries);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(entries: Value) -> Value {
        json!({"metadata": {"managedFields": entries}})
    }

    fn told(object: &Value) -> Vec<String> {
        let entries = managers::decode(object).unwrap_or_default();
        let line = |e: Entry| format!("{} {:?} {}", e.title(), e.time, e.fields.into_json());
        entries.into_iter().map(line).collect()
    }

    fn entry(manager: &str, operation: &str, subresource: &str, fields: Value) -> Value {
        let mut entry = json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1",
            "fieldsType": "FieldsV1", "fieldsV1": fields, "time": "2026-01-01T00:00:00Z"});
        if !subresource.is_empty() {
            entry["subresource"] = subresource.into();
        }
        entry
    }

    #[test]
    fn an_applier_keeps_the_replicas_and_an_updater_loses_its_time_and_then_them() {
        let fields = json!({"f:spec": {"f:replicas": {}, "f:paused": {}}});
        let mut whole =
            object(json!([entry("a", "Apply", "", fields.clone()), entry("u", "Update", "", fields.clone())]));
        for expected in [
            vec![
                r#""a" Some("2026-01-01T00:00:00Z") {"f:spec":{"f:paused":{},"f:replicas":{}}}"#,
                r#""u" using apps/v1 Some("2026-01-01T00:00:00Z") {"f:spec":{"f:paused":{}}}"#,
            ],
            vec![
                r#""a" Some("2026-01-01T00:00:00Z") {"f:spec":{"f:paused":{},"f:replicas":{}}}"#,
                r#""u" using apps/v1 Some("2026-01-01T00:00:00Z") {"f:spec":{"f:paused":{}}}"#,
            ],
        ] {
            let scale = object(managers_of_scale(&whole, ".spec.replicas"));
            take_managers_of_scale(&mut whole, "apps/v1", ".spec.replicas", &scale);
            assert_eq!(told(&whole), expected);
        }
    }

    #[test]
    fn who_took_the_replicas_by_scale_owns_them_alone_and_without_a_time() {
        let fields = json!({"f:spec": {"f:replicas": {}}});
        let mut whole = object(json!([entry("u", "Update", "", fields)]));
        let mut taken = entry("s", "Apply", "scale", json!({"f:spec": {"f:replicas": {}}}));
        taken["apiVersion"] = API_VERSION.into();
        take_managers_of_scale(&mut whole, "apps/v1", ".spec.replicas", &object(json!([taken])));
        assert_eq!(told(&whole), [r#""s" with subresource "scale" None {"f:spec":{"f:replicas":{}}}"#]);
    }
}
