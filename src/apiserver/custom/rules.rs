//! `x-kubernetes-validations`: rules in CEL that a schema asks of its objects.
//!
//! Owns: the programs of one schema, evaluating them over an object and its predecessor within a budget, and the
//! messages about what does not hold.
//! Called by: the validation of custom resources; the check of definitions, which compiles in the same way.
//! Never: looks at anything outside the object.

use std::collections::BTreeMap;

use minik_api::{FieldError, FieldErrorType};
use minik_cel::{Environment, Meter, Program, Scope, Type, Value as Cel};
use serde_json::Value;

use super::declare::{self, Declared, Root};

/// What one rule, and all rules over one object, may cost.
pub const CALL_COST_MAX: u64 = 1_000_000;
const OBJECT_COST_MAX: u64 = 10_000_000;
const MESSAGE_BYTES_MAX: usize = 5 << 10;

/// One rule of a node.
#[derive(Debug)]
pub struct Rule {
    pub source: Value,
    pub program: Result<Program, String>,
    pub message: Option<Result<Program, String>>,
}

impl Rule {
    pub fn compile(source: &Value, of: &Type) -> Self {
        let text = |field: &str| source[field].as_str().unwrap_or("");
        let old = if source["optionalOldSelf"] == true { Type::optional(of.clone()) } else { of.clone() };
        let environment = Environment::default().with("self", of.clone()).with("oldSelf", old);
        let program = Program::compile(&environment, text("rule"))
            .map_err(|faults| format!("compilation failed: {faults}"))
            .and_then(|program| match program.result() {
                Type::Bool => Ok(program),
                _ => Err("cel expression must evaluate to a bool".into()),
            });
        let message = source["messageExpression"].as_str().filter(|m| !m.is_empty()).map(|message| {
            let program = Program::compile(&environment, message)
                .map_err(|faults| format!("messageExpression compilation failed: {faults}"))?;
            match program.result() {
                Type::String => Ok(program),
                _ => Err("messageExpression must evaluate to a string".to_string()),
            }
        });
        Self { source: source.clone(), program, message }
    }

    pub fn uses_old(&self) -> bool {
        self.program.as_ref().is_ok_and(|program| program.uses("oldSelf"))
    }

    /// The rule as messages name it.
    fn named(&self) -> &str {
        let text = |field: &str| self.source[field].as_str().unwrap_or("").trim();
        if text("message").is_empty() { text("rule") } else { text("message") }
    }
}

/// The rules of a schema's node and of what lies below; nodes without any are left out.
#[derive(Debug)]
pub struct Rules {
    of: Type,
    /// `type` of the schema.
    kind: String,
    rules: Vec<Rule>,
    correlatable: bool,
    keys: Option<Vec<String>>,
    properties: BTreeMap<String, Rules>,
    additional: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
}

impl Rules {
    /// All rules of a version's schema; `None` when it has none.
    pub fn of(schema: &Value) -> Option<Self> {
        if !has_rules(schema) {
            return None;
        }
        Some(Self::node(schema, &declare::declare(schema, Root::Resource, "selfType")?))
    }

    fn node(schema: &Value, declared: &Declared) -> Self {
        let below = |schema: &Value, name: &str| -> Option<Self> {
            if !has_rules(schema) {
                return None;
            }
            Some(Self::node(schema, &declare::declare(schema, Root::of(schema), name)?))
        };
        let name = declared.of.runtime_name().to_string();
        let properties = schema["properties"].as_object().into_iter().flatten();
        let properties: BTreeMap<String, Rules> =
            properties.filter_map(|(key, s)| Some((key.clone(), below(s, &format!("{name}.{key}"))?))).collect();
        let keys = schema["x-kubernetes-list-map-keys"].as_array();
        let keys = keys.filter(|_| schema["x-kubernetes-list-type"] == "map");
        // A rule of an `allOf` is about the same data as the node itself.
        let alternatives = schema["allOf"].as_array().into_iter().flatten();
        let sources = std::iter::once(schema).chain(alternatives).flat_map(rules_of);
        Self {
            rules: sources.map(|rule| Rule::compile(rule, &declared.of)).collect(),
            of: declared.of.clone(),
            kind: schema["type"].as_str().unwrap_or("").into(),
            correlatable: matches!(schema["x-kubernetes-map-type"].as_str(), None | Some("granular" | "atomic")),
            keys: keys.map(|keys| keys.iter().filter_map(Value::as_str).map(String::from).collect()),
            properties,
            additional: below(&schema["additionalProperties"], &format!("{name}.@elem")).map(Box::new),
            items: below(&schema["items"], &format!("{name}.@elem")).map(Box::new),
        }
    }

    /// What does not hold. Unchanged parts of an old object may stay as they were; what they break is a warning.
    pub fn validate(&self, tree: &Value, old: Option<&Value>) -> (Vec<FieldError>, Vec<String>) {
        let mut run = Run { budget: OBJECT_COST_MAX, ended: false, faults: Vec::new(), warnings: Vec::new() };
        run.node(self, "", tree, old, false);
        (run.faults, run.warnings)
    }
}

