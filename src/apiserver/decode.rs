//! The body of a write, as an object of the kind that belongs there.
//!
//! Owns: content types, `fieldValidation`, the check of `apiVersion` and `kind`, and the words for a body that fails.
//! Called by: create, update, apply, and subresources that take a body.
//! Never: fills in defaults.

use bytes::Bytes;
use minik_api::decode::{self, DecodeError, Decoded};
use minik_api::registry::{self, GroupVersionKind, api_version, split_api_version};
use minik_api::schema::Type;
use minik_api::wire::protobuf;
use minik_api::{FieldError, Status, object};
use serde_json::Value;

use crate::call::{Call, FieldValidation};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

/// Brackets within brackets; objects of Kubernetes are far below.
const YAML_DEPTH_MAX: usize = 256;

/// Reads YAML, of which JSON is a part and mostly all of it. The time of the YAML parser grows with the square of the
/// depth, so that is looked at first; without regard to quotes, which nobody but the parser could tell.
pub fn yaml<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    if let Ok(read) = serde_json::from_slice(body) {
        return Ok(read);
    }
    if flow_depth(body) > YAML_DEPTH_MAX {
        return Err(format!("exceeded max depth of {YAML_DEPTH_MAX}"));
    }
    // Further documents are not read, as upstream does.
    let first = serde_yaml::Deserializer::from_slice(body).next();
    first.map_or_else(|| serde_yaml::from_str("null"), T::deserialize).map_err(|e| in_gos_words(&e))
}

/// `yaml: line 2: what is wrong`, without the place in the line and what was being read.
fn in_gos_words(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    let text = text.split(", while ").next().unwrap_or_default();
    match (text.rsplit_once(" at line "), error.location()) {
        (Some((what, _)), Some(place)) => format!("line {}: {what}", place.line()),
        _ => text.into(),
    }
}

fn flow_depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in body {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

pub fn unsupported(accepted: &[&str]) -> Status {
    let list = accepted.join(", ");
    let message = format!("the body of the request was in an unknown format - accepted media types include: {list}");
    Status::new(415, "UnsupportedMediaType", message)
}

/// What a body says it is.
#[derive(serde::Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Said {
    kind: String,
    api_version: String,
}

/// The refusal of a body that is of another kind, one the server knows: it is read as that, and cannot become another.
fn other_kind(body: &[u8], expected: &GroupVersionKind) -> Option<Status> {
    let said: Said = yaml(body).ok()?;
    let (_, version) = split_api_version(&said.api_version);
    if said.kind.is_empty() || said.kind == *expected.kind || Type::of(&said.api_version, &said.kind).is_none() {
        return None;
    }
    let package = go_package(&expected.group);
    let why = format!("converting ({version}.{}) to ({package}.{}): unknown conversion", said.kind, expected.kind);
    Some(refuse(body, expected, &why))
}

/// The package of upstream's program that holds the kinds of a group, as some of its messages say.
pub fn go_package(group: &str) -> &str {
    match group.split('.').next() {
        None | Some("" | "events") => "core",
        Some(package) => package,
    }
}

/// Upstream's sentence about a body of the wrong shape. What does not say its type is taken for what belongs there.
fn refuse(body: &[u8], expected: &GroupVersionKind, why: &str) -> Status {
    let said: Said = yaml(body).unwrap_or_default();
    let (_, version) = split_api_version(&said.api_version);
    let version = if version.is_empty() { &expected.version } else { version };
    let kind = if said.kind.is_empty() { expected.kind.as_ref() } else { &said.kind };
    Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {}: {why}", expected.kind))
}

/// Upstream reads a body's type before the rest, so what is no JSON fails there.
pub fn no_json(why: &str) -> String {
    format!("couldn't get version/kind; json parse error: {why}")
}

/// The same about one that is no object at all.
fn unread(call_type: &str, body: &[u8], expected: &GroupVersionKind, error: &DecodeError) -> Status {
    let why = match error {
        DecodeError::Type(why) => return refuse(body, expected, why),
        DecodeError::Syntax(why) if matches!(call_type, YAML | protobuf::CONTENT_TYPE) => why.clone(),
        DecodeError::Syntax(why) => no_json(why),
    };
    let quoted = decode::summary(body);
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({quoted})",
        expected.kind
    ))
}

