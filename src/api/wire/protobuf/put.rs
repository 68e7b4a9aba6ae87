//! The bytes of protobuf: keys, lengths, numbers.
//!
//! Owns: how one field is written.
//! Called by: whoever knows which fields there are: objects, OpenAPI documents.
//! Never: leaves out a value for being empty.

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn key(out: &mut Vec<u8>, tag: u32, wire: u32) {
    varint(out, u64::from(tag << 3 | wire));
}

pub fn bytes(out: &mut Vec<u8>, tag: u32, value: &[u8]) {
    key(out, tag, BYTES);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

pub fn int(out: &mut Vec<u8>, tag: u32, value: i64) {
    key(out, tag, VARINT);
    varint(out, value as u64);
}

pub fn double(out: &mut Vec<u8>, tag: u32, value: f64) {
    key(out, tag, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A message whose length is known only after it is written: the length is put before it then.
pub fn nested(out: &mut Vec<u8>, tag: u32, write: impl FnOnce(&mut Vec<u8>)) {
    key(out, tag, BYTES);
    let start = out.len();
    write(out);
    let mut length = Vec::with_capacity(5);
    varint(&mut length, (out.len() - start) as u64);
    out.splice(start..start, length);
}
