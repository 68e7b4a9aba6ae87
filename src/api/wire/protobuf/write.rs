//! JSON tree -> protobuf.
//!
//! Owns: which fields are written when empty: those that Go holds by value always, pointers and lists only when set.
//! Called by: `protobuf`.
//! Never: reads protobuf.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::ProtobufError;
use super::put::{bytes, double, int, nested};
use crate::schema::{Field, Form, Shape, Type};

static NULL: Value = Value::Null;

pub(super) fn envelope(out: &mut Vec<u8>, object: &Value) -> Result<(), ProtobufError> {
    let Some(kind) = object["kind"].as_str() else { return Err(ProtobufError::NoKind) };
    // The oldest lists of discovery have none, though they are of v1.
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let of = Type::of(if api_version.is_empty() { "v1" } else { api_version }, kind)
        .ok_or_else(|| ProtobufError::UnknownKind { api_version: api_version.into(), kind: kind.into() })?;
    nested(out, 1, |out| {
        bytes(out, 1, api_version.as_bytes());
        bytes(out, 2, kind.as_bytes());
    });
    nested(out, 2, |out| message(out, of, object));
    bytes(out, 3, b""); // contentEncoding
    bytes(out, 4, b""); // contentType
    Ok(())
}

pub(super) fn watch_event(out: &mut Vec<u8>, event: &str, object: &[u8]) {
    bytes(out, 1, event.as_bytes());
    nested(out, 2, |out| bytes(out, 1, object));
}

fn message(out: &mut Vec<u8>, of: Type, object: &Value) {
    for field in of.by_tag() {
        if field.is_inline() {
            nested(out, field.tag(), |out| value(out, field.shape(), object));
        } else {
            write_field(out, *field, object.get(field.name()).unwrap_or(&NULL));
        }
    }
}

fn write_field(out: &mut Vec<u8>, field: Field, given: &Value) {
    if field.is_pointer() && given.is_null() {
        return;
    }
    match field.form() {
        Form::List(element) => {
            for item in given.as_array().into_iter().flatten() {
                one(out, field.tag(), element, item);
            }
        }
        Form::Map(element) => {
            for (name, item) in sorted(given) {
                nested(out, field.tag(), |out| {
                    bytes(out, 1, name.as_bytes());
                    one(out, 2, element, item);
                });
            }
        }
        Form::Items(_) | Form::Bytes if given.is_null() => {}
        _ => one(out, field.tag(), field.shape(), given),
    }
}

/// Entries by key, as Go's generated code writes them.
fn sorted(map: &Value) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.as_object().into_iter().flatten().collect();
    entries.sort_by_key(|(name, _)| *name);
    entries
}

/// One value with its key before it.
fn one(out: &mut Vec<u8>, tag: u32, shape: Shape, given: &Value) {
    match shape.form() {
        Form::String => bytes(out, tag, given.as_str().unwrap_or("").as_bytes()),
        Form::Bool => int(out, tag, given.as_bool().unwrap_or(false).into()),
        Form::Int32 | Form::Int64 => int(out, tag, given.as_i64().unwrap_or(0)),
        Form::Float64 => double(out, tag, given.as_f64().unwrap_or(0.0)),
        Form::Bytes => bytes(out, tag, &STANDARD.decode(given.as_str().unwrap_or("")).unwrap_or_default()),
        _ => nested(out, tag, |out| value(out, shape, given)),
    }
}

/// The inside of a message of any form.
fn value(out: &mut Vec<u8>, shape: Shape, given: &Value) {
    match shape.form() {
        Form::Object(of) => message(out, of, given),
        Form::Quantity => match given {
            Value::String(text) => bytes(out, 1, text.as_bytes()),
            Value::Number(number) => bytes(out, 1, number.to_string().as_bytes()),
            _ => bytes(out, 1, b"0"),
        },
        Form::IntOrString => {
            int(out, 1, given.is_string().into());
            int(out, 2, given.as_i64().unwrap_or(0));
            bytes(out, 3, given.as_str().unwrap_or("").as_bytes());
        }
        Form::Time | Form::MicroTime => time(out, given),
        Form::RawExtension | Form::FieldsV1 | Form::Json => {
            if !given.is_null() || shape.form() == Form::Json {
                bytes(out, 1, given.to_string().as_bytes());
            }
        }
        Form::Items(element) => {
            for item in given.as_array().into_iter().flatten() {
                one(out, 1, element, item);
            }
        }
        form => schema_or(out, form, given),
    }
}

fn time(out: &mut Vec<u8>, given: &Value) {
    // A zero time is an empty message.
    let Some(time) = given.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()) else { return };
    int(out, 1, time.as_second());
    int(out, 2, time.subsec_nanosecond().into());
}

fn schema_or(out: &mut Vec<u8>, form: Form, given: &Value) {
    let schema = Type::json_schema();
    match given {
        Value::Object(_) if form == Form::SchemaOrBool => {
            int(out, 1, 1);
            nested(out, 2, |out| message(out, schema, given));
        }
        Value::Object(_) => nested(out, 1, |out| message(out, schema, given)),
        Value::Array(items) if form == Form::SchemaOrStrings => {
            items.iter().for_each(|item| bytes(out, 2, item.as_str().unwrap_or("").as_bytes()));
        }
        Value::Array(items) => items.iter().for_each(|item| nested(out, 2, |out| message(out, schema, item))),
        other if form == Form::SchemaOrBool => int(out, 1, other.as_bool().unwrap_or(false).into()),
        _ => {}
    }
}
