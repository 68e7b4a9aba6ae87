//! Strings: taking them apart, putting them together, and how other values are written as text.
//!
//! Owns: the strings library (version 2), durations and timestamps as text.
//! Called by: the evaluation; conversions; values with a format in their schema.
//! Never: matches patterns; `regular` does.

use jiff::Timestamp;

use super::{Outcome, Run};
use crate::failure::Failure;
use crate::value::{Key, Value};

pub fn find(name: &str) -> Option<Run> {
    Some(match name {
        "contains" => |args| both(&args, |s, t| s.contains(t)),
        "startsWith" => |args| both(&args, |s, t| s.starts_with(t)),
        "endsWith" => |args| both(&args, |s, t| s.ends_with(t)),
        "charAt" => char_at,
        "join" => join,
        "lowerAscii" => |args| Ok(Value::from(text(&args, 0)?.to_ascii_lowercase())),
        "upperAscii" => |args| Ok(Value::from(text(&args, 0)?.to_ascii_uppercase())),
        "trim" => |args| Ok(Value::from(text(&args, 0)?.trim())),
        "replace" => replace,
        "split" => split,
        "substring" => substring,
        "strings.quote" => |args| Ok(Value::from(quoted(text(&args, 0)?))),
        "format" => format,
        "jsonpatch.escapeKey" => |args| Ok(Value::from(text(&args, 0)?.replace('~', "~0").replace('/', "~1"))),
        _ => return None,
    })
}

pub fn text<'v>(args: &'v [Value<'_>], index: usize) -> Result<&'v str, Failure> {
    match args.get(index) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(Failure::no_such_overload()),
    }
}

/// An optional int argument.
pub fn number(args: &[Value<'_>], index: usize) -> Result<Option<i64>, Failure> {
    match args.get(index) {
        None => Ok(None),
        Some(Value::Int(i)) => Ok(Some(*i)),
        Some(_) => Err(Failure::no_such_overload()),
    }
}

fn both<'a>(args: &[Value<'a>], holds: impl Fn(&str, &str) -> bool) -> Outcome<'a> {
    Ok(Value::Bool(holds(text(args, 0)?, text(args, 1)?)))
}

fn out_of_range(index: i64) -> Failure {
    Failure::new(format!("index out of range: {index}"))
}

fn char_at(args: Vec<Value<'_>>) -> Outcome<'_> {
    let (of, index) = (text(&args, 0)?, number(&args, 1)?.unwrap_or(0));
    let length = of.chars().count() as i64;
    if !(0..=length).contains(&index) {
        return Err(out_of_range(index));
    }
    Ok(of.chars().nth(index as usize).map_or_else(|| Value::from(""), |c| Value::from(c.to_string())))
}

/// `indexOf` of a string: in characters, from an offset on.
pub fn index_of<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (of, wanted) = (text(args, 0)?, text(args, 1)?);
    let chars: Vec<char> = of.chars().collect();
    let from = number(args, 2)?.unwrap_or(0);
    if from < 0 || from > chars.len() as i64 {
        return Err(out_of_range(from));
    }
    let wanted: Vec<char> = wanted.chars().collect();
    let found = (from as usize..=chars.len().saturating_sub(wanted.len())).find(|i| chars[*i..].starts_with(&wanted));
    Ok(Value::Int(found.filter(|_| wanted.len() <= chars.len()).map_or(-1, |i| i as i64)))
}

pub fn last_index_of<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (of, wanted) = (text(args, 0)?, text(args, 1)?);
    let chars: Vec<char> = of.chars().collect();
    let wanted: Vec<char> = wanted.chars().collect();
    let given = number(args, 2)?;
    if let Some(from) = given.filter(|from| *from < 0 || *from >= chars.len() as i64) {
        return Err(out_of_range(from));
    }
    if wanted.len() > chars.len() {
        return Ok(Value::Int(-1));
    }
    let last = chars.len() - wanted.len();
    let from = given.map_or(last, |from| (from as usize).min(last));
    Ok(Value::Int((0..=from).rev().find(|i| chars[*i..].starts_with(&wanted)).map_or(-1, |i| i as i64)))
}

