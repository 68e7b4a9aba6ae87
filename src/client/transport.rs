//! Where requests go.
//!
//! Owns: the seam between a client and what carries its requests.
//! Called by: `verbs`, with complete requests whose URI may be a bare path.
//! Never: knows a verb or an object.

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};

use crate::error::TransportError;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// Where requests go: a TLS connection, or the API server of the same process.
pub trait Transport: Send + Sync {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>, TransportError>>;
}

pub fn body_from_bytes(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn empty_body() -> Body {
    body_from_bytes(Bytes::new())
}
