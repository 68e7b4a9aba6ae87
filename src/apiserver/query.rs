//! What stands after the `?` of a request.
//!
//! Owns: percent-decoding and the way Kubernetes reads booleans and numbers there.
//! Called by: routing and every handler.
//! Never: knows a parameter's meaning.

use std::borrow::Cow;

use minik_api::Status;

#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

/// `%41` -> `A`; what is no escape stays as it is.
pub fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|b| (*b as char).to_digit(16));
        match (bytes[i], hex(i + 1), hex(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                i += 3;
            }
            (other, ..) => {
                out.push(other);
                i += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

impl Query {
    pub fn parse(text: &str) -> Self {
        let decode = |s: &str| percent_decode(&s.replace('+', " ")).into_owned();
        let pair = |p: &str| match p.split_once('=') {
            Some((key, value)) => (decode(key), decode(value)),
            None => (decode(p), String::new()),
        };
        Self(text.split('&').filter(|p| !p.is_empty()).map(pair).collect())
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    /// The first value; empty when there is none.
    pub fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v)
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Upstream's reading: absent, `0` and `false` are false, everything else, even nothing, is true.
    pub fn flag(&self, key: &str) -> bool {
        self.optional_flag(key).unwrap_or(false)
    }

    pub fn optional_flag(&self, key: &str) -> Option<bool> {
        self.has(key).then(|| !matches!(self.get(key).to_ascii_lowercase().as_str(), "0" | "false"))
    }

    /// Absent or empty: `None`.
    pub fn number(&self, key: &str) -> Result<Option<i64>, Status> {
        match self.get(key) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_and_its_flags_read_as_upstream_reads_them() {
        let query = Query::parse("a=1%2C2&watch&b=false&c=x+y&a=3");
        assert_eq!(query.get("a"), "1,2");
        assert_eq!(query.all("a").count(), 2);
        assert!(query.flag("watch") && !query.flag("b") && !query.flag("none"));
        assert_eq!(query.get("c"), "x y");
        assert!(query.number("c").is_err());
    }
}
