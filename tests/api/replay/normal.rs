//! What of an answer may differ between two servers that behave the same: replaced by names in angle brackets.
//!
//! Owns: the normal form, and the condensed form of the golden files (tests/upstream/normal.py is this file's twin).
//! Called by: the replay. Never: drops a field.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::Answer;

const HEADERS: [&str; 7] =
    ["content-type", "warning", "retry-after", "allow", "location", "www-authenticate", "cache-control"];
const LONG: usize = 400;
const FIELDS_LONG: usize = 150;
/// The field of ObjectMeta in protobuf: as unordered there as in JSON.
const MANAGED_FIELDS: u64 = 17;

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern")
}
static UID: LazyLock<Regex> = LazyLock::new(|| pattern("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"));
/// Times of the corpus itself lie before 2025 or after 2089.
static TIME: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"20(2[5-9]|[3-8][0-9])-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| \+0000 UTC)( m=\+[0-9.]+)?")
});
static AGE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(\d+[smhd]){1,2}$"));
static VERSIONS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(ResourceVersion in object meta: |ResourceVersion in record \(|current: |resourceVersion: )\d+")
});
static TOKEN_VOLUME: LazyLock<Regex> = LazyLock::new(|| pattern("kube-api-access-[a-z0-9]{5}"));
static PORT: LazyLock<Regex> = LazyLock::new(|| pattern(r":3[0-2]\d{3}/"));
static GENERATED: LazyLock<Regex> = LazyLock::new(|| pattern("^[bcdfghjklmnpqrstvwxz2456789]{5}$"));
static DIGITS: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\d+$"));
static ADDRESS: LazyLock<Regex> = LazyLock::new(|| pattern(r"^10\.96\.(\d+)\.(\d+)$"));

/// Uids and resource versions of one case, numbered in the order they are first seen.
#[derive(Default)]
pub struct Names {
    uids: BTreeMap<String, String>,
    versions: BTreeMap<String, String>,
}

impl Names {
    fn version(&mut self, raw: &str) -> Value {
        let next = format!("<rv{}>", self.versions.len() + 1);
        self.versions.entry(raw.into()).or_insert(next).clone().into()
    }

