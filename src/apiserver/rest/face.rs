//! What of an object a client sees and may write under a path: all of it, its status, its scale, ...
//!
//! Owns: the two directions between the stored object and each of these faces.
//! Called by: get, update, patch, apply.
//! Never: reads or writes the store.

use minik_api::registry::Resource;
use minik_api::selector::LabelSelector;
use minik_api::{FieldError, Status, apply, object, strategy};
use serde_json::{Map, Value, json};

use crate::call::{Call, now};
use crate::catalog::Served;
use crate::rest::special;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    Whole,
    Status,
    Scale,
    /// `spec.finalizers` of a Namespace.
    Finalize,
    /// The conditions of a CertificateSigningRequest.
    Approval,
    EphemeralContainers,
    Resize,
}

fn pointer<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    path.trim_start_matches('.').split('.').try_fold(tree, |at, part| at.get(part))
}

fn set(tree: &mut Value, path: &str, value: Value) {
    let mut at = tree;
    for part in path.trim_start_matches('.').split('.') {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = at.as_object_mut().expect("made one above").entry(part).or_insert(Value::Null);
    }
    *at = value;
}

fn remove(tree: &mut Value, path: &str) {
    let (parent, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut at = Some(&mut *tree);
    for part in parent.split('.').filter(|p| !p.is_empty()) {
        at = at.and_then(|a| a.get_mut(part));
    }
    if let Some(Value::Object(fields)) = at {
        fields.remove(last);
    }
}

impl Face {
    pub fn of(call: &Call) -> Face {
        match call.info.subresource.as_str() {
            "status" => Face::Status,
            "scale" => Face::Scale,
            "finalize" => Face::Finalize,
            "approval" => Face::Approval,
            "ephemeralcontainers" => Face::EphemeralContainers,
            "resize" => Face::Resize,
            _ => Face::Whole,
        }
    }

    pub fn subresource(self) -> &'static str {
        match self {
            Face::Whole => "",
            Face::Status => "status",
            Face::Scale => "scale",
            Face::Finalize => "finalize",
            Face::Approval => "approval",
            Face::EphemeralContainers => "ephemeralcontainers",
            Face::Resize => "resize",
        }
    }

    /// The stored object after the client wrote `written` there.
    pub fn merge(self, served: &Served, old: &Value, written: Value) -> Result<Value, Status> {
        let mut new = written;
        if matches!(self, Face::Status | Face::Approval) {
            special::prepare_subresource(served, self, &mut new, old);
        }
        match self {
            Face::Whole => strategy::prepare_update(&served.row, &mut new, old),
            Face::Status => strategy::prepare_status_update(&served.row, &mut new, old),
            Face::Scale => new = scaled(served, old, &new)?,
            Face::Finalize => new = keep_but(old, &new, &["spec.finalizers"]),
            Face::Approval => approved(&mut new, old),
            Face::EphemeralContainers => {
                new = keep_but(old, &new, &["spec.ephemeralContainers"]);
                count_generation(&served.row, &mut new, old);
            }
            Face::Resize => {
                new = resized(old, &new);
                count_generation(&served.row, &mut new, old);
            }
        }
        Ok(new)
    }
}

/// Of what an approval writes, its metadata and the conditions count. A condition without times gets them: the time of
/// an equal one before it, or now.
fn approved(new: &mut Value, old: &Value) {
    let mut conditions = new["status"]["conditions"].take();
    for condition in conditions.as_array_mut().into_iter().flatten() {
        let before = old["status"]["conditions"].as_array().into_iter().flatten();
        let mut same = before.filter(|c| c["type"] == condition["type"] && c["status"] == condition["status"]);
        let since = same.find_map(|c| c["lastTransitionTime"].as_str().map(String::from));
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = now().into();
        }
        if condition["lastTransitionTime"].is_null() {
            condition["lastTransitionTime"] = since.unwrap_or_else(now).into();
        }
    }
    for field in ["spec", "status"] {
        new[field] = old[field].clone();
    }
    if conditions.is_array() {
        new["status"]["conditions"] = conditions;
    } else if let Some(status) = new["status"].as_object_mut() {
        status.remove("conditions");
    } else if let Some(fields) = new.as_object_mut() {
        fields.remove("status");
    }
}

/// `old` with the named fields, and what every write may carry, of `written`.
fn keep_but(old: &Value, written: &Value, fields: &[&str]) -> Value {
    let mut new = old.clone();
    for field in fields {
        match pointer(written, field) {
            Some(value) => set(&mut new, field, value.clone()),
            None => remove(&mut new, field),
        }
    }
    if let Some(value) = written["metadata"].get("managedFields") {
        new["metadata"]["managedFields"] = value.clone();
    }
    new
}

