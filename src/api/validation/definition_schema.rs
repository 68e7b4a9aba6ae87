//! Rules of the schemas in definitions.
//!
//! Owns: that a schema says of every field what it is, and says nothing that cannot be had; what can be told of its rules
//! in CEL without compiling them.
//! Called by: the rules of definitions.
//! Never: looks at an object that a schema describes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::object::text;
use crate::status::FieldError;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// What is wrong with the schema of one version, at `path`.
pub fn faults(root: &Value, path: &str) -> Vec<FieldError> {
    let mut found = Vec::new();
    if is_true(root, "nullable") {
        found.push(FieldError::forbidden(format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    let mut structural = Structural::default();
    structural.node(root, path, Level::Root);
    structural.complete(root, root, path, path);
    // Upstream sorts them by their texts, because it finds them in no order.
    structural.found.sort_by_cached_key(|fault| format!("{}: {}", fault.path, fault.body()));
    found.extend(structural.found);
    node(root, path, &Surroundings { is_root: true, ..Surroundings::default() }, &mut found);
    found
}

fn is_true(schema: &Value, field: &str) -> bool {
    schema[field] == true
}

fn list<'a>(schema: &'a Value, field: &str) -> &'a [Value] {
    schema[field].as_array().map_or(&[], Vec::as_slice)
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

/// Where a schema stands, for what it must say of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What makes a schema structural: it describes every field outside of `allOf`, `anyOf`, `oneOf` and `not`, which only
/// judge values.
#[derive(Default)]
struct Structural {
    found: Vec<FieldError>,
}

impl Structural {
    fn required(&mut self, path: String, detail: impl Into<String>) {
        self.found.push(FieldError::required(path, detail));
    }
    fn forbidden(&mut self, path: String, detail: &str) {
        self.found.push(FieldError::forbidden(path, detail));
    }
    fn invalid(&mut self, path: String, value: &Value, detail: impl Into<String>) {
        self.found.push(FieldError::invalid(path, value, detail));
    }

    fn node(&mut self, schema: &Value, path: &str, level: Level) {
        if !schema.is_object() {
            return;
        }
        let (kind, values) = (text(schema, "type"), &schema["additionalProperties"]);
        if kind == "array" && !schema["items"].is_object() {
            self.required(format!("{path}.items"), "must be specified");
        }
        self.node(&schema["items"], &format!("{path}.items"), Level::Item);
        for (name, property) in properties(schema) {
            self.node(property, &format!("{path}.properties[{name}]"), Level::Field);
        }
        if !values.is_null() && level == Level::Root {
            self.forbidden(format!("{path}.additionalProperties"), "must not be used at the root");
        }
        self.node(values, &format!("{path}.additionalProperties"), Level::Field);
        let either = is_true(schema, "x-kubernetes-int-or-string");
        for field in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
            if either && is_true(schema, field) {
                let detail = "must be false if x-kubernetes-int-or-string is true";
                self.invalid(format!("{path}.{field}"), &true.into(), detail);
            }
        }
        self.judging(schema, path);
        self.kind(schema, path, level);
        self.metadata(schema, path, level);
    }

    fn kind(&mut self, schema: &Value, path: &str, level: Level) {
        let (kind, at) = (text(schema, "type"), format!("{path}.type"));
        let embedded = is_true(schema, "x-kubernetes-embedded-resource");
        let preserves = is_true(schema, "x-kubernetes-preserve-unknown-fields");
        let untyped = preserves || is_true(schema, "x-kubernetes-int-or-string");
        if embedded && kind != "object" {
            let detail = "must be object if x-kubernetes-embedded-resource is true";
            match kind {
                "" => self.required(at, detail),
                kind => self.invalid(at, &kind.into(), detail),
            }
        } else if kind.is_empty() && !untyped {
            let of = match level {
                Level::Root => "at the root",
                Level::Item => "for specified array items",
                Level::Field => "for specified object fields",
            };
            self.required(at, format!("must not be empty {of}"));
        }
        if embedded && !schema["additionalProperties"].is_null() {
            let detail = "must not be used if x-kubernetes-embedded-resource is set";
            self.forbidden(format!("{path}.additionalProperties"), detail);
        }
        if level == Level::Root && !matches!(kind, "" | "object") {
            self.invalid(format!("{path}.type"), &kind.into(), "must be object at the root");
        }
        if embedded && !preserves && properties(schema).next().is_none() {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            self.required(format!("{path}.properties"), detail);
        }
    }

    /// `kind`, `apiVersion` and `metadata` are the same for all objects; a schema may narrow names.
    fn metadata(&mut self, schema: &Value, path: &str, level: Level) {
        let whole = level == Level::Root || is_true(schema, "x-kubernetes-embedded-resource");
        for (name, wanted) in [("kind", "string"), ("apiVersion", "string"), ("metadata", "object")] {
            let property = &schema["properties"][name];
            if property.is_object() && whole && text(property, "type") != wanted {
                let at = format!("{path}.properties[{name}].type");
                self.invalid(at, &text(property, "type").into(), format!("must be {wanted}"));
            }
        }
        let metadata = &schema["properties"]["metadata"];
        let Some(said) = metadata.as_object().filter(|_| level == Level::Root) else { return };
        let names = properties(metadata).all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
        let more = said.keys().any(|key| !matches!(key.as_str(), "type" | "properties" | "default"));
        if !names || more {
            let detail =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.forbidden(format!("{path}.properties[metadata]"), detail);
        }
    }

    /// What judges values of a node: junctors, and patterns.
    fn judging(&mut self, schema: &Value, path: &str) {
        let either = json!([{"type": "integer"}, {"type": "string"}]);
        if schema["anyOf"] != either {
            for (index, one) in list(schema, "anyOf").iter().enumerate() {
                self.judge(one, &format!("{path}.anyOf[{index}]"), false);
            }
        }
        for (index, one) in list(schema, "allOf").iter().enumerate() {
            self.judge(one, &format!("{path}.allOf[{index}]"), index == 0 && one["anyOf"] == either);
        }
        for (index, one) in list(schema, "oneOf").iter().enumerate() {
            self.judge(one, &format!("{path}.oneOf[{index}]"), false);
        }
        self.judge(&schema["not"], &format!("{path}.not"), false);
        let pattern = text(schema, "pattern");
        // A pattern that is only too large for this engine is sound.
        if let Err(error @ regex::Error::Syntax(_)) = regex::Regex::new(pattern) {
            let detail = format!("must be a valid regular expression, but isn't: {error}");
            self.invalid(format!("{path}.pattern"), &pattern.into(), detail);
        }
    }

    /// Inside a junctor; `either` when its `anyOf` is the one of integers or strings.
    fn judge(&mut self, schema: &Value, path: &str, either: bool) {
        if !schema.is_object() {
            return;
        }
        if either {
            let mut without = schema.clone();
            without["anyOf"] = Value::Null;
            self.judging(&without, path);
        } else {
            self.judging(schema, path);
        }
        self.judge(&schema["items"], &format!("{path}.items"), false);
        for (name, property) in properties(schema) {
            self.judge(property, &format!("{path}.properties[{name}]"), false);
        }
        for field in ["type", "title", "description"] {
            if !text(schema, field).is_empty() {
                self.forbidden(format!("{path}.{field}"), "must be empty to be structural");
            }
        }
        for field in ["additionalProperties", "default", "x-kubernetes-list-type", "x-kubernetes-map-type"] {
            if !schema[field].is_null() {
                self.forbidden(format!("{path}.{field}"), "must be undefined to be structural");
            }
        }
        for field in [
            "nullable",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-embedded-resource",
            "x-kubernetes-int-or-string",
        ] {
            if is_true(schema, field) {
                self.forbidden(format!("{path}.{field}"), "must be false to be structural");
            }
        }
        for field in ["x-kubernetes-list-map-keys", "x-kubernetes-validations"] {
            if !list(schema, field).is_empty() {
                self.forbidden(format!("{path}.{field}"), "must be empty to be structural");
            }
        }
        if schema["properties"]["metadata"].is_object() {
            let at = format!("{path}.properties[metadata]");
            self.forbidden(at, "must not be specified in a nested context");
        }
    }

    /// What `judging` names must be in `described` too.
    fn complete(&mut self, judging: &Value, described: &Value, at: &str, judging_at: &str) {
        for junctor in ["allOf", "anyOf", "oneOf"] {
            for (index, one) in list(judging, junctor).iter().enumerate() {
                self.described(one, described, at, &format!("{judging_at}.{junctor}[{index}]"));
            }
        }
        self.described(&judging["not"], described, at, &format!("{judging_at}.not"));
    }

    fn described(&mut self, judging: &Value, described: &Value, at: &str, judging_at: &str) {
        if !judging.is_object() {
            return;
        }
        if !described.is_object() {
            return self.required(at.into(), format!("because it is defined in {judging_at}"));
        }
        self.complete(judging, described, at, judging_at);
        let (items, items_at) = (format!("{at}.items"), format!("{judging_at}.items"));
        self.described(&judging["items"], &described["items"], &items, &items_at);
        for (name, property) in properties(judging) {
            let (at, judging_at) = (format!("{at}.properties[{name}]"), format!("{judging_at}.properties[{name}]"));
            self.described(property, &described["properties"][name.as_str()], &at, &judging_at);
        }
    }
}

/// What a node inherits from those around it.
#[derive(Clone, Copy, Default)]
struct Surroundings<'a> {
    is_root: bool,
    /// Inside of `kind`, `apiVersion` or `metadata` of an object.
    in_meta: bool,
    /// Why there may be no default.
    no_default: Option<&'a str>,
}