    fn text(&mut self, value: &str) -> String {
        let value = UID.replace_all(value, |found: &Captures<'_>| {
            let next = format!("<uid{}>", self.uids.len() + 1);
            self.uids.entry(found[0].into()).or_insert(next).clone()
        });
        let value = TIME.replace_all(&value, |found: &Captures<'_>| match found.get(2) {
            Some(_) => "<microtime>",
            None => "<time>",
        });
        let value = VERSIONS.replace_all(&value, "${1}<rv>");
        let value = TOKEN_VOLUME.replace_all(&value, "kube-api-access-<generated>");
        PORT.replace_all(&value, ":<port>/").into_owned()
    }

    fn walk(&mut self, value: &Value, key: &str) -> Value {
        match value {
            Value::Object(fields) => {
                let mut sorted: Vec<&String> = fields.keys().collect();
                sorted.sort();
                sorted
                    .into_iter()
                    .map(|name| (name.clone(), self.field(fields, name, key)))
                    .collect::<Map<_, _>>()
                    .into()
            }
            Value::Array(items) if key == "cells" => items.iter().map(|item| self.cell(item)).collect(),
            Value::Array(items) if key == "managedFields" => {
                let mut sorted: Vec<&Value> = items.iter().collect();
                sorted.sort_by_key(|entry| manager(entry));
                sorted.into_iter().map(|item| self.walk(item, key)).collect()
            }
            Value::Array(items) => items.iter().map(|item| self.walk(item, key)).collect(),
            Value::String(text) if given_address(text) => "<ip>".into(),
            Value::String(text) => self.text(text).into(),
            other => other.clone(),
        }
    }

    fn field(&mut self, parent: &Map<String, Value>, name: &str, key: &str) -> Value {
        let value = &parent[name];
        match (name, value) {
            ("resourceVersion", Value::String(raw)) if key == "metadata" && !raw.is_empty() && raw != "0" => {
                let known = parent.get("uid").and_then(Value::as_str).is_some_and(|uid| !uid.is_empty());
                if known { self.version(raw) } else { "<rv>".into() }
            }
            ("continue", Value::String(token)) if !token.is_empty() => "<continue>".into(),
            ("name", Value::String(text)) if generated_from(parent, text).is_some() => {
                generated_from(parent, text).unwrap_or_default().into()
            }
            ("nodePort" | "healthCheckNodePort", Value::Number(port))
                if port.as_i64().is_some_and(|p| (30_086..=32_767).contains(&p)) =>
            {
                "<port>".into()
            }
            ("token", Value::String(token)) if token.starts_with("ey") => "<jwt>".into(),
            _ => self.walk(value, name),
        }
    }

    fn cell(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) if AGE.is_match(text) => "<age>".into(),
            other => self.walk(other, ""),
        }
    }

    /// A tree of fields read without their schema: printable text is text, what parses is a message, numbers are numbers.
    fn proto(&mut self, data: &[u8]) -> Option<Value> {
        let mut message = Vec::new();
        let mut at = 0;
        while at < data.len() {
            let tag = varint(data, &mut at)?;
            let value = match tag & 7 {
                0 => match varint(data, &mut at)? {
                    seconds if (1_700_000_001..3_000_000_000).contains(&seconds) => json!("<time>"),
                    number => json!(number),
                },
                1 => hex::encode(take(data, &mut at, 8)?).into(),
                5 => hex::encode(take(data, &mut at, 4)?).into(),
                2 => {
                    let size = usize::try_from(varint(data, &mut at)?).ok()?;
                    self.chunk(take(data, &mut at, size)?)
                }
                _ => return None,
            };
            if tag >> 3 == 0 {
                return None;
            }
            message.push(json!([tag >> 3, value]));
        }
        let managed = |field: &Value| field[0] == MANAGED_FIELDS;
        let mut entries: Vec<Value> = message.iter().filter(|field| managed(field)).cloned().collect();
        entries.sort_by_cached_key(canonical);
        let mut entries = entries.into_iter();
        message.iter_mut().filter(|field| managed(field)).zip(&mut entries).for_each(|(place, entry)| *place = entry);
        Some(message.into())
    }

    fn chunk(&mut self, data: &[u8]) -> Value {
        if data.iter().all(|b| *b >= 0x20 && *b != 0x7f)
            && let Ok(text) = std::str::from_utf8(data)
        {
            return match text {
                number if DIGITS.is_match(number) => "<number>".into(),
                address if given_address(address) => "<ip>".into(),
                other => self.text(other).into(),
            };
        }
        self.proto(data).unwrap_or_else(|| self.text(&String::from_utf8_lossy(data)).into())
    }
}

fn take<'a>(data: &'a [u8], at: &mut usize, size: usize) -> Option<&'a [u8]> {
    let found = data.get(*at..at.checked_add(size)?)?;
    *at += size;
    Some(found)
}