pub fn rules_of(schema: &Value) -> impl Iterator<Item = &Value> {
    schema["x-kubernetes-validations"].as_array().into_iter().flatten()
}

fn has_rules(schema: &Value) -> bool {
    rules_of(schema).next().is_some()
        || schema["allOf"].as_array().into_iter().flatten().any(has_rules)
        || schema["properties"].as_object().into_iter().flatten().any(|(_, s)| has_rules(s))
        || (schema["items"].is_object() && has_rules(&schema["items"]))
        || (schema["additionalProperties"].is_object() && has_rules(&schema["additionalProperties"]))
}

/// One evaluation of all rules over an object.
struct Run {
    budget: u64,
    /// Nothing more is evaluated once the budget is spent.
    ended: bool,
    faults: Vec<FieldError>,
    warnings: Vec<String>,
}

impl Run {
    fn node(&mut self, rules: &Rules, path: &str, value: &Value, old: Option<&Value>, unchanged_parent: bool) {
        if self.ended || value.is_null() {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        let unchanged = match old {
            Some(old) => old == value,
            None => unchanged_parent,
        };
        for rule in &rules.rules {
            self.rule(rules, rule, path, value, old, unchanged);
            if self.ended {
                return;
            }
        }
        match value {
            Value::Array(items) => self.items(rules, path, items, old, unchanged),
            Value::Object(fields) => {
                for (key, value) in fields {
                    let before = old.filter(|_| rules.correlatable).and_then(|old| old.get(key));
                    if let Some(below) = rules.properties.get(key) {
                        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                        self.node(below, &path, value, before, unchanged);
                    } else if let Some(below) = &rules.additional {
                        self.node(below, &format!("{path}[{key}]"), value, before, unchanged);
                    }
                }
            }
            _ => {}
        }
    }

    /// Only the entries of map-like lists are known again in the old object.
    fn items(&mut self, rules: &Rules, path: &str, items: &[Value], old: Option<&Value>, unchanged: bool) {
        let Some(below) = &rules.items else { return };
        let before = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for (index, item) in items.iter().enumerate() {
            let same = |other: &&Value| rules.keys.iter().flatten().all(|key| other.get(key) == item.get(key));
            let old = rules.keys.as_ref().and_then(|_| before.iter().find(same));
            self.node(below, &format!("{path}[{index}]"), item, old, unchanged);
        }
    }

    fn invalid(&mut self, rules: &Rules, path: &str, detail: String) {
        let value = Value::String(rules.kind.clone()).to_string();
        self.faults.push(fault(FieldErrorType::Invalid, path, Some(value), detail));
    }

    fn rule(&mut self, rules: &Rules, rule: &Rule, path: &str, value: &Value, old: Option<&Value>, unchanged: bool) {
        let program = match &rule.program {
            Ok(program) => program,
            Err(error) => return self.invalid(rules, path, format!("rule compile error: {error}")),
        };
        let optional = rule.source["optionalOldSelf"] == true;
        if program.uses("oldSelf") && old.is_none() && !optional {
            return;
        }
        let before = old.map(|old| Cel::typed(old, &rules.of));
        let mut scope = Scope::default().with("self", Cel::typed(value, &rules.of));
        match before {
            Some(before) if optional => scope.set("oldSelf", Cel::some(before)),
            Some(before) => scope.set("oldSelf", before),
            None if optional => scope.set("oldSelf", Cel::Optional(None)),
            None => {}
        }
        let mut meter = Meter::new(CALL_COST_MAX);
        let outcome = program.evaluate(&scope, &mut meter);
        if meter.spent() > self.budget && !outcome.as_ref().is_err_and(|failure| failure.is_cost()) {
            self.ended = true;
            let detail = "validation failed due to running out of cost budget, no further validation rules will be run";
            return self.invalid(rules, path, detail.into());
        }
        self.budget = self.budget.saturating_sub(meter.spent());
        match outcome {
            Ok(Cel::Bool(true)) => {}
            Ok(_) => self.broken(rules, rule, path, value, &scope, unchanged),
            Err(failure) => {
                let named = rule.named();
                let text = failure.to_string();
                let detail = if failure.is_cost() {
                    self.ended = true;
                    format!(
                        "'{text}': no further validation rules will be run due to call cost exceeds limit for rule: {named}"
                    )
                } else if text.starts_with("no such overload") {
                    format!(
                        "'{text}': call arguments did not match a supported operator, function or macro signature for rule: {named}"
                    )
                } else {
                    format!("{text} evaluating rule: {named}")
                };
                self.invalid(rules, path, detail);
            }
        }
    }

    /// A rule that does not hold.
    fn broken(&mut self, rules: &Rules, rule: &Rule, path: &str, value: &Value, scope: &Scope<'_>, unchanged: bool) {
        let detail = self.message(rule, scope).unwrap_or_else(|| match rule.source["message"].as_str() {
            Some(message) if !message.is_empty() => message.trim().to_string(),
            _ => format!("failed rule: {}", rule.named()),
        });
        let below = rule.source["fieldPath"].as_str().unwrap_or("");
        let path = match below.strip_prefix('.') {
            Some(below) if path.is_empty() => below.to_string(),
            _ => format!("{path}{below}"),
        };
        let shown = (!matches!(rules.kind.as_str(), "object" | "array")).then(|| value.to_string());
        let error = match rule.source["reason"].as_str() {
            Some("FieldValueForbidden") => fault(FieldErrorType::Forbidden, &path, None, detail),
            Some("FieldValueRequired") => fault(FieldErrorType::Required, &path, None, detail),
            Some("FieldValueDuplicate") => fault(FieldErrorType::Duplicate, &path, shown, String::new()),
            _ => fault(FieldErrorType::Invalid, &path, shown, detail),
        };
        if unchanged && !rule.uses_old() {
            self.warnings.push(format!("{}: {}", error.path, error.body()));
        } else {
            self.faults.push(error);
        }
    }

    fn message(&mut self, rule: &Rule, scope: &Scope<'_>) -> Option<String> {
        let Some(Ok(program)) = &rule.message else { return None };
        let mut meter = Meter::new(CALL_COST_MAX.min(self.budget));
        let outcome = program.evaluate(scope, &mut meter);
        self.budget = self.budget.saturating_sub(meter.spent());
        let Ok(Cel::String(text)) = outcome else { return None };
        let text = text.trim();
        let usable = !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n');
        usable.then(|| text.to_string())
    }
}

fn fault(kind: FieldErrorType, path: &str, value: Option<String>, detail: String) -> FieldError {
    // A fault of the object as a whole has no field; upstream prints that so.
    let path = if path.is_empty() { "<nil>" } else { path };
    FieldError { kind, path: path.into(), value, detail }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.metadata.name != 'bad'", "message": "bad name"}],
            "properties": {"spec": {"type": "object",
                "x-kubernetes-validations": [
                    {"rule": "self.min <= self.max", "messageExpression": "'min ' + string(self.min) + ' is more than ' + string(self.max)"},
                    {"rule": "self.min > 0", "fieldPath": ".min", "reason": "FieldValueForbidden"}],
                "properties": {"min": {"type": "integer"}, "max": {"type": "integer"},
                    "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]},
                    "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}},
                            "x-kubernetes-validations": [{"rule": "self.n >= oldSelf.n"}]}}}}}})
    }

    fn check(new: Value, old: Option<Value>) -> Vec<String> {
        let rules = Rules::of(&schema()).expect("test");
        let (faults, warnings) = rules.validate(&new, old.as_ref());
        faults
            .iter()
            .map(|f| format!("{}: {}", f.path, f.body()))
            .chain(warnings.into_iter().map(|w| format!("warning: {w}")))
            .collect()
    }

    fn of(name: &str, spec: Value) -> Value {
        json!({"metadata": {"name": name}, "spec": spec})
    }

    #[test]
    fn rules_that_hold_say_nothing_and_others_say_what_is_wrong() {
        assert_eq!(check(of("a", json!({"min": 1, "max": 2})), None), Vec::<String>::new());
        assert_eq!(
            check(of("bad", json!({"min": 0, "max": -1})), None),
            [
                "<nil>: Invalid value: bad name",
                "spec: Invalid value: min 0 is more than -1",
                "spec.min: Forbidden: failed rule: self.min > 0",
            ]
        );
        assert_eq!(
            check(of("a", json!({"min": 1})), None),
            ["spec: Invalid value: \"object\": no such key: max evaluating rule: self.min <= self.max"]
        );
    }

    #[test]
    fn transitions_look_at_the_old_object() {
        let spec = |fixed: &str, n: i64| {
            of("a", json!({"min": 1, "max": 1, "fixed": fixed, "parts": [{"name": "x", "n": n}]}))
        };
        assert_eq!(check(spec("a", 1), None), Vec::<String>::new());
        assert_eq!(check(spec("a", 2), Some(spec("a", 1))), Vec::<String>::new());
        assert_eq!(
            check(spec("b", 0), Some(spec("a", 1))),
            [
                "spec.fixed: Invalid value: \"b\": is immutable",
                "spec.parts[0]: Invalid value: failed rule: self.n >= oldSelf.n",
            ]
        );
    }

    #[test]
    fn what_was_wrong_already_may_stay() {
        let wrong =
            |label: &str| json!({"metadata": {"name": "a", "labels": {"l": label}}, "spec": {"min": 3, "max": 2}});
        assert_eq!(check(wrong("y"), Some(wrong("x"))), ["warning: spec: Invalid value: min 3 is more than 2"]);
    }
}
