//! Resources that CustomResourceDefinitions define.
//!
//! Owns: what follows from one version of a definition: its schema, columns and subresources, and what a body must go
//! through before it is an object of it.
//! Called by: the catalog and whoever handles an object of it.
//! Never: reads definitions from the store; `definitions` does and puts the outcome into the catalog.

mod complete;
pub mod conversion;
mod declare;
mod definition;
mod format;
mod names;
mod prune;
mod rules;
mod validate;

pub use definition::faults;
pub use names::{Naming, naming, rows};

use std::sync::OnceLock;

use minik_api::schema::Type;
use minik_api::structure::Structure;
use minik_api::{FieldError, FieldErrorType, decode};
use serde_json::{Value, json};

/// One version of a definition.
#[derive(Debug)]
pub struct Custom {
    /// `openAPIV3Schema`; `Null` when the version has none.
    schema: Value,
    /// The schema's rules in CEL, compiled when the first object is validated.
    rules: OnceLock<Option<rules::Rules>>,
    /// The same with the fields that every object has: what apply merges by.
    merging: Value,
    /// `additionalPrinterColumns`, or `Null`.
    columns: Value,
    /// `subresources.scale`: the paths of replicas, of the status' replicas and of the selector (may be empty).
    scale: Option<(String, String, String)>,
    /// `spec.preserveUnknownFields`, of definitions older than v1.
    preserve_unknown: bool,
    /// How versions become one another; `None`: they differ in their name alone.
    pub conversion: Option<conversion::Converter>,
    /// What a deprecated version warns with.
    pub deprecation: Option<String>,
}

impl Custom {
    pub fn schema(&self) -> &Value {
        &self.schema
    }
    pub fn columns(&self) -> &Value {
        &self.columns
    }
    pub fn scale(&self) -> Option<(&str, &str, &str)> {
        self.scale.as_ref().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str()))
    }
    pub fn structure(&self) -> Structure<'_> {
        Structure::custom(&self.merging)
    }

    /// Takes out what the schema does not know and fills in its defaults; answers with what a strict reader objects to.
    pub fn read(&self, tree: &mut Value) -> Result<Vec<String>, String> {
        let mut strict = metadata(tree)?;
        if !self.preserve_unknown && !self.schema.is_null() {
            prune::root(&self.schema, tree, &mut strict);
        }
        complete::apply(&self.schema, tree);
        Ok(strict)
    }

    /// Fills in the schema's defaults.
    pub fn complete(&self, tree: &mut Value) {
        complete::apply(&self.schema, tree);
    }

    /// The type of its objects in CEL; `None` without a schema.
    pub fn cel_type(&self) -> Option<minik_cel::Type> {
        declare::declare(&self.schema, declare::Root::Resource, "object").map(|declared| declared.of)
    }

    /// What is wrong, and what clients are warned of. Rules in CEL are only evaluated over an object whose shape is
    /// right.
    pub fn validate(&self, tree: &Value, old: Option<&Value>) -> (Vec<FieldError>, Vec<String>) {
        let mut faults = validate::root(&self.schema, tree, old);
        let Some(rules) = self.rules.get_or_init(|| rules::Rules::of(&self.schema)) else {
            return (faults, Vec::new());
        };
        if faults.iter().any(blocks_rules) {
            let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            faults.push(FieldError {
                kind: FieldErrorType::Invalid,
                path: "<nil>".into(),
                value: Some("null".into()),
                detail: detail.into(),
            });
            return (faults, Vec::new());
        }
        let (mut broken, warnings) = rules.validate(tree, old);
        faults.append(&mut broken);
        (faults, warnings)
    }
}

/// Faults that leave rules nothing to rely on.
fn blocks_rules(fault: &FieldError) -> bool {
    use FieldErrorType::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    matches!(fault.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
}

/// A version's schema with `apiVersion`, `kind` and `metadata`, which definitions leave out.
fn merging_schema(schema: &Value) -> Value {
    let text = json!({"type": "string"});
    let texts = json!({"type": "object", "additionalProperties": text});
    let owner = json!({"type": "object", "x-kubernetes-map-type": "atomic", "properties": {
        "apiVersion": text, "kind": text, "name": text, "uid": text,
        "controller": {"type": "boolean"}, "blockOwnerDeletion": {"type": "boolean"},
    }});
    let entry = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let metadata = json!({"type": "object", "properties": {
        "name": text, "namespace": text, "generateName": text, "uid": text, "resourceVersion": text, "selfLink": text,
        "creationTimestamp": text, "deletionTimestamp": text, "generation": {"type": "integer"},
        "deletionGracePeriodSeconds": {"type": "integer"}, "labels": texts, "annotations": texts,
        "managedFields": {"type": "array", "x-kubernetes-list-type": "atomic", "items": entry},
        "finalizers": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
        "ownerReferences": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"], "items": owner,
        },
    }});
    let mut merging = match schema {
        Value::Object(_) => schema.clone(),
        _ => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
    };
    for (field, schema) in [("apiVersion", &text), ("kind", &text), ("metadata", &metadata)] {
        merging["properties"][field] = schema.clone();
    }
    merging
}

/// `metadata` has the same type everywhere.
fn metadata(tree: &mut Value) -> Result<Vec<String>, String> {
    let Some(sent) = tree.get_mut("metadata").filter(|m| m.is_object()) else { return Ok(Vec::new()) };
    let of = Type::meta("ObjectMeta").expect("meta/v1 has ObjectMeta");
    let read = decode::from_value(of, sent.take()).map_err(|e| e.to_string())?;
    *sent = read.object;
    if let Value::Object(fields) = sent {
        // Go writes these zero values, upstream's custom resources do not.
        fields.retain(|_, v| !v.is_null());
    }
    let at = |text: &String| text.replacen("field \"", "field \"metadata.", 1);
    Ok(read.strict.iter().map(at).collect())
}
