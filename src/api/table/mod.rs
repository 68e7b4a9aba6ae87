//! The Tables that `kubectl get` prints.
//!
//! Owns: columns and cells of every kind. Wide columns are always sent; the client leaves them out.
//! Called by: the API server when a client accepts `as=Table`.
//! Never: reads the clock (`now` is given).

mod age;
mod autoscaling;
mod core;
mod custom;
mod network;
mod others;
mod pod;
mod workloads;

use std::collections::HashMap;
use std::sync::OnceLock;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::convert;
use crate::object;
use crate::registry::Resource;

pub use age::human_duration;
pub use custom::{render_custom, render_custom_scale};

/// What a row carries beside its cells (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// A cell that was not said.
const NONE: &str = "<none>";
const UNSET: &str = "<unset>";
const UNKNOWN: &str = "<unknown>";

struct Column {
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    priority: u8,
    description: &'static str,
}

fn columns() -> &'static HashMap<&'static str, Vec<Column>> {
    static COLUMNS: OnceLock<HashMap<&'static str, Vec<Column>>> = OnceLock::new();
    COLUMNS.get_or_init(|| {
        let mut all: HashMap<&str, Vec<Column>> = HashMap::new();
        let mut kind = "";
        for line in include_str!("columns.table").lines().filter(|l| !l.starts_with('#')) {
            let Some(row) = line.strip_prefix("  ") else {
                kind = line;
                continue;
            };
            let parts: Vec<&'static str> = row.splitn(5, '|').collect();
            let [name, column_kind, format, priority, description] = parts[..] else {
                panic!("columns.table has a row that is no column: {line}");
            };
            // References to descriptions of the schema are resolved where descriptions are known.
            let description = if description.starts_with('@') { "" } else { description };
            let column = Column { name, kind: column_kind, format, priority: u8::from(priority == "1"), description };
            all.entry(kind).or_default().push(column);
        }
        all
    })
}

const DEFAULT_COLUMNS: [Column; 2] = [
    Column { name: "Name", kind: "string", format: "name", priority: 0, description: "" },
    Column { name: "Created At", kind: "date", format: "", priority: 0, description: "" },
];

/// One row in the making.
struct Row<'a> {
    object: &'a Value,
    now: Timestamp,
    cells: Vec<Value>,
}

impl Row<'_> {
    fn push(&mut self, cell: impl Into<Value>) {
        self.cells.push(cell.into());
    }
    fn extend(&mut self, cells: impl IntoIterator<Item = Value>) {
        self.cells.extend(cells);
    }
    fn name(&mut self) {
        self.push(object::name(self.object));
    }
    fn age(&mut self) {
        let age = self.since(&self.object["metadata"]["creationTimestamp"]);
        self.push(age);
    }
    /// How long ago, as `5m` or `<unknown>`.
    fn since(&self, time: &Value) -> String {
        age::since(time, self.now)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}
fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}
/// The text, or the word for its absence.
fn text_or(value: &Value, otherwise: &str) -> String {
    value.as_str().filter(|s| !s.is_empty()).unwrap_or(otherwise).to_string()
}
fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
fn count(value: &Value) -> i64 {
    value.as_array().map(Vec::len).or(value.as_object().map(serde_json::Map::len)).unwrap_or(0) as i64
}
fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    items(&object["status"]["conditions"]).iter().find(|c| c["type"] == kind)
}
fn join(values: &Value) -> String {
    items(values).iter().map(text).collect::<Vec<_>>().join(",")
}
/// Labels as `a=1,b=2`.
fn labels(map: &Value) -> String {
    let pairs: Vec<String> = map.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", text(v))).collect();
    if pairs.is_empty() { NONE.into() } else { pairs.join(",") }
}
/// `a,b,c + 2 more...`, or `otherwise` for an empty list.
fn shortened(list: &[String], max: usize, otherwise: &str) -> String {
    if list.len() > max {
        return format!("{} + {} more...", list[..max].join(","), list.len() - max);
    }
    if list.is_empty() { otherwise.into() } else { list.join(",") }
}
/// Names and images of a template's containers.
fn containers(template: &Value) -> [Value; 2] {
    let of = |field: &str| {
        let list = items(&template["spec"]["containers"]);
        Value::from(list.iter().map(|c| text(&c[field])).collect::<Vec<_>>().join(","))
    };
    [of("name"), of("image")]
}

fn print(kind: &str, row: &mut Row<'_>) -> bool {
    pod::print(kind, row)
        || workloads::print(kind, row)
        || network::print(kind, row)
        || core::print(kind, row)
        || autoscaling::print(kind, row)
        || others::print(kind, row)
}

fn included(object: &Value, include: IncludeObject) -> Value {
    match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Object => object.clone(),
        IncludeObject::Metadata => json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": convert::metadata_alone(object),
        }),
    }
}

