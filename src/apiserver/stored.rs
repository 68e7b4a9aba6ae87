//! Objects as the bytes that are stored and served.
//!
//! Owns: the order of the first fields (`kind`, `apiVersion`, `metadata`), by which a list can cut the type off its
//! items and a metadata request can stop reading early, and the hole for `metadata.resourceVersion`.
//! Called by: every write (to encode), every read that must look inside (to decode).
//! Never: converts between versions.

use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;
use minik_store::{Encode, Entry};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

const LEADING: [&str; 3] = ["kind", "apiVersion", "metadata"];

fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(&mut *out, text).expect("a string is written to memory");
}

fn value(out: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(&mut *out, value).expect("a tree with string keys is written to memory");
}

fn key(out: &mut Vec<u8>, name: &str) {
    if !matches!(out.last(), Some(b'{')) {
        out.push(b',');
    }
    string(out, name);
    out.push(b':');
}

/// Writes the object; where `metadata` stands, `metadata_of` writes.
fn object(object: &Value, mut metadata_of: impl FnMut(&mut Vec<u8>, &Value)) -> Vec<u8> {
    let Value::Object(fields) = object else { return object.to_string().into_bytes() };
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    for name in LEADING {
        let Some(field) = fields.get(name) else { continue };
        key(&mut out, name);
        if name == "metadata" { metadata_of(&mut out, field) } else { value(&mut out, field) }
    }
    for (name, field) in fields.iter().filter(|(name, _)| !LEADING.contains(&name.as_str())) {
        key(&mut out, name);
        value(&mut out, field);
    }
    out.push(b'}');
    out
}

/// For an answer that is not stored.
pub fn to_json(tree: &Value) -> Vec<u8> {
    object(tree, value)
}

/// For the store, which fills in the resource version.
pub fn encode(tree: &Value) -> Encode {
    let mut hole = None;
    let bytes = object(tree, |out, metadata| {
        out.push(b'{');
        for (name, field) in metadata.as_object().into_iter().flatten().filter(|(n, _)| *n != "resourceVersion") {
            key(out, name);
            value(out, field);
        }
        key(out, "resourceVersion");
        out.push(b'"');
        hole = Some(out.len());
        out.extend_from_slice(b"\"}");
    });
    match hole {
        Some(hole) => Encode::with_hole(bytes, hole),
        None => Encode::plain(bytes),
    }
}

pub fn decode(entry: &Entry) -> Value {
    decode_bytes(&entry.value)
}

pub fn decode_bytes(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).expect("what is stored was written by `encode`")
}

/// The text of `metadata`.
pub fn metadata_of(entry: &Entry) -> &[u8] {
    static NAME: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(br#""metadata":"#));
    // Nothing but the type stands before it.
    let Some(start) = NAME.find(&entry.value).map(|at| at + NAME.needle().len()) else { return b"{}" };
    if let Some(revision_end) = entry.after_revision() {
        // `encode` writes the revision last: a quote and a brace, and the metadata is over.
        return &entry.value[start..revision_end + 2];
    }
    let mut rest = serde_json::Deserializer::from_slice(&entry.value[start..]);
    let found = <&RawValue>::deserialize(&mut rest).expect("what is stored was written by `encode`");
    found.get().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik_store::Revision;
    use serde_json::json;

    #[test]
    fn the_type_comes_first_and_the_revision_is_filled_in() {
        let tree = json!({"spec": {"resourceVersion": "x"}, "apiVersion": "v1", "kind": "A",
            "metadata": {"resourceVersion": "old", "name": "\"n"}});
        let bytes = encode(&tree).fill(Revision(17));
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(
            text,
            r#"{"kind":"A","apiVersion":"v1","metadata":{"name":"\"n","resourceVersion":"17"},"spec":{"resourceVersion":"x"}}"#
        );
    }

    #[tokio::test]
    async fn the_metadata_ends_after_the_revision_or_where_its_braces_say() {
        let store = minik_store::Store::memory();
        let tree = json!({"apiVersion": "v1", "kind": "A", "metadata": {"name": "\"}n"}, "spec": {"metadata": {}}});
        let entry = store.create("a", encode(&tree)).await.expect("it is new");
        let metadata = br#"{"name":"\"}n","resourceVersion":"2"}"#;
        assert_eq!(metadata_of(&entry), metadata);
        assert_eq!(metadata_of(&entry.told_as(entry.value.clone())), metadata);
        assert_eq!(metadata_of(&entry.told_as(Bytes::from_static(b"{}"))), b"{}");
    }
}
