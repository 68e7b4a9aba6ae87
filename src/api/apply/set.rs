//! Sets of fields, as `managedFields` holds them.
//!
//! Owns: the tree behind `fieldsV1`, its operations, and how a path is spelt in a conflict.
//! Called by: the other files of `apply`.
//! Never: looks at an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::structure::Structure;

/// A tree whose edges are spelt as in `fieldsV1`: `f:name`, `k:{"name":"c"}`, `v:"x"`, `i:0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Whether this very place is in the set, and not only places below.
    member: bool,
    children: BTreeMap<String, Set>,
}

/// The place itself, among those below it.
pub const MEMBER: &str = ".";

pub fn field_edge(name: &str) -> String {
    // There is one for each field of each object that is written, and formatting costs several times as much.
    ["f:", name].concat()
}
pub fn key_edge(keys: &BTreeMap<&str, Value>) -> String {
    let map: Map<String, Value> = keys.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
    format!("k:{}", Value::Object(map))
}
pub fn value_edge(value: &Value) -> String {
    format!("v:{value}")
}
pub fn index_edge(index: usize) -> String {
    format!("i:{index}")
}

impl Set {
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
    pub fn is_member(&self) -> bool {
        self.member
    }
    pub fn child(&self, edge: &str) -> Option<&Set> {
        self.children.get(edge)
    }

    pub fn insert(&mut self, path: &[String]) {
        self.at(path).member = true;
    }

    /// Puts a whole set in a place that had none.
    pub fn put(&mut self, edge: String, below: Set) {
        self.children.insert(edge, below);
    }

    fn at(&mut self, path: &[String]) -> &mut Set {
        let mut at = self;
        for edge in path {
            if !at.children.contains_key(edge) {
                at.children.insert(edge.clone(), Set::default());
            }
            at = at.children.get_mut(edge).expect("it was just put there");
        }
        at
    }

    /// This very place with these below it.
    pub fn place(children: impl IntoIterator<Item = (String, Set)>) -> Set {
        Set { member: true, children: children.into_iter().collect() }
    }

    fn without_empty(mut self) -> Set {
        self.children.retain(|_, child| !child.is_empty());
        self
    }

    pub fn union(&self, other: &Set) -> Set {
        let mut result = self.clone();
        result.absorb(other);
        result
    }
    fn absorb(&mut self, other: &Set) {
        self.member |= other.member;
        for (edge, child) in &other.children {
            self.children.entry(edge.clone()).or_default().absorb(child);
        }
    }
    /// As `union`, of a set that is not needed any more.
    pub fn absorb_all(&mut self, other: Set) {
        self.member |= other.member;
        if self.children.is_empty() {
            self.children = other.children;
            return;
        }
        for (edge, child) in other.children {
            self.children.entry(edge).or_default().absorb_all(child);
        }
    }

    /// Takes everything below these fields away.
    pub fn drop_fields(&mut self, names: &[&str]) {
        if self.children.is_empty() {
            return;
        }
        for name in names {
            self.children.remove(&field_edge(name));
        }
    }

    /// As `difference`, in place.
    pub fn subtract(&mut self, other: &Set) {
        self.member &= !other.member;
        for (edge, theirs) in &other.children {
            if let Some(mine) = self.children.get_mut(edge) {
                mine.subtract(theirs);
                if mine.is_empty() {
                    self.children.remove(edge);
                }
            }
        }
    }

    pub fn intersection(&self, other: &Set) -> Set {
        let both = |(edge, child): (&String, &Set)| Some((edge.clone(), child.intersection(other.children.get(edge)?)));
        Set { member: self.member && other.member, children: self.children.iter().filter_map(both).collect() }
            .without_empty()
    }

    /// The places of this set that the other does not have; places below one of the other's stay.
    pub fn difference(&self, other: &Set) -> Set {
        let rest = |(edge, child): (&String, &Set)| {
            (edge.clone(), other.children.get(edge).map_or_else(|| child.clone(), |o| child.difference(o)))
        };
        Set { member: self.member && !other.member, children: self.children.iter().map(rest).collect() }.without_empty()
    }

