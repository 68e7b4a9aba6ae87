//! Links in proxied HTML pages, changed so that they lead back through the proxy.
//!
//! Owns: where a page has links, and reading them in a page that comes in pieces and may be compressed.
//! Called by: the proxy.
//! Never: changes a byte that is not part of a link; holds more of a page than one tag.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, MultiGzDecoder};
use futures::StreamExt;
use http::header::{self, HeaderMap};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use crate::body::{Body, BoxError};

/// What is longer is no tag that somebody wrote; it passes as it is.
const TAG_BYTES_MAX: usize = 64 << 10;

/// Elements with their attributes that hold one URL each.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("track", &["src"]),
    ("video", &["poster", "src"]),
];
/// Their content is text, whatever it looks like.
const RAW: &[&str] = &["script", "style", "textarea", "title"];

/// The new text of a link.
pub type Rewrite = Box<dyn Fn(&str) -> String + Send>;

/// The answer with its links rewritten, when it is a page whose encoding is known.
pub fn lead_back(response: Response<Body>, rewrite: Rewrite) -> Response<Body> {
    let Some(page) = page(response.status(), response.headers(), rewrite) else { return response };
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let pieces = body.into_data_stream().map(Some).chain(futures::stream::iter([None]));
    let pieces = pieces.scan(page, |page, piece| {
        let outcome = match piece {
            Some(Ok(bytes)) => page.feed(&bytes),
            Some(Err(error)) => Err(error),
            None => page.end(),
        };
        std::future::ready(Some(outcome.map(|bytes| Frame::data(Bytes::from(bytes)))))
    });
    Response::from_parts(parts, StreamBody::new(pieces).boxed_unsync())
}

fn page(status: StatusCode, headers: &HeaderMap, rewrite: Rewrite) -> Option<Page> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("text/html") || status == StatusCode::PARTIAL_CONTENT {
        return None;
    }
    let packing = match text(header::CONTENT_ENCODING) {
        "" | "identity" => None,
        "gzip" => Some(Packing {
            unpack: MultiGzDecoder::new(Vec::new()),
            pack: GzEncoder::new(Vec::new(), Compression::fast()),
        }),
        _ => return None,
    };
    Some(Page { links: Links { rewrite, held: Vec::new(), inside: Inside::Text }, packing })
}

/// A page on its way.
struct Page {
    links: Links,
    packing: Option<Packing>,
}

struct Packing {
    unpack: MultiGzDecoder<Vec<u8>>,
    pack: GzEncoder<Vec<u8>>,
}

impl Page {
    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<u8>, BoxError> {
        let Some(Packing { unpack, pack }) = &mut self.packing else { return Ok(self.links.feed(bytes)) };
        unpack.write_all(bytes)?;
        unpack.flush()?;
        pack.write_all(&self.links.feed(&std::mem::take(unpack.get_mut())))?;
        pack.flush()?;
        Ok(std::mem::take(pack.get_mut()))
    }

    fn end(&mut self) -> Result<Vec<u8>, BoxError> {
        let Some(Packing { unpack, pack }) = &mut self.packing else { return Ok(self.links.end()) };
        unpack.try_finish()?;
        pack.write_all(&self.links.feed(&std::mem::take(unpack.get_mut())))?;
        pack.write_all(&self.links.end())?;
        pack.try_finish()?;
        Ok(std::mem::take(pack.get_mut()))
    }
}

enum Inside {
    Text,
    Comment,
    /// An element without elements in it, until its end tag.
    Raw(&'static str),
}

/// Reads HTML as browsers do, as far as it takes to find the attributes of tags.
struct Links {
    rewrite: Rewrite,
    /// What has come and is not yet understood: the beginning of something.
    held: Vec<u8>,
    inside: Inside,
}

impl Links {
    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut page = std::mem::take(&mut self.held);
        page.extend_from_slice(bytes);
        let mut out = Vec::with_capacity(page.len() + page.len() / 8);
        let mut at = 0;
        while at < page.len() {
            let rest = &page[at..];
            let Some(taken) = self.step(rest, &mut out) else { break };
            at += taken;
        }
        self.held = page.split_off(at);
        out
    }

