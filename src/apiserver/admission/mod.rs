//! What a write must still pass after authorization: plugins that complete it, then plugins that judge it.
//!
//! Owns: the admission plugins, one file each, their order, webhooks and admission policies.
//! Called by: the pipeline, for create, update, delete and connect, with the object decoded and defaulted.
//! Never: stores an object; it sees the object before the store does.

mod asking;
mod certificate_contents;
pub mod certificates;
mod chain;
mod claim_resize;
mod default_ingress_class;
mod default_storage_class;
mod default_toleration_seconds;
mod expression;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod plugin;
mod pod_certificate;
mod pod_security;
mod pod_topology_labels;
mod policy;
mod priority;
mod rbac_escalation;
mod resource_quota;
mod rules;
mod runtime_class;
mod service_account;
mod storage_in_use;
mod taint_nodes;
pub mod webhook;

pub use certificate_contents::faults as certificate_faults;
pub use chain::Admissions;
pub use policy::{faults as policy_faults, webhook_faults};

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use minik_api::Status;
use minik_api::registry::GroupVersionKind;
use parking_lot::Mutex;
use serde_json::Value;

use crate::authn::UserInfo;
use crate::call::WriteOptions;
use crate::catalog::Served;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As webhooks and their rules spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// What a request asks besides its object.
#[derive(Clone, Debug)]
pub enum Options {
    Write(WriteOptions),
    /// `DeleteOptions`, as they were sent.
    Delete(Value),
    /// A connect has none.
    None,
}

impl Options {
    /// With `kind` and `apiVersion`.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Write(options) => options.to_json(),
            Self::Delete(options) => options.clone(),
            Self::None => Value::Null,
        }
    }
}

/// One write on its way into the store.
pub struct Review {
    pub user: Arc<UserInfo>,
    pub operation: Operation,
    /// Kind of `object`; for a subresource the kind of its body (`Eviction`, `Scale`, `PodExecOptions`).
    pub kind: GroupVersionKind,
    pub group: String,
    pub version: String,
    pub resource: String,
    /// Empty for the resource itself.
    pub subresource: String,
    /// Empty for cluster scope.
    pub namespace: String,
    /// Empty for a create whose name is generated later.
    pub name: String,
    /// `Null` for a delete.
    pub object: Value,
    /// What is stored now; `Null` for a create.
    pub old: Arc<Value>,
    /// A policy or a webhook wrote into `object` what nobody has read into its type yet.
    pub rewritten: bool,
    pub options: Options,
    pub dry_run: bool,
    /// Texts of `Warning` headers, in the order they came up.
    pub warnings: Mutex<Vec<String>>,
    /// What the audit log is told besides the request.
    pub annotations: Mutex<BTreeMap<String, String>>,
    /// The resource, when it is a custom one and `object` is its whole object.
    pub served: Option<Arc<Served>>,
}

impl Review {
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Tells the audit log; the first word on a key counts.
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        self.annotations.lock().entry(key.into()).or_insert_with(|| value.into());
    }

    /// Whether the write is to this resource and subresource, whatever its version.
    pub fn is(&self, group: &str, resource: &str, subresource: &str) -> bool {
        self.group == group && self.resource == resource && self.subresource == subresource
    }

    /// `pods` or `deployments.apps`, as messages name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.clone() } else { format!("{}.{}", self.resource, self.group) }
    }

    /// The 403 that a plugin refuses with.
    pub fn forbid(&self, why: &str) -> Status {
        Status::forbidden(&self.qualified(), &self.name, why)
    }
}

/// All of admission, as the pipeline sees it.
#[async_trait]
pub trait Admission: Send + Sync {
    /// May change `review.object`. Runs before validation; for a delete or a connect `object` has nothing to change.
    async fn mutate(&self, review: &mut Review) -> Result<(), Status>;
    /// Sees the object as it will be stored.
    async fn validate(&self, review: &Review) -> Result<(), Status>;
}

/// No plugin at all.
pub struct AlwaysAdmit;

#[async_trait]
impl Admission for AlwaysAdmit {
    async fn mutate(&self, _: &mut Review) -> Result<(), Status> {
        Ok(())
    }
    async fn validate(&self, _: &Review) -> Result<(), Status> {
        Ok(())
    }
}

#[cfg(test)]
mod fixture {
    //! Reviews and a world that only tests know.

    use minik_api::{object, registry};

    use super::plugin::World;
    use super::*;
    use crate::authz::AlwaysAllow;
    use crate::objects::fixture::Fixture;

    pub fn world(objects: Vec<Value>) -> World {
        World { objects: Arc::new(Fixture::of(objects)), authorizer: Arc::new(AlwaysAllow) }
    }

    /// A write of `object` by an administrator.
    pub fn review(operation: Operation, object: Value) -> Review {
        let (group, version) = registry::split_api_version(object["apiVersion"].as_str().expect("test"));
        let kind = object["kind"].as_str().expect("test");
        let row = registry::by_kind(group, version, kind).expect("test");
        Review {
            user: Arc::new(UserInfo::api_server()),
            operation,
            kind: row.kind(),
            group: group.into(),
            version: version.into(),
            resource: row.plural.to_string(),
            subresource: String::new(),
            namespace: object::namespace(&object).into(),
            name: object::name(&object).into(),
            object,
            old: Arc::new(Value::Null),
            rewritten: false,
            options: Options::None,
            dry_run: false,
            warnings: Mutex::default(),
            annotations: Mutex::default(),
            served: None,
        }
    }
}
