//! The tree of an expression, after macros.
//!
//! Owns: the kinds of nodes and where each began in the text.
//! Called by: the parser (to build), the checker, the estimate of costs, the evaluation.
//! Never: knows types or values.

/// A node. Its `id` is its place in the tables of types and functions that the checker fills.
#[derive(Clone, Debug)]
pub struct Expr {
    pub id: usize,
    /// Offset in characters, where messages point.
    pub at: usize,
    /// How many nodes lie on the longest way down, this one included.
    pub depth: usize,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Literal(Literal),
    Ident(String),
    Select { operand: Box<Expr>, field: String, mode: Selection },
    Call { target: Option<Box<Expr>>, function: String, args: Vec<Expr> },
    List(Vec<Item>),
    Map(Vec<Entry>),
    Struct { name: String, fields: Vec<Field> },
    Comprehension(Box<Comprehension>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// `a.b`
    Value,
    /// `has(a.b)`
    Presence,
}

/// Whether an element stands there at all, or only when its optional has a value (`?`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Always,
    IfPresent,
}

#[derive(Clone, Debug)]
pub struct Item {
    pub value: Expr,
    pub presence: Presence,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: Expr,
    pub value: Expr,
    pub presence: Presence,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub at: usize,
    pub name: String,
    pub value: Expr,
    pub presence: Presence,
}

/// A fold over a list or map: `accu` starts as `init`, becomes `step` for each element while `condition` holds, and
/// `result` is what comes of it.
#[derive(Clone, Debug)]
pub struct Comprehension {
    pub range: Expr,
    pub variable: String,
    pub second: Option<String>,
    pub accu: String,
    pub init: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

impl Kind {
    /// The nodes directly below.
    pub fn parts(&self) -> Box<dyn Iterator<Item = &Expr> + '_> {
        match self {
            Self::Literal(_) | Self::Ident(_) => Box::new(std::iter::empty()),
            Self::Select { operand, .. } => Box::new(std::iter::once(&**operand)),
            Self::Call { target, args, .. } => Box::new(target.iter().map(|target| &**target).chain(args)),
            Self::List(items) => Box::new(items.iter().map(|item| &item.value)),
            Self::Map(entries) => Box::new(entries.iter().flat_map(|entry| [&entry.key, &entry.value])),
            Self::Struct { fields, .. } => Box::new(fields.iter().map(|field| &field.value)),
            Self::Comprehension(fold) => {
                Box::new([&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result].into_iter())
            }
        }
    }
}

/// `a.b.c` as one name, when it is nothing else.
pub fn qualified_name(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select { operand, field, mode: Selection::Value } => {
            Some(format!("{}.{field}", qualified_name(operand)?))
        }
        _ => None,
    }
}
