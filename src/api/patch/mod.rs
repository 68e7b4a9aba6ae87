//! The three kinds of patch that change an object without asking who owns which field.
//!
//! Owns: JSON patch (RFC 6902), merge patch (RFC 7386) and strategic merge patch.
//! Called by: the API server for PATCH, `rollout undo` and the kubelet's status patches.
//! Never: applies a server-side apply configuration (that is `apply`).

pub mod json;
pub mod merge;
pub mod strategic;
