//! What is wrong with a body that is no JSON, in the words of Go's scanner.
//!
//! Owns: a scanner that reads nothing but the grammar, run only after the real reader has failed.
//! Called by: `decode`, to make an error message.
//! Never: decides whether a body is accepted.

/// `invalid character 'x' looking for beginning of value`, `unexpected end of JSON input`.
pub fn explain(body: &[u8]) -> String {
    let mut scanner = Scanner { rest: body, depth: 0 };
    let fault = scanner.document().err().unwrap_or(Fault::End);
    match fault {
        Fault::End => "unexpected end of JSON input".into(),
        Fault::Deep => "exceeded max depth".into(),
        Fault::Character(found, context) => format!("invalid character {} {context}", quote(found)),
    }
}

/// The first 30 bytes, as upstream quotes a body it could not read; what does not look like an object in hex.
pub fn summary(body: &[u8]) -> String {
    const LENGTH_MAX: usize = 30;
    let begin = &body[..body.len().min(LENGTH_MAX)];
    let text = match body.first() {
        None => return "<empty>".into(),
        Some(b'{') => String::from_utf8_lossy(begin).into_owned(),
        Some(_) => begin.iter().map(|b| format!("{b:02x}")).collect(),
    };
    if body.len() > LENGTH_MAX { text + " ..." } else { text }
}

/// The body with replacement characters for halves of surrogate pairs, which Go reads so and serde_json does not read;
/// `None` when there are none.
pub fn without_lone_surrogates(body: &[u8]) -> Option<Vec<u8>> {
    let unit = |at: usize| {
        let digits = body.get(at..at + 6).filter(|escape| escape.starts_with(b"\\u"))?;
        u16::from_str_radix(std::str::from_utf8(&digits[2..]).ok()?, 16).ok()
    };
    let (mut out, mut at, mut found) = (Vec::with_capacity(body.len()), 0, false);
    while at < body.len() {
        let length = match (unit(at), body[at]) {
            (Some(0xd800..=0xdbff), _) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                found = true;
                at += 6;
                out.extend_from_slice(b"\\ufffd");
                continue;
            }
            (Some(_), _) => 6,
            // What is escaped begins nothing.
            (None, b'\\') => 2,
            (None, _) => 1,
        };
        let end = (at + length).min(body.len());
        out.extend_from_slice(&body[at..end]);
        at = end;
    }
    found.then_some(out)
}

enum Fault {
    End,
    Deep,
    Character(u8, String),
}

/// serde_json stops here too.
const DEPTH_MAX: usize = 127;

struct Scanner<'b> {
    rest: &'b [u8],
    depth: usize,
}

type Scan = Result<(), Fault>;