    fn end(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Passes on what begins here and says how long it was; `None` when its end has not come yet.
    fn step(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let taken = match self.inside {
            Inside::Comment => match find(rest, b"-->") {
                Some(end) => {
                    self.inside = Inside::Text;
                    end + 3
                }
                None => all_but(rest, 2)?,
            },
            Inside::Raw(name) => match find_end_tag(rest, name) {
                Some(start) => {
                    self.inside = Inside::Text;
                    // The end tag itself is read as any other tag.
                    out.extend_from_slice(&rest[..start + 2]);
                    return Some(start + 2);
                }
                None => all_but(rest, name.len() + 1)?,
            },
            Inside::Text => match rest.iter().position(|b| *b == b'<') {
                None => rest.len(),
                Some(0) => return self.markup(rest, out),
                Some(start) => start,
            },
        };
        out.extend_from_slice(&rest[..taken]);
        Some(taken)
    }

    /// What begins with `<`.
    fn markup(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let taken = if rest.starts_with(b"<!--") {
            self.inside = Inside::Comment;
            4
        } else if b"<!--".starts_with(rest) {
            return None;
        } else if rest[1].is_ascii_alphabetic() {
            match tag_length(rest) {
                Some(length) => {
                    self.tag(&rest[..length], out);
                    return Some(length);
                }
                None if rest.len() <= TAG_BYTES_MAX => return None,
                None => rest.len(),
            }
        } else {
            1
        };
        out.extend_from_slice(&rest[..taken]);
        Some(taken)
    }

    fn tag(&mut self, tag: &[u8], out: &mut Vec<u8>) {
        let name_end = 1 + tag[1..].iter().take_while(|b| !ends_name(**b)).count();
        let name = String::from_utf8_lossy(&tag[1..name_end]).to_ascii_lowercase();
        if let Some(raw) = RAW.iter().find(|r| **r == name) {
            self.inside = Inside::Raw(raw);
        }
        let Some((_, with_links)) = LINKS.iter().find(|(element, _)| *element == name) else {
            out.extend_from_slice(tag);
            return;
        };
        let mut written = 0;
        for attribute in attributes(tag, name_end) {
            let is_link = with_links.iter().any(|a| tag[attribute.name.clone()].eq_ignore_ascii_case(a.as_bytes()));
            let Ok(link) = std::str::from_utf8(&tag[attribute.value.clone()]) else { continue };
            if is_link && !link.is_empty() {
                out.extend_from_slice(&tag[written..attribute.value.start]);
                out.extend_from_slice((self.rewrite)(link).as_bytes());
                written = attribute.value.end;
            }
        }
        out.extend_from_slice(&tag[written..]);
    }
}

struct Attribute {
    name: std::ops::Range<usize>,
    /// Without its quotes.
    value: std::ops::Range<usize>,
}

/// The attributes that have a value.
fn attributes(tag: &[u8], mut at: usize) -> Vec<Attribute> {
    let mut found = Vec::new();
    let end = tag.len() - 1;
    let skip = |at: usize, skipped: fn(u8) -> bool| at + tag[at..end].iter().take_while(|b| skipped(**b)).count();
    while at < end {
        at = skip(at, |b| b.is_ascii_whitespace() || b == b'/');
        // A name may begin with anything, `=` too.
        let start = at;
        at = skip((at + 1).min(end), |b| !ends_name(b) && b != b'=');
        let name = start..at;
        let after = skip(at, |b| b.is_ascii_whitespace());
        if after >= end || tag[after] != b'=' {
            continue;
        }
        at = skip(after + 1, |b| b.is_ascii_whitespace());
        let quote = Some(tag[at]).filter(|b| at < end && matches!(b, b'"' | b'\''));
        let value = match quote {
            Some(quote) => at + 1..at + 1 + tag[at + 1..end].iter().take_while(|b| **b != quote).count(),
            None => at..skip(at, |b| !b.is_ascii_whitespace()),
        };
        at = (value.end + usize::from(quote.is_some())).min(end);
        found.push(Attribute { name, value });
    }
    found
}

fn ends_name(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>')
}

/// Up to its `>`, which counts outside quotes alone, and quotes only as those of a value.
fn tag_length(rest: &[u8]) -> Option<usize> {
    let (mut quote, mut after_equals) = (None, false);
    for (index, byte) in rest.iter().enumerate() {
        match (quote, byte) {
            (Some(open), byte) if *byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'>') => return Some(index + 1),
            (None, b'"' | b'\'') if after_equals => quote = Some(*byte),
            _ => {}
        }
        after_equals = *byte == b'=' || after_equals && byte.is_ascii_whitespace();
    }
    None
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|w| w == wanted)
}

