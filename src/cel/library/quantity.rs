//! Quantities and semantic versions: amounts and releases that compare.
//!
//! Owns: the functions of both libraries, which share names.
//! Called by: the evaluation.
//! Never: parses quantities itself; `minik_api` does.

use std::cmp::Ordering;
use std::sync::Arc;

use minik_api::quantity::{Format, Quantity};

use super::semver::Semver;
use super::{Run, text};
use crate::failure::Failure;
use crate::value::Value;

pub fn find(name: &str) -> Option<Run> {
    Some(match name {
        "quantity" => {
            |args| Quantity::parse(text::text(&args, 0)?).map(Value::Quantity).map_err(|e| Failure::new(e.to_string()))
        }
        "isQuantity" => |args| Ok(Value::Bool(Quantity::parse(text::text(&args, 0)?).is_ok())),
        "sign" => |args| Ok(Value::Int(i64::from(quantity(&args, 0)?.signum()))),
        "isGreaterThan" => |args| Ok(Value::Bool(order(&args)? == Ordering::Greater)),
        "isLessThan" => |args| Ok(Value::Bool(order(&args)? == Ordering::Less)),
        "compareTo" => |args| Ok(Value::Int(order(&args)? as i64)),
        "asApproximateFloat" => |args| Ok(Value::Double(quantity(&args, 0)?.as_f64())),
        "asInteger" => |args| {
            let quantity = quantity(&args, 0)?;
            if quantity.is_whole() {
                Ok(Value::Int(quantity.value()))
            } else {
                Err(Failure::new("cannot convert value to integer"))
            }
        },
        "isInteger" => |args| Ok(Value::Bool(quantity(&args, 0)?.is_whole())),
        "add" => |args| Ok(Value::Quantity(quantity(&args, 0)?.add(quantity(&args, 1)?))),
        "sub" => |args| Ok(Value::Quantity(quantity(&args, 0)?.sub(quantity(&args, 1)?))),
        "semver" => |args| version(&args).map(|v| Value::Semver(Arc::new(v))),
        "isSemver" => |args| Ok(Value::Bool(version(&args).is_ok())),
        "major" => |args| Ok(Value::Int(semver(&args, 0)?.major as i64)),
        "minor" => |args| Ok(Value::Int(semver(&args, 0)?.minor as i64)),
        "patch" => |args| Ok(Value::Int(semver(&args, 0)?.patch as i64)),
        _ => return None,
    })
}

fn quantity(args: &[Value<'_>], index: usize) -> Result<Quantity, Failure> {
    match args.get(index) {
        Some(Value::Quantity(quantity)) => Ok(*quantity),
        Some(Value::Int(value)) => Ok(Quantity::from_value(*value, Format::DecimalSi)),
        _ => Err(Failure::no_such_overload()),
    }
}

fn semver<'v>(args: &'v [Value<'_>], index: usize) -> Result<&'v Semver, Failure> {
    match args.get(index) {
        Some(Value::Semver(version)) => Ok(version),
        _ => Err(Failure::no_such_overload()),
    }
}

fn version(args: &[Value<'_>]) -> Result<Semver, Failure> {
    let normalize = matches!(args.get(1), Some(Value::Bool(true)));
    let given = text::text(args, 0)?;
    let parsed = if normalize { Semver::parse(&Semver::normalized(given)) } else { Semver::parse(given) };
    parsed.map_err(Failure::new)
}

fn order(args: &[Value<'_>]) -> Result<Ordering, Failure> {
    match &args[0] {
        Value::Quantity(_) => Ok(quantity(args, 0)?.cmp(&quantity(args, 1)?)),
        _ => Ok(semver(args, 0)?.cmp(semver(args, 1)?)),
    }
}
