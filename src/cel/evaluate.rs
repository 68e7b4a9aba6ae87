//! Computing an expression's value.
//!
//! Owns: the walk over the tree, variables of folds, short circuits, the charging of costs.
//! Called by: whoever has a program and values for its names.
//! Never: changes what it looks at.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::ast::{Comprehension, Entry, Expr, Field, Item, Kind, Literal, Presence, Selection};
use crate::cost::{self, Meter};
use crate::environment::Program;
use crate::failure::Failure;
use crate::types::Type;
use crate::value::{Key, List, Map, Object, Value};

type Outcome<'a> = Result<Value<'a>, Failure>;

/// Values for names.
#[derive(Default)]
pub struct Scope<'a> {
    values: Vec<(&'a str, Value<'a>)>,
    /// Names of `variables` and what computes them, each at most once and only when it is used.
    composed: &'a [(String, Program)],
    computed: RefCell<HashMap<&'a str, Outcome<'a>>>,
}

impl<'a> Scope<'a> {
    pub fn with(mut self, name: &'a str, value: Value<'a>) -> Self {
        self.set(name, value);
        self
    }

    pub fn set(&mut self, name: &'a str, value: Value<'a>) {
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => self.values.push((name, value)),
        }
        self.computed.borrow_mut().clear();
    }

    /// What `variables.x` means.
    pub fn with_composed(mut self, composed: &'a [(String, Program)]) -> Self {
        self.composed = composed;
        self
    }

    fn get(&self, name: &str) -> Option<Value<'a>> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    fn composed(&self, name: &str, meter: &mut Meter) -> Option<Outcome<'a>> {
        let (name, program) = self.composed.iter().find(|(known, _)| known == name)?;
        if let Some(known) = self.computed.borrow().get(name.as_str()) {
            return Some(known.clone());
        }
        let outcome = program.evaluate(self, meter);
        let outcome = outcome.map_err(|failure| match failure.is_cost() {
            true => failure,
            false => Failure::new(format!("composited variable {name:?} fails to evaluate: {failure}")),
        });
        self.computed.borrow_mut().insert(name, outcome.clone());
        Some(outcome)
    }
}

impl Program {
    pub fn evaluate<'a>(&self, scope: &Scope<'a>, meter: &mut Meter) -> Outcome<'a> {
        Machine { program: self, scope, locals: Vec::new(), meter }.value(&self.tree)
    }
}

struct Machine<'p, 's, 'a> {
    program: &'p Program,
    scope: &'s Scope<'a>,
    /// Variables of folds, innermost last. An accumulator may hold a failure that a later element makes good.
    locals: Vec<(&'p str, Outcome<'a>)>,
    meter: &'p mut Meter,
}

