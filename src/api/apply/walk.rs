//! Walks objects along their schema: which fields they say, how two of them differ, how one is laid over the other.
//!
//! Owns: field sets of objects, comparison, merge and removal, for structs, maps, sets and keyed lists.
//! Called by: `apply`.
//! Never: knows managers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::set::{MEMBER, Set, field_edge, index_edge, key_edge, value_edge};
use super::{NOBODYS, NOBODYS_METADATA};
use crate::structure::{Elements, Structure};

type Path = Vec<String>;

/// What an applied configuration gets wrong about its schema.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SchemaFault(pub String);

/// The edge of a list element; `None` when it lacks a key.
fn element_edge(structure: Structure<'_>, elements: &Elements<'_>, item: &Value) -> Result<String, String> {
    match elements {
        Elements::Atomic => unreachable!("atomic lists have no element edges"),
        Elements::Set => Ok(value_edge(item)),
        Elements::Map(keys) => {
            let mut found = BTreeMap::new();
            for key in keys {
                let default = || structure.element().child(key).default();
                match item.get(key.as_ref()).filter(|v| !v.is_null()).cloned().or_else(default) {
                    Some(value) => found.insert(key.as_ref(), value),
                    None => return Err(key.to_string()),
                };
            }
            Ok(key_edge(&found))
        }
    }
}

/// Elements by edge; one without its key is known by its place, one seen before is skipped.
fn edges<'v>(structure: Structure<'_>, elements: &Elements<'_>, items: &'v [Value]) -> Vec<(String, &'v Value)> {
    edges_noting(structure, elements, items, &mut false)
}

/// As `edges`, telling whether an element lacks its key.
fn edges_noting<'v>(
    structure: Structure<'_>,
    elements: &Elements<'_>,
    items: &'v [Value],
    keyless: &mut bool,
) -> Vec<(String, &'v Value)> {
    let mut all: Vec<(String, &Value)> = Vec::with_capacity(items.len());
    let mut seen = std::collections::HashSet::new();
    for (i, item) in items.iter().enumerate() {
        let edge = element_edge(structure, elements, item).unwrap_or_else(|_| {
            *keyless = true;
            index_edge(i)
        });
        if seen.insert(edge.clone()) {
            all.push((edge, item));
        }
    }
    all
}

/// As `edges_noting`; without an element where several have the edge: of them nobody could say whose fields they are.
fn single<'v>(structure: Structure<'_>, items: &'v [Value], keyless: &mut bool) -> Vec<(String, Option<&'v Value>)> {
    let elements = structure.elements();
    let all = edges_noting(structure, &elements, items, keyless);
    let mut repeated = BTreeSet::new();
    if all.len() < items.len() {
        let mut seen = BTreeSet::new();
        let edges = items.iter().filter_map(|item| element_edge(structure, &elements, item).ok());
        repeated.extend(edges.filter(|edge| !seen.insert(edge.clone())));
    }
    let alone = |(edge, item)| match repeated.contains(&edge) {
        true => (edge, None),
        false => (edge, Some(item)),
    };
    all.into_iter().map(alone).collect()
}

fn is_leaf_map(structure: Structure<'_>) -> bool {
    structure.is_atomic_map()
}

/// The fields an object says something about, faults of the schema included: what an applier owns.
pub fn said(structure: Structure<'_>, object: &Value) -> Result<Set, SchemaFault> {
    let mut set = Set::default();
    say(structure, object, &mut Vec::new(), &mut String::new(), &mut set)?;
    Ok(set)
}

