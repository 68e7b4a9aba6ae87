//! The levels of pod security and how a namespace's labels name them.
//!
//! Owns: parsing `pod-security.kubernetes.io/*`, and the defaults.
//! Called by: the plugin.
//! Never: judges a pod.

use minik_api::FieldError;
use serde_json::{Value, json};

/// In the order of strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Latest,
    /// `v1.N`
    Minor(u32),
}

impl Version {
    /// The minor version whose rules apply.
    pub fn minor(self) -> u32 {
        match self {
            Self::Latest => u32::MAX,
            Self::Minor(minor) => minor,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelVersion {
    pub level: Level,
    pub version: Version,
}

impl std::fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged:",
            Level::Baseline => "baseline:",
            Level::Restricted => "restricted:",
        })?;
        match self.version {
            Version::Latest => f.write_str("latest"),
            Version::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enforce: LevelVersion,
    pub warn: LevelVersion,
}

const PREFIX: &str = "pod-security.kubernetes.io/";

impl Policy {
    /// A policy always comes out; what is wrong with the labels comes beside it.
    pub fn of(labels: &Value) -> (Self, Vec<FieldError>) {
        let mut faults = Vec::new();
        let open = LevelVersion { level: Level::Privileged, version: Version::Latest };
        let mut policy = Self { enforce: open, warn: open };
        let label = |name: &str| labels[format!("{PREFIX}{name}")].as_str();
        let mut fault = |name: &str, value: &str, detail: &str| {
            faults.push(FieldError::invalid(format!("metadata.labels[{PREFIX}{name}]"), &json!(value), detail));
        };
        const LEVELS: &str = "must be one of privileged, baseline, restricted";
        const VERSIONS: &str = "must be \"latest\" or \"v1.x\"";
        let mut enforce_named = false;
        if let Some(text) = label("enforce") {
            let level = parse_level(text);
            enforce_named = level.is_some();
            // What cannot be read is as strict as can be.
            policy.enforce.level = level.unwrap_or(Level::Restricted);
            if level.is_none() {
                fault("enforce", text, LEVELS);
            }
        }
        if let Some(text) = label("enforce-version") {
            let version = parse_version(text);
            policy.enforce.version = version.unwrap_or(Version::Latest);
            if version.is_none() {
                fault("enforce-version", text, VERSIONS);
            }
        }
        if let Some(text) = label("audit").filter(|text| parse_level(text).is_none()) {
            fault("audit", text, LEVELS);
        }
        if let Some(text) = label("audit-version").filter(|text| parse_version(text).is_none()) {
            fault("audit-version", text, VERSIONS);
        }
        if let Some(text) = label("warn") {
            let level = parse_level(text);
            policy.warn.level = level.unwrap_or(Level::Privileged);
            if level.is_none() {
                fault("warn", text, LEVELS);
            }
        }
        if let Some(text) = label("warn-version") {
            let version = parse_version(text);
            policy.warn.version = version.unwrap_or(Version::Latest);
            if version.is_none() {
                fault("warn-version", text, VERSIONS);
            }
        }
        // Who is refused deserves a warning where only warnings are given, at the controllers.
        if label("warn").is_none() && enforce_named && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if label("warn-version").is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, faults)
    }

    pub fn is_privileged(&self) -> bool {
        self.enforce.level == Level::Privileged && self.warn.level == Level::Privileged
    }
}

fn parse_level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

fn parse_version(text: &str) -> Option<Version> {
    if text == "latest" {
        return Some(Version::Latest);
    }
    let digits = text.strip_prefix("v1.")?;
    let plain = digits == "0" || !digits.starts_with('0');
    let number = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty() && plain;
    number.then(|| digits.parse().ok().map(Version::Minor)).flatten()
}
