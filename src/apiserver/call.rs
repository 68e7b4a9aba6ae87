//! One request to a resource, read and authorized, on its way to a handler.
//!
//! Owns: everything a handler may want to know of a request, and the options of writes.
//! Called by: the pipeline (to build), handlers.
//! Never: touches the store.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use hyper::upgrade::OnUpgrade;
use jiff::Timestamp;
use minik_api::registry::GroupVersionKind;
use minik_api::wire::time;
use minik_api::{FieldError, Status};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::audit::Trail;
use crate::authn::UserInfo;
use crate::catalog::Served;
use crate::negotiate::Accept;
use crate::query::Query;
use crate::route::RequestInfo;

pub struct Call {
    pub info: RequestInfo,
    pub query: Query,
    pub headers: HeaderMap,
    pub user: Arc<UserInfo>,
    pub accept: Accept,
    pub body: Bytes,
    pub served: Arc<Served>,
    pub warnings: Mutex<Vec<String>>,
    /// The connection, for who makes it another protocol's.
    pub upgrade: Mutex<Option<OnUpgrade>>,
    /// What the audit log is told of this request.
    pub trail: Option<Arc<Trail>>,
}

impl Call {
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    pub fn header(&self, name: http::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }

    /// The media type of the body, without parameters.
    pub fn content_type(&self) -> &str {
        self.header(http::header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim()
    }

    /// The kind that is read and written here: that of the subresource, when there is one.
    pub fn kind(&self) -> GroupVersionKind {
        match self.served.row.subresource(&self.info.subresource) {
            Some(sub) => sub.kind.clone(),
            None => self.served.row.kind(),
        }
    }

    /// The namespace that the object's metadata must have: none in cluster scope, though a Namespace's path has one.
    pub fn object_namespace(&self) -> &str {
        if self.served.row.is_namespaced() { &self.info.namespace } else { "" }
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(&self.served.row.qualified(), &self.info.name)
    }
}

/// The present moment as objects carry it.
pub fn now() -> String {
    time::format_seconds(Timestamp::now())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    Strict,
    Warn,
    Ignore,
}

/// What a create, update, patch or delete may be asked besides its object.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    pub kind: &'static str,
    pub dry_run: bool,
    pub field_manager: String,
    pub validation: FieldValidation,
    pub force: bool,
}

/// Upstream's limit on the name of a field manager.
const FIELD_MANAGER_MAX: usize = 128;

impl WriteOptions {
    /// `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`.
    pub fn of(call: &Call, kind: &'static str) -> Result<Self, Status> {
        let mut faults = Vec::new();
        let dry_run: Vec<&str> = call.query.all("dryRun").collect();
        check_dry_run(&dry_run, &mut faults);
        let manager = call.query.get("fieldManager");
        if manager.len() > FIELD_MANAGER_MAX {
            let detail = format!("may not be more than {FIELD_MANAGER_MAX} bytes");
            faults.push(FieldError {
                kind: minik_api::FieldErrorType::TooLong,
                path: "fieldManager".into(),
                value: None,
                detail,
            });
        }
        let validation = match call.query.get("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                faults.push(FieldError::not_supported("fieldValidation", &other.into(), &supported));
                FieldValidation::Warn
            }
        };
        let force = call.query.optional_flag("force");
        let applying = call.content_type().starts_with("application/apply-patch");
        if kind == "PatchOptions" && !applying && force.is_some() {
            faults.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
        }
        if applying && manager.is_empty() {
            faults.push(FieldError::required("fieldManager", "is required for apply patch"));
        }
        if !faults.is_empty() {
            return Err(Status::invalid("meta.k8s.io", kind, "", &faults));
        }
        let field_manager = if manager.is_empty() { manager_of_agent(call) } else { manager.into() };
        Ok(Self { kind, dry_run: !dry_run.is_empty(), field_manager, validation, force: force.unwrap_or(false) })
    }

    /// As admission shows it.
    pub fn to_json(&self) -> Value {
        let mut options = json!({"kind": self.kind, "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        if !self.field_manager.is_empty() {
            options["fieldManager"] = self.field_manager.as_str().into();
        }
        options
    }
}

pub fn check_dry_run(values: &[&str], faults: &mut Vec<FieldError>) {
    if values.iter().any(|v| *v != "All") {
        faults.push(FieldError::not_supported("dryRun", &json!(values), &["All"]));
    }
}

/// Without a name for itself a client is known by its program: what stands before the slash.
fn manager_of_agent(call: &Call) -> String {
    let agent = call.header(http::header::USER_AGENT);
    let program = agent.split('/').next().unwrap_or_default();
    if program.is_empty() {
        return "unknown".into();
    }
    program.chars().take(FIELD_MANAGER_MAX).collect()
}
