//! Whether a custom resource is what its schema says, in the words of upstream's validator.
//!
//! Owns: the keywords of a structural schema and their messages.
//! Called by: writes of custom resources.
//! Never: changes the object.

use std::collections::HashMap;
use std::sync::Arc;

use minik_api::{FieldError, FieldErrorType};
use parking_lot::Mutex;
use regex::Regex;
use serde_json::Value;

use super::format;

/// Upstream reports no more faults of one object.
const FAULTS_MAX: usize = 100;

pub fn root(schema: &Value, tree: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    let mut faults = Vec::new();
    if schema.is_object() {
        check(schema, tree, "", &mut faults);
    }
    faults.truncate(FAULTS_MAX);
    faults
}

struct Place<'a> {
    schema: &'a Value,
    value: &'a Value,
    path: &'a str,
}

fn fault(kind: FieldErrorType, path: &str, value: Option<String>, detail: String) -> FieldError {
    // A fault of the object as a whole has no field; upstream prints that so.
    let path = if path.is_empty() { "<nil>" } else { path };
    FieldError { kind, path: path.into(), value, detail }
}

fn child(path: &str, key: &str) -> String {
    if path.is_empty() { key.into() } else { format!("{path}.{key}") }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_of(wanted: &str, value: &Value) -> bool {
    match (wanted, value) {
        ("integer", Value::Number(n)) => !n.is_f64() || n.as_f64().is_some_and(|f| f.fract() == 0.0),
        ("number", Value::Number(_)) => true,
        _ => wanted == type_of(value),
    }
}

fn check(schema: &Value, value: &Value, path: &str, faults: &mut Vec<FieldError>) {
    if faults.len() >= FAULTS_MAX || !schema.is_object() {
        return;
    }
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    let place = Place { schema, value, path };
    if !place.type_fits(faults) {
        return;
    }
    place.enumeration(faults);
    match value {
        Value::String(text) => place.string(text, faults),
        Value::Number(_) => place.number(faults),
        Value::Array(items) => place.array(items, faults),
        Value::Object(fields) => place.object(fields, faults),
        _ => {}
    }
    place.combinations(faults);
}

impl Place<'_> {
    fn invalid(&self, faults: &mut Vec<FieldError>, demand: String) {
        let detail = format!("{} in body {demand}", self.path);
        faults.push(fault(FieldErrorType::Invalid, self.path, Some(self.value.to_string()), detail));
    }

    fn type_fits(&self, faults: &mut Vec<FieldError>) -> bool {
        if self.schema["x-kubernetes-int-or-string"] == true {
            if is_of("integer", self.value) || self.value.is_string() {
                return true;
            }
            self.wrong_type("integer,string", faults);
            return false;
        }
        let Some(wanted) = self.schema["type"].as_str().filter(|t| !t.is_empty()) else { return true };
        if is_of(wanted, self.value) {
            return true;
        }
        self.wrong_type(wanted, faults);
        false
    }

    fn wrong_type(&self, wanted: &str, faults: &mut Vec<FieldError>) {
        let found = type_of(self.value);
        let detail = format!("{} in body must be of type {wanted}: {found:?}", self.path);
        faults.push(fault(FieldErrorType::TypeInvalid, self.path, Some(format!("{found:?}")), detail));
    }

    fn enumeration(&self, faults: &mut Vec<FieldError>) {
        let Some(allowed) = self.schema["enum"].as_array() else { return };
        if !allowed.contains(self.value) {
            let texts: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            let detail = format!("supported values: {}", texts.join(", "));
            faults.push(fault(FieldErrorType::NotSupported, self.path, Some(self.value.to_string()), detail));
        }
    }

    fn limit(&self, keyword: &str) -> Option<u64> {
        self.schema[keyword].as_u64()
    }

    fn string(&self, text: &str, faults: &mut Vec<FieldError>) {
        let length = text.chars().count() as u64;
        if let Some(max) = self.limit("maxLength").filter(|max| length > *max) {
            let detail = format!("may not be more than {max} bytes");
            faults.push(fault(FieldErrorType::TooLong, self.path, None, detail));
        }
        if let Some(min) = self.limit("minLength").filter(|min| length < *min) {
            self.invalid(faults, format!("should be at least {min} chars long"));
        }
        if let Some(pattern) = self.schema["pattern"].as_str()
            && compiled(pattern).is_some_and(|p| !p.is_match(text))
        {
            self.invalid(faults, format!("should match '{pattern}'"));
        }
        if let Some(wanted) = self.schema["format"].as_str()
            && !format::fits(wanted, text)
        {
            let detail = format!("{} in body must be of type {wanted}: {text:?}", self.path);
            faults.push(fault(FieldErrorType::Invalid, self.path, Some(self.value.to_string()), detail));
        }
    }

    fn number(&self, faults: &mut Vec<FieldError>) {
        let Some(value) = self.value.as_f64() else { return };
        let bound = |keyword: &str| self.schema[keyword].as_f64();
        let exclusive = |keyword: &str| self.schema[keyword] == true;
        if let Some(max) = bound("maximum") {
            let strict = exclusive("exclusiveMaximum");
            if value > max || (strict && value == max) {
                let words = if strict { "less than" } else { "less than or equal to" };
                self.invalid(faults, format!("should be {words} {}", self.schema["maximum"]));
            }
        }
        if let Some(min) = bound("minimum") {
            let strict = exclusive("exclusiveMinimum");
            if value < min || (strict && value == min) {
                let words = if strict { "greater than" } else { "greater than or equal to" };
                self.invalid(faults, format!("should be {words} {}", self.schema["minimum"]));
            }
        }
        if let Some(unit) = bound("multipleOf").filter(|u| *u > 0.0)
            && (value / unit).fract() != 0.0
        {
            self.invalid(faults, format!("should be a multiple of {}", self.schema["multipleOf"]));
        }
        self.number_format(faults);
    }

    fn number_format(&self, faults: &mut Vec<FieldError>) {
        let fits = match self.schema["format"].as_str() {
            Some("int32") => self.value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            _ => true,
        };
        if !fits {
            self.invalid(faults, "must be of type int32".into());
        }
    }

    fn array(&self, items: &[Value], faults: &mut Vec<FieldError>) {
        let count = items.len() as u64;
        if let Some(max) = self.limit("maxItems").filter(|max| count > *max) {
            let detail = format!("must have at most {max} items");
            faults.push(fault(FieldErrorType::TooMany, self.path, Some(count.to_string()), detail));
        }
        if let Some(min) = self.limit("minItems").filter(|min| count < *min) {
            self.invalid(faults, format!("should have at least {min} items"));
        }
        for (index, item) in items.iter().enumerate() {
            check(&self.schema["items"], item, &format!("{}[{index}]", self.path), faults);
        }
        self.unique(items, faults);
    }

    /// Sets have no element twice, maps no key.
    fn unique(&self, items: &[Value], faults: &mut Vec<FieldError>) {
        let keys: Vec<&str> = self.schema["x-kubernetes-list-map-keys"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let identity = |item: &Value| -> Value {
            match self.schema["x-kubernetes-list-type"].as_str() {
                Some("map") => {
                    keys.iter().map(|k| ((*k).to_string(), item[*k].clone())).collect::<serde_json::Map<_, _>>().into()
                }
                _ => item.clone(),
            }
        };
        if !matches!(self.schema["x-kubernetes-list-type"].as_str(), Some("map" | "set")) {
            return;
        }
        let mut seen: Vec<Value> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let mine = identity(item);
            if seen.contains(&mine) {
                let path = format!("{}[{index}]", self.path);
                faults.push(fault(FieldErrorType::Duplicate, &path, Some(mine.to_string()), String::new()));
            }
            seen.push(mine);
        }
    }

    fn object(&self, fields: &serde_json::Map<String, Value>, faults: &mut Vec<FieldError>) {
        let count = fields.len() as u64;
        if let Some(max) = self.limit("maxProperties").filter(|max| count > *max) {
            let detail = format!("must have at most {max} items");
            faults.push(fault(FieldErrorType::TooMany, self.path, Some(count.to_string()), detail));
        }
        if let Some(min) = self.limit("minProperties").filter(|min| count < *min) {
            self.invalid(faults, format!("should have at least {min} properties"));
        }
        for name in self.schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                faults.push(fault(FieldErrorType::Required, &child(self.path, name), None, String::new()));
            }
        }
        for (key, value) in fields {
            // Go's reader drops a null where the schema does not allow one.
            let property = self.schema["properties"].get(key);
            if self.path.is_empty() && key == "metadata" {
                continue;
            }
            match property.or_else(|| self.schema.get("additionalProperties")) {
                Some(schema) if property.is_some() => check(schema, value, &child(self.path, key), faults),
                Some(schema) => check(schema, value, &format!("{}[{key}]", self.path), faults),
                None => {}
            }
        }
    }

    fn combinations(&self, faults: &mut Vec<FieldError>) {
        let fits = |schema: &Value| {
            let mut inner = Vec::new();
            check(schema, self.value, self.path, &mut inner);
            inner.is_empty()
        };
        let several = |keyword: &str| self.schema[keyword].as_array().map_or(&[][..], Vec::as_slice);
        let mut refuse = |words: &str| {
            let detail = format!("{:?} {words}", self.path);
            faults.push(fault(FieldErrorType::Invalid, self.path, Some(self.value.to_string()), detail));
        };
        let one = several("oneOf");
        if !one.is_empty() {
            match one.iter().filter(|s| fits(s)).count() {
                0 => refuse("must validate one and only one schema (oneOf). Found none valid"),
                1 => {}
                n => refuse(&format!("must validate one and only one schema (oneOf). Found {n} valid alternatives")),
            }
        }
        let any = several("anyOf");
        if !any.is_empty() && !any.iter().any(&fits) {
            refuse("must validate at least one schema (anyOf)");
        }
        if self.schema["not"].is_object() && fits(&self.schema["not"]) {
            refuse("must not validate the schema (not)");
        }
        for schema in several("allOf") {
            check(schema, self.value, self.path, faults);
        }
    }
}

