//! Who is asking: from the TLS peer, a bearer token, a front proxy or an impersonation header to a `UserInfo`.
//!
//! Owns: `UserInfo`, the ways to prove being somebody, and what anonymous callers may be.
//! Called by: the pipeline, once per request, before authorization.
//! Never: decides what somebody may do.

pub mod bootstrap_token;
mod chain;
pub mod front_proxy;
pub mod impersonation;
pub mod jwt;
pub mod review;
pub mod service_account;
pub mod token_request;
mod user;
pub mod x509;

pub use chain::{Anonymous, Authenticators, FrontProxy};
pub use user::{UserInfo, groups, names};

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use minik_api::Status;

/// What the transport knows about its other end; found out once per connection, at the TLS handshake.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    pub address: Option<SocketAddr>,
    /// DER certificates as the peer sent them, leaf first. TLS has proved that it holds the leaf's key, nothing more.
    pub certificates: Arc<Vec<Vec<u8>>>,
    pub(crate) subject: Arc<OnceLock<Option<x509::Subject>>>,
    pub(crate) vouched: Arc<OnceLock<bool>>,
    /// Whom the first certificate names.
    pub(crate) user: Arc<OnceLock<Arc<UserInfo>>>,
}

impl Peer {
    pub fn new(address: Option<SocketAddr>, certificates: Vec<Vec<u8>>) -> Self {
        Self { address, certificates: Arc::new(certificates), ..Self::default() }
    }
}

/// Turns a request into a user, or into the `Status` it is refused with.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// Takes the credentials out of the headers, so that nothing behind can leak them to a backend.
    async fn authenticate(&self, request: &mut http::request::Parts, peer: &Peer) -> Result<Arc<UserInfo>, Status>;
}

/// Compares digests, so that the time it takes says nothing about how much of a guess was right.
fn same_secret(held: &str, given: &str) -> bool {
    use sha2::{Digest, Sha256};
    Sha256::digest(held) == Sha256::digest(given)
}
