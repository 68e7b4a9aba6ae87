//! `src/api/RESOURCES.md`: what is known about each resource, counted by asking the code.
//!
//! Owns: that table. After a change of what it counts: `UPDATE_EXPECT=1 cargo test --workspace --test api resource_table`.
//! Called by: the test harness.
//! Never: holds a number of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use expect_test::expect_file;
use minik_api::registry::{self, Resource};
use minik_api::schema::{Form, Shape, Type};
use minik_api::table::{self, IncludeObject};
use minik_api::{defaulting, validation};
use serde_json::{Map, Value, json};

use crate::{encodings, replay};

const HEAD: &str = "\
# Resources

Written by a test (`tests/api/resource_table.rs`), which asks the code and fails when this is out of date; nothing here is
kept by hand. A row for each resource of the registry (`src/api/registry.table`):

- *defaults*: fields that appear when an object that has all its structs and lists, but says nothing in them, is defaulted;
- *refused*: fields with an error when an object whose every field holds nonsense is to be created;
- *columns*: what `kubectl get` shows, `-o wide` included;
- *compared*: recorded requests to the resource whose answers are compared with those of kube-apiserver
  (`tests/upstream/golden`), and how many are the same in everything. `tests/upstream/known.txt` names the others.

| resource | version | defaults | refused | columns | compared | same |
|---|---|--:|--:|---|--:|--:|
";

/// Every struct, and one element in every list and map, but nothing said.
fn skeleton(of: Type, within: &[Type]) -> Value {
    let types = [within, &[of]].concat();
    let parts = of.fields().iter().filter_map(|f| Some((f.name().to_string(), part(f.shape(), &types)?)));
    Value::Object(parts.collect::<Map<_, _>>())
}

fn part(shape: Shape, within: &[Type]) -> Option<Value> {
    match shape.form() {
        Form::Object(of) => (!within.contains(&of)).then(|| skeleton(of, within)),
        Form::List(of) | Form::Items(of) => Some(json!([part(of, within)?])),
        Form::Map(of) => Some(json!({"key": part(of, within)?})),
        _ => None,
    }
}

/// Where something is said, whatever the index.
fn places(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(name, inner)| places(inner, &format!("{at}.{name}"), found))
        }
        Value::Array(items) if !items.is_empty() => items.iter().for_each(|inner| places(inner, at, found)),
        Value::Object(_) | Value::Array(_) => {}
        _ => drop(found.insert(at.to_string())),
    }
}

fn defaulted(resource: &Resource, of: Type) -> usize {
    let mut object = skeleton(of, &[]);
    let mut found = BTreeSet::new();
    defaulting::apply(&resource.group, &resource.version, &resource.kind, &mut object);
    places(&object, "", &mut found);
    found.len()
}

fn refused(resource: &Resource) -> usize {
    let object = encodings::filled(resource);
    let errors = validation::create(&resource.group, &resource.version, &resource.kind, &object);
    let without_keys = |path: &str| {
        let (mut out, mut depth) = (String::new(), 0);
        for letter in path.chars() {
            match letter {
                '[' => depth += 1,
                ']' => depth -= 1,
                other if depth == 0 => out.push(other),
                _ => {}
            }
        }
        out
    };
    errors.iter().map(|e| without_keys(&e.path)).collect::<BTreeSet<_>>().len()
}

fn columns(resource: &Resource) -> String {
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    let table = table::render(resource, &[], now, IncludeObject::None);
    let definitions = table["columnDefinitions"].as_array().into_iter().flatten();
    definitions.filter_map(|d| d["name"].as_str()).collect::<Vec<_>>().join(", ")
}

/// `/apis/apps/v1/namespaces/a/deployments/b/scale` -> `apps`, `v1`, `deployments`.
fn asked(path: &str) -> Option<(&str, &str, &str)> {
    let path = path.split('?').next()?;
    let (group, rest) = match path.strip_prefix("/api/") {
        Some(rest) => ("", rest),
        None => path.strip_prefix("/apis/")?.split_once('/')?,
    };
    let mut pieces = rest.split('/');
    let (version, first) = (pieces.next()?, pieces.next()?);
    let below = pieces.nth(1).filter(|p| first == "namespaces" && registry::lookup(group, version, p).is_some());
    Some((group, version, below.unwrap_or(first)))
}

#[test]
fn the_table_of_resources_is_current() {
    let mut compared: BTreeMap<(String, String, String), (usize, usize)> = BTreeMap::new();
    for (path, same) in replay::recorded() {
        let Some((group, version, plural)) = asked(&path) else { continue };
        let counts = compared.entry((group.into(), version.into(), plural.into())).or_default();
        *counts = (counts.0 + 1, counts.1 + usize::from(same));
    }
    let mut text = HEAD.to_string();
    for resource in registry::resources() {
        let of = Type::of_kind(&resource.group, &resource.version, &resource.kind).expect("a kind of the schema");
        let key = (resource.group.to_string(), resource.version.to_string(), resource.plural.to_string());
        let (asked, same) = compared.get(&key).copied().unwrap_or_default();
        let (defaults, refused, columns) = (defaulted(resource, of), refused(resource), columns(resource));
        let (name, version) = (resource.qualified(), &resource.version);
        writeln!(text, "| `{name}` | {version} | {defaults} | {refused} | {columns} | {asked} | {same} |")
            .expect("text");
    }
    expect_file!["../../src/api/RESOURCES.md"].assert_eq(&text);
}
