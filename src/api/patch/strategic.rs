//! Strategic merge patch: lists merge by key, and directives (`$patch`, `$retainKeys`, `$setElementOrder/x`,
//! `$deleteFromPrimitiveList/x`) say what a plain merge cannot.
//!
//! Owns: those rules.
//! Called by: PATCH with `application/strategic-merge-patch+json`, which is what kubectl sends for built-in kinds.
//! Never: merges a custom resource: without merge keys the answer is 415, given before this is called.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::Status;
use crate::structure::Structure;

type Object = Map<String, Value>;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
const ELEMENT_ORDER: &str = "$setElementOrder";

/// `type_name` is that of OpenAPI: `io.k8s.api.core.v1.Pod`.
pub fn apply(document: &Value, patch: &Value, type_name: &str) -> Result<Value, Status> {
    apply_to(document, patch, Structure::named(type_name))
}

pub fn apply_to(document: &Value, patch: &Value, structure: Structure<'_>) -> Result<Value, Status> {
    let Some(patch) = patch.as_object() else {
        return Err(Status::bad_request(
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ));
    };
    let document = document.as_object().cloned().unwrap_or_default();
    let merged = merge_objects(document, patch.clone(), structure).map_err(|fault| match fault {
        Fault::Malformed(text) => Status::bad_request(text),
        // Upstream has no better name for these than an unknown failure.
        Fault::DoesNotFit(text) => Status::new(500, "", text),
    })?;
    Ok(Value::Object(merged))
}

enum Fault {
    /// The directives are not understood.
    Malformed(String),
    /// Types, merge keys or fields are not those of the schema.
    DoesNotFit(String),
}

fn merge_objects(mut original: Object, mut patch: Object, structure: Structure<'_>) -> Result<Object, Fault> {
    if let Some(directive) = patch.get(PATCH) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(PATCH);
                Ok(patch)
            }
            Some("delete") => Ok(Object::new()),
            _ => Err(unknown_directive(directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    order_lists(&mut original, &mut patch, structure)?;
    for (key, change) in patch {
        if let Some(list) = parallel_list(&key, DELETE_FROM_LIST)? {
            delete_scalars(&mut original, list, &change);
            continue;
        }
        if change.is_null() {
            original.remove(&key);
            continue;
        }
        let merged = match (original.remove(&key), change) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let below = known(structure, &key)?;
                if replaces(below) {
                    Some(Value::Object(new))
                } else {
                    Some(Value::Object(merge_objects(old, new, below)?))
                }
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let below = known(structure, &key)?;
                Some(Value::Array(if merges(below) { merge_lists(old, new, below)? } else { new }))
            }
            (Some(old), new) if same_type(&old, &new) => without_directives(new),
            (_, mut new) => {
                drop_nulls(&mut new);
                without_directives(new)
            }
        };
        if let Some(value) = merged {
            original.insert(key, value);
        }
    }
    Ok(original)
}

fn known<'a>(structure: Structure<'a>, key: &str) -> Result<Structure<'a>, Fault> {
    structure.field(key).ok_or_else(|| {
        Fault::DoesNotFit(format!(
            "unable to find api field in struct {} for the json field {key:?}",
            structure.type_name()
        ))
    })
}

fn strategies(structure: Structure<'_>) -> impl Iterator<Item = &'static str> {
    structure.patch_strategy().split(',').filter(|s| !s.is_empty() && *s != "retainKeys")
}
fn merges(structure: Structure<'_>) -> bool {
    strategies(structure).any(|s| s == "merge")
}
fn replaces(structure: Structure<'_>) -> bool {
    strategies(structure).any(|s| s == "replace")
}

fn same_type(a: &Value, b: &Value) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

fn unknown_directive(directive: &Value, patch: &Object) -> Fault {
    let (name, map) = (go_text(directive), go_text(&Value::Object(patch.clone())));
    Fault::DoesNotFit(format!("unknown patch type: {name} in map: {map}"))
}

/// The list a parallel directive such as `$setElementOrder/containers` is about.
fn parallel_list<'k>(key: &'k str, directive: &str) -> Result<Option<&'k str>, Fault> {
    let Some(rest) = key.strip_prefix(directive) else { return Ok(None) };
    match rest.strip_prefix('/') {
        Some(list) => Ok(Some(list)),
        None if directive == ELEMENT_ORDER => {
            Err(Fault::Malformed("invalid patch format of setElementOrder list".into()))
        }
        None => Err(Fault::Malformed("invalid patch format of primitive list".into())),
    }
}

fn delete_scalars(original: &mut Object, list: &str, gone: &Value) {
    let gone = gone.as_array().map_or(&[][..], Vec::as_slice);
    if let Some(Value::Array(values)) = original.get_mut(list) {
        values.retain(|v| !gone.contains(v));
    }
}

