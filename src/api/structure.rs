//! What stands at a place inside an object, for those who merge: a built-in type, a custom resource's own schema, or
//! something nobody described.
//!
//! Owns: one way to ask both kinds of schema how maps and lists merge.
//! Called by: strategic merge patch and server-side apply.
//! Never: looks at values.

use std::borrow::Cow;

use serde_json::Value;

use crate::schema::{Field, Form, ListType, Shape, Type};

/// The schema of one place.
#[derive(Clone, Copy, Debug)]
pub enum Structure<'a> {
    /// A built-in object, list, map or scalar, and the field that holds it (lists and maps say there how they merge).
    Builtin(Form, Option<Field>),
    /// A part of an OpenAPI v3 schema, as CustomResourceDefinitions hold it.
    Custom(&'a Value),
    /// No schema: objects merge key by key, lists are replaced.
    Unknown,
}

/// How the elements of a list are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elements<'a> {
    /// They are not: the list has one owner.
    Atomic,
    /// By their value.
    Set,
    /// By these fields.
    Map(Vec<Cow<'a, str>>),
}

impl<'a> Structure<'a> {
    /// By the name OpenAPI uses: `io.k8s.api.core.v1.Pod`.
    pub fn named(type_name: &str) -> Structure<'static> {
        Type::named(type_name).map_or(Structure::Unknown, |t| Structure::Builtin(Form::Object(t), None))
    }
    /// Of an object with this `apiVersion` and `kind`.
    pub fn of(api_version: &str, kind: &str) -> Structure<'static> {
        Type::of(api_version, kind).map_or(Structure::Unknown, |t| Structure::Builtin(Form::Object(t), None))
    }
    /// The root of a custom resource: its `openAPIV3Schema`.
    pub fn custom(schema: &'a Value) -> Structure<'a> {
        Structure::Custom(schema)
    }

    fn inside(shape: Shape) -> Structure<'a> {
        Structure::Builtin(shape.form(), None)
    }

    /// The value of `key` in an object or map; `None` when the schema has no such field.
    pub fn field(&self, key: &str) -> Option<Structure<'a>> {
        match self {
            Structure::Builtin(Form::Object(t), _) => t.field(key).map(|f| Structure::Builtin(f.form(), Some(f))),
            Structure::Builtin(Form::Map(value), _) => Some(Structure::inside(*value)),
            Structure::Builtin(..) => Some(Structure::Unknown),
            Structure::Custom(schema) => custom_field(schema, key),
            Structure::Unknown => Some(Structure::Unknown),
        }
    }
    /// As `field`, with `Unknown` for what the schema does not have.
    pub fn child(&self, key: &str) -> Structure<'a> {
        self.field(key).unwrap_or(Structure::Unknown)
    }
    /// Whether the schema names this field, as opposed to a key of a map.
    pub fn names_field(&self, key: &str) -> bool {
        match self {
            Structure::Builtin(Form::Object(t), _) => t.field(key).is_some(),
            Structure::Custom(schema) => {
                schema["properties"].get(key).is_some() || matches!(self.field(key), Some(Structure::Builtin(..)))
            }
            _ => false,
        }
    }
    /// One element of a list.
    pub fn element(&self) -> Structure<'a> {
        match self {
            Structure::Builtin(Form::List(e) | Form::Items(e), _) => Structure::inside(*e),
            Structure::Custom(schema) if schema["items"].is_object() => Structure::Custom(&schema["items"]),
            _ => Structure::Unknown,
        }
    }

    /// How server-side apply merges this list.
    pub fn elements(&self) -> Elements<'a> {
        match self {
            Structure::Builtin(_, Some(field)) => match field.list_type() {
                Some(ListType::Set) => Elements::Set,
                Some(ListType::Map) => Elements::Map(field.list_map_keys().iter().map(|k| Cow::Borrowed(*k)).collect()),
                Some(ListType::Atomic) | None => Elements::Atomic,
            },
            Structure::Custom(schema) => match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => Elements::Set,
                Some("map") => {
                    let keys = schema["x-kubernetes-list-map-keys"].as_array().map_or(&[][..], Vec::as_slice);
                    Elements::Map(keys.iter().filter_map(Value::as_str).map(Cow::Borrowed).collect())
                }
                _ => Elements::Atomic,
            },
            _ => Elements::Atomic,
        }
    }

    /// Whether server-side apply takes this object or map as a whole.
    /// Whether only a number can stand here.
    pub fn is_numeric(&self) -> bool {
        match self {
            Structure::Builtin(Form::Int32 | Form::Int64 | Form::Float64, _) => true,
            Structure::Custom(schema) => {
                matches!(schema["type"].as_str(), Some("integer" | "number"))
                    && schema["x-kubernetes-int-or-string"] != true
            }
            _ => false,
        }
    }

    pub fn is_atomic_map(&self) -> bool {
        match self {
            Structure::Builtin(Form::Object(t), None) => t.is_atomic(),
            Structure::Builtin(Form::Object(_) | Form::Map(_), Some(field)) => field.is_atomic(),
            Structure::Builtin(Form::Map(_), None) => false,
            // Scalars, quantities, times and opaque JSON are leaves.
            Structure::Builtin(..) => true,
            Structure::Custom(schema) => schema["x-kubernetes-map-type"] == "atomic",
            Structure::Unknown => false,
        }
    }

    /// The default of a key of this list-map's elements, where the schema has one: `protocol` is `TCP`.
    pub fn default(&self) -> Option<Value> {
        match self {
            Structure::Builtin(form, Some(field)) => match field.default() {
                Some(default) => serde_json::from_str(default).ok(),
                // OpenAPI says that what Go always writes is zero when it is left out.
                None if field.is_pointer() || field.omits_empty() => None,
                None => match form {
                    Form::String => Some("".into()),
                    Form::Bool => Some(false.into()),
                    Form::Int32 | Form::Int64 => Some(0.into()),
                    _ => None,
                },
            },
            Structure::Custom(schema) => schema.get("default").cloned(),
            _ => None,
        }
    }

    /// Strategic merge: whether the list or map is merged at all, by which key, and whether unnamed keys are dropped.
    pub fn patch_strategy(&self) -> &'static str {
        match self {
            Structure::Builtin(_, Some(field)) => field.patch_strategy(),
            _ => "",
        }
    }
    pub fn patch_merge_key(&self) -> &'static str {
        match self {
            Structure::Builtin(_, Some(field)) => field.patch_merge_key(),
            _ => "",
        }
    }
    /// `PodSpec`, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Structure::Builtin(Form::Object(t), _) => t.name(),
            _ => "",
        }
    }
}

