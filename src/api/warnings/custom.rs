//! Warnings about definitions and about the objects they define.
//!
//! Owns: formats and lists of schemas that mean nothing, finalizers without a domain.
//! Called by: `warnings`.
//! Never: checks an object against its schema.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Warnings;
use crate::names;
use crate::object;
use crate::validation::check::At;

/// Formats of strings, without the dashes, with which they may be written too.
const FORMATS: [&str; 26] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];
const STANDARD_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

/// What an update leaves as it was is not worth a word.
pub(super) fn definition(definition: &At<'_>, old: Option<&Value>, warnings: &mut Warnings) {
    let before = old.map(oddities).unwrap_or_default();
    warnings.0.extend(oddities(definition.value).into_iter().filter(|text| !before.contains(text)));
}

fn oddities(definition: &Value) -> Vec<String> {
    let (mut formats, mut sets) = (Vec::new(), BTreeSet::new());
    for version in definition["spec"]["versions"].as_array().into_iter().flatten() {
        each_schema(&version["schema"]["openAPIV3Schema"], &mut |schema| {
            formats.extend(unknown_format(schema).map(|format| format!("unrecognized format {format:?}")));
            sets.extend(set_of_trees(schema));
        });
    }
    formats.into_iter().chain(sets).collect()
}

/// A schema and those in it, in the order upstream visits them.
fn each_schema<'a>(schema: &'a Value, visit: &mut impl FnMut(&'a Value)) {
    if !schema.is_object() {
        return;
    }
    visit(schema);
    each_schema(&schema["items"], visit);
    for list in ["allOf", "anyOf", "oneOf"] {
        schema[list].as_array().into_iter().flatten().for_each(|part| each_schema(part, visit));
    }
    each_schema(&schema["not"], visit);
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties.for_each(|(_, part)| each_schema(part, visit));
    each_schema(&schema["additionalProperties"], visit);
}

fn unknown_format(schema: &Value) -> Option<&str> {
    let format = schema["format"].as_str().filter(|format| !format.is_empty())?;
    let known = match schema["type"].as_str().unwrap_or("") {
        "" | "string" => FORMATS.contains(&&*format.replace('-', "")),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    };
    (!known).then_some(format)
}

fn set_of_trees(schema: &Value) -> Option<String> {
    let items = schema["items"]["type"].as_str().filter(|kind| matches!(*kind, "object" | "array"))?;
    (schema["x-kubernetes-list-type"] == "set").then(|| {
        format!(
            "x-kubernetes-list-type: set for items of type {items:?} is not supported by server-side apply or CEL \
             validation rules"
        )
    })
}

/// Those that were not there before.
pub(super) fn finalizers(object: &At<'_>, old: Option<&Value>, warnings: &mut Warnings) {
    let before: BTreeSet<&str> = old.into_iter().flat_map(object::finalizers).collect();
    let now: BTreeSet<&str> = object::finalizers(object.value).collect();
    for finalizer in now.difference(&before) {
        let mut texts = names::qualified_name(finalizer);
        if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(finalizer) {
            let with_path = if finalizer.contains('.') { " including a path (/)" } else { "" };
            texts.push(format!(
                "prefer a domain-qualified finalizer name{with_path} to avoid accidental conflicts with other \
                 finalizer writers"
            ));
        }
        texts.iter().for_each(|text| warnings.say(format!("metadata.finalizers: {finalizer:?}: {text}")));
    }
}
