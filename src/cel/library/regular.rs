//! Regular expressions.
//!
//! Owns: `matches`, `find`, `findAll`; patterns already compiled.
//! Called by: the evaluation.
//! Never: backtracks; patterns run in linear time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use regex::Regex;

use super::{Run, text};
use crate::failure::Failure;
use crate::value::Value;

/// Patterns are kept by their text; this many, then all are forgotten.
const PATTERNS_MAX: usize = 1024;
/// What one compiled pattern may take, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

pub fn find(name: &str) -> Option<Run> {
    Some(match name {
        "matches" => |args| {
            let pattern = compiled(text::text(&args, 1)?)?;
            Ok(Value::Bool(pattern.is_match(text::text(&args, 0)?)))
        },
        "find" => |args| {
            let pattern = compiled(text::text(&args, 1)?)?;
            Ok(Value::from(pattern.find(text::text(&args, 0)?).map_or("", |m| m.as_str())))
        },
        "findAll" => |args| {
            let pattern = compiled(text::text(&args, 1)?)?;
            let limit = usize::try_from(text::number(&args, 2)?.unwrap_or(-1)).unwrap_or(usize::MAX);
            let found = pattern.find_iter(text::text(&args, 0)?).take(limit).map(|m| Value::from(m.as_str()));
            Ok(Value::from(found.collect::<Vec<_>>()))
        },
        _ => return None,
    })
}

/// The pattern, or what is wrong with it.
pub fn compiled(pattern: &str) -> Result<Arc<Regex>, Failure> {
    static PATTERNS: Mutex<Option<HashMap<String, Arc<Regex>>>> = Mutex::new(None);
    let mut patterns = PATTERNS.lock().unwrap_or_else(PoisonError::into_inner);
    let patterns = patterns.get_or_insert_default();
    if let Some(known) = patterns.get(pattern) {
        return Ok(known.clone());
    }
    let built = regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
    let built = built.map_err(|_| Failure::new(format!("error parsing regexp: invalid pattern: `{pattern}`")))?;
    let built = Arc::new(built);
    if patterns.len() >= PATTERNS_MAX {
        patterns.clear();
    }
    patterns.insert(pattern.into(), built.clone());
    Ok(built)
}
