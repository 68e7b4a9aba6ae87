//! Rows of custom resources, by the columns their definition names.
//!
//! Owns: `additionalPrinterColumns` and the simple JSON paths in them.
//! Called by: the API server for Tables of custom resources.
//! Never: knows a kind.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{IncludeObject, Row, age, included, items, table, text};
use crate::object;

/// As `render`; `columns` is the version's `additionalPrinterColumns`, or null.
pub fn render_custom(columns: &Value, objects: &[&Value], now: Timestamp, include: IncludeObject) -> Value {
    let default = json!([{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]);
    let columns = if items(columns).is_empty() { &default } else { columns };
    let mut definitions =
        vec![json!({"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0})];
    definitions.extend(items(columns).iter().map(|c| {
        let priority = c["priority"].as_i64().unwrap_or(0);
        json!({"name": c["name"], "type": c["type"], "format": text(&c["format"]), "description": text(&c["description"]), "priority": priority})
    }));
    let rows = objects.iter().map(|object| {
        let mut row = Row { object, now, cells: vec![object::name(object).into()] };
        for column in items(columns) {
            let cell = cell(text(&column["type"]), find(object, text(&column["jsonPath"])), &row);
            row.push(cell);
        }
        json!({ "cells": row.cells, "object": included(object, include) })
    });
    table(definitions, rows.collect())
}

/// The Table of the `autoscaling/v1 Scale` of a custom resource.
pub fn render_custom_scale(scale: &Value, now: Timestamp, include: IncludeObject) -> Value {
    let columns = json!([
        {"name": "Desired", "type": "integer", "jsonPath": ".spec.replicas"},
        {"name": "Available", "type": "integer", "jsonPath": ".status.replicas"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    render_custom(&columns, &[scale], now, include)
}

fn cell(kind: &str, value: Option<&Value>, row: &Row<'_>) -> Value {
    let Some(value) = value.filter(|v| !v.is_null()) else { return Value::Null };
    match kind {
        "string" => value.as_str().map_or_else(|| value.to_string(), str::to_string).into(),
        "integer" => value.as_i64().or(value.as_f64().map(|f| f as i64)).into(),
        "number" if value.is_number() => value.clone(),
        "boolean" if value.is_boolean() => value.clone(),
        "date" if value.is_string() => match age::parse(value) {
            Some(time) => age::human_duration(age::seconds_between(time, row.now)).into(),
            None => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}

/// The first value at a path such as `.status.conditions[?(@.type=="Ready")].status`, `.spec.list[0]`, `.a['b.c']`.
fn find<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    let mut found = vec![object];
    let mut rest = path.trim();
    while !rest.is_empty() {
        let (step, after) = if let Some(inner) = rest.strip_prefix('[') {
            let (step, after) = inner.split_at(closing(inner)?);
            (step, &after[1..])
        } else {
            let field = rest.strip_prefix('.').unwrap_or(rest);
            let mut end = field.len();
            // A backslash lets a dot belong to the name.
            let mut escaped = false;
            for (i, c) in field.char_indices() {
                if !escaped && (c == '.' || c == '[') {
                    end = i;
                    break;
                }
                escaped = c == '\\' && !escaped;
            }
            field.split_at(end)
        };
        found = found.into_iter().flat_map(|value| take(value, step)).collect();
        rest = after;
    }
    found.into_iter().next()
}

/// Where the bracket that was opened before `text` closes; quotes may hold brackets.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(i),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn take<'v>(value: &'v Value, step: &str) -> Vec<&'v Value> {
    if step.is_empty() {
        return vec![value];
    }
    if let Some(filter) = step.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        return items(value).iter().filter(|item| holds(item, filter)).collect();
    }
    if step == "*" {
        return match value {
            Value::Array(list) => list.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        };
    }
    if let Value::Array(list) = value {
        let index: Option<i64> = step.parse().ok();
        let index = index.map(|i| if i < 0 { i + list.len() as i64 } else { i });
        return index.and_then(|i| list.get(usize::try_from(i).ok()?)).into_iter().collect();
    }
    let name = step.trim_matches(['\'', '"']).replace('\\', "");
    value.get(&name).into_iter().collect()
}

fn holds(item: &Value, filter: &str) -> bool {
    let Some((operator, at)) = ["==", "!="].into_iter().find_map(|o| filter.find(o).map(|at| (o, at))) else {
        return find(item, filter.trim().trim_start_matches('@')).is_some();
    };
    let (path, wanted) = (filter[..at].trim(), filter[at + 2..].trim());
    let found = find(item, path.trim_start_matches('@'));
    let text = found.map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_string));
    let equal = text.as_deref() == Some(wanted.trim_matches(['\'', '"']));
    equal == (operator == "==")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_find_their_values_by_path() {
        let object = json!({"metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a.b/c": "l"}},
            "spec": {"n": 3, "list": ["p", "q"]}, "status": {"conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        let column = |kind: &str, path: &str| json!({"name": path, "type": kind, "jsonPath": path});
        let columns = json!([
            column("integer", ".spec.n"),
            column("string", ".status.conditions[?(@.type==\"Ready\")].status"),
            column("string", ".spec.list[1]"),
            column("string", ".metadata.labels.a\\.b/c"),
            column("string", ".gone.by"),
            column("date", ".metadata.creationTimestamp"),
            column("string", ".spec.list"),
        ]);
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let table = render_custom(&columns, &[&object], now, IncludeObject::None);
        assert_eq!(table["rows"][0]["cells"], json!(["x", 3, "True", "q", "l", null, "24h", "[\"p\",\"q\"]"]));
        let plain = render_custom(&Value::Null, &[&object], now, IncludeObject::None);
        assert_eq!(plain["rows"][0]["cells"], json!(["x", "24h"]));
    }
}
