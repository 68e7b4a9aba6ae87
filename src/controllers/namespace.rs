//! The end of a Namespace: everything in it goes, then the Namespace.
//!
//! Owns: the order of deletion, the conditions that say what is left, the finalizer `kubernetes`.
//! Called by: the driver, on a cache of the metadata of all resources; every resource is known by discovery.
//! Never: finishes while the API server still has something in the Namespace.

use std::collections::BTreeMap;

use jiff::Timestamp;
use minik_api::resources::{NAMESPACES, PODS};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Object, Plan, Reconciler, View};
use serde_json::{Value, json};

use crate::conditions::{self, Repeat};
use crate::discovery::{Discovered, Known, Watched};
use crate::fields::{list, seconds};

const FINALIZER: &str = "kubernetes";
/// Looked at again even if nothing is seen to change: what the cache does not cover may have.
const AGAIN_SECONDS: i64 = 5;

pub(crate) struct NamespaceEnd {
    pub discovered: Watched,
    /// Full Namespaces; the driver's own cache has only metadata.
    pub namespaces: minik_client::Cache,
}

impl Reconciler for NamespaceEnd {
    fn name(&self) -> &'static str {
        "namespace"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[]
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        let name = if change.resource == NAMESPACES { &change.key.name } else { &change.key.namespace };
        let ending = view.get(NAMESPACES, "", name).is_some_and(|n| object::is_deleting(n));
        if ending { vec![ObjectKey::new("", name)] } else { Vec::new() }
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let full = self.namespaces.view();
        let Some(namespace) = full.get_key(NAMESPACES, key) else { return Plan::nothing() };
        if view.get_key(NAMESPACES, key).is_some_and(|n| object::is_deleting(n)) && !object::is_deleting(namespace) {
            // The other cache is ahead; this one will follow in a moment.
            return Plan { requeue_at: Some(now + jiff::SignedDuration::from_millis(20)), ..Plan::nothing() };
        }
        plan_end(view, namespace, &self.discovered.borrow(), now)
    }
}

fn plan_end(view: &View, namespace: &Object, discovered: &Discovered, now: Timestamp) -> Plan {
    let finalizers: Vec<&str> = list(&namespace["spec"]["finalizers"]).iter().filter_map(Value::as_str).collect();
    if !object::is_deleting(namespace) || !finalizers.contains(&FINALIZER) {
        return Plan::nothing();
    }
    let name = object::name(namespace);
    let deletable = |k: &&Known| k.namespaced && k.can("delete") && k.can("list");
    let resources: Vec<&Known> = discovered.resources.iter().filter(deletable).collect();
    let left: Vec<(&Known, Vec<&Object>)> = resources
        .iter()
        .map(|k| (*k, view.list(k.id, name).map(|o| o.as_ref()).collect::<Vec<_>>()))
        .filter(|(_, objects)| !objects.is_empty())
        .collect();
    let mut plan = Plan::nothing();
    if left.is_empty() && discovered.failed.is_empty() {
        for known in &resources {
            plan.push(Action::DeleteCollection { resource: known.id, namespace: name.into() });
        }
        for known in &resources {
            plan.push(Action::ConfirmEmpty { resource: known.id, namespace: name.into() });
        }
        plan.push(finalize(namespace, &finalizers));
        plan.requeue_at = Some(now + seconds(AGAIN_SECONDS));
        return plan;
    }
    let pods_left = left.iter().any(|(known, _)| known.id == PODS);
    for (known, objects) in &left {
        // Pods first (KEP-5080): what they rely on, such as a NetworkPolicy, outlives them.
        let turn = known.id == PODS || !pods_left;
        if turn && objects.iter().any(|o| !object::is_deleting(o)) {
            plan.push(Action::DeleteCollection { resource: known.id, namespace: name.into() });
        }
    }
    let status = status(namespace, &left, discovered, now);
    plan.actions.extend(Action::set_status(NAMESPACES, namespace, &status));
    plan.requeue_at = Some(now + seconds(AGAIN_SECONDS));
    plan
}

fn finalize(namespace: &Object, finalizers: &[&str]) -> Action {
    let mut body = namespace.value().clone();
    body["spec"]["finalizers"] = finalizers.iter().filter(|f| **f != FINALIZER).copied().collect::<Vec<_>>().into();
    let difference = json!({"spec": {"finalizers": body["spec"]["finalizers"]}});
    Action::Replace { resource: NAMESPACES, sub: "finalize", body, difference }
}

