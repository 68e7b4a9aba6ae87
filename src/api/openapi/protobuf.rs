//! The documents in protobuf, which kubectl asks for: gnostic's `openapi.v2.Document` and `openapi.v3.Document`.
//!
//! Owns: how a document becomes a message, by the tables of the two versions.
//! Called by: the API server for `/openapi/v2` and `/openapi/v3`.
//! Never: checks the document: what no message has a field for is left out.

mod v2;
mod v3;

use serde_json::Value;

use self::Holds::{
    Any, Anys, Choice, Choices, Flag, Items, Many, Number, One, OrFlag, Scalar, Text, Texts, Type, Whole,
};
use crate::wire::protobuf::put::{bytes, double, int, nested};

/// What a field holds, and so how its JSON is written.
#[derive(Clone, Copy)]
enum Holds {
    Text,
    Texts,
    Flag,
    Number,
    Whole,
    /// Any JSON, as YAML inside a message.
    Any,
    Anys,
    One(&'static Message),
    Many(&'static Message),
    /// A type's name or several: a message with one repeated field.
    Type,
    /// One value or several, in a message likewise.
    Items(&'static Holds),
    /// A value or a flag, each in its own field of a message.
    OrFlag(&'static Holds),
    /// A number, a flag or a text, each in its own field of a message that is empty for anything else.
    Scalar,
    /// A choice between messages: the numbers on the way to the branch, and the message there.
    Choice(fn(&Value) -> Branch),
    Choices(fn(&Value) -> Branch),
}

type Branch = (&'static [u32], &'static Message);

struct Message {
    fields: &'static [(&'static str, u32, Holds)],
    /// Keys that begin with `x-`, each with its value.
    extensions: u32,
    /// All other keys, each with its value.
    named: Option<(u32, Holds)>,
}

const fn message(fields: &'static [(&'static str, u32, Holds)], extensions: u32) -> Message {
    Message { fields, extensions, named: None }
}

/// A message that is a map.
const fn map(number: u32, holds: Holds) -> Message {
    Message { fields: &[], extensions: 0, named: Some((number, holds)) }
}

fn is_reference(value: &Value) -> bool {
    value.get("$ref").is_some()
}

/// A whole document of v2: what `document_v2` writes, or several of them merged.
pub fn protobuf_v2(document: &Value) -> Vec<u8> {
    protobuf(&v2::DOCUMENT, document)
}

/// A document of v3.
pub fn protobuf_v3(document: &Value) -> Vec<u8> {
    protobuf(&v3::DOCUMENT, document)
}

fn protobuf(of: &Message, document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_message(&mut out, of, document);
    out
}

fn write_message(out: &mut Vec<u8>, of: &Message, value: &Value) {
    let Some(object) = value.as_object() else { return };
    for (name, number, holds) in of.fields {
        if let Some(given) = object.get(*name) {
            write(out, *number, *holds, given);
        }
    }
    for (name, given) in object.iter().filter(|(name, _)| of.fields.iter().all(|(known, ..)| name != known)) {
        if of.extensions > 0 && name.starts_with("x-") {
            entry(out, of.extensions, name, Any, given);
        } else if let Some((number, holds)) = of.named {
            entry(out, number, name, holds, given);
        }
    }
}

/// One of a map: the name is field 1 and the value field 2.
fn entry(out: &mut Vec<u8>, number: u32, name: &str, holds: Holds, given: &Value) {
    nested(out, number, |out| {
        bytes(out, 1, name.as_bytes());
        write(out, 2, holds, given);
    });
}

fn each(given: &Value) -> impl Iterator<Item = &Value> {
    given.as_array().into_iter().flatten()
}

fn text(given: &Value) -> &[u8] {
    given.as_str().unwrap_or_default().as_bytes()
}

/// Zeroes, empty texts and `false` are not on the wire in this dialect of protobuf.
fn write(out: &mut Vec<u8>, number: u32, holds: Holds, given: &Value) {
    match holds {
        Text if given.as_str().is_some_and(str::is_empty) => {}
        Text => bytes(out, number, text(given)),
        Texts => each(given).for_each(|one| bytes(out, number, text(one))),
        Flag if given == true => int(out, number, 1),
        Flag => {}
        Number => match given.as_f64().unwrap_or_default() {
            0.0 => {}
            value => double(out, number, value),
        },
        Whole => match given.as_i64().unwrap_or_default() {
            0 => {}
            value => int(out, number, value),
        },
        Any => nested(out, number, |out| {
            // Field 1 would be the same in protobuf's own form of anything, which nobody fills.
            bytes(out, 2, serde_yaml::to_string(given).unwrap_or_default().as_bytes());
        }),
        Anys => each(given).for_each(|one| write(out, number, Any, one)),
        One(of) => nested(out, number, |out| write_message(out, of, given)),
        Many(of) => each(given).for_each(|one| write(out, number, One(of), one)),
        Type => nested(out, number, |out| match given {
            Value::Array(_) => write(out, 1, Texts, given),
            one => write(out, 1, Text, one),
        }),
        Items(of) => nested(out, number, |out| match given {
            Value::Array(items) => items.iter().for_each(|one| write(out, 1, *of, one)),
            one => write(out, 1, *of, one),
        }),
        // Which branch a value took shows only when it is written, so `false`, zero and the empty text are too.
        OrFlag(of) => nested(out, number, |out| match given {
            Value::Bool(flag) => int(out, 2, i64::from(*flag)),
            other => write(out, 1, *of, other),
        }),
        Scalar => nested(out, number, |out| match given {
            Value::Number(number) => double(out, 1, number.as_f64().unwrap_or_default()),
            Value::Bool(flag) => int(out, 2, i64::from(*flag)),
            Value::String(text) => bytes(out, 3, text.as_bytes()),
            _ => {}
        }),
        Choice(of) => nested(out, number, |out| {
            let (way, message) = of(given);
            branch(out, way, message, given);
        }),
        Choices(of) => each(given).for_each(|one| write(out, number, Choice(of), one)),
    }
}

