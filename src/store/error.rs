//! Why a read, a write or a watch was refused.
//!
//! Owns: the errors of this crate.
//! Called by: everything here; the API server turns them into a `Status`.
//! Never: carries a value.

use crate::event::Revision;

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("key {key:?} exists")]
    Exists { key: String },
    #[error("key {key:?} does not exist")]
    NotFound { key: String },
    #[error("key {key:?} was changed at revision {actual}, not {expected}")]
    Conflict { key: String, expected: Revision, actual: Revision },
    #[error("revision {asked} is gone, history starts after {compacted}")]
    Compacted { asked: Revision, compacted: Revision },
    #[error("revision {asked} is in the future, the newest is {newest}")]
    Future { asked: Revision, newest: Revision },
    /// The outcome is unknown: the write may be there after a restart. The store takes no more writes.
    #[error("the store's file could not be written: {0}")]
    Disk(String),
    #[error("the store could not be opened: {0}")]
    Open(String),
    #[error("the store is closed")]
    Closed,
}
