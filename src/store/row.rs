//! An entry as bytes on disk, without its key.
//!
//! Owns: that format: created, modified, hole, then the value.
//! Called by: `disk` for the database, `journal` for its records.
//! Never: knows where a row lies.

use std::sync::Arc;

use bytes::Bytes;

use crate::event::{Entry, Revision, Written};

const HEADER: usize = 8 + 8 + 4;

pub(crate) fn length(entry: &Entry) -> usize {
    HEADER + entry.value.len()
}

/// `row` is as long as `length` says.
pub(crate) fn encode(entry: &Entry, row: &mut [u8]) {
    row[..8].copy_from_slice(&entry.created.0.to_le_bytes());
    row[8..16].copy_from_slice(&entry.modified.0.to_le_bytes());
    row[16..HEADER].copy_from_slice(&entry.hole.to_le_bytes());
    row[HEADER..].copy_from_slice(&entry.value);
}

pub(crate) fn decode(key: Arc<str>, row: &[u8]) -> Option<Entry> {
    let (created, rest) = row.split_first_chunk::<8>()?;
    let (modified, rest) = rest.split_first_chunk::<8>()?;
    let (hole, value) = rest.split_first_chunk::<4>()?;
    let written = Written {
        key,
        value: Bytes::from(Box::<[u8]>::from(value)),
        created: Revision(u64::from_le_bytes(*created)),
        modified: Revision(u64::from_le_bytes(*modified)),
        hole: u32::from_le_bytes(*hole),
    };
    Some(written.into())
}
