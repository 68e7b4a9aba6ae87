//! Bytes with revisions: what the API server remembers, who is told about it, and how it survives a crash.
//!
//! Owns: the order of all writes, the current value of every key, a bounded history for watches and old snapshots,
//! and the files they are durable in.
//! Called by: the API server, which alone opens it.
//! Never: knows a Kubernetes kind, or decodes a value.
//!
//! A key is `segment/segment/...`. A prefix is empty (everything), ends in `/` (everything below), or is one key.

mod direct;
mod disk;
#[cfg(test)]
mod disk_tests;
mod encode;
mod error;
mod event;
mod journal;
mod options;
mod row;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

pub use encode::Encode;
pub use error::Error;
pub use event::{Entry, Event, EventKind, Revision};
pub use options::Options;
pub use state::{Page, Range};
pub use store::Store;
pub use watch::{Batch, Watch};
pub use writer::Write;