fn status(namespace: &Object, left: &[(&Known, Vec<&Object>)], discovered: &Discovered, now: Timestamp) -> Value {
    let mut status = namespace["status"].clone();
    status["phase"] = "Terminating".into();
    let mut set = |kind: &str, value: bool, reason: &str, message: String| {
        let value = if value { "True" } else { "False" };
        conditions::set(&mut status, kind, value, reason, &message, now, Repeat::Updates);
    };
    if discovered.failed.is_empty() {
        let message = "All resources successfully discovered".into();
        set("NamespaceDeletionDiscoveryFailure", false, "ResourcesDiscovered", message);
    } else {
        let message = format!(
            "Discovery failed for some groups, {} failing: {}",
            discovered.failed.len(),
            discovered.failed.join(", ")
        );
        set("NamespaceDeletionDiscoveryFailure", true, "DiscoveryFailed", message);
    }
    let message = "All legacy kube types successfully parsed".into();
    set("NamespaceDeletionGroupVersionParsingFailure", false, "ParsedGroupVersions", message);
    let message = "All content successfully deleted, may be waiting on finalization".into();
    set("NamespaceDeletionContentFailure", false, "ContentDeleted", message);
    let texts: Vec<String> = left
        .iter()
        .map(|(k, objects)| {
            let id = if k.id.group.is_empty() { format!("{}.", k.id.plural) } else { k.id.qualified() };
            format!("{id} has {} resource instances", objects.len())
        })
        .collect();
    if texts.is_empty() {
        set("NamespaceContentRemaining", false, "ContentRemoved", "All content successfully removed".into());
    } else {
        let message = format!("Some resources are remaining: {}", texts.join(", "));
        set("NamespaceContentRemaining", true, "SomeResourcesRemain", message);
    }
    let mut held: BTreeMap<&str, usize> = BTreeMap::new();
    for finalizer in left.iter().flat_map(|(_, objects)| objects).flat_map(|o| object::finalizers(o)) {
        *held.entry(finalizer).or_default() += 1;
    }
    if held.is_empty() {
        let message = "All content-preserving finalizers finished".into();
        set("NamespaceFinalizersRemaining", false, "ContentHasNoFinalizers", message);
    } else {
        let texts: Vec<String> = held.iter().map(|(f, n)| format!("{f} in {n} resource instances")).collect();
        let message = format!("Some content in the namespace has finalizers remaining: {}", texts.join(", "));
        set("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", message);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use minik_api::resources::{CONFIGMAPS, NODES};

    fn discovered() -> Discovered {
        let verbs = || vec!["list".to_string(), "delete".into()];
        let known = |id, kind: &str, namespaced| Known { id, kind: kind.into(), namespaced, verbs: verbs() };
        let resources =
            vec![known(PODS, "Pod", true), known(CONFIGMAPS, "ConfigMap", true), known(NODES, "Node", false)];
        Discovered { resources, failed: vec![] }
    }
    fn namespace() -> Object {
        Object::new(json!({
            "metadata": {"name": "d", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"finalizers": ["kubernetes", "x"]}, "status": {"phase": "Terminating"},
        }))
    }
    fn plan(objects: Vec<(ResourceId, Value)>) -> String {
        let now = "2026-01-01T00:00:10Z".parse().unwrap();
        let plan = plan_end(&View::of(objects), &namespace(), &discovered(), now);
        plan.to_string()
    }

    #[test]
    fn an_empty_namespace_is_swept_confirmed_and_released() {
        expect![[r#"
            delete all pods in d
            delete all configmaps in d
            confirm no pods in d
            confirm no configmaps in d
            update namespaces/finalize d {"spec":{"finalizers":["x"]}}
            again at 2026-01-01T00:00:15Z
        "#]]
        .assert_eq(&plan(vec![]));
    }

    #[test]
    fn pods_go_first_and_what_is_left_is_told() {
        let pod = json!({"metadata": {"namespace": "d", "name": "p", "finalizers": ["a/b"]}});
        let map = json!({"metadata": {"namespace": "d", "name": "m"}});
        let text = plan(vec![(PODS, pod), (CONFIGMAPS, map)]);
        assert!(text.starts_with("delete all pods in d\nupdate namespaces/status"), "{text}");
        for part in [
            "Some resources are remaining: pods. has 1 resource instances, configmaps. has 1 resource instances",
            "Some content in the namespace has finalizers remaining: a/b in 1 resource instances",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
