//! CEL, the Common Expression Language, as Kubernetes v1.37 has it.
//!
//! Owns: parsing, type checking with upstream's messages, estimates and limits of cost, evaluation over JSON without
//! copying it, and Kubernetes' function libraries.
//! Called by: the API server, for validation rules of custom resources, admission policies and match conditions.
//! Never: waits, reads the clock or touches anything but the values it is given.

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
mod lex;
pub mod library;
mod macros;
mod parse;
pub mod types;
pub mod value;

pub use cost::Meter;
pub use environment::{Environment, Messages, Program};
pub use evaluate::Scope;
pub use failure::Failure;
pub use types::Type;
pub use value::Value;
