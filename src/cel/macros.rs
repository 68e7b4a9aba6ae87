//! Calls that are no calls: `has`, `all`, `map` and the like become folds.
//!
//! Owns: the macros of CEL, of bindings, of optional values, of comprehensions with two variables and of `sortBy`.
//! Called by: the parser, for every call.
//! Never: runs after parsing.

use crate::ast::{Comprehension, Expr, Item, Kind, Literal, Presence, Selection};
use crate::environment::Bindings;
use crate::fault::Fault;
use crate::parse::Nodes;

/// What a fold gathers in. No name a user can write.
pub const ACCUMULATOR: &str = "@result";

type Expanded = Result<Expr, Fault>;

/// A call without target.
pub fn function(nodes: &mut Nodes, at: usize, name: String, mut args: Vec<Expr>) -> Expanded {
    if name != "has" || args.len() != 1 {
        return Ok(nodes.node(at, Kind::Call { target: None, function: name, args }));
    }
    match args.pop().map(|arg| arg.kind) {
        Some(Kind::Select { operand, field, mode: Selection::Value }) => {
            Ok(nodes.node(at, Kind::Select { operand, field, mode: Selection::Presence }))
        }
        _ => Err(Fault { at, what: "invalid argument to has() macro".into() }),
    }
}

/// A call on a target.
pub fn method(nodes: &mut Nodes, at: usize, target: Expr, name: String, args: Vec<Expr>) -> Expanded {
    let expander: Option<fn(&mut Fold<'_>) -> Expanded> = match (name.as_str(), args.len()) {
        ("all", 2 | 3) => Some(all),
        ("exists", 2 | 3) => Some(exists),
        ("exists_one" | "existsOne", 2) | ("existsOne", 3) => Some(exists_one),
        ("filter", 2) => Some(filter),
        ("map", 2 | 3) => Some(map),
        ("transformList", 3 | 4) => Some(transform_list),
        ("transformMap", 3 | 4) => Some(transform_map),
        ("transformMapEntry", 3 | 4) => Some(transform_entry),
        ("sortBy", 2) => Some(sort_by),
        ("optMap", 2) => Some(opt_map),
        ("optFlatMap", 2) => Some(opt_flat_map),
        ("bind", 3) if nodes.bindings == Bindings::Known && is_namespace(&target) => Some(bind),
        _ => None,
    };
    match expander {
        None => Ok(nodes.node(at, Kind::Call { target: Some(Box::new(target)), function: name, args })),
        Some(expand) => {
            let args = args.into_iter().map(Some).collect();
            expand(&mut Fold { nodes, at, target: Some(target), args })
        }
    }
}

/// `cel`, before the name of a macro that needs no target.
fn is_namespace(target: &Expr) -> bool {
    matches!(&target.kind, Kind::Ident(name) if name == "cel")
}

/// A macro being expanded.
struct Fold<'n> {
    nodes: &'n mut Nodes,
    at: usize,
    target: Option<Expr>,
    args: Vec<Option<Expr>>,
}

