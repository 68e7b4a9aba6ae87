//! Operators and conversions.
//!
//! Owns: arithmetic that never wraps around, comparison, indexing, containment, `int(x)` and its like.
//! Called by: the evaluation.
//! Never: short-circuits; `&&`, `||` and `?:` are the evaluation's.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Outcome, Run, text};
use crate::failure::Failure;
use crate::types::ListMerge;
use crate::value::{Key, List, Map, Value, same_keys};

pub fn find(name: &str) -> Option<Run> {
    Some(match name {
        "!_" => not,
        "-_" => negate,
        "_+_" => add,
        "_-_" => subtract,
        "_*_" => multiply,
        "_/_" => divide,
        "_%_" => modulo,
        "_==_" => |args| Ok(Value::Bool(args[0].equals(&args[1]))),
        "_!=_" => |args| Ok(Value::Bool(!args[0].equals(&args[1]))),
        "_<_" => |args| order(&args, |o| o == Ordering::Less),
        "_<=_" => |args| order(&args, |o| o != Ordering::Greater),
        "_>_" => |args| order(&args, |o| o == Ordering::Greater),
        "_>=_" => |args| order(&args, |o| o != Ordering::Less),
        "_[_]" => index,
        "_[?_]" => optional_index,
        "@in" => contains,
        "size" => size,
        "type" => |args| Ok(Value::Type(args[0].type_name().into())),
        "dyn" => |mut args| Ok(args.remove(0)),
        "bool" => to_bool,
        "bytes" => to_bytes,
        "double" => to_double,
        "int" => to_int,
        "uint" => to_uint,
        "string" => to_string,
        "duration" => to_duration,
        "timestamp" => to_timestamp,
        "cel.@mapInsert" => insert,
        _ => return None,
    })
}

fn not(args: Vec<Value<'_>>) -> Outcome<'_> {
    match args[0] {
        Value::Bool(b) => Ok(Value::Bool(!b)),
        _ => Err(Failure::no_such_overload()),
    }
}

fn overflow() -> Failure {
    Failure::new("integer overflow")
}
fn uint_overflow() -> Failure {
    Failure::new("unsigned integer overflow")
}

fn int(value: Option<i64>) -> Outcome<'static> {
    value.map(Value::Int).ok_or_else(overflow)
}
fn uint(value: Option<u64>) -> Outcome<'static> {
    value.map(Value::Uint).ok_or_else(uint_overflow)
}
fn duration(value: Option<i64>) -> Outcome<'static> {
    value.map(Value::Duration).ok_or_else(|| Failure::new("duration overflow"))
}
fn shifted(moment: Timestamp, by: Option<i64>) -> Outcome<'static> {
    let moved = by.and_then(|nanos| moment.checked_add(SignedDuration::from_nanos(nanos)).ok());
    moved.map(Value::Timestamp).ok_or_else(|| Failure::new("timestamp overflow"))
}

