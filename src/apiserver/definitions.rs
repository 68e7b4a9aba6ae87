//! Custom resources appear, change and disappear with their CustomResourceDefinitions.
//!
//! Owns: following the definitions: names are accepted or refused, the catalog gets its rows, conditions say so, and
//! the objects of a deleted definition are removed before it goes.
//! Called by: `ApiServer::build`, which starts it as a task.
//! Never: lets a condition say `Established` before requests are served.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use http::Method;
use minik_api::{Status, object, resources};
use serde_json::{Value, json};

use crate::call::now;
use crate::catalog::Served;
use crate::custom;
use crate::objects::{Change, Loopback};
use crate::server::Core;

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
            if known["status"] == status {
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

/// What the status should be, given the other definitions of the group.
fn judged(definition: &Value, all: &Definitions, now: &str) -> Value {
    let mut new = definition.clone();
    if let Some((status, reason, message)) = approval(definition) {
        set_condition(&mut new, "KubernetesAPIApprovalPolicyConformant", status, reason, &message, now);
    }
    let group = &definition["spec"]["group"];
    let others = all
        .values()
        .map(Arc::as_ref)
        .filter(|o| object::uid(o) != object::uid(definition) && o["spec"]["group"] == *group);
    match custom::conflicts(definition, others) {
        Some((reason, message)) => {
            set_condition(&mut new, "NamesAccepted", "False", reason, &message, now);
            if condition(definition, "Established").is_none() {
                let message = "not all names are accepted";
                set_condition(&mut new, "Established", "False", "NotAccepted", message, now);
            }
        }
        None => {
            new["status"]["acceptedNames"] = definition["spec"]["names"].clone();
            set_condition(&mut new, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now);
            let message = "the initial names have been accepted";
            set_condition(&mut new, "Established", "True", "InitialNamesAccepted", message, now);
        }
    }
    remember_stored_versions(&mut new);
    new
}

/// Every version that objects may be stored in.
fn remember_stored_versions(definition: &mut Value) {
    let versions = definition["spec"]["versions"].as_array().cloned().unwrap_or_default();
    let Some(stored) = versions.into_iter().find(|v| v["storage"] == true) else { return };
    let name = stored["name"].clone();
    match definition["status"].get_mut("storedVersions").and_then(Value::as_array_mut) {
        Some(known) if known.contains(&name) => {}
        Some(known) => known.push(name),
        None => definition["status"]["storedVersions"] = json!([name]),
    }
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
    let names: Vec<String> = definitions.keys().cloned().collect();
    for name in names {
        settle(&core, &mut definitions, &name).await;
    }
    let mut changes = changes;
    while let Some(change) = changes.next().await {
        let name = match &change {
            Change::Put(d) | Change::Delete(d) => object::name(d).to_string(),
        };
        match change {
            Change::Put(definition) => drop(definitions.insert(name.clone(), definition)),
            Change::Delete(_) => drop(definitions.remove(&name)),
        }
        settle(&core, &mut definitions, &name).await;
        // A name that became free may be what another definition waits for.
        let waiting: Vec<String> = definitions
            .values()
            .filter(|d| !is_true(d, "NamesAccepted"))
            .map(|d| object::name(d).to_string())
            .collect();
        for other in waiting.into_iter().filter(|o| *o != name) {
            settle(&core, &mut definitions, &other).await;
        }
    }
}

/// Brings the catalog and the conditions into line with one definition.
async fn settle(core: &Arc<Core>, definitions: &mut Definitions, name: &str) {
    let Some(definition) = definitions.get(name).cloned() else {
        publish(core, definitions);
        return;
    };
    if object::is_deleting(&definition) {
        publish(core, definitions);
        if object::finalizers(&definition).any(|f| f == CLEANUP) {
            let (core, tasks) = (core.clone(), core.tasks.clone());
            tasks.spawn(async move { clean_up(&core, &definition).await });
        }
        return;
    }
    let wanted = Arc::new(judged(&definition, definitions, &now()));
    definitions.insert(name.into(), wanted.clone());
    publish(core, definitions);
    if *wanted == *definition {
        return;
    }
    // A conflict means that a newer state is on its way here.
    match core.call(Method::PUT, &format!("{PATH}/{name}/status"), Some(&wanted)).await {
        Err(status) if !status.is_conflict() && !status.is_not_found() => {
            tracing::warn!(definition = name, error = %status, "the status of a definition could not be written");
        }
        _ => {}
    }
}

/// Removes every object of a definition, waits for their finalizers, then lets the definition go.
async fn clean_up(core: &Arc<Core>, definition: &Value) {
    if let Err(status) = remove_instances(core, definition).await {
        let name = object::name(definition);
        tracing::warn!(definition = name, error = %status, "the objects of a definition could not be removed");
    }
}

async fn remove_instances(core: &Arc<Core>, definition: &Value) -> Result<(), Status> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or("").to_string();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let served = core.catalog.now().served().iter().find(|s| s.row.group == group && s.row.plural == plural).cloned();
    if let Some(served) = served.filter(|s| s.custom().is_some()) {
        let prefix = served.prefix("");
        let mut watch =
            core.store.watch(&prefix, core.store.revision()).map_err(|e| Status::internal(e.to_string()))?;
        loop {
            let range = minik_store::Range { prefix: &prefix, ..Default::default() };
            let page = core.store.range(&range).map_err(|e| Status::internal(e.to_string()))?;
            if page.entries.is_empty() {
                break;
            }
            for entry in &page.entries {
                let tree = crate::stored::decode(entry);
                if object::is_deleting(&tree) {
                    continue;
                }
                let namespace = match object::namespace(&tree) {
                    "" => String::new(),
                    namespace => format!("namespaces/{namespace}/"),
                };
                let version = &served.row.version;
                let path = format!("/apis/{group}/{version}/{namespace}{plural}/{}", object::name(&tree));
                match core.call(Method::DELETE, &path, None).await {
                    Err(status) if !status.is_not_found() => return Err(status),
                    _ => {}
                }
            }
            // What is left waits for finalizers of others; their removal is an event.
            tokio::select! {
                () = core.stopping.cancelled() => return Ok(()),
                _ = watch.next() => {}
            }
        }
    }
    let finalizers: Vec<&str> = object::finalizers(definition).filter(|f| *f != CLEANUP).collect();
    let patch = json!({"metadata": {"finalizers": finalizers, "uid": object::uid(definition)}});
    let path = format!("{PATH}/{}", object::name(definition));
    match core.call(Method::PATCH, &path, Some(&patch)).await {
        Err(status) if !status.is_not_found() && !status.is_conflict() => Err(status),
        _ => Ok(()),
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
        let conditions = |name: &str| -> Vec<String> {
            let judged = judged(&all[name], &all, "t");
            let list = judged["status"]["conditions"].as_array().cloned().unwrap_or_default();
            list.iter().map(|c| format!("{}={} {}", c["type"], c["status"], c["reason"]).replace('"', "")).collect()
        };
        assert_eq!(conditions("b"), ["NamesAccepted=False KindConflict", "Established=False NotAccepted"]);
        assert_eq!(conditions("c"), ["NamesAccepted=True NoConflicts", "Established=True InitialNamesAccepted"]);
    }
}