fn join(args: Vec<Value<'_>>) -> Outcome<'_> {
    let Value::List(list) = &args[0] else { return Err(Failure::no_such_overload()) };
    let separator = if args.len() > 1 { text(&args, 1)? } else { "" };
    let mut joined = String::new();
    for (index, item) in list.iter().enumerate() {
        let Value::String(part) = item else { return Err(Failure::no_such_overload()) };
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(&part);
    }
    Ok(Value::from(joined))
}

fn replace(args: Vec<Value<'_>>) -> Outcome<'_> {
    let (of, from, to) = (text(&args, 0)?, text(&args, 1)?, text(&args, 2)?);
    Ok(Value::from(match number(&args, 3)? {
        Some(count) if count >= 0 => of.replacen(from, to, count as usize),
        _ => of.replace(from, to),
    }))
}

fn split(args: Vec<Value<'_>>) -> Outcome<'_> {
    let (of, by) = (text(&args, 0)?, text(&args, 1)?);
    let limit = number(&args, 2)?.unwrap_or(-1);
    if limit == 0 {
        return Ok(Value::from(Vec::new()));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let parts: Vec<Value<'_>> = if by.is_empty() {
        let chars: Vec<char> = of.chars().collect();
        let single = chars.len().min(limit.saturating_sub(1).max(usize::from(limit == usize::MAX) * chars.len()));
        let rest: String = chars[single..].iter().collect();
        let singles = chars[..single].iter().map(|c| Value::from(c.to_string()));
        singles.chain((!rest.is_empty()).then(|| Value::from(rest))).collect()
    } else {
        of.splitn(limit, by).map(Value::from).collect()
    };
    Ok(Value::from(parts))
}

fn substring(args: Vec<Value<'_>>) -> Outcome<'_> {
    let of: Vec<char> = text(&args, 0)?.chars().collect();
    let length = of.len() as i64;
    let start = number(&args, 1)?.unwrap_or(0);
    let end = number(&args, 2)?.unwrap_or(length);
    if !(0..=length).contains(&start) {
        return Err(out_of_range(start));
    }
    if !(0..=length).contains(&end) {
        return Err(out_of_range(end));
    }
    if start > end {
        return Err(Failure::new(format!("invalid substring range. start: {start}, end: {end}")));
    }
    Ok(Value::from(of[start as usize..end as usize].iter().collect::<String>()))
}

fn quoted(text: &str) -> String {
    let mut found = String::from("\"");
    for c in text.chars() {
        match c {
            '\u{7}' => found.push_str("\\a"),
            '\u{8}' => found.push_str("\\b"),
            '\u{c}' => found.push_str("\\f"),
            '\n' => found.push_str("\\n"),
            '\r' => found.push_str("\\r"),
            '\t' => found.push_str("\\t"),
            '\u{b}' => found.push_str("\\v"),
            '\\' => found.push_str("\\\\"),
            '"' => found.push_str("\\\""),
            other => found.push(other),
        }
    }
    found.push('"');
    found
}

/// `string(x)`, for what has such a form.
pub fn plain(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Uint(u) => u.to_string(),
        Value::Double(d) => double(*d),
        Value::String(s) => s.to_string(),
        Value::Duration(d) => duration_text(*d),
        Value::Timestamp(t) => timestamp_text(t),
        Value::Ip(ip) => ip.to_string(),
        Value::Cidr(cidr) => cidr.to_string(),
        _ => return None,
    })
}

/// As Go's `%g` with the shortest digits that read back the same.
pub fn double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    if (-4..21).contains(&power) {
        return format!("{value}");
    }
    format!("{mantissa}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
}

/// `90s`, `1.5s`.
pub fn duration_text(nanos: i64) -> String {
    format!("{}s", nanos as f64 / 1e9)
}

pub fn timestamp_text(moment: &Timestamp) -> String {
    moment.to_string()
}

/// As Go reads a duration: `1h30m`, `-1.5s`, `0`; also the words of OpenAPI's format (`3 days`).
pub fn duration(text: &str) -> Option<i64> {
    let (sign, rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (if text.starts_with('-') { -1.0 } else { 1.0 }, rest),
        None => (1.0, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let (mut total, mut rest) = (0.0f64, rest);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let value: f64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let unit = match after[..letters].trim() {
            "ns" | "nano" | "nanos" => 1.0,
            "us" | "µs" | "μs" | "micro" | "micros" => 1e3,
            "ms" | "milli" | "millis" => 1e6,
            "s" | "sec" | "secs" | "second" | "seconds" => 1e9,
            "m" | "min" | "mins" | "minute" | "minutes" => 6e10,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3.6e12,
            "d" | "day" | "days" => 8.64e13,
            "w" | "wk" | "wks" | "week" | "weeks" => 6.048e14,
            _ => return None,
        };
        total += value * unit;
        rest = &after[letters..];
    }
    let total = (total * sign).round();
    (total.abs() < 9.2e18).then_some(total as i64)
}

/// RFC 3339, or a date alone.
pub fn timestamp(text: &str) -> Option<Timestamp> {
    if text.len() == 10 {
        return format!("{text}T00:00:00Z").parse().ok();
    }
    text.contains(['T', 't']).then(|| text.parse().ok()).flatten()
}

fn format(args: Vec<Value<'_>>) -> Outcome<'_> {
    let Value::List(list) = &args[1] else { return Err(Failure::no_such_overload()) };
    let mut found = String::new();
    let mut given = list.iter();
    let mut chars = text(&args, 0)?.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            found.push(c);
            continue;
        }
        let mut precision = String::new();
        if chars.next_if_eq(&'.').is_some() {
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                precision.push(digit);
            }
        }
        let clause = chars.next().ok_or_else(|| Failure::new("unexpected end of string"))?;
        if clause == '%' {
            found.push('%');
            continue;
        }
        let missing = || Failure::new(format!("index {} out of range", list.len()));
        let value = given.next().ok_or_else(missing)?;
        found.push_str(&formatted(clause, precision.parse().ok(), &value)?);
    }
    Ok(Value::from(found))
}

fn formatted(clause: char, precision: Option<usize>, value: &Value<'_>) -> Result<String, Failure> {
    let wrong = |what: &str| Failure::new(format!("error during formatting: {what}, was given {}", value.type_name()));
    Ok(match (clause, value) {
        ('s', value) => shown(value).ok_or_else(|| wrong("string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"))?,
        ('d', Value::Int(i)) => i.to_string(),
        ('d', Value::Uint(u)) => u.to_string(),
        ('d', Value::Double(d)) if !d.is_finite() => shown(value).unwrap_or_default(),
        ('d', _) => return Err(wrong("decimal clause can only be used on integers")),
        ('f', number) => match as_double(number) {
            Some(d) => format!("{d:.*}", precision.unwrap_or(6)),
            None => return Err(wrong("fixed-point clause can only be used on doubles")),
        },
        ('e', number) => match as_double(number) {
            Some(d) => {
                let text = format!("{d:.*e}", precision.unwrap_or(6));
                let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let power: i32 = exponent.parse().unwrap_or(0);
                // Upstream writes the exponent raised.
                let raised: String = format!("{:02}", power.abs()).chars().filter_map(superscript).collect();
                format!("{mantissa}×10{}{raised}", if power < 0 { "⁻" } else { "" })
            }
            None => return Err(wrong("scientific clause can only be used on doubles")),
        },
        ('b', Value::Int(i)) => signed(*i, |n| format!("{n:b}")),
        ('b', Value::Uint(u)) => format!("{u:b}"),
        ('b', Value::Bool(b)) => i32::from(*b).to_string(),
        ('b', _) => return Err(wrong("only integers and bools can be formatted as binary")),
        ('x', Value::Int(i)) => signed(*i, |n| format!("{n:x}")),
        ('x', Value::Uint(u)) => format!("{u:x}"),
        ('x', Value::String(s)) => s.bytes().map(|b| format!("{b:02x}")).collect(),
        ('x', Value::Bytes(s)) => s.iter().map(|b| format!("{b:02x}")).collect(),
        ('X', Value::Int(i)) => signed(*i, |n| format!("{n:X}")),
        ('X', Value::Uint(u)) => format!("{u:X}"),
        ('X', Value::String(s)) => s.bytes().map(|b| format!("{b:02X}")).collect(),
        ('X', Value::Bytes(s)) => s.iter().map(|b| format!("{b:02X}")).collect(),
        ('x' | 'X', _) => return Err(wrong("only integers, byte buffers, and strings can be formatted as hex")),
        ('o', Value::Int(i)) => signed(*i, |n| format!("{n:o}")),
        ('o', Value::Uint(u)) => format!("{u:o}"),
        ('o', _) => return Err(wrong("octal clause can only be used on integers")),
        (other, _) => return Err(Failure::new(format!("could not parse formatting clause: unrecognized formatting clause \"{other}\""))),
    })
}

fn superscript(digit: char) -> Option<char> {
    "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(digit.to_digit(10)? as usize)
}

fn signed(value: i64, spell: impl Fn(u64) -> String) -> String {
    let text = spell(value.unsigned_abs());
    if value < 0 { format!("-{text}") } else { text }
}

fn as_double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(d) => Some(*d),
        Value::Int(i) => Some(*i as f64),
        Value::Uint(u) => Some(*u as f64),
        _ => None,
    }
}

/// The form `%s` has.
fn shown(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::Null => "null".into(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Type(name) => name.to_string(),
        Value::Double(d) if d.is_infinite() => if *d > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Value::List(list) => {
            let items: Option<Vec<String>> = list.iter().map(|item| shown(&item)).collect();
            format!("[{}]", items?.join(", "))
        }
        Value::Map(map) => {
            let key = |key: &Key| shown(&key.value()).unwrap_or_default();
            let pairs: Option<Vec<String>> =
                map.iter().map(|(k, value)| Some(format!("{}: {}", key(&k), shown(&value)?))).collect();
            format!("{{{}}}", pairs?.join(", "))
        }
        other => plain(other)?,
    })
}
