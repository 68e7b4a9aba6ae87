//! Which type each part of an expression has, and which functions its calls may mean.
//!
//! Owns: inference with type parameters, resolution of names and overloads, the messages about what does not fit.
//! Called by: the compilation of a program.
//! Never: evaluates anything.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Comprehension, Expr, Kind, Literal, Presence, Selection, qualified_name};
use crate::environment::Environment;
use crate::fault::Fault;
use crate::functions::{self, Overload};
use crate::types::{Fields, Type};

/// What the checker found, by the ids of nodes.
#[derive(Debug)]
pub struct Checked {
    pub types: Vec<Type>,
    pub overloads: Vec<Vec<&'static str>>,
    /// Variables of the environment that are used.
    pub used: Vec<String>,
}

/// Rewrites names that span several nodes, so `tree` afterwards is what is evaluated.
pub fn check(environment: &Environment, tree: &mut Expr, nodes: usize) -> Result<Checked, Vec<Fault>> {
    let mut checker = Checker {
        environment,
        types: vec![Type::Error; nodes],
        overloads: vec![Vec::new(); nodes],
        used: Vec::new(),
        scopes: Vec::new(),
        bound: HashMap::new(),
        trail: Vec::new(),
        fresh: 0,
        formats: 0,
        faults: Vec::new(),
    };
    checker.check(tree);
    if !checker.faults.is_empty() {
        checker.faults.sort_by_key(|fault| fault.at);
        return Err(checker.faults);
    }
    let types = checker.types.iter().map(|t| checker.resolved(t, Unbound::Dyn)).collect();
    Ok(Checked { types, overloads: checker.overloads, used: checker.used })
}

struct Checker<'e> {
    environment: &'e Environment,
    types: Vec<Type>,
    overloads: Vec<Vec<&'static str>>,
    used: Vec<String>,
    /// Variables of folds, innermost last.
    scopes: Vec<(String, Type)>,
    bound: HashMap<Arc<str>, Type>,
    /// What `bound` held before each change, so that a failed attempt can be undone.
    trail: Vec<(Arc<str>, Option<Type>)>,
    fresh: usize,
    /// How many calls of `format` enclose what is checked.
    formats: usize,
    faults: Vec<Fault>,
}

/// What becomes of a parameter that nothing is known of.
#[derive(Clone, Copy, PartialEq)]
enum Unbound {
    Keep,
    Dyn,
}

