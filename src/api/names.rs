//! What names, labels and keys may look like, and Kubernetes' words when they do not.
//!
//! Owns: DNS labels and subdomains, label keys and values, ports, environment and config keys, IPs and CIDRs.
//! Called by: selectors and validation.
//! Never: knows which field it looks at; each function answers with the texts of what is wrong, empty when nothing.

use std::net::{IpAddr, Ipv4Addr};

pub const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const KEY_NAME: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

type Faults = Vec<String>;

/// Upstream has two wordings of the same limit, in bytes and in characters; which one is seen depends on the check.
fn max_characters(max: usize) -> String {
    format!("must be no more than {max} characters")
}
fn max_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

pub fn regex_fault(text: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{text} (regex used for validation is '{regex}')");
    }
    let list: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{text} (e.g. {}regex used for validation is '{regex}')", list.join(" or "))
}

fn is_label(s: &str) -> bool {
    let b = s.as_bytes();
    let inner = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    !b.is_empty() && inner(&b[0]) && inner(&b[b.len() - 1]) && b.iter().all(|c| inner(c) || *c == b'-')
}
fn is_subdomain(s: &str) -> bool {
    s.split('.').all(is_label)
}
fn is_key_name(s: &str) -> bool {
    let b = s.as_bytes();
    let edge = |c: &u8| c.is_ascii_alphanumeric();
    !b.is_empty() && edge(&b[0]) && edge(&b[b.len() - 1]) && b.iter().all(|c| edge(c) || b"-_.".contains(c))
}

/// Faults of a name that is too long (`limit` says so), does not fit its pattern (`misfit` says so), or both.
fn shaped(value: &str, max: usize, limit: String, fits: bool, misfit: impl FnOnce() -> String) -> Faults {
    let too_long = (value.len() > max).then_some(limit);
    too_long.into_iter().chain((!fits).then(misfit)).collect()
}

/// A DNS-1123 label: most namespaced short names, namespaces, containers.
pub fn dns1123_label(value: &str) -> Faults {
    shaped(value, LABEL_MAX, max_characters(LABEL_MAX), is_label(value), || {
        if is_subdomain(value) {
            return "must not contain dots".into();
        }
        regex_fault(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
            LABEL,
            &["my-name", "123-abc"],
        )
    })
}

fn subdomain_regex() -> String {
    format!("{LABEL}(\\.{LABEL})*")
}

fn subdomain_faults(value: &str, limit: String) -> Faults {
    shaped(value, SUBDOMAIN_MAX, limit, is_subdomain(value), || {
        regex_fault(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            &subdomain_regex(),
            &["example.com"],
        )
    })
}

/// A DNS-1123 subdomain: most names.
pub fn dns1123_subdomain(value: &str) -> Faults {
    subdomain_faults(value, max_characters(SUBDOMAIN_MAX))
}

/// As `dns1123_subdomain`, with capitals: what attaches volumes.
pub fn caseless_dns1123_subdomain(value: &str) -> Faults {
    shaped(value, SUBDOMAIN_MAX, max_characters(SUBDOMAIN_MAX), is_subdomain(&value.to_lowercase()), || {
        regex_fault(
            "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            &subdomain_regex(),
            &["Example.com"],
        )
    })
}

/// As `dns1123_subdomain`, with underscores: where DNS is asked.
pub fn underscored_dns1123_subdomain(value: &str) -> Faults {
    let is_label = |label: &str| {
        let label = label.strip_prefix('_').unwrap_or(label);
        is_label(&label.replace('_', "-")) && !label.starts_with('_') && !label.ends_with('_')
    };
    shaped(value, SUBDOMAIN_MAX, max_characters(SUBDOMAIN_MAX), value.split('.').all(is_label), || {
        let label = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
        regex_fault(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            &format!("{label}(\\.{label})*"),
            &["example.com"],
        )
    })
}

pub fn wildcard_dns1123_subdomain(value: &str) -> Faults {
    let fits = value.strip_prefix("*.").is_some_and(is_subdomain);
    shaped(value, SUBDOMAIN_MAX, max_characters(SUBDOMAIN_MAX), fits, || {
        regex_fault(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{}", subdomain_regex()),
            &["*.example.com"],
        )
    })
}

/// A DNS-1035 label: Services (they begin with a letter).
pub fn dns1035_label(value: &str) -> Faults {
    let fits = is_label(value) && value.as_bytes()[0].is_ascii_lowercase();
    shaped(value, LABEL_MAX, max_characters(LABEL_MAX), fits, || {
        regex_fault(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        )
    })
}

