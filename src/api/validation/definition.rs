//! Rules of CustomResourceDefinitions: names, versions, and schemas that say of every field what it is.
//!
//! Owns: that kind.
//! Called by: `validation`.
//! Never: looks at a rule in CEL; whoever evaluates rules does.

use serde_json::{Value, json};

use super::check::{At, Errors};
use crate::names;
use crate::status::FieldError;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
/// Groups that the Kubernetes project reviews.
const PROTECTED: [&str; 2] = ["k8s.io", "kubernetes.io"];
const APPROVAL: &str = "api-approved.kubernetes.io";

/// What a definition must be called.
pub fn name(definition: &Value) -> String {
    let spec = &definition["spec"];
    format!("{}.{}", text(&spec["names"], "plural"), text(spec, "group"))
}

pub fn create(object: &At<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    let names = spec.get("names");
    let group = spec.get("group");
    if group.text().is_empty() {
        errors.required(&group, "");
    } else {
        errors.faults(&group, names::dns1123_subdomain(group.text()));
        if !group.text().contains('.') {
            errors.invalid(&group, "should be a domain with at least one dot");
        }
    }
    errors.one_of(&spec.get("scope"), &["Cluster", "Namespaced"]);
    versions(&spec, errors);
    resource_names(&names, errors);
    per_version(&spec, errors);
    conversion(&spec, errors);
    if spec.get("preserveUnknownFields").is_true() {
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&spec.get("preserveUnknownFields"), detail);
    }
    approval(object, group.text(), errors);
}

fn approval(object: &At<'_>, group: &str, errors: &mut Errors) {
    let protected = PROTECTED.iter().any(|p| group == *p || group.ends_with(&format!(".{p}")));
    if protected && object.value["metadata"]["annotations"][APPROVAL].as_str().unwrap_or("").is_empty() {
        let detail = format!(
            "protected groups must have approval annotation {APPROVAL:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        errors.0.push(FieldError::required(format!("metadata.annotations[{APPROVAL}]"), detail));
    }
}

fn versions(spec: &At<'_>, errors: &mut Errors) {
    let list = spec.get("versions");
    let mut seen: Vec<String> = Vec::new();
    let mut repeated = false;
    for version in list.items() {
        let name = version.get("name");
        repeated |= seen.iter().any(|s| s == name.text());
        seen.push(name.text().into());
        errors.faults(&name, names::dns1035_label(name.text()));
        let schema = &version.value["schema"]["openAPIV3Schema"];
        if !schema.is_object() {
            errors.0.push(FieldError::required(format!("{}.schema.openAPIV3Schema", version.path()), ""));
        }
        if version.get("deprecationWarning").value.is_string() && !version.get("deprecated").is_true() {
            errors.invalid(&version.get("deprecationWarning"), "can only be set for deprecated versions");
        }
    }
    let shown = || as_go_prints(list.value);
    if repeated {
        errors.invalid_shown(&list, shown(), "must contain unique version names");
    }
    let stored = list.items().filter(|v| v.get("storage").is_true()).count();
    if stored != 1 {
        errors.invalid_shown(&list, shown(), "must have exactly one version marked as storage version");
    }
}

/// The versions as upstream's internal type writes them: what all have in common stands elsewhere there.
fn as_go_prints(versions: &Value) -> String {
    let Some(list) = versions.as_array() else { return "null".into() };
    let one = |v: &Value| {
        let flag = |field: &str| v[field] == true;
        format!(
            r#"{{"Name":{},"Served":{},"Storage":{},"Deprecated":{},"DeprecationWarning":{},"Schema":null,"Subresources":null,"AdditionalPrinterColumns":null,"SelectableFields":null}}"#,
            v["name"],
            flag("served"),
            flag("storage"),
            flag("deprecated"),
            v["deprecationWarning"]
        )
    };
    format!("[{}]", list.iter().map(one).collect::<Vec<_>>().join(","))
}

fn resource_names(at: &At<'_>, errors: &mut Errors) {
    let label = |errors: &mut Errors, at: &At<'_>, text: &str, prefix: &str| {
        for fault in names::dns1035_label(text) {
            errors.invalid(at, format!("{prefix}{fault}"));
        }
    };
    for field in ["plural", "singular"] {
        let name = at.get(field);
        if name.text().is_empty() {
            errors.required(&name, "");
        } else {
            label(errors, &name, name.text(), "");
        }
    }
    for field in ["kind", "listKind"] {
        let name = at.get(field);
        if name.text().is_empty() {
            errors.required(&name, "");
        } else {
            label(errors, &name, &name.text().to_lowercase(), "may have mixed case, but should otherwise match: ");
        }
    }
    at.get("shortNames").items().for_each(|name| label(errors, &name, name.text(), ""));
    let (kind, list_kind) = (at.get("kind"), at.get("listKind"));
    if !kind.text().is_empty() && kind.text() == list_kind.text() {
        errors.invalid(&list_kind, "kind and listKind may not be the same");
    }
    at.get("categories").items().for_each(|name| label(errors, &name, name.text(), ""));
}

