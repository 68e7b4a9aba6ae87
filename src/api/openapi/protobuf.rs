//! The v2 document in protobuf, which kubectl asks for: gnostic's `openapi.v2.Document` (OpenAPIv2.proto).
//!
//! Owns: the messages' fields and numbers, and which branch of a choice a value takes.
//! Called by: the API server for `/openapi/v2`.
//! Never: checks the document: what no message has a field for is left out.

use serde_json::Value;

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
    /// One schema or several, in a message likewise.
    Items,
    SchemaOrFlag,
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

use Holds::{Any, Anys, Choice, Choices, Flag, Items, Many, Number, One, SchemaOrFlag, Text, Texts, Type, Whole};

static DOCUMENT: Message = message(
    &[
        ("swagger", 1, Text),
        ("info", 2, One(&INFO)),
        ("host", 3, Text),
        ("basePath", 4, Text),
        ("schemes", 5, Texts),
        ("consumes", 6, Texts),
        ("produces", 7, Texts),
        ("paths", 8, One(&PATHS)),
        ("definitions", 9, One(&SCHEMAS)),
        ("parameters", 10, One(&PARAMETERS)),
        ("responses", 11, One(&RESPONSE_DEFINITIONS)),
        ("security", 12, Many(&SECURITY_REQUIREMENT)),
        ("securityDefinitions", 13, One(&SECURITY_DEFINITIONS)),
        ("tags", 14, Many(&TAG)),
        ("externalDocs", 15, One(&EXTERNAL_DOCS)),
    ],
    16,
);

static INFO: Message = message(
    &[
        ("title", 1, Text),
        ("version", 2, Text),
        ("description", 3, Text),
        ("termsOfService", 4, Text),
        ("contact", 5, One(&CONTACT)),
        ("license", 6, One(&LICENSE)),
    ],
    7,
);
static CONTACT: Message = message(&[("name", 1, Text), ("url", 2, Text), ("email", 3, Text)], 4);
static LICENSE: Message = message(&[("name", 1, Text), ("url", 2, Text)], 3);
static TAG: Message =
    message(&[("name", 1, Text), ("description", 2, Text), ("externalDocs", 3, One(&EXTERNAL_DOCS))], 4);
static EXTERNAL_DOCS: Message = message(&[("description", 1, Text), ("url", 2, Text)], 3);
static SECURITY_REQUIREMENT: Message = map(1, Type);
static SECURITY_DEFINITIONS: Message = map(1, Choice(security));
static RESPONSE_DEFINITIONS: Message = map(1, One(&RESPONSE));
static PARAMETERS: Message = map(1, Choice(parameter));
static SCHEMAS: Message = map(1, One(&SCHEMA));

static PATHS: Message = Message { fields: &[], extensions: 1, named: Some((2, One(&PATH_ITEM))) };
static PATH_ITEM: Message = message(
    &[
        ("$ref", 1, Text),
        ("get", 2, One(&OPERATION)),
        ("put", 3, One(&OPERATION)),
        ("post", 4, One(&OPERATION)),
        ("delete", 5, One(&OPERATION)),
        ("options", 6, One(&OPERATION)),
        ("head", 7, One(&OPERATION)),
        ("patch", 8, One(&OPERATION)),
        ("parameters", 9, Choices(parameter_or_reference)),
    ],
    10,
);
static OPERATION: Message = message(
    &[
        ("tags", 1, Texts),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("externalDocs", 4, One(&EXTERNAL_DOCS)),
        ("operationId", 5, Text),
        ("produces", 6, Texts),
        ("consumes", 7, Texts),
        ("parameters", 8, Choices(parameter_or_reference)),
        ("responses", 9, One(&RESPONSES)),
        ("schemes", 10, Texts),
        ("deprecated", 11, Flag),
        ("security", 12, Many(&SECURITY_REQUIREMENT)),
    ],
    13,
);

static RESPONSES: Message = Message { fields: &[], extensions: 2, named: Some((1, Choice(response))) };
static RESPONSE: Message = message(
    &[
        ("description", 1, Text),
        ("schema", 2, Choice(schema_or_file)),
        ("headers", 3, One(&HEADERS)),
        ("examples", 4, One(&EXAMPLES)),
    ],
    5,
);
static HEADERS: Message = map(1, One(&HEADER));
static EXAMPLES: Message = map(1, Any);
static REFERENCE: Message = message(&[("$ref", 1, Text), ("description", 2, Text)], 0);