fn say(
    structure: Structure<'_>,
    value: &Value,
    path: &mut Path,
    text: &mut String,
    set: &mut Set,
) -> Result<(), SchemaFault> {
    if structure.is_numeric() && !value.is_number() && !value.is_null() {
        return Err(SchemaFault(format!("{text}: expected numeric (int or float), got {}", go_type(value))));
    }
    match value {
        Value::Object(map) if path.is_empty() || !is_leaf_map(structure) => {
            for (key, below) in map {
                let Some(child) = structure.field(key) else {
                    return Err(SchemaFault(format!("{text}.{key}: field not declared in schema")));
                };
                let mark = text.len();
                path.push(field_edge(key));
                text.push('.');
                text.push_str(key);
                say(child, below, path, text, set)?;
                let empty = below.is_null() || below.as_object().is_some_and(Map::is_empty);
                if empty || !structure.names_field(key) {
                    set.insert(path);
                }
                path.pop();
                text.truncate(mark);
            }
            Ok(())
        }
        Value::Array(items) => match structure.elements() {
            Elements::Atomic => {
                set.insert(path);
                Ok(())
            }
            elements => say_elements(structure, &elements, items, path, text, set),
        },
        _ => {
            set.insert(path);
            Ok(())
        }
    }
}

/// What Go's JSON reader makes of it.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn say_elements(
    structure: Structure<'_>,
    elements: &Elements<'_>,
    items: &[Value],
    path: &mut Path,
    text: &mut String,
    set: &mut Set,
) -> Result<(), SchemaFault> {
    for (i, item) in items.iter().enumerate() {
        let edge = element_edge(structure, elements, item).map_err(|key| {
            let fault = format!("associative list with keys has an element that omits key field {key:?} (and doesn't have default value)");
            SchemaFault(format!("{text}: element {i}: {fault}"))
        })?;
        path.push(edge);
        let mut own = Set::default();
        own.insert(path);
        if own.intersection(set) == own {
            let mut alone = Set::default();
            alone.insert(&path[path.len() - 1..]);
            let name = alone.paths().pop().unwrap_or_default();
            return Err(SchemaFault(format!("{text}: duplicate entries for key {name}")));
        }
        let mark = text.len();
        text.push_str("[]");
        say(structure.element(), item, path, text, set)?;
        text.truncate(mark);
        set.insert(path);
        path.pop();
    }
    Ok(())
}

/// Every field an object has, whatever the schema thinks of it.
pub fn present(structure: Structure<'_>, object: &Value) -> Set {
    let mut set = Set::default();
    collect(structure, object, &mut Vec::new(), &mut set);
    set
}

fn collect(structure: Structure<'_>, value: &Value, path: &mut Path, set: &mut Set) {
    match value {
        Value::Object(map) if path.is_empty() || !is_leaf_map(structure) => {
            for (key, below) in map {
                path.push(field_edge(key));
                collect(structure.child(key), below, path, set);
                let empty = below.is_null() || below.as_object().is_some_and(Map::is_empty);
                if empty || !structure.names_field(key) {
                    set.insert(path);
                }
                path.pop();
            }
        }
        Value::Array(items) if structure.elements() != Elements::Atomic => {
            for (edge, item) in single(structure, items, &mut false) {
                path.push(edge);
                if let Some(item) = item {
                    collect(structure.element(), item, path, set);
                }
                set.insert(path);
                path.pop();
            }
        }
        _ => set.insert(path),
    }
}

/// How a new object differs from an old one.
#[derive(Debug, Default)]
pub struct Comparison {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
    /// Where they differ, an element of a keyed list lacks its key.
    pub keyless: bool,
}

impl Comparison {
    pub fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
    /// Leaves out everything below these fields.
    pub fn without(mut self, ignored: &[&str]) -> Comparison {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            set.drop_fields(ignored);
        }
        self
    }
}

/// All but the managed fields themselves.
pub fn compare(structure: Structure<'_>, old: &Value, new: &Value) -> Comparison {
    diff(structure, old, new, Level::Root)
}

/// How deep a place lies, as far as that makes a difference.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    /// Of an object.
    Metadata,
    Below,
}

