//! What a user may do.
//!
//! Owns: the question (`Attributes`), the answer (`Decision`) and those who can answer it: Node and RBAC.
//! Called by: the pipeline after authentication, access reviews, impersonation and escalation checks.
//! Never: looks at a request's body.

mod chain;
mod message;
pub mod node;
pub mod node_graph;
pub mod rbac;
pub mod review;
pub mod rule;

pub use chain::Authorizers;
pub use message::{forbidden, forbidden_message};

use minik_api::selector::{FieldRequirement, Requirement};

use crate::authn::UserInfo;

/// One question: may this user do that?
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub user: &'a UserInfo,
    /// API verb (`get`, `list`, `deletecollection`, `proxy`, ...), or the lower-case method of a non-resource request.
    pub verb: &'a str,
    pub target: Target<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    Resource(ResourceTarget<'a>),
    /// A path outside the resources, such as `/healthz`.
    Path(&'a str),
}

#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceTarget<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    /// Empty: cluster scope, or all namespaces.
    pub namespace: &'a str,
    /// Empty where no single object is meant; a list with `metadata.name=x` as its field selector means x.
    pub name: &'a str,
    pub fields: &'a [FieldRequirement],
    pub labels: &'a [Requirement],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    Deny(String),
    /// Nobody objects and nobody agrees: refused unless another authorizer allows it.
    NoOpinion(String),
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
    pub fn reason(&self) -> &str {
        match self {
            Self::Allow(reason) | Self::Deny(reason) | Self::NoOpinion(reason) => reason,
        }
    }
}

/// What a user may do in one namespace, as SelfSubjectRulesReview tells it.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// `authorization/v1 ResourceRule`s.
    pub resource_rules: Vec<serde_json::Value>,
    /// `authorization/v1 NonResourceRule`s.
    pub non_resource_rules: Vec<serde_json::Value>,
    /// Why the lists are not complete; empty when they are.
    pub incomplete: String,
}

/// Answers from memory, so it needs neither to wait nor to fail.
pub trait Authorizer: Send + Sync {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;
    fn rules(&self, user: &UserInfo, namespace: &str) -> Rules;
}

/// Everybody may do everything: `--authorization-mode AlwaysAllow`.
pub struct AlwaysAllow;

impl Authorizer for AlwaysAllow {
    fn authorize(&self, _: &Attributes<'_>) -> Decision {
        Decision::Allow(String::new())
    }
    fn rules(&self, _: &UserInfo, _: &str) -> Rules {
        let all = serde_json::json!(["*"]);
        Rules {
            resource_rules: vec![serde_json::json!({"verbs": all, "apiGroups": all, "resources": all})],
            non_resource_rules: vec![serde_json::json!({"verbs": all, "nonResourceURLs": all})],
            incomplete: String::new(),
        }
    }
}