fn response(value: &Value) -> Branch {
    if is_reference(value) { (&[2], &REFERENCE) } else { (&[1], &RESPONSE) }
}

fn schema_or_file(value: &Value) -> Branch {
    if value["type"] == "file" { (&[2], &FILE_SCHEMA) } else { (&[1], &SCHEMA) }
}

fn is_reference(value: &Value) -> bool {
    value.get("$ref").is_some()
}

fn parameter_or_reference(value: &Value) -> Branch {
    if is_reference(value) {
        return (&[2], &REFERENCE);
    }
    match value["in"].as_str() {
        Some("body") => (&[1, 1], &BODY_PARAMETER),
        Some("header") => (&[1, 2, 1], &HEADER_PARAMETER),
        Some("formData") => (&[1, 2, 2], &QUERY_PARAMETER),
        Some("path") => (&[1, 2, 4], &HEADER_PARAMETER),
        _ => (&[1, 2, 3], &QUERY_PARAMETER),
    }
}

fn parameter(value: &Value) -> Branch {
    let (way, message) = parameter_or_reference(value);
    (&way[1..], message)
}

static BODY_PARAMETER: Message = message(
    &[("description", 1, Text), ("name", 2, Text), ("in", 3, Text), ("required", 4, Flag), ("schema", 5, One(&SCHEMA))],
    6,
);

/// The facts of a value that is no object, in the order that every message has them; their numbers begin with `$first`.
macro_rules! primitive {
    ([$($own:expr),*], $first:expr, $extensions:expr) => {
        message(
            &[
                $($own,)*
                ("type", $first, Text),
                ("format", $first + 1, Text),
                ("items", $first + 2, One(&PRIMITIVE_ITEMS)),
                ("collectionFormat", $first + 3, Text),
                ("default", $first + 4, Any),
                ("maximum", $first + 5, Number),
                ("exclusiveMaximum", $first + 6, Flag),
                ("minimum", $first + 7, Number),
                ("exclusiveMinimum", $first + 8, Flag),
                ("maxLength", $first + 9, Whole),
                ("minLength", $first + 10, Whole),
                ("pattern", $first + 11, Text),
                ("maxItems", $first + 12, Whole),
                ("minItems", $first + 13, Whole),
                ("uniqueItems", $first + 14, Flag),
                ("enum", $first + 15, Anys),
                ("multipleOf", $first + 16, Number),
            ],
            $extensions,
        )
    };
}

static PRIMITIVE_ITEMS: Message = primitive!([], 1, 18);
static HEADER: Message = primitive!([("description", 18, Text)], 1, 19);
/// Also of parameters in the path.
static HEADER_PARAMETER: Message =
    primitive!([("required", 1, Flag), ("in", 2, Text), ("description", 3, Text), ("name", 4, Text)], 5, 22);
/// Also of parameters in a form.
static QUERY_PARAMETER: Message = primitive!(
    [("required", 1, Flag), ("in", 2, Text), ("description", 3, Text), ("name", 4, Text), ("allowEmptyValue", 5, Flag)],
    6,
    23
);

static SCHEMA: Message = message(
    &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Number),
        ("maximum", 7, Number),
        ("exclusiveMaximum", 8, Flag),
        ("minimum", 9, Number),
        ("exclusiveMinimum", 10, Flag),
        ("maxLength", 11, Whole),
        ("minLength", 12, Whole),
        ("pattern", 13, Text),
        ("maxItems", 14, Whole),
        ("minItems", 15, Whole),
        ("uniqueItems", 16, Flag),
        ("maxProperties", 17, Whole),
        ("minProperties", 18, Whole),
        ("required", 19, Texts),
        ("enum", 20, Anys),
        ("additionalProperties", 21, SchemaOrFlag),
        ("type", 22, Type),
        ("items", 23, Items),
        ("allOf", 24, Many(&SCHEMA)),
        ("properties", 25, One(&SCHEMAS)),
        ("discriminator", 26, Text),
        ("readOnly", 27, Flag),
        ("xml", 28, One(&XML)),
        ("externalDocs", 29, One(&EXTERNAL_DOCS)),
        ("example", 30, Any),
    ],
    31,
);
static FILE_SCHEMA: Message = message(
    &[
        ("format", 1, Text),
        ("title", 2, Text),
        ("description", 3, Text),
        ("default", 4, Any),
        ("required", 5, Texts),
        ("type", 6, Text),
        ("readOnly", 7, Flag),
        ("externalDocs", 8, One(&EXTERNAL_DOCS)),
        ("example", 9, Any),
    ],
    10,
);
static XML: Message = message(
    &[("name", 1, Text), ("namespace", 2, Text), ("prefix", 3, Text), ("attribute", 4, Flag), ("wrapped", 5, Flag)],
    6,
);