/// What holds of every schema, wherever it stands.
fn node(schema: &Value, path: &str, around: &Surroundings<'_>, found: &mut Vec<FieldError>) {
    if !schema.is_object() {
        return;
    }
    plain(schema, path, around, found);
    let inner = Surroundings { is_root: false, ..*around };
    let values = &schema["additionalProperties"];
    if values.is_object() && properties(schema).next().is_some() {
        let detail = "additionalProperties and properties are mutual exclusive";
        found.push(FieldError::forbidden(format!("{path}.additionalProperties"), detail));
    }
    let reason = around.in_meta.then_some("inside additionalProperties applying to object metadata");
    let within = Surroundings { no_default: reason.or(around.no_default), ..inner };
    node(values, &format!("{path}.additionalProperties"), &within, found);
    for (name, property) in properties(schema) {
        let whole = around.is_root || is_true(schema, "x-kubernetes-embedded-resource");
        let meta = whole && META.contains(&name.as_str());
        let reason = format!("in top-level {name}");
        let within = Surroundings {
            in_meta: around.in_meta || meta,
            no_default: if meta && around.is_root { Some(&reason) } else { around.no_default },
            ..inner
        };
        node(property, &format!("{path}.properties[{name}]"), &within, found);
    }
    node(&schema["not"], &format!("{path}.not"), &inner, found);
    for junctor in ["allOf", "oneOf", "anyOf"] {
        for (index, one) in list(schema, junctor).iter().enumerate() {
            node(one, &format!("{path}.{junctor}[{index}]"), &inner, found);
        }
    }
    node(&schema["items"], &format!("{path}.items"), &inner, found);
    merging(schema, path, found);
    for (index, rule) in list(schema, "x-kubernetes-validations").iter().enumerate() {
        spelled(rule, schema, &format!("{path}.x-kubernetes-validations[{index}]"), found);
    }
}

