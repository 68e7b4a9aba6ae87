//! Deletes what its owners leave behind: background, foreground, orphan.
//!
//! Owns: the graph of owner references, over every resource there is.
//! Called by: the driver, on a cache of the metadata of all resources.
//! Never: deletes because its cache does not know an owner, or lets an owner go because its cache knows of no
//! dependents; the API server is asked first.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{
    Action, Answer, Change, DeleteParams, Object, Patch, Plan, Propagation, Question, Reconciler, View, intern,
};
use serde_json::{Value, json};

use crate::discovery::Watched;
use crate::fields::text;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

pub(crate) struct GarbageCollector {
    pub discovered: Watched,
}

/// Keys of this controller name the resource too: `apps/v1/deployments/web` in the object's namespace.
pub(crate) fn encode(r: ResourceId, key: &ObjectKey) -> ObjectKey {
    ObjectKey::new(&key.namespace, format!("{}/{}/{}/{}", r.group, r.version, r.plural, key.name))
}
fn decode(key: &ObjectKey) -> Option<(ResourceId, ObjectKey)> {
    let mut parts = key.name.splitn(4, '/');
    let (group, version, plural) = (parts.next()?, parts.next()?, parts.next()?);
    let id = ResourceId::new(intern(group), intern(version), intern(plural));
    Some((id, ObjectKey::new(&key.namespace, parts.next()?)))
}

fn has_finalizer(object: &Value, name: &str) -> bool {
    object::finalizers(object).any(|f| f == name)
}

fn awaits_dependents(object: &Value) -> bool {
    object::is_deleting(object) && has_finalizer(object, FOREGROUND)
}

/// Everything that names `uid` as an owner.
fn dependents<'a>(view: &'a View, uid: &'a str) -> impl Iterator<Item = (ResourceId, &'a Object)> + 'a {
    view.resources().flat_map(move |r| view.owned_by(r, uid).map(move |o| (r, o.as_ref())))
}

fn blocks(dependent: &Value, uid: &str) -> bool {
    let blocking = |o: &&Value| o["uid"] == uid && o["blockOwnerDeletion"] == true;
    object::owner_references(dependent).iter().any(|o| blocking(&o))
}

impl Reconciler for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector"
    }
    /// None named: all the cache has.
    fn watches(&self) -> &'static [ResourceId] {
        &[]
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        let mut keys = Vec::new();
        if let Some(new) = &change.new
            && (!object::owner_references(new).is_empty() || object::is_deleting(new))
        {
            keys.push(encode(change.resource, &change.key));
        }
        let old_uid = change.old.as_ref().map_or("", |o| object::uid(o));
        let replaced = change.new.as_ref().is_none_or(|n| object::uid(n) != old_uid);
        if !old_uid.is_empty() && replaced {
            keys.extend(dependents(view, old_uid).map(|(r, o)| encode(r, &o.key())));
        }
        if let Some(new) = change.new.as_ref().filter(|n| awaits_dependents(n)) {
            keys.extend(dependents(view, object::uid(new)).map(|(r, o)| encode(r, &o.key())));
        }
        // An owner in foreground deletion may be waiting for this one.
        if let Some(old) = &change.old {
            keys.extend(self.waiting_owners(view, old));
        }
        keys.sort();
        keys.dedup();
        keys
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some((resource, key)) = decode(key) else { return Plan::nothing() };
        let Some(target) = view.get_key(resource, &key) else { return Plan::nothing() };
        if object::is_deleting(target) {
            if has_finalizer(target, ORPHAN) {
                return self.orphan_dependents(view, resource, target);
            }
            if has_finalizer(target, FOREGROUND) {
                let uid = object::uid(target);
                let blocked = dependents(view, uid).any(|(_, d)| blocks(d, uid));
                return if blocked { Plan::nothing() } else { self.free_if_alone(view, resource, target) };
            }
            return Plan::nothing();
        }
        self.plan_by_owners(view, resource, target)
    }

    /// A kind that becomes known may be that of an owner which has gone before the cache ever had it.
    fn wakes(&self) -> BoxStream<'static, ()> {
        let next = |mut discovered: Watched| async move { discovered.changed().await.ok().map(|()| ((), discovered)) };
        futures::stream::unfold(self.discovered.clone(), next).boxed()
    }

    fn keys_after_wake(&self, view: &View) -> Vec<ObjectKey> {
        let all = view.resources().flat_map(|r| view.list(r, "").map(move |object| (r, object)));
        let lacks_owner = |object: &Object| {
            let mut owners = object::owner_references(object).iter();
            owners.any(|owner| matches!(self.look_up(view, object, owner), Owner::Absent { .. }))
        };
        all.filter(|(_, object)| lacks_owner(object)).map(|(r, object)| encode(r, &object.key())).collect()
    }
}

