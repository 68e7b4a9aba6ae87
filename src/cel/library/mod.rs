//! What the functions do.
//!
//! Owns: finding the implementation of a function by its name; one file a subject.
//! Called by: the compilation of programs, once per call in an expression.
//! Never: checks types beyond what it needs; the checker did, except where an expression is dynamic.

pub mod format;
mod list;
pub mod network;
mod operator;
mod optional;
mod quantity;
mod regular;
pub mod semver;
pub mod text;
mod time;
pub mod url;

use crate::failure::Failure;
use crate::value::Value;

pub type Outcome<'a> = Result<Value<'a>, Failure>;

/// An implementation: the target of a method comes first.
pub type Run = for<'a> fn(Vec<Value<'a>>) -> Outcome<'a>;

/// The implementation of `name`; what the evaluation does itself (`&&`, `?:`) has none.
pub fn find(name: &str) -> Option<Run> {
    operator::find(name)
        .or_else(|| text::find(name))
        .or_else(|| time::find(name))
        .or_else(|| list::find(name))
        .or_else(|| optional::find(name))
        .or_else(|| regular::find(name))
        .or_else(|| network::find(name))
        .or_else(|| url::find(name))
        .or_else(|| quantity::find(name))
        .or_else(|| format::find(name))
}

/// Whether `matches` can use it.
pub fn is_pattern(text: &str) -> bool {
    regular::compiled(text).is_ok()
}