/// A label key, also called a qualified name: `[prefix/]name`.
pub fn qualified_name(value: &str) -> Faults {
    let key_fault = || {
        regex_fault(
            "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            KEY_NAME,
            &["MyName", "my.name", "123-abc"],
        )
    };
    let mut faults = Faults::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".into());
            } else {
                let texts = subdomain_faults(prefix, max_bytes(SUBDOMAIN_MAX));
                faults.extend(texts.into_iter().map(|t| format!("prefix part {t}")));
            }
            *name
        }
        _ => {
            let text = key_fault();
            return vec![format!(
                "a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".into());
    } else if name.len() > LABEL_MAX {
        faults.push(format!("name part {}", max_bytes(LABEL_MAX)));
    }
    if !is_key_name(name) {
        faults.push(format!("name part {}", key_fault()));
    }
    faults
}

pub fn label_value(value: &str) -> Faults {
    shaped(value, LABEL_MAX, max_bytes(LABEL_MAX), value.is_empty() || is_key_name(value), || {
        regex_fault(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            &format!("({KEY_NAME})?"),
            &["MyValue", "my_value", "12345"],
        )
    })
}

/// A name that becomes one segment of a URL path: roles, for instance.
pub fn path_segment(value: &str) -> Faults {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"].iter().filter(|c| value.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

fn range_fault(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}
pub fn in_range(value: i64, low: i64, high: i64) -> Faults {
    if (low..=high).contains(&value) { Faults::new() } else { vec![range_fault(low, high)] }
}
pub fn port_number(port: i64) -> Faults {
    in_range(port, 1, 65535)
}
/// Users and groups alike.
pub fn user_id(id: i64) -> Faults {
    in_range(id, 0, i32::MAX as i64)
}

/// An IANA service name of at most 15 characters.
pub fn port_name(name: &str) -> Faults {
    let mut faults = Faults::new();
    if name.len() > 15 {
        faults.push(max_characters(15));
    }
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || !name.bytes().all(allowed) {
        faults.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)".into());
    }
    if name.contains("--") {
        faults.push("must not contain consecutive hyphens".into());
    }
    if name.starts_with('-') || name.ends_with('-') {
        faults.push("must not begin or end with a hyphen".into());
    }
    faults
}

