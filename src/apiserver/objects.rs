//! How the parts of the API server read what is stored and write back, without HTTP to themselves.
//!
//! Owns: the two doors between the pipeline and those who decide inside it (authentication, authorization, admission).
//! Called by: token checks, the RBAC and node indices, admission plugins, the reconciler of the default policy.
//! Never: authorizes; whoever calls here is the API server itself.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use minik_api::{ObjectKey, ResourceId, Status};
use minik_store::Revision;
use serde_json::{Value, json};

/// Stored objects as they are now.
pub trait Objects: Send + Sync {
    fn get(&self, resource: ResourceId, namespace: &str, name: &str) -> Option<Arc<Value>>;
    /// `namespace` "" lists all.
    fn list(&self, resource: ResourceId, namespace: &str) -> Vec<Arc<Value>>;
    /// Objects of a kind that is known by name only, custom resources included; `None` when there is no such kind.
    fn list_kind(&self, api_version: &str, kind: &str, namespace: &str) -> Option<KindList>;
    /// What is there, then every change after it, in order.
    fn follow(&self, resource: ResourceId) -> Follow {
        self.follow_where(resource, |_| true)
    }
    /// As `follow`; an object whose stored bytes are not wanted is as if it were not there, and costs no decoding.
    fn follow_where(&self, resource: ResourceId, wanted: fn(&[u8]) -> bool) -> Follow;
}

/// Objects of one kind.
pub struct KindList {
    pub namespaced: bool,
    pub objects: Vec<Arc<Value>>,
}

pub struct Follow {
    pub initial: Vec<Arc<Value>>,
    /// When that was what there is.
    pub revision: Revision,
    /// Ends when the follower was too slow or the server stops; a slow follower asks for a new `Follow`.
    pub changes: BoxStream<'static, Change>,
}

#[derive(Clone, Debug)]
pub enum Change {
    Put(Arc<Value>),
    /// The last state.
    Delete(Arc<Value>),
}

impl Change {
    /// The end of an object of which nothing but its name is remembered.
    pub fn gone(kind: &str, key: &ObjectKey) -> Change {
        let metadata = json!({"name": key.name, "namespace": key.namespace});
        Change::Delete(Arc::new(json!({"kind": kind, "metadata": metadata})))
    }
}

/// Requests of the API server to itself, as `system:apiserver`, through the whole pipeline.
#[async_trait]
pub trait Loopback: Send + Sync {
    /// `path` with its query; a `body` of a PATCH is a merge patch.
    async fn call(&self, method: http::Method, path: &str, body: Option<&Value>) -> Result<Value, Status>;

    /// Server-side apply by a manager of fields, who takes what others hold.
    async fn apply(&self, path: &str, manager: &str, body: &Value) -> Result<Value, Status>;
}

#[cfg(test)]
pub mod fixture {
    //! Objects that only a test knows.

    use futures::StreamExt;
    use minik_api::{object, registry};

    use super::*;

    #[derive(Default)]
    pub struct Fixture(pub parking_lot::RwLock<Vec<Arc<Value>>>);

    impl Fixture {
        pub fn of(objects: Vec<Value>) -> Self {
            Self(parking_lot::RwLock::new(objects.into_iter().map(Arc::new).collect()))
        }
    }

    fn is(object: &Value, resource: ResourceId) -> bool {
        let row = registry::by_id(resource).expect("a constant names a row");
        object["kind"] == *row.kind
    }

    impl Objects for Fixture {
        fn get(&self, resource: ResourceId, namespace: &str, name: &str) -> Option<Arc<Value>> {
            self.list(resource, namespace).into_iter().find(|o| object::name(o) == name)
        }
        fn list(&self, resource: ResourceId, namespace: &str) -> Vec<Arc<Value>> {
            let all = self.0.read();
            let fits = |o: &&Arc<Value>| is(o, resource) && (namespace.is_empty() || object::namespace(o) == namespace);
            all.iter().filter(fits).cloned().collect()
        }
        fn list_kind(&self, api_version: &str, kind: &str, namespace: &str) -> Option<KindList> {
            let (group, version) = registry::split_api_version(api_version);
            let row = registry::by_kind(group, version, kind)?;
            let objects = row.id().map(|id| self.list(id, namespace)).unwrap_or_default();
            Some(KindList { namespaced: row.is_namespaced(), objects })
        }
        fn follow_where(&self, resource: ResourceId, _: fn(&[u8]) -> bool) -> Follow {
            Follow {
                initial: self.list(resource, ""),
                revision: Revision(0),
                changes: futures::stream::pending().boxed(),
            }
        }
    }
}
