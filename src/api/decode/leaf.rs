//! Values that have no fields of their own: scalars, times, quantities, and JSON that no schema describes.
//!
//! Owns: which JSON a scalar type accepts, its one spelling, and what is said when it does not accept.
//! Called by: `decode`, where it stands at a value.
//! Never: reads objects of a known type.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{Place, State, Step, is_empty};
use crate::schema::{Form, Type};
use crate::wire::time;

pub(super) fn bool(place: Place, value: bool) -> Value {
    match place.form() {
        Form::Bool => return Value::Bool(value),
        Form::Quantity => refuse_quantity(place.state),
        Form::Time | Form::MicroTime => refuse_type(place.state, "bool", "string"),
        Form::IntOrString => refuse_type(place.state, "bool", "int32"),
        _ => mismatch(place, "bool"),
    }
    Value::Null
}

pub(super) fn number(place: Place, value: Number) -> Value {
    let fits = |low: i64, high: i64| value.as_i64().is_some_and(|n| (low..=high).contains(&n));
    match place.form() {
        Form::Float64 => return Value::Number(value),
        Form::Int64 if fits(i64::MIN, i64::MAX) => return Value::Number(value),
        Form::Int32 | Form::IntOrString if fits(i32::MIN.into(), i32::MAX.into()) => return Value::Number(value),
        Form::Int32 | Form::Int64 => mismatch(place, &format!("number {value}")),
        Form::IntOrString => refuse_type(place.state, &format!("number {value}"), "int32"),
        Form::Quantity => return quantity(place.state, &value.to_string()),
        Form::Time | Form::MicroTime => refuse_type(place.state, "number", "string"),
        _ => mismatch(place, "number"),
    }
    Value::Null
}

pub(super) fn string(place: Place, value: &str) -> Value {
    match place.form() {
        Form::String | Form::IntOrString => return Value::from(value),
        Form::Quantity => return quantity(place.state, value),
        Form::Time => match time::parse_seconds(value) {
            Ok(text) => return Value::String(text),
            Err(message) => place.state.refuse(message),
        },
        Form::MicroTime => match time::parse_micros(value) {
            Ok(text) => return Value::String(text),
            Err(message) => place.state.refuse(message),
        },
        Form::Bytes => match check_base64(value) {
            None => return Value::from(value),
            Some(at) => place.state.refuse(format!("illegal base64 data at input byte {at}")),
        },
        _ => mismatch(place, "string"),
    }
    Value::Null
}

/// An array or object where a scalar is wanted.
pub(super) fn composite(place: Place, found: &str) {
    match place.form() {
        Form::Quantity => refuse_quantity(place.state),
        Form::Time | Form::MicroTime => refuse_type(place.state, found, "string"),
        Form::IntOrString => refuse_type(place.state, found, "int32"),
        _ => mismatch(place, found),
    }
}

fn mismatch(place: Place, found: &str) {
    let wanted = place.wanted();
    place.state.mismatch(found, &wanted);
}

/// A type error inside a reader of a type's own, which ends the reading.
fn refuse_type(state: &mut State, found: &str, wanted: &str) {
    let message = state.type_error(found, wanted);
    state.refuse(message);
}

fn refuse_quantity(state: &mut State) {
    state.refuse(crate::quantity::QuantityError::Format.to_string());
}

fn quantity(state: &mut State, text: &str) -> Value {
    match crate::quantity::respell(text.trim()) {
        Ok(text) => Value::String(text),
        Err(error) => {
            state.refuse(error.to_string());
            Value::Null
        }
    }
}

/// Where the text stops being base64, as Go counts it; `None` when all is well.
fn check_base64(text: &str) -> Option<usize> {
    match STANDARD.decode(text) {
        Ok(_) => None,
        // Go's decoder passes over line breaks.
        Err(_) if text.contains(['\n', '\r']) => check_base64(&text.replace(['\n', '\r'], "")),
        Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => Some(at),
        Err(base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding) => Some(text.len()),
    }
}

/// JSON of any form, with duplicate keys reported.
pub(super) struct Anything<'s> {
    pub state: &'s mut State,
}

impl<'de> DeserializeSeed<'de> for Anything<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, body: D) -> Result<Value, D::Error> {
        body.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Anything<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            self.state.steps.push(Step::Index(list.len()));
            let item = items.next_element_seed(Anything { state: &mut *self.state });
            self.state.steps.pop();
            match item? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                self.state.strict("duplicate", &key);
            }
            self.state.steps.push(Step::Key(key.clone()));
            let value = entries.next_value_seed(Anything { state: &mut *self.state });
            self.state.steps.pop();
            map.insert(key, value?);
        }
        Ok(Value::Object(map))
    }
}

/// A JSON schema, or instead of it an array of schemas, a bool or strings.
pub(super) struct SchemaOr<'s> {
    pub state: &'s mut State,
    pub form: Option<Form>,
}

impl<'de> DeserializeSeed<'de> for SchemaOr<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, body: D) -> Result<Value, D::Error> {
        let value = <Value as serde::Deserialize>::deserialize(body)?;
        Ok(match value {
            Value::Object(_) => schema(self.state, value),
            Value::Array(items) if self.form == Some(Form::SchemaOrArray) => {
                Value::Array(items.into_iter().map(|item| schema(self.state, item)).collect())
            }
            Value::Array(items) if self.form == Some(Form::SchemaOrStrings) => Value::Array(items),
            Value::Bool(allowed) if self.form == Some(Form::SchemaOrBool) => Value::Bool(allowed),
            Value::Null => Value::Null,
            other => {
                let expected = match self.form {
                    Some(Form::SchemaOrBool) => "boolean JSON value expected",
                    _ if is_empty(&other) => return Ok(Value::Null),
                    _ => "",
                };
                if !expected.is_empty() {
                    self.state.refuse(expected.into());
                }
                Value::Null
            }
        })
    }
}

fn schema(state: &mut State, value: Value) -> Value {
    let outer = std::mem::replace(&mut state.root, Type::json_schema());
    // Reading from a tree cannot fail but by its contents, which the state records.
    let read = Place { state: &mut *state, shape: None }.deserialize(value).unwrap_or(Value::Null);
    state.root = outer;
    read
}
