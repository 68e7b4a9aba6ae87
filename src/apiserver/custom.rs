//! A resource that a CustomResourceDefinition defines.
//!
//! Owns: its schema and what follows from it.
//! Called by: the catalog and whoever handles an object of it.
//! Never: reads definitions from the store; `definitions` does and puts the outcome into the catalog.

use serde_json::Value;

#[derive(Debug)]
pub struct Custom {
    /// `openAPIV3Schema` of this version.
    schema: Value,
    /// `subresources.scale`: the paths of replicas, of the status' replicas and of the selector (may be empty).
    scale: Option<(String, String, String)>,
}

impl Custom {
    pub fn new(schema: Value, scale: Option<(String, String, String)>) -> Self {
        Self { schema, scale }
    }

    pub fn schema(&self) -> &Value {
        &self.schema
    }

    pub fn scale(&self) -> Option<(&str, &str, &str)> {
        self.scale.as_ref().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str()))
    }
}
