//! Writes the few shapes of DER that a certificate is made of (X.690).
//!
//! Owns: tags, lengths, and the shortest form of each value.
//! Called by: `certificate_authority`.
//! Never: reads DER; that is `x509-parser`'s business.

use jiff::Timestamp;
use jiff::tz::TimeZone;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// A value in place of another, told by its number: `[n] IMPLICIT`.
const CONTEXT: u8 = 0x80;
const CONSTRUCTED: u8 = 0x20;
/// RFC 5280, 4.1.2.5: from this year on times are written with four digits for the year.
const GENERALIZED_FROM: i16 = 2050;

pub(crate) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    if content.len() < 0x80 {
        out.push(content.len() as u8);
    } else {
        let bytes = content.len().to_be_bytes();
        let significant = &bytes[bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len() - 1)..];
        out.push(0x80 | significant.len() as u8);
        out.extend_from_slice(significant);
    }
    out.extend_from_slice(content);
    out
}

pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    value(SEQUENCE, &parts.concat())
}

/// `content` is a whole value inside `[n]`.
pub(crate) fn explicit(n: u8, content: &[u8]) -> Vec<u8> {
    value(CONTEXT | CONSTRUCTED | n, content)
}

pub(crate) fn implicit(n: u8, content: &[u8]) -> Vec<u8> {
    value(CONTEXT | n, content)
}

/// A number that is not negative, most significant byte first.
pub(crate) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len().saturating_sub(1));
    let mut content = bytes[first..].to_vec();
    // A first bit would make it negative.
    if content.first().is_none_or(|b| b & 0x80 != 0) {
        content.insert(0, 0);
    }
    value(INTEGER, &content)
}

pub(crate) fn yes() -> Vec<u8> {
    value(BOOLEAN, &[0xff])
}

/// `encoded` is the content: the first two numbers in one byte, the rest in base 128.
pub(crate) fn oid(encoded: &[u8]) -> Vec<u8> {
    value(OID, encoded)
}

pub(crate) fn octets(content: &[u8]) -> Vec<u8> {
    value(OCTET_STRING, content)
}

pub(crate) fn bits(bytes: &[u8]) -> Vec<u8> {
    value(BIT_STRING, &[&[0], bytes].concat())
}

/// Named bits: bit 0 is the first of the first byte, and zeros at the end are not written.
pub(crate) fn named_bits(set: u16) -> Vec<u8> {
    let mut bytes = [0_u8; 2];
    for bit in (0..16).filter(|bit| set & (1 << bit) != 0) {
        bytes[bit / 8] |= 0x80 >> (bit % 8);
    }
    let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    let unused = if used == 0 { 0 } else { bytes[used - 1].trailing_zeros() as u8 };
    value(BIT_STRING, &[&[unused], &bytes[..used]].concat())
}

pub(crate) fn time(at: Timestamp) -> Vec<u8> {
    let utc = at.to_zoned(TimeZone::UTC);
    let (tag, format) =
        if utc.year() < GENERALIZED_FROM { (UTC_TIME, "%y%m%d%H%M%SZ") } else { (GENERALIZED_TIME, "%Y%m%d%H%M%SZ") };
    value(tag, utc.strftime(format).to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_short_and_stay_positive() {
        assert_eq!(unsigned(&[0, 0, 5]), [2, 1, 5]);
        assert_eq!(unsigned(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(unsigned(&[0]), [2, 1, 0]);
    }

    #[test]
    fn long_values_say_their_length_in_as_few_bytes_as_it_takes() {
        assert_eq!(value(4, &[7; 3])[..2], [4, 3]);
        assert_eq!(value(4, &[7; 200])[..3], [4, 0x81, 200]);
        assert_eq!(value(4, &[7; 300])[..4], [4, 0x82, 1, 44]);
    }

    #[test]
    fn named_bits_end_with_the_last_that_is_set() {
        // digitalSignature (0) and keyEncipherment (2); decipherOnly (8) needs a second byte.
        assert_eq!(named_bits(0b101), [3, 2, 5, 0xa0]);
        assert_eq!(named_bits(1 << 8), [3, 3, 7, 0, 0x80]);
        assert_eq!(named_bits(0), [3, 1, 0]);
    }

    #[test]
    fn the_year_has_four_digits_from_2050_on() {
        assert_eq!(&time("2026-01-02T03:04:05Z".parse().unwrap())[2..], b"260102030405Z");
        assert_eq!(&time("2050-01-02T03:04:05Z".parse().unwrap())[2..], b"20500102030405Z");
    }
}
