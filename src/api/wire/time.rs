//! Times as Kubernetes writes them.
//!
//! Owns: RFC 3339 in UTC with seconds (`Time`) or microseconds (`MicroTime`), and Go's words about what is neither.
//! Called by: decoding and protobuf.
//! Never: reads the clock.

use jiff::Timestamp;
use jiff::fmt::strtime;

const SECONDS_LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const MICROS_LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";

/// Any RFC 3339 time, rewritten to UTC and whole seconds.
pub fn parse_seconds(text: &str) -> Result<String, String> {
    parse(text).map(format_seconds).ok_or_else(|| refuse(text, SECONDS_LAYOUT))
}

/// Any RFC 3339 time, rewritten to UTC and six decimals.
pub fn parse_micros(text: &str) -> Result<String, String> {
    // Go's layout with six zeros demands exactly six decimals.
    let decimals = text.split_once('.').map(|(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count());
    parse(text).filter(|_| decimals == Some(6)).map(format_micros).ok_or_else(|| refuse(text, MICROS_LAYOUT))
}

fn parse(text: &str) -> Option<Timestamp> {
    // jiff accepts more than RFC 3339: a space, a lower-case t, an offset in brackets.
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 20 && bytes[10] == b'T' && bytes[4] == b'-' && bytes[13] == b':' && !text.contains('[');
    shaped.then(|| text.parse().ok()).flatten()
}

pub fn format_seconds(time: Timestamp) -> String {
    // Each write has some of them, and a layout is to be read before it is followed.
    if time.as_second() >= 0 {
        return Timestamp::from_second(time.as_second()).expect("it was one before").to_string();
    }
    strtime::format("%Y-%m-%dT%H:%M:%SZ", time).expect("the format has no directive that can fail in UTC")
}

pub fn format_micros(time: Timestamp) -> String {
    strtime::format("%Y-%m-%dT%H:%M:%S%.6fZ", time).expect("the format has no directive that can fail in UTC")
}

/// The time of seconds and nanoseconds since 1970; `None` outside the years 1 to 9999.
pub fn from_unix(seconds: i64, nanos: i32) -> Option<Timestamp> {
    Timestamp::new(seconds, nanos).ok()
}

/// Go says which part of the layout it could not find; the year is where a text that is no time fails.
fn refuse(text: &str, layout: &str) -> String {
    let (rest, part) = first_fault(text, layout);
    format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {part:?}")
}

/// The rest of the text and the part of the layout that does not fit it.
fn first_fault<'t>(text: &'t str, layout: &str) -> (&'t str, &'static str) {
    const PARTS: [(&str, usize); 11] = [
        ("2006", 4),
        ("-", 1),
        ("01", 2),
        ("-", 1),
        ("02", 2),
        ("T", 1),
        ("15", 2),
        (":", 1),
        ("04", 2),
        (":", 1),
        ("05", 2),
    ];
    let mut rest = text;
    for (part, length) in PARTS {
        let digits = part.as_bytes()[0].is_ascii_digit();
        let fits = match rest.get(..length) {
            Some(head) if digits => head.bytes().all(|b| b.is_ascii_digit()),
            Some(head) => head == part,
            None => false,
        };
        if !fits {
            return (rest, part);
        }
        rest = &rest[length..];
    }
    if layout == MICROS_LAYOUT && !rest.starts_with('.') { (rest, ".000000") } else { (rest, "Z07:00") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offset_becomes_utc() {
        assert_eq!(parse_seconds("2024-05-06T07:08:09+02:00").as_deref(), Ok("2024-05-06T05:08:09Z"));
        assert_eq!(parse_seconds("2024-05-06T07:08:09.999Z").as_deref(), Ok("2024-05-06T07:08:09Z"));
        assert_eq!(parse_micros("2024-05-06T07:08:09.123456Z").as_deref(), Ok("2024-05-06T07:08:09.123456Z"));
    }

    #[test]
    fn what_is_no_time_is_refused_in_gos_words() {
        let message = r#"parsing time "abc" as "2006-01-02T15:04:05Z07:00": cannot parse "abc" as "2006""#;
        assert_eq!(parse_seconds("abc"), Err(message.into()));
    }
}