impl Level {
    fn of(self, field: &str) -> Level {
        if self == Level::Root && field == "metadata" { Level::Metadata } else { Level::Below }
    }
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

/// As what two values of one place are compared.
enum Compared {
    Leaves,
    Maps,
    Lists,
}

impl Compared {
    fn of(structure: Structure<'_>, old: &Value, new: &Value, level: Level) -> Compared {
        let both = |is: fn(&Value) -> bool| [old, new].into_iter().all(|v| v.is_null() || is(v));
        if is_blank(old) && is_blank(new) {
            Compared::Leaves
        } else if both(Value::is_object) && (level == Level::Root || !is_leaf_map(structure)) {
            Compared::Maps
        } else if both(Value::is_array) && structure.elements() != Elements::Atomic {
            Compared::Lists
        } else {
            Compared::Leaves
        }
    }
}

fn diff(structure: Structure<'_>, old: &Value, new: &Value, level: Level) -> Comparison {
    match Compared::of(structure, old, new, level) {
        Compared::Maps => diff_maps(structure, old, new, level),
        Compared::Lists => diff_lists(structure, old, new),
        Compared::Leaves if same(old, new) => Comparison::default(),
        Compared::Leaves => Comparison { modified: Set::place([]), ..Comparison::default() },
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        _ => a == b,
    }
}

impl Comparison {
    /// Adds how a field or an element differs, which one of the two may lack.
    fn child(
        &mut self,
        structure: Structure<'_>,
        edge: String,
        (old, new): (Option<&Value>, Option<&Value>),
        level: Level,
    ) {
        match (old, new) {
            (Some(old), Some(new)) => self.below(edge, diff(structure, old, new, level)),
            (None, Some(new)) => self.added.put(edge, whole(structure, new, &mut self.keyless)),
            (Some(old), None) => self.removed.put(edge, whole(structure, old, &mut self.keyless)),
            (None, None) => {}
        }
    }

    fn below(&mut self, edge: String, found: Comparison) {
        self.keyless |= found.keyless;
        let sets =
            [(&mut self.added, found.added), (&mut self.modified, found.modified), (&mut self.removed, found.removed)];
        for (all, some) in sets.into_iter().filter(|(_, some)| !some.is_empty()) {
            all.put(edge.clone(), some);
        }
    }
}

/// A value that is new, or gone, with everything in it.
fn whole(structure: Structure<'_>, value: &Value, keyless: &mut bool) -> Set {
    match value {
        Value::Object(map) if !is_leaf_map(structure) => {
            Set::place(map.iter().map(|(key, below)| (field_edge(key), whole(structure.child(key), below, keyless))))
        }
        Value::Array(items) if !items.is_empty() && structure.elements() != Elements::Atomic => {
            let elements = single(structure, items, keyless);
            Set::place(elements.into_iter().map(|(edge, item)| {
                let inside = item.map_or_else(|| Set::place([]), |item| whole(structure.element(), item, keyless));
                (edge, inside)
            }))
        }
        _ => Set::place([]),
    }
}

fn diff_maps(structure: Structure<'_>, old: &Value, new: &Value, level: Level) -> Comparison {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let mut result = Comparison::default();
    let gone = old.keys().filter(|k| !new.contains_key(*k));
    for key in gone.chain(new.keys()).filter(|k| !(level == Level::Metadata && *k == "managedFields")) {
        let sides = (old.get(key), new.get(key));
        // Most of an object stays as it is, and equal trees have no differences whatever their schema.
        if sides.0 != sides.1 {
            result.child(structure.child(key), field_edge(key), sides, level.of(key));
        }
    }
    result
}

fn diff_lists(structure: Structure<'_>, old: &Value, new: &Value) -> Comparison {
    let elements = structure.elements();
    let items = |list| Value::as_array(list).map_or(&[][..], Vec::as_slice);
    let mut result = Comparison::default();
    let mut by_edge = |list| -> BTreeMap<String, &Value> {
        edges_noting(structure, &elements, items(list), &mut result.keyless).into_iter().collect()
    };
    let (before, after) = (by_edge(old), by_edge(new));
    let gone = before.keys().filter(|k| !after.contains_key(*k));
    for edge in gone.chain(after.keys()) {
        let sides = (before.get(edge).copied(), after.get(edge).copied());
        if sides.0 != sides.1 {
            result.child(structure.element(), edge.clone(), sides, Level::Below);
        }
    }
    result
}

/// What the creator of an object owns, as an entry spells it: `compare` with what Go writes of nothing, less what nobody
/// owns. Most writes are creates, and the sets of a comparison would cost them several times as much.
pub struct Creation<'a> {
    pub ignored: &'a [&'a str],
    /// An element of a keyed list lacks its key.
    pub keyless: bool,
}