/// `$retainKeys`: what the patch does not list is dropped from the original (used for unions such as volumes).
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), Fault> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let malformed = || Fault::Malformed("invalid patch format of retainKeys".into());
    let keys: BTreeSet<&str> = keys.as_array().ok_or_else(malformed)?.iter().filter_map(Value::as_str).collect();
    let directive = |k: &str| k.starts_with(DELETE_FROM_LIST) || k.starts_with(ELEMENT_ORDER);
    if patch.iter().any(|(k, v)| !v.is_null() && !directive(k) && !keys.contains(k.as_str())) {
        return Err(malformed());
    }
    original.retain(|k, _| keys.contains(k.as_str()));
    Ok(())
}

/// `$setElementOrder/x`: merges list `x` here and puts its elements into the order given.
fn order_lists(original: &mut Object, patch: &mut Object, structure: Structure<'_>) -> Result<(), Fault> {
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let order = patch.remove(&directive).unwrap_or(Value::Null);
        let Value::Array(order) = order else { return Err(wrong_type("[]interface {}", &order)) };
        let list = parallel_list(&directive, ELEMENT_ORDER)?.unwrap_or_default().to_string();
        let below = known(structure, &list)?;
        let as_list = |v: Value| match v {
            Value::Array(items) => Ok(items),
            Value::Null => Ok(Vec::new()),
            other => Err(wrong_type("[]interface {}", &other)),
        };
        let merge_key = below.patch_merge_key();
        let old = original.get(&list).cloned().map(as_list).transpose()?;
        let new = patch.remove(&list).map(as_list).transpose()?;
        if let Some(new) = &new {
            order_covers(new, &order, merge_key)?;
        }
        let merged = match (old.clone(), new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => new.into_iter().filter_map(without_directives).collect(),
            (Some(old), Some(new)) if merges(below) => merge_lists(old, new, below)?,
            (Some(_), Some(new)) => new,
        };
        original.insert(list, Value::Array(arrange(merged, &order, &old.unwrap_or_default(), merge_key)?));
    }
    Ok(())
}

/// The elements of the patch must stand in the order list, in that order.
fn order_covers(patch: &[Value], order: &[Value], merge_key: &str) -> Result<(), Fault> {
    if order.is_empty() {
        return Ok(());
    }
    let mut places = order.iter();
    for item in patch.iter().filter(|i| i.get(PATCH).is_none()) {
        let wanted = identity(item, merge_key)?;
        if !places.by_ref().any(|o| identity(o, merge_key).is_ok_and(|o| o == wanted)) {
            let (patch, order) = (go_text(&patch.into()), go_text(&order.into()));
            let text = format!("The order in patch list:\n{patch}\n doesn't match {ELEMENT_ORDER} list:\n{order}\n");
            return Err(Fault::DoesNotFit(text));
        }
    }
    Ok(())
}

/// What tells an element apart: the value of its merge key, or itself.
fn identity<'v>(item: &'v Value, merge_key: &str) -> Result<&'v Value, Fault> {
    if merge_key.is_empty() {
        return Ok(item);
    }
    let missing =
        || Fault::DoesNotFit(format!("map: {} does not contain declared merge key: {merge_key}", go_text(item)));
    item.get(merge_key).ok_or_else(missing)
}

fn wrong_type(expected: &str, actual: &Value) -> Fault {
    let actual = match actual {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    Fault::DoesNotFit(format!("expected a {expected}, but received a {actual}"))
}

/// A value as Go's `%v` prints it: `map[name:a ports:[1 2]]`.
fn go_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".into(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go_text(v))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        scalar => scalar.to_string(),
    }
}

fn merge_lists(old: Vec<Value>, patch: Vec<Value>, structure: Structure<'_>) -> Result<Vec<Value>, Fault> {
    let Some(first) = old.first().or(patch.first()) else { return Ok(old) };
    if !first.is_object() {
        let mut merged: Vec<Value> = Vec::with_capacity(old.len() + patch.len());
        for item in old.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return arrange(merged, &patch, &old, "");
    }
    let merge_key = structure.patch_merge_key();
    if merge_key.is_empty() {
        let text = format!("cannot merge lists without merge key for {}", structure.element().type_name());
        return Err(Fault::DoesNotFit(text));
    }
    if let Some(scalar) = old.iter().chain(&patch).find(|i| !i.is_object()) {
        return Err(wrong_type("map[string]interface {}", scalar));
    }
    let (old, patch) = list_directives(old, patch, merge_key)?;
    let mut merged = old.clone();
    for item in &patch {
        let wanted = identity(item, merge_key)?;
        let place = merged.iter().position(|m| m.get(merge_key) == Some(wanted));
        match place {
            None => {
                let mut item = item.clone();
                drop_nulls(&mut item);
                merged.push(item);
            }
            Some(place) => {
                // Both are objects: that was checked above.
                if let (Value::Object(old), Value::Object(new)) = (merged[place].take(), item.clone()) {
                    merged[place] = Value::Object(merge_objects(old, new, structure.element())?);
                }
            }
        }
    }
    arrange(merged, &patch, &old, merge_key)
}

