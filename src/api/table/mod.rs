//! The Tables that `kubectl get` prints.
//!
//! Owns: columns and cells of every kind.
//! Called by: the API server when a client accepts `as=Table`.
//! Never: reads the clock (`now` is given).

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::Resource;

/// What a row carries beside its cells (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// A `meta.k8s.io/v1` Table without list metadata, which the caller adds.
pub fn render(resource: &Resource, objects: &[&Value], now: Timestamp, include: IncludeObject) -> Value {
    let _ = (resource, now, include);
    let rows: Vec<Value> = objects.iter().map(|o| json!({"cells": [o["metadata"]["name"]], "object": o})).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}],
        "rows": rows,
    })
}