fn find_end_tag(text: &[u8], name: &str) -> Option<usize> {
    text.windows(name.len() + 2).position(|w| w.starts_with(b"</") && w[2..].eq_ignore_ascii_case(name.as_bytes()))
}

/// All but so many bytes, which may begin what is looked for; `None` when there are no more than those.
fn all_but(text: &[u8], kept: usize) -> Option<usize> {
    text.len().checked_sub(kept).filter(|length| *length > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use http_body_util::BodyExt;

    use super::*;
    use crate::body;

    fn rewrite() -> Rewrite {
        Box::new(|link| if link.starts_with('/') { format!("/proxy{link}") } else { link.to_string() })
    }

    /// The page comes in pieces of every size, which must make no difference.
    fn check(page: &str, expected: &str) {
        for size in 1..=page.len() {
            let mut links = Links { rewrite: rewrite(), held: Vec::new(), inside: Inside::Text };
            let mut out: Vec<u8> = page.as_bytes().chunks(size).flat_map(|piece| links.feed(piece)).collect();
            out.extend(links.end());
            assert_eq!(String::from_utf8_lossy(&out), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn links_lead_through_the_proxy() {
        check(r#"<a href="/x?a=1&amp;b">test</a>"#, r#"<a href="/proxy/x?a=1&amp;b">test</a>"#);
        check("<A HREF = '/x'  class=\"/y\"><img src=/z/>", "<A HREF = '/proxy/x'  class=\"/y\"><img src=/proxy/z/>");
        check(r#"<p href="/x"><a hreflang="/x" href="y">"#, r#"<p href="/x"><a hreflang="/x" href="y">"#);
        check(r#"<video src="/a" poster="/b" muted>"#, r#"<video src="/proxy/a" poster="/proxy/b" muted>"#);
        check(r#"<a title="a > b" href="/x">"#, r#"<a title="a > b" href="/proxy/x">"#);
    }

    #[test]
    fn what_only_looks_like_a_link_stays() {
        check(r#"<!-- <a href="/x"> --><a href="/y">"#, r#"<!-- <a href="/x"> --><a href="/proxy/y">"#);
        check(
            r#"<script src="/s.js">"<a href='/x'>"</script><a href="/y">"#,
            r#"<script src="/proxy/s.js">"<a href='/x'>"</script><a href="/proxy/y">"#,
        );
        check("1 < 2 <", "1 < 2 <");
        check("<a href=\"/x", "<a href=\"/x");
        check("<a =/x href=>", "<a =/x href=>");
        check("<!doctype html><a><a/><a href><", "<!doctype html><a><a/><a href><");
    }

    #[test]
    fn an_endless_tag_is_not_kept() {
        let mut links = Links { rewrite: rewrite(), held: Vec::new(), inside: Inside::Text };
        let out = links.feed(&[b"<a ".as_slice(), &vec![b'x'; TAG_BYTES_MAX]].concat());
        assert_eq!((out.len(), links.held.len()), (TAG_BYTES_MAX + 3, 0));
    }

    #[tokio::test]
    async fn a_compressed_page_stays_one() {
        let mut pack = GzEncoder::new(Vec::new(), Compression::fast());
        pack.write_all(b"<a href=/x>").expect("memory");
        let packed = pack.finish().expect("memory");
        let pieces: Vec<Bytes> = packed.chunks(3).map(Bytes::copy_from_slice).collect();
        let response = Response::builder()
            .header("content-type", "text/html; charset=utf-8")
            .header("content-encoding", "gzip")
            .header("content-length", packed.len())
            .body(body::stream(futures::stream::iter(pieces)))
            .expect("an answer");
        let answer = lead_back(response, rewrite());
        assert!(!answer.headers().contains_key("content-length"));
        let body = answer.into_body().collect().await.expect("a whole page").to_bytes();
        let mut page = String::new();
        flate2::read::GzDecoder::new(&*body).read_to_string(&mut page).expect("gzip");
        assert_eq!(page, "<a href=/proxy/x>");
    }
}