/// Carries out `$patch: delete` and `$patch: replace` among the elements; answers the list and what is left to merge.
fn list_directives(mut old: Vec<Value>, patch: Vec<Value>, merge_key: &str) -> Result<(Vec<Value>, Vec<Value>), Fault> {
    let (mut rest, mut replace) = (Vec::new(), false);
    for item in patch {
        match item.get(PATCH).map(|d| d.as_str().unwrap_or_default()) {
            None => rest.push(item),
            Some("delete") => {
                let gone = identity(&item, merge_key)?;
                old.retain(|o| o.get(merge_key) != Some(gone));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(Fault::DoesNotFit("merging lists cannot yet be specified in the patch".into()));
            }
            Some(_) => return Err(unknown_directive(&item[PATCH], item.as_object().unwrap_or(&Object::new()))),
        }
    }
    Ok(if replace { (rest, Vec::new()) } else { (old, rest) })
}

/// Elements that `order` names stand in its order; the others keep the places they had before the next of those.
fn arrange(merged: Vec<Value>, order: &[Value], before: &[Value], merge_key: &str) -> Result<Vec<Value>, Fault> {
    let mut position = Vec::with_capacity(merged.len());
    for item in &merged {
        let id = identity(item, merge_key)?;
        let find = |list: &[Value]| list.iter().position(|o| identity(o, merge_key).is_ok_and(|o| o == id));
        position.push((find(order), find(before)));
    }
    let (mut named, mut others): (Vec<_>, Vec<_>) = merged.into_iter().zip(position).partition(|(_, p)| p.0.is_some());
    named.sort_by_key(|(_, p)| p.0);
    others.sort_by_key(|(_, p)| p.1.unwrap_or(usize::MAX));
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        // An element known only to the server goes first when it stood before the next named one.
        let server_first = match (named.peek(), others.peek()) {
            (None, None) => return Ok(arranged),
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (Some((_, n)), Some((_, o))) => matches!((n.1, o.1), (Some(n), Some(o)) if o < n),
        };
        let next = if server_first { others.next() } else { named.next() };
        arranged.extend(next.map(|(item, _)| item));
    }
}

/// What is put in place of nothing must not carry directives; `None` when it is one itself.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(PATCH) => None,
        Value::Object(map) => {
            Some(Value::Object(map.into_iter().filter_map(|(k, v)| Some((k, without_directives(v)?))).collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        scalar => Some(scalar),
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(document: Value, patch: Value, expected: Value) {
        let merged = apply_to(&document, &patch, Structure::of("v1", "Pod")).map_err(|s| s.message);
        assert_eq!(merged, Ok(expected));
    }

    #[test]
    fn containers_merge_by_name_and_args_are_replaced() {
        check(
            json!({"spec": {"containers": [{"name": "a", "image": "x", "args": ["1"]}, {"name": "b"}]}}),
            json!({"spec": {"containers": [{"name": "a", "image": "y", "args": ["2"]}]}}),
            json!({"spec": {"containers": [{"name": "a", "image": "y", "args": ["2"]}, {"name": "b"}]}}),
        );
    }

    #[test]
    fn a_new_element_stands_where_the_order_directive_says() {
        check(
            json!({"spec": {"containers": [{"name": "a"}, {"name": "server"}, {"name": "b"}]}}),
            json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}], "containers": [{"name": "c"}]}}),
            json!({"spec": {"containers": [{"name": "c"}, {"name": "server"}, {"name": "b"}, {"name": "a"}]}}),
        );
    }

    #[test]
    fn directives_delete_and_replace() {
        check(
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "nodeSelector": {"x": "1"}}}),
            json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}], "nodeSelector": {"$patch": "replace", "y": "2"}}}),
            json!({"spec": {"containers": [{"name": "b"}], "nodeSelector": {"y": "2"}}}),
        );
        check(
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}),
            json!({"metadata": {"finalizers": ["c", "b"]}}),
        );
        check(
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}),
        );
    }

    #[test]
    fn null_removes_and_leaves_no_trace_where_there_was_nothing() {
        check(
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"a": null, "b": null, "c": "3"}, "annotations": {"x": null}}}),
            json!({"metadata": {"labels": {"c": "3"}, "annotations": {}}}),
        );
    }

    #[test]
    fn a_missing_merge_key_is_refused() {
        let patch = json!({"spec": {"containers": [{"image": "y"}]}});
        let document = json!({"spec": {"containers": [{"name": "a"}]}});
        let status = apply_to(&document, &patch, Structure::of("v1", "Pod")).unwrap_err();
        assert_eq!(
            (status.code, status.message.as_str()),
            (500, "map: map[image:y] does not contain declared merge key: name")
        );
    }
}
