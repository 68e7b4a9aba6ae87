//! The part of OpenAPI that custom resources have.
//!
//! Owns: how the schema of a CustomResourceDefinition becomes a published one, in v3 and in the poorer v2.
//! Called by: the API server, when definitions change and when a document is asked for.
//! Never: validates a schema.

use serde_json::{Map, Value, json};

use super::{Body, Descriptions, Dialect, Paths, Schemas, quoted, whole_document};
use crate::registry::Resource;

/// A custom resource in one version.
pub struct CustomKind<'a> {
    pub resource: &'a Resource,
    /// `openAPIV3Schema` of that version; `None` when the definition has none.
    pub schema: Option<&'a Value>,
}

/// The v3 document of a group version that consists of custom resources.
pub fn custom_document(kinds: &[CustomKind], descriptions: &Descriptions) -> String {
    let mut schemas = Schemas::new(Dialect::V3, descriptions);
    let mut paths = Paths::new(Dialect::V3);
    add_custom(kinds, &mut paths, &mut schemas);
    whole_document(r#"{"title":"Kubernetes CRD Swagger","version":"v0.1.0"}"#, paths, schemas)
}

/// Adds custom resources to a document that is being written, for `document_v2`.
pub fn add_custom(kinds: &[CustomKind], paths: &mut Paths, schemas: &mut Schemas) {
    for kind in kinds {
        let r = kind.resource;
        let body = Body { object: name_of(r, &r.kind), list: name_of(r, &r.list_kind), is_custom: true };
        schemas.serve(&r.group, &r.version);
        let published = object_schema(kind, schemas);
        schemas.add(&body.object, published.to_string());
        let list = list_schema(r, &body.object, schemas);
        schemas.add(&body.list, list.to_string());
        paths.resource(r, &body, schemas);
    }
}

/// `com.example.v1.Foo`: the group from its end to its start, as a Java package is named.
fn name_of(resource: &Resource, kind: &str) -> String {
    let group: Vec<&str> = resource.group.split('.').rev().collect();
    format!("{}.{}.{kind}", group.join("."), resource.version)
}

fn object_schema(kind: &CustomKind, schemas: &mut Schemas) -> Value {
    let says_nothing =
        |schema: &&Value| schemas.dialect() == Dialect::V2 && schema["x-kubernetes-preserve-unknown-fields"] == true;
    // Clients of v2 take what is named for all there may be, so nothing is.
    let Some(schema) = kind.schema.filter(|s| !says_nothing(s)) else {
        return json!({
            "type": "object", "x-kubernetes-group-version-kind": gvk(kind.resource, &kind.resource.kind),
        });
    };
    let mut schema = schema.clone();
    if schemas.dialect() == Dialect::V2 {
        simplify(&mut schema);
    }
    let Value::Object(fields) = &mut schema else { return schema };
    fields.insert("type".into(), "object".into());
    let properties = fields.entry("properties").or_insert_with(|| Value::Object(Map::new()));
    properties["apiVersion"] = envelope_field(schemas, "apiVersion");
    properties["kind"] = envelope_field(schemas, "kind");
    let text = words(schemas, "io.k8s.api.core.v1.Pod", "metadata");
    properties["metadata"] = schemas.reference_to("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", text);
    fields.insert("x-kubernetes-group-version-kind".into(), gvk(kind.resource, &kind.resource.kind));
    schema
}

fn list_schema(r: &Resource, object: &str, schemas: &mut Schemas) -> Value {
    let metadata =
        schemas.reference_to("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta", Some("Standard list metadata.".into()));
    let item = json!({"$ref": format!("{}{object}", schemas.dialect().reference())});
    json!({
        "description": format!("{} is a list of {}", r.list_kind, r.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": envelope_field(schemas, "apiVersion"),
            "items": {"description": format!("List of {}.", r.plural), "type": "array", "items": item},
            "kind": envelope_field(schemas, "kind"),
            "metadata": metadata,
        },
        "x-kubernetes-group-version-kind": gvk(r, &r.list_kind),
    })
}

fn gvk(r: &Resource, kind: &str) -> Value {
    json!([{"group": r.group, "kind": kind, "version": r.version}])
}

fn envelope_field(schemas: &Schemas, field: &str) -> Value {
    match words(schemas, "io.k8s.api.core.v1.Pod", field) {
        Some(text) => json!({"description": text, "type": "string"}),
        None => json!({"type": "string"}),
    }
}

fn words(schemas: &Schemas, owner: &str, field: &str) -> Option<String> {
    let escaped = schemas.descriptions().of_field(owner, field)?;
    serde_json::from_str(&format!("\"{escaped}\"")).ok()
}

/// OpenAPI v2 knows neither alternatives nor defaults here, and a type it states must be the only one.
fn simplify(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    for unknown in ["default", "not", "anyOf", "oneOf", "allOf"] {
        fields.remove(unknown);
    }
    let says = |name: &str| fields.get(name) == Some(&Value::Bool(true));
    let is_preserved = says("x-kubernetes-preserve-unknown-fields");
    if is_preserved || says("x-kubernetes-int-or-string") || says("nullable") {
        fields.remove("type");
    }
    if is_preserved {
        fields.remove("properties");
    }
    fields.remove("nullable");
    for field in ["items", "additionalProperties"] {
        fields.get_mut(field).into_iter().for_each(simplify);
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(simplify);
    }
}

impl Schemas<'_> {
    fn reference_to(&mut self, name: &str, description: Option<String>) -> Value {
        self.want(name);
        let reference = json!({"$ref": format!("{}{name}", self.dialect().reference())});
        match (description, self.dialect()) {
            (Some(text), Dialect::V3) => json!({"description": text, "allOf": [reference]}),
            (Some(text), Dialect::V2) => json!({"description": text, "$ref": reference["$ref"]}),
            (None, _) => reference,
        }
    }
}

/// A hash of what a document of custom resources is made from: clients keep the document until it changes.
pub fn custom_hash(kinds: &[CustomKind]) -> String {
    let mut hash = super::HASH_OF_SOURCES;
    for kind in kinds {
        let facts = format!("{:?}{}", kind.resource, quoted(&kind.schema.map(Value::to_string).unwrap_or_default()));
        hash = super::fnv(facts.as_bytes(), hash);
    }
    format!("{hash:032X}")
}
