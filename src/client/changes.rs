//! What changed in a cache, for one listener.
//!
//! Owns: the listener's queue: coalesced by key, so it is never longer than the objects there are.
//! Called by: the cache, which pushes; drivers and components, which receive.
//! Never: drops the last state of an object.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use minik_api::{ObjectKey, ResourceId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::object::Object;

/// From what the listener saw last to what is now. An object deleted and made again between two receives comes as
/// one change whose `old` and `new` have different uids.
#[derive(Clone, Debug)]
pub struct Change {
    pub resource: ResourceId,
    pub key: ObjectKey,
    pub old: Option<Arc<Object>>,
    pub new: Option<Arc<Object>>,
}

impl Change {
    /// The newest state known: `new`, or what was deleted.
    pub fn object(&self) -> &Arc<Object> {
        self.new.as_ref().or(self.old.as_ref()).expect("a change has at least one side")
    }
    /// Both sides there are, old first.
    pub fn sides(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.old.iter().chain(self.new.iter())
    }
}

pub struct ChangeReceiver(pub(crate) Arc<Listener>);

impl ChangeReceiver {
    /// The next change; waits for one.
    pub async fn recv(&mut self) -> Change {
        loop {
            // Registered before looking, so that a push between the look and the wait is not missed.
            let woken = self.0.notify.notified();
            if let Some(change) = self.0.pending.lock().pop() {
                return change;
            }
            woken.await;
        }
    }
    pub fn try_recv(&mut self) -> Option<Change> {
        self.0.pending.lock().pop()
    }
}

pub(crate) struct Listener {
    /// Empty = every resource.
    resources: Vec<ResourceId>,
    pending: Mutex<Pending>,
    notify: Notify,
}

/// None: absent.
type Side = Option<Arc<Object>>;

#[derive(Default)]
struct Pending {
    order: VecDeque<(ResourceId, ObjectKey)>,
    sides: HashMap<(ResourceId, ObjectKey), (Side, Side)>,
}

impl Listener {
    pub(crate) fn new(resources: &[ResourceId]) -> Listener {
        Listener { resources: resources.to_vec(), pending: Mutex::default(), notify: Notify::new() }
    }
    pub(crate) fn push(&self, change: &Change) {
        if self.resources.is_empty() || self.resources.contains(&change.resource) {
            self.pending.lock().push(change);
            self.notify.notify_one();
        }
    }
}

impl Pending {
    fn push(&mut self, change: &Change) {
        let at = (change.resource, change.key.clone());
        match self.sides.get_mut(&at) {
            Some((old, new)) => {
                new.clone_from(&change.new);
                if old.is_none() && new.is_none() {
                    self.sides.remove(&at);
                }
            }
            None => {
                self.sides.insert(at.clone(), (change.old.clone(), change.new.clone()));
                self.order.push_back(at);
            }
        }
    }

    fn pop(&mut self) -> Option<Change> {
        while let Some(at) = self.order.pop_front() {
            // Absent: added and deleted again before anyone looked.
            if let Some((old, new)) = self.sides.remove(&at) {
                return Some(Change { resource: at.0, key: at.1, old, new });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PODS: ResourceId = ResourceId::new("", "v1", "pods");

    fn change(name: &str, old: i64, new: i64) -> Change {
        let side = |n: i64| (n != 0).then(|| Arc::new(Object::new(json!({"n": n}))));
        Change { resource: PODS, key: ObjectKey::new("", name), old: side(old), new: side(new) }
    }
    fn drain(listener: &Arc<Listener>) -> Vec<String> {
        let mut receiver = ChangeReceiver(listener.clone());
        let side = |o: Option<Arc<Object>>| o.map_or(0, |o| o["n"].as_i64().unwrap());
        std::iter::from_fn(|| receiver.try_recv())
            .map(|c| format!("{} {}->{}", c.key, side(c.old), side(c.new)))
            .collect()
    }

    #[test]
    fn changes_of_one_key_become_one_from_the_first_old_to_the_last_new() {
        let listener = Arc::new(Listener::new(&[]));
        for c in [change("a", 0, 1), change("b", 5, 6), change("a", 1, 2), change("b", 6, 0)] {
            listener.push(&c);
        }
        assert_eq!(drain(&listener), ["a 0->2", "b 5->0"]);
    }

    #[test]
    fn what_came_and_went_unseen_is_no_change_but_what_came_back_is_one() {
        let listener = Arc::new(Listener::new(&[]));
        for c in [change("a", 0, 1), change("a", 1, 0)] {
            listener.push(&c);
        }
        assert_eq!(drain(&listener), [""; 0]);
        for c in [change("a", 0, 1), change("a", 1, 0), change("a", 0, 3), change("b", 1, 2)] {
            listener.push(&c);
        }
        assert_eq!(drain(&listener), ["a 0->3", "b 1->2"]);
    }

    #[test]
    fn a_listener_hears_only_its_resources() {
        let listener = Arc::new(Listener::new(&[ResourceId::new("", "v1", "nodes")]));
        listener.push(&change("a", 0, 1));
        assert_eq!(drain(&listener), [""; 0]);
    }
}
