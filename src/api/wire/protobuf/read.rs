//! Protobuf -> JSON tree.
//!
//! Owns: skipping what is unknown, and leaving out what JSON leaves out.
//! Called by: `protobuf`.
//! Never: trusts a length or a depth.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{DEPTH_MAX, Envelope, MAGIC, ProtobufError};
use crate::decode::{place_field, zero, zero_field};
use crate::schema::{Field, Form, Shape, Type};
use crate::wire::time;

/// The payload of one field.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(ProtobufError::Truncated)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Malformed("integer overflow"))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ProtobufError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(ProtobufError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    /// The next tag and payload; `None` at the end.
    fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, ProtobufError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).map_err(|_| ProtobufError::Malformed("illegal tag"))?;
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes were taken"))),
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| ProtobufError::Malformed("negative length"))?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            _ => return Err(ProtobufError::Malformed("illegal wireType")),
        };
        if tag == 0 {
            return Err(ProtobufError::Malformed("illegal tag 0"));
        }
        Ok(Some((tag, wire)))
    }
}

impl<'a> Wire<'a> {
    fn bytes(self) -> Result<&'a [u8], ProtobufError> {
        if let Wire::Bytes(bytes) = self { Ok(bytes) } else { Err(ProtobufError::Malformed("wrong wireType")) }
    }
    fn text(self) -> Result<&'a str, ProtobufError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| ProtobufError::Malformed("string is not UTF-8"))
    }
    fn int(self) -> Result<i64, ProtobufError> {
        if let Wire::Varint(n) = self { Ok(n as i64) } else { Err(ProtobufError::Malformed("wrong wireType")) }
    }
}

pub(super) fn envelope(body: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), message: &[] };
    let mut reader = Reader(body);
    while let Some((tag, wire)) = reader.next()? {
        match tag {
            1 => {
                let mut meta = Reader(wire.bytes()?);
                while let Some((tag, wire)) = meta.next()? {
                    match tag {
                        1 => envelope.api_version = wire.text()?.into(),
                        2 => envelope.kind = wire.text()?.into(),
                        _ => {}
                    }
                }
            }
            2 => envelope.message = wire.bytes()?,
            _ => {}
        }
    }
    Ok(envelope)
}

pub(super) fn message(of: Type, body: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    let mut map = Map::new();
    fill(&mut map, of, body, depth)?;
    for field in of.always() {
        if !map.contains_key(field.name()) {
            map.insert(field.name().into(), zero_field(*field));
        }
    }
    Ok(Value::Object(map))
}

/// Reads the fields of a message into an object, which for an inlined type is that of its parent.
fn fill(map: &mut Map<String, Value>, of: Type, body: &[u8], depth: usize) -> Result<(), ProtobufError> {
    let depth = depth.checked_sub(1).ok_or(ProtobufError::Malformed("nested too deeply"))?;
    let mut reader = Reader(body);
    while let Some((tag, wire)) = reader.next()? {
        let Ok(index) = of.by_tag().binary_search_by_key(&tag, |f| f.tag()) else { continue };
        let field = of.by_tag()[index];
        match field.form() {
            Form::Object(inlined) if field.is_inline() => fill(map, inlined, wire.bytes()?, depth)?,
            Form::List(element) => append(map, field, element, wire, depth)?,
            Form::Map(value) => insert(map, field, value, wire, depth)?,
            _ => {
                let value = one(field.shape(), wire, depth)?;
                place_field(map, field, value);
            }
        }
    }
    Ok(())
}

fn append(
    map: &mut Map<String, Value>,
    field: Field,
    element: Shape,
    wire: Wire,
    depth: usize,
) -> Result<(), ProtobufError> {
    let slot = map.entry(field.name()).or_insert_with(|| Value::Array(Vec::new()));
    let Value::Array(list) = slot else { return Ok(()) };
    let packed = matches!(element.form(), Form::Int32 | Form::Int64 | Form::Bool);
    match wire {
        Wire::Bytes(bytes) if packed => {
            let mut reader = Reader(bytes);
            while !reader.0.is_empty() {
                let number = Wire::Varint(reader.varint()?);
                list.push(one(element, number, depth)?);
            }
        }
        _ => list.push(one(element, wire, depth)?),
    }
    Ok(())
}

fn insert(
    map: &mut Map<String, Value>,
    field: Field,
    shape: Shape,
    wire: Wire,
    depth: usize,
) -> Result<(), ProtobufError> {
    let (mut name, mut value) = (String::new(), None);
    let mut reader = Reader(wire.bytes()?);
    while let Some((tag, wire)) = reader.next()? {
        match tag {
            1 => name = wire.text()?.into(),
            2 => value = Some(one(shape, wire, depth)?),
            _ => {}
        }
    }
    let slot = map.entry(field.name()).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(entries) = slot {
        entries.insert(name, value.unwrap_or_else(|| zero(shape)));
    }
    Ok(())
}