/// A `meta.k8s.io/v1` Table without list metadata, which the caller adds.
pub fn render(resource: &Resource, objects: &[&Value], now: Timestamp, include: IncludeObject) -> Value {
    let kind = resource.kind.as_ref();
    // A custom resource may bear the name of a built-in kind; it has columns of its own (`render_custom`).
    let builtin = resource.id().is_some();
    let known = columns().get(kind).filter(|_| builtin);
    let default_storage_class = crate::volume_binding::default_class(objects.iter().copied()).map(object::name);
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut row = Row { object, now, cells: Vec::new() };
            if known.is_none() || !print(kind, &mut row) {
                row.cells = vec![object::name(object).into(), object["metadata"]["creationTimestamp"].clone()];
            }
            if kind == "StorageClass" && default_storage_class == Some(object::name(object)) {
                row.cells[0] = format!("{} (default)", object::name(object)).into();
            }
            table_row(kind, row, include)
        })
        .collect();
    let definitions = known.map_or(&DEFAULT_COLUMNS[..], Vec::as_slice).iter().map(definition).collect();
    table(definitions, rows)
}

/// The Table of one `autoscaling/v1 Scale` of a built-in kind.
pub fn render_scale(scale: &Value, now: Timestamp, include: IncludeObject) -> Value {
    const KIND: &str = "Scale";
    let mut row = Row { object: scale, now, cells: Vec::new() };
    print(KIND, &mut row);
    let definitions = columns().get(KIND).into_iter().flatten().map(definition).collect();
    table(definitions, vec![table_row(KIND, row, include)])
}

fn table_row(kind: &str, row: Row<'_>, include: IncludeObject) -> Value {
    let object = row.object;
    let mut result = json!({ "cells": row.cells, "object": included(object, include) });
    if let Some(conditions) = pod::row_conditions(kind, object) {
        result["conditions"] = conditions;
    }
    result
}

fn definition(column: &Column) -> Value {
    json!({
        "name": column.name, "type": column.kind, "format": column.format,
        "description": column.description, "priority": column.priority,
    })
}

fn table(definitions: Vec<Value>, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": definitions, "rows": rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cells of one object, joined by `|`.
    fn cells(group: &str, version: &str, plural: &str, object: Value) -> String {
        let resource = crate::registry::lookup(group, version, plural).expect("a built-in resource");
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let table = render(resource, &[&object], now, IncludeObject::None);
        let width = table["columnDefinitions"].as_array().unwrap().len();
        let cells = table["rows"][0]["cells"].as_array().unwrap();
        // An IPAddress has one cell more than columns, upstream too.
        assert!(cells.len() == width || plural == "ipaddresses", "{plural}: {} cells, {width} columns", cells.len());
        cells.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_string)).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn every_kind_has_as_many_cells_as_columns() {
        for resource in crate::registry::resources().iter().filter(|r| r.is_stored()) {
            let object = json!({"metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}});
            let text = cells(&resource.group, &resource.version, &resource.plural, object);
            assert!(text.contains('x'), "{text}");
        }
    }

    #[test]
    fn a_pod_shows_why_it_does_not_run() {
        let pod = |status: Value| {
            let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "nodeName": "n1"});
            let metadata = json!({"name": "web", "creationTimestamp": "2026-01-01T23:55:00Z"});
            cells("", "v1", "pods", json!({"metadata": metadata, "spec": spec, "status": status}))
        };
        assert_eq!(pod(json!({"phase": "Pending"})), "web|0/2|Pending|0|5m|<none>|n1|<none>|<none>");
        let status = json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [
            {"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}},
            {"name": "b", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
             "lastState": {"terminated": {"finishedAt": "2026-01-01T23:59:00Z", "exitCode": 1}}}]});
        assert_eq!(pod(status), "web|1/2|CrashLoopBackOff|3 (60s ago)|5m|10.0.0.1|n1|<none>|<none>");
    }

    #[test]
    fn workloads_services_and_nodes_show_what_kubectl_shows() {
        let deployment = json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}},
            "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}});
        assert_eq!(cells("apps", "v1", "deployments", deployment), "web|2/3|3|2|24h|c|i|app=web");
        let service = json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort", "clusterIPs": ["10.96.0.5"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}], "selector": {"app": "web"}}});
        assert_eq!(
            cells("", "v1", "services", service),
            "web|NodePort|10.96.0.5|<none>|80:30080/TCP|<unknown>|app=web"
        );
        let node = json!({"metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "172.18.0.2"}],
                "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "minik", "kernelVersion": "6.1", "architecture": "amd64"}}});
        assert_eq!(
            cells("", "v1", "nodes", node),
            "n1|Ready,SchedulingDisabled|control-plane|<unknown>|v1.37.0|172.18.0.2|<none>|minik|6.1 (amd64)|<unknown>"
        );
    }
}