fn count_generation(row: &Resource, new: &mut Value, old: &Value) {
    if row.generation.counts_changes && new["spec"] != old["spec"] {
        new["metadata"]["generation"] = (object::generation(old) + 1).into();
    }
}

/// Only resources of containers, found by name, change in a resize.
fn resized(old: &Value, written: &Value) -> Value {
    let mut new = keep_but(old, written, &[]);
    for list in ["containers", "initContainers"] {
        let Some(containers) = new["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            let mut all = written["spec"][list].as_array().into_iter().flatten();
            let Some(wanted) = all.find(|c| c["name"] == container["name"]) else { continue };
            for field in ["resources", "resizePolicy"] {
                if let Some(value) = wanted.get(field) {
                    container[field] = value.clone();
                }
            }
        }
    }
    if let Some(resources) = written["spec"].get("resources") {
        new["spec"]["resources"] = resources.clone();
    }
    new
}

/// Where a resource keeps what `Scale` shows.
struct ScalePaths<'a> {
    replicas: &'a str,
    status_replicas: &'a str,
    selector: &'a str,
}

fn scale_paths(served: &Served) -> ScalePaths<'_> {
    match served.custom().and_then(|c| c.scale()) {
        Some((replicas, status_replicas, selector)) => ScalePaths { replicas, status_replicas, selector },
        None => {
            ScalePaths { replicas: ".spec.replicas", status_replicas: ".status.replicas", selector: ".spec.selector" }
        }
    }
}

/// Where a custom resource should have its replicas, when it has none: then it cannot be read as a `Scale`.
pub fn missing_replicas(served: &Served, whole: &Value) -> Option<String> {
    let (replicas, ..) = served.custom()?.scale()?;
    pointer(whole, replicas).is_none().then(|| replicas.to_string())
}

fn selector_text(served: &Served, value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(_) if served.row.kind == "ReplicationController" => LabelSelector::from_map(value).to_string(),
        Value::Object(_) => LabelSelector::from_object(value).map(|s| s.to_string()).unwrap_or_default(),
        _ => String::new(),
    }
}

/// What a client reads there.
pub fn scale_of(served: &Served, whole: &Value) -> Value {
    let paths = scale_paths(served);
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = whole["metadata"].get(field) {
            metadata.insert(field.into(), value.clone());
        }
    }
    let number = |path: &str| pointer(whole, path).and_then(Value::as_i64).unwrap_or(0);
    let mut spec = Map::new();
    if number(paths.replicas) != 0 {
        spec.insert("replicas".into(), number(paths.replicas).into());
    }
    let mut status = json!({"replicas": number(paths.status_replicas)});
    let selector = pointer(whole, paths.selector).map(|s| selector_text(served, s)).unwrap_or_default();
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// As a write starts from it: with who owns what.
pub fn owned_scale_of(served: &Served, whole: &Value) -> Value {
    let mut scale = scale_of(served, whole);
    let managers = apply::managers_of_scale(whole, scale_paths(served).replicas);
    if !managers.is_null() {
        scale["metadata"]["managedFields"] = managers;
    }
    scale
}

fn scaled(served: &Served, old: &Value, scale: &Value) -> Result<Value, Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let fault = FieldError::invalid("spec.replicas", &replicas.into(), "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", object::name(old), &[fault]));
    }
    let mut new = old.clone();
    let path = scale_paths(served).replicas;
    set(&mut new, path, replicas.into());
    apply::take_managers_of_scale(&mut new, &served.row.api_version(), path, scale);
    strategy::prepare_update(&served.row, &mut new, old);
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_approval_changes_metadata_and_conditions_alone() {
        let old = json!({"metadata": {"name": "c"}, "spec": {"request": "a"}, "status": {"certificate": "x"}});
        let condition = json!({"type": "Approved", "status": "True"});
        let mut new = json!({"metadata": {"name": "c", "annotations": {"a": "b"}}, "spec": {"request": "other"},
            "status": {"conditions": [condition]}});
        approved(&mut new, &old);
        assert_eq!((&new["metadata"]["annotations"]["a"], &new["spec"]), (&json!("b"), &old["spec"]));
        assert_eq!(new["status"]["certificate"], "x");
        let first = new["status"]["conditions"][0].clone();
        assert!(first["lastUpdateTime"].is_string() && first["lastTransitionTime"].is_string());
        let mut again = new.clone();
        again["status"]["conditions"] = json!([{"type": "Approved", "status": "True", "reason": "again"}]);
        approved(&mut again, &new);
        assert_eq!(again["status"]["conditions"][0]["lastTransitionTime"], first["lastTransitionTime"]);
    }
}