impl Scanner<'_> {
    fn document(&mut self) -> Scan {
        self.value()?;
        self.space();
        match self.rest.first() {
            None => Ok(()),
            Some(found) => fault(*found, "after top-level value"),
        }
    }

    fn space(&mut self) {
        let count = self.rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.rest = &self.rest[count..];
    }

    fn peek(&mut self) -> Result<u8, Fault> {
        self.space();
        self.rest.first().copied().ok_or(Fault::End)
    }

    fn next(&mut self) -> Result<u8, Fault> {
        let (first, rest) = self.rest.split_first().ok_or(Fault::End)?;
        self.rest = rest;
        Ok(*first)
    }

    fn value(&mut self) -> Scan {
        match self.peek()? {
            b'{' => self.nested(Self::object),
            b'[' => self.nested(Self::array),
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            found => fault(found, "looking for beginning of value"),
        }
    }

    fn nested(&mut self, inside: fn(&mut Self) -> Scan) -> Scan {
        self.next()?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Fault::Deep);
        }
        inside(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn object(&mut self) -> Scan {
        if self.peek()? == b'}' {
            return self.next().map(drop);
        }
        loop {
            match self.peek()? {
                b'"' => self.string()?,
                found => return fault(found, "looking for beginning of object key string"),
            }
            match self.peek()? {
                b':' => self.next()?,
                found => return fault(found, "after object key"),
            };
            self.value()?;
            match self.peek()? {
                b',' => self.next()?,
                b'}' => return self.next().map(drop),
                found => return fault(found, "after object key:value pair"),
            };
        }
    }

    fn array(&mut self) -> Scan {
        if self.peek()? == b']' {
            return self.next().map(drop);
        }
        loop {
            self.value()?;
            match self.peek()? {
                b',' => self.next()?,
                b']' => return self.next().map(drop),
                found => return fault(found, "after array element"),
            };
        }
    }

    fn string(&mut self) -> Scan {
        self.next()?;
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                found @ 0..0x20 => return fault(found, "in string literal"),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Scan {
        match self.next()? {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => Ok(()),
            b'u' => (0..4).try_for_each(|_| match self.next()? {
                b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' => Ok(()),
                found => fault(found, "in \\u hexadecimal character escape"),
            }),
            found => fault(found, "in string escape code"),
        }
    }

    fn digits(&mut self) -> usize {
        let count = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        self.rest = &self.rest[count..];
        count
    }

    fn wants_digits(&mut self, context: &str) -> Scan {
        if self.digits() > 0 {
            return Ok(());
        }
        let found = self.next()?;
        fault(found, context)
    }

    fn number(&mut self) -> Scan {
        if self.rest.first() == Some(&b'-') {
            self.next()?;
        }
        if self.rest.first() == Some(&b'0') {
            self.next()?;
        } else {
            self.wants_digits("in numeric literal")?;
        }
        if self.rest.first() == Some(&b'.') {
            self.next()?;
            self.wants_digits("after decimal point in numeric literal")?;
        }
        if matches!(self.rest.first(), Some(b'e' | b'E')) {
            self.next()?;
            if matches!(self.rest.first(), Some(b'+' | b'-')) {
                self.next()?;
            }
            self.wants_digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Scan {
        for expected in word.bytes() {
            let found = self.next()?;
            if found != expected {
                return fault(found, &format!("in literal {word} (expecting '{}')", expected as char));
            }
        }
        Ok(())
    }
}

fn fault(found: u8, context: &str) -> Scan {
    Err(Fault::Character(found, context.into()))
}

/// A byte as Go's scanner quotes it.
fn quote(found: u8) -> String {
    match found {
        b'\'' => r"'\''".into(),
        b'"' => r#"'"'"#.into(),
        b'\n' => r"'\n'".into(),
        b'\r' => r"'\r'".into(),
        b'\t' => r"'\t'".into(),
        b'\\' => r"'\\'".into(),
        0..0x20 | 0x7f => format!(r"'\x{found:02x}'"),
        _ => format!("'{}'", found as char),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_gos_words() {
        let cases = [
            (r#"{"a":x}"#, "invalid character 'x' looking for beginning of value"),
            (r#"{a:1}"#, "invalid character 'a' looking for beginning of object key string"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 "b":2}"#, "invalid character '\"' after object key:value pair"),
            (r#"[1 2]"#, "invalid character '2' after array element"),
            (r#"{} x"#, "invalid character 'x' after top-level value"),
            (r#"[tru]"#, "invalid character ']' in literal true (expecting 'e')"),
            (r#"[1.]"#, "invalid character ']' after decimal point in numeric literal"),
            (r#"["\q"]"#, "invalid character 'q' in string escape code"),
            ("[\"\n\"]", r"invalid character '\n' in string literal"),
            (r#"{"a":"#, "unexpected end of JSON input"),
            ("", "unexpected end of JSON input"),
        ];
        for (body, expected) in cases {
            assert_eq!(explain(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn a_body_is_quoted_shortly() {
        assert_eq!(summary(b""), "<empty>");
        assert_eq!(summary(b"[1]"), "5b315d");
        assert_eq!(summary(&[b'['; 31]), "5b".repeat(30) + " ...");
        assert_eq!(summary(br#"{"apiVersion":"v1","kind":"Service"}"#), r#"{"apiVersion":"v1","kind":"Ser ..."#);
    }

    #[test]
    fn half_a_surrogate_pair_becomes_a_replacement_character() {
        let mended = |text: &str| without_lone_surrogates(text.as_bytes()).map(|b| String::from_utf8(b).expect("text"));
        assert_eq!(mended(r#""\ud800""#).as_deref(), Some(r#""\ufffd""#));
        assert_eq!(mended(r#""\udc00\ud800x""#).as_deref(), Some(r#""\ufffd\ufffdx""#));
        assert_eq!(mended(r#""\ud83d\ude00 \\ud800""#), None);
    }
}
