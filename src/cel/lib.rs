//! CEL, the Common Expression Language, as Kubernetes v1.37 has it.
//!
//! Owns: parsing, type checking with upstream's messages, estimates and limits of cost, evaluation over JSON without
//! copying it, and Kubernetes' function libraries.
//! Called by: the API server, for validation rules of custom resources, admission policies and match conditions; the
//! controller that checks the types of policies.
//! Never: waits, reads the clock or touches anything but the values it is given.

pub mod admission;
pub mod ast;
#[cfg(test)]
mod behaviour;
mod check;
pub mod cost;
pub mod environment;
pub mod estimate;
pub mod evaluate;
pub mod failure;
mod fault;
mod functions;
pub mod identifier;
mod lex;
pub mod library;
mod macros;
pub mod openapi;
mod parse;
pub mod policy;
pub mod types;
pub mod value;

pub use cost::Meter;
pub use environment::{Environment, Messages, Program};
pub use evaluate::Scope;
pub use failure::Failure;
pub use types::Type;
pub use value::Value;
