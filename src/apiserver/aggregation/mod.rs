//! API groups that other servers serve behind this one, and the APIServices that say so for every group.
//!
//! Owns: which group versions those are at this moment, and everything this server does about them: the relay, the
//! check whether they can be reached, what of their discovery and OpenAPI is shown, the APIServices of its own groups.
//! Called by: the pipeline, which asks first whether a path belongs to another server; discovery; OpenAPI.
//! Never: serves an object of such a group itself.

mod ask;
mod attend;
mod availability;
mod backend;
mod follow;
mod local;
pub mod merged;
pub mod openapi;
pub mod order;
mod published;
pub mod relay;

pub use availability::{born, metrics};
pub use backend::Backend;
pub use follow::{register, start};

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::config::KeyPair;

/// By group and version.
pub type Backends = BTreeMap<(String, String), Arc<Backend>>;

pub struct Aggregation {
    backends: ArcSwap<Backends>,
    identity: Option<KeyPair>,
    catalog_changed: Notify,
}

impl Aggregation {
    /// `identity`: the front proxy's certificate, by which the servers behind believe what they are told.
    pub fn new(identity: Option<KeyPair>) -> Self {
        Self { backends: ArcSwap::default(), identity, catalog_changed: Notify::new() }
    }

    pub fn backends(&self) -> Arc<Backends> {
        self.backends.load_full()
    }

    /// Who serves this path, if it is not this server: `/apis/GROUP/VERSION` and all below it.
    pub fn of_path(&self, path: &str) -> Option<Arc<Backend>> {
        let backends = self.backends.load();
        if backends.is_empty() {
            return None;
        }
        let mut pieces = path.strip_prefix("/apis/")?.splitn(3, '/');
        let (group, version) = (pieces.next()?, pieces.next()?);
        backends.get(&(group.to_string(), version.to_string())).cloned()
    }

    /// To be told whenever custom resources appear or disappear.
    pub fn catalog_changed(&self) {
        self.catalog_changed.notify_one();
    }
}
