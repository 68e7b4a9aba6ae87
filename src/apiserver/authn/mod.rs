//! Who is asking: from the TLS peer, a bearer token, a front proxy or an impersonation header to a `UserInfo`.
//!
//! Owns: `UserInfo`, the ways to prove being somebody, and what anonymous callers may be.
//! Called by: the pipeline, once per request, before authorization.
//! Never: decides what somebody may do.

mod user;

pub use user::{UserInfo, groups, names};

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use minik_api::Status;

/// What the transport knows about its other end; found out once per connection, at the TLS handshake.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    pub address: Option<SocketAddr>,
    /// DER certificates as the peer sent them, leaf first. TLS has proved that it holds the leaf's key, nothing more.
    pub certificates: Arc<Vec<Vec<u8>>>,
}

/// Turns a request into a user, or into the `Status` it is refused with.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// Takes the credentials out of the headers, so that nothing behind can leak them to a backend.
    async fn authenticate(&self, request: &mut http::request::Parts, peer: &Peer) -> Result<Arc<UserInfo>, Status>;
}
