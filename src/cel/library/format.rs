//! Named formats of strings.
//!
//! Owns: Kubernetes' format library.
//! Called by: the evaluation; the estimate of costs (how long a format's pattern is).
//! Never: decides what a name may be; `minik_api::names` does.

use base64::Engine;
use minik_api::names;

use super::{Outcome, Run, text, url};
use crate::failure::Failure;
use crate::value::Value;

#[derive(Debug)]
pub struct NamedFormat {
    pub name: &'static str,
    /// As long as upstream takes the pattern to be, for costs.
    pub pattern: u64,
    check: fn(&str) -> Vec<String>,
}

static FORMATS: [(&str, NamedFormat); 13] = [
    ("dns1123Label", NamedFormat { name: "DNS1123Label", pattern: 30, check: names::dns1123_label }),
    ("dns1123Subdomain", NamedFormat { name: "DNS1123Subdomain", pattern: 60, check: names::dns1123_subdomain }),
    ("dns1035Label", NamedFormat { name: "DNS1035Label", pattern: 30, check: names::dns1035_label }),
    ("qualifiedName", NamedFormat { name: "QualifiedName", pattern: 60, check: names::qualified_name }),
    (
        "dns1123LabelPrefix",
        NamedFormat {
            name: "DNS1123LabelPrefix",
            pattern: 30,
            check: |s| names::dns1123_label(&names::masked_prefix(s)),
        },
    ),
    (
        "dns1123SubdomainPrefix",
        NamedFormat {
            name: "DNS1123SubdomainPrefix",
            pattern: 60,
            check: |s| names::dns1123_subdomain(&names::masked_prefix(s)),
        },
    ),
    (
        "dns1035LabelPrefix",
        NamedFormat {
            name: "DNS1035LabelPrefix",
            pattern: 30,
            check: |s| names::dns1035_label(&names::masked_prefix(s)),
        },
    ),
    ("labelValue", NamedFormat { name: "LabelValue", pattern: 40, check: names::label_value }),
    (
        "uri",
        NamedFormat {
            name: "URI",
            pattern: 1100,
            check: |s| faults(url::read(s).is_ok(), &format!("parse {s:?}: invalid URI for request")),
        },
    ),
    (
        "uuid",
        NamedFormat { name: "uuid", pattern: 100, check: |s| faults(is_uuid(s), "does not match the UUID format") },
    ),
    (
        "byte",
        NamedFormat {
            name: "byte",
            pattern: 100,
            check: |s| faults(base64::engine::general_purpose::STANDARD.decode(s).is_ok(), "invalid base64"),
        },
    ),
    (
        "date",
        NamedFormat {
            name: "date",
            pattern: 150,
            check: |s| faults(s.len() == 10 && text::timestamp(s).is_some(), "invalid date"),
        },
    ),
    (
        "datetime",
        NamedFormat {
            name: "datetime",
            pattern: 150,
            check: |s| faults(s.len() > 10 && text::timestamp(s).is_some(), "invalid datetime"),
        },
    ),
];

fn faults(fits: bool, fault: &str) -> Vec<String> {
    if fits { vec![] } else { vec![fault.into()] }
}

fn is_uuid(text: &str) -> bool {
    let bare: String = text.chars().filter(|c| *c != '-').collect();
    bare.len() == 32 && bare.bytes().all(|b| b.is_ascii_hexdigit())
}

fn named(name: &str) -> Option<&'static NamedFormat> {
    FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| format)
}

pub fn find(name: &str) -> Option<Run> {
    Some(match name {
        "format.named" => |args| {
            let found = named(text::text(&args, 0)?);
            Ok(Value::Optional(found.map(|f| std::sync::Arc::new(Value::Format(f)))))
        },
        "validate" => validate,
        "format.dns1123Label" => |_| of("dns1123Label"),
        "format.dns1123Subdomain" => |_| of("dns1123Subdomain"),
        "format.dns1035Label" => |_| of("dns1035Label"),
        "format.qualifiedName" => |_| of("qualifiedName"),
        "format.dns1123LabelPrefix" => |_| of("dns1123LabelPrefix"),
        "format.dns1123SubdomainPrefix" => |_| of("dns1123SubdomainPrefix"),
        "format.dns1035LabelPrefix" => |_| of("dns1035LabelPrefix"),
        "format.labelValue" => |_| of("labelValue"),
        "format.uri" => |_| of("uri"),
        "format.uuid" => |_| of("uuid"),
        "format.byte" => |_| of("byte"),
        "format.date" => |_| of("date"),
        "format.datetime" => |_| of("datetime"),
        _ => return None,
    })
}

fn of(name: &str) -> Outcome<'static> {
    named(name).map(Value::Format).ok_or_else(Failure::no_such_overload)
}

/// None when the text fits, else what is wrong with it.
fn validate(args: Vec<Value<'_>>) -> Outcome<'_> {
    let Value::Format(format) = &args[0] else { return Err(Failure::no_such_overload()) };
    let faults = (format.check)(text::text(&args, 1)?);
    if faults.is_empty() {
        return Ok(Value::Optional(None));
    }
    Ok(Value::some(Value::from(faults.into_iter().map(Value::from).collect::<Vec<_>>())))
}
