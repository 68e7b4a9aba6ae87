//! The dictionary both ends of a SPDY/3 connection start their header compression with.
//!
//! Owns: the constant of the SPDY/3 specification, section 2.6.10.1: words that each follow their length, then text.
//! Called by: `headers`.
//! Never: changes: one byte of difference and no header can be read.

const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
const TEXT: &str = concat!(
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505",
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Una",
    "uthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service",
    " UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, ",
    "Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,applicat",
    "ion/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf",
    "-8charset=iso-8859-1,utf-,*,enq=0.",
);

const LENGTH: usize = 1423;

pub static DICTIONARY: &[u8] = &BYTES;

static BYTES: [u8; LENGTH] = {
    let mut bytes = [0; LENGTH];
    let (mut at, mut word) = (0, 0);
    while word < WORDS.len() {
        // Every length fits one byte; the other three of the big-endian number stay zero.
        bytes[at + 3] = WORDS[word].len() as u8;
        at = place(&mut bytes, at + 4, WORDS[word].as_bytes());
        word += 1;
    }
    assert!(place(&mut bytes, at, TEXT.as_bytes()) == LENGTH, "the dictionary has a fixed length");
    bytes
};

const fn place(bytes: &mut [u8; LENGTH], mut at: usize, text: &[u8]) -> usize {
    let mut i = 0;
    while i < text.len() {
        bytes[at] = text[i];
        at += 1;
        i += 1;
    }
    at
}
