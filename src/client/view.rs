//! An immutable snapshot of a cache.
//!
//! Owns: the indexes by key and by owner, as persistent maps, so that a snapshot costs one reference count.
//! Called by: reconcilers and components, to look things up.
//! Never: changes under a reader.

use std::sync::Arc;

use imbl::{HashMap, OrdMap, OrdSet};
use minik_api::{ObjectKey, ResourceId, object};
use serde_json::Value;

use crate::object::Object;

/// A snapshot. Cloning and dropping it are cheap.
#[derive(Clone, Default)]
pub struct View(pub(crate) Arc<Vec<(ResourceId, Store)>>);

/// All cached objects of one resource.
#[derive(Clone, Default)]
pub(crate) struct Store {
    pub(crate) objects: OrdMap<ObjectKey, Arc<Object>>,
    /// Owner's uid -> keys of what it owns.
    owned: HashMap<String, OrdSet<ObjectKey>>,
    /// What no controller owns, and may therefore be adopted.
    orphans: OrdSet<ObjectKey>,
}

impl View {
    /// A view made of given objects: for tests of planners.
    pub fn of(objects: impl IntoIterator<Item = (ResourceId, Value)>) -> View {
        let mut view = View::default();
        for (resource, value) in objects {
            view.store_mut(resource).insert(Arc::new(Object::new(value)));
        }
        view
    }

    pub fn get(&self, r: ResourceId, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.store(r)?.objects.get(&ObjectKey::new(namespace, name))
    }

    pub fn get_key(&self, r: ResourceId, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.store(r)?.objects.get(key)
    }

    /// In order of namespace and name; `namespace` empty means all.
    pub fn list<'a>(&'a self, r: ResourceId, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Object>> + 'a {
        let from = ObjectKey::new(namespace, "");
        self.store(r)
            .into_iter()
            .flat_map(move |store| store.objects.range(from.clone()..))
            .take_while(move |(key, _)| namespace.is_empty() || key.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// What names `uid` in its ownerReferences.
    pub fn owned_by<'a>(&'a self, r: ResourceId, uid: &str) -> impl Iterator<Item = &'a Arc<Object>> + 'a {
        let store = self.store(r);
        let keys = store.and_then(|s| s.owned.get(uid));
        keys.into_iter().flatten().filter_map(move |key| store?.objects.get(key))
    }

    /// What has no controlling owner, in one namespace.
    pub fn orphans<'a>(&'a self, r: ResourceId, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Object>> + 'a {
        let store = self.store(r);
        let from = ObjectKey::new(namespace, "");
        let keys = store.into_iter().flat_map(move |s| s.orphans.range(from.clone()..));
        keys.take_while(move |key| key.namespace == namespace).filter_map(move |key| store?.objects.get(key))
    }

    pub fn count(&self, r: ResourceId) -> usize {
        self.store(r).map_or(0, |s| s.objects.len())
    }

    pub fn resources(&self) -> impl Iterator<Item = ResourceId> + '_ {
        self.0.iter().map(|(resource, _)| *resource)
    }

    pub fn knows(&self, r: ResourceId) -> bool {
        self.store(r).is_some()
    }

    fn store(&self, r: ResourceId) -> Option<&Store> {
        let at = self.0.binary_search_by_key(&r, |(id, _)| *id).ok()?;
        Some(&self.0[at].1)
    }

    pub(crate) fn store_mut(&mut self, r: ResourceId) -> &mut Store {
        let stores = Arc::make_mut(&mut self.0);
        let at = stores.binary_search_by_key(&r, |(id, _)| *id).unwrap_or_else(|at| {
            stores.insert(at, (r, Store::default()));
            at
        });
        &mut stores[at].1
    }

    pub(crate) fn drop_store(&mut self, r: ResourceId) {
        Arc::make_mut(&mut self.0).retain(|(id, _)| *id != r);
    }
}

impl Store {
    pub(crate) fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let key = object.key();
        let old = self.objects.insert(key.clone(), object.clone());
        let same_owners =
            old.as_ref().is_some_and(|o| object::owner_references(o) == object::owner_references(&object));
        if same_owners {
            return old;
        }
        if let Some(old) = &old {
            self.forget_owners(&key, old);
        }
        if object::controller_of(&object).is_none() {
            self.orphans.insert(key.clone());
        }
        for owner in object::owner_references(&object) {
            let uid = owner["uid"].as_str().unwrap_or("");
            self.owned.entry(uid.to_string()).or_default().insert(key.clone());
        }
        old
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) -> Option<Arc<Object>> {
        let old = self.objects.remove(key)?;
        self.forget_owners(key, &old);
        Some(old)
    }

    fn forget_owners(&mut self, key: &ObjectKey, object: &Object) {
        self.orphans.remove(key);
        for owner in object::owner_references(object) {
            let uid = owner["uid"].as_str().unwrap_or("");
            if let Some(keys) = self.owned.get_mut(uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.owned.remove(uid);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PODS: ResourceId = ResourceId::new("", "v1", "pods");

    fn pod(namespace: &str, name: &str, owner: &str) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name, "ownerReferences": [{"uid": owner}]}})
    }
    fn names<'a>(objects: impl Iterator<Item = &'a Arc<Object>>) -> Vec<String> {
        objects.map(|o| o.key().to_string()).collect()
    }

    #[test]
    fn lists_one_namespace_or_all() {
        let view = View::of([(PODS, pod("a", "x", "1")), (PODS, pod("b", "y", "1")), (PODS, pod("aa", "z", "2"))]);
        assert_eq!(names(view.list(PODS, "a")), ["a/x"]);
        assert_eq!(names(view.list(PODS, "")), ["a/x", "aa/z", "b/y"]);
        assert_eq!(names(view.owned_by(PODS, "1")), ["a/x", "b/y"]);
        assert!(view.get(PODS, "aa", "z").is_some());
        assert_eq!(names(view.orphans(PODS, "a")), ["a/x"], "an owner that is not a controller leaves it free");
    }

    #[test]
    fn a_snapshot_stays_what_it_was_and_owners_follow_the_object() {
        let mut view = View::of([(PODS, pod("a", "x", "1"))]);
        let before = view.clone();
        view.store_mut(PODS).insert(Arc::new(Object::new(pod("a", "x", "2"))));
        assert_eq!(names(before.owned_by(PODS, "1")), ["a/x"]);
        assert_eq!(names(view.owned_by(PODS, "1")), [""; 0]);
        assert_eq!(names(view.owned_by(PODS, "2")), ["a/x"]);
        view.store_mut(PODS).remove(&ObjectKey::new("a", "x"));
        assert_eq!(view.count(PODS), 0);
        assert_eq!(before.count(PODS), 1);
    }
}