/// What an owner reference leads to.
enum Owner {
    /// It is there, or its kind is not known, so that nothing can be said.
    Solid,
    Waiting,
    /// The cache does not have it: to be confirmed.
    Absent {
        resource: ResourceId,
        key: ObjectKey,
    },
}

impl GarbageCollector {
    fn waiting_owners(&self, view: &View, dependent: &Object) -> Vec<ObjectKey> {
        let discovered = self.discovered.borrow();
        let owner = |reference: &Value| {
            let known = discovered.by_kind(text(&reference["apiVersion"]), text(&reference["kind"]))?;
            let namespace = if known.namespaced { object::namespace(dependent) } else { "" };
            let owner = view.get(known.id, namespace, text(&reference["name"]))?;
            awaits_dependents(owner).then(|| encode(known.id, &owner.key()))
        };
        object::owner_references(dependent).iter().filter_map(owner).collect()
    }

    fn look_up(&self, view: &View, target: &Object, reference: &Value) -> Owner {
        let discovered = self.discovered.borrow();
        let Some(known) = discovered.by_kind(text(&reference["apiVersion"]), text(&reference["kind"])) else {
            return Owner::Solid;
        };
        let own = object::namespace(target);
        if known.namespaced && own.is_empty() {
            // A cluster-wide object cannot be owned from a namespace: which one is not said.
            return Owner::Solid;
        }
        let key = ObjectKey::new(if known.namespaced { own } else { "" }, text(&reference["name"]));
        match view.get_key(known.id, &key) {
            Some(owner) if reference["uid"] == object::uid(owner) => {
                if awaits_dependents(owner) {
                    Owner::Waiting
                } else {
                    Owner::Solid
                }
            }
            _ => Owner::Absent { resource: known.id, key },
        }
    }