/// `25%`
pub fn percent(value: &str) -> Faults {
    let digits = value.strip_suffix('%').unwrap_or("");
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Faults::new();
    }
    vec![regex_fault(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// What may follow the domain of a domain-prefixed path.
pub fn http_path(value: &str) -> Faults {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if !value.is_empty() && value.bytes().all(fits) {
        return Vec::new();
    }
    vec![regex_fault("Invalid path", r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", &[])]
}

pub fn http_header_name(value: &str) -> Faults {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Faults::new();
    }
    vec![regex_fault(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// Any printable ASCII but `=`, as since v1.34.
pub fn env_var_name(value: &str) -> Faults {
    let mut faults = Faults::new();
    if value.is_empty() {
        faults.push("environment variable name must be non-empty".into());
    }
    if !value.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        faults.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='".into(),
        );
    }
    faults
}

/// A key in a ConfigMap or Secret, which becomes a file name.
pub fn config_map_key(value: &str) -> Faults {
    let mut faults = Faults::new();
    if value.len() > SUBDOMAIN_MAX {
        faults.push(max_characters(SUBDOMAIN_MAX));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        faults.push(regex_fault(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match value {
        "." => faults.push("must not be '.'".into()),
        ".." => faults.push("must not be '..'".into()),
        v if v.starts_with("..") => faults.push("must not start with '..'".into()),
        _ => {}
    }
    faults
}

pub fn c_identifier(value: &str) -> Faults {
    let b = value.as_bytes();
    let good = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
    if !b.is_empty() && !b[0].is_ascii_digit() && b.iter().all(good) {
        return Faults::new();
    }
    vec![regex_fault(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

fn sloppy_ip(value: &str) -> Option<IpAddr> {
    if let Ok(ip) = value.parse() {
        return Some(ip);
    }
    let octets: Vec<u8> = value
        .split('.')
        .map(|o| if o.is_empty() || !o.bytes().all(|b| b.is_ascii_digit()) { None } else { o.parse().ok() })
        .collect::<Option<_>>()?;
    let octets: [u8; 4] = octets.try_into().ok()?;
    Some(IpAddr::V4(Ipv4Addr::from(octets)))
}

fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// Any spelling of an address except those that other software reads differently.
pub fn ip(value: &str) -> Faults {
    match (sloppy_ip(value), value.parse::<IpAddr>()) {
        (None, _) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
        (Some(_), Err(_)) => vec!["must not have leading 0s".into()],
        (Some(ip), Ok(_)) if is_mapped(ip) => vec!["must not be an IPv4-mapped IPv6 address".into()],
        _ => Faults::new(),
    }
}

/// `ip`, and spelt canonically.
pub fn canonical_ip(value: &str) -> Faults {
    let faults = ip(value);
    match value.parse::<IpAddr>() {
        Ok(ip) if faults.is_empty() && ip.to_string() != value => {
            vec![format!("must be in canonical form (\"{ip}\")")]
        }
        _ => faults,
    }
}

pub fn cidr(value: &str) -> Faults {
    let invalid = || vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_string()];
    let Some((address, length)) = value.split_once('/') else { return invalid() };
    let (Some(ip), Ok(bits)) = (sloppy_ip(address), length.parse::<u32>()) else { return invalid() };
    let width = if ip.is_ipv4() { 32 } else { 128 };
    if bits > width || !length.bytes().all(|b| b.is_ascii_digit()) {
        return invalid();
    }
    if address.parse::<IpAddr>().is_err() || (length.len() > 1 && length.starts_with('0')) {
        return vec!["must not have leading 0s in IP or prefix length".into()];
    }
    if is_mapped(ip) {
        return vec!["must not have an IPv4-mapped IPv6 address".into()];
    }
    let number = match ip {
        IpAddr::V4(v4) => (u32::from(v4) as u128) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    };
    if bits < 128 && number << bits != 0 {
        return vec!["must not have bits set beyond the prefix length".into()];
    }
    Faults::new()
}

/// Why this spelling of an address is better avoided; `None` also for what is none.
pub fn odd_ip(value: &str) -> Option<String> {
    let ip = sloppy_ip(value)?;
    if value.parse::<IpAddr>().is_err() || is_mapped(ip) {
        return Some(format!("non-standard IP address {value:?} is invalid: use \"{}\"", ip.to_canonical()));
    }
    let odd = ip.is_ipv6() && ip.to_string() != value;
    odd.then(|| format!("IPv6 address {value:?} should be in RFC 5952 canonical format (\"{ip}\")"))
}

/// As `odd_ip`, of what `cidr` accepts.
pub fn odd_cidr(value: &str) -> Option<String> {
    let (address, length) = value.split_once('/').filter(|_| cidr(value).is_empty())?;
    let canonical = format!("{}/{length}", address.parse::<IpAddr>().ok()?);
    let odd = address.contains(':') && canonical != value;
    odd.then(|| format!("IPv6 CIDR value {value:?} should be in RFC 5952 canonical format ({canonical:?})"))
}

/// A name that will get random characters appended may end in a dash.
pub fn masked_prefix(name: &str) -> String {
    match name.strip_suffix('-') {
        // Upstream drops the character before the dash too; only the shape matters here.
        Some(rest) if !rest.is_empty() => {
            let mut chars = rest.chars();
            chars.next_back();
            format!("{}a", chars.as_str())
        }
        _ => name.to_string(),
    }
}

/// As fields and names that came after the strict rules have it: one spelling for each address.
pub fn ip_address(text: &str) -> Vec<String> {
    let Ok(address) = text.parse::<std::net::IpAddr>() else {
        return vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()];
    };
    let mapped = matches!(address, std::net::IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if mapped {
        return vec!["must not be an IPv4-mapped IPv6 address".into()];
    }
    let canonical = address.to_string();
    if canonical == text { Vec::new() } else { vec![format!("must be in canonical form ({canonical:?})")] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_with_a_dot_is_told_so() {
        assert!(dns1123_label("web-1").is_empty());
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns1123_label("Web"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
    }

    #[test]
    fn a_label_key_is_checked_part_by_part() {
        assert!(qualified_name("app.kubernetes.io/name").is_empty());
        assert_eq!(qualified_name("/x"), ["prefix part must be non-empty"]);
        assert_eq!(qualified_name("a/")[0], "name part must be non-empty");
        assert!(qualified_name("a/b/c")[0].starts_with("a valid label key must consist of"));
        assert_eq!(qualified_name(&"x".repeat(64)), ["name part must be no more than 63 bytes"]);
    }

    #[test]
    fn addresses_with_leading_zeros_are_refused() {
        assert!(ip("10.0.0.1").is_empty() && ip("2001:db8::1").is_empty());
        assert_eq!(ip("010.0.0.1"), ["must not have leading 0s"]);
        assert_eq!(ip("::ffff:1.2.3.4"), ["must not be an IPv4-mapped IPv6 address"]);
        assert_eq!(cidr("10.0.0.1/8"), ["must not have bits set beyond the prefix length"]);
        assert!(cidr("10.0.0.0/8").is_empty() && cidr("0.0.0.0/0").is_empty() && cidr("::/0").is_empty());
    }

    #[test]
    fn an_address_has_one_spelling() {
        assert!(ip_address("fe80::42:1dff:fe84:f9e2").is_empty() && ip_address("10.0.0.1").is_empty());
        assert_eq!(ip_address("FE80:0:0:0:0:0:0:1"), ["must be in canonical form (\"fe80::1\")"]);
        assert_eq!(ip_address("::ffff:10.0.0.1"), ["must not be an IPv4-mapped IPv6 address"]);
        assert_eq!(ip_address("ten"), ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]);
    }
}