/// Schemas, subresources, columns and selectable fields. What all versions have alike is one thing upstream, and errors
/// about it name the place it has there.
fn per_version(spec: &At<'_>, errors: &mut Errors) {
    let list = spec.get("versions");
    let all = list.value.as_array().map_or(&[][..], Vec::as_slice);
    let alike = |field: &str| all.windows(2).all(|pair| pair[0][field] == pair[1][field]);
    let place = |field: &str, shared: &str, own: &str, index: usize| match alike(field) {
        true => format!("spec.{shared}"),
        false => format!("spec.versions[{index}].{own}"),
    };
    let counted = |field: &str| if alike(field) { all.len().min(1) } else { all.len() };
    let found = &mut errors.0;
    for (index, version) in all.iter().enumerate().take(counted("schema")) {
        let root = &version["schema"]["openAPIV3Schema"];
        if root.is_object() {
            let path = place("schema", "validation.openAPIV3Schema", "schema.openAPIV3Schema", index);
            schema_root(root, &path, found);
        }
    }
    for (index, version) in all.iter().enumerate().take(counted("subresources")) {
        let path = place("subresources", "subresources", "subresources", index);
        scale(&version["subresources"]["scale"], &format!("{path}.scale"), found);
    }
    for (index, version) in all.iter().enumerate().take(counted("additionalPrinterColumns")) {
        let path = place("additionalPrinterColumns", "additionalPrinterColumns", "additionalPrinterColumns", index);
        columns(&version["additionalPrinterColumns"], &path, found);
    }
    for (index, version) in all.iter().enumerate().take(counted("selectableFields")) {
        let path = place("selectableFields", "selectableFields", "selectableFields", index);
        selectable(&version["selectableFields"], &version["schema"]["openAPIV3Schema"], &path, found);
    }
}

fn text<'a>(tree: &'a Value, field: &str) -> &'a str {
    tree[field].as_str().unwrap_or("")
}

fn items(tree: &Value) -> impl Iterator<Item = (usize, &Value)> {
    tree.as_array().into_iter().flatten().enumerate()
}

fn scale(scale: &Value, path: &str, found: &mut Vec<FieldError>) {
    if !scale.is_object() {
        return;
    }
    let mut check = |field: &str, below: &[&str], required: bool| {
        let (at, value) = (format!("{path}.{field}"), text(scale, field));
        if value.is_empty() {
            if required {
                found.push(FieldError::required(at, ""));
            }
        } else if !value.starts_with('.') {
            found.push(FieldError::invalid(at, &value.into(), "must be a simple json path starting with ."));
        } else if !below.iter().any(|b| value.starts_with(&format!("{b}."))) {
            let detail = format!("should be a json path under {}", below.join(" or "));
            found.push(FieldError::invalid(at, &value.into(), detail));
        }
    };
    check("specReplicasPath", &[".spec"], true);
    check("statusReplicasPath", &[".status"], true);
    check("labelSelectorPath", &[".spec", ".status"], false);
}

fn columns(columns: &Value, path: &str, found: &mut Vec<FieldError>) {
    for (index, column) in items(columns) {
        let at = |field: &str| format!("{path}[{index}].{field}");
        let (name, kind, format, json_path) =
            (text(column, "name"), text(column, "type"), text(column, "format"), text(column, "jsonPath"));
        if name.is_empty() {
            found.push(FieldError::required(at("name"), ""));
        }
        let one_of = |values: &[&str]| format!("must be one of {}", values.join(","));
        if kind.is_empty() {
            found.push(FieldError::required(at("type"), one_of(&COLUMN_TYPES)));
        } else if !COLUMN_TYPES.contains(&kind) {
            found.push(FieldError::invalid(at("type"), &kind.into(), one_of(&COLUMN_TYPES)));
        }
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            found.push(FieldError::invalid(at("format"), &format.into(), one_of(&COLUMN_FORMATS)));
        }
        if json_path.is_empty() {
            found.push(FieldError::required(at("JSONPath"), ""));
        } else if !json_path.starts_with('.') {
            let detail = "must be a simple json path starting with .";
            found.push(FieldError::invalid(at("JSONPath"), &json_path.into(), detail));
        }
    }
}