fn plain(schema: &Value, path: &str, around: &Surroundings<'_>, found: &mut Vec<FieldError>) {
    let kind = text(schema, "type");
    if !kind.is_empty() && !TYPES.contains(&kind) {
        found.push(FieldError::not_supported(format!("{path}.type"), &kind.into(), &TYPES));
    }
    let mut forbidden =
        |field: &str, detail: &str| found.push(FieldError::forbidden(format!("{path}.{field}"), detail));
    if let Some(reason) = around.no_default
        && !schema["default"].is_null()
    {
        forbidden("default", &format!("must not be set {reason}"));
    }
    for field in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let said = match &schema[field] {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            _ => true,
        };
        if said {
            forbidden(field, &format!("{field} is not supported"));
        }
    }
    if kind == "null" {
        forbidden("type", "type cannot be set to null, use nullable as an alternative");
    }
    if around.in_meta && is_true(schema, "x-kubernetes-embedded-resource") {
        forbidden("x-kubernetes-embedded-resource", "must not be used inside of resource meta");
    }
    if is_true(schema, "uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        forbidden("uniqueItems", detail);
    }
}

/// How lists and objects are merged.
fn merging(schema: &Value, path: &str, found: &mut Vec<FieldError>) {
    let at = |field: &str| format!("{path}.{field}");
    let preserve = "x-kubernetes-preserve-unknown-fields";
    if schema[preserve] == false {
        found.push(FieldError::invalid(at(preserve), &false.into(), "must be true or undefined"));
    }
    for (keyword, wanted, known) in [
        ("x-kubernetes-map-type", "object", &["atomic", "granular"][..]),
        ("x-kubernetes-list-type", "array", &["atomic", "set", "map"][..]),
    ] {
        let Some(said) = schema[keyword].as_str() else { continue };
        let detail = format!("must be {wanted} if {keyword} is specified");
        match text(schema, "type") {
            "" => found.push(FieldError::required(at("type"), detail)),
            kind if kind != wanted => found.push(FieldError::invalid(at("type"), &kind.into(), detail)),
            _ if said == "set" => set_items(&schema["items"], &at("items"), found),
            _ => {}
        }
        if !known.contains(&said) {
            found.push(FieldError::not_supported(at(keyword), &said.into(), known));
        }
    }
    let (kind, keys) = (schema["x-kubernetes-list-type"].as_str(), list(schema, "x-kubernetes-list-map-keys"));
    if !keys.is_empty() && kind != Some("map") {
        let (at, detail) = (at("x-kubernetes-list-type"), "must be map if x-kubernetes-list-map-keys is non-empty");
        found.push(match kind {
            None => FieldError::required(at, detail),
            Some(kind) => FieldError::invalid(at, &kind.into(), detail),
        });
    }
    if kind == Some("map") {
        map_list(schema, keys, path, found);
    }
    if let Some(kind @ ("set" | "map")) = kind {
        map_keys(&schema["items"], kind, keys, &at("items"), found);
    }
}

