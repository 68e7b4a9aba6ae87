//! The user behind a request.
//!
//! Owns: `UserInfo` and the names and groups that Kubernetes itself gives a meaning.
//! Called by: everything that asks who is asking.
//! Never: proves an identity.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// `user.Info` of Kubernetes: what authentication found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    /// Empty when the way of authentication knows none.
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Groups with a meaning.
pub mod groups {
    pub const MASTERS: &str = "system:masters";
    pub const AUTHENTICATED: &str = "system:authenticated";
    pub const UNAUTHENTICATED: &str = "system:unauthenticated";
    pub const NODES: &str = "system:nodes";
    pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
    /// Followed by the namespace.
    pub const SERVICE_ACCOUNTS_OF: &str = "system:serviceaccounts:";
}

/// User names with a meaning.
pub mod names {
    pub const ANONYMOUS: &str = "system:anonymous";
    /// The API server calling itself.
    pub const API_SERVER: &str = "system:apiserver";
    /// Followed by the name of the node.
    pub const NODE: &str = "system:node:";
    /// Followed by `namespace:name`.
    pub const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
}

impl UserInfo {
    pub fn new(name: &str, groups: &[&str]) -> Self {
        Self { name: name.into(), groups: groups.iter().map(ToString::to_string).collect(), ..Self::default() }
    }

    /// The API server's own voice: allowed everything.
    pub fn api_server() -> Self {
        Self::new(names::API_SERVER, &[groups::AUTHENTICATED, groups::MASTERS])
    }

    pub fn anonymous() -> Self {
        Self::new(names::ANONYMOUS, &[groups::UNAUTHENTICATED])
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node this user is, when it is one: both the name and the group must say so.
    pub fn node(&self) -> Option<&str> {
        self.name.strip_prefix(names::NODE).filter(|_| self.in_group(groups::NODES))
    }

    /// Namespace and name, when the user is a service account.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.name.strip_prefix(names::SERVICE_ACCOUNT)?.split_once(':')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
    }

    /// `authentication/v1 UserInfo`, as reviews and admission webhooks carry it.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        for (key, text) in [("username", &self.name), ("uid", &self.uid)] {
            if !text.is_empty() {
                out.insert(key.into(), text.as_str().into());
            }
        }
        if !self.groups.is_empty() {
            out.insert("groups".into(), json!(self.groups));
        }
        if !self.extra.is_empty() {
            out.insert("extra".into(), json!(self.extra));
        }
        Value::Object(out)
    }
}
