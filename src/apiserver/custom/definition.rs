//! Whether the defaults of a CustomResourceDefinition are valid, and its rules compile, fit their schema, and stay
//! affordable.
//!
//! Owns: the faults of defaults and of `x-kubernetes-validations` in upstream's words, and the limits on what rules may
//! cost.
//! Called by: creates and updates of definitions.
//! Never: evaluates a rule.

use minik_api::{FieldError, FieldErrorType, go_json, validation};
use serde_json::Value;

use super::declare::{self, Declared, REQUEST_BYTES_MAX, Root};
use super::rules::{Rule, rules_of};
use super::{prune, validate};

/// Most that one rule, and all rules of a version, may be estimated to cost.
const RULE_COST_MAX: u64 = 10_000_000;
const DEFINITION_COST_MAX: u64 = 100_000_000;
/// This many of the most expensive rules are named.
const NAMED_MAX: usize = 4;

/// What is wrong with the defaults and the rules of a definition. A schema that the old definition had already is not
/// judged anew, and one that is wrong in itself (`told` says so) is not worth it.
pub fn faults(definition: &Value, old: Option<&Value>, told: &[FieldError]) -> Vec<FieldError> {
    let mut found = Vec::new();
    for (path, schema) in validation::schemas(definition) {
        let known = old.into_iter().flat_map(versions).any(|v| v["schema"]["openAPIV3Schema"] == *schema);
        if known || told.iter().any(|fault| fault.path.starts_with(&path)) {
            continue;
        }
        let before = found.len();
        defaults(schema, &path, &mut found);
        if found.len() > before {
            continue;
        }
        let mut check = Check::default();
        let root = Place { cardinality: Some(1), root: Root::Resource, uncorrelatable: None };
        check.node(schema, &path, &root, None);
        check.total(&path);
        found.append(&mut check.rules);
    }
    found
}

fn versions(definition: &Value) -> impl Iterator<Item = &Value> {
    definition["spec"]["versions"].as_array().into_iter().flatten()
}

/// A default must be what its schema asks of values.
fn defaults(schema: &Value, path: &str, found: &mut Vec<FieldError>) {
    if !schema.is_object() {
        return;
    }
    if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
        let at = format!("{path}.default");
        if !prune::is_pruned(schema, default) {
            found.push(FieldError::invalid(at.clone(), default, "must not have unknown fields"));
        }
        for mut fault in validate::root(schema, default, None) {
            fault.path = match fault.path.as_str() {
                "<nil>" => at.clone(),
                below => format!("{at}.{below}"),
            };
            found.push(fault);
        }
    }
    defaults(&schema["items"], &format!("{path}.items"), found);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        defaults(property, &format!("{path}.properties[{name}]"), found);
    }
}

/// Where a schema's node stands.
#[derive(Clone)]
struct Place {
    /// How often its data can occur; `None` when nothing but the request bounds it.
    cardinality: Option<u64>,
    root: Root,
    /// The path of the node below which old data is not known again.
    uncorrelatable: Option<String>,
}

#[derive(Default)]
struct Check {
    rules: Vec<FieldError>,
    total: u64,
    expensive: Vec<(String, u64)>,
}

impl Check {
    fn node(&mut self, schema: &Value, path: &str, place: &Place, declared: Option<&Declared>) {
        let own;
        let declared = match declared {
            Some(declared) => Some(declared),
            // Only what has rules, or lies below them, needs types.
            None if rules_of(schema).next().is_some() => {
                own = declare::declare(schema, place.root, "selfType");
                own.as_ref()
            }
            None => None,
        };
        self.below(schema, path, place, declared);
        for (index, rule) in rules_of(schema).enumerate() {
            let path = format!("{path}.x-kubernetes-validations[{index}]");
            match declared {
                Some(declared) => self.compiled(rule, &path, place, declared),
                None => {
                    let detail = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
                    self.rules.push(fault(FieldErrorType::Internal, &path, None, detail));
                }
            }
        }
    }