fn custom_field<'a>(schema: &'a Value, key: &str) -> Option<Structure<'a>> {
    // Every object has these at its root, whatever its schema says about them.
    if key == "metadata"
        && schema["x-kubernetes-embedded-resource"] != true
        && schema["properties"]["metadata"].get("properties").is_none()
    {
        let is_root = schema["properties"].get("metadata").is_some() || schema["properties"].get("spec").is_some();
        if is_root {
            return Type::meta("ObjectMeta").map(|t| Structure::Builtin(Form::Object(t), None));
        }
    }
    if let Some(property) = schema["properties"].get(key) {
        return Some(Structure::Custom(property));
    }
    match &schema["additionalProperties"] {
        Value::Object(_) => Some(Structure::Custom(&schema["additionalProperties"])),
        Value::Bool(true) => Some(Structure::Unknown),
        _ if schema["x-kubernetes-preserve-unknown-fields"] == true => Some(Structure::Unknown),
        _ if schema["x-kubernetes-embedded-resource"] == true => Some(Structure::Unknown),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_lists_and_maps_say_how_they_merge() {
        let spec = Structure::of("v1", "Pod").child("spec");
        assert_eq!(spec.child("containers").elements(), Elements::Map(vec!["name".into()]));
        assert_eq!(spec.child("containers").patch_merge_key(), "name");
        let container = spec.child("containers").element();
        assert_eq!(container.child("args").elements(), Elements::Atomic);
        let ports = container.child("ports");
        assert_eq!(ports.elements(), Elements::Map(vec!["containerPort".into(), "protocol".into()]));
        assert_eq!(ports.element().child("protocol").default(), Some(Value::from("TCP")));
        assert!(spec.child("nodeSelector").is_atomic_map());
        assert!(spec.field("nonsense").is_none());
        assert!(!Structure::of("v1", "Pod").child("metadata").child("labels").is_atomic_map());
    }
}
