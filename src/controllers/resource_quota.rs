//! ResourceQuota: what a namespace uses now.
//!
//! Owns: counting anew, which gives back what was deleted or has ended.
//! Called by: the driver, twice: for changes of objects whose content counts, and for changes of anything that is
//! counted by number.
//! Never: refuses anything; that is admission, which charges in between.

use jiff::Timestamp;
use minik_api::pod_resources::{Amounts, add, amounts};
use minik_api::quantity::Quantity;
use minik_api::quota::{in_scope, names_of, usage};
use minik_api::resources::{PERSISTENTVOLUMECLAIMS, PODS, RESOURCEQUOTAS, SERVICES};
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Cache, Change, Object, Plan, Reconciler, View};
use serde_json::{Map, Value, json};

use crate::pods::is_terminal;

/// Counted by what they say; everything else by how many there are.
const BY_CONTENT: [ResourceId; 3] = [PODS, SERVICES, PERSISTENTVOLUMECLAIMS];

pub(crate) struct ResourceQuota {
    /// Whole objects.
    pub main: Cache,
    /// The metadata of all resources.
    pub metadata: Cache,
    pub over: Over,
}

/// Whose changes this one follows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Content,
    Numbers,
}

impl Reconciler for ResourceQuota {
    fn name(&self) -> &'static str {
        "resourcequota"
    }
    fn watches(&self) -> &'static [ResourceId] {
        match self.over {
            Over::Content => &[RESOURCEQUOTAS, PODS, SERVICES, PERSISTENTVOLUMECLAIMS],
            Over::Numbers => &[],
        }
    }

    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        if change.resource == RESOURCEQUOTAS {
            let counted = self.over == Over::Content && must_count(change);
            return if counted { vec![change.key.clone()] } else { Vec::new() };
        }
        if self.over == Over::Numbers && BY_CONTENT.contains(&change.resource) {
            return Vec::new();
        }
        let appeared = change.old.is_none() && self.over == Over::Numbers;
        let went = change.new.is_none();
        let ended = change.sides().map(|o| is_terminal(o)).collect::<Vec<_>>() == [false, true];
        let content = change.old.is_some() && change.resource != PODS && self.over == Over::Content;
        // What admission charged for a new object is right; what it cannot see is an object going or ending.
        if !(appeared || went || ended || content) {
            return Vec::new();
        }
        view.list(RESOURCEQUOTAS, &change.key.namespace).map(|q| q.key()).collect()
    }

    fn plan(&self, _: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let main = self.main.view();
        let Some(quota) = main.get_key(RESOURCEQUOTAS, key) else { return Plan::nothing() };
        if object::is_deleting(quota) {
            return Plan::nothing();
        }
        let status = status(&main, &self.metadata.view(), quota, self.over, now);
        Plan::of(Action::set_status(RESOURCEQUOTAS, quota, &status).into_iter().collect())
    }
}

/// Not after every charge of admission's: the Pod it is for may not have come here yet, and counting without it would
/// let another one in.
fn must_count(change: &Change) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return change.new.is_some() };
    old["spec"] != new["spec"] || new["status"]["hard"] != new["spec"]["hard"]
}

