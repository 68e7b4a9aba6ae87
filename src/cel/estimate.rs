//! What an expression may cost at most, before it ever runs.
//!
//! Owns: sizes and costs as ranges, carried through the tree from what a schema says about lengths.
//! Called by: the check of new CustomResourceDefinitions.
//! Never: evaluates anything.

use std::collections::HashMap;

use crate::ast::{Comprehension, Expr, Kind, Literal, Selection};
use crate::cost::{AUTHORIZATION, FORMAT_PATTERN_MAX, LIST, MAP, PATTERN, STRUCT, TRAVERSAL, selector};
use crate::environment::Program;
use crate::macros::ACCUMULATOR;
use crate::types::{self, Type};

/// Least and most of a size or a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub min: u64,
    pub max: u64,
}

/// How many parts the data at a path may have: `self`, a field, `@items`, `@values`, `@keys`.
pub type Sizes<'s> = &'s dyn Fn(&[String]) -> Option<u64>;

impl Span {
    const NONE: Span = Span { min: 0, max: 0 };
    const ONE: Span = Span { min: 1, max: 1 };
    const UNKNOWN: Span = Span { min: 0, max: u64::MAX };

    fn exactly(size: u64) -> Self {
        Self { min: size, max: size }
    }
    fn plus(self, other: Span) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }
    fn times(self, other: Span) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }
    fn factor(self, factor: f64) -> Self {
        // A float that is too large becomes the largest integer.
        Self { min: (self.min as f64 * factor).ceil() as u64, max: (self.max as f64 * factor).ceil() as u64 }
    }
    fn either(self, other: Span) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// Sizes of what a list or map holds.
#[derive(Clone, Copy, Debug)]
struct Entries {
    key: Span,
    value: Span,
}

/// A variable of a fold.
struct Local {
    name: String,
    path: Vec<String>,
    size: Option<Span>,
    entries: Option<Entries>,
}

impl Program {
    pub fn estimate(&self, sizes: Sizes<'_>) -> Span {
        let mut estimate = Estimate {
            program: self,
            sizes,
            locals: Vec::new(),
            paths: HashMap::new(),
            computed: HashMap::new(),
            entries: HashMap::new(),
        };
        estimate.cost(&self.tree)
    }
}

struct Estimate<'e> {
    program: &'e Program,
    sizes: Sizes<'e>,
    locals: Vec<Local>,
    paths: HashMap<usize, Vec<String>>,
    computed: HashMap<usize, Span>,
    entries: HashMap<usize, Entries>,
}

/// What a call costs without its arguments, and how large its result is.
struct Priced {
    cost: Span,
    size: Option<Span>,
}

impl Priced {
    fn of(cost: Span) -> Self {
        Self { cost, size: None }
    }
}