/// Items of a set are compared as a whole.
fn set_items(items: &Value, path: &str, found: &mut Vec<FieldError>) {
    let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let (list, map) = ("x-kubernetes-list-type", "x-kubernetes-map-type");
    match text(items, "type") {
        "array" if !matches!(items[list].as_str(), None | Some("atomic")) => {
            found.push(FieldError::invalid(format!("{path}.{list}"), &items[list], detail));
        }
        "object" if items[map] != "atomic" => {
            found.push(FieldError::invalid(format!("{path}.{map}"), &items[list], detail));
        }
        _ => {}
    }
}

fn map_list(schema: &Value, keys: &[Value], path: &str, found: &mut Vec<FieldError>) {
    let (at, items) = (format!("{path}.x-kubernetes-list-map-keys"), &schema["items"]);
    if keys.is_empty() {
        found.push(FieldError::required(at.clone(), "must not be empty if x-kubernetes-list-type is map"));
    }
    if !items.is_object() {
        let detail = "must have a schema if x-kubernetes-list-type is map";
        return found.push(FieldError::required(format!("{path}.items"), detail));
    }
    let kind = text(items, "type");
    if kind != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        return found.push(FieldError::invalid(format!("{path}.items.type"), &kind.into(), detail));
    }
    let mut seen = BTreeSet::new();
    for key in keys.iter().filter_map(Value::as_str) {
        let property = &items["properties"][key];
        if !property.is_object() {
            let all = &schema["x-kubernetes-list-map-keys"];
            found.push(FieldError::invalid(at.clone(), all, "entries must all be names of item properties"));
        } else if matches!(text(property, "type"), "array" | "object") {
            let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            let at = format!("{path}.items.properties[{key}].type");
            found.push(FieldError::invalid(at, &items["type"], detail));
        }
        if !seen.insert(key) {
            let all = &schema["x-kubernetes-list-map-keys"];
            found.push(FieldError::invalid(at.clone(), all, "must not contain duplicate entries"));
        }
    }
}

/// What tells items apart must be there.
fn map_keys(items: &Value, kind: &str, keys: &[Value], path: &str, found: &mut Vec<FieldError>) {
    if is_true(items, "nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
        found.push(FieldError::forbidden(format!("{path}.nullable"), detail));
    }
    for key in keys.iter().filter_map(Value::as_str).filter(|_| kind == "map") {
        let property = &items["properties"][key];
        if !property.is_object() {
            continue;
        }
        let at = |field: &str| format!("{path}.properties[{key}].{field}");
        let about = "this property is in x-kubernetes-list-map-keys, so it";
        if property["default"].is_null() && !list(items, "required").iter().any(|r| r == key) {
            let detail = format!("{about} must have a default or be a required property");
            found.push(FieldError::required(at("default"), detail));
        }
        if is_true(property, "nullable") {
            found.push(FieldError::forbidden(at("nullable"), format!("{about} cannot be nullable")));
        }
    }
}