static BASIC_SECURITY: Message = message(&[("type", 1, Text), ("description", 2, Text)], 3);
static KEY_SECURITY: Message =
    message(&[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)], 5);
static SCOPES: Message = map(1, Text);
static IMPLICIT_SECURITY: Message = message(
    &[
        ("type", 1, Text),
        ("flow", 2, Text),
        ("scopes", 3, One(&SCOPES)),
        ("authorizationUrl", 4, Text),
        ("description", 5, Text),
    ],
    6,
);
/// Also of the flow for applications.
static PASSWORD_SECURITY: Message = message(
    &[
        ("type", 1, Text),
        ("flow", 2, Text),
        ("scopes", 3, One(&SCOPES)),
        ("tokenUrl", 4, Text),
        ("description", 5, Text),
    ],
    6,
);
static ACCESS_CODE_SECURITY: Message = message(
    &[
        ("type", 1, Text),
        ("flow", 2, Text),
        ("scopes", 3, One(&SCOPES)),
        ("authorizationUrl", 4, Text),
        ("tokenUrl", 5, Text),
        ("description", 6, Text),
    ],
    7,
);

fn security(value: &Value) -> Branch {
    match (value["type"].as_str(), value["flow"].as_str()) {
        (Some("basic"), _) => (&[1], &BASIC_SECURITY),
        (Some("apiKey"), _) => (&[2], &KEY_SECURITY),
        (_, Some("implicit")) => (&[3], &IMPLICIT_SECURITY),
        (_, Some("password")) => (&[4], &PASSWORD_SECURITY),
        (_, Some("application")) => (&[5], &PASSWORD_SECURITY),
        _ => (&[6], &ACCESS_CODE_SECURITY),
    }
}

/// The whole document. `document` is what `document_v2` writes, or several of them merged.
pub fn protobuf_v2(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_message(&mut out, &DOCUMENT, document);
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
        Items => nested(out, number, |out| match given {
            Value::Array(_) => write(out, 1, Many(&SCHEMA), given),
            one => write(out, 1, One(&SCHEMA), one),
        }),
        SchemaOrFlag => nested(out, number, |out| match given {
            // Which branch it is shows only when it is written, so `false` is too.
            Value::Bool(flag) => int(out, 2, i64::from(*flag)),
            schema => write(out, 1, One(&SCHEMA), schema),
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
    use crate::openapi::{Descriptions, document_v2};

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
            (Items, _) => read(&SCHEMA, inner().1.bytes()),
            (SchemaOrFlag, _) => match inner() {
                (2, Raw::Number(n)) => (n == 1).into(),
                (_, raw) => read(&SCHEMA, raw.bytes()),
            },
            (Choice(of) | Choices(of), raw) => read_choice(of, raw),
            _ => panic!("a field of the wrong wire type"),
        }
    }

    /// Goes down until the way is that of a branch.
    fn read_choice(of: fn(&Value) -> Branch, raw: Raw<'_>) -> Value {
        let places = ["body", "header", "formData", "path", "query"].map(|place| json!({"in": place}));
        let kinds = ["file", "basic", "apiKey"].map(|kind| json!({"type": kind}));
        let branches: Vec<Branch> = places.iter().chain(&kinds).chain(&[json!({"$ref": ""})]).map(of).collect();
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
                let said = fields.iter().filter(|(_, v)| **v != false && **v != 0 && **v != "");
                Value::Object(said.map(|(name, v)| (name.clone(), normal(v))).collect())
            }
            Value::Array(items) => items.iter().map(normal).collect(),
            Value::Number(n) => n.as_f64().into(),
            other => other.clone(),
        }
    }

    #[test]
    fn the_whole_document_can_be_read_back() {
        let document: Value =
            serde_json::from_str(&document_v2(&Descriptions::none(), |_, _| {})).expect("the document is JSON");
        assert_eq!(normal(&read(&DOCUMENT, &protobuf_v2(&document))), normal(&document));
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
        assert_eq!(read(&DOCUMENT, &protobuf_v2(&schema)), schema);
    }
}
