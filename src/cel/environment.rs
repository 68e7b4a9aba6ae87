//! What an expression may name, and programs compiled under that.
//!
//! Owns: declared variables and messages; the steps from text to a program.
//! Called by: whoever has expressions: validation rules of custom resources, admission policies, match conditions.
//! Never: holds values; a scope does, for one evaluation.

use std::sync::Arc;

use crate::ast::{Expr, Kind, Literal};
use crate::check::{self, Checked};
use crate::fault::{self, Fault};
use crate::library::{self, Run};
use crate::parse;
use crate::types::{Fields, ObjectType, Type};
use crate::value::{Text, Value};

/// Names and their types.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Vec<(String, Type)>,
    messages: Messages,
    bindings: Bindings,
}

/// Whether an expression may name a value with `cel.bind(name, value, expression)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bindings {
    #[default]
    None,
    Known,
}

/// Which messages an expression may make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Messages {
    #[default]
    None,
    /// `Object`, `Object.spec...` and `JSONPatch`, as mutations use them.
    Mutations,
}

impl Environment {
    pub fn with(mut self, name: &str, of: Type) -> Self {
        self.declare(name, of);
        self
    }

    pub fn with_messages(mut self, messages: Messages) -> Self {
        self.messages = messages;
        self
    }

    pub fn with_bindings(mut self) -> Self {
        self.bindings = Bindings::Known;
        self
    }

    /// Declares a variable, or changes what it is.
    pub fn declare(&mut self, name: &str, of: Type) {
        match self.variables.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = of,
            None => self.variables.push((name.into(), of)),
        }
    }

    pub fn variable(&self, name: &str) -> Option<&Type> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, of)| of)
    }

    /// Whether expressions under these names have the function: some are for mutations alone.
    pub(crate) fn knows(&self, function: &str) -> bool {
        self.messages == Messages::Mutations || !function.starts_with("jsonpatch.")
    }

    pub(crate) fn message(&self, name: &str) -> Option<Arc<ObjectType>> {
        if self.messages == Messages::None {
            return None;
        }
        match name {
            "JSONPatch" => {
                let fields =
                    [("op", Type::String), ("path", Type::String), ("from", Type::String), ("value", Type::Dyn)];
                match Type::object("JSONPatch", fields) {
                    Type::Object(object) => Some(object),
                    _ => None,
                }
            }
            _ if name == "Object" || name.starts_with("Object.") => {
                Some(Arc::new(ObjectType { name: name.into(), fields: Fields::Any }))
            }
            _ => None,
        }
    }
}

/// An expression, compiled.
#[derive(Debug)]
pub struct Program {
    pub text: String,
    pub(crate) tree: Expr,
    pub(crate) checked: Checked,
    /// By the ids of nodes: what a call runs, what a literal is.
    pub(crate) runs: Vec<Option<Run>>,
    pub(crate) constants: Vec<Option<Value<'static>>>,
}

impl Program {
    /// The message of an error is upstream's: each fault with the place it is at.
    pub fn compile(environment: &Environment, text: &str) -> Result<Program, String> {
        let (mut tree, nodes) =
            parse::parse(text, environment.bindings).map_err(|fault| fault::display(text, &[fault]))?;
        let checked = check::check(environment, &mut tree, nodes).map_err(|faults| fault::display(text, &faults))?;
        let mut program = Program {
            text: text.into(),
            runs: vec![None; nodes],
            constants: vec![None; nodes],
            checked,
            tree: Expr { id: 0, at: 0, depth: 0, kind: Kind::List(vec![]) },
        };
        let mut faults = Vec::new();
        program.prepare(&tree, &mut faults);
        if !faults.is_empty() {
            return Err(fault::display(text, &faults));
        }
        program.tree = tree;
        Ok(program)
    }

    /// The type of what comes out.
    pub fn result(&self) -> &Type {
        &self.checked.types[self.tree.id]
    }

    pub fn uses(&self, variable: &str) -> bool {
        self.checked.used.iter().any(|used| used == variable)
    }

    fn prepare(&mut self, expr: &Expr, faults: &mut Vec<Fault>) {
        match &expr.kind {
            Kind::Literal(literal) => self.constants[expr.id] = Some(constant(literal)),
            Kind::Call { function, args, .. } => {
                self.runs[expr.id] = library::find(function);
                faults.extend(literal_fault(function, args));
            }
            _ => {}
        }
        expr.kind.parts().for_each(|part| self.prepare(part, faults));
    }
}

fn constant(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(b) => Value::Bool(*b),
        Literal::Int(i) => Value::Int(*i),
        Literal::Uint(u) => Value::Uint(*u),
        Literal::Double(d) => Value::Double(*d),
        Literal::String(s) => Value::String(Text::Shared(s.as_str().into())),
        Literal::Bytes(b) => Value::Bytes(b.as_slice().into()),
    }
}

/// A literal that the function it is given to can never read.
fn literal_fault(function: &str, args: &[Expr]) -> Option<Fault> {
    let literal = args.last()?;
    let Kind::Literal(Literal::String(text)) = &literal.kind else { return None };
    let fits = match function {
        "duration" => library::text::duration(text).is_some(),
        "timestamp" => library::text::timestamp(text).is_some(),
        "matches" => library::is_pattern(text),
        _ => true,
    };
    (!fits).then(|| Fault { at: literal.at, what: format!("invalid {function} argument") })
}
