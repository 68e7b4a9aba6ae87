//! Keeps the default FlowSchemas and PriorityLevelConfigurations as they must be, and the server in line with all of
//! them.
//!
//! Owns: creating and mending those objects, the condition `Dangling`, and handing changes to `Fairness`.
//! Called by: `ApiServer::build`, which waits for the defaults; the rest is a task.
//! Never: changes an object that an administrator took over.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use http::Method;
use minik_api::{Status, object, resources};
use serde_json::{Value, json};

use super::classify::Table;
use super::defaults;
use crate::call::now;
use crate::objects::{Change, Loopback};
use crate::server::Core;

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
/// Who upstream says has written the defaults.
const PRODUCER: &str = "fieldManager=api-priority-and-fairness-config-producer-v1";
/// Who upstream says has written the condition.
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";

type Known = BTreeMap<String, Arc<Value>>;

/// Makes the defaults, so that already the first request finds its schema, and follows both kinds until the server stops.
pub async fn start(core: &Arc<Core>) {
    let there = |resource| known(core.objects.list(resource, ""));
    keep_defaults(core, &there(resources::PRIORITYLEVELCONFIGURATIONS), &there(resources::FLOWSCHEMAS)).await;
    let levels = core.objects.follow(resources::PRIORITYLEVELCONFIGURATIONS);
    let schemas = core.objects.follow(resources::FLOWSCHEMAS);
    let (mut known_levels, mut known_schemas) = (known(levels.initial), known(schemas.initial));
    core.fairness.replace(table(&known_levels, &known_schemas));
    let (core, tasks) = (core.clone(), core.tasks.clone());
    tasks.spawn(async move {
        let mut changes = futures::stream::select(
            levels.changes.map(|change| (true, change)),
            schemas.changes.map(|change| (false, change)),
        );
        settle(&core, &known_levels, &known_schemas).await;
        while let Some(first) = changes.next().await {
            // What has happened meanwhile is settled with it: the defaults alone are some twenty changes.
            let mut next = Some(first);
            while let Some((is_level, change)) = next {
                let known = if is_level { &mut known_levels } else { &mut known_schemas };
                match change {
                    Change::Put(object) => known.insert(object::name(&object).into(), object),
                    Change::Delete(object) => known.remove(object::name(&object)),
                };
                next = changes.next().now_or_never().flatten();
            }
            settle(&core, &known_levels, &known_schemas).await;
        }
    });
}

async fn settle(core: &Arc<Core>, levels: &Known, schemas: &Known) {
    // First, since somebody may be waiting for it who has just made the schema.
    for (name, schema) in schemas {
        if let Some(condition) = dangling(schema, levels) {
            told(core.apply(&format!("{SCHEMAS}/{name}/status"), CONSUMER, &condition).await, name);
        }
    }
    core.fairness.replace(table(levels, schemas));
    keep_defaults(core, levels, schemas).await;
}

fn known(objects: Vec<Arc<Value>>) -> Known {
    objects.into_iter().map(|object| (object::name(&object).to_string(), object)).collect()
}

fn table(levels: &Known, schemas: &Known) -> Table {
    let plain = |known: &Known, wanted: Vec<Value>| {
        let mut all: BTreeMap<String, Value> =
            wanted.into_iter().filter(defaults::is_mandatory).map(|o| (object::name(&o).to_string(), o)).collect();
        all.extend(known.iter().map(|(name, object)| (name.clone(), object.as_ref().clone())));
        all.into_values()
    };
    Table::of(plain(schemas, defaults::schemas()), plain(levels, defaults::levels()))
}

/// All at once, so that they wait for one commit.
async fn keep_defaults(core: &Arc<Core>, levels: &Known, schemas: &Known) {
    let wanted = defaults::levels().into_iter().map(|level| (LEVELS, levels, level));
    let wanted = wanted.chain(defaults::schemas().into_iter().map(|schema| (SCHEMAS, schemas, schema)));
    let kept = wanted.map(|(path, known, wanted)| async move {
        let name = object::name(&wanted).to_string();
        let outcome = match plan(known.get(&name).map(Arc::as_ref), &wanted) {
            Step::Keep => Ok(Value::Null),
            Step::Create => core.call(Method::POST, &format!("{path}?{PRODUCER}"), Some(&wanted)).await,
            Step::Update(mended) => core.call(Method::PUT, &format!("{path}/{name}?{PRODUCER}"), Some(&mended)).await,
        };
        told(outcome, &name);
    });
    futures::future::join_all(kept).await;
}