impl Creation<'_> {
    pub fn fields(&mut self, structure: Structure<'_>, zero: &Value, new: &Value) -> Map<String, Value> {
        self.inside(structure, zero, new, Level::Root).unwrap_or_default()
    }

    /// Of a place that has a value without anybody saying so; `None` when nobody says more.
    fn inside(
        &mut self,
        structure: Structure<'_>,
        zero: &Value,
        new: &Value,
        level: Level,
    ) -> Option<Map<String, Value>> {
        let found = match Compared::of(structure, zero, new, level) {
            Compared::Maps => self.of_map(structure, zero.as_object(), new, level),
            Compared::Lists => {
                let items = new.as_array().map_or(&[][..], Vec::as_slice);
                let edges = edges_noting(structure, &structure.elements(), items, &mut self.keyless);
                self.of_list(structure, edges.into_iter().map(|(edge, item)| (edge, Some(item))).collect())
            }
            Compared::Leaves => return (!same(zero, new)).then(Map::new),
        };
        (!found.is_empty()).then_some(found)
    }

    fn of_map(
        &mut self,
        structure: Structure<'_>,
        zeros: Option<&Map<String, Value>>,
        new: &Value,
        level: Level,
    ) -> Map<String, Value> {
        let mut found = Map::new();
        for (key, value) in new.as_object().into_iter().flatten() {
            let zero = zeros.and_then(|zeros| zeros.get(key));
            if zero == Some(value) {
                continue;
            }
            let (child, below) = (structure.child(key), level.of(key));
            let fields = match zero {
                Some(zero) => self.inside(child, zero, value, below),
                None => self.whole(child, value, below),
            };
            if let Some(fields) = fields.filter(|_| self.can_be_owned(level, key)) {
                found.insert(field_edge(key), Value::Object(fields));
            }
        }
        found
    }

    fn of_list(&mut self, structure: Structure<'_>, elements: Vec<(String, Option<&Value>)>) -> Map<String, Value> {
        let mut found = Map::new();
        for (edge, item) in elements {
            let fields = item.and_then(|item| self.whole(structure.element(), item, Level::Below));
            found.insert(edge, Value::Object(fields.unwrap_or_default()));
        }
        found
    }

    /// Of a place that had nothing, which itself is owned.
    fn whole(&mut self, structure: Structure<'_>, value: &Value, level: Level) -> Option<Map<String, Value>> {
        let mut found = match value {
            Value::Object(_) if !is_leaf_map(structure) => self.of_map(structure, None, value, level),
            Value::Array(items) if !items.is_empty() && structure.elements() != Elements::Atomic => {
                let elements = single(structure, items, &mut self.keyless);
                self.of_list(structure, elements)
            }
            _ => Map::new(),
        };
        if level == Level::Metadata {
            return (!found.is_empty()).then_some(found);
        }
        if !found.is_empty() {
            found.insert(MEMBER.into(), Value::Object(Map::new()));
        }
        Some(found)
    }

    fn can_be_owned(&self, level: Level, field: &str) -> bool {
        match level {
            Level::Root => !NOBODYS.contains(&field) && !self.ignored.contains(&field),
            Level::Metadata => !NOBODYS_METADATA.contains(&field),
            Level::Below => true,
        }
    }
}

