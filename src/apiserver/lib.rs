//! The API server.

pub mod admission;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod objects;
pub mod security;