impl Fold<'_> {
    fn target(&mut self) -> Expr {
        self.target.take().expect("a macro has one target")
    }
    fn arg(&mut self, index: usize) -> Expr {
        self.args[index].take().expect("each argument is used once")
    }
    /// The name that argument `index` declares.
    fn variable(&mut self, index: usize) -> Result<String, Fault> {
        match &self.args[index] {
            Some(Expr { kind: Kind::Ident(name), .. }) if !name.starts_with('.') => Ok(name.clone()),
            other => {
                let at = other.as_ref().map_or(self.at, |e| e.at);
                Err(Fault { at, what: "argument must be a simple name".into() })
            }
        }
    }
    /// One variable, or two when the macro has an argument more.
    fn variables(&mut self, two: bool) -> Result<(String, Option<String>), Fault> {
        let first = self.variable(0)?;
        if !two {
            return Ok((first, None));
        }
        let second = self.variable(1)?;
        if first == second {
            let at = self.args[1].as_ref().map_or(self.at, |e| e.at);
            return Err(Fault { at, what: format!("duplicate variable name: {second}") });
        }
        Ok((first, Some(second)))
    }
    fn literal(&mut self, literal: Literal) -> Expr {
        self.nodes.literal(self.at, literal)
    }
    fn accu(&mut self) -> Expr {
        self.nodes.ident(self.at, ACCUMULATOR)
    }
    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.nodes.call(self.at, function, args)
    }
    fn list(&mut self, items: Vec<Expr>) -> Expr {
        let items = items.into_iter().map(|value| Item { value, presence: Presence::Always }).collect();
        self.nodes.node(self.at, Kind::List(items))
    }
    fn fold(&mut self, names: (String, Option<String>), init: Expr, condition: Expr, step: Expr, result: Expr) -> Expr {
        let fold = Comprehension {
            range: self.target(),
            variable: names.0,
            second: names.1,
            accu: ACCUMULATOR.into(),
            init,
            condition,
            step,
            result,
        };
        self.nodes.node(self.at, Kind::Comprehension(Box::new(fold)))
    }
    /// `condition ? step : @result`
    fn guarded(&mut self, condition: Option<Expr>, step: Expr) -> Expr {
        match condition {
            None => step,
            Some(condition) => {
                let otherwise = self.accu();
                self.call("_?_:_", vec![condition, step, otherwise])
            }
        }
    }
    /// `let name = value in result`, as a fold over nothing.
    fn bind(&mut self, name: &str, value: Expr, result: Expr) -> Expr {
        let range = self.list(vec![]);
        let fold = Comprehension {
            range,
            variable: "#unused".into(),
            second: None,
            accu: name.into(),
            init: value,
            condition: self.literal(Literal::Bool(false)),
            step: self.nodes.ident(self.at, name),
            result,
        };
        self.nodes.node(self.at, Kind::Comprehension(Box::new(fold)))
    }
}

fn bind(m: &mut Fold<'_>) -> Expanded {
    let name = match &m.args[0] {
        Some(Expr { kind: Kind::Ident(name), .. }) if !name.starts_with('.') => name.clone(),
        other => {
            let at = other.as_ref().map_or(m.at, |e| e.at);
            return Err(Fault { at, what: "cel.bind() variable names must be simple identifiers".into() });
        }
    };
    let (value, result) = (m.arg(1), m.arg(2));
    Ok(m.bind(&name, value, result))
}

fn all(m: &mut Fold<'_>) -> Expanded {
    let names = m.variables(m.args.len() == 3)?;
    let init = m.literal(Literal::Bool(true));
    let accu = m.accu();
    let condition = m.call("@not_strictly_false", vec![accu]);
    let (accu, predicate) = (m.accu(), m.arg(m.args.len() - 1));
    let step = m.call("_&&_", vec![accu, predicate]);
    let result = m.accu();
    Ok(m.fold(names, init, condition, step, result))
}

fn exists(m: &mut Fold<'_>) -> Expanded {
    let names = m.variables(m.args.len() == 3)?;
    let init = m.literal(Literal::Bool(false));
    let accu = m.accu();
    let not = m.call("!_", vec![accu]);
    let condition = m.call("@not_strictly_false", vec![not]);
    let (accu, predicate) = (m.accu(), m.arg(m.args.len() - 1));
    let step = m.call("_||_", vec![accu, predicate]);
    let result = m.accu();
    Ok(m.fold(names, init, condition, step, result))
}

fn exists_one(m: &mut Fold<'_>) -> Expanded {
    let names = m.variables(m.args.len() == 3)?;
    let init = m.literal(Literal::Int(0));
    let condition = m.literal(Literal::Bool(true));
    let (accu, one) = (m.accu(), m.literal(Literal::Int(1)));
    let plus = m.call("_+_", vec![accu, one]);
    let predicate = m.arg(m.args.len() - 1);
    let step = m.guarded(Some(predicate), plus);
    let (accu, one) = (m.accu(), m.literal(Literal::Int(1)));
    let result = m.call("_==_", vec![accu, one]);
    Ok(m.fold(names, init, condition, step, result))
}

