//! Why an evaluation has no value.
//!
//! Owns: the messages that CEL's runtime has, as upstream words them.
//! Called by: the evaluation and the libraries.
//! Never: refers to the text of an expression; that is for faults found at compile time.

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The expression has no value for these inputs; `||` and `&&` may still have one.
    Value,
    /// It was ended because it cost too much.
    Cost,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Value, message: message.into() }
    }
    pub fn no_such_overload() -> Self {
        Self::new("no such overload")
    }
    pub fn no_such_key(key: &str) -> Self {
        Self::new(format!("no such key: {key}"))
    }
    pub fn out_of_bounds(index: i64) -> Self {
        Self::new(format!("index out of bounds: {index}"))
    }
    pub fn cost() -> Self {
        Self { kind: FailureKind::Cost, message: "operation cancelled: actual cost limit exceeded".into() }
    }
    pub fn is_cost(&self) -> bool {
        self.kind == FailureKind::Cost
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