/// Each of the two counts what it follows and lets the other's numbers stand: they may hold charges for objects that
/// have not come here yet.
fn status(main: &View, metadata: &View, quota: &Object, over: Over, now: Timestamp) -> Value {
    let hard = &quota["spec"]["hard"];
    let wanted: Vec<&str> = hard.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let namespace = object::namespace(quota);
    let mut used: Amounts = Amounts::new();
    let others = metadata.resources().filter(|r| !BY_CONTENT.contains(r)).map(|r| (r, metadata));
    let standing = amounts(&quota["status"]["used"]);
    for (resource, view) in BY_CONTENT.into_iter().map(|r| (r, main)).chain(others) {
        let stands = BY_CONTENT.contains(&resource) != (over == Over::Content);
        let names = names_of(resource.group, resource.plural, wanted.iter().copied());
        let (kept, names): (Vec<&str>, Vec<&str>) =
            names.into_iter().partition(|name| stands && standing.contains_key(*name));
        used.extend(kept.into_iter().filter_map(|name| Some((name.to_string(), *standing.get(name)?))));
        for name in &names {
            used.entry((*name).to_string()).or_insert(Quantity::ZERO);
        }
        if names.is_empty() {
            continue;
        }
        for object in view.list(resource, namespace) {
            if in_scope(resource.group, resource.plural, quota, object) {
                let mut amounts = usage(resource.group, resource.plural, object, now);
                amounts.retain(|name, _| names.contains(&name.as_str()));
                add(&mut used, &amounts);
            }
        }
    }
    // What no resource answers for is used by nobody.
    for name in amounts(hard).keys() {
        used.entry(name.clone()).or_insert(Quantity::ZERO);
    }
    let used: Map<String, Value> = used.into_iter().map(|(name, amount)| (name, amount.to_string().into())).collect();
    json!({"hard": hard, "used": used})
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik_api::resources::CONFIGMAPS;

    /// Regression: a recount after a charge forgot the Pod that was charged for, and a third Pod got into two places.
    #[test]
    fn a_charge_and_a_new_pod_are_not_counted_anew() {
        let quota = |used: &str| {
            json!({"metadata": {"namespace": "d", "name": "q"}, "spec": {"hard": {"pods": "2"}},
                "status": {"hard": {"pods": "2"}, "used": {"pods": used}}})
        };
        let counts = |old: Option<Value>, new: Value| {
            let object = |v: Value| std::sync::Arc::new(Object::new(v));
            let key = ObjectKey::of(&new);
            must_count(&Change { resource: RESOURCEQUOTAS, key, old: old.map(object), new: Some(object(new)) })
        };
        assert!(counts(None, quota("0")));
        assert!(!counts(Some(quota("0")), quota("1")));
        let mut more = quota("1");
        more["spec"]["hard"]["pods"] = "3".into();
        assert!(counts(Some(quota("1")), more));
    }

    #[test]
    fn what_is_there_is_counted_and_what_has_ended_is_not() {
        let pod = |name: &str, phase: &str| {
            (
                PODS,
                json!({"metadata": {"namespace": "d", "name": name}, "status": {"phase": phase},
                "spec": {"containers": [{"resources": {"requests": {"cpu": "250m"}}}]}}),
            )
        };
        let map = (CONFIGMAPS, json!({"metadata": {"namespace": "d", "name": "m"}}));
        let quota = Object::new(json!({"metadata": {"namespace": "d", "name": "q"},
            "spec": {"hard": {"pods": "5", "requests.cpu": "1", "count/configmaps": "3", "services": "1"}}}));
        let main = View::of([pod("a", "Running"), pod("b", "Running"), pod("c", "Succeeded")]);
        let count = |quota: &Object, over| {
            status(&main, &View::of([map.clone()]), quota, over, Timestamp::UNIX_EPOCH)["used"].clone()
        };
        let all = json!({"pods": "2", "requests.cpu": "500m", "count/configmaps": "1", "services": "0"});
        assert_eq!(count(&quota, Over::Content), all);
        // Admission has charged for a Pod and a ConfigMap that are not here yet.
        let mut charged = quota.value().clone();
        charged["status"]["used"] =
            json!({"pods": "3", "requests.cpu": "750m", "count/configmaps": "2", "services": "0"});
        let charged = Object::new(charged);
        let mut content = all.clone();
        content["count/configmaps"] = "2".into();
        assert_eq!(count(&charged, Over::Content), content);
        let mut numbers = charged["status"]["used"].clone();
        numbers["count/configmaps"] = "1".into();
        assert_eq!(count(&charged, Over::Numbers), numbers);
    }
}