/// A conflict means that a newer state is on its way here.
fn told(outcome: Result<Value, Status>, name: &str) {
    match outcome {
        Err(status) if !status.is_conflict() && !status.is_not_found() && !status.is_already_exists() => {
            tracing::warn!(object = name, error = %status, "a default of priority and fairness could not be written");
        }
        _ => {}
    }
}

#[derive(Debug, PartialEq)]
enum Step {
    Keep,
    Create,
    Update(Value),
}

/// An object keeps following its default while its annotation says so; one without the annotation does so until
/// somebody changes its spec. Mandatory ones always do.
fn plan(existing: Option<&Value>, wanted: &Value) -> Step {
    let Some(existing) = existing else { return Step::Create };
    if object::is_deleting(existing) {
        return Step::Keep;
    }
    let annotation = existing["metadata"]["annotations"][defaults::AUTOUPDATE].as_str();
    let follows = defaults::is_mandatory(wanted)
        || match annotation {
            Some(value) => value == "true",
            None => existing["metadata"]["generation"] == 1,
        };
    let marked = if follows { "true" } else { "false" };
    let mut mended = existing.clone();
    if !mended["metadata"]["annotations"].is_object() {
        mended["metadata"]["annotations"] = json!({});
    }
    mended["metadata"]["annotations"][defaults::AUTOUPDATE] = marked.into();
    if follows && !says(&existing["spec"], &wanted["spec"]) {
        mended["spec"] = wanted["spec"].clone();
    }
    if mended == *existing { Step::Keep } else { Step::Update(mended) }
}

/// Whether `stored` is `wanted`, but for what defaulting fills in.
fn says(stored: &Value, wanted: &Value) -> bool {
    match (stored, wanted) {
        (Value::Object(stored), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| stored.get(key).is_some_and(|stored| says(stored, value)))
                && stored.iter().all(|(key, value)| wanted.contains_key(key) || is_default(value))
        }
        (Value::Array(stored), Value::Array(wanted)) => {
            stored.len() == wanted.len() && stored.iter().zip(wanted).all(|(a, b)| says(a, b))
        }
        _ => stored == wanted,
    }
}

fn is_default(value: &Value) -> bool {
    value.is_null() || *value == 0 || *value == false
}

/// What to apply to a schema for the right condition; `None` when it has it.
fn dangling(schema: &Value, levels: &Known) -> Option<Value> {
    let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or("");
    let text = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = match levels.contains_key(level) {
        true => ("False", "Found", format!("{text} and it exists")),
        false => ("True", "NotFound", format!("{text} but there is no such object")),
    };
    let conditions = schema["status"]["conditions"].as_array();
    let known = conditions.into_iter().flatten().find(|c| c["type"] == "Dangling");
    if known.is_some_and(|c| c["status"] == status && c["reason"] == reason && c["message"] == message) {
        return None;
    }
    Some(json!({
        "kind": "FlowSchema", "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "metadata": {"name": object::name(schema)},
        "status": {"conditions": [{
            "type": "Dangling", "status": status, "lastTransitionTime": now(), "reason": reason, "message": message,
        }]},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_mended_until_somebody_takes_them_over() {
        let wanted = defaults::levels().into_iter().find(|l| object::name(l) == "system").expect("test");
        assert_eq!(plan(None, &wanted), Step::Create);
        assert_eq!(plan(Some(&wanted), &wanted), Step::Keep);
        let mut changed = wanted.clone();
        changed["spec"]["limited"]["nominalConcurrencyShares"] = 7.into();
        assert_eq!(plan(Some(&changed), &wanted), Step::Update(wanted.clone()));
        changed["metadata"]["annotations"][defaults::AUTOUPDATE] = "false".into();
        assert_eq!(plan(Some(&changed), &wanted), Step::Keep);
        let mut mandatory = defaults::levels().into_iter().find(|l| object::name(l) == "catch-all").expect("test");
        let right = mandatory.clone();
        mandatory["spec"]["limited"]["nominalConcurrencyShares"] = 7.into();
        mandatory["metadata"]["annotations"][defaults::AUTOUPDATE] = "false".into();
        assert_eq!(plan(Some(&mandatory), &right), Step::Update(right.clone()));
    }

    #[test]
    fn a_schema_without_its_level_says_so() {
        let mut schema = json!({"metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "gone"}}});
        let applied = dangling(&schema, &Known::new()).expect("the condition is missing");
        assert_eq!(applied["metadata"], json!({"name": "s"}));
        let condition = &applied["status"]["conditions"][0];
        assert_eq!(
            (&condition["type"], &condition["status"], &condition["reason"]),
            (&json!("Dangling"), &json!("True"), &json!("NotFound"))
        );
        schema["status"] = applied["status"].clone();
        assert_eq!(dangling(&schema, &Known::new()), None);
    }
}