/// `config` laid over `live`.
pub fn merge(structure: Structure<'_>, live: &Value, config: &Value, at_root: bool) -> Value {
    match (live, config) {
        (Value::Object(old), Value::Object(new)) if at_root || !is_leaf_map(structure) => {
            let mut merged = old.clone();
            for (key, value) in new {
                let value = match old.get(key) {
                    Some(old) => merge(structure.child(key), old, value, false),
                    None => value.clone(),
                };
                merged.insert(key.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(old), Value::Array(new)) if structure.elements() != Elements::Atomic => {
            merge_lists(structure, old, new)
        }
        // A map or list of which nothing is said keeps what others put there.
        (Value::Object(old), Value::Null) if !old.is_empty() && !is_leaf_map(structure) => live.clone(),
        (Value::Array(old), Value::Null) if !old.is_empty() && structure.elements() != Elements::Atomic => live.clone(),
        _ => config.clone(),
    }
}

/// Shared elements stand in the configuration's order; those of one side only keep their place before the next
/// shared one, the live side's first.
fn merge_lists(structure: Structure<'_>, live: &[Value], config: &[Value]) -> Value {
    let elements = structure.elements();
    let (old, new) = (edges(structure, &elements, live), edges(structure, &elements, config));
    let in_old: BTreeMap<&str, &Value> = old.iter().map(|(e, v)| (e.as_str(), *v)).collect();
    let in_new: BTreeMap<&str, &Value> = new.iter().map(|(e, v)| (e.as_str(), *v)).collect();
    let mut merged = Vec::with_capacity(old.len() + new.len());
    let mut rest = old.iter().peekable();
    for (edge, item) in &new {
        while let Some((_, only_live)) = rest.next_if(|(e, _)| !in_new.contains_key(e.as_str())) {
            merged.push((*only_live).clone());
        }
        match in_old.get(edge.as_str()) {
            Some(shared) => {
                rest.next_if(|(e, _)| in_new.contains_key(e.as_str()));
                merged.push(merge(structure.element(), shared, item, false));
            }
            None => merged.push((*item).clone()),
        }
    }
    merged.extend(rest.filter(|(e, _)| !in_new.contains_key(e.as_str())).map(|(_, v)| (*v).clone()));
    Value::Array(merged)
}

/// The object without these fields. What becomes empty by it is null: its own owner, if any, keeps it so.
pub fn remove(structure: Structure<'_>, object: &Value, gone: &Set) -> Value {
    strip(structure, object, gone, true).unwrap_or_else(|| Value::Object(Map::new()))
}

/// Drops the nulls that `remove` left in the place of something.
pub fn drop_removed(object: &mut Value, before: &Value) {
    match (object, before) {
        (Value::Object(map), Value::Object(old)) => {
            map.retain(|key, value| !(value.is_null() && old.get(key).is_some_and(|o| !o.is_null())));
            for (key, value) in map.iter_mut() {
                drop_removed(value, old.get(key).unwrap_or(&Value::Null));
            }
        }
        // Elements may have moved: any null inside them that nobody wrote is looked for in all of them.
        (Value::Array(items), Value::Array(old)) => {
            for item in items.iter_mut() {
                old.iter().for_each(|before| drop_removed(item, before));
            }
        }
        _ => {}
    }
}

fn strip(structure: Structure<'_>, value: &Value, gone: &Set, at_root: bool) -> Option<Value> {
    let keep = |below: Option<&Set>, child: Structure<'_>, value: &Value| match below {
        Some(set) if set.is_member() => None,
        Some(set) => Some(strip(child, value, set, false).unwrap_or(Value::Null)),
        None => Some(value.clone()),
    };
    match value {
        Value::Object(map) if at_root || !is_leaf_map(structure) => {
            let kept: Map<String, Value> = map
                .iter()
                .filter_map(|(k, v)| Some((k.clone(), keep(gone.child(&field_edge(k)), structure.child(k), v)?)))
                .collect();
            (!kept.is_empty() || map.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(items) if structure.elements() != Elements::Atomic => {
            let elements = structure.elements();
            let kept: Vec<Value> = edges(structure, &elements, items)
                .into_iter()
                .filter_map(|(edge, item)| keep(gone.child(&edge), structure.element(), item))
                .collect();
            (!kept.is_empty() || items.is_empty()).then_some(Value::Array(kept))
        }
        _ => Some(value.clone()),
    }
}
