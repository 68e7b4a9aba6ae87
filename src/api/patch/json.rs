//! JSON patch, RFC 6902, with the errors of the library upstream uses.
//!
//! Owns: the six operations and their texts.
//! Called by: PATCH with `application/json-patch+json`, mutating webhooks.
//! Never: leaves a document half patched: it works on a copy.

use serde_json::Value;

use crate::Status;

/// Upstream's limit on operations in one patch.
pub const OPERATIONS_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The patch itself is no patch.
    #[error("{0}")]
    Malformed(String),
    #[error("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {0}")]
    TooManyOperations(usize),
    /// It does not fit this document.
    #[error("{0}")]
    DoesNotApply(String),
}

impl Fault {
    /// Whether the document is simply not what a `test` operation asked for.
    pub fn is_failed_test(&self) -> bool {
        matches!(self, Self::DoesNotApply(text) if text.starts_with("testing ") && text.ends_with("test failed"))
    }
}

/// `patch` is the list of operations. What a client sees of a patch that does not fit is upstream's bare sentence.
pub fn apply(document: &Value, patch: &Value) -> Result<Value, Status> {
    operate_all(document, patch).map_err(|fault| match fault {
        Fault::Malformed(text) => Status::bad_request(text),
        Fault::TooManyOperations(_) => Status::new(413, "RequestEntityTooLarge", fault.to_string()),
        Fault::DoesNotApply(_) => {
            let message = "the server rejected our request due to an error in our request";
            Status { details: Some(Default::default()), ..Status::new(422, "Invalid", message) }
        }
    })
}

/// As `apply`, with the whole story when it fails: webhooks' patches are answered with it.
pub fn operate_all(document: &Value, patch: &Value) -> Result<Value, Fault> {
    let Some(operations) = patch.as_array() else {
        let text = "json: cannot unmarshal object into Go value of type jsonpatch.Patch";
        return Err(Fault::Malformed(text.into()));
    };
    if operations.len() > OPERATIONS_MAX {
        return Err(Fault::TooManyOperations(operations.len()));
    }
    let mut result = document.clone();
    for operation in operations {
        operate(&mut result, operation)?;
    }
    Ok(result)
}

fn operate(document: &mut Value, operation: &Value) -> Result<(), Fault> {
    let text = |field: &str| operation[field].as_str().map(str::to_string);
    let name = text("op").unwrap_or_default();
    let path = text("path");
    let what = name.as_str();
    if !matches!(what, "add" | "remove" | "replace" | "move" | "copy" | "test") {
        let kind = if what.is_empty() { "unknown" } else { what };
        return Err(Fault::DoesNotApply(format!("Unexpected kind: {kind}")));
    }
    let Some(path) = path else {
        return Err(Fault::DoesNotApply(format!("{what} operation failed to decode path: missing value")));
    };
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    match what {
        "add" => add(document, &path, value(), "add"),
        "remove" => take(document, &path, "remove").map(drop),
        "replace" => replace(document, &path, value()),
        "test" => test(document, &path, &value()),
        "move" | "copy" => {
            let Some(from) = text("from") else {
                return Err(Fault::DoesNotApply(format!("{what} operation failed to decode from: missing value")));
            };
            let moved = if what == "move" {
                take(document, &from, "move")?
            } else {
                let missing = || {
                    Fault::DoesNotApply(format!(
                        "copy operation does not apply: doc is missing from path: {from}: missing value"
                    ))
                };
                find(document, &from).cloned().ok_or_else(missing)?
            };
            add(document, &path, moved, what)
        }
        _ => unreachable!("checked above"),
    }
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

fn index(token: &str, length: usize) -> Option<usize> {
    let number: i64 = token.parse().ok()?;
    // Negative indices count from the end: an extension of upstream's library.
    let number = if number < 0 { number + length as i64 } else { number };
    usize::try_from(number).ok().filter(|n| *n < length)
}

fn find<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(document);
    }
    path.strip_prefix('/')?.split('/').map(unescape).try_fold(document, |at, token| match at {
        Value::Object(map) => map.get(&token),
        Value::Array(list) => list.get(index(&token, list.len())?),
        _ => None,
    })
}

/// The container that holds the last token of `path`, and that token.
fn parent<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (holder, last) =
        path.strip_prefix('/')?.rsplit_once('/').map_or(("", path.strip_prefix('/')?), |(h, l)| (h, l));
    let mut at = document;
    if !holder.is_empty() || path[1..].starts_with('/') {
        for token in holder.split('/').map(unescape) {
            at = match at {
                Value::Object(map) => map.get_mut(&token)?,
                Value::Array(list) => {
                    let i = index(&token, list.len())?;
                    &mut list[i]
                }
                _ => return None,
            };
        }
    }
    matches!(at, Value::Object(_) | Value::Array(_)).then(|| (at, unescape(last)))
}