    /// As `difference`, but everything below a place of the other set goes too.
    pub fn without_trees(&self, other: &Set) -> Set {
        let rest = |(edge, child): (&String, &Set)| match other.children.get(edge) {
            Some(o) if o.member => None,
            Some(o) => Some((edge.clone(), child.without_trees(o))),
            None => Some((edge.clone(), child.clone())),
        };
        Set { member: self.member, children: self.children.iter().filter_map(rest).collect() }.without_empty()
    }

    /// Adds the fields of structs on the way to each place: who owns `a.b` has a say in `a`. Maps and list elements
    /// are owned only when somebody said so.
    pub fn with_named_fields(&self, structure: Structure<'_>) -> Set {
        let mut result = Set { member: self.member, children: BTreeMap::new() };
        for (edge, child) in &self.children {
            let mut below = match edge.strip_prefix("f:") {
                Some(name) => child.with_named_fields(structure.child(name)),
                None => child.with_named_fields(structure.element()),
            };
            if edge.strip_prefix("f:").is_some_and(|name| structure.names_field(name)) {
                below.member = true;
            }
            result.children.insert(edge.clone(), below);
        }
        result
    }

    /// Every place, parents' own members before those of their children.
    pub fn paths(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.collect("", &mut all);
        all
    }
    fn collect(&self, prefix: &str, all: &mut Vec<String>) {
        for (edge, child) in self.children.iter().filter(|(_, c)| c.member) {
            let _ = child;
            all.push(format!("{prefix}{}", spell(edge)));
        }
        for (edge, child) in &self.children {
            child.collect(&format!("{prefix}{}", spell(edge)), all);
        }
    }

    pub fn into_json(self) -> Value {
        let mut map = Map::new();
        for (edge, child) in self.children {
            let (member, inner) = (child.member, !child.children.is_empty());
            let mut below = child.into_json();
            if member && inner {
                below[MEMBER] = Value::Object(Map::new());
            }
            map.insert(edge, below);
        }
        Value::Object(map)
    }

    /// `None` when the tree is no field set.
    pub fn from_json(fields: &Value) -> Option<Set> {
        let mut set = Set::default();
        for (edge, below) in fields.as_object()? {
            if edge == MEMBER {
                continue;
            }
            let map = below.as_object()?;
            let mut child = Set::from_json(below)?;
            child.member = map.is_empty() || map.contains_key(MEMBER);
            set.children.insert(edge.clone(), child);
        }
        Some(set)
    }
}

/// One step of a path as conflicts print it: `.spec`, `[name="c"]`, `[="x"]`, `[0]`.
fn spell(edge: &str) -> String {
    let (kind, rest) = edge.split_at(edge.len().min(2));
    match kind {
        "f:" => format!(".{rest}"),
        "k:" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let pairs: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", pairs.join(","))
        }
        "v:" => format!("[={rest}]"),
        _ => format!("[{rest}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_set_survives_its_json_and_prints_paths() {
        let fields =
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}}, "f:replicas": {}}});
        let set = Set::from_json(&fields).unwrap();
        assert_eq!(set.clone().into_json(), fields);
        assert_eq!(
            set.paths(),
            [".spec.replicas", ".spec.containers[name=\"c\"]", ".spec.containers[name=\"c\"].image"]
        );
    }

    #[test]
    fn difference_keeps_what_lies_below() {
        let set = |v| Set::from_json(&v).unwrap();
        let a = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        let b = set(json!({"f:a": {}, "f:c": {}}));
        assert_eq!(a.difference(&b).into_json(), json!({"f:a": {"f:b": {}}}));
        assert_eq!(a.without_trees(&b).into_json(), json!({}));
        assert_eq!(a.intersection(&b).into_json(), json!({"f:a": {}, "f:c": {}}));
    }
}