/// Reads `body` as `of`, or as any JSON when the kind has no schema here.
fn read(call_type: &str, body: &Bytes, of: Option<Type>) -> Result<Result<Decoded, DecodeError>, Status> {
    // Go leaves what it reads `null` into as it is: empty.
    let body = if of.is_some() && body.trim_ascii() == b"null" { &Bytes::from_static(b"{}") } else { body };
    Ok(match (call_type, of) {
        ("" | JSON, Some(of)) => decode::from_json(of, body),
        ("" | JSON, None) => decode::untyped_json(body),
        (YAML, _) => yaml::<Value>(body)
            .map_err(|e| DecodeError::Syntax(format!("yaml: {e}")))
            .and_then(|tree| read_tree(of, tree))
            .map(|mut decoded| {
                decoded.strict.extend(repeated_key(body));
                decoded
            }),
        (protobuf::CONTENT_TYPE, Some(_)) => {
            protobuf::decode(body).map_err(|e| DecodeError::Syntax(e.to_string())).and_then(|tree| read_tree(of, tree))
        }
        (protobuf::CONTENT_TYPE, None) => return Err(unsupported(&[JSON, YAML])),
        _ => return Err(unsupported(&[JSON, YAML, protobuf::CONTENT_TYPE])),
    })
}

fn read_tree(of: Option<Type>, tree: Value) -> Result<Decoded, DecodeError> {
    match of {
        Some(of) => decode::from_value(of, tree),
        None => Ok(Decoded { object: tree, strict: Vec::new() }),
    }
}

/// The call's body as an object of `expected`.
pub fn body(call: &Call, expected: &GroupVersionKind, validation: FieldValidation) -> Result<Value, Status> {
    let of = Type::of_kind(&expected.group, &expected.version, &expected.kind)
        .filter(|_| call.served.custom().is_none() || *expected != call.served.row.kind());
    let decoded = read(call.content_type(), &call.body, of)?;
    let mut decoded = decoded.map_err(|e| match other_kind(&call.body, expected) {
        Some(refusal) => refusal,
        None => unread(call.content_type(), &call.body, expected, &e),
    })?;
    if let Some(custom) = call.served.custom().filter(|_| of.is_none()) {
        let strict = custom.read(&mut decoded.object).map_err(|e| refuse(&call.body, expected, &e))?;
        decoded.strict.extend(strict);
    }
    // Fields of another kind are no unknown ones.
    if !decoded.strict.is_empty()
        && let Some(refusal) = other_kind(&call.body, expected)
    {
        return Err(refusal);
    }
    strictly(call, &decoded.strict, validation, |why| refuse(&call.body, expected, why))?;
    if call.served.custom().is_some() && of.is_none() {
        custom_kind(&decoded.object, expected)?;
    }
    with_type(decoded.object, expected, &call.body)
}

/// What `fieldValidation` makes of unknown and duplicate fields.
pub fn strictly(
    call: &Call,
    strict: &[String],
    validation: FieldValidation,
    refuse: impl FnOnce(&str) -> Status,
) -> Result<(), Status> {
    match validation {
        FieldValidation::Strict if !strict.is_empty() => Err(refuse(&decode::strict_error(strict))),
        FieldValidation::Warn => {
            strict.iter().for_each(|text| call.warn(text.as_str()));
            Ok(())
        }
        _ => Ok(()),
    }
}

pub fn not_registered(kind: &str, version: &str) -> String {
    // Upstream's scheme is named after the place in its source where it is made.
    format!("no kind {kind:?} is registered for version {version:?} in scheme \"pkg/runtime/scheme.go:111\"")
}

/// Upstream reads custom resources without knowing their kinds, so one of another kind is an invalid one.
fn custom_kind(tree: &Value, expected: &GroupVersionKind) -> Result<(), Status> {
    let said = tree["kind"].as_str().unwrap_or("");
    if said.is_empty() || said == expected.kind {
        return Ok(());
    }
    let fault = FieldError::invalid("kind", &said.into(), format!("must be {}", expected.kind));
    Err(Status::invalid(&expected.group, said, object::name(tree), &[fault]))
}

