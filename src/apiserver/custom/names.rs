//! What a definition's names come to: rows of the catalog, and conflicts with names that are taken.
//!
//! Owns: both, as functions of definitions.
//! Called by: `definitions`.
//! Never: writes a condition.

use std::collections::BTreeSet;

use minik_api::registry::{Dependents, Generation, Resource, Scope, StatusWrites, Subresource, Verbs};
use serde_json::{Value, json};

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

/// The names a definition may have, and what keeps it from having those it asks for.
pub struct Naming {
    pub accepted: Value,
    pub conflict: Option<(&'static str, String)>,
}

/// Names that a group's definitions have: of resources, and of kinds.
fn taken<'a>(group: impl Iterator<Item = &'a Value>) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
    let (mut resources, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for definition in group {
        let names = &definition["status"]["acceptedNames"];
        resources.extend([text(names, "plural"), text(names, "singular")]);
        resources.extend(texts(&names["shortNames"]));
        kinds.extend([text(names, "kind"), text(names, "listKind")]);
    }
    (resources, kinds)
}

/// What of the names it asks for `definition` gets; `group` is every definition of its group, itself included. A name
/// that another has stays what it was, and of several conflicts the last is told.
pub fn naming<'a>(definition: &Value, group: impl Iterator<Item = &'a Value>) -> Naming {
    let (asked, before) = (&definition["spec"]["names"], &definition["status"]["acceptedNames"]);
    let (resources, kinds) = taken(group);
    let mut naming = Naming { accepted: before.clone(), conflict: None };
    if !naming.accepted.is_object() {
        naming.accepted = json!({});
    }
    let in_use = |name: &str| format!("{name:?} is already in use");
    let one = |field: &str, taken: &BTreeSet<&str>, reason: &'static str, naming: &mut Naming| {
        let name = text(asked, field);
        if name != text(before, field) && taken.contains(name) {
            naming.conflict = Some((reason, in_use(name)));
        } else {
            naming.accepted[field] = asked[field].clone();
        }
    };
    one("plural", &resources, "PluralConflict", &mut naming);
    one("singular", &resources, "SingularConflict", &mut naming);
    let own: Vec<&str> = texts(&before["shortNames"]).collect();
    let short: Vec<String> =
        texts(&asked["shortNames"]).filter(|n| !own.contains(n) && resources.contains(n)).map(in_use).collect();
    match &short[..] {
        [] => copy("shortNames", asked, &mut naming.accepted),
        [one] => naming.conflict = Some(("ShortNamesConflict", one.clone())),
        many => naming.conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    }
    one("kind", &kinds, "KindConflict", &mut naming);
    one("listKind", &kinds, "ListKindConflict", &mut naming);
    copy("categories", asked, &mut naming.accepted);
    naming
}

fn copy(field: &str, from: &Value, to: &mut Value) {
    let Some(fields) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => drop(fields.insert(field.into(), value.clone())),
        None => drop(fields.remove(field)),
    }
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
