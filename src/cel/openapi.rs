//! Types of whole objects, as an OpenAPI v3 document of one group version describes them.
//!
//! Owns: finding a resource's kind and a kind's schema in such a document, and the type of a schema with references.
//! Called by: the controller that checks the types of policies.
//! Never: bounds sizes; validation rules need that and have a schema without references.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::Type;
use crate::identifier::escape;
use crate::types::{Fields, ObjectField, ObjectType};

const REFERENCE: &str = "#/components/schemas/";
const KINDS: &str = "x-kubernetes-group-version-kind";

pub struct Document<'d> {
    tree: &'d Value,
    group: &'d str,
    version: &'d str,
}

impl<'d> Document<'d> {
    pub fn of(tree: &'d Value, group: &'d str, version: &'d str) -> Self {
        Self { tree, group, version }
    }

    /// Where an API server has the document of a group version.
    pub fn path(group: &str, version: &str) -> String {
        if group.is_empty() {
            format!("/openapi/v3/api/{version}")
        } else {
            format!("/openapi/v3/apis/{group}/{version}")
        }
    }

    fn is_ours(&self, kind: &Value) -> bool {
        kind["group"] == self.group && kind["version"] == self.version
    }

    /// The kind of `plural`, which the operations on its collection bear.
    pub fn kind_of(&self, plural: &str) -> Option<&'d str> {
        let base = match self.group {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        let paths = [format!("{base}/{plural}"), format!("{base}/namespaces/{{namespace}}/{plural}")];
        let operations = paths.iter().flat_map(|path| ["get", "post"].map(|verb| &self.tree["paths"][path][verb]));
        operations.map(|operation| &operation[KINDS]).find(|kind| self.is_ours(kind)).and_then(|k| k["kind"].as_str())
    }

    /// The type of objects of `kind`.
    pub fn type_of(&self, kind: &str) -> Option<Type> {
        let schemas = self.tree["components"]["schemas"].as_object()?;
        let bears = |schema: &Value| {
            schema[KINDS].as_array().into_iter().flatten().any(|k| k["kind"] == kind && self.is_ours(k))
        };
        let (name, schema) = schemas.iter().find(|(_, schema)| bears(schema))?;
        let mut open = vec![name.as_str()];
        self.object(&with_metadata(schema), kind, &mut open).or(Some(Type::Dyn))
    }

    /// `open` are the references that are being followed: one that contains itself is an object without fields.
    fn declare<'s>(&'s self, schema: &'s Value, name: &str, open: &mut Vec<&'s str>) -> Option<Type> {
        if let Some(reference) = reference(schema) {
            if open.contains(&reference) {
                return Some(Type::Object(Arc::new(ObjectType {
                    name: name.into(),
                    fields: Fields::Declared(BTreeMap::new()),
                })));
            }
            open.push(reference);
            let found = self.declare(&self.tree["components"]["schemas"][reference], name, open);
            open.pop();
            return found;
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return Some(Type::Dyn);
        }
        Some(match schema["type"].as_str()? {
            "array" => Type::list(self.declare(schema.get("items")?, &format!("{name}.@elem"), open)?),
            "object" => match schema.get("additionalProperties").filter(|values| values.is_object()) {
                Some(values) => Type::map(Type::String, self.declare(values, &format!("{name}.@elem"), open)?),
                None => self.object(schema, name, open)?,
            },
            "string" => match schema["format"].as_str() {
                Some("byte") => Type::Bytes,
                Some("duration") => Type::Duration,
                Some("date" | "date-time") => Type::Timestamp,
                _ => Type::String,
            },
            "boolean" => Type::Bool,
            "number" => Type::Double,
            "integer" => Type::Int,
            _ => return None,
        })
    }

    /// A field without a type cannot be used.
    fn object<'s>(&'s self, schema: &'s Value, name: &str, open: &mut Vec<&'s str>) -> Option<Type> {
        let mut fields = BTreeMap::new();
        for (json, property) in schema["properties"].as_object().into_iter().flatten() {
            let Some(identifier) = escape(json) else { continue };
            let Some(of) = self.declare(property, &format!("{name}.{identifier}"), open) else { continue };
            fields.insert(identifier, ObjectField { json: json.clone(), of });
        }
        Some(Type::Object(Arc::new(ObjectType { name: name.into(), fields: Fields::Declared(fields) })))
    }
}

/// The name of the schema that this one refers to; a reference with a description is wrapped in `allOf`.
fn reference(schema: &Value) -> Option<&str> {
    match schema["$ref"].as_str() {
        Some(reference) => reference.strip_prefix(REFERENCE),
        None => schema["allOf"].as_array().into_iter().flatten().find_map(reference),
    }
}

/// What every object has, for schemas that leave it out.
fn with_metadata(schema: &Value) -> Value {
    let mut whole = schema.clone();
    let text = json!({"type": "string"});
    let metadata = json!({"type": "object", "properties": {"name": text, "generateName": text}});
    for (field, of) in [("kind", &text), ("apiVersion", &text), ("metadata", &metadata)] {
        if whole["properties"][field].is_null() {
            whole["properties"][field] = of.clone();
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Environment, Program};

    fn document() -> Value {
        let kind = json!({"group": "g", "version": "v1", "kind": "Tree"});
        json!({
            "paths": {"/apis/g/v1/namespaces/{namespace}/trees": {"post": {KINDS: kind}}},
            "components": {"schemas": {
                "Tree": {"type": "object", KINDS: [kind], "properties": {
                    "spec": {"allOf": [{"$ref": "#/components/schemas/Spec"}], "default": {}}}},
                "Spec": {"type": "object", "properties": {
                    "height": {"type": "integer"}, "planted": {"type": "string", "format": "date-time"},
                    "names": {"type": "array", "items": {"type": "string"}},
                    "marks": {"type": "object", "additionalProperties": {"type": "boolean"}},
                    "weight": {"oneOf": [{"type": "string"}, {"type": "number"}]},
                    "port": {"x-kubernetes-int-or-string": true},
                    "branch": {"$ref": "#/components/schemas/Spec"}}},
            }},
        })
    }

    fn compiles(text: &str) -> bool {
        let tree = document();
        let document = Document::of(&tree, "g", "v1");
        let of = document.type_of(document.kind_of("trees").expect("a kind")).expect("a type");
        Program::compile(&Environment::default().with("object", of), text).is_ok()
    }

    #[test]
    fn objects_have_the_types_of_their_schema() {
        assert!(compiles("object.metadata.name == 'a' && object.spec.height > 1"));
        assert!(compiles("object.spec.planted < timestamp('2026-01-01T00:00:00Z')"));
        assert!(compiles("object.spec.names[0] == 'a' && object.spec.marks['a'] && object.spec.port == 1"));
        assert!(!compiles("object.spec.height > 'a'"));
        assert!(!compiles("object.spec.nothing == 1"));
        // As upstream has it: a schema without a type is no field, one that contains itself has none.
        assert!(!compiles("object.spec.weight == 1"));
        assert!(compiles("object.spec.branch != null") && !compiles("object.spec.branch.height > 1"));
    }

    #[test]
    fn documents_are_found_by_group_version() {
        assert_eq!(Document::path("", "v1"), "/openapi/v3/api/v1");
        assert_eq!(Document::path("apps", "v1"), "/openapi/v3/apis/apps/v1");
    }
}
