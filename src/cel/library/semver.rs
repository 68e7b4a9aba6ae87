//! Semantic versions (semver.org 2.0.0).
//!
//! Owns: reading one, and which of two comes first.
//! Called by: the functions on versions.
//! Never: guesses, unless asked to normalize.

use std::cmp::Ordering;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    pub major: u64,
    pub minor: u64,
    pub patch: u64,
    pre: Vec<String>,
}

fn number(text: &str, what: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {what} number {text:?}"));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{what} number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| format!("{what} number out of range {text:?}"))
}

impl Semver {
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("Version string empty".into());
        }
        let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
        let (numbers, pre) = rest.split_once('-').map_or((rest, None), |(numbers, pre)| (numbers, Some(pre)));
        let parts: Vec<&str> = numbers.splitn(3, '.').collect();
        let [major, minor, patch] = parts[..] else { return Err("No Major.Minor.Patch elements found".into()) };
        let identifiers = |text: &str| -> Result<Vec<String>, String> {
            text.split('.')
                .map(|part| {
                    let fits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                    if fits { Ok(part.to_string()) } else { Err(format!("Invalid character(s) found in {part:?}")) }
                })
                .collect()
        };
        let pre = pre.map(identifiers).transpose()?.unwrap_or_default();
        build.map(identifiers).transpose()?;
        for part in pre.iter().filter(|p| p.bytes().all(|b| b.is_ascii_digit())) {
            number(part, "Prerelease")?;
        }
        Ok(Self { major: number(major, "Major")?, minor: number(minor, "Minor")?, patch: number(patch, "Patch")?, pre })
    }

    /// `v1.02` as `1.2.0`: a leading `v`, missing parts and leading zeroes are mended.
    pub fn normalized(text: &str) -> String {
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text.find(['-', '+']).unwrap_or(text.len());
        let (numbers, rest) = text.split_at(end);
        let mut parts: Vec<String> = numbers
            .split('.')
            .map(|part| match part.trim_start_matches('0') {
                "" if !part.is_empty() => "0".into(),
                trimmed => trimmed.to_string(),
            })
            .collect();
        while parts.len() < 3 && rest.is_empty() {
            parts.push("0".into());
        }
        format!("{}{rest}", parts.join("."))
    }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Semver {
    fn cmp(&self, other: &Self) -> Ordering {
        let numbers = |v: &Self| (v.major, v.minor, v.patch);
        numbers(self).cmp(&numbers(other)).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            // A release comes after what led to it.
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => prerelease(&self.pre, &other.pre),
        })
    }
}

fn prerelease(one: &[String], other: &[String]) -> Ordering {
    for (a, b) in one.iter().zip(other) {
        let order = match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => a.cmp(b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    one.len().cmp(&other.len())
}
