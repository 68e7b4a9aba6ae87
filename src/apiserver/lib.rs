//! The API server: a request's way from a connection to the store and back.
//!
//! Owns: routing, authentication, authorization, admission, the verbs of the REST API, watches, discovery, OpenAPI,
//! relaying to kubelets and to extension API servers.
//! Called by: the node that runs it; clients, over TLS or in the same process.
//! Never: decides what a cluster should do next; controllers and the scheduler are clients like any other.

pub mod admission;
mod aggregation;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod body;
pub mod bootstrap;
mod bootstrap_objects;
mod call;
mod catalog;
pub mod config;
mod connect;
mod contents;
mod custom;
mod decode;
mod definitions;
mod device_selectors;
mod discovery;
mod expiry;
pub mod fairness;
mod health;
pub mod linger;
mod listen;
mod loopback;
mod metrics;
mod negotiate;
mod nonresource;
pub mod objects;
mod openapi;
mod pipeline;
mod query;
mod reply;
mod rest;
mod route;
pub mod security;
mod server;
mod services;
mod stored;
pub mod streams;
mod trust;
mod warnings;

pub use authn::UserInfo;
pub use body::Body;
pub use config::{AuthorizationMode, Config, KeyPair, KubeletClient, Tls};
pub use listen::ServeError;
pub use server::{ApiServer, BuildError};