fn varint(data: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let byte = *data.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// `name-<generated>` when the server made the end of it.
fn generated_from(parent: &Map<String, Value>, name: &str) -> Option<String> {
    let prefix = parent.get("generateName")?.as_str().filter(|p| !p.is_empty())?;
    let rest = name.strip_prefix(prefix)?;
    Some(if GENERATED.is_match(rest) { format!("{prefix}<generated>") } else { name.to_string() })
}

/// An address the server chose: the corpus itself asks only for those of 10.96.0.0/24, which are not given freely.
fn given_address(text: &str) -> bool {
    ADDRESS.captures(text).is_some_and(|found| &found[1] != "0")
}

/// Servers order the entries by their second first, which is no fact of theirs.
fn manager(entry: &Value) -> Vec<String> {
    let fields = ["operation", "manager", "subresource", "apiVersion"];
    fields.iter().map(|field| entry[field].as_str().unwrap_or_default().to_string()).collect()
}

/// Headers that matter and are not the usual ones, and the body, both in normal form.
pub fn answer(names: &mut Names, watch: bool, answer: &Answer) -> (Map<String, Value>, Value) {
    let mut headers = Map::new();
    let media = answer.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_string();
    for header in HEADERS {
        let values: Vec<&str> = answer.headers.get_all(header).iter().filter_map(|v| v.to_str().ok()).collect();
        let usual = match header {
            "cache-control" => ["no-cache, private"].as_slice(),
            "content-type" => ["application/json"].as_slice(),
            _ => [].as_slice(),
        };
        if values != usual {
            headers.insert(header.into(), names.text(&values.join(" | ")).into());
        }
    }
    (headers, body(names, watch, &media, &answer.content))
}

fn body(names: &mut Names, watch: bool, media: &str, content: &[u8]) -> Value {
    if content.is_empty() {
        return Value::Null;
    }
    if watch && content.starts_with(b"{") {
        let lines = content.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let events: Vec<Value> =
            lines.map(|line| names.walk(&serde_json::from_slice(line).expect("an event"), "")).collect();
        return json!({ "events": events });
    }
    if media.contains("protobuf") {
        return json!({"proto": names.proto(content.get(4..).unwrap_or_default())});
    }
    let parsed = if media.contains("yaml") {
        serde_yaml::from_slice(content).ok()
    } else {
        serde_json::from_slice(content).ok()
    };
    match parsed {
        Some(parsed) => names.walk(&parsed, ""),
        None => json!({"text": names.text(&String::from_utf8_lossy(content))}),
    }
}

/// Keys sorted, no spaces.
fn canonical(value: &Value) -> String {
    value.to_string()
}

pub fn digest(value: &Value) -> String {
    format!("#{}", &hex::encode(Sha256::digest(canonical(value)))[..12])
}

/// Long prose, printed columns, protobuf and the field lists of managers become hashes; everything else stays as it is.
pub fn condensed(value: &Value) -> Value {
    condense(value, "", false)
}

fn condense(value: &Value, key: &str, listed: bool) -> Value {
    let hashed = match key {
        "columnDefinitions" | "proto" => true,
        "managedFields" => listed,
        "fieldsV1" => canonical(value).chars().count() > FIELDS_LONG,
        _ => false,
    };
    match value {
        _ if hashed => digest(value).into(),
        Value::Object(fields) => {
            let told = fields.get("reason").is_some_and(|r| r == "Invalid")
                && fields.get("message").and_then(Value::as_str) == Some(&told(value));
            let each = |(name, field): (&String, &Value)| match name.as_str() {
                "message" if told => (name.clone(), "<its causes>".into()),
                _ => (name.clone(), condense(field, name, listed)),
            };
            fields.iter().map(each).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => {
            let listed = listed || matches!(key, "items" | "rows" | "events");
            items.iter().map(|item| condense(item, "", listed)).collect()
        }
        Value::String(text) if text.chars().count() > LONG => digest(value).into(),
        other => other.clone(),
    }
}

/// The message that follows from the details of a refusal.
fn told(status: &Value) -> String {
    let details = &status["details"];
    let text = |value: &Value| value.as_str().unwrap_or("None").to_string();
    let causes: Vec<String> = details["causes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|cause| format!("{}: {}", text(&cause["field"]), text(&cause["message"])))
        .collect();
    let group = details["group"].as_str().map(|g| format!(".{g}")).unwrap_or_default();
    let kind = details["kind"].as_str().unwrap_or_default();
    let name = details["name"].as_str().unwrap_or_default();
    let list = match causes.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    format!("{kind}{group} \"{name}\" is invalid: {list}")
}
