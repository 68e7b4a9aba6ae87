//! Fields that a schema does not know.
//!
//! Owns: taking them out, and naming them.
//! Called by: reading a custom resource; the check of defaults.
//! Never: looks at values.

use serde_json::Value;

/// Everybody knows these, whatever the schema says.
const ENVELOPE: [&str; 3] = ["apiVersion", "kind", "metadata"];

pub fn root(schema: &Value, tree: &mut Value, unknown: &mut Vec<String>) {
    object(schema, tree, "", true, unknown);
}

/// Whether a part of an object has no field that its schema does not know.
pub fn is_pruned(schema: &Value, part: &Value) -> bool {
    let mut unknown = Vec::new();
    object(schema, &mut part.clone(), "", false, &mut unknown);
    unknown.is_empty()
}

fn preserves(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
}

fn object(schema: &Value, tree: &mut Value, path: &str, is_resource: bool, unknown: &mut Vec<String>) {
    match tree {
        Value::Object(fields) => {
            let embedded = is_resource || schema["x-kubernetes-embedded-resource"] == true;
            let keys: Vec<String> = fields.keys().cloned().collect();
            for key in keys {
                let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if embedded && ENVELOPE.contains(&key.as_str()) {
                    continue;
                }
                match inner(schema, &key) {
                    Some(inner) => {
                        let value = fields.get_mut(&key).expect("listed above");
                        object(inner, value, &at, false, unknown);
                    }
                    None if preserves(schema) || schema["additionalProperties"] == true => {}
                    None => {
                        fields.remove(&key);
                        unknown.push(format!("unknown field {at:?}"));
                    }
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                object(&schema["items"], item, &format!("{path}[{index}]"), false, unknown);
            }
        }
        _ => {}
    }
}

fn inner<'s>(schema: &'s Value, key: &str) -> Option<&'s Value> {
    let property = schema["properties"].get(key);
    property.or_else(|| schema.get("additionalProperties").filter(|a| a.is_object()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_go_and_are_named_where_the_schema_does_not_keep_them() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "integer"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"y": {}}}},
        }}}});
        let mut tree = json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"}, "extra": 1, "spec": {
            "a": "1", "b": 2, "free": {"z": 1}, "list": [{"x": 1, "w": 2}], "map": {"k": {"y": 1, "v": 2}}}});
        let mut unknown = Vec::new();
        root(&schema, &mut tree, &mut unknown);
        assert_eq!(
            unknown,
            [
                r#"unknown field "extra""#,
                r#"unknown field "spec.b""#,
                r#"unknown field "spec.list[0].w""#,
                r#"unknown field "spec.map.k.v""#,
            ]
        );
        assert_eq!(tree["spec"], json!({"a": "1", "free": {"z": 1}, "list": [{"x": 1}], "map": {"k": {"y": 1}}}));
    }
}