/// Gathers `value` of each element in a list.
fn gather(m: &mut Fold<'_>, names: (String, Option<String>), filter: Option<Expr>, value: Expr) -> Expr {
    let init = m.list(vec![]);
    let condition = m.literal(Literal::Bool(true));
    let (accu, one) = (m.accu(), m.list(vec![value]));
    let plus = m.call("_+_", vec![accu, one]);
    let step = m.guarded(filter, plus);
    let result = m.accu();
    m.fold(names, init, condition, step, result)
}

fn filter(m: &mut Fold<'_>) -> Expanded {
    let names = m.variables(false)?;
    let value = m.nodes.ident(m.at, &names.0);
    let predicate = m.arg(1);
    Ok(gather(m, names, Some(predicate), value))
}

fn map(m: &mut Fold<'_>) -> Expanded {
    let names = m.variables(false)?;
    let predicate = (m.args.len() == 3).then(|| m.arg(1));
    let value = m.arg(m.args.len() - 1);
    Ok(gather(m, names, predicate, value))
}

fn transform_list(m: &mut Fold<'_>) -> Expanded {
    let names = m.variables(true)?;
    let predicate = (m.args.len() == 4).then(|| m.arg(2));
    let value = m.arg(m.args.len() - 1);
    Ok(gather(m, names, predicate, value))
}

fn gather_map(m: &mut Fold<'_>, names: (String, Option<String>), step: Expr) -> Expr {
    let predicate = (m.args.len() == 4).then(|| m.arg(2));
    let init = m.nodes.node(m.at, Kind::Map(vec![]));
    let condition = m.literal(Literal::Bool(true));
    let step = m.guarded(predicate, step);
    let result = m.accu();
    m.fold(names, init, condition, step, result)
}

fn transform_map(m: &mut Fold<'_>) -> Expanded {
    let names = m.variables(true)?;
    let key = m.nodes.ident(m.at, &names.0);
    let (accu, value) = (m.accu(), m.arg(m.args.len() - 1));
    let step = m.call("cel.@mapInsert", vec![accu, key, value]);
    Ok(gather_map(m, names, step))
}

fn transform_entry(m: &mut Fold<'_>) -> Expanded {
    let names = m.variables(true)?;
    let (accu, entry) = (m.accu(), m.arg(m.args.len() - 1));
    let step = m.call("cel.@mapInsert", vec![accu, entry]);
    Ok(gather_map(m, names, step))
}

fn sort_by(m: &mut Fold<'_>) -> Expanded {
    const INPUT: &str = "@__sortBy_input__";
    let names = m.variables(false)?;
    let (list, value) = (m.target(), m.arg(1));
    m.target = Some(m.nodes.ident(m.at, INPUT));
    let keys = gather(m, names, None, value);
    let input = m.nodes.ident(m.at, INPUT);
    let function = "@sortByAssociatedKeys".to_string();
    let sorted = m.nodes.node(m.at, Kind::Call { target: Some(Box::new(input)), function, args: vec![keys] });
    Ok(m.bind(INPUT, list, sorted))
}

fn method_call(m: &mut Fold<'_>, target: Expr, function: &str) -> Expr {
    m.nodes.node(m.at, Kind::Call { target: Some(Box::new(target)), function: function.into(), args: vec![] })
}

fn opt_map(m: &mut Fold<'_>) -> Expanded {
    optional(m, true)
}

fn opt_flat_map(m: &mut Fold<'_>) -> Expanded {
    optional(m, false)
}

/// `target.hasValue() ? (let x = target.value() in value) : optional.none()`
fn optional(m: &mut Fold<'_>, wrap: bool) -> Expanded {
    const TARGET: &str = "@target";
    let name = m.variable(0)?;
    let (target, value) = (m.target(), m.arg(1));
    let held = m.nodes.ident(m.at, TARGET);
    let condition = method_call(m, held, "hasValue");
    let held = m.nodes.ident(m.at, TARGET);
    let inner = method_call(m, held, "value");
    let bound = m.bind(&name, inner, value);
    let some = if wrap { m.call("optional.of", vec![bound]) } else { bound };
    let none = m.call("optional.none", vec![]);
    let choice = m.call("_?_:_", vec![condition, some, none]);
    Ok(m.bind(TARGET, target, choice))
}