/// A body may leave its type out; what it says must be what belongs here.
fn with_type(mut tree: Value, expected: &GroupVersionKind, body: &[u8]) -> Result<Value, Status> {
    let Some(fields) = tree.as_object_mut() else {
        return Err(refuse(body, expected, "json: cannot unmarshal into Go value of type map[string]interface {}"));
    };
    let said = |field: &str| fields.get(field).and_then(Value::as_str).unwrap_or("").to_string();
    let (said_kind, said_version) = (said("kind"), said("apiVersion"));
    let wanted = api_version(&expected.group, &expected.version);
    if !said_kind.is_empty() && said_kind != *expected.kind {
        let version = if said_version.is_empty() { &wanted } else { &said_version };
        return Err(
            other_kind(body, expected).unwrap_or_else(|| refuse(body, expected, &not_registered(&said_kind, version)))
        );
    }
    if !said_version.is_empty() && said_version != wanted {
        let (group, version) = split_api_version(&said_version);
        if registry::by_kind(group, version, &expected.kind).is_none() {
            return Err(refuse(body, expected, &not_registered(&expected.kind, &said_version)));
        }
        let message =
            format!("the API version in the data ({said_version}) does not match the expected API version ({wanted})");
        return Err(Status::bad_request(message));
    }
    fields.insert("kind".into(), expected.kind.as_ref().into());
    fields.insert("apiVersion".into(), wanted.into());
    if !fields.get("metadata").is_some_and(Value::is_object) {
        fields.insert("metadata".into(), Value::Object(Default::default()));
    }
    Ok(tree)
}

/// The namespace of the body is that of the request, or left out.
pub fn check_namespace(tree: &mut Value, namespace: &str) -> Result<(), Status> {
    let said = object::namespace(tree).to_string();
    let metadata = tree["metadata"].as_object_mut().expect("`with_type` gave it one");
    if namespace.is_empty() {
        metadata.remove("namespace");
        return Ok(());
    }
    if !said.is_empty() && said != namespace {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(message));
    }
    metadata.insert("namespace".into(), namespace.into());
    Ok(())
}

/// A key that stands twice in one mapping, in the words of Go's YAML.
pub fn repeated_key(body: &[u8]) -> Option<String> {
    let error = serde_yaml::from_slice::<serde_yaml::Value>(body).err()?;
    let said = error.to_string();
    let (_, rest) = said.split_once("duplicate entry with key \"")?;
    let (key, _) = rest.split_once('"')?;
    let text = String::from_utf8_lossy(body);
    let line = second_line(&text, key).or(error.location().map(|l| l.line())).unwrap_or(1);
    Some(format!("yaml: unmarshal errors:\n  line {line}: key {key:?} already set in map"))
}

/// The line on which `key` stands for the second time at one depth.
fn second_line(text: &str, key: &str) -> Option<usize> {
    let mut seen: Vec<usize> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let item = content.trim_start_matches("- ").trim_start();
        // An element of a list begins a mapping of its own.
        let depth = line.len() - item.len();
        seen.retain(|d| *d < depth || (*d == depth && item.len() == content.len()));
        let named = item.trim_start_matches(['"', '\'']).strip_prefix(key);
        if !named.is_some_and(|rest| rest.trim_start_matches(['"', '\'']).starts_with(':')) {
            continue;
        }
        if seen.contains(&depth) {
            return Some(index + 1);
        }
        seen.push(depth);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_key_is_found_with_its_line() {
        let text = "\na: 1\nspec:\n  foo: x\n  list:\n  - foo: y\n  - foo: z\n  foo: w\n";
        assert_eq!(
            repeated_key(text.as_bytes()).as_deref(),
            Some("yaml: unmarshal errors:\n  line 8: key \"foo\" already set in map")
        );
        assert_eq!(repeated_key(b"a: 1\nb:\n  a: 1\n"), None);
    }
}
