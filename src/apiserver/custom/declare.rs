//! What a schema tells CEL: types, and how large data can be.
//!
//! Owns: the declaration of a schema's node, limits where a schema names none.
//! Called by: the rules of custom resources.
//! Never: judges a schema; a part that has no type is unknown to rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use minik_cel::Type;
use minik_cel::identifier::escape;
use minik_cel::types::{Fields, ListMerge, ListType, ObjectField, ObjectType};
use serde_json::{Value, json};

/// Largest body of a request, which bounds what a schema leaves open.
pub const REQUEST_BYTES_MAX: u64 = 3 << 20;

/// Bytes that the shortest JSON of a type takes, and the most that formats take: upstream's table.
const STRING_BYTES: u64 = 2;
const BOOL_BYTES: u64 = 4;
const NUMBER_BYTES: u64 = 1;
const DURATION_BYTES: (u64, u64) = (3, 32);
const DATE_BYTES: (u64, u64) = (12, 12);
const MOMENT_BYTES: (u64, u64) = (21, 32);

#[derive(Clone, Debug)]
pub struct Declared {
    pub of: Type,
    /// Most elements or characters.
    pub most: u64,
    /// Bytes that the shortest value takes.
    pub least_bytes: u64,
    pub shape: Shape,
}

#[derive(Clone, Debug)]
pub enum Shape {
    Leaf,
    List(Box<Declared>),
    Map(Box<Declared>),
    /// By the names that rules use.
    Object(BTreeMap<String, Declared>),
}

/// Whether a schema is that of an object with `kind`, `apiVersion` and `metadata`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Root {
    Resource,
    Part,
}

impl Root {
    pub fn of(schema: &Value) -> Self {
        if schema["x-kubernetes-embedded-resource"] == true { Self::Resource } else { Self::Part }
    }
}

impl Declared {
    fn leaf(of: Type, most: u64, least_bytes: u64) -> Self {
        Self { of, most, least_bytes, shape: Shape::Leaf }
    }

    /// The declaration one step below: a field, `@items` or `@values`.
    pub fn at(&self, step: &str) -> Option<&Declared> {
        match (&self.shape, step) {
            (Shape::List(of), "@items") | (Shape::Map(of), "@values") => Some(of),
            (Shape::Object(fields), name) => fields.get(name),
            _ => None,
        }
    }

    /// How many parts the data at a path may have; the path begins with the name of a variable.
    pub fn most_at(&self, path: &[String]) -> Option<u64> {
        let mut at = self;
        for step in &path[1..] {
            // Upstream declares a map's keys as strings without a greatest length and reads that as 0: rules over keys,
            // as Gateway API and Istio have them, cost next to nothing.
            if step == "@keys" && matches!(at.shape, Shape::Map(_)) {
                return Some(0);
            }
            at = at.at(step)?;
        }
        Some(at.most)
    }
}

/// The declaration of `schema`, called `name`; `None` for what rules cannot see.
pub fn declare(schema: &Value, root: Root, name: &str) -> Option<Declared> {
    if schema["x-kubernetes-int-or-string"] == true {
        let most = length(schema).unwrap_or(REQUEST_BYTES_MAX - 2);
        return Some(Declared::leaf(Type::Dyn, most, NUMBER_BYTES));
    }
    match schema["type"].as_str().unwrap_or("") {
        "array" => array(schema, name),
        "object" => match schema.get("additionalProperties").filter(|p| p.is_object()) {
            Some(values) if root == Root::Part => map(schema, values, name),
            _ => object(schema, root, name),
        },
        "string" => Some(string(schema)),
        "boolean" => Some(Declared::leaf(Type::Bool, 0, BOOL_BYTES)),
        "number" => Some(Declared::leaf(Type::Double, 0, NUMBER_BYTES)),
        "integer" => Some(Declared::leaf(Type::Int, 0, NUMBER_BYTES)),
        _ => None,
    }
}

fn limit(schema: &Value, keyword: &str) -> Option<u64> {
    schema[keyword].as_i64().map(|limit| limit.max(0).unsigned_abs())
}

/// `maxLength` counts characters, and one takes up to four bytes.
fn length(schema: &Value) -> Option<u64> {
    limit(schema, "maxLength").map(|max| max.saturating_mul(4))
}

