//! Defaults that a schema names.
//!
//! Owns: filling them in, at every depth where their parent exists.
//! Called by: reading a custom resource, from a body and from the store.
//! Never: replaces a value, except a null that may not be one.

use serde_json::Value;

pub fn apply(schema: &Value, tree: &mut Value) {
    match tree {
        Value::Object(fields) => {
            for (key, property) in schema["properties"].as_object().into_iter().flatten() {
                let Some(default) = property.get("default") else { continue };
                let refused_null = fields.get(key).is_some_and(Value::is_null) && property["nullable"] != true;
                if !fields.contains_key(key) || refused_null {
                    fields.insert(key.clone(), default.clone());
                }
            }
            for (key, value) in fields.iter_mut() {
                let property = schema["properties"].get(key).or_else(|| schema.get("additionalProperties"));
                if let Some(property) = property.filter(|p| p.is_object()) {
                    apply(property, value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| apply(&schema["items"], item)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_default_is_filled_in_where_its_parent_is_and_inside_other_defaults() {
        let schema = json!({"properties": {"spec": {"default": {"b": {}}, "properties": {
            "a": {"default": 1}, "b": {"properties": {"c": {"default": "x"}}}}}}});
        let mut tree = json!({});
        apply(&schema, &mut tree);
        assert_eq!(tree, json!({"spec": {"a": 1, "b": {"c": "x"}}}));
        let mut set = json!({"spec": {"a": null}});
        apply(&schema, &mut set);
        assert_eq!(set, json!({"spec": {"a": 1}}));
    }
}
