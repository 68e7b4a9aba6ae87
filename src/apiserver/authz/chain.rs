//! Those who may allow, in the order they are asked: masters, the Node authorizer, RBAC.
//!
//! Owns: the order, and keeping the indices of both up to date with the store.
//! Called by: the pipeline for each request, reviews, checks inside admission.
//! Never: caches a decision: an answer from the indices is cheaper than a cache would be.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use minik_api::{ObjectKey, ResourceId, object, registry};
use minik_store::Revision;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::node::NodeAuthorizer;
use super::rbac::{self, Rbac};
use super::{Attributes, Authorizer, Decision, Rules, node_graph, rule::Rule};
use crate::authn::{UserInfo, groups};
use crate::objects::{Change, Follow, Objects};

/// Whether an index has a use for an object with these stored bytes.
pub type Wanted = fn(&[u8]) -> bool;

pub struct Authorizers {
    node: NodeAuthorizer,
    rbac: Rbac,
    /// Up to which write RBAC knows each of its resources.
    known: HashMap<ResourceId, watch::Sender<Revision>>,
    cancel: CancellationToken,
}

impl Authorizers {
    /// Fills the indices before it returns and keeps them up to date until `cancel`.
    pub fn start(
        objects: &Arc<dyn Objects>,
        node_rules: Vec<Rule>,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Arc<Self> {
        let this = Arc::new(Self {
            node: NodeAuthorizer::new(objects.clone(), node_rules),
            rbac: Rbac::default(),
            known: rbac::FOLLOWED.into_iter().map(|resource| (resource, watch::Sender::default())).collect(),
            cancel: cancel.clone(),
        });
        for resource in rbac::FOLLOWED {
            let (of_change, of_all) = (this.clone(), this.clone());
            let apply = move |change: &Change| {
                of_change.rbac.apply(change);
                let (Change::Put(object) | Change::Delete(object)) = change;
                of_change.note(resource, object::resource_version(object).parse().unwrap_or_default());
            };
            let caught_up = move |revision| of_all.note(resource, revision);
            follow(objects, (resource, |_| true), tasks, cancel, apply, caught_up);
        }
        for followed in node_graph::FOLLOWED {
            let this = this.clone();
            follow(objects, followed, tasks, cancel, move |change| this.node.apply(change), |_| {});
        }
        this
    }

    /// RBAC knows this resource up to that write.
    fn note(&self, resource: ResourceId, revision: Revision) {
        if let Some(known) = self.known.get(&resource) {
            known.send_if_modified(|known| std::mem::replace(known, revision.max(*known)) < revision);
        }
    }

    /// Waits until what was written of a resource holds for the next request, whoever sends it.
    pub async fn in_force(&self, resource: ResourceId, written: Revision) {
        let Some(known) = self.known.get(&resource) else { return };
        let mut known = known.subscribe();
        tokio::select! {
            _ = known.wait_for(|known| *known >= written) => {}
            () = self.cancel.cancelled() => {}
        }
    }

    /// For the check against escalation.
    pub fn rbac(&self) -> &Rbac {
        &self.rbac
    }
}

/// Applies what is there now, then spawns a task that applies what changes.
fn follow(
    objects: &Arc<dyn Objects>,
    (resource, wanted): (ResourceId, Wanted),
    tasks: &TaskTracker,
    cancel: &CancellationToken,
    apply: impl Fn(&Change) + Send + Sync + 'static,
    caught_up: impl Fn(Revision) + Send + Sync + 'static,
) {
    let kind = registry::by_id(resource).map_or("", |row| &*row.kind);
    let Follow { initial, revision, mut changes } = objects.follow_where(resource, wanted);
    // Names only: ten thousand Pods as trees are several hundred megabytes.
    let mut known: HashSet<ObjectKey> = initial.iter().map(|o| ObjectKey::of(o)).collect();
    initial.into_iter().for_each(|object| apply(&Change::Put(object)));
    caught_up(revision);
    let (objects, cancel) = (objects.clone(), cancel.clone());
    tasks.spawn(async move {
        loop {
            let change = tokio::select! {
                () = cancel.cancelled() => return,
                change = changes.next() => change,
            };
            match change {
                Some(change) => {
                    match &change {
                        Change::Put(object) => known.insert(ObjectKey::of(object)),
                        Change::Delete(object) => known.remove(&ObjectKey::of(object)),
                    };
                    apply(&change);
                }
                // Fell behind: start anew, and forget what has gone meanwhile.
                None => {
                    let again = objects.follow_where(resource, wanted);
                    let now: HashSet<ObjectKey> = again.initial.iter().map(|o| ObjectKey::of(o)).collect();
                    known.difference(&now).for_each(|key| apply(&Change::gone(kind, key)));
                    again.initial.into_iter().for_each(|object| apply(&Change::Put(object)));
                    caught_up(again.revision);
                    known = now;
                    changes = again.changes;
                    // A stream that ends at once, over and over, must not spin.
                    tokio::task::yield_now().await;
                }
            }
        }
    });
}

impl Authorizer for Authorizers {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.in_group(groups::MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut reasons = Vec::new();
        for (name, authorizer) in [("node", &self.node as &dyn Authorizer), ("rbac", &self.rbac)] {
            match authorizer.authorize(attributes) {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(format!("{name}: {reason}")),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let mut all = self.node.rules(user, namespace);
        let rbac = self.rbac.rules(user, namespace);
        all.resource_rules.extend(rbac.resource_rules);
        all.non_resource_rules.extend(rbac.non_resource_rules);
        if all.incomplete.is_empty() {
            all.incomplete = rbac.incomplete;
        } else if !rbac.incomplete.is_empty() {
            all.incomplete = format!("[{}, {}]", all.incomplete, rbac.incomplete);
        }
        all
    }
}