/// Patterns, compiled once; a definition has few, and a server few definitions.
fn compiled(pattern: &str) -> Option<Arc<Regex>> {
    const PATTERNS_MAX: usize = 2000;
    static PATTERNS: Mutex<Option<HashMap<String, Option<Arc<Regex>>>>> = Mutex::new(None);
    let mut patterns = PATTERNS.lock();
    let patterns = patterns.get_or_insert_default();
    if let Some(known) = patterns.get(pattern) {
        return known.clone();
    }
    if patterns.len() >= PATTERNS_MAX {
        patterns.clear();
    }
    let regex = Regex::new(pattern).ok().map(Arc::new);
    patterns.insert(pattern.into(), regex.clone());
    regex
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(schema: Value, tree: Value) -> Vec<String> {
        root(&schema, &tree, None).iter().map(|f| format!("{}: {}", f.path, f.body())).collect()
    }

    #[test]
    fn faults_read_as_upstreams() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["cronSpec"], "properties": {
            "cronSpec": {"type": "string", "pattern": "^a+$"},
            "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
            "size": {"type": "string", "enum": ["S", "L"]},
            "names": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        }}}});
        let tree = json!({"spec": {"replicas": 11, "size": "M", "names": ["a", "b", "a"]}});
        assert_eq!(
            faults(schema.clone(), tree),
            [
                "spec.cronSpec: Required value",
                "spec.names[2]: Duplicate value: \"a\"",
                "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
                "spec.size: Unsupported value: \"M\": supported values: \"S\", \"L\"",
            ]
        );
        assert_eq!(
            faults(schema, json!({"spec": {"cronSpec": "b", "replicas": "1"}})),
            [
                "spec.cronSpec: Invalid value: \"b\": spec.cronSpec in body should match '^a+$'",
                "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
            ]
        );
    }

    #[test]
    fn alternatives_count() {
        let schema = json!({"properties": {"spec": {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}}});
        let found = faults(schema, json!({"spec": {}}));
        assert_eq!(
            found,
            [r#"spec: Invalid value: {}: "spec" must validate one and only one schema (oneOf). Found none valid"#]
        );
    }
}
