//! Merge patch, RFC 7386: objects are merged, null removes, everything else replaces.
//!
//! Owns: that rule.
//! Called by: PATCH with `application/merge-patch+json`, and strategic merge for types without a schema.
//! Never: fails.

use serde_json::Value;

/// A patch that is no object replaces the document.
pub fn apply(document: &Value, patch: &Value) -> Value {
    let Value::Object(changes) = patch else { return patch.clone() };
    let mut merged = document.as_object().cloned().unwrap_or_default();
    for (key, change) in changes {
        if change.is_null() {
            merged.remove(key);
        } else {
            let old = merged.get(key).unwrap_or(&Value::Null);
            let new = apply(old, change);
            merged.insert(key.clone(), new);
        }
    }
    Value::Object(merged)
}

/// The smallest patch that makes `new` out of `old`.
pub fn difference(old: &Value, new: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (old, new) else { return new.clone() };
    let mut patch = serde_json::Map::new();
    for (key, value) in to {
        match from.get(key) {
            Some(same) if same == value => {}
            Some(other) if other.is_object() && value.is_object() => {
                patch.insert(key.clone(), difference(other, value));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in from.keys().filter(|k| !to.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn null_removes_and_lists_are_replaced() {
        let document = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        let patch = json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [3]});
        assert_eq!(apply(&document, &patch), json!({"a": {"c": 2, "d": {"f": 1}}, "l": [3]}));
    }

    #[test]
    fn the_difference_applied_to_the_old_gives_the_new() {
        let (old, new) = (json!({"a": {"b": 1, "c": 2}, "x": 1}), json!({"a": {"b": 1, "c": 3}, "y": [1]}));
        let patch = difference(&old, &new);
        assert_eq!(patch, json!({"a": {"c": 3}, "x": null, "y": [1]}));
        assert_eq!(apply(&old, &patch), new);
    }
}