fn negate(args: Vec<Value<'_>>) -> Outcome<'_> {
    match args[0] {
        Value::Int(i) => int(i.checked_neg()),
        Value::Double(d) => Ok(Value::Double(-d)),
        _ => Err(Failure::no_such_overload()),
    }
}

fn add(mut args: Vec<Value<'_>>) -> Outcome<'_> {
    let (Some(right), Some(left)) = (args.pop(), args.pop()) else { return Err(Failure::no_such_overload()) };
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_add(b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_add(b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => Ok(Value::from(format!("{}{}", &*a, &*b))),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes([&*a, &*b].concat().into())),
        (Value::Duration(a), Value::Duration(b)) => duration(a.checked_add(b)),
        (Value::Timestamp(t), Value::Duration(d)) | (Value::Duration(d), Value::Timestamp(t)) => shifted(t, Some(d)),
        (Value::List(a), Value::List(b)) => Ok(concatenated(a, &b)),
        _ => Err(Failure::no_such_overload()),
    }
}

/// A set gets no element twice; a map-like list takes the entries of the right one over its own.
fn concatenated<'a>(left: List<'a>, right: &List<'a>) -> Value<'a> {
    let merge = left.merge().clone();
    let mut items = match left {
        // A fold gathers in a list nobody else holds, which then grows in place.
        List::Owned(items) => items,
        List::Json { .. } => Arc::new(left.iter().collect()),
    };
    let growing = Arc::make_mut(&mut items);
    for item in right.iter() {
        match &merge {
            ListMerge::Atomic => growing.push(item),
            ListMerge::Set => {
                if !growing.iter().any(|known| known.equals(&item)) {
                    growing.push(item);
                }
            }
            ListMerge::Map(keys) => match growing.iter_mut().find(|known| same_keys(keys, known, &item)) {
                Some(known) => *known = item,
                None => growing.push(item),
            },
        }
    }
    Value::List(List::Owned(items))
}

fn subtract(args: Vec<Value<'_>>) -> Outcome<'_> {
    match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_sub(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_sub(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => duration(a.checked_sub(*b)),
        (Value::Timestamp(t), Value::Duration(d)) => shifted(*t, d.checked_neg()),
        (Value::Timestamp(a), Value::Timestamp(b)) => duration(a.duration_since(*b).as_nanos().try_into().ok()),
        _ => Err(Failure::no_such_overload()),
    }
}

fn multiply(args: Vec<Value<'_>>) -> Outcome<'_> {
    match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_mul(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_mul(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        _ => Err(Failure::no_such_overload()),
    }
}

fn divide(args: Vec<Value<'_>>) -> Outcome<'_> {
    let zero = || Failure::new("division by zero");
    match (&args[0], &args[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Err(zero()),
        (Value::Int(a), Value::Int(b)) => int(a.checked_div(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_div(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        _ => Err(Failure::no_such_overload()),
    }
}

fn modulo(args: Vec<Value<'_>>) -> Outcome<'_> {
    let zero = || Failure::new("modulus by zero");
    match (&args[0], &args[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Err(zero()),
        (Value::Int(a), Value::Int(b)) => int(a.checked_rem(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_rem(*b)),
        _ => Err(Failure::no_such_overload()),
    }
}

fn order<'a>(args: &[Value<'a>], holds: impl Fn(Ordering) -> bool) -> Outcome<'a> {
    match args[0].compare(&args[1]) {
        Some(order) => Ok(Value::Bool(holds(order))),
        // A NaN is neither less nor more than anything.
        None if matches!((&args[0], &args[1]), (Value::Double(_), _) | (_, Value::Double(_))) => Ok(Value::Bool(false)),
        None => Err(Failure::no_such_overload()),
    }
}

/// As messages name a key that is not there.
fn shown(key: &Value<'_>) -> String {
    match key {
        Value::String(key) => key.to_string(),
        other => text::plain(other).unwrap_or_default(),
    }
}

/// The element of a list or map, or why there is none.
fn element<'a>(of: &Value<'a>, key: &Value<'_>) -> Outcome<'a> {
    match of {
        Value::List(list) => {
            let index = match key {
                Value::Int(i) => *i,
                Value::Uint(u) => i64::try_from(*u).unwrap_or(i64::MAX),
                Value::Double(d) if d.fract() == 0.0 => *d as i64,
                _ => return Err(Failure::no_such_overload()),
            };
            let found = usize::try_from(index).ok().and_then(|i| list.get(i));
            found.ok_or_else(|| Failure::out_of_bounds(index))
        }
        Value::Map(map) => map.get(key).ok_or_else(|| Failure::no_such_key(&shown(key))),
        Value::Object(object) => match key {
            Value::String(key) => object.fields.get(&**key).cloned().ok_or_else(|| Failure::no_such_key(key)),
            _ => Err(Failure::no_such_overload()),
        },
        _ => Err(Failure::no_such_overload()),
    }
}

fn index(args: Vec<Value<'_>>) -> Outcome<'_> {
    if let Value::Optional(held) = &args[0] {
        return Ok(Value::Optional(held.as_ref().and_then(|of| element(of, &args[1]).ok()).map(Arc::new)));
    }
    element(&args[0], &args[1])
}

fn optional_index(args: Vec<Value<'_>>) -> Outcome<'_> {
    let of = match &args[0] {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(of)) => of,
        of => of,
    };
    Ok(Value::Optional(element(of, &args[1]).ok().map(Arc::new)))
}

fn contains(args: Vec<Value<'_>>) -> Outcome<'_> {
    match &args[1] {
        Value::List(list) => Ok(Value::Bool(list.iter().any(|item| item.equals(&args[0])))),
        Value::Map(map) => Ok(Value::Bool(map.get(&args[0]).is_some())),
        _ => Err(Failure::no_such_overload()),
    }
}

fn size(args: Vec<Value<'_>>) -> Outcome<'_> {
    match &args[0] {
        value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_)) => {
            Ok(Value::Int(value.size() as i64))
        }
        _ => Err(Failure::no_such_overload()),
    }
}

fn insert(mut args: Vec<Value<'_>>) -> Outcome<'_> {
    let Value::Map(map) = args.remove(0) else { return Err(Failure::no_such_overload()) };
    let mut pairs = match map {
        Map::Owned(pairs) => pairs,
        other => Arc::new(other.iter().collect::<BTreeMap<_, _>>()),
    };
    let growing = Arc::make_mut(&mut pairs);
    let new: Vec<(Key, Value<'_>)> = match args.as_slice() {
        [Value::Map(more)] => more.iter().collect(),
        [key, value] => vec![(Key::of(key).ok_or_else(Failure::no_such_overload)?, value.clone())],
        _ => return Err(Failure::no_such_overload()),
    };
    for (key, value) in new {
        if growing.contains_key(&key) {
            return Err(Failure::new(format!("insert failed: key {} already exists", shown(&key.value()))));
        }
        growing.insert(key, value);
    }
    Ok(Value::Map(Map::Owned(pairs)))
}

fn to_bool(args: Vec<Value<'_>>) -> Outcome<'_> {
    match &args[0] {
        Value::Bool(b) => Ok(Value::Bool(*b)),
        Value::String(s) => match &**s {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            other => Err(Failure::new(format!("strconv.ParseBool: parsing {other:?}: invalid syntax"))),
        },
        _ => Err(Failure::no_such_overload()),
    }
}

fn to_bytes(args: Vec<Value<'_>>) -> Outcome<'_> {
    match &args[0] {
        Value::Bytes(b) => Ok(Value::Bytes(b.clone())),
        Value::String(s) => Ok(Value::Bytes(s.as_bytes().into())),
        _ => Err(Failure::no_such_overload()),
    }
}

fn to_double(args: Vec<Value<'_>>) -> Outcome<'_> {
    Ok(Value::Double(match &args[0] {
        Value::Double(d) => *d,
        Value::Int(i) => *i as f64,
        Value::Uint(u) => *u as f64,
        Value::String(s) => {
            s.parse().map_err(|_| Failure::new(format!("strconv.ParseFloat: parsing {:?}: invalid syntax", &**s)))?
        }
        _ => return Err(Failure::no_such_overload()),
    }))
}

fn unreadable(what: &str, text: &str, error: &std::num::ParseIntError) -> Failure {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let why = if matches!(error.kind(), PosOverflow | NegOverflow) { "value out of range" } else { "invalid syntax" };
    Failure::new(format!("strconv.{what}: parsing {text:?}: {why}"))
}

fn to_int(args: Vec<Value<'_>>) -> Outcome<'_> {
    match &args[0] {
        Value::Int(i) => Ok(Value::Int(*i)),
        Value::Uint(u) => int(i64::try_from(*u).ok()),
        Value::Double(d) if *d > -9_223_372_036_854_775_808.0 && *d < 9_223_372_036_854_775_807.0 => {
            Ok(Value::Int(*d as i64))
        }
        Value::Double(_) => Err(overflow()),
        Value::Duration(d) => Ok(Value::Int(*d)),
        Value::Timestamp(t) => Ok(Value::Int(t.as_second())),
        Value::String(s) => s.parse().map(Value::Int).map_err(|e| unreadable("ParseInt", s, &e)),
        _ => Err(Failure::no_such_overload()),
    }
}

fn to_uint(args: Vec<Value<'_>>) -> Outcome<'_> {
    match &args[0] {
        Value::Uint(u) => Ok(Value::Uint(*u)),
        Value::Int(i) => uint(u64::try_from(*i).ok()),
        Value::Double(d) if *d >= 0.0 && *d < 18_446_744_073_709_551_615.0 => Ok(Value::Uint(*d as u64)),
        Value::Double(_) => Err(uint_overflow()),
        Value::String(s) => s.parse().map(Value::Uint).map_err(|e| unreadable("ParseUint", s, &e)),
        _ => Err(Failure::no_such_overload()),
    }
}

fn to_string(mut args: Vec<Value<'_>>) -> Outcome<'_> {
    match args.remove(0) {
        text @ Value::String(_) => Ok(text),
        Value::Bytes(b) => match std::str::from_utf8(&b) {
            Ok(text) => Ok(Value::from(text)),
            Err(_) => Err(Failure::new("invalid UTF-8 in bytes, cannot convert to string")),
        },
        other => text::plain(&other).map(Value::from).ok_or_else(Failure::no_such_overload),
    }
}

fn to_duration(args: Vec<Value<'_>>) -> Outcome<'_> {
    match &args[0] {
        Value::Duration(d) => Ok(Value::Duration(*d)),
        Value::Int(i) => Ok(Value::Duration(*i)),
        Value::String(s) => text::duration(s)
            .map(Value::Duration)
            .ok_or_else(|| Failure::new(format!("time: invalid duration {:?}", &**s))),
        _ => Err(Failure::no_such_overload()),
    }
}

fn to_timestamp(args: Vec<Value<'_>>) -> Outcome<'_> {
    match &args[0] {
        Value::Timestamp(t) => Ok(Value::Timestamp(*t)),
        Value::Int(i) => {
            Timestamp::from_second(*i).map(Value::Timestamp).map_err(|_| Failure::new("timestamp overflow"))
        }
        Value::String(s) => text::timestamp(s)
            .map(Value::Timestamp)
            .ok_or_else(|| Failure::new(format!("invalid timestamp {:?}", &**s))),
        _ => Err(Failure::no_such_overload()),
    }
}
