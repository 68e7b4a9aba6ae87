//! An object in a cache: its JSON tree and, on demand, its typed views.
//!
//! Owns: the pairing of a tree with the views parsed from it, and the names of resources known only at run time.
//! Called by: everything that reads from a `View`.
//! Never: changes the tree; a new version is a new `Object`.

use std::any::Any;
use std::collections::HashSet;
use std::ops::Deref;
use std::sync::{LazyLock, OnceLock};

use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::DecodeError;

/// A JSON tree with its typed views, each parsed once. `Deref` reads the tree.
pub struct Object {
    value: Value,
    views: OnceLock<Box<TypedView>>,
}

/// A short chain: most objects are only ever read as one type.
struct TypedView {
    view: Box<dyn Any + Send + Sync>,
    next: OnceLock<Box<TypedView>>,
}

impl Object {
    pub fn new(value: Value) -> Object {
        Object { value, views: OnceLock::new() }
    }
    pub fn value(&self) -> &Value {
        &self.value
    }
    pub fn into_value(self) -> Value {
        self.value
    }
    pub fn key(&self) -> minik_api::ObjectKey {
        minik_api::ObjectKey::of(&self.value)
    }

    /// The typed view, parsed at the first call. Fields the type does not know are not in it, so write trees, not views.
    pub fn typed<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<&T, DecodeError> {
        let mut slot = &self.views;
        loop {
            if let Some(node) = slot.get() {
                if let Some(view) = node.view.downcast_ref::<T>() {
                    return Ok(view);
                }
                slot = &node.next;
                continue;
            }
            let parsed: T = T::deserialize(&self.value)?;
            // Losing a race to another type leaves its node here; the loop then goes on to the next slot.
            let _ = slot.set(Box::new(TypedView { view: Box::new(parsed), next: OnceLock::new() }));
        }
    }
}

impl Deref for Object {
    type Target = Value;
    fn deref(&self) -> &Value {
        &self.value
    }
}

impl From<Value> for Object {
    fn from(value: Value) -> Self {
        Object::new(value)
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.value.fmt(f)
    }
}

/// Makes a name that discovery found as long-lived as those written in code, as `ResourceId` wants it.
/// Each distinct name is kept once; they are as many as there are resources in the cluster.
pub fn intern(name: &str) -> &'static str {
    static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut names = NAMES.lock();
    if let Some(known) = names.get(name) {
        return known;
    }
    let kept: &'static str = Box::leak(name.to_string().into_boxed_str());
    names.insert(kept);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};
    use serde_json::json;

    #[test]
    fn a_typed_view_is_parsed_once_for_each_type() {
        let object = Object::new(json!({"metadata": {"name": "a"}, "data": {"k": "v"}}));
        let first: *const ConfigMap = object.typed::<ConfigMap>().unwrap();
        assert_eq!(object.typed::<Pod>().unwrap().metadata.name.as_deref(), Some("a"));
        assert!(std::ptr::eq(first, object.typed::<ConfigMap>().unwrap()));
    }

    #[test]
    fn an_interned_name_is_the_same_static_text() {
        assert!(std::ptr::eq(intern("widgets"), intern(&String::from("widgets"))));
    }
}