    fn below(&mut self, schema: &Value, path: &str, place: &Place, declared: Option<&Declared>) {
        let times = |factor: Option<u64>| place.cardinality.zip(factor).map(|(a, b)| a.saturating_mul(b));
        let limit = |keyword: &str| schema[keyword].as_i64().map(|n| n.max(0).unsigned_abs());
        let part = |step: &str| declared.and_then(|declared| declared.at(step));
        let here = |cardinality: Option<u64>, below: &Value, lost: bool| Place {
            cardinality,
            root: Root::of(below),
            uncorrelatable: place.uncorrelatable.clone().or_else(|| lost.then(|| path.to_string())),
        };
        let values = &schema["additionalProperties"];
        if values.is_object() {
            let place = here(times(limit("maxProperties")), values, false);
            self.node(values, &format!("{path}.additionalProperties"), &place, part("@values"));
        }
        let granular = matches!(schema["x-kubernetes-map-type"].as_str(), None | Some("granular" | "atomic"));
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let place = here(place.cardinality, property, !granular);
            let declared = minik_cel::identifier::escape(name).and_then(|name| part(&name));
            self.node(property, &format!("{path}.properties[{name}]"), &place, declared);
        }
        let items = &schema["items"];
        if items.is_object() {
            let place = here(times(limit("maxItems")), items, schema["x-kubernetes-list-type"] != "map");
            self.node(items, &format!("{path}.items"), &place, part("@items"));
        }
    }

    fn compiled(&mut self, source: &Value, path: &str, place: &Place, declared: &Declared) {
        let rule = Rule::compile(source, &declared.of);
        let sizes = |path: &[String]| declared.most_at(path);
        let (at_rule, at_message) = (format!("{path}.rule"), format!("{path}.messageExpression"));
        let cost = rule.program.as_ref().map_or(0, |program| program.estimate(&sizes).max);
        let often = place.cardinality.unwrap_or(REQUEST_BYTES_MAX / (declared.least_bytes + 1));
        self.priced("estimated rule cost", &at_rule, cost.saturating_mul(often));
        if let Err(error) = &rule.program {
            self.rules.push(fault(FieldErrorType::Invalid, &at_rule, Some(as_go_prints(source)), error));
        }
        match &rule.message {
            Some(Err(error)) => {
                self.rules.push(fault(FieldErrorType::Invalid, &at_message, Some(as_go_prints(source)), error));
            }
            Some(Ok(program)) => {
                self.priced("estimated messageExpression cost", &at_message, program.estimate(&sizes).max);
            }
            None => {}
        }
        if rule.uses_old() {
            if let Some(lost) = &place.uncorrelatable {
                let detail =
                    format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {lost}");
                self.rules.push(fault(FieldErrorType::Invalid, &at_rule, Some(source["rule"].to_string()), &detail));
            }
        } else if let Some(optional) = source.get("optionalOldSelf").filter(|o| !o.is_null()) {
            let at = format!("{path}.optionalOldSelf");
            let detail = "may not be set if oldSelf is not used in rule";
            self.rules.push(fault(FieldErrorType::Invalid, &at, Some(optional.to_string()), detail));
        }
    }

    fn priced(&mut self, what: &str, path: &str, cost: u64) {
        if cost > RULE_COST_MAX {
            self.rules.push(fault(FieldErrorType::Forbidden, path, None, &exceeded(what, cost, RULE_COST_MAX)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= DEFINITION_COST_MAX / 100 {
            self.expensive.push((path.into(), cost));
            self.expensive.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.expensive.truncate(NAMED_MAX);
        }
    }

    fn total(&mut self, path: &str) {
        if self.total <= DEFINITION_COST_MAX {
            return;
        }
        let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        for (path, _) in std::mem::take(&mut self.expensive) {
            self.rules.push(fault(FieldErrorType::Forbidden, &path, None, detail));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        self.rules.push(fault(FieldErrorType::Forbidden, path, None, &exceeded(what, self.total, DEFINITION_COST_MAX)));
    }
}

fn fault(kind: FieldErrorType, path: &str, value: Option<String>, detail: &str) -> FieldError {
    FieldError { kind, path: path.into(), value, detail: detail.into() }
}

fn exceeded(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let shown = match factor {
        f if f > 100.0 => "more than 100x".to_string(),
        // One decimal would say that the budget is exceeded by a factor of 1.0.
        f if f < 1.5 => format!("{f:.6}x"),
        f => format!("{f:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// The rule as upstream's messages show it: its internal type in JSON, where Go hides what HTML would take for markup.
fn as_go_prints(rule: &Value) -> String {
    let text = |field: &str| rule[field].as_str().unwrap_or("").to_string();
    let shown = |value: &Value| go_json::escaped(&value.to_string());
    let string = |field: &str| shown(&text(field).into());
    format!(
        r#"{{"Rule":{},"Message":{},"MessageExpression":{},"Reason":{},"FieldPath":{},"OptionalOldSelf":{}}}"#,
        string("rule"),
        string("message"),
        string("messageExpression"),
        shown(&rule["reason"]),
        string("fieldPath"),
        rule["optionalOldSelf"]
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(spec: Value) -> Vec<String> {
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        let definition = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}});
        let short = "spec.validation.openAPIV3Schema.properties[spec]";
        faults(&definition, None, &[]).iter().map(|f| format!("{}: {}", f.path, f.body()).replace(short, "S")).collect()
    }

    #[test]
    fn a_rule_must_compile_and_say_true_or_false() {
        let rules = |rules: Value| {
            check(
                json!({"type": "object", "properties": {"a": {"type": "integer"}}, "x-kubernetes-validations": rules}),
            )
        };
        assert_eq!(rules(json!([{"rule": "self.a > 1"}])), Vec::<String>::new());
        let shown = |rule: &str| {
            let rule = format!("{rule:?}").replace('>', "\\u003e");
            format!(
                r#"{{"Rule":{rule},"Message":"","MessageExpression":"","Reason":null,"FieldPath":"","OptionalOldSelf":null}}"#
            )
        };
        assert_eq!(
            rules(json!([{"rule": "self.b > 1"}])),
            [format!(
                "S.x-kubernetes-validations[0].rule: Invalid value: {}: compilation failed: ERROR: <input>:1:5: undefined field 'b'\n | self.b > 1\n | ....^",
                shown("self.b > 1")
            )]
        );
        assert_eq!(
            rules(json!([{"rule": "self.a"}])),
            [format!(
                "S.x-kubernetes-validations[0].rule: Invalid value: {}: cel expression must evaluate to a bool",
                shown("self.a")
            )]
        );
    }

    #[test]
    fn a_rule_must_be_affordable() {
        let list = |limits: Value| {
            let mut list = json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": [
                {"rule": "self.all(x, self.exists_one(y, x == y))"}]});
            for (key, value) in limits.as_object().into_iter().flatten() {
                list[key] = value.clone();
            }
            list["items"]["maxLength"] = 10.into();
            check(json!({"type": "object", "properties": {"list": list}}))
        };
        assert_eq!(list(json!({"maxItems": 10})), Vec::<String>::new());
        let told = list(json!({}));
        assert!(told[0].starts_with("S.properties[list].x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x"), "{told:?}");
        assert!(told.last().unwrap().contains("estimated rule cost total for entire OpenAPIv3 schema exceeds budget"));
    }

    #[test]
    fn old_data_must_be_known_again() {
        let item = json!({"type": "object", "properties": {"a": {"type": "string"}}, "x-kubernetes-validations": [{"rule": "self == oldSelf"}]});
        let told =
            check(json!({"type": "object", "properties": {"l": {"type": "array", "maxItems": 3, "items": item}}}));
        assert_eq!(
            told,
            [
                "S.properties[l].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within S.properties[l]"
            ]
        );
    }
}