fn selectable(fields: &Value, schema: &Value, path: &str, found: &mut Vec<FieldError>) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, field) in items(fields) {
        let (at, json_path) = (format!("{path}[{index}].jsonPath"), text(field, "jsonPath"));
        if json_path.is_empty() {
            found.push(FieldError::required(at, ""));
            continue;
        }
        let invalid =
            |why: String| FieldError::invalid(at.clone(), &json_path.into(), format!("is an invalid path: {why}"));
        let Some(steps) = json_path.strip_prefix('.') else {
            found.push(invalid(format!("expected [ or . but got: {json_path}")));
            continue;
        };
        let leaf = steps.split('.').try_fold(schema, |at, step| at["properties"].get(step));
        match leaf {
            None => found.push(invalid("does not refer to a valid field".into())),
            Some(leaf) if !matches!(text(leaf, "type"), "string" | "boolean" | "integer") => {
                found.push(invalid("must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.".into()));
            }
            Some(_) if seen.contains(&json_path) => found.push(FieldError::duplicate(at, &json_path.into())),
            Some(_) => seen.push(json_path),
        }
    }
}

fn conversion(spec: &At<'_>, errors: &mut Errors) {
    let conversion = spec.get("conversion");
    if conversion.is_null() {
        return;
    }
    let strategy = conversion.get("strategy");
    let webhook = conversion.get("webhook");
    let found = &mut errors.0;
    match strategy.text() {
        "None" => {
            if !webhook.is_null() {
                let at = "spec.conversion.webhookClientConfig";
                found.push(FieldError::forbidden(at, "should not be set when strategy is not set to Webhook"));
            }
        }
        "Webhook" => {
            if spec.get("preserveUnknownFields").is_true() {
                let detail = "must be None if spec.preserveUnknownFields is true";
                found.push(FieldError::invalid("spec.conversion.strategy", &"Webhook".into(), detail));
            }
            let (config, at) = (&webhook.value["clientConfig"], "spec.conversion.webhookClientConfig");
            if !config.is_object() {
                found.push(FieldError::required(at, "required when strategy is set to Webhook"));
            } else if config["url"].is_string() == config["service"].is_object() {
                found.push(FieldError::required(at, "exactly one of url or service is required"));
            }
            let (versions, at) =
                (&webhook.value["conversionReviewVersions"], "spec.conversion.conversionReviewVersions");
            let mut listed = versions.as_array().into_iter().flatten();
            if versions.as_array().is_none_or(Vec::is_empty) {
                found.push(FieldError::required(at, ""));
            } else if !listed.any(|v| v == "v1" || v == "v1beta1") {
                found.push(FieldError::invalid(at, versions, "must include at least one of v1, v1beta1"));
            }
        }
        other => {
            let value = json!(other);
            found.push(FieldError::not_supported("spec.conversion.strategy", &value, &["None", "Webhook"]));
        }
    }
}

/// Where a schema stands, for what it must say of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
    /// Inside `allOf`, `anyOf`, `oneOf` or `not`: it judges values and describes no field.
    Judging,
}

fn schema_root(root: &Value, path: &str, found: &mut Vec<FieldError>) {
    schema(root, path, Place::Root, found);
    let property = |name: &str| &root["properties"][name];
    for name in ["apiVersion", "kind"] {
        let kind = text(property(name), "type");
        if property(name).is_object() && kind != "string" {
            found.push(FieldError::invalid(format!("{path}.properties[{name}].type"), &kind.into(), "must be string"));
        }
    }
    let metadata = property("metadata");
    let own = metadata["properties"].as_object().into_iter().flatten();
    if own.into_iter().any(|(name, _)| !matches!(name.as_str(), "name" | "generateName")) {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        found.push(FieldError::forbidden(format!("{path}.properties[metadata]"), detail));
    }
}

fn is_true(schema: &Value, field: &str) -> bool {
    schema[field] == true
}

