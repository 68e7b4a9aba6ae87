//! What a definition's names come to: rows of the catalog, and conflicts with names that are taken.
//!
//! Owns: both, as functions of definitions.
//! Called by: `definitions`.
//! Never: writes a condition.

use minik_api::registry::{Dependents, Generation, Resource, Scope, StatusWrites, Subresource, Verbs};
use serde_json::Value;

use super::Custom;
use super::conversion::Converter;
use crate::aggregation::order;
use crate::catalog::{Served, Source};

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or("")
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The names of a definition that others must not have: plural, singular, short names; and kind, list kind.
fn taken(names: &Value) -> (Vec<&str>, Vec<&str>) {
    let mut resources = vec![text(names, "plural"), text(names, "singular")];
    resources.extend(texts(&names["shortNames"]));
    let mut kinds = vec![text(names, "kind"), text(names, "listKind")];
    for list in [&mut resources, &mut kinds] {
        list.retain(|n| !n.is_empty());
    }
    (resources, kinds)
}

/// Reason and message of the first name of `definition` that another accepted definition of its group has.
pub fn conflicts<'a>(definition: &Value, others: impl Iterator<Item = &'a Value>) -> Option<(&'static str, String)> {
    let (resources, kinds) = taken(&definition["spec"]["names"]);
    let reason = |name: &str| {
        let names = &definition["spec"]["names"];
        if name == text(names, "plural") {
            "PluralConflict"
        } else if name == text(names, "singular") {
            "SingularConflict"
        } else if name == text(names, "kind") {
            "KindConflict"
        } else if name == text(names, "listKind") {
            "ListKindConflict"
        } else {
            "ShortNamesConflict"
        }
    };
    for other in others {
        let accepted = taken(&other["status"]["acceptedNames"]);
        let mine = resources.iter().find(|n| accepted.0.contains(n)).or(kinds.iter().find(|n| accepted.1.contains(n)));
        if let Some(name) = mine {
            return Some((reason(name), format!("{name:?} is already in use")));
        }
    }
    None
}

/// One row a served version, the highest version first, as discovery orders them.
pub fn rows(definition: &Value) -> Vec<Served> {
    let spec = &definition["spec"];
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let stored = versions.iter().find(|v| v["storage"] == true).map_or("", |v| text(v, "name"));
    let mut served: Vec<&Value> = versions.iter().filter(|v| v["served"] == true).collect();
    served.sort_by_key(|version| std::cmp::Reverse(order::rank(text(version, "name"))));
    served.into_iter().map(|version| row(spec, version, stored)).collect()
}

fn owned(list: &Value) -> Vec<minik_api::registry::Text> {
    texts(list).map(|t| t.to_string().into()).collect()
}

fn row(spec: &Value, version: &Value, stored: &str) -> Served {
    let names = &spec["names"];
    let group = text(spec, "group").to_string();
    let kind = text(names, "kind").to_string();
    let list_kind = Some(text(names, "listKind")).filter(|k| !k.is_empty()).map_or(format!("{kind}List"), String::from);
    let subresources = &version["subresources"];
    let has_status = subresources.get("status").is_some_and(|s| !s.is_null());
    let scale = subresources.get("scale").filter(|s| s.is_object());
    let mut row = Resource {
        group: group.clone().into(),
        version: text(version, "name").to_string().into(),
        plural: text(names, "plural").to_string().into(),
        singular: Some(text(names, "singular"))
            .filter(|s| !s.is_empty())
            .map_or(kind.to_lowercase(), String::from)
            .into(),
        kind: kind.into(),
        list_kind: list_kind.into(),
        short_names: owned(&names["shortNames"]),
        categories: owned(&names["categories"]),
        scope: if text(spec, "scope") == "Namespaced" { Scope::Namespaced } else { Scope::Cluster },
        verbs: Verbs::EVERYTHING,
        subresources: Vec::new(),
        stored_group: group.into(),
        stored_version: stored.to_string().into(),
        hashed_version: stored.to_string().into(),
        selectable_fields: version["selectableFields"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|f| f["jsonPath"].as_str())
            .map(|p| p.trim_start_matches('.').to_string().into())
            .collect(),
        status: if has_status { StatusWrites::Separate } else { StatusWrites::WithTheObject },
        generation: Generation { starts_at_one: true, counts_changes: true },
        create_on_update: false,
        unconditional_update: false,
        status_keeps_metadata: true,
        status_has_no_table: false,
        dependents: Dependents::Delete,
        returns_deleted: false,
    };
    let verbs = Verbs::of(&[minik_api::Verb::Get, minik_api::Verb::Patch, minik_api::Verb::Update]);
    if has_status {
        row.subresources.push(Subresource { name: "status".into(), kind: row.kind(), verbs });
    }
    if scale.is_some() {
        let kind = minik_api::registry::GroupVersionKind {
            group: "autoscaling".into(),
            version: "v1".into(),
            kind: "Scale".into(),
        };
        row.subresources.push(Subresource { name: "scale".into(), kind, verbs });
    }
    let path = |s: &Value, field: &str| text(s, field).to_string();
    let deprecation = (version["deprecated"] == true).then(|| match version["deprecationWarning"].as_str() {
        Some(words) => words.to_string(),
        None => format!("{}/{} {} is deprecated", row.group, row.version, row.kind),
    });
    let custom = Custom {
        merging: super::merging_schema(&version["schema"]["openAPIV3Schema"]),
        schema: version["schema"]["openAPIV3Schema"].clone(),
        rules: std::sync::OnceLock::new(),
        columns: version["additionalPrinterColumns"].clone(),
        scale: scale
            .map(|s| (path(s, "specReplicasPath"), path(s, "statusReplicasPath"), path(s, "labelSelectorPath"))),
        conversion: Converter::of(&spec["conversion"]),
        preserve_unknown: spec["preserveUnknownFields"] == true,
        deprecation,
    };
    Served::new(row, Source::Custom(Box::new(custom)))
}
