//! Custom resources appear, change and disappear with their CustomResourceDefinitions.
//!
//! Owns: following the definitions: names are accepted or refused, the catalog gets its rows, conditions say so; and
//! seeing to it that the objects of a deleted definition go first.
//! Called by: `ApiServer::build`, which starts it as a task.
//! Never: lets a condition say `Established` before requests are served.

mod removal;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use http::Method;
use minik_api::{object, resources};
use serde_json::{Value, json};

use crate::call::now;
use crate::catalog::Served;
use crate::custom::{self, Naming};
use crate::objects::{Change, Loopback};
use crate::server::Core;
use removal::Removal;

pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

type Definitions = BTreeMap<String, Arc<Value>>;

fn condition<'a>(definition: &'a Value, kind: &str) -> Option<&'a Value> {
    definition["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind)
}

fn is_true(definition: &Value, kind: &str) -> bool {
    condition(definition, kind).is_some_and(|c| c["status"] == "True")
}

/// Sets a condition; its time changes with its status alone.
pub fn set_condition(definition: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: &str) {
    let mut new = json!({
        "type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message,
    });
    if !definition["status"]["conditions"].is_array() {
        definition["status"]["conditions"] = json!([]);
    }
    let conditions = definition["status"]["conditions"].as_array_mut().expect("made one above");
    match conditions.iter_mut().find(|c| c["type"] == kind) {
        Some(known) => {
            if known["status"] == status && !known["lastTransitionTime"].is_null() {
                new["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            *known = new;
        }
        None => conditions.push(new),
    }
}

/// Whether the Kubernetes project has approved of a definition in one of its groups: status, reason and message.
fn approval(definition: &Value) -> Option<(&'static str, &'static str, String)> {
    const APPROVED: &str = "api-approved.kubernetes.io";
    const WHY: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let group = definition["spec"]["group"].as_str().unwrap_or("");
    let protected = ["k8s.io", "kubernetes.io"];
    protected.iter().find(|p| group.strip_suffix(*p).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))?;
    let said = definition["metadata"]["annotations"][APPROVED].as_str().unwrap_or("");
    let address = said.parse::<http::Uri>().is_ok_and(|u| u.scheme().is_some() && u.host().is_some());
    Some(match said {
        "" => {
            let message = format!("protected groups must have approval annotation {APPROVED:?}, {WHY}");
            ("False", "MissingAnnotation", message)
        }
        _ if said.starts_with("unapproved") => ("False", "UnapprovedAnnotation", format!("not approved: {said:?}")),
        _ if address => ("True", "ApprovedAnnotation", format!("approved in {said}")),
        _ => {
            let form = "with either a URL or a reason starting with \"unapproved\"";
            let message = format!("protected groups must have approval annotation {APPROVED:?} {form}, {WHY}");
            ("False", "InvalidAnnotation", message)
        }
    })
}

fn approved(definition: &Value, now: &str) -> Option<Value> {
    let (status, reason, message) = approval(definition)?;
    let kind = "KubernetesAPIApprovalPolicyConformant";
    let said = condition(definition, kind)
        .is_some_and(|c| c["status"] == status && c["reason"] == reason && c["message"] == message);
    if said {
        return None;
    }
    let mut new = definition.clone();
    set_condition(&mut new, kind, status, reason, &message, now);
    Some(new)
}

/// The names that are free are accepted, and the conditions say so: a new status, where there is something to say.
fn named(definition: &Value, all: &Definitions, now: &str) -> Option<Value> {
    let (asked, before) = (&definition["spec"]["names"], &definition["status"]["acceptedNames"]);
    if asked == before {
        return None;
    }
    let group = all.values().map(Arc::as_ref).filter(|o| o["spec"]["group"] == definition["spec"]["group"]);
    let Naming { accepted, conflict } = custom::naming(definition, group);
    let (status, reason, message) = match &conflict {
        Some((reason, message)) => ("False", *reason, message.as_str()),
        None => ("True", "NoConflicts", "no conflicts found"),
    };
    let said = condition(definition, "NamesAccepted")
        .is_some_and(|c| c["status"] == status && c["reason"] == reason && c["message"] == message);
    if said && accepted == *before {
        return None;
    }
    let mut new = definition.clone();
    new["status"]["acceptedNames"] = accepted;
    set_condition(&mut new, "NamesAccepted", status, reason, message, now);
    if conflict.is_none() && !is_true(definition, "Established") {
        let message = "the initial names have been accepted";
        set_condition(&mut new, "Established", "False", "Installing", message, now);
    } else if condition(definition, "Established").is_none() {
        set_condition(&mut new, "Established", "False", "NotAccepted", "not all names are accepted", now);
    }
    Some(new)
}

/// Once its names are accepted a definition is served, and says so.
fn established(definition: &Value, now: &str) -> Option<Value> {
    if !is_true(definition, "NamesAccepted") || is_true(definition, "Established") {
        return None;
    }
    let mut new = definition.clone();
    let message = "the initial names have been accepted";
    set_condition(&mut new, "Established", "True", "InitialNamesAccepted", message, now);
    Some(new)
}

fn rows_of(definitions: &Definitions) -> Vec<Arc<Served>> {
    let established = definitions.values().filter(|d| is_true(d, "Established"));
    established.flat_map(|d| custom::rows(d)).map(Arc::new).collect()
}

fn publish(core: &Core, definitions: &Definitions) {
    core.catalog.set_custom(rows_of(definitions));
    core.aggregation.catalog_changed();
}

/// Serves what is established already, then follows changes until the server stops.
pub fn start(core: &Arc<Core>) {
    let follow = core.objects.follow(resources::CUSTOMRESOURCEDEFINITIONS);
    let name = |d: &Arc<Value>| object::name(d).to_string();
    let definitions: Definitions = follow.initial.into_iter().map(|d| (name(&d), d)).collect();
    publish(core, &definitions);
    let (core, tasks) = (core.clone(), core.tasks.clone());
    tasks.spawn(async move { run(core, definitions, follow.changes).await });
}

async fn run(core: Arc<Core>, mut definitions: Definitions, changes: futures::stream::BoxStream<'static, Change>) {
    let removal = Removal::default();
    let names: Vec<String> = definitions.keys().cloned().collect();
    for name in names {
        let before = definitions.get(&name).cloned();
        settle(&core, &mut definitions, &removal, &name, before).await;
    }
    let mut changes = changes;
    while let Some(change) = changes.next().await {
        let name = match &change {
            Change::Put(d) | Change::Delete(d) => object::name(d).to_string(),
        };
        let before = match change {
            Change::Put(definition) => definitions.insert(name.clone(), definition),
            Change::Delete(_) => definitions.remove(&name),
        };
        settle(&core, &mut definitions, &removal, &name, before).await;
        // A name that became free may be what another definition waits for.
        let waiting: Vec<String> = definitions
            .values()
            .filter(|d| !is_true(d, "NamesAccepted"))
            .map(|d| object::name(d).to_string())
            .collect();
        for other in waiting.into_iter().filter(|o| *o != name) {
            let before = definitions.get(&other).cloned();
            settle(&core, &mut definitions, &removal, &other, before).await;
        }
    }
}

/// What of a definition the catalog shows.
fn shown(definition: Option<&Arc<Value>>) -> Option<&Value> {
    definition.filter(|d| is_true(d, "Established")).map(|d| &d["spec"])
}

/// Brings the catalog and the conditions into line with one definition, which was `before` until now. Each step of a
/// definition's way is a write, as upstream's controllers make it, and the write's own event takes the next one.
async fn settle(
    core: &Arc<Core>,
    definitions: &mut Definitions,
    removal: &Removal,
    name: &str,
    before: Option<Arc<Value>>,
) {
    let definition = definitions.get(name).cloned();
    let wanted = definition.as_ref().and_then(|definition| {
        let now = now();
        named(definition, definitions, &now)
            .or_else(|| approved(definition, &now))
            .or_else(|| established(definition, &now))
    });
    if let Some(wanted) = &wanted {
        definitions.insert(name.into(), Arc::new(wanted.clone()));
    }
    if shown(before.as_ref()) != shown(definitions.get(name)) {
        publish(core, definitions);
    }
    let Some(definition) = definition else { return };
    if let Some(wanted) = wanted {
        // A conflict means that a newer state is on its way here.
        match core.call(Method::PUT, &format!("{PATH}/{name}/status"), Some(&wanted)).await {
            Err(status) if !status.is_conflict() && !status.is_not_found() => {
                tracing::warn!(definition = name, error = %status, "the status of a definition could not be written");
            }
            _ => {}
        }
    }
    if object::is_deleting(&definition) && object::finalizers(&definition).any(|f| f == CLEANUP) {
        removal.begin(core, &definition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(name: &str, kind: &str, accepted: bool) -> Arc<Value> {
        let names = json!({"plural": name, "singular": name, "kind": kind, "listKind": format!("{kind}List")});
        let status = if accepted { json!({"acceptedNames": names}) } else { json!({}) };
        Arc::new(json!({
            "metadata": {"name": name, "uid": name}, "status": status,
            "spec": {"group": "g", "names": names, "versions": [{"name": "v1", "storage": true, "served": true}]},
        }))
    }

    fn said(definition: &Value) -> Vec<String> {
        let list = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
        list.iter().map(|c| format!("{}={} {}", c["type"], c["status"], c["reason"]).replace('"', "")).collect()
    }

    #[test]
    fn definitions_in_groups_of_the_project_say_whether_they_are_approved() {
        let said = |group: &str, annotation: &str| {
            let annotations = json!({"api-approved.kubernetes.io": annotation});
            approval(&json!({"metadata": {"annotations": annotations}, "spec": {"group": group}}))
                .map(|(status, reason, _)| format!("{status} {reason}"))
        };
        assert_eq!(said("example.com", ""), None);
        assert_eq!(said("notk8s.io", ""), None);
        assert_eq!(said("x.k8s.io", "https://host/pull/1").as_deref(), Some("True ApprovedAnnotation"));
        assert_eq!(said("kubernetes.io", "unapproved, a test").as_deref(), Some("False UnapprovedAnnotation"));
        assert_eq!(said("x.k8s.io", "yes").as_deref(), Some("False InvalidAnnotation"));
        assert_eq!(said("k8s.io", "").as_deref(), Some("False MissingAnnotation"));
    }

    #[test]
    fn a_definition_with_free_names_is_established_and_one_with_taken_names_is_not() {
        let all: Definitions = [("a", "A", true), ("b", "A", false), ("c", "C", false)]
            .map(|(n, k, accepted)| (n.to_string(), definition(n, k, accepted)))
            .into();
        let conditions = |name: &str| named(&all[name], &all, "t").map(|named| said(&named)).unwrap_or_default();
        assert_eq!(conditions("a"), Vec::<String>::new());
        assert_eq!(conditions("b"), ["NamesAccepted=False ListKindConflict", "Established=False NotAccepted"]);
        let accepted = &named(&all["b"], &all, "t").expect("names are taken")["status"]["acceptedNames"];
        assert_eq!(*accepted, json!({"plural": "b", "singular": "b"}));
        assert_eq!(conditions("c"), ["NamesAccepted=True NoConflicts", "Established=False Installing"]);
        let installing = named(&all["c"], &all, "t").expect("names are free");
        let done = established(&installing, "t").expect("names are accepted");
        assert_eq!(said(&done), ["NamesAccepted=True NoConflicts", "Established=True InitialNamesAccepted"]);
        assert_eq!((named(&done, &all, "t"), established(&done, "t")), (None, None));
    }
}
