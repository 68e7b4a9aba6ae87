//! The recorded requests: a line for each case, then one for each of its steps.
//!
//! Owns: what the fields of a line mean (tests/upstream/corpus.py says it in words and is this file's twin).
//! Called by: the replay. Never: sends anything.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub struct Case {
    pub name: String,
    pub steps: Vec<Step>,
}

pub struct Step {
    pub name: String,
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub events: Option<usize>,
    line: Map<String, Value>,
}

/// What the steps before answered, or were sent, by their names.
pub type Before = BTreeMap<String, Value>;

pub fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut base = String::new();
    for line in text.lines() {
        let Ok(Value::Object(line)) = serde_json::from_str::<Value>(line) else {
            panic!("not a line of golden answers: {line}")
        };
        if let Some(name) = line.get("case") {
            base = text_of(&line, "base");
            cases.push(Case { name: name.as_str().expect("a name").into(), steps: Vec::new() });
        } else {
            cases.last_mut().expect("a case before its steps").steps.push(step(&base, line));
        }
    }
    cases
}

fn text_of(line: &Map<String, Value>, key: &str) -> String {
    line.get(key).and_then(Value::as_str).unwrap_or_default().to_string()
}

fn step(base: &str, line: Map<String, Value>) -> Step {
    let request = text_of(&line, "request");
    let (method, rest) = request.split_once(' ').expect("a method and a path");
    let given = line.get("headers").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut headers: Vec<(String, String)> =
        given.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_string())).collect();
    let has_body = ["body", "text", "from", "of"].iter().any(|key| line.contains_key(*key));
    if has_body && !given.contains_key("Content-Type") {
        headers.push(("Content-Type".into(), "application/json".into()));
    }
    let events = line.get("events").and_then(Value::as_u64).map(|n| usize::try_from(n).expect("few events"));
    Step { name: text_of(&line, "step"), method: method.into(), path: format!("{base}{rest}"), headers, events, line }
}

impl Step {
    pub fn body(&self, raw: &Before, sent: &Before) -> Option<String> {
        if let Some(text) = self.line.get("text") {
            return text.as_str().map(str::to_string);
        }
        if let Some(body) = self.line.get("body") {
            return Some(body.to_string());
        }
        let named = |key: &str| self.line.get(key).and_then(Value::as_str);
        let mut base = match (named("from"), named("of")) {
            (Some(name), _) => raw.get(name).cloned().filter(|v| !v.is_null()).unwrap_or_else(|| json!({})),
            (None, Some(name)) => sent.get(name)?.clone(),
            (None, None) => return None,
        };
        for edit in self.line.get("set").and_then(Value::as_array).into_iter().flatten() {
            let path: Vec<&str> = edit[0].as_str().expect("a path").split('/').collect();
            change(&mut base, &path, edit.get(1));
        }
        Some(base.to_string())
    }

    /// The recorded answer: code, headers, and the body put together again from those before it.
    pub fn expected(&self, before: &Before) -> Map<String, Value> {
        let mut answer = self.line.get("answer").and_then(Value::as_object).cloned().expect("an answer");
        if let Some(Value::String(like)) = answer.remove("like") {
            let refusal = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": answer["code"]});
            let mut body = if like.is_empty() { refusal } else { before[&like].clone() };
            if let Some(but) = answer.remove("but") {
                merge(&mut body, but);
            }
            answer.insert("body".into(), body);
        }
        answer
    }

    /// The object that something in the background is about to change, and whether it has.
    pub fn settles(&self) -> Option<(&str, impl Fn(&Value) -> bool)> {
        let settle = self.line.get("settle")?;
        let (path, condition, word) = (settle[0].as_str()?, &settle[1], settle.get(2));
        let settled = move |object: &Value| {
            let metadata = &object["metadata"];
            if metadata.get("deletionTimestamp").is_some() {
                let mut finalizers = metadata["finalizers"].as_array().into_iter().flatten();
                return !finalizers.any(|name| name.as_str().is_some_and(|name| name.ends_with(".k8s.io")));
            }
            let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
            conditions.any(|c| {
                c["type"] == *condition && word.is_none_or(|word| c["status"] == *word || c["reason"] == *word)
            })
        };
        Some((path, settled))
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Sets or removes one place; objects on the way that are missing are made, a place that cannot be is left alone.
fn change(value: &mut Value, path: &[&str], to: Option<&Value>) {
    let (part, rest) = path.split_first().expect("a path has a part");
    match value {
        Value::Object(fields) if rest.is_empty() => match to {
            Some(to) => drop(fields.insert((*part).into(), to.clone())),
            None => drop(fields.remove(*part)),
        },
        Value::Object(fields) => {
            let next = fields.entry(*part).or_insert(Value::Null);
            if !next.is_object() && !next.is_array() {
                *next = json!({});
            }
            change(next, rest, to);
        }
        Value::Array(items) => {
            let index: usize = part.parse().expect("an index");
            match (items.get_mut(index), to) {
                (None, _) => {}
                (Some(item), Some(to)) if rest.is_empty() => *item = to.clone(),
                (Some(_), None) if rest.is_empty() => drop(items.remove(index)),
                (Some(item), to) => change(item, rest, to),
            }
        }
        _ => {}
    }
}

/// `${STEP:path}` stands for a field of that step's answer.
pub fn fill(text: &str, raw: &Before) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once("${") {
        let Some((reference, after)) = tail.split_once('}') else { break };
        let Some((step, path)) = reference.split_once(':') else { break };
        filled.push_str(head);
        let mut value = raw.get(step).unwrap_or(&Value::Null);
        for part in path.split('.') {
            let field = part.parse::<usize>().ok().filter(|_| value.is_array()).and_then(|index| value.get(index));
            value = field.or_else(|| value.get(part)).unwrap_or(&Value::Null);
        }
        match value {
            Value::Null => filled.push_str("missing"),
            Value::String(text) => filled.push_str(text),
            other => filled.push_str(&other.to_string()),
        }
        rest = after;
    }
    filled.push_str(rest);
    filled
}