    fn plan_by_owners(&self, view: &View, resource: ResourceId, target: &Object) -> Plan {
        let mut solid = 0;
        let (mut waiting, mut absent, mut confirm) = (Vec::new(), Vec::new(), Vec::new());
        for reference in object::owner_references(target) {
            let uid = text(&reference["uid"]).to_string();
            match self.look_up(view, target, reference) {
                Owner::Solid => solid += 1,
                Owner::Waiting => waiting.push(uid),
                Owner::Absent { resource, key } => {
                    confirm.push(Action::ConfirmGone { resource, key, uid: uid.clone() });
                    absent.push(uid);
                }
            }
        }
        if absent.is_empty() && waiting.is_empty() {
            return Plan::nothing();
        }
        let mut actions = confirm;
        if solid > 0 {
            let gone: Vec<&str> = absent.iter().chain(&waiting).map(String::as_str).collect();
            actions.push(drop_owners(resource, target, &gone));
            return Plan::of(actions);
        }
        let own_uid = object::uid(target);
        let has_dependents = dependents(view, own_uid).next().is_some();
        // In a circle everybody would wait for the next one; upstream takes a dependent that waits itself for the sign of
        // a circle, and lets nobody wait for this one.
        if !waiting.is_empty() && dependents(view, own_uid).any(|(_, d)| awaits_dependents(d)) {
            actions.extend(unblock_owners(resource, target));
        }
        let propagation = if has_finalizer(target, ORPHAN) {
            Propagation::Orphan
        } else if has_finalizer(target, FOREGROUND) || (!waiting.is_empty() && has_dependents) {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        let params = DeleteParams { propagation: Some(propagation), ..DeleteParams::of_uid(own_uid) };
        actions.push(Action::Delete { resource, key: target.key(), params, narration: None });
        Plan::of(actions)
    }

    /// Asks the API server for everything that names the target as its owner, and plans with that. Of a resource that
    /// cannot be listed now, only the cache can tell.
    fn asking_for_dependents(
        &self,
        view: &View,
        target: &Object,
        then: impl FnOnce(Vec<(ResourceId, Arc<Object>)>, Timestamp) -> Plan + Send + 'static,
    ) -> Plan {
        let (namespace, uid) = (object::namespace(target), object::uid(target));
        let resources: Vec<ResourceId> = {
            let discovered = self.discovered.borrow();
            let reachable = |r: &ResourceId| namespace.is_empty() || discovered.by_id(*r).is_some_and(|k| k.namespaced);
            view.resources().filter(reachable).collect()
        };
        let owned_by =
            |r: &ResourceId| Question::OwnedBy { resource: *r, namespace: namespace.into(), uid: uid.into() };
        let questions = resources.iter().map(owned_by).collect();
        let cached: Vec<Vec<Arc<Object>>> =
            resources.iter().map(|r| view.owned_by(*r, uid).cloned().collect()).collect();
        Plan::asking(questions, move |answers, now| {
            let objects = |(answer, cached): (Answer, Vec<Arc<Object>>)| match answer {
                Ok(Value::Array(listed)) => listed.into_iter().map(|o| Arc::new(Object::new(o))).collect(),
                _ => cached,
            };
            let found = answers.into_iter().zip(cached).map(objects);
            let each = resources.into_iter().zip(found).flat_map(|(r, all)| all.into_iter().map(move |o| (r, o)));
            then(each.collect(), now)
        })
    }

    /// The finalizer of a foreground deletion goes once nothing is left that blocks it.
    fn free_if_alone(&self, view: &View, resource: ResourceId, target: &Arc<Object>) -> Plan {
        let owner = target.clone();
        self.asking_for_dependents(view, target, move |dependents, now| {
            let uid = object::uid(&owner);
            if dependents.iter().any(|(_, d)| blocks(d, uid)) {
                return Plan::until_seen(now);
            }
            Plan::of(vec![drop_finalizer(resource, &owner, FOREGROUND)])
        })
    }

    fn orphan_dependents(&self, view: &View, resource: ResourceId, target: &Arc<Object>) -> Plan {
        let owner = target.clone();
        self.asking_for_dependents(view, target, move |dependents, _| {
            let uid = object::uid(&owner);
            let mut actions: Vec<Action> = dependents.iter().map(|(r, d)| drop_owners(*r, d, &[uid])).collect();
            actions.push(drop_finalizer(resource, &owner, ORPHAN));
            Plan::of(actions)
        })
    }
}

fn patch(resource: ResourceId, target: &Object, mut body: Value) -> Action {
    body["metadata"]["uid"] = object::uid(target).into();
    body["metadata"]["resourceVersion"] = object::resource_version(target).into();
    Action::Patch { resource, key: target.key(), sub: "", patch: Patch::Merge(body) }
}

fn drop_owners(resource: ResourceId, target: &Object, uids: &[&str]) -> Action {
    let stays = |o: &&Value| !uids.contains(&text(&o["uid"]));
    let left: Vec<&Value> = object::owner_references(target).iter().filter(stays).collect();
    patch(resource, target, json!({"metadata": {"ownerReferences": left}}))
}

/// None of its owners waits for this one any more.
fn unblock_owners(resource: ResourceId, target: &Object) -> Option<Action> {
    let blocking = |o: &Value| o["blockOwnerDeletion"] == true;
    let mut owners = object::owner_references(target).to_vec();
    if !owners.iter().any(blocking) {
        return None;
    }
    owners.iter_mut().filter(|o| blocking(o)).for_each(|o| o["blockOwnerDeletion"] = false.into());
    // Without a resource version: the deletion that follows names the same uid, and that is all that matters.
    let body = json!({"metadata": {"uid": object::uid(target), "ownerReferences": owners}});
    Some(Action::Patch { resource, key: target.key(), sub: "", patch: Patch::Merge(body) })
}

fn drop_finalizer(resource: ResourceId, target: &Object, name: &str) -> Action {
    let left: Vec<&str> = object::finalizers(target).filter(|f| *f != name).collect();
    patch(resource, target, json!({"metadata": {"finalizers": left}}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::{Discovered, Known};
    use expect_test::{Expect, expect};
    use minik_api::Status;
    use minik_api::resources::{NODES, PODS, REPLICASETS};
    use minik_client::Error;

    fn collector() -> GarbageCollector {
        let known = |id: ResourceId, kind: &str, namespaced| Known { id, kind: kind.into(), namespaced, verbs: vec![] };
        let resources =
            vec![known(PODS, "Pod", true), known(REPLICASETS, "ReplicaSet", true), known(NODES, "Node", false)];
        let all = Discovered { resources, failed: vec![] };
        GarbageCollector { discovered: tokio::sync::watch::channel(Arc::new(all)).1 }
    }
    fn owner(name: &str, uid: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": uid, "blockOwnerDeletion": true})
    }
    fn pod(owners: &[Value]) -> (ResourceId, Value) {
        (PODS, json!({"metadata": {"namespace": "d", "name": "p", "uid": "p", "ownerReferences": owners}}))
    }
    fn set(name: &str, finalizer: &str) -> (ResourceId, Value) {
        let mut set = json!({"metadata": {"namespace": "d", "name": name, "uid": format!("u-{name}")}});
        if !finalizer.is_empty() {
            set["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            set["metadata"]["finalizers"] = json!([finalizer, "x/y"]);
        }
        (REPLICASETS, set)
    }
    fn plan(objects: &[(ResourceId, Value)], of: ResourceId, name: &str) -> Plan {
        let view = View::of(objects.iter().cloned());
        let key = encode(of, &ObjectKey::new("d", name));
        collector().plan(&view, &key, Timestamp::UNIX_EPOCH)
    }
    fn check(objects: &[(ResourceId, Value)], of: ResourceId, name: &str, expected: Expect) {
        expected.assert_eq(&plan(objects, of, name).to_string());
    }
    /// What follows for ReplicaSet `a` when the API server has these Pods, and ReplicaSets cannot be listed.
    fn check_asked(objects: &[(ResourceId, Value)], pods: &[Value], expected: Expect) {
        let plan = plan(objects, REPLICASETS, "a");
        let questions = plan.ask.as_ref().map_or(&[][..], |ask| &ask.questions);
        let unavailable = || Error::Status(Box::new(Status::internal("not now")));
        let answer = |question: &Question| match question {
            Question::OwnedBy { resource: PODS, .. } => Ok(pods.to_vec().into()),
            _ => Err(unavailable()),
        };
        let answers = questions.iter().map(answer).collect();
        expected.assert_eq(&plan.answered(answers, Timestamp::UNIX_EPOCH).to_string());
    }

    fn finalizer_goes() -> Expect {
        expect![[r#"
            patch replicasets d/a {"metadata":{"finalizers":["x/y"]}}
        "#]]
    }

    #[test]
    fn what_has_a_living_owner_stays_and_only_the_dead_reference_goes() {
        check(&[pod(&[owner("a", "u-a")]), set("a", "")], PODS, "p", expect![""]);
        let both = [owner("a", "u-a"), owner("b", "u-b")];
        check(
            &[pod(&both), set("a", "")],
            PODS,
            "p",
            expect![[r#"
            confirm replicasets d/b is gone
            patch pods d/p {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"kind":"ReplicaSet","name":"a","uid":"u-a"}]}}
        "#]],
        );
    }

    #[test]
    fn without_any_owner_left_it_is_deleted_once_the_api_server_confirms() {
        check(
            &[pod(&[owner("a", "u-a")])],
            PODS,
            "p",
            expect![[r#"
            confirm replicasets d/a is gone
            delete pods d/p
        "#]],
        );
        check(
            &[pod(&[owner("a", "old")]), set("a", "")],
            PODS,
            "p",
            expect![[r#"
            confirm replicasets d/a is gone
            delete pods d/p
        "#]],
        );
    }

    /// Regression: an owner that came and went before its kind was known left its dependents behind.
    #[tokio::test]
    async fn once_a_kind_is_known_those_are_looked_at_again_whose_owner_has_gone() {
        let mut collector = collector();
        let all = collector.discovered.borrow().clone();
        let (found, discovered) = tokio::sync::watch::channel(Arc::new(Discovered::default()));
        collector.discovered = discovered;
        let view = View::of([pod(&[owner("a", "u-a")])]);
        let mut wakes = collector.wakes();
        assert_eq!(collector.keys_after_wake(&view), []);
        found.send(all).expect("the collector listens");
        assert_eq!(wakes.next().await, Some(()));
        assert_eq!(collector.keys_after_wake(&view), [encode(PODS, &ObjectKey::new("d", "p"))]);
        assert_eq!(collector.keys_after_wake(&View::of([pod(&[owner("a", "u-a")]), set("a", "")])), []);
    }

    /// Regression: three Pods that own each other in a circle waited for each other for ever.
    #[test]
    fn a_circle_of_owners_is_broken_where_it_closes() {
        let reference =
            |of: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": of, "uid": of, "blockOwnerDeletion": true});
        let pod = |name: &str, owner: &str, deleted: bool| {
            let mut pod = json!({"metadata": {"namespace": "d", "name": name, "uid": name, "ownerReferences": [reference(owner)]}});
            if deleted {
                pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                pod["metadata"]["finalizers"] = json!([FOREGROUND]);
            }
            (PODS, pod)
        };
        let circle = [pod("one", "three", true), pod("two", "one", true), pod("three", "two", false)];
        check(
            &circle,
            PODS,
            "three",
            expect![[r#"
                patch pods d/three {"metadata":{"ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":false,"kind":"Pod","name":"two","uid":"two"}]}}
                delete pods d/three
            "#]],
        );
    }

    #[test]
    fn an_owner_of_unknown_kind_keeps_its_dependents() {
        let strange = json!({"apiVersion": "x.io/v1", "kind": "Widget", "name": "w", "uid": "1"});
        check(&[pod(&[strange])], PODS, "p", expect![""]);
    }

    #[test]
    fn foreground_deletes_dependents_first_and_the_finalizer_last() {
        let objects = [pod(&[owner("a", "u-a")]), set("a", FOREGROUND)];
        check(&objects, REPLICASETS, "a", expect![""]);
        check(
            &objects,
            PODS,
            "p",
            expect![[r#"
            delete pods d/p
        "#]],
        );
        check_asked(&objects[1..], &[], finalizer_goes());
        let unseen = pod(&[owner("a", "u-a")]).1;
        check_asked(
            &[objects[1].clone(), pod(&[])],
            &[unseen],
            expect![[r#"
                again at 1970-01-01T00:00:05Z
            "#]],
        );
    }

    /// Regression: what one watch had not shown yet when another showed its owner's end stayed owned, and was collected.
    #[test]
    fn orphan_frees_what_the_api_server_has_and_then_the_finalizer() {
        let owned = pod(&[owner("a", "u-a")]);
        let objects = [owned.clone(), set("a", ORPHAN), (NODES, json!({"metadata": {"name": "n"}}))];
        check(
            &objects,
            REPLICASETS,
            "a",
            expect![[r#"
            ask what u-a owns of pods in d
            ask what u-a owns of replicasets in d
        "#]],
        );
        check_asked(
            &[objects[1].clone(), pod(&[])],
            &[owned.1],
            expect![[r#"
                patch pods d/p {"metadata":{"ownerReferences":[]}}
                patch replicasets d/a {"metadata":{"finalizers":["x/y"]}}
            "#]],
        );
        check_asked(&objects, &[], finalizer_goes());
    }

    #[test]
    fn of_what_cannot_be_listed_the_cache_knows() {
        let mut owned = set("b", "");
        owned.1["metadata"]["ownerReferences"] = json!([owner("a", "u-a")]);
        check_asked(
            &[owned, set("a", ORPHAN)],
            &[],
            expect![[r#"
            patch replicasets d/b {"metadata":{"ownerReferences":[]}}
            patch replicasets d/a {"metadata":{"finalizers":["x/y"]}}
        "#]],
        );
    }
}