impl<'p, 'a> Machine<'p, '_, 'a> {
    fn value(&mut self, expr: &'p Expr) -> Outcome<'a> {
        match &expr.kind {
            Kind::Literal(_) => {
                self.program.constants[expr.id].clone().ok_or_else(|| Failure::new("a literal without a value"))
            }
            Kind::Ident(name) => self.ident(name),
            Kind::Select { operand, field, mode: Selection::Value } => self.select(operand, field),
            Kind::Select { operand, field, mode: Selection::Presence } => self.has(operand, field),
            Kind::Call { target, function, args } => self.call(expr, target.as_deref(), function, args),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.message(name, fields),
            Kind::Comprehension(fold) => self.fold(fold),
        }
    }

    fn list(&mut self, items: &'p [Item]) -> Outcome<'a> {
        let mut found = Vec::with_capacity(items.len());
        for item in items {
            let value = self.value(&item.value)?;
            found.extend(present(value, item.presence)?);
        }
        self.meter.charge(cost::LIST)?;
        Ok(Value::from(found))
    }

    fn map(&mut self, entries: &'p [Entry]) -> Outcome<'a> {
        let mut found = BTreeMap::new();
        for entry in entries {
            let key = Key::of(&self.value(&entry.key)?).ok_or_else(|| Failure::new("unsupported key type"))?;
            let value = self.value(&entry.value)?;
            if let Some(value) = present(value, entry.presence)?
                && found.insert(key, value).is_some()
            {
                return Err(Failure::new("Failed with repeated key"));
            }
        }
        self.meter.charge(cost::MAP)?;
        Ok(Value::Map(Map::Owned(Arc::new(found))))
    }

    fn message(&mut self, name: &str, fields: &'p [Field]) -> Outcome<'a> {
        let mut found = BTreeMap::new();
        for field in fields {
            let value = self.value(&field.value)?;
            if let Some(value) = present(value, field.presence)? {
                found.insert(field.name.clone(), value);
            }
        }
        self.meter.charge(cost::STRUCT)?;
        Ok(Value::Object(Arc::new(Object { name: name.into(), fields: found })))
    }

    fn ident(&mut self, name: &str) -> Outcome<'a> {
        self.meter.charge(1)?;
        if let Some((_, local)) = self.locals.iter().rev().find(|(known, _)| *known == name) {
            return local.clone();
        }
        let plain = name.trim_start_matches('.');
        if let Some(value) = self.scope.get(plain) {
            return Ok(value);
        }
        match Type::named(plain) {
            Some(named) => Ok(Value::Type(named.runtime_name().into())),
            None => Err(Failure::new(format!("no such attribute(s): {plain}"))),
        }
    }

    fn select(&mut self, operand: &'p Expr, field: &str) -> Outcome<'a> {
        if let Kind::Ident(name) = &operand.kind
            && name == "variables"
            && let Some(outcome) = self.scope.composed(field, self.meter)
        {
            self.meter.charge(2)?;
            return outcome;
        }
        let of = self.value(operand)?;
        self.meter.charge(1)?;
        match of {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(of)) => Ok(Value::Optional(part(&of, field)?.map(Arc::new))),
            of => part(&of, field)?.ok_or_else(|| Failure::no_such_key(field)),
        }
    }

    fn has(&mut self, operand: &'p Expr, field: &str) -> Outcome<'a> {
        if let Kind::Ident(name) = &operand.kind
            && name == "variables"
            && !self.scope.composed.is_empty()
        {
            return Ok(Value::Bool(self.scope.composed.iter().any(|(known, _)| known == field)));
        }
        let of = self.value(operand)?;
        Ok(Value::Bool(match of {
            Value::Optional(None) => false,
            Value::Optional(Some(of)) => part(&of, field)?.is_some(),
            of => part(&of, field)?.is_some(),
        }))
    }

    fn call(&mut self, expr: &'p Expr, target: Option<&'p Expr>, function: &str, args: &'p [Expr]) -> Outcome<'a> {
        match (function, args) {
            ("_&&_", [left, right]) => return self.logical(left, right, false),
            ("_||_", [left, right]) => return self.logical(left, right, true),
            ("_?:_" | "_?_:_", [condition, yes, no]) => {
                return match self.value(condition)? {
                    Value::Bool(true) => self.value(yes),
                    Value::Bool(false) => self.value(no),
                    _ => Err(Failure::no_such_overload()),
                };
            }
            ("_?._", [operand, field]) => return self.optional_select(operand, field),
            ("@not_strictly_false", [inner]) => {
                self.meter.charge(1)?;
                return match self.value(inner) {
                    Ok(Value::Bool(b)) => Ok(Value::Bool(b)),
                    Err(failure) if failure.is_cost() => Err(failure),
                    _ => Ok(Value::Bool(true)),
                };
            }
            ("or" | "orValue", [other]) => {
                if let Some(target) = target {
                    return self.or(target, other, function);
                }
            }
            _ => {}
        }
        let mut values = Vec::with_capacity(args.len() + 1);
        for part in target.into_iter().chain(args) {
            values.push(self.value(part)?);
        }
        self.run(expr, function, values)
    }

    fn run(&mut self, expr: &Expr, function: &str, values: Vec<Value<'a>>) -> Outcome<'a> {
        self.meter.charge(cost::call(function, &values))?;
        if let Some(Value::Host(host)) = values.first() {
            return host.call(function, &values[1..]);
        }
        let run = self.program.runs[expr.id].ok_or_else(Failure::no_such_overload)?;
        let result = run(values)?;
        if function == "join" {
            self.meter.charge(cost::joined(&result))?;
        }
        Ok(result)
    }

    /// One side that decides is enough, whatever happens to the other.
    fn logical(&mut self, left: &'p Expr, right: &'p Expr, decisive: bool) -> Outcome<'a> {
        let first = match self.value(left) {
            Ok(Value::Bool(b)) if b == decisive => return Ok(Value::Bool(b)),
            Err(failure) if failure.is_cost() => return Err(failure),
            other => other,
        };
        let second = match self.value(right) {
            Ok(Value::Bool(b)) if b == decisive => return Ok(Value::Bool(b)),
            Err(failure) if failure.is_cost() => return Err(failure),
            other => other,
        };
        match (first?, second?) {
            (Value::Bool(_), Value::Bool(_)) => Ok(Value::Bool(!decisive)),
            _ => Err(Failure::no_such_overload()),
        }
    }

    /// The alternative is only computed when it is needed.
    fn or(&mut self, target: &'p Expr, other: &'p Expr, function: &str) -> Outcome<'a> {
        match self.value(target)? {
            Value::Optional(None) => self.value(other),
            Value::Optional(Some(value)) if function == "orValue" => Ok((*value).clone()),
            some @ Value::Optional(Some(_)) => Ok(some),
            _ => Err(Failure::no_such_overload()),
        }
    }

    fn optional_select(&mut self, operand: &'p Expr, field: &'p Expr) -> Outcome<'a> {
        let Kind::Literal(Literal::String(field)) = &field.kind else { return Err(Failure::no_such_overload()) };
        let of = self.value(operand)?;
        self.meter.charge(1)?;
        let found = match of {
            Value::Optional(None) => None,
            Value::Optional(Some(of)) => part(&of, field)?,
            of => part(&of, field)?,
        };
        Ok(Value::Optional(found.map(Arc::new)))
    }

    fn fold(&mut self, fold: &'p Comprehension) -> Outcome<'a> {
        let range = self.value(&fold.range)?;
        let init = self.value(&fold.init);
        let depth = self.locals.len();
        self.locals.push((&fold.accu, init));
        let outcome = match range {
            Value::List(list) => {
                let count = list.len();
                self.rounds(fold, (0..count).map(|i| (Value::Int(i as i64), element(&list, i))), fold.second.is_none())
            }
            Value::Map(map) => self.rounds(fold, map.iter().map(|(key, value)| (key.value(), value)), false),
            _ => Err(Failure::no_such_overload()),
        };
        let outcome = outcome.and_then(|()| self.value(&fold.result));
        self.locals.truncate(depth);
        outcome
    }

    /// `single`: the one variable is the second of each pair, as for a list.
    fn rounds(
        &mut self,
        fold: &'p Comprehension,
        pairs: impl Iterator<Item = (Value<'a>, Value<'a>)>,
        single: bool,
    ) -> Result<(), Failure> {
        let accu = self.locals.len() - 1;
        for (key, value) in pairs {
            match &fold.second {
                None => self.locals.push((&fold.variable, Ok(if single { value } else { key }))),
                Some(second) => {
                    self.locals.push((&fold.variable, Ok(key)));
                    self.locals.push((second, Ok(value)));
                }
            }
            let goes_on = match self.value(&fold.condition) {
                Ok(Value::Bool(goes_on)) => goes_on,
                Ok(_) => return Err(Failure::no_such_overload()),
                Err(failure) => return Err(failure),
            };
            if goes_on {
                let next = self.step(&fold.step, accu);
                if let Err(failure) = &next
                    && failure.is_cost()
                {
                    return Err(failure.clone());
                }
                self.locals[accu].1 = next;
            }
            self.locals.truncate(accu + 1);
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// A step that adds to the accumulator takes it over instead of copying it, or gathering would take square time.
    fn step(&mut self, step: &'p Expr, accu: usize) -> Outcome<'a> {
        let is_accu = |expr: &Expr, name: &str| matches!(&expr.kind, Kind::Ident(ident) if ident == name);
        let name = self.locals[accu].0;
        let Kind::Call { target: None, function, args } = &step.kind else { return self.value(step) };
        match (function.as_str(), args.as_slice()) {
            ("_?_:_", [condition, then, otherwise]) if is_accu(otherwise, name) => match self.value(condition)? {
                Value::Bool(true) => self.step(then, accu),
                Value::Bool(false) => {
                    self.meter.charge(1)?;
                    std::mem::replace(&mut self.locals[accu].1, Ok(Value::Null))
                }
                _ => Err(Failure::no_such_overload()),
            },
            ("_+_" | "cel.@mapInsert", [first, rest @ ..]) if is_accu(first, name) => {
                let mut values = Vec::with_capacity(args.len());
                self.meter.charge(1)?;
                values.push(Value::Null);
                for arg in rest {
                    values.push(self.value(arg)?);
                }
                values[0] = std::mem::replace(&mut self.locals[accu].1, Ok(Value::Null))?;
                self.run(step, function, values)
            }
            _ => self.value(step),
        }
    }
}

fn element<'a>(list: &List<'a>, index: usize) -> Value<'a> {
    list.get(index).unwrap_or(Value::Null)
}

/// An element that stands there only when it has a value.
fn present(value: Value<'_>, presence: Presence) -> Result<Option<Value<'_>>, Failure> {
    match (presence, value) {
        (Presence::Always, value) => Ok(Some(value)),
        (Presence::IfPresent, Value::Optional(held)) => Ok(held.map(|value| (*value).clone())),
        (Presence::IfPresent, _) => Err(Failure::new("cannot initialize optional entry from non-optional value")),
    }
}

/// A field; `None` when it is not set.
fn part<'a>(of: &Value<'a>, field: &str) -> Result<Option<Value<'a>>, Failure> {
    match of {
        Value::Map(map) => Ok(map.field(field)),
        Value::Object(object) => Ok(object.fields.get(field).cloned()),
        _ => Err(Failure::no_such_overload()),
    }
}