fn branch(out: &mut Vec<u8>, way: &[u32], of: &Message, given: &Value) {
    match way {
        [] => write_message(out, of, given),
        [next, rest @ ..] => nested(out, *next, |out| branch(out, rest, of, given)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::openapi::{Descriptions, document, document_v2, paths_served};

    /// The fields of a message: number and what stands there.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Raw<'_>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let raw = match key & 7 {
                0 => Raw::Number(varint(&mut bytes)),
                1 => Raw::Double(f64::from_le_bytes(take(&mut bytes, 8).try_into().expect("eight bytes"))),
                2 => {
                    let length = varint(&mut bytes) as usize;
                    Raw::Bytes(take(&mut bytes, length))
                }
                wire => panic!("wire type {wire}"),
            };
            found.push((key >> 3, raw));
        }
        found
    }

    #[derive(Clone, Copy)]
    enum Raw<'a> {
        Number(u64),
        Double(f64),
        Bytes(&'a [u8]),
    }

    impl<'a> Raw<'a> {
        fn bytes(self) -> &'a [u8] {
            if let Raw::Bytes(bytes) = self { bytes } else { panic!("a number where bytes are") }
        }

        fn text(self) -> &'a str {
            std::str::from_utf8(self.bytes()).expect("text")
        }
    }

    fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(length);
        *bytes = rest;
        taken
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = take(bytes, 1)[0];
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        n
    }

    fn read(of: &Message, bytes: &[u8]) -> Value {
        let mut object = json!({});
        let mut lists: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for (number, raw) in fields(bytes) {
            let number = number as u32;
            if let Some((name, _, holds)) = of.fields.iter().find(|(_, known, _)| *known == number) {
                let value = read_one(*holds, raw);
                match holds {
                    Texts | Anys | Many(_) | Choices(_) => lists.entry(name).or_default().push(value),
                    _ => object[*name] = value,
                }
                continue;
            }
            let holds = match of.named {
                Some((known, holds)) if known == number => holds,
                _ => {
                    assert_eq!(number, of.extensions, "a number that no field has");
                    Any
                }
            };
            let pair = fields(raw.bytes());
            let value = pair.iter().find(|(n, _)| *n == 2).map_or(json!({}), |(_, raw)| read_one(holds, *raw));
            object[pair[0].1.text()] = value;
        }
        for (name, list) in lists {
            object[name] = list.into();
        }
        object
    }

    fn read_one(holds: Holds, raw: Raw<'_>) -> Value {
        let inner = || fields(raw.bytes())[0];
        match (holds, raw) {
            (Text | Texts, raw) => raw.text().into(),
            (Flag, Raw::Number(n)) => (n == 1).into(),
            (Whole, Raw::Number(n)) => n.into(),
            (Number, Raw::Double(n)) => n.into(),
            (Any | Anys, raw) => serde_yaml::from_str(fields(raw.bytes())[0].1.text()).expect("YAML"),
            (One(of) | Many(of), raw) => read(of, raw.bytes()),
            (Type, raw) => {
                let names: Vec<&str> = fields(raw.bytes()).into_iter().map(|(_, raw)| raw.text()).collect();
                if let [one] = names[..] { one.into() } else { json!(names) }
            }
            (Items(of), _) => read_one(*of, inner().1),
            (OrFlag(of), _) => match inner() {
                (2, Raw::Number(n)) => (n == 1).into(),
                (_, raw) => read_one(*of, raw),
            },
            (Scalar, raw) => match fields(raw.bytes())[..] {
                [(1, Raw::Double(n))] => n.into(),
                [(2, Raw::Number(n))] => (n == 1).into(),
                [(3, raw)] => raw.text().into(),
                // Objects and lists are lost, as they are upstream.
                _ => json!({}),
            },
            (Choice(of) | Choices(of), raw) => read_choice(of, raw),
            _ => panic!("a field of the wrong wire type"),
        }
    }

    /// Goes down until the way is that of a branch.
    fn read_choice(of: fn(&Value) -> Branch, raw: Raw<'_>) -> Value {
        let places = ["body", "header", "formData", "path", "query"].map(|place| json!({"in": place}));
        let kinds = ["file", "basic", "apiKey"].map(|kind| json!({"type": kind}));
        let branches: Vec<Branch> =
            places.iter().chain(&kinds).chain(&[json!({"$ref": ""}), json!({})]).map(of).collect();
        let (mut way, mut raw) = (Vec::new(), raw);
        loop {
            let (number, next) = fields(raw.bytes())[0];
            way.push(number as u32);
            raw = next;
            if let Some((_, message)) = branches.iter().find(|(known, _)| *known == way) {
                return read(message, raw.bytes());
            }
        }
    }

    /// Without what is not on the wire, and with numbers of one kind.
    fn normal(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let said = fields.iter().filter(|(_, v)| **v != false && v.as_f64() != Some(0.0) && **v != "");
                Value::Object(said.map(|(name, v)| (name.clone(), normal(v))).collect())
            }
            Value::Array(items) => items.iter().map(normal).collect(),
            Value::Number(n) => n.as_f64().into(),
            other => other.clone(),
        }
    }

    /// Where two trees first differ: whole documents are too long to read.
    fn difference(path: &str, a: &Value, b: &Value) -> Option<String> {
        match (a, b) {
            (Value::Object(x), Value::Object(y)) if x.keys().eq(y.keys()) => {
                x.iter().find_map(|(key, one)| difference(&format!("{path}/{key}"), one, &y[key]))
            }
            (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
                x.iter().zip(y).enumerate().find_map(|(i, (one, other))| difference(&format!("{path}/{i}"), one, other))
            }
            _ => (a != b).then(|| format!("{path}: {a} and {b}")),
        }
    }

    #[test]
    fn the_whole_document_can_be_read_back() {
        let document: Value =
            serde_json::from_str(&document_v2(&Descriptions::none(), |_, _| {})).expect("the document is JSON");
        let read = read(&v2::DOCUMENT, &protobuf_v2(&document));
        assert_eq!(difference("", &normal(&read), &normal(&document)), None);
    }

    /// What gnostic keeps of a schema that is a reference.
    fn bare_references(value: &mut Value) {
        match value {
            Value::Object(fields) if fields.get("$ref").is_some_and(Value::is_string) => {
                fields.retain(|name, _| name == "$ref" || name == "description");
            }
            Value::Object(fields) => fields.values_mut().for_each(bare_references),
            Value::Array(items) => items.iter_mut().for_each(bare_references),
            _ => {}
        }
    }

    #[test]
    fn every_document_of_v3_can_be_read_back() {
        for path in paths_served() {
            let text = document(path, &Descriptions::none()).expect("a document of ours");
            let mut document: Value = serde_json::from_str(&text).expect("the document is JSON");
            let read = read(&v3::DOCUMENT, &protobuf_v3(&document));
            bare_references(&mut document);
            assert_eq!(difference(path, &normal(&read), &normal(&document)), None);
        }
    }

    #[test]
    fn a_default_of_v3_is_a_scalar_and_a_reference_is_nothing_else() {
        let of = |schema: Value| json!({"components": {"schemas": {"a": schema}}});
        let read = |schema| read(&v3::DOCUMENT, &protobuf_v3(&of(schema)));
        for scalar in [json!(0.5), json!(false), json!("")] {
            assert_eq!(read(json!({"default": scalar})), of(json!({"default": scalar})));
        }
        assert_eq!(read(json!({"default": [1]})), of(json!({"default": {}})));
        assert_eq!(read(json!({"$ref": "#/b", "type": "string"})), of(json!({"$ref": "#/b"})));
    }

    #[test]
    fn the_numbers_are_gnostics() {
        let document = json!({
            "swagger": "2.0",
            "paths": {"/a": {"get": {
                "parameters": [{"name": "n", "in": "query", "type": "string", "uniqueItems": true}],
                "responses": {"200": {"description": "OK"}},
                "x-k": "v",
            }}},
        });
        // As protoc decodes it: 1: "2.0", 8 { 2 { 1: "/a", 2 { 2 { 8 { 1 { 2 { 3 { 2: "query", ...
        let expected = b"\x0a\x032.0\x42\x45\x12\x43\x0a\x02/a\x12\x3d\x12\x3b\
            \x42\x1b\x0a\x19\x12\x17\x1a\x15\x12\x05query\x22\x01n\x32\x06string\xa0\x01\x01\
            \x4a\x0f\x0a\x0d\x0a\x03200\x12\x06\x0a\x04\x0a\x02OK\x6a\x0b\x0a\x03x-k\x12\x04\x12\x02v\x0a";
        assert_eq!(String::from_utf8_lossy(&protobuf_v2(&document)), String::from_utf8_lossy(expected));
    }

    #[test]
    fn a_schema_may_forbid_what_it_does_not_name() {
        let schema = json!({"definitions": {"a": {"additionalProperties": false}}});
        assert_eq!(read(&v2::DOCUMENT, &protobuf_v2(&schema)), schema);
    }
}
