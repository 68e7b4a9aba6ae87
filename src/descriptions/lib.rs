//! What every built-in type and field means, in Kubernetes' words, for `kubectl explain`.
//!
//! Owns: the packed descriptions, taken at build time from `k8s-openapi`; `minik_api::openapi::Descriptions` unpacks
//! them. A crate of its own, so that nothing but the API server waits for the build script.
//! Called by: the API server when it writes an OpenAPI document.
//! Never: has a description in its source.

/// Deflated lines of `name TAB description`.
pub static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.deflate"));