fn schema(schema_: &Value, path: &str, place: Place, found: &mut Vec<FieldError>) {
    if !schema_.is_object() {
        return;
    }
    if !text(schema_, "$ref").is_empty() {
        return found.push(FieldError::forbidden(format!("{path}.$ref"), "$ref is not supported"));
    }
    kind_of(schema_, path, place, found);
    values(schema_, path, found);
    list(schema_, path, found);
    let below = if place == Place::Judging { Place::Judging } else { Place::Field };
    for (name, property) in schema_["properties"].as_object().into_iter().flatten() {
        // The types of an object's own metadata are known.
        if place == Place::Root && name == "metadata" {
            continue;
        }
        schema(property, &format!("{path}.properties[{name}]"), below, found);
    }
    schema(&schema_["additionalProperties"], &format!("{path}.additionalProperties"), below, found);
    let item = if place == Place::Judging { Place::Judging } else { Place::Item };
    schema(&schema_["items"], &format!("{path}.items"), item, found);
    for junctor in ["allOf", "anyOf", "oneOf"] {
        for (index, one) in items(&schema_[junctor]) {
            schema(one, &format!("{path}.{junctor}[{index}]"), Place::Judging, found);
        }
    }
    schema(&schema_["not"], &format!("{path}.not"), Place::Judging, found);
}

fn kind_of(schema: &Value, path: &str, place: Place, found: &mut Vec<FieldError>) {
    let kind = text(schema, "type");
    let free = is_true(schema, "x-kubernetes-int-or-string") || is_true(schema, "x-kubernetes-preserve-unknown-fields");
    let at = format!("{path}.type");
    match (place, kind) {
        (Place::Root, "") => found.push(FieldError::required(at, "must not be empty at the root")),
        (Place::Root, kind) if kind != "object" => {
            found.push(FieldError::invalid(at, &kind.into(), "must be object at the root"));
        }
        (Place::Field, "") if !free => {
            found.push(FieldError::required(at, "must not be empty for specified object fields"));
        }
        (Place::Item, "") if !free => {
            found.push(FieldError::required(at, "must not be empty for specified array items"));
        }
        (_, kind) if !kind.is_empty() && !TYPES.contains(&kind) => {
            found.push(FieldError::not_supported(at, &kind.into(), &TYPES));
        }
        _ => {}
    }
    if kind == "array" && !schema["items"].is_object() && place != Place::Judging {
        found.push(FieldError::required(format!("{path}.items"), "must be specified"));
    }
    let has_properties = schema["properties"].as_object().is_some_and(|p| !p.is_empty());
    if has_properties && schema["additionalProperties"].is_object() {
        let detail = "additionalProperties and properties are mutual exclusive";
        found.push(FieldError::forbidden(format!("{path}.additionalProperties"), detail));
    }
    let preserves = is_true(schema, "x-kubernetes-preserve-unknown-fields");
    if is_true(schema, "x-kubernetes-embedded-resource") && !has_properties && !preserves {
        let detail =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        found.push(FieldError::required(format!("{path}.properties"), detail));
    }
}

fn values(schema: &Value, path: &str, found: &mut Vec<FieldError>) {
    if is_true(schema, "uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        found.push(FieldError::forbidden(format!("{path}.uniqueItems"), detail));
    }
    let pattern = text(schema, "pattern");
    // A pattern that is only too large for this engine is sound.
    if let Err(error @ regex::Error::Syntax(_)) = regex::Regex::new(pattern) {
        let detail = format!("must be a valid regular expression, but isn't: {error}");
        found.push(FieldError::invalid(format!("{path}.pattern"), &pattern.into(), detail));
    }
}

fn list(schema: &Value, path: &str, found: &mut Vec<FieldError>) {
    let kind = text(schema, "x-kubernetes-list-type");
    let keys = schema["x-kubernetes-list-map-keys"].as_array().map_or(&[][..], Vec::as_slice);
    let at = format!("{path}.x-kubernetes-list-type");
    if !matches!(kind, "" | "atomic" | "set" | "map") {
        found.push(FieldError::not_supported(at, &kind.into(), &["atomic", "map", "set"]));
        return;
    }
    if kind != "map" {
        return;
    }
    if keys.is_empty() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        found.push(FieldError::required(format!("{path}.x-kubernetes-list-map-keys"), detail));
    }
    let item = text(&schema["items"], "type");
    if item != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        found.push(FieldError::invalid(format!("{path}.items.type"), &item.into(), detail));
        return;
    }
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or("");
        if !schema["items"]["properties"][name].is_object() {
            let at = format!("{path}.x-kubernetes-list-map-keys[{index}]");
            found.push(FieldError::invalid(at, key, "entries must all be names of item properties"));
        }
    }
}
