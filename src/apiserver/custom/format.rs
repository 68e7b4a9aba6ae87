//! Formats of strings that a schema can demand.
//!
//! Owns: those that upstream knows; others are no demand.
//! Called by: validation of custom resources.
//! Never: fails on a format it does not know.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;
use jiff::Timestamp;
use jiff::civil::Date;

pub fn fits(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<Timestamp>().is_ok(),
        "date" => text.parse::<Date>().is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => cidr(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => uuid::Uuid::try_parse(text).is_ok(),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "email" => text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty()),
        "hostname" => minik_api::names::dns1123_subdomain(&text.to_ascii_lowercase()).is_empty(),
        "uri" => text.split_once(':').is_some_and(|(scheme, _)| !scheme.is_empty()),
        "mac" => {
            text.split([':', '-']).count() == 6 && text.split([':', '-']).all(|p| u8::from_str_radix(p, 16).is_ok())
        }
        _ => true,
    }
}

fn cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let Ok(bits) = bits.parse::<u8>() else { return false };
    (address.parse::<Ipv4Addr>().is_ok() && bits <= 32) || (address.parse::<Ipv6Addr>().is_ok() && bits <= 128)
}