impl Checker<'_> {
    fn fault(&mut self, at: usize, what: String) -> Type {
        self.faults.push(Fault { at, what });
        Type::Error
    }

    fn check(&mut self, expr: &mut Expr) -> Type {
        let found = self.infer(expr);
        self.types[expr.id] = found.clone();
        found
    }

    fn infer(&mut self, expr: &mut Expr) -> Type {
        let at = expr.at;
        if let Some(found) = self.variable_spelled_with_dots(expr) {
            return found;
        }
        match &mut expr.kind {
            Kind::Literal(literal) => literal_type(literal),
            Kind::Ident(name) => {
                let name = name.clone();
                self.ident(at, &name)
            }
            Kind::Select { operand, field, mode } => {
                let (field, mode) = (field.clone(), *mode);
                let found = self.select(at, operand, &field);
                if mode == Selection::Presence { Type::Bool } else { found }
            }
            Kind::Call { .. } => self.call(expr),
            Kind::List(items) => {
                let mut element = None;
                for item in items {
                    let found = self.element(&mut item.value, item.presence);
                    element = Some(self.joined(item.value.at, element, found));
                }
                Type::list(element.unwrap_or_else(|| self.fresh()))
            }
            Kind::Map(entries) => {
                let (mut key, mut value) = (None, None);
                for entry in entries {
                    let found = self.check(&mut entry.key);
                    key = Some(self.joined(entry.key.at, key, found));
                    let found = self.element(&mut entry.value, entry.presence);
                    value = Some(self.joined(entry.value.at, value, found));
                }
                let key = key.unwrap_or_else(|| self.fresh());
                Type::map(key, value.unwrap_or_else(|| self.fresh()))
            }
            Kind::Struct { .. } => self.message(expr),
            Kind::Comprehension(fold) => self.fold(fold),
        }
    }

    /// `authorizer.requestResource` is one variable, though it reads like a field.
    fn variable_spelled_with_dots(&mut self, expr: &mut Expr) -> Option<Type> {
        if !matches!(expr.kind, Kind::Select { mode: Selection::Value, .. }) {
            return None;
        }
        let name = qualified_name(expr)?;
        let first = name.split('.').next().unwrap_or("");
        if self.scopes.iter().any(|(local, _)| local == first) {
            return None;
        }
        let declared = self.environment.variable(&name).cloned();
        let found = declared.or_else(|| Type::named(&name).map(|named| Type::Type(Arc::new(named))))?;
        self.used.push(name.clone());
        expr.kind = Kind::Ident(name);
        Some(found)
    }

    fn ident(&mut self, at: usize, name: &str) -> Type {
        if let Some((_, found)) = self.scopes.iter().rev().find(|(local, _)| local == name) {
            return found.clone();
        }
        let plain = name.trim_start_matches('.');
        if let Some(found) = self.environment.variable(plain) {
            self.used.push(plain.into());
            return found.clone();
        }
        match Type::named(plain) {
            Some(named) => Type::Type(Arc::new(named)),
            None => self.fault(at, format!("undeclared reference to '{name}' (in container '')")),
        }
    }

    fn select(&mut self, at: usize, operand: &mut Expr, field: &str) -> Type {
        let found = self.check(operand);
        let found = self.resolved(&found, Unbound::Keep);
        let (target, optional) = match &found {
            Type::Optional(of) => (self.resolved(of, Unbound::Keep), true),
            _ => (found, false),
        };
        let result = match &target {
            Type::Map(map) => map.1.clone(),
            Type::Object(object) => match &object.fields {
                Fields::Any => Type::Dyn,
                Fields::Declared(fields) => match fields.get(field) {
                    Some(field) => field.of.clone(),
                    None => self.fault(at, format!("undefined field '{field}'")),
                },
            },
            Type::Param(_) => {
                self.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            other if other.is_dyn() => Type::Dyn,
            other => {
                let shown = self.resolved(other, Unbound::Dyn);
                self.fault(at, format!("type '{shown}' does not support field selection"));
                Type::Dyn
            }
        };
        if optional { Type::optional(result) } else { result }
    }

    /// An element of a literal; one that may be absent must be optional.
    fn element(&mut self, value: &mut Expr, presence: Presence) -> Type {
        let found = self.check(value);
        if presence == Presence::Always {
            return found;
        }
        match self.resolved(&found, Unbound::Keep) {
            Type::Optional(of) => (*of).clone(),
            other if other.is_dyn() => Type::Dyn,
            other => {
                let wanted = Type::optional(other.clone());
                self.fault(value.at, format!("expected type '{wanted}' but found '{other}'"))
            }
        }
    }

    fn joined(&mut self, at: usize, before: Option<Type>, found: Type) -> Type {
        let Some(before) = before else { return found };
        if self.assignable(&before, &found) {
            return self.more_general(before, found);
        }
        // Kubernetes wants the elements of a literal to be of one type, except what is given to `format`.
        if self.formats > 0 {
            return Type::Dyn;
        }
        let (before, found) = (self.resolved(&before, Unbound::Dyn), self.resolved(&found, Unbound::Dyn));
        self.fault(at, format!("expected type '{before}' but found '{found}'"));
        Type::Dyn
    }

    fn message(&mut self, expr: &mut Expr) -> Type {
        let at = expr.at;
        let Kind::Struct { name, fields } = &mut expr.kind else { return Type::Error };
        let Some(object) = self.environment.message(name) else {
            return self.fault(at, format!("undeclared reference to '{name}' (in container '')"));
        };
        for field in fields {
            let found = self.element(&mut field.value, field.presence);
            let wanted = match &object.fields {
                Fields::Any => Type::Dyn,
                Fields::Declared(declared) => match declared.get(&field.name) {
                    Some(declared) => declared.of.clone(),
                    None => self.fault(field.at, format!("undefined field '{}'", field.name)),
                },
            };
            if !self.assignable(&wanted, &found) {
                let found = self.resolved(&found, Unbound::Dyn);
                let name = &field.name;
                let what = format!("expected type of field '{name}' is '{wanted}' but provided type is '{found}'");
                self.fault(field.at, what);
            }
        }
        Type::Object(object)
    }

    fn fold(&mut self, fold: &mut Comprehension) -> Type {
        let range = self.check(&mut fold.range);
        let accu = self.check(&mut fold.init);
        let range = self.resolved(&range, Unbound::Keep);
        let (first, second) = match &range {
            Type::List(list) if fold.second.is_some() => (Type::Int, list.element.clone()),
            Type::List(list) => (list.element.clone(), Type::Dyn),
            Type::Map(map) => (map.0.clone(), map.1.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let what = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                (self.fault(fold.range.at, what), Type::Error)
            }
        };
        let depth = self.scopes.len();
        self.scopes.push((fold.accu.clone(), accu.clone()));
        self.scopes.push((fold.variable.clone(), first));
        if let Some(name) = &fold.second {
            self.scopes.push((name.clone(), second));
        }
        self.check(&mut fold.condition);
        self.demand(&fold.condition, &Type::Bool);
        self.check(&mut fold.step);
        self.demand(&fold.step, &accu);
        self.scopes.truncate(depth + 1);
        let result = self.check(&mut fold.result);
        self.scopes.truncate(depth);
        self.resolved(&result, Unbound::Keep)
    }

    fn demand(&mut self, expr: &Expr, wanted: &Type) {
        let found = self.types[expr.id].clone();
        if !self.assignable(wanted, &found) {
            let (wanted, found) = (self.resolved(wanted, Unbound::Dyn), self.resolved(&found, Unbound::Dyn));
            self.fault(expr.at, format!("expected type '{wanted}' but found '{found}'"));
        }
    }

    fn call(&mut self, expr: &mut Expr) -> Type {
        let (at, id) = (expr.at, expr.id);
        let Kind::Call { target, function, args } = &mut expr.kind else { return Type::Error };
        if function == "_?._" {
            return self.optional_select(at, args);
        }
        let formats = usize::from(function == "format");
        self.formats += formats;
        let mut found: Vec<Type> = args.iter_mut().map(|arg| self.check(arg)).collect();
        self.formats -= formats;
        if let Some(on) = target {
            let full = qualified_name(on).map(|prefix| format!("{prefix}.{function}"));
            match full.filter(|full| self.environment.knows(full) && functions::overloads(full).is_some()) {
                Some(full) => (*function, *target) = (full, None),
                None => found.insert(0, self.check(on)),
            }
        }
        let name = function.trim_start_matches('.').to_string();
        let Some(overloads) = functions::overloads(&name) else {
            return self.fault(at, format!("undeclared reference to '{function}' (in container '')"));
        };
        function.clone_from(&name);
        let member = target.is_some();
        let args: Vec<usize> = args.iter().map(|arg| arg.at).collect();
        self.resolve(Calling { at, id, name: &name, member, args: &args }, overloads, &found)
    }

    fn optional_select(&mut self, at: usize, args: &mut [Expr]) -> Type {
        let [operand, field] = args else { return self.fault(at, "unsupported optional field selection".into()) };
        let Kind::Literal(Literal::String(name)) = &field.kind else {
            return self.fault(field.at, "unsupported optional field selection".into());
        };
        let name = name.clone();
        self.types[field.id] = Type::String;
        match self.select(at, operand, &name) {
            already @ Type::Optional(_) if matches!(self.types[operand.id], Type::Optional(_)) => already,
            plain => Type::optional(plain),
        }
    }

    fn resolve(&mut self, calling: Calling<'_>, overloads: &'static [Overload], found: &[Type]) -> Type {
        if matches!(calling.name, "_&&_" | "_||_") {
            return self.logical(&calling, overloads, found);
        }
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|o| o.member == calling.member && o.args.len() == found.len()) {
            let fresh = self.instance();
            let mark = self.trail.len();
            let mut fits = |(wanted, found)| self.unify(found, &instantiate(wanted, &fresh));
            if !overload.args.iter().zip(found).all(&mut fits) {
                self.undo(mark);
                continue;
            }
            self.overloads[calling.id].push(overload.id);
            let mine = instantiate(&overload.result, &fresh);
            let mine = self.resolved(&mine, Unbound::Keep);
            result = Some(match result {
                Some(other) if other.is_dyn() || other == mine => other,
                Some(_) => Type::Dyn,
                None => mine,
            });
        }
        result.unwrap_or_else(|| {
            let shown: Vec<String> = found.iter().map(|t| self.resolved(t, Unbound::Dyn).to_string()).collect();
            let signature = match shown.split_first() {
                Some((target, rest)) if calling.member => format!("{target}.({})", rest.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            let name = calling.name;
            self.fault(calling.at, format!("found no matching overload for '{name}' applied to '{signature}'"))
        })
    }

    fn logical(&mut self, calling: &Calling<'_>, overloads: &'static [Overload], found: &[Type]) -> Type {
        self.overloads[calling.id].push(overloads[0].id);
        let mut result = Type::Bool;
        for (found, at) in found.iter().zip(calling.args) {
            if !self.assignable(found, &Type::Bool) {
                let found = self.resolved(found, Unbound::Dyn);
                result = self.fault(*at, format!("expected type 'bool' but found '{found}'"));
            }
        }
        result
    }

    fn fresh(&mut self) -> Type {
        self.fresh += 1;
        Type::Param(format!("_var{}", self.fresh).into())
    }

    /// Fresh parameters for one use of an overload; none has more than two.
    fn instance(&mut self) -> [Type; 2] {
        [self.fresh(), self.fresh()]
    }

    fn resolved(&self, of: &Type, unbound: Unbound) -> Type {
        match of {
            Type::Param(name) => match self.bound.get(name) {
                Some(bound) => self.resolved(bound, unbound),
                None if unbound == Unbound::Dyn => Type::Dyn,
                None => of.clone(),
            },
            Type::List(list) => match self.resolved(&list.element, unbound) {
                element if element == list.element => of.clone(),
                element => Type::list(element),
            },
            Type::Map(map) => Type::map(self.resolved(&map.0, unbound), self.resolved(&map.1, unbound)),
            Type::Optional(inner) => Type::optional(self.resolved(inner, unbound)),
            Type::Type(inner) => Type::Type(Arc::new(self.resolved(inner, unbound))),
            _ => of.clone(),
        }
    }

    /// Whether a value of one may stand where the other is wanted; binds parameters on the way.
    fn assignable(&mut self, one: &Type, other: &Type) -> bool {
        let mark = self.trail.len();
        let fits = self.unify(one, other);
        if !fits {
            self.undo(mark);
        }
        fits
    }

    fn undo(&mut self, mark: usize) {
        while self.trail.len() > mark {
            match self.trail.pop() {
                Some((name, Some(before))) => self.bound.insert(name, before),
                Some((name, None)) => self.bound.remove(&name),
                None => None,
            };
        }
    }

    fn unify(&mut self, one: &Type, other: &Type) -> bool {
        if let Type::Param(name) = other {
            return self.bind(name, one);
        }
        if let Type::Param(name) = one {
            return self.bind(name, other);
        }
        match (one, other) {
            _ if one.is_dyn() || other.is_dyn() => true,
            (Type::List(a), Type::List(b)) => self.unify(&a.element, &b.element),
            (Type::Map(a), Type::Map(b)) => self.unify(&a.0, &b.0) && self.unify(&a.1, &b.1),
            (Type::Optional(a), Type::Optional(b)) => self.unify(a, b),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::Null, nullable) | (nullable, Type::Null) => matches!(
                nullable,
                Type::Null | Type::Object(_) | Type::Opaque(_) | Type::Duration | Type::Timestamp | Type::Optional(_)
            ),
            _ => one == other,
        }
    }

    fn bind(&mut self, name: &Arc<str>, to: &Type) -> bool {
        if *to == Type::Param(name.clone()) {
            return true;
        }
        match self.bound.get(name).cloned() {
            Some(already) => {
                if !self.unify(&already, to) {
                    return false;
                }
                let general = self.more_general(already, to.clone());
                self.bind_checked(name, general)
            }
            None => self.bind_checked(name, to.clone()),
        }
    }

    fn bind_checked(&mut self, name: &Arc<str>, to: Type) -> bool {
        if to == Type::Param(name.clone()) {
            return true;
        }
        if self.occurs(name, &to) {
            return false;
        }
        let before = self.bound.insert(name.clone(), to);
        self.trail.push((name.clone(), before));
        true
    }

    fn occurs(&self, name: &Arc<str>, within: &Type) -> bool {
        match within {
            Type::Param(other) => other == name || self.bound.get(other).is_some_and(|bound| self.occurs(name, bound)),
            Type::List(list) => self.occurs(name, &list.element),
            Type::Map(map) => self.occurs(name, &map.0) || self.occurs(name, &map.1),
            Type::Optional(inner) | Type::Type(inner) => self.occurs(name, inner),
            _ => false,
        }
    }

    /// Of two types that fit each other, the one that says less.
    fn more_general(&self, one: Type, other: Type) -> Type {
        if self.says_less(&one, &other) { one } else { other }
    }

    fn says_less(&self, one: &Type, other: &Type) -> bool {
        match (one, other) {
            (Type::Dyn | Type::Any | Type::Error, _) => true,
            (_, Type::Dyn | Type::Any | Type::Error) => false,
            (_, Type::Param(_)) => true,
            (Type::Param(_), _) => false,
            (Type::Null, _) => false,
            (Type::List(a), Type::List(b)) => self.says_less(&a.element, &b.element),
            (Type::Map(a), Type::Map(b)) => self.says_less(&a.0, &b.0) && self.says_less(&a.1, &b.1),
            (Type::Optional(a), Type::Optional(b)) => self.says_less(a, b),
            _ => true,
        }
    }
}

/// A call whose overload is looked for.
struct Calling<'c> {
    at: usize,
    id: usize,
    name: &'c str,
    member: bool,
    args: &'c [usize],
}

fn instantiate(of: &Type, fresh: &[Type; 2]) -> Type {
    match of {
        Type::Param(name) => fresh[usize::from(&**name == "B")].clone(),
        Type::List(list) => Type::list(instantiate(&list.element, fresh)),
        Type::Map(map) => Type::map(instantiate(&map.0, fresh), instantiate(&map.1, fresh)),
        Type::Optional(inner) => Type::optional(instantiate(inner, fresh)),
        Type::Type(inner) => Type::Type(Arc::new(instantiate(inner, fresh))),
        _ => of.clone(),
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
