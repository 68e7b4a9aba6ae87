//! What an evaluation costs, in upstream's units.
//!
//! Owns: the price of each call by the sizes of its arguments, and the limit.
//! Called by: the evaluation, before each call.
//! Never: measures time.

use crate::failure::Failure;
use crate::types;
use crate::value::Value;

pub const LIST: u64 = 10;
pub const MAP: u64 = 30;
pub const STRUCT: u64 = 40;
/// A character of a string.
pub const TRAVERSAL: f64 = 0.1;
/// A character of a pattern.
pub const PATTERN: f64 = 0.25;
/// A question to the authorizer: three exceed the limit of one call.
pub const AUTHORIZATION: u64 = 350_000;
/// Pattern length that `validate` is estimated with.
pub const FORMAT_PATTERN_MAX: f64 = 128.0;

/// Counts up to a limit.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    spent: u64,
    limit: u64,
}

impl Meter {
    pub fn new(limit: u64) -> Self {
        Self { spent: 0, limit }
    }
    pub fn spent(&self) -> u64 {
        self.spent
    }
    pub fn charge(&mut self, cost: u64) -> Result<(), Failure> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > self.limit { Err(Failure::cost()) } else { Ok(()) }
    }
}

fn traversal(size: u64, times: f64) -> u64 {
    (size as f64 * times * TRAVERSAL).ceil() as u64
}

/// All of a value, seen as a tree.
fn whole(value: &Value<'_>) -> u64 {
    match value {
        Value::String(s) => (s.len() as f64 * TRAVERSAL) as u64,
        Value::Bytes(b) => (b.len() as f64 * TRAVERSAL) as u64,
        Value::List(list) => list.iter().map(|item| whole(&item)).sum(),
        Value::Map(map) => map.iter().map(|(key, value)| whole(&key.value()) + whole(&value)).sum(),
        _ => 1,
    }
}

/// A selector is parsed into requirements, each of at least two characters.
pub fn selector(length: u64) -> u64 {
    let requirements = (length as f64 * 0.5).ceil();
    LIST + traversal(length, 1.0) + (requirements * (LIST + STRUCT) as f64).ceil() as u64
}

/// The price of calling `function`; `join` costs by its result and is charged afterwards.
pub fn call(function: &str, args: &[Value<'_>]) -> u64 {
    let size = |index: usize| args.get(index).map_or(1, Value::size);
    match function {
        "check" => AUTHORIZATION,
        "fieldSelector" | "labelSelector" => selector(size(1)),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => args.first().map_or(0, whole),
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver"
        | "isURL" => traversal(size(0), 1.0),
        "replace" | "split" | "ip.isCanonical" => traversal(size(0), 2.0),
        "find" | "findAll" | "matches" => traversal(size(0) + 1, 1.0) * (size(1) as f64 * PATTERN).ceil() as u64,
        "ip" if args.first().is_some_and(|v| v.type_name() == types::CIDR) => 1,
        "ip" => traversal(size(0), 1.0),
        "containsIP" => {
            let parse = if matches!(args.get(1), Some(Value::String(_))) { traversal(size(1), 1.0) } else { 0 };
            traversal(size(0), 2.0) + parse
        }
        "containsCIDR" => {
            let parse = if matches!(args.get(1), Some(Value::String(_))) { traversal(size(1), 1.0) } else { 0 };
            traversal(size(0), 2.0) + traversal(size(0), 1.0) + 1 + parse
        }
        "validate" => match args.first() {
            Some(Value::Format(format)) => {
                let pattern = (format.pattern as f64 * PATTERN).ceil() as u64;
                (traversal(size(1), 1.0)).saturating_mul(pattern)
            }
            _ => 1,
        },
        "startsWith" | "endsWith" => traversal(size(1), 1.0),
        "contains" => traversal(size(0), 1.0) * traversal(size(1), 1.0),
        "bytes" | "strings.quote" | "format" => traversal(size(0), 1.0),
        "string" if matches!(args.first(), Some(Value::Bytes(_))) => traversal(size(0), 1.0),
        "@in" if matches!(args.get(1), Some(Value::List(_))) => size(1),
        "_==_" | "_!=_" => traversal(size(0).min(size(1)), 1.0),
        "_<_" | "_<=_" | "_>_" | "_>=_" => match args.first() {
            Some(Value::String(_) | Value::Bytes(_)) => traversal(size(0).min(size(1)), 1.0),
            _ => 1,
        },
        "_+_" => match args.first() {
            Some(Value::String(_) | Value::Bytes(_)) => traversal(size(0) + size(1), 1.0),
            _ => 1,
        },
        // The distance between all pairs of elements, in the worst case.
        "sets.contains" | "sets.intersects" => 1 + size(0).saturating_mul(size(1)),
        "sets.equivalent" => 1 + size(0).saturating_mul(size(1)).saturating_mul(2),
        "distinct" => 1 + size(0).saturating_mul(size(0)),
        "lists.range" => match args.first() {
            Some(Value::Int(count)) => LIST + u64::try_from(*count).unwrap_or(0),
            _ => LIST,
        },
        "slice" | "reverse" | "flatten" | "sort" | "@sortByAssociatedKeys" => LIST + size(0),
        "join" => 0,
        _ => 1,
    }
}

/// What `join` costs: the string it made.
pub fn joined(result: &Value<'_>) -> u64 {
    traversal(result.size(), 2.0)
}
