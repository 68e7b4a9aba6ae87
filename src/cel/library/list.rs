//! Lists and sets.
//!
//! Owns: Kubernetes' list library, CEL's own (version 3), sets.
//! Called by: the evaluation.
//! Never: folds; `map` and `filter` are macros.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Outcome, Run, operator, text};
use crate::failure::Failure;
use crate::value::{List, Value};

/// `lists.range` makes no more.
const RANGE_MAX: i64 = 1_000_000;

pub fn find(name: &str) -> Option<Run> {
    Some(match name {
        "isSorted" => is_sorted,
        "sum" => sum,
        "max" => |args| extreme(&args, Ordering::Greater, "max"),
        "min" => |args| extreme(&args, Ordering::Less, "min"),
        "indexOf" => |args| match &args[0] {
            Value::List(list) => Ok(position(list.iter().position(|item| item.equals(&args[1])))),
            _ => text::index_of(&args),
        },
        "lastIndexOf" => |args| match &args[0] {
            Value::List(list) => {
                let items: Vec<Value<'_>> = list.iter().collect();
                Ok(position(items.iter().rposition(|item| item.equals(&args[1]))))
            }
            _ => text::last_index_of(&args),
        },
        "slice" => slice,
        "flatten" => flatten,
        "distinct" => distinct,
        "reverse" => |args| {
            let mut items: Vec<Value<'_>> = list(&args, 0)?.iter().collect();
            items.reverse();
            Ok(Value::from(items))
        },
        "sort" => |args| sorted(list(&args, 0)?, list(&args, 0)?),
        "@sortByAssociatedKeys" => |args| sorted(list(&args, 0)?, list(&args, 1)?),
        "lists.range" => range,
        "first" => |args| Ok(Value::Optional(list(&args, 0)?.get(0).map(Arc::new))),
        "last" => |args| {
            let items = list(&args, 0)?;
            Ok(Value::Optional(items.len().checked_sub(1).and_then(|i| items.get(i)).map(Arc::new)))
        },
        "sets.contains" => |args| {
            let (one, other) = (list(&args, 0)?, list(&args, 1)?);
            Ok(Value::Bool(contains_all(one, other)))
        },
        "sets.equivalent" => |args| {
            let (one, other) = (list(&args, 0)?, list(&args, 1)?);
            Ok(Value::Bool(contains_all(one, other) && contains_all(other, one)))
        },
        "sets.intersects" => |args| {
            let (one, other) = (list(&args, 0)?, list(&args, 1)?);
            Ok(Value::Bool(other.iter().any(|wanted| one.iter().any(|item| item.equals(&wanted)))))
        },
        _ => return None,
    })
}

fn list<'v, 'a>(args: &'v [Value<'a>], index: usize) -> Result<&'v List<'a>, Failure> {
    match args.get(index) {
        Some(Value::List(list)) => Ok(list),
        _ => Err(Failure::no_such_overload()),
    }
}

fn position(index: Option<usize>) -> Value<'static> {
    Value::Int(index.map_or(-1, |i| i as i64))
}

fn contains_all(list: &List<'_>, wanted: &List<'_>) -> bool {
    wanted.iter().all(|wanted| list.iter().any(|item| item.equals(&wanted)))
}

fn is_sorted(args: Vec<Value<'_>>) -> Outcome<'_> {
    let items: Vec<Value<'_>> = list(&args, 0)?.iter().collect();
    for pair in items.windows(2) {
        match pair[0].compare(&pair[1]) {
            Some(Ordering::Greater) => return Ok(Value::Bool(false)),
            Some(_) => {}
            None => return Err(Failure::no_such_overload()),
        }
    }
    Ok(Value::Bool(true))
}

fn sum(args: Vec<Value<'_>>) -> Outcome<'_> {
    let add = operator::find("_+_").ok_or_else(Failure::no_such_overload)?;
    let mut items = list(&args, 0)?.iter();
    let Some(mut total) = items.next() else { return Ok(Value::Int(0)) };
    for item in items {
        total = add(vec![total, item])?;
    }
    Ok(total)
}

fn extreme<'a>(args: &[Value<'a>], wanted: Ordering, name: &str) -> Outcome<'a> {
    let mut items = list(args, 0)?.iter();
    let Some(mut best) = items.next() else { return Err(Failure::new(format!("{name} called on empty list"))) };
    for item in items {
        if item.compare(&best).ok_or_else(Failure::no_such_overload)? == wanted {
            best = item;
        }
    }
    Ok(best)
}

fn slice(args: Vec<Value<'_>>) -> Outcome<'_> {
    let items = list(&args, 0)?;
    let (start, end) = (text::number(&args, 1)?.unwrap_or(0), text::number(&args, 2)?.unwrap_or(0));
    if start < 0 || end < 0 {
        return Err(Failure::new(format!("cannot slice({start}, {end}), negative indexes not supported")));
    }
    if start > end {
        let why = "start index must be less than or equal to end index";
        return Err(Failure::new(format!("cannot slice({start}, {end}), {why}")));
    }
    if end > items.len() as i64 {
        return Err(Failure::new(format!("cannot slice({start}, {end}), list is length {}", items.len())));
    }
    Ok(Value::from((start as usize..end as usize).filter_map(|i| items.get(i)).collect::<Vec<_>>()))
}

fn flatten(args: Vec<Value<'_>>) -> Outcome<'_> {
    let depth = text::number(&args, 1)?.unwrap_or(1);
    if depth < 0 {
        return Err(Failure::new("level must be non-negative"));
    }
    let mut found = Vec::new();
    flatten_into(list(&args, 0)?, depth, &mut found);
    Ok(Value::from(found))
}

fn flatten_into<'a>(of: &List<'a>, depth: i64, found: &mut Vec<Value<'a>>) {
    for item in of.iter() {
        match item {
            Value::List(inner) if depth > 0 => flatten_into(&inner, depth - 1, found),
            other => found.push(other),
        }
    }
}

fn distinct(args: Vec<Value<'_>>) -> Outcome<'_> {
    let mut found: Vec<Value<'_>> = Vec::new();
    for item in list(&args, 0)?.iter() {
        if !found.iter().any(|known| known.equals(&item)) {
            found.push(item);
        }
    }
    Ok(Value::from(found))
}

fn sorted<'a>(items: &List<'a>, keys: &List<'a>) -> Outcome<'a> {
    let mut pairs: Vec<(Value<'a>, Value<'a>)> = keys.iter().zip(items.iter()).collect();
    if pairs.windows(2).any(|pair| pair[0].0.compare(&pair[1].0).is_none()) {
        return Err(Failure::new("list elements must have the same type"));
    }
    pairs.sort_by(|a, b| a.0.compare(&b.0).unwrap_or(Ordering::Equal));
    Ok(Value::from(pairs.into_iter().map(|(_, item)| item).collect::<Vec<_>>()))
}

fn range(args: Vec<Value<'_>>) -> Outcome<'_> {
    let count = text::number(&args, 0)?.unwrap_or(0);
    if count > RANGE_MAX {
        return Err(Failure::new(format!("lists.range: size exceeds limit of {RANGE_MAX}")));
    }
    Ok(Value::from((0..count).map(Value::Int).collect::<Vec<_>>()))
}