fn add(document: &mut Value, path: &str, value: Value, what: &str) -> Result<(), Fault> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let Some((holder, key)) = parent(document, path) else {
        let missing = if what == "add" { format!("path: {path:?}") } else { format!("destination path: {path}") };
        return Err(Fault::DoesNotApply(format!(
            "{what} operation does not apply: doc is missing {missing}: missing value"
        )));
    };
    match holder {
        Value::Object(map) => {
            map.insert(key, value);
        }
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => {
            let fault = |why: String| Fault::DoesNotApply(format!("error in {what} for path: '{path}': {why}"));
            let Ok(number) = key.parse::<i64>() else {
                let why = format!(
                    "value was not a proper array index: '{key}': strconv.Atoi: parsing {key:?}: invalid syntax"
                );
                return Err(fault(why));
            };
            let place = if number < 0 { number + list.len() as i64 + 1 } else { number };
            match usize::try_from(place) {
                Ok(place) if place <= list.len() => list.insert(place, value),
                _ => return Err(fault(format!("Unable to access invalid index: {number}: invalid index referenced"))),
            }
        }
        _ => unreachable!("parent answers containers only"),
    }
    Ok(())
}

fn take(document: &mut Value, path: &str, what: &str) -> Result<Value, Fault> {
    let Some((holder, key)) = parent(document, path) else {
        let place = if what == "move" { format!("from path: {path}") } else { format!("path: {path:?}") };
        return Err(Fault::DoesNotApply(format!(
            "{what} operation does not apply: doc is missing {place}: missing value"
        )));
    };
    let fault = |why: String| Fault::DoesNotApply(format!("error in {what} for path: '{path}': {why}"));
    match holder {
        Value::Object(map) => {
            map.remove(&key).ok_or_else(|| fault(format!("Unable to remove nonexistent key: {key}: missing value")))
        }
        Value::Array(list) => match index(&key, list.len()) {
            Some(i) => Ok(list.remove(i)),
            None => Err(fault(format!("Unable to access invalid index: {key}: invalid index referenced"))),
        },
        _ => unreachable!("parent answers containers only"),
    }
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), Fault> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let Some((holder, key)) = parent(document, path) else {
        return Err(Fault::DoesNotApply(format!(
            "replace operation does not apply: doc is missing path: {path}: missing value"
        )));
    };
    let slot = match holder {
        Value::Object(map) => map.get_mut(&key),
        Value::Array(list) => index(&key, list.len()).map(|i| &mut list[i]),
        _ => unreachable!("parent answers containers only"),
    };
    match slot {
        Some(slot) => {
            *slot = value;
            Ok(())
        }
        None => Err(Fault::DoesNotApply(format!(
            "replace operation does not apply: doc is missing key: {path}: missing value"
        ))),
    }
}

fn test(document: &Value, path: &str, expected: &Value) -> Result<(), Fault> {
    // A missing member equals null, as upstream's library has it.
    let found = find(document, path).unwrap_or(&Value::Null);
    if same(found, expected) {
        return Ok(());
    }
    Err(Fault::DoesNotApply(format!("testing value {path} failed: test failed")))
}

/// Equality in which 1 and 1.0 are the same number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(document: Value, patch: Value, expected: Value) {
        assert_eq!(apply(&document, &patch).unwrap(), expected);
    }

    fn fault(document: Value, patch: Value) -> String {
        assert_eq!(apply(&document, &patch).unwrap_err().code, 422);
        operate_all(&document, &patch).unwrap_err().to_string()
    }

    #[test]
    fn each_operation_does_its_work() {
        check(json!({"a": [1, 2]}), json!([{"op": "add", "path": "/a/1", "value": 9}]), json!({"a": [1, 9, 2]}));
        check(json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), json!({"a": [1, 2]}));
        check(json!({"a/b": 1}), json!([{"op": "replace", "path": "/a~1b", "value": 2}]), json!({"a/b": 2}));
        check(json!({"a": {"b": 1}}), json!([{"op": "move", "from": "/a/b", "path": "/c"}]), json!({"a": {}, "c": 1}));
        check(json!({"a": 1}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), json!({"a": 1, "b": 1}));
        check(json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/0"}]), json!({"a": [2]}));
        check(
            json!({"a": 1}),
            json!([{"op": "test", "path": "/a", "value": 1.0}, {"op": "test", "path": "/b", "value": null}]),
            json!({"a": 1}),
        );
    }

    #[test]
    fn a_patch_that_does_not_fit_says_where() {
        let cases = [
            (
                json!({"op": "remove", "path": "/a"}),
                "error in remove for path: '/a': Unable to remove nonexistent key: a: missing value",
            ),
            (
                json!({"op": "replace", "path": "/a", "value": 1}),
                "replace operation does not apply: doc is missing key: /a: missing value",
            ),
            (
                json!({"op": "add", "path": "/a/b", "value": 1}),
                "add operation does not apply: doc is missing path: \"/a/b\": missing value",
            ),
            (json!({"op": "test", "path": "/x", "value": 2}), "testing value /x failed: test failed"),
            (json!({"op": "shake", "path": "/a"}), "Unexpected kind: shake"),
        ];
        for (operation, expected) in cases {
            assert_eq!(fault(json!({"x": 1}), json!([operation])), expected);
        }
        assert_eq!(apply(&json!({}), &json!({})).unwrap_err().code, 400);
    }
}