fn string(schema: &Value) -> Declared {
    let of_format = |of, (least, most)| Declared::leaf(of, most, least);
    match schema["format"].as_str().unwrap_or("") {
        "byte" => {
            let most = limit(schema, "maxLength").unwrap_or(REQUEST_BYTES_MAX - 2);
            Declared::leaf(Type::Bytes, most, STRING_BYTES)
        }
        "duration" => of_format(Type::Duration, DURATION_BYTES),
        "date" => of_format(Type::Timestamp, DATE_BYTES),
        "date-time" => of_format(Type::Timestamp, MOMENT_BYTES),
        _ => {
            let longest = || schema["enum"].as_array()?.iter().filter_map(Value::as_str).map(|v| v.len() as u64).max();
            let most = length(schema).or_else(longest).unwrap_or(REQUEST_BYTES_MAX - 2);
            Declared::leaf(Type::String, most, STRING_BYTES)
        }
    }
}

fn array(schema: &Value, name: &str) -> Option<Declared> {
    let items = &schema["items"];
    let element = declare(items, Root::of(items), &format!("{name}.@elem"))?;
    let most = limit(schema, "maxItems").unwrap_or((REQUEST_BYTES_MAX - 2) / (element.least_bytes + 1));
    let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
    let merge = match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListMerge::Set,
        Some("map") => ListMerge::Map(keys.filter_map(Value::as_str).map(String::from).collect()),
        _ => ListMerge::Atomic,
    };
    let of = Type::List(Arc::new(ListType { element: element.of.clone(), merge }));
    Some(Declared { of, most, least_bytes: 2, shape: Shape::List(Box::new(element)) })
}

fn map(schema: &Value, values: &Value, name: &str) -> Option<Declared> {
    let value = declare(values, Root::of(values), &format!("{name}.@elem"))?;
    let most = limit(schema, "maxProperties").unwrap_or((REQUEST_BYTES_MAX - 2) / (value.least_bytes + 6));
    let of = Type::map(Type::String, value.of.clone());
    Some(Declared { of, most, least_bytes: 2, shape: Shape::Map(Box::new(value)) })
}

/// What rules may always use of a whole object, whatever its schema says.
fn of_every_resource() -> Value {
    let text = json!({"type": "string"});
    // A name is no longer than a DNS name.
    let name = json!({"type": "string", "maxLength": 253});
    let metadata = json!({"type": "object", "properties": {"name": name, "generateName": name}});
    json!({"kind": text, "apiVersion": text, "metadata": metadata})
}

fn object(schema: &Value, root: Root, name: &str) -> Option<Declared> {
    let every = of_every_resource();
    let mut properties: BTreeMap<&String, &Value> = schema["properties"].as_object().into_iter().flatten().collect();
    if root == Root::Resource {
        properties.extend(every.as_object().into_iter().flatten());
    }
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let (mut fields, mut shape) = (BTreeMap::new(), BTreeMap::new());
    let mut least_bytes = 2;
    for (json, property) in properties {
        let escaped = escape(json);
        let part = escaped.as_deref().unwrap_or(json);
        let Some(declared) = declare(property, Root::of(property), &format!("{name}.{part}")) else { continue };
        if required.contains(&json.as_str()) && property.get("default").is_none() {
            least_bytes += json.len() as u64 + declared.least_bytes + 4;
        }
        if let Some(escaped) = escaped {
            fields.insert(escaped.clone(), ObjectField { json: json.clone(), of: declared.of.clone() });
            shape.insert(escaped, declared);
        }
    }
    let of = Type::Object(Arc::new(ObjectType { name: name.into(), fields: Fields::Declared(fields) }));
    Some(Declared { of, most: 0, least_bytes, shape: Shape::Object(shape) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_schema_leaves_open_is_bounded_by_the_request() {
        let schema = json!({"type": "object", "properties": {
            "short": {"type": "string", "maxLength": 10},
            "open": {"type": "array", "items": {"type": "string"}},
            "map": {"type": "object", "maxProperties": 5, "additionalProperties": {"type": "integer"}}}});
        let declared = declare(&schema, Root::Part, "t").expect("test");
        let most = |path: &[&str]| {
            let path: Vec<String> = ["self"].iter().chain(path).map(|s| s.to_string()).collect();
            declared.most_at(&path)
        };
        assert_eq!(most(&["short"]), Some(40));
        assert_eq!(most(&["open"]), Some((REQUEST_BYTES_MAX - 2) / 3));
        assert_eq!(most(&["map"]), Some(5));
        assert_eq!(most(&["gone"]), None);
    }
}
