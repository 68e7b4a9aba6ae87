//! How objects look on the wire besides JSON.
//!
//! Owns: protobuf and the one spelling of a time.
//! Called by: the API server's content negotiation, decoding.
//! Never: decides which encoding is used.

pub mod protobuf;
pub mod time;