impl Estimate<'_> {
    fn type_of(&self, expr: &Expr) -> &Type {
        &self.program.checked.types[expr.id]
    }
    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| local.name == name)
    }
    fn path(&self, expr: &Expr) -> Vec<String> {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    fn cost(&mut self, expr: &Expr) -> Span {
        match &expr.kind {
            Kind::Literal(_) => Span::NONE,
            Kind::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![name.clone()], |local| local.path.clone());
                self.paths.insert(expr.id, path);
                Span::ONE
            }
            Kind::Select { operand, field, mode } => self.select(expr, operand, field, *mode),
            Kind::Call { target, function, args } => self.call(expr, target.as_deref(), function, args),
            Kind::List(items) => {
                let mut sum = Span::exactly(LIST);
                let mut size = Span { min: if items.is_empty() { 0 } else { u64::MAX }, max: 0 };
                for item in items {
                    sum = sum.plus(self.cost(&item.value));
                    size = size.either(self.size_or_unknown(&item.value));
                }
                self.entries.insert(expr.id, Entries { key: Span::ONE, value: size });
                sum
            }
            Kind::Map(entries) => {
                let mut sum = Span::exactly(MAP);
                let none = Span { min: if entries.is_empty() { 0 } else { u64::MAX }, max: 0 };
                let mut held = Entries { key: none, value: none };
                for entry in entries {
                    sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                    held.key = held.key.either(self.size_or_unknown(&entry.key));
                    held.value = held.value.either(self.size_or_unknown(&entry.value));
                }
                self.entries.insert(expr.id, held);
                sum
            }
            Kind::Struct { fields, .. } => {
                fields.iter().fold(Span::exactly(STRUCT), |sum, field| sum.plus(self.cost(&field.value)))
            }
            Kind::Comprehension(fold) => self.fold(expr, fold),
        }
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, mode: Selection) -> Span {
        let mut sum = self.cost(operand);
        if mode == Selection::Presence {
            return sum;
        }
        if matches!(self.type_of(operand), Type::Map(_) | Type::Object(_) | Type::Param(_)) {
            sum = sum.plus(Span::ONE);
        }
        let mut path = self.path(operand);
        path.push(field.into());
        self.paths.insert(expr.id, path);
        sum
    }

    fn is_bind(fold: &Comprehension) -> bool {
        matches!(&fold.range.kind, Kind::List(items) if items.is_empty())
            && matches!(fold.condition.kind, Kind::Literal(Literal::Bool(false)))
            && fold.accu != ACCUMULATOR
    }

    fn push(&mut self, name: &str, of: &Expr, part: Option<&str>, size: Option<Span>) {
        let mut path = self.path(of);
        path.extend(part.map(String::from));
        let entries = if part.is_none() { self.entry_sizes(of) } else { None };
        self.locals.push(Local { name: name.into(), path, size, entries });
    }

    fn fold(&mut self, expr: &Expr, fold: &Comprehension) -> Span {
        let mut sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        let depth = self.locals.len();
        let size = self.size(&fold.init);
        self.push(&fold.accu, &fold.init, None, size);
        if Self::is_bind(fold) {
            sum = sum.plus(self.cost(&fold.result));
            self.copy_sizes(expr, &fold.result);
            self.locals.truncate(depth);
            return sum;
        }
        let held = self.entry_sizes(&fold.range);
        let (key, value) = (held.map(|h| h.key), held.map(|h| h.value));
        let is_list = matches!(self.type_of(&fold.range), Type::List(_));
        let parts = if is_list { ("@indices", "@items") } else { ("@keys", "@values") };
        match &fold.second {
            Some(second) => {
                self.push(&fold.variable, &fold.range, Some(parts.0), key);
                self.push(second, &fold.range, Some(parts.1), value);
            }
            None if is_list => self.push(&fold.variable, &fold.range, Some("@items"), value),
            None => self.push(&fold.variable, &fold.range, Some("@keys"), key),
        }
        let round = self.cost(&fold.condition).plus(self.cost(&fold.step));
        self.locals.truncate(depth + 1);
        sum = sum.plus(self.cost(&fold.result));
        self.locals.truncate(depth);
        let count = self.size_or_unknown(&fold.range);
        sum = sum.plus(count.times(round));
        match &fold.init.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&fold.init) {
                    self.computed.insert(expr.id, size);
                }
            }
            Kind::List(_) | Kind::Map(_) => {
                self.computed.insert(expr.id, count);
                if let Some(entries) = self.entry_sizes(&fold.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        sum
    }

    fn copy_sizes(&mut self, to: &Expr, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.computed.insert(to.id, size);
        }
        if let Some(entries) = self.entry_sizes(from) {
            self.entries.insert(to.id, entries);
        }
    }

    fn entry_sizes(&self, expr: &Expr) -> Option<Entries> {
        if let Some(known) = self.entries.get(&expr.id) {
            return Some(*known);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.entries),
            _ => None,
        }
    }

    fn size(&self, expr: &Expr) -> Option<Span> {
        if let Some(known) = self.computed.get(&expr.id) {
            return Some(*known);
        }
        match &expr.kind {
            Kind::Literal(Literal::String(s)) => return Some(Span::exactly(s.chars().count() as u64)),
            Kind::Literal(Literal::Bytes(b)) => return Some(Span::exactly(b.len() as u64)),
            Kind::Literal(_) => return Some(Span::ONE),
            Kind::List(items) => return Some(Span::exactly(items.len() as u64)),
            Kind::Map(entries) => return Some(Span::exactly(entries.len() as u64)),
            _ => {}
        }
        let path = self.path(expr);
        if !path.is_empty()
            && path[0] != ACCUMULATOR
            && let Some(max) = (self.sizes)(&path)
        {
            return Some(Span { min: 0, max });
        }
        if is_scalar(self.type_of(expr)) {
            return Some(Span::ONE);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.size),
            _ => None,
        }
    }

    fn size_or_unknown(&self, expr: &Expr) -> Span {
        self.size(expr).unwrap_or(Span::UNKNOWN)
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, function: &str, args: &[Expr]) -> Span {
        if function == "dyn"
            && let [arg] = args
        {
            let cost = self.cost(arg).plus(Span::ONE);
            self.copy_sizes(expr, arg);
            return cost;
        }
        let costs: Vec<Span> = args.iter().map(|arg| self.cost(arg)).collect();
        let mut sum = target.map_or(Span::NONE, |target| self.cost(target));
        if let [condition, yes, no] = costs[..]
            && function == "_?_:_"
        {
            self.conditional(expr, args);
            return sum.plus(condition).plus(yes.either(no));
        }
        if let [left, right] = costs[..]
            && matches!(function, "_&&_" | "_||_")
        {
            return sum.plus(Span { min: left.min, max: left.plus(right).max });
        }
        sum = costs.iter().fold(sum, |sum, cost| sum.plus(*cost));
        let overloads = self.program.checked.overloads[expr.id].clone();
        if function == "_?._" || overloads.is_empty() {
            return sum.plus(Span::ONE);
        }
        let operands: Vec<&Expr> = target.into_iter().chain(args).collect();
        let mut price: Option<Priced> = None;
        for overload in overloads {
            let one = self.price(function, overload, &operands);
            price = Some(match price {
                None => one,
                Some(so_far) => Priced {
                    cost: so_far.cost.either(one.cost),
                    size: match (so_far.size, one.size) {
                        (Some(a), Some(b)) => Some(a.either(b)),
                        (a, b) => a.or(b),
                    },
                },
            });
            self.indexed(expr, overload, &operands);
        }
        let price = price.unwrap_or(Priced::of(Span::ONE));
        if function == "_+_" {
            self.sum_entries(expr, args);
        }
        if let Some(size) = price.size {
            self.computed.insert(expr.id, size);
        }
        sum.plus(price.cost)
    }

    fn conditional(&mut self, expr: &Expr, args: &[Expr]) {
        let size = self.size_or_unknown(&args[1]).either(self.size_or_unknown(&args[2]));
        self.computed.insert(expr.id, size);
        self.sum_entries(expr, &args[1..]);
    }

    /// What a list made of two lists holds.
    fn sum_entries(&mut self, expr: &Expr, args: &[Expr]) {
        let [one, other] = args else { return };
        let held = match (self.entry_sizes(one), self.entry_sizes(other)) {
            (Some(a), Some(b)) => Some(Entries { key: a.key.either(b.key), value: a.value.either(b.value) }),
            (a, b) => a.or(b),
        };
        if let Some(held) = held {
            self.entries.insert(expr.id, held);
        }
    }

    fn indexed(&mut self, expr: &Expr, overload: &str, operands: &[&Expr]) {
        let part = match overload {
            "index_list" => "@items",
            "index_map" => "@values",
            _ => return,
        };
        let mut path = self.path(operands[0]);
        if !path.is_empty() {
            path.push(part.into());
            self.paths.insert(expr.id, path);
        }
        if let Some(held) = self.entry_sizes(operands[0]) {
            self.computed.insert(expr.id, held.value);
        }
    }

    fn price(&self, function: &str, overload: &str, operands: &[&Expr]) -> Priced {
        let size = |index: usize| operands.get(index).map_or(Span::UNKNOWN, |expr| self.size_or_unknown(expr));
        let one_more = |span: Span| span.plus(Span::ONE);
        match function {
            "check" => Priced::of(Span::exactly(AUTHORIZATION)),
            "fieldSelector" | "labelSelector" => {
                let length = size(1);
                let max = if length.max > 1 << 40 { u64::MAX } else { selector(length.max) };
                Priced::of(Span { min: selector(length.min), max })
            }
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => self.per_element(operands[0]),
            "url" | "jsonpatch.escapeKey" | "lowerAscii" | "upperAscii" | "substring" | "trim" => {
                Priced { cost: size(0).factor(TRAVERSAL), size: Some(size(0)) }
            }
            "replace" => replaced(size(0), size(1), size(2)),
            "split" => Priced { cost: size(0).factor(2.0 * TRAVERSAL), size: Some(Span { min: 0, max: size(0).max }) },
            "join" => self.joined(operands),
            "find" | "findAll" | "matches" => {
                let text = one_more(size(0)).factor(TRAVERSAL);
                let found = (function != "matches").then(|| Span { min: 0, max: size(0).max });
                Priced { cost: text.times(size(1).factor(PATTERN)), size: found }
            }
            "cidr" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
                Priced::of(size(0).factor(TRAVERSAL))
            }
            "ip" if overload != "cidr_ip" => Priced::of(size(0).factor(TRAVERSAL)),
            "ip.isCanonical" => Priced::of(size(0).factor(2.0 * TRAVERSAL)),
            "containsIP" | "containsCIDR" => {
                let address = Span { min: 4, max: 16 };
                let mut cost = address.plus(address).factor(TRAVERSAL);
                if function == "containsCIDR" {
                    cost = cost.plus(address.factor(TRAVERSAL)).plus(Span::ONE);
                }
                if overload.ends_with("_string") {
                    cost = cost.plus(size(1).factor(TRAVERSAL));
                }
                Priced::of(cost)
            }
            "validate" => Priced::of(size(1).factor(TRAVERSAL).factor(FORMAT_PATTERN_MAX * PATTERN)),
            _ => self.standard_price(function, overload, operands),
        }
    }

    fn standard_price(&self, function: &str, overload: &str, operands: &[&Expr]) -> Priced {
        let size = |index: usize| operands.get(index).map_or(Span::UNKNOWN, |expr| self.size_or_unknown(expr));
        match overload {
            "string_format" => Priced::of(size(0).factor(TRAVERSAL)),
            "string_to_bytes" => Priced {
                cost: size(0).factor(TRAVERSAL),
                size: Some(Span { min: size(0).min, max: size(0).max.saturating_mul(4) }),
            },
            "bytes_to_string" => {
                Priced { cost: size(0).factor(TRAVERSAL), size: Some(Span { min: size(0).min / 4, max: size(0).max }) }
            }
            "strings_quote" => Priced {
                cost: size(0).factor(TRAVERSAL),
                size: Some(Span {
                    min: size(0).min.saturating_add(2),
                    max: size(0).max.saturating_mul(2).saturating_add(2),
                }),
            },
            "starts_with_string" | "ends_with_string" => Priced::of(size(1).factor(TRAVERSAL)),
            "in_list" => Priced::of(size(1)),
            "contains_string" => Priced::of(size(0).factor(TRAVERSAL).times(size(1).factor(TRAVERSAL))),
            "add_string" | "add_bytes" => {
                let both = size(0).plus(size(1));
                Priced { cost: both.factor(TRAVERSAL), size: Some(both) }
            }
            "add_list" => Priced { cost: Span::ONE, size: Some(size(0).plus(size(1))) },
            "equals" | "not_equals" if self.is_simple_opaque(operands) => Priced::of(Span::ONE),
            "list_sets_contains_list" | "list_sets_intersects_list" => {
                Priced::of(size(0).times(size(1)).plus(Span::ONE))
            }
            "list_sets_equivalent_list" => Priced::of(size(0).times(size(1)).factor(2.0).plus(Span::ONE)),
            "list_distinct" => Priced { cost: size(0).times(size(0)).plus(Span::ONE), size: Some(size(0)) },
            "lists_range" => {
                Priced { cost: Span { min: LIST, max: 1_000_010 }, size: Some(Span { min: 0, max: 1_000_000 }) }
            }
            "list_slice" | "list_reverse" | "list_flatten" | "list_flatten_int" => {
                Priced { cost: size(0).plus(Span::exactly(LIST)), size: Some(size(0)) }
            }
            _ if function == "sort" || function == "@sortByAssociatedKeys" => {
                Priced { cost: size(0).plus(Span::exactly(LIST)), size: Some(size(0)) }
            }
            _ if compares_length(function, overload) => {
                let max = size(0).max.min(size(1).max);
                Priced::of(Span { min: u64::from(max > 0), max }.factor(TRAVERSAL))
            }
            _ => Priced::of(Span::ONE),
        }
    }

    fn is_simple_opaque(&self, operands: &[&Expr]) -> bool {
        operands.iter().all(|expr| match self.type_of(expr) {
            Type::Opaque(name) => *name != types::URL && *name != types::FORMAT,
            _ => false,
        })
    }

    /// Functions that look at each element once, and at each character of elements that are text.
    fn per_element(&self, list: &Expr) -> Priced {
        let count = self.size_or_unknown(list);
        let Type::List(of) = self.type_of(list) else { return Priced::of(count.factor(TRAVERSAL)) };
        let mut each = Span::ONE;
        if matches!(of.element, Type::String | Type::Bytes) {
            each = each.plus(self.element_size(list).factor(TRAVERSAL));
        }
        Priced::of(count.times(each))
    }

    fn element_size(&self, list: &Expr) -> Span {
        let mut path = self.path(list);
        if path.is_empty() {
            return Span::UNKNOWN;
        }
        path.push("@items".into());
        (self.sizes)(&path).map_or(Span::UNKNOWN, |max| Span { min: 0, max })
    }

    fn joined(&self, operands: &[&Expr]) -> Priced {
        let count = self.size_or_unknown(operands[0]);
        let mut size = count.times(self.element_size(operands[0]));
        if let Some(separator) = operands.get(1) {
            let between = Span { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
            size = size.plus(self.size_or_unknown(separator).times(between));
        }
        Priced { cost: size.factor(TRAVERSAL), size: Some(size) }
    }
}

fn compares_length(function: &str, overload: &str) -> bool {
    matches!(overload, "equals" | "not_equals")
        || (matches!(function, "_<_" | "_<=_" | "_>_" | "_>=_")
            && (overload.ends_with("_string") || overload.ends_with("_bytes")))
}

/// The longest result replaces the shortest parts by the longest text, as often as that fits.
fn replaced(text: Span, from: Span, to: Span) -> Priced {
    let (mut count, mut kept) = (Span::NONE, Span::NONE);
    if from.min == 0 {
        (count.max, kept.max) = (text.max.saturating_add(1), text.max);
    } else if to.max <= from.min {
        kept.max = text.max;
    } else {
        count.max = (text.max as f64 / from.min as f64).ceil() as u64;
    }
    if from.max == 0 {
        (count.min, kept.min) = (text.min.saturating_add(1), text.min);
    } else if from.max <= to.min {
        kept.min = text.min;
    } else {
        count.min = (text.min as f64 / from.max as f64).ceil() as u64;
    }
    Priced { cost: text.factor(2.0 * TRAVERSAL), size: Some(count.times(to).plus(kept)) }
}

fn is_scalar(of: &Type) -> bool {
    match of {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(inner) => is_scalar(inner),
        _ => false,
    }
}
