//! Rules of CustomResourceDefinitions: names, versions and what else is there once or for each of them.
//!
//! Owns: that kind.
//! Called by: `validation`.
//! Never: looks at a rule in CEL; whoever evaluates rules does.

use serde_json::{Value, json};

use super::check::{At, Errors};
use super::{admission, definition_schema};
use crate::names;
use crate::object::text;
use crate::status::FieldError;

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
    } else if !names::dns1123_subdomain(group.text()).is_empty() {
        errors.invalid(&group, names::dns1123_subdomain(group.text()).join(","));
    } else if !group.text().contains('.') {
        errors.invalid(&group, "should be a domain with at least one dot");
    }
    errors.one_of(&spec.get("scope"), &["Cluster", "Namespaced"]);
    versions(&spec, errors);
    for field in ["plural", "singular", "kind", "listKind"] {
        if names.get(field).text().is_empty() {
            errors.required(&names.get(field), "");
        }
    }
    resource_names(&names, errors);
    per_version(object, errors);
    conversion(&spec, errors);
    stored_versions(object, errors);
    approval(object, group.text(), errors);
    if spec.get("preserveUnknownFields").is_true() {
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&spec.get("preserveUnknownFields"), detail);
    }
}

/// Where objects are kept never changes, nor what they are once they are served.
pub fn update(object: &At<'_>, old: &Value, errors: &mut Errors) {
    create(object, errors);
    let (spec, before) = (object.get("spec"), &old["spec"]);
    let names = spec.get("names");
    let mut conditions = old["status"]["conditions"].as_array().into_iter().flatten();
    if conditions.any(|c| c["type"] == "Established" && c["status"] == "True") {
        errors.immutable(&spec.get("scope"), &before["scope"]);
        errors.immutable(&names.get("kind"), &before["names"]["kind"]);
    }
    errors.immutable(&spec.get("group"), &before["group"]);
    errors.immutable(&names.get("plural"), &before["names"]["plural"]);
}

/// Versions that objects were stored in stay until no object is stored in them.
fn stored_versions(object: &At<'_>, errors: &mut Errors) {
    let (status, spec) = (object.get("status"), object.get("spec"));
    let stored = status.get("storedVersions");
    if stored.len() == 0 {
        return errors.invalid(&stored.showing(&Value::Null), "must have at least one stored version");
    }
    let listed = spec.get("versions");
    // A version that is listed twice is not found the second time.
    let mut left: Vec<&str> = stored.items().map(|known| known.text()).collect();
    for version in listed.items() {
        let name = version.value["name"].as_str().unwrap_or("");
        if version.get("storage").is_true() && !left.contains(&name) {
            errors.invalid(&stored, format!("must have the storage version {name}"));
        }
        left.retain(|known| *known != name);
    }
    for known in stored.items() {
        let name = known.text();
        if left.contains(&name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.invalid(&known, detail);
        }
    }
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
        if !version.value["schema"]["openAPIV3Schema"].is_object() {
            errors.0.push(FieldError::required(format!("{}.schema.openAPIV3Schema", version.path()), ""));
        }
    }
    for version in list.items() {
        let name = version.get("name");
        repeated |= seen.iter().any(|s| s == name.text());
        seen.push(name.text().into());
        let faults = names::dns1035_label(name.text());
        if !faults.is_empty() {
            errors.invalid(&name, faults.join(","));
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
        let faults = names::dns1035_label(text);
        if !faults.is_empty() {
            errors.invalid(at, format!("{prefix}{}", faults.join(",")));
        }
    };
    for field in ["plural", "singular"] {
        let name = at.get(field);
        if !name.text().is_empty() {
            label(errors, &name, name.text(), "");
        }
    }
    for field in ["kind", "listKind"] {
        let name = at.get(field);
        if !name.text().is_empty() {
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

/// The schemas of a definition with the paths that errors about them name. What all versions have alike is one thing
/// upstream.
pub fn schemas(definition: &Value) -> Vec<(String, &Value)> {
    let all = definition["spec"]["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let alike = all.windows(2).all(|pair| pair[0]["schema"] == pair[1]["schema"]);
    let counted = if alike { all.len().min(1) } else { all.len() };
    let placed = all.iter().enumerate().take(counted).map(|(index, version)| {
        let path = match alike {
            true => "spec.validation.openAPIV3Schema".to_string(),
            false => format!("spec.versions[{index}].schema.openAPIV3Schema"),
        };
        (path, &version["schema"]["openAPIV3Schema"])
    });
    placed.filter(|(_, schema)| schema.is_object()).collect()
}

/// Schemas, subresources, columns and selectable fields. What all versions have alike is one thing upstream, and errors
/// about it name the place it has there.
fn per_version(object: &At<'_>, errors: &mut Errors) {
    let spec = object.get("spec");
    let list = spec.get("versions");
    let all = list.value.as_array().map_or(&[][..], Vec::as_slice);
    let alike = |field: &str| all.windows(2).all(|pair| pair[0][field] == pair[1][field]);
    let place = |field: &str, shared: &str, own: &str, index: usize| match alike(field) {
        true => format!("spec.{shared}"),
        false => format!("spec.versions[{index}].{own}"),
    };
    let counted = |field: &str| if alike(field) { all.len().min(1) } else { all.len() };
    let found = &mut errors.0;
    for (path, schema) in schemas(object.value) {
        found.extend(definition_schema::faults(schema, &path));
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
    match strategy.text() {
        "None" => {
            if !webhook.is_null() {
                let at = "spec.conversion.webhookClientConfig";
                errors.push(FieldError::forbidden(at, "should not be set when strategy is not set to Webhook"));
            }
        }
        "Webhook" => {
            if spec.get("preserveUnknownFields").is_true() {
                let detail = "must be None if spec.preserveUnknownFields is true";
                errors.push(FieldError::invalid("spec.conversion.strategy", &"Webhook".into(), detail));
            }
            let config = conversion.get("webhookClientConfig");
            let config = config.showing(&webhook.value["clientConfig"]);
            if config.value.is_object() {
                admission::client(&config, errors);
            } else {
                errors.required(&config, "required when strategy is set to Webhook");
            }
            let versions = conversion.get("conversionReviewVersions");
            let versions = versions.showing(&webhook.value["conversionReviewVersions"]);
            admission::review_versions(&versions, "", errors);
        }
        other => {
            let value = json!(other);
            errors.push(FieldError::not_supported("spec.conversion.strategy", &value, &["None", "Webhook"]));
        }
    }
}
