//! A front proxy says in headers who it speaks for.
//!
//! Owns: the names of those headers, reading them and taking them away.
//! Called by: the chain of authenticators, when the connection's certificate is the front proxy's; the aggregator,
//! to write them.
//! Never: believes a header from anybody else.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::UserInfo;

const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUP: &str = "x-remote-group";
const EXTRA: &str = "x-remote-extra-";

/// The user that the headers name, if they name one.
pub fn user(headers: &HeaderMap) -> Option<UserInfo> {
    let first = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_string();
    let name = first(USER);
    if name.is_empty() {
        return None;
    }
    let texts = |name: &HeaderName| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_string).collect()
    };
    let groups = headers.get_all(GROUP).iter().filter_map(|v| v.to_str().ok());
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for header in headers.keys() {
        if let Some(key) = header.as_str().strip_prefix(EXTRA) {
            extra.entry(unescape(key)).or_default().extend(texts(header));
        }
    }
    let groups = groups.filter(|g| !g.is_empty()).map(str::to_string).collect();
    Some(UserInfo { name, uid: first(UID), groups, extra })
}

/// Takes the headers away, whoever sent them.
pub fn clear(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| matches!(name.as_str(), USER | UID | GROUP) || name.as_str().starts_with(EXTRA))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

/// For an extension API server behind us: who asks.
pub fn write(headers: &mut HeaderMap, user: &UserInfo) {
    clear(headers);
    let mut put = |name: &str, value: &str| {
        // A name that is no header value cannot be said, and an empty user is refused on the other side.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    put(USER, &user.name);
    if !user.uid.is_empty() {
        put(UID, &user.uid);
    }
    for group in &user.groups {
        put(GROUP, group);
    }
    for (key, values) in &user.extra {
        for value in values {
            put(&format!("{EXTRA}{}", escape(key)), value);
        }
    }
}

/// Keys may have characters that header names may not: those are percent-encoded.
pub fn unescape(key: &str) -> String {
    let bytes = key.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let pair = key.get(at + 1..at + 3).and_then(|pair| u8::from_str_radix(pair, 16).ok());
            // What does not decode is kept as it is.
            let Some(byte) = pair else { return key.to_string() };
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| key.to_string())
}

fn escape(key: &str) -> String {
    const LEGAL: &str = "!#$&'*+-.^_`|~";
    let mut out = String::new();
    for byte in key.bytes() {
        let c = byte as char;
        if c.is_ascii_alphanumeric() || LEGAL.contains(c) { out.push(c) } else { out.push_str(&format!("%{byte:02X}")) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_cleared() {
        let mut user = UserInfo::new("jane", &["a", "b"]);
        user.extra.insert("example.com/scope".into(), vec!["x".into(), "y".into()]);
        let mut headers = HeaderMap::new();
        headers.insert("accept", HeaderValue::from_static("*/*"));
        write(&mut headers, &user);
        assert!(headers.contains_key("x-remote-extra-example.com%2fscope"));
        assert_eq!(super::user(&headers), Some(user));
        clear(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(super::user(&headers), None);
    }
}
