//! `metadata.managedFields`: who said what, read and written.
//!
//! Owns: entries, their order, and how many of them may come from updates.
//! Called by: `apply`.
//! Never: compares objects.

use serde_json::{Map, Value};

use super::set::Set;
use super::{Operation, Write};

/// More update entries than these are folded into one.
const UPDATERS_MAX: usize = 10;
const FOLDED_NAME: &str = "ancient-changes";

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
    pub time: Option<String>,
    pub fields: Set,
}

impl Entry {
    /// Whether both stand for the same manager: an applier is itself in every version.
    pub fn is_same_manager(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// As a conflict names it: `"kubectl-edit" using apps/v1`.
    pub fn title(&self) -> String {
        let mut title = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            title.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            title.push_str(&format!(" using {}", self.api_version));
        }
        title
    }

    fn decode(entry: &Value) -> Option<Entry> {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_string();
        let operation = match entry["operation"].as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let fields = if entry["fieldsV1"].is_null() { Set::default() } else { Set::from_json(&entry["fieldsV1"])? };
        let (manager, api_version, subresource) = (text("manager"), text("apiVersion"), text("subresource"));
        let time = entry["time"].as_str().map(str::to_string);
        Some(Entry { manager, operation, api_version, subresource, time, fields })
    }

    /// An entry of such an update.
    pub fn of_update(write: &Write<'_>, fields: Set) -> Entry {
        Entry {
            manager: write.manager_name().into(),
            operation: Operation::Update,
            api_version: write.api_version.into(),
            subresource: write.subresource.into(),
            time: Some(write.now.into()),
            fields,
        }
    }

    fn encode(mut self) -> Value {
        let fields = std::mem::take(&mut self.fields);
        self.encode_with(fields.into_json())
    }

    fn encode_with(self, fields: Value) -> Value {
        let mut entry = Map::new();
        let mut put = |name: &str, value: Value| entry.insert(name.into(), value);
        put("manager", self.manager.into());
        put("operation", self.operation.as_str().into());
        put("apiVersion", self.api_version.into());
        put("fieldsType", "FieldsV1".into());
        put("fieldsV1", fields);
        if let Some(time) = self.time {
            put("time", time.into());
        }
        if !self.subresource.is_empty() {
            put("subresource", self.subresource.into());
        }
        Value::Object(entry)
    }
}

/// The only entry of an object that is new: these are the fields as the entry has them.
pub fn write_first(object: &mut Value, write: &Write<'_>, fields: Map<String, Value>) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    let entry = Entry::of_update(write, Set::default()).encode_with(Value::Object(fields));
    metadata.insert("managedFields".into(), Value::Array(vec![entry]));
}

/// The entries of an object, of each manager its last; `None` when one of them cannot be read.
pub fn decode(object: &Value) -> Option<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
        let entry = Entry::decode(entry)?;
        match entries.iter_mut().find(|e| e.is_same_manager(&entry)) {
            Some(former) => *former = entry,
            None => entries.push(entry),
        }
    }
    Some(entries)
}

/// A client clears all entries by sending none, or one empty entry.
pub fn is_reset(object: &Value) -> bool {
    match object["metadata"]["managedFields"].as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(serde_json::Map::is_empty) || one.is_null(),
        _ => false,
    }
}

pub fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|e| !e.fields.is_empty());
    entries.sort_by(|a, b| {
        let key = |e: &Entry| {
            (
                e.operation.as_str(),
                e.time.clone().unwrap_or_default(),
                e.manager.clone(),
                e.api_version.clone(),
                e.subresource.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".into(), entries.into_iter().map(Entry::encode).collect());
    }
}

/// The entries that were there, as they were.
pub fn keep(object: &mut Value, old: Option<&Value>) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    match old.and_then(|old| old["metadata"].get("managedFields")) {
        Some(entries) => metadata.insert("managedFields".into(), entries.clone()),
        None => metadata.remove("managedFields"),
    };
}

/// Folds the oldest update entries of a version into one when there are too many.
pub fn fold(entries: Vec<Entry>) -> Vec<Entry> {
    let (mut updaters, mut kept): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|e| e.operation == Operation::Update);
    updaters.sort_by(|a, b| (&a.time, &a.manager).cmp(&(&b.time, &b.manager)));
    let mut excess = updaters.len().saturating_sub(UPDATERS_MAX);
    let mut folded: Vec<Entry> = Vec::new();
    for entry in updaters {
        let bucket = folded.iter_mut().find(|b| b.api_version == entry.api_version);
        match bucket {
            Some(bucket) if excess > 0 => {
                excess -= 1;
                bucket.manager = FOLDED_NAME.into();
                bucket.subresource = String::new();
                bucket.fields = bucket.fields.union(&entry.fields);
                bucket.time = entry.time;
            }
            // The first of its version begins a bucket, which keeps its own name until something joins it.
            None if excess > 0 => folded.push(entry),
            _ => kept.push(entry),
        }
    }
    kept.extend(folded);
    kept
}
