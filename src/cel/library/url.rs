//! URLs, as Go's `url.ParseRequestURI` reads them.
//!
//! Owns: Kubernetes' URL library.
//! Called by: the evaluation.
//! Never: resolves or fetches anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Outcome, Run, text};
use crate::failure::Failure;
use crate::value::{Key, Map, Value};

#[derive(Debug)]
pub struct Url {
    pub text: String,
    scheme: String,
    /// With the port.
    host: String,
    /// As it was written.
    path: String,
    query: String,
}

pub fn find(name: &str) -> Option<Run> {
    Some(match name {
        "url" => |args| read(text::text(&args, 0)?).map(|url| Value::Url(Arc::new(url))),
        "isURL" => |args| Ok(Value::Bool(read(text::text(&args, 0)?).is_ok())),
        "getScheme" => |args| part(&args, |url| url.scheme.clone()),
        "getHost" => |args| part(&args, |url| url.host.clone()),
        "getHostname" => |args| part(&args, |url| split_host(&url.host).0),
        "getPort" => |args| part(&args, |url| split_host(&url.host).1),
        "getEscapedPath" => |args| part(&args, |url| escaped(&url.path)),
        "getQuery" => query,
        _ => return None,
    })
}

fn url<'v>(args: &'v [Value<'_>]) -> Result<&'v Url, Failure> {
    match &args[0] {
        Value::Url(url) => Ok(url),
        _ => Err(Failure::no_such_overload()),
    }
}

fn part<'a>(args: &[Value<'a>], of: impl Fn(&Url) -> String) -> Outcome<'a> {
    Ok(Value::from(of(url(args)?)))
}

/// What is wrong with `given` as an absolute URI or an absolute path.
pub fn read(given: &str) -> Result<Url, Failure> {
    let wrong = |why: &str| {
        let parse = format!("parse {given:?}: {why}");
        Failure::new(format!("URL parse error during conversion from string: {parse}"))
    };
    if given.is_empty() {
        return Err(wrong("empty url"));
    }
    if given.chars().any(|c| c.is_control()) {
        return Err(wrong("net/url: invalid control character in URL"));
    }
    let (scheme, rest) = match given.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
        _ => (String::new(), given),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !rest.starts_with('/') {
        return Err(wrong("invalid URI for request"));
    }
    let (host, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty()) {
        Some(rest) => {
            let end = rest.find('/').unwrap_or(rest.len());
            (&rest[..end], &rest[end..])
        }
        None => ("", rest),
    };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    if host.contains([' ', '"', '<', '>', '\\', '^', '`', '{', '|', '}']) {
        return Err(wrong(&format!("invalid character {:?} in host name", host)));
    }
    let (_, port) = split_host(host);
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong(&format!("invalid port \":{port}\" after host")));
    }
    unescape(path).ok_or_else(|| wrong("invalid URL escape"))?;
    Ok(Url { text: given.into(), scheme, host: host.into(), path: path.into(), query: query.into() })
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// Name and port; a v6 address loses its brackets.
fn split_host(host: &str) -> (String, String) {
    if let Some(rest) = host.strip_prefix('[')
        && let Some((name, port)) = rest.split_once(']')
    {
        return (name.into(), port.trim_start_matches(':').into());
    }
    match host.rsplit_once(':') {
        Some((name, port)) => (name.into(), port.into()),
        None => (host.into(), String::new()),
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut found = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            found.push(byte);
            continue;
        }
        let (high, low) = (bytes.next()? as char, bytes.next()? as char);
        found.push((high.to_digit(16)? * 16 + low.to_digit(16)?) as u8);
    }
    Some(String::from_utf8_lossy(&found).into_owned())
}

/// The path as Go's `EscapedPath` gives it: what was escaped stays, what must be gets escaped.
fn escaped(path: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@%!*'()[]".contains(&b);
    path.bytes().map(|b| if keep(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

fn query(args: Vec<Value<'_>>) -> Outcome<'_> {
    let mut found: BTreeMap<Key, Vec<Value<'_>>> = BTreeMap::new();
    for pair in url(&args)?.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plain = |text: &str| unescape(&text.replace('+', " "));
        if let (Some(key), Some(value)) = (plain(key), plain(value)) {
            found.entry(Key::String(key.into())).or_default().push(Value::from(value));
        }
    }
    let pairs = found.into_iter().map(|(key, values)| (key, Value::from(values)));
    Ok(Value::Map(Map::Owned(Arc::new(pairs.collect()))))
}