fn one(shape: Shape, wire: Wire, depth: usize) -> Result<Value, ProtobufError> {
    Ok(match shape.form() {
        Form::String => wire.text()?.into(),
        Form::Bool => (wire.int()? != 0).into(),
        Form::Int32 => (wire.int()? as i32).into(),
        Form::Int64 => wire.int()?.into(),
        Form::Float64 => match wire {
            Wire::Fixed64(bits) => double(f64::from_bits(bits)),
            _ => return Err(ProtobufError::Malformed("wrong wireType")),
        },
        Form::Bytes => STANDARD.encode(wire.bytes()?).into(),
        Form::Object(of) => message(of, wire.bytes()?, depth.saturating_sub(1))?,
        Form::Items(element) => {
            let (mut list, mut reader) = (Vec::new(), Reader(wire.bytes()?));
            while let Some((_, wire)) = reader.next()? {
                list.push(one(element, wire, depth)?);
            }
            Value::Array(list)
        }
        Form::Quantity => first(wire, |_, wire| Ok(quantity(wire.text()?)))?.unwrap_or_else(|| "0".into()),
        Form::IntOrString => int_or_string(wire)?,
        Form::Time | Form::MicroTime => timestamp(shape.form(), wire)?,
        Form::RawExtension | Form::FieldsV1 | Form::Json => {
            first(wire, |_, wire| raw(wire.bytes()?))?.unwrap_or(Value::Null)
        }
        form => schema_or(form, wire, depth)?,
    })
}

/// Go writes a whole number without a fraction.
fn double(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e15 { Value::from(number as i64) } else { Value::from(number) }
}

fn quantity(text: &str) -> Value {
    crate::quantity::respell(text).unwrap_or_else(|_| text.to_string()).into()
}

/// What `read` makes of the last field of a small message.
fn first<'a>(
    wire: Wire<'a>,
    read: impl Fn(u32, Wire<'a>) -> Result<Value, ProtobufError>,
) -> Result<Option<Value>, ProtobufError> {
    let (mut reader, mut found) = (Reader(wire.bytes()?), None);
    while let Some((tag, wire)) = reader.next()? {
        found = Some(read(tag, wire)?);
    }
    Ok(found)
}

/// An embedded object: JSON, or protobuf in an envelope of its own.
fn raw(bytes: &[u8]) -> Result<Value, ProtobufError> {
    if let Some(inner) = bytes.strip_prefix(MAGIC.as_slice()) {
        let envelope = envelope(inner)?;
        let unknown =
            || ProtobufError::UnknownKind { api_version: envelope.api_version.clone(), kind: envelope.kind.clone() };
        let of = Type::of(&envelope.api_version, &envelope.kind).ok_or_else(unknown)?;
        let mut object = message(of, envelope.message, DEPTH_MAX / 2)?;
        object["apiVersion"] = envelope.api_version.clone().into();
        object["kind"] = envelope.kind.clone().into();
        return Ok(object);
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).map_err(|_| ProtobufError::Malformed("embedded object is not JSON"))
}

fn int_or_string(wire: Wire) -> Result<Value, ProtobufError> {
    let (mut is_string, mut number, mut text) = (false, 0, "");
    let mut reader = Reader(wire.bytes()?);
    while let Some((tag, wire)) = reader.next()? {
        match tag {
            1 => is_string = wire.int()? == 1,
            2 => number = wire.int()? as i32,
            3 => text = wire.text()?,
            _ => {}
        }
    }
    Ok(if is_string { text.into() } else { number.into() })
}

fn timestamp(form: Form, wire: Wire) -> Result<Value, ProtobufError> {
    let (mut seconds, mut nanos) = (None, 0);
    let mut reader = Reader(wire.bytes()?);
    while let Some((tag, wire)) = reader.next()? {
        match tag {
            1 => seconds = Some(wire.int()?),
            2 => nanos = wire.int()? as i32,
            _ => {}
        }
    }
    let Some(time) = seconds.and_then(|s| time::from_unix(s, nanos)) else { return Ok(Value::Null) };
    Ok(if form == Form::Time { time::format_seconds(time) } else { time::format_micros(time) }.into())
}

fn schema_or(form: Form, wire: Wire, depth: usize) -> Result<Value, ProtobufError> {
    let schema = Type::json_schema();
    let (mut allows, mut one_schema, mut many) = (None, None, Vec::new());
    let mut reader = Reader(wire.bytes()?);
    while let Some((tag, wire)) = reader.next()? {
        let inner = depth.saturating_sub(1);
        match (form, tag) {
            (Form::SchemaOrBool, 1) => allows = Some(wire.int()? != 0),
            (Form::SchemaOrBool, 2) | (_, 1) => one_schema = Some(message(schema, wire.bytes()?, inner)?),
            (Form::SchemaOrStrings, 2) => many.push(wire.text()?.into()),
            (_, 2) => many.push(message(schema, wire.bytes()?, inner)?),
            _ => {}
        }
    }
    Ok(match (one_schema, allows) {
        (Some(schema), _) => schema,
        (None, Some(allows)) => allows.into(),
        (None, None) if many.is_empty() => Value::Null,
        (None, None) => Value::Array(many),
    })
}
