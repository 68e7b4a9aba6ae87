//! Resources that CustomResourceDefinitions define.
//!
//! Owns: what follows from one version of a definition: its schema, columns and subresources, and what a body must go
//! through before it is an object of it.
//! Called by: the catalog and whoever handles an object of it.
//! Never: reads definitions from the store; `definitions` does and puts the outcome into the catalog.

mod complete;
mod format;
mod names;
mod prune;
mod validate;

pub use names::{conflicts, rows};

use minik_api::schema::Type;
use minik_api::structure::Structure;
use minik_api::{FieldError, decode};
use serde_json::Value;

/// One version of a definition.
#[derive(Debug)]
pub struct Custom {
    /// `openAPIV3Schema`; `Null` when the version has none.
    schema: Value,
    /// `additionalPrinterColumns`, or `Null`.
    columns: Value,
    /// `subresources.scale`: the paths of replicas, of the status' replicas and of the selector (may be empty).
    scale: Option<(String, String, String)>,
    /// `spec.preserveUnknownFields`, of definitions older than v1.
    preserve_unknown: bool,
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
        Structure::custom(&self.schema)
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

    pub fn validate(&self, tree: &Value, old: Option<&Value>) -> Vec<FieldError> {
        validate::root(&self.schema, tree, old)
    }
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
