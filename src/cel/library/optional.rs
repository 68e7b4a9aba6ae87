//! Values that may be absent.
//!
//! Owns: `optional.of`, `orValue` and their companions.
//! Called by: the evaluation.
//! Never: selects fields; `a.?b` is the evaluation's.

use std::sync::Arc;

use super::{Outcome, Run};
use crate::failure::Failure;
use crate::value::Value;

pub fn find(name: &str) -> Option<Run> {
    Some(match name {
        "optional.of" => |mut args| Ok(Value::some(args.remove(0))),
        "optional.ofNonZeroValue" => |mut args| {
            let value = args.remove(0);
            Ok(Value::Optional((!value.is_zero()).then(|| Arc::new(value))))
        },
        "optional.none" => |_| Ok(Value::Optional(None)),
        "hasValue" => |args| held(&args).map(|held| Value::Bool(held.is_some())),
        "value" => |args| held(&args)?.ok_or_else(|| Failure::new("optional.none() dereference")),
        "or" | "orValue" => or,
        "optional.unwrap" | "unwrapOpt" => unwrap,
        _ => return None,
    })
}

fn held<'a>(args: &[Value<'a>]) -> Result<Option<Value<'a>>, Failure> {
    match &args[0] {
        Value::Optional(held) => Ok(held.as_ref().map(|value| (**value).clone())),
        _ => Err(Failure::no_such_overload()),
    }
}

/// `a.or(b)` stays optional, which shows in what `b` is; `a.orValue(b)` does not.
fn or(mut args: Vec<Value<'_>>) -> Outcome<'_> {
    let other = args.pop().ok_or_else(Failure::no_such_overload)?;
    match held(&args)? {
        None => Ok(other),
        Some(value) if matches!(other, Value::Optional(_)) && !matches!(value, Value::Optional(_)) => {
            Ok(Value::some(value))
        }
        Some(value) => Ok(value),
    }
}

fn unwrap(args: Vec<Value<'_>>) -> Outcome<'_> {
    let Value::List(list) = &args[0] else { return Err(Failure::no_such_overload()) };
    let present = list.iter().filter_map(|item| match item {
        Value::Optional(held) => held.map(|value| (*value).clone()),
        other => Some(other),
    });
    Ok(Value::from(present.collect::<Vec<_>>()))
}
