//! The audit log: who asked for what, when, and what came of it.
//!
//! Owns: one trail per request, from its arrival to its answer, as the policy wants it.
//! Called by: the pipeline; admission adds annotations.
//! Never: keeps a request from being served because its trail could not be written.

mod follow;
mod log;
mod policy;

pub use follow::Followed;

pub use log::Rotation;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use jiff::Timestamp;
use minik_api::wire::time;
use parking_lot::Mutex;
use serde_json::{Value, json};

use self::log::Log;
use self::policy::{Level, Policy, Rule};
use crate::authn::{Peer, UserInfo};
use crate::route::RequestInfo;

/// What an audit log is made of.
#[derive(Clone, Debug)]
pub struct Audit {
    /// A `Policy` of `audit.k8s.io/v1`, in YAML.
    pub policy: String,
    /// Where events go, one JSON object a line.
    pub log: PathBuf,
    pub rotation: Rotation,
}

#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("the audit policy cannot be used: {0}")]
    Policy(String),
    #[error("the audit log {path} cannot be written")]
    Log { path: PathBuf, source: std::io::Error },
}

pub struct Auditor {
    policy: Policy,
    log: Log,
}

/// The moments of a request that may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// What is known of one request so far.
pub struct Trail {
    auditor: Arc<Auditor>,
    rule: Rule,
    received: Timestamp,
    event: Mutex<Value>,
    annotations: Mutex<BTreeMap<String, String>>,
}

impl Auditor {
    pub fn open(audit: &Audit) -> Result<Arc<Self>, AuditError> {
        let policy = Policy::parse(&audit.policy).map_err(AuditError::Policy)?;
        let log = Log::open(&audit.log, audit.rotation)
            .map_err(|source| AuditError::Log { path: audit.log.clone(), source })?;
        Ok(Arc::new(Self { policy, log }))
    }

    /// The trail of a request, once it is known who asks; `None` when the policy wants none.
    pub fn begin(
        self: &Arc<Self>,
        parts: &Parts,
        peer: &Peer,
        info: &RequestInfo,
        user: &UserInfo,
        id: &str,
    ) -> Option<Arc<Trail>> {
        let rule = self.policy.rule(user, info)?;
        let received = Timestamp::now();
        let text = |name: http::HeaderName| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": rule.level.as_str(), "auditID": id,
            "stage": "", "requestURI": parts.uri.path_and_query().map_or("", |p| p.as_str()), "verb": info.verb,
            "user": shown(user), "sourceIPs": sources(parts, peer),
            "userAgent": text(http::header::USER_AGENT),
            "requestReceivedTimestamp": time::format_micros(received),
        });
        if info.is_resource {
            event["objectRef"] = reference(info);
        }
        let trail = Arc::new(Trail {
            auditor: self.clone(),
            rule,
            received,
            event: Mutex::new(event),
            annotations: Mutex::default(),
        });
        trail.tell(Stage::RequestReceived, None);
        Some(trail)
    }
}

fn shown(user: &UserInfo) -> Value {
    let mut shown = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        shown["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        shown["extra"] = json!(user.extra);
    }
    shown
}

/// Proxies that passed the request on, then who connected.
fn sources(parts: &Parts, peer: &Peer) -> Vec<String> {
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_string();
    let passed = header("x-forwarded-for");
    let mut found: Vec<String> = passed
        .split(',')
        .map(str::trim)
        .filter(|ip| ip.parse::<std::net::IpAddr>().is_ok())
        .map(String::from)
        .collect();
    if let Some(ip) = peer.address.map(|address| address.ip().to_string())
        && found.last() != Some(&ip)
    {
        found.push(ip);
    }
    found
}

fn reference(info: &RequestInfo) -> Value {
    let mut reference = json!({});
    let fields = [
        ("resource", &info.resource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("apiGroup", &info.group),
        ("apiVersion", &info.version),
        ("subresource", &info.subresource),
    ];
    for (field, text) in fields {
        if !text.is_empty() {
            reference[field] = text.as_str().into();
        }
    }
    reference
}

/// Bodies that are JSON or YAML; others are not shown.
fn body(bytes: &[u8], media: &str, omit_managed_fields: bool) -> Option<Value> {
    let mut tree: Value = match media {
        "application/yaml" | "application/apply-patch+yaml" => serde_yaml::from_slice(bytes).ok()?,
        _ => serde_json::from_slice(bytes).ok()?,
    };
    if omit_managed_fields {
        strip(&mut tree);
    }
    Some(tree)
}

fn strip(tree: &mut Value) {
    if let Some(metadata) = tree["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    for item in tree["items"].as_array_mut().into_iter().flatten() {
        strip(item);
    }
}

impl Trail {
    pub fn impersonated(&self, user: &UserInfo) {
        self.event.lock()["impersonatedUser"] = shown(user);
    }

    /// What authorization decided.
    pub fn decided(&self, allowed: bool, reason: &str) {
        let decision = if allowed { "allow" } else { "forbid" };
        self.annotate("authorization.k8s.io/decision", decision);
        self.annotate("authorization.k8s.io/reason", reason);
    }

    /// The first word on a key counts.
    pub fn annotate(&self, key: &str, value: &str) {
        self.annotations.lock().entry(key.into()).or_insert_with(|| value.into());
    }

    pub fn wants_request(&self) -> bool {
        self.rule.level >= Level::Request
    }
    pub fn wants_response(&self) -> bool {
        self.rule.level >= Level::RequestResponse
    }

    pub fn request(&self, bytes: &Bytes, media: &str) {
        if self.wants_request()
            && !bytes.is_empty()
            && let Some(tree) = body(bytes, media, self.rule.omit_managed_fields)
        {
            self.event.lock()["requestObject"] = tree;
        }
    }

    pub fn response(&self, bytes: &[u8], media: &str) {
        if self.wants_response()
            && let Some(tree) = body(bytes, media, self.rule.omit_managed_fields)
        {
            self.event.lock()["responseObject"] = tree;
        }
    }

    /// Writes the event of a stage, unless the policy leaves it out.
    pub fn tell(&self, stage: Stage, code: Option<u16>) {
        if self.rule.omits(stage.as_str()) {
            return;
        }
        let mut event = self.event.lock().clone();
        event["stage"] = stage.as_str().into();
        let at = if stage == Stage::RequestReceived { self.received } else { Timestamp::now() };
        event["stageTimestamp"] = time::format_micros(at).into();
        if let Some(code) = code {
            event["responseStatus"] = json!({"metadata": {}, "code": code});
        }
        let annotations = self.annotations.lock();
        if !annotations.is_empty() {
            event["annotations"] = json!(*annotations);
        }
        drop(annotations);
        self.auditor.log.write(&event);
    }
}