/// What can be said of a rule without compiling it.
fn spelled(rule: &Value, schema: &Value, path: &str, found: &mut Vec<FieldError>) {
    let text = |field: &str| text(rule, field);
    let lines = |text: &str| text.contains(['\n', '\r']);
    let at = |field: &str| format!("{path}.{field}");
    let invalid = |field: &str, detail: &str| FieldError::invalid(at(field), &rule[field], detail);
    let blank = "must be non-empty if specified";
    let message = text("message").trim();
    if text("rule").trim().is_empty() {
        found.push(FieldError::required(at("rule"), "rule is not specified"));
    } else if !text("message").is_empty() && message.is_empty() {
        found.push(invalid("message", blank));
    } else if lines(message) {
        found.push(invalid("message", "must not contain line breaks"));
    } else if lines(text("rule").trim()) && message.is_empty() {
        found.push(FieldError::required(at("message"), "message must be specified if rule contains line breaks"));
    }
    if !text("messageExpression").is_empty() && text("messageExpression").trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        found.push(FieldError::required(at("messageExpression"), detail));
    }
    if let Some(reason) = rule["reason"].as_str().filter(|reason| !REASONS.contains(reason)) {
        found.push(FieldError::not_supported(at("reason"), &reason.into(), &REASONS));
    }
    let field = text("fieldPath");
    if !field.is_empty() && field.trim().is_empty() {
        found.push(invalid("fieldPath", blank));
    }
    if lines(field) {
        found.push(invalid("fieldPath", "must not contain line breaks"));
    }
    if !field.is_empty() && !leads_somewhere(schema, field) {
        found.push(invalid("fieldPath", "must be a valid path"));
    }
}

/// Whether `.a.b['c']` names a field of the schema.
fn leads_somewhere(schema: &Value, path: &str) -> bool {
    let mut at = schema;
    let mut rest = path;
    while !rest.is_empty() {
        let (name, after) = if let Some(dotted) = rest.strip_prefix('.') {
            let end = dotted.find(['.', '[']).unwrap_or(dotted.len());
            (dotted[..end].to_string(), &dotted[end..])
        } else if let Some(quoted) = rest.strip_prefix("['") {
            let Some(end) = quoted.find("']") else { return false };
            (quoted[..end].replace("\\'", "'"), &quoted[end + 2..])
        } else {
            return false;
        };
        let next = match at["properties"].as_object() {
            Some(properties) => properties.get(&name),
            None => at.get("additionalProperties").filter(|values| values.is_object()),
        };
        let Some(next) = next.filter(|_| !name.is_empty()) else { return false };
        (at, rest) = (next, after);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: Value) -> Vec<String> {
        let root = json!({"type": "object", "properties": {"spec": spec}});
        let found = faults(&root, "S");
        found.iter().map(|f| format!("{}: {}", f.path, f.body()).replace("S.properties[spec]", "s")).collect()
    }

    #[test]
    fn every_field_says_what_it_is_outside_of_junctors() {
        assert_eq!(check(json!({"type": "object"})), Vec::<String>::new());
        assert_eq!(
            check(json!({"type": "object", "properties": {"l": {"type": "array"}, "n": {}},
                "anyOf": [{"type": "object", "properties": {"gone": {"minLength": 1}}}]})),
            [
                "s.anyOf[0].type: Forbidden: must be empty to be structural",
                "s.properties[l].items: Required value: must be specified",
                "s.properties[n].type: Required value: must not be empty for specified object fields",
            ]
        );
        let either = json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
        assert_eq!(check(either), Vec::<String>::new());
        let root = json!({"type": "object", "not": {"properties": {"gone": {"minLength": 1}}}});
        assert_eq!(
            faults(&root, "S")[0].path.clone() + ": " + &faults(&root, "S")[0].body(),
            "S.properties[gone]: Required value: because it is defined in S.not.properties[gone]"
        );
    }

    #[test]
    fn lists_of_keyed_items_have_their_keys() {
        let item = |required: &[&str]| json!({"type": "object", "required": required, "properties": {"k": {"type": "string"}}});
        let list = |keys: &[&str], items: Value| json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys, "items": items});
        assert_eq!(check(list(&["k"], item(&["k"]))), Vec::<String>::new());
        assert_eq!(
            check(list(&["k"], item(&[]))),
            [
                "s.items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            ]
        );
        assert_eq!(
            check(list(&["x"], item(&["k"]))),
            [r#"s.x-kubernetes-list-map-keys: Invalid value: ["x"]: entries must all be names of item properties"#]
        );
    }

    #[test]
    fn a_rule_is_spelled_out() {
        let rules = json!([{"rule": " "}, {"rule": "true", "fieldPath": ".gone", "reason": "Odd"}]);
        assert_eq!(
            check(json!({"type": "object", "x-kubernetes-validations": rules})),
            [
                "s.x-kubernetes-validations[0].rule: Required value: rule is not specified",
                "s.x-kubernetes-validations[1].reason: Unsupported value: \"Odd\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
                "s.x-kubernetes-validations[1].fieldPath: Invalid value: \".gone\": must be a valid path",
            ]
        );
    }
}
