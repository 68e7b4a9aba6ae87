//! Kubernetes' protobuf: an object inside `runtime.Unknown` after the four bytes `k8s\0`.
//!
//! Owns: JSON tree <-> protobuf for every built-in kind, driven by the schema's tags; frames of a watch.
//! Called by: the API server, for clients that send or accept `application/vnd.kubernetes.protobuf`.
//! Never: has code for one kind; only types with a wire form of their own (times, quantities, ...) are spelt out.

pub(crate) mod put;
mod read;
#[cfg(test)]
mod tests;
mod write;

use serde_json::Value;

use crate::schema::Type;

pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
pub const WATCH_CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";
/// Bytes that say the length of a frame, before it.
pub const FRAME_PREFIX: usize = 4;
const MAGIC: &[u8; 4] = b"k8s\0";
/// Messages nest no deeper than this; the deepest honest ones are JSON schemas.
const DEPTH_MAX: usize = 256;

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: {0}")]
    Malformed(&'static str),
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind { api_version: String, kind: String },
    #[error("object has no kind")]
    NoKind,
}

/// What stands around an object.
#[derive(Debug, PartialEq)]
pub struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    pub message: &'a [u8],
}

/// Opens `k8s\0` + `runtime.Unknown`.
pub fn open(body: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    read::envelope(body.strip_prefix(MAGIC.as_slice()).ok_or(ProtobufError::NoMagic)?)
}

/// An object of a built-in kind with its `apiVersion` and `kind`.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = open(body)?;
    decode_as(&envelope, None)
}

/// As [`decode`]; an envelope that names no kind means `default`.
pub fn decode_as(envelope: &Envelope, default: Option<Type>) -> Result<Value, ProtobufError> {
    let of = Type::of(&envelope.api_version, &envelope.kind).or(default.filter(|_| envelope.kind.is_empty()));
    let of = of.ok_or_else(|| ProtobufError::UnknownKind {
        api_version: envelope.api_version.clone(),
        kind: envelope.kind.clone(),
    })?;
    let mut object = read::message(of, envelope.message, DEPTH_MAX)?;
    if let Value::Object(fields) = &mut object {
        if !envelope.kind.is_empty() {
            fields.insert("kind".into(), envelope.kind.clone().into());
        }
        if !envelope.api_version.is_empty() {
            fields.insert("apiVersion".into(), envelope.api_version.clone().into());
        }
    }
    Ok(object)
}

/// An object of a built-in kind, which it names by `apiVersion` and `kind`.
pub fn encode(object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let mut out = MAGIC.to_vec();
    write::envelope(&mut out, object)?;
    Ok(out)
}

/// Whether objects of that kind have a protobuf form; custom resources and Tables have none.
pub fn has_form(api_version: &str, kind: &str) -> bool {
    Type::of(api_version, kind).is_some()
}

/// One event of a watch as it goes on the wire: four bytes of length, then the event without an envelope around it.
pub fn watch_frame(event: &str, object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let mut out = vec![0; FRAME_PREFIX];
    write::watch_event(&mut out, event, &encode(object)?);
    let length = (out.len() - FRAME_PREFIX) as u32;
    out[..FRAME_PREFIX].copy_from_slice(&length.to_be_bytes());
    Ok(out)
}
