//! A value that contains its own revision.
//!
//! Owns: bytes with a hole, filled when the revision is known.
//! Called by: writers of the API server (to build), the writer of the store (to fill).
//! Never: knows what surrounds the hole.

use bytes::Bytes;

use crate::event::Revision;

pub(crate) const NO_HOLE: u32 = u32::MAX;

/// Bytes to store, with at most one place where the decimal revision of the write belongs.
#[derive(Clone, Debug)]
pub struct Encode {
    bytes: Vec<u8>,
    hole: Option<usize>,
}

impl Encode {
    pub fn plain(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), hole: None }
    }

    /// The revision is inserted before `bytes[hole]`; `hole` is at most the length.
    pub fn with_hole(bytes: impl Into<Vec<u8>>, hole: usize) -> Self {
        let bytes = bytes.into();
        assert!(hole <= bytes.len() && hole < NO_HOLE as usize, "the hole lies inside the value");
        Self { bytes, hole: Some(hole) }
    }

    /// As it would be stored at `revision`; for answers to writes that are not stored (dry run).
    pub fn fill(self, revision: Revision) -> Bytes {
        self.finish(revision).0
    }

    pub(crate) fn finish(self, revision: Revision) -> (Bytes, u32) {
        let Some(hole) = self.hole else { return (Bytes::from(self.bytes.into_boxed_slice()), NO_HOLE) };
        let digits = revision.to_string();
        let mut value = Vec::with_capacity(self.bytes.len() + digits.len());
        value.extend_from_slice(&self.bytes[..hole]);
        value.extend_from_slice(digits.as_bytes());
        value.extend_from_slice(&self.bytes[hole..]);
        (Bytes::from(value.into_boxed_slice()), hole as u32)
    }
}

/// Writes `new` where `old` stands.
pub(crate) fn rewrite(value: &Bytes, hole: u32, old: Revision, new: Revision) -> Bytes {
    if hole == NO_HOLE {
        return value.clone();
    }
    let (start, digits) = (hole as usize, new.to_string());
    let end = start + old.to_string().len();
    let mut out = Vec::with_capacity(value.len() + digits.len());
    out.extend_from_slice(&value[..start]);
    out.extend_from_slice(digits.as_bytes());
    out.extend_from_slice(&value[end..]);
    Bytes::from(out.into_boxed_slice())
}
