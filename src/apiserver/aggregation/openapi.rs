//! OpenAPI documents of other servers beside our own.
//!
//! Owns: what of them is shown: the v3 documents as they are, of the v2 document the paths of the group version, with
//! the definitions they need under names that are free.
//! Called by: `/openapi/v2` and `/openapi/v3`.
//! Never: keeps a document.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Backend;
use super::ask::Session;
use crate::server::Core;

const DEFINITIONS: &str = "#/definitions/";

/// Path below `/openapi/v3` and where its document is, of every other server.
pub fn index(core: &Core) -> Vec<(String, String)> {
    let backends = core.aggregation.backends();
    let published = backends.values().filter_map(|b| b.published.load_full());
    published.flat_map(|p| p.openapi.clone()).collect()
}

/// Who has the v3 document of this path.
pub fn owner(core: &Core, path: &str) -> Option<Arc<Backend>> {
    let backends = core.aggregation.backends();
    let has = |b: &&Arc<Backend>| b.published.load().as_ref().is_some_and(|p| p.openapi.contains_key(path));
    backends.values().find(has).cloned()
}

/// The v2 documents of all servers that can be asked, each cut to what it serves here.
pub async fn v2(core: &Arc<Core>) -> Vec<Value> {
    let backends = core.aggregation.backends();
    let asked = backends.values().filter(|b| b.available).map(|backend| async move {
        let mut session = Session::open(core.objects.as_ref(), backend).await.ok()?;
        let answer = session.get("/openapi/v2", "application/json").await.ok()?;
        let document: Value = serde_json::from_slice(&answer.bytes).ok().filter(|_| answer.code == 200)?;
        Some(cut(document, &format!("/apis/{}/{}/", backend.group, backend.version)))
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

fn references<'a>(tree: &'a Value, found: &mut Vec<&'a str>) {
    match tree {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get("$ref") {
                found.extend(target.strip_prefix(DEFINITIONS));
            }
            fields.values().for_each(|v| references(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

/// Only the paths below `prefix` and the definitions that these need.
fn cut(mut document: Value, prefix: &str) -> Value {
    if let Some(paths) = document["paths"].as_object_mut() {
        paths.retain(|path, _| path.starts_with(prefix));
    }
    let mut needed: BTreeSet<String> = BTreeSet::new();
    let mut found = Vec::new();
    references(&document["paths"], &mut found);
    while let Some(name) = found.pop() {
        if needed.insert(name.to_string()) {
            references(&document["definitions"][name], &mut found);
        }
    }
    if let Some(definitions) = document["definitions"].as_object_mut() {
        definitions.retain(|name, _| needed.contains(name));
    }
    document
}

/// Adds a document. A definition that has another meaning here gets a name of its own.
pub fn merge(base: &mut Value, mut other: Value) {
    let Some(Value::Object(known)) = base.get("definitions") else { return };
    let theirs = other["definitions"].as_object().cloned().unwrap_or_default();
    let renamed: Map<String, Value> = theirs
        .iter()
        .filter(|(name, schema)| known.get(*name).is_some_and(|k| k != *schema))
        .map(|(name, _)| (name.clone(), free_name(name, known, &theirs).into()))
        .collect();
    rename(&mut other, &renamed);
    for part in ["paths", "definitions"] {
        let Some(Value::Object(added)) = other.get_mut(part).map(Value::take) else { continue };
        let Some(Value::Object(into)) = base.get_mut(part) else { continue };
        for (name, value) in added {
            let name = match renamed.get(&name) {
                Some(Value::String(new)) if part == "definitions" => new.clone(),
                _ => name,
            };
            into.entry(name).or_insert(value);
        }
    }
}

fn free_name(name: &str, known: &Map<String, Value>, theirs: &Map<String, Value>) -> String {
    let taken = |name: &str| known.contains_key(name) || theirs.contains_key(name);
    let mut tries = (2..).map(|n| format!("{name}_v{n}"));
    tries.find(|n| !taken(n)).expect("some number is free")
}

fn rename(tree: &mut Value, renamed: &Map<String, Value>) {
    match tree {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get_mut("$ref")
                && let Some(Value::String(new)) = target.strip_prefix(DEFINITIONS).and_then(|n| renamed.get(n))
            {
                *target = format!("{DEFINITIONS}{new}");
            }
            fields.values_mut().for_each(|v| rename(v, renamed));
        }
        Value::Array(items) => items.iter_mut().for_each(|v| rename(v, renamed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_is_cut_to_one_version_and_merged_under_free_names() {
        let reference = |name: &str| json!({"$ref": format!("{DEFINITIONS}{name}")});
        let theirs = json!({
            "paths": {
                "/apis/g/v1/things": {"get": {"schema": reference("g.Thing")}},
                "/version": {"get": {"schema": reference("Version")}},
            },
            "definitions": {
                "g.Thing": {"properties": {"metadata": reference("Meta"), "time": reference("Time")}},
                "Meta": {"description": "theirs"}, "Time": {"type": "string"}, "Version": {},
            },
        });
        let mut base = json!({"paths": {"/version": {}}, "definitions": {
            "Meta": {"description": "ours"}, "Time": {"type": "string"}}});
        merge(&mut base, cut(theirs, "/apis/g/v1/"));
        assert_eq!(base["paths"].as_object().expect("paths").len(), 2);
        let names: Vec<&String> = base["definitions"].as_object().expect("definitions").keys().collect();
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!(base["definitions"]["g.Thing"]["properties"]["metadata"], reference("Meta_v2"));
        assert_eq!(base["definitions"]["g.Thing"]["properties"]["time"], reference("Time"));
        assert_eq!(base["definitions"]["Meta"]["description"], "ours");
    }
}
