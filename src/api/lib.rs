//! What every Kubernetes object is: kinds, schema, metadata, selectors, quantities, patches, defaulting,
//! validation, `Status`.
//!
//! Owns: everything about objects that is a function of objects.
//! Called by: every other crate.
//! Never: does IO, reads the clock, or knows that HTTP exists beyond a status code.

#![allow(clippy::result_large_err, reason = "a Status is the answer itself, and errors are rare enough to be moved")]

pub mod apply;
pub mod convert;
pub mod decode;
pub mod defaulting;
pub mod go_json;
pub mod names;
pub mod node_affinity;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod pod_annotations;
pub mod pod_resources;
pub mod quantity;
pub mod quota;
pub mod registry;
pub mod resources;
pub mod schema;
pub mod selectable;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod structure;
pub mod table;
pub mod taints;
mod unified_diff;
pub mod validation;
pub mod volume_binding;
pub mod warnings;
pub mod wire;

pub use object::{ObjectKey, ResourceId};
pub use registry::{Resource, Scope, Verb};
pub use status::{FieldError, FieldErrorType, Status};
