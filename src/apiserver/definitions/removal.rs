//! The end of a definition: its objects go first.
//!
//! Owns: the condition `Terminating` from the moment a definition is being deleted, removing its objects and waiting for
//! their finalizers, and letting the definition go.
//! Called by: `definitions`, for every definition that waits for this.
//! Never: touches objects of a definition that is not being deleted.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use minik_api::{Status, object, resources};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{CLEANUP, PATH, is_true, set_condition};
use crate::call::now;
use crate::objects::Loopback;
use crate::server::Core;

/// A conflict means that somebody else wrote the definition; more of them in a row mean a fight.
const WRITES_MAX: usize = 16;
const RETRY_AFTER: Duration = Duration::from_millis(250);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// The definitions whose objects are being removed, by uid.
#[derive(Clone, Default)]
pub struct Removal(Arc<Mutex<HashSet<String>>>);

impl Removal {
    /// Goes on in the background; once for a definition, however often it changes meanwhile.
    pub fn begin(&self, core: &Arc<Core>, definition: &Value) {
        let uid = object::uid(definition).to_string();
        if !self.0.lock().insert(uid.clone()) {
            return;
        }
        let (core, definition, removal) = (core.clone(), definition.clone(), self.clone());
        core.clone().tasks.spawn(async move {
            let mut pause = RETRY_AFTER;
            while let Err(status) = remove(&core, &definition).await {
                let name = object::name(&definition);
                tracing::warn!(definition = name, error = %status, "the objects of a definition could not be removed");
                tokio::select! {
                    () = core.stopping.cancelled() => break,
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_AFTER_MAX),
                }
            }
            removal.0.lock().remove(&uid);
        });
    }
}

/// Upstream's condition while the objects of a definition go, in the order a definition passes through.
enum Terminating {
    InProgress,
    Failed(String),
    Completed,
    NeverEstablished,
}

impl Terminating {
    fn written_into(&self, definition: &mut Value) {
        let (status, reason, message) = match self {
            Self::InProgress => ("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress"),
            Self::Failed(why) => ("True", "InstanceDeletionFailed", why.as_str()),
            Self::Completed => ("False", "InstanceDeletionCompleted", "removed all instances"),
            Self::NeverEstablished => ("False", "NeverEstablished", "resource was never established"),
        };
        set_condition(definition, "Terminating", status, reason, message, &now());
        if status == "False" {
            let kept: Vec<&str> = object::finalizers(definition).filter(|f| *f != CLEANUP).collect();
            definition["metadata"]["finalizers"] = json!(kept);
        }
    }
}

async fn remove(core: &Arc<Core>, definition: &Value) -> Result<(), Status> {
    let Some(now) = report(core, definition, &Terminating::InProgress).await? else { return Ok(()) };
    // It may have been established after the deletion was asked for.
    let end = if is_true(&now, "Established") {
        if let Err(status) = remove_instances(core, definition).await {
            let why = format!("could not issue all deletes: {}", status.message);
            report(core, definition, &Terminating::Failed(why)).await?;
            return Err(status);
        }
        Terminating::Completed
    } else {
        Terminating::NeverEstablished
    };
    report(core, definition, &end).await.map(drop)
}

/// Writes the condition into the definition as it is now, and tells what it is then; nothing when it is gone.
async fn report(core: &Arc<Core>, definition: &Value, state: &Terminating) -> Result<Option<Value>, Status> {
    let name = object::name(definition);
    for _ in 0..WRITES_MAX {
        let found = core.objects.get(resources::CUSTOMRESOURCEDEFINITIONS, "", name);
        let Some(found) = found.filter(|d| object::uid(d) == object::uid(definition)) else { return Ok(None) };
        let mut wanted = found.as_ref().clone();
        state.written_into(&mut wanted);
        if wanted == *found {
            return Ok(Some(wanted));
        }
        match core.call(Method::PUT, &format!("{PATH}/{name}/status"), Some(&wanted)).await {
            Ok(_) => return Ok(Some(wanted)),
            Err(status) if status.is_not_found() => return Ok(None),
            Err(status) if status.is_conflict() => {}
            Err(status) => return Err(status),
        }
    }
    Err(Status::conflict("customresourcedefinitions.apiextensions.k8s.io", name, "it changes too fast"))
}

async fn remove_instances(core: &Arc<Core>, definition: &Value) -> Result<(), Status> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or("").to_string();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let served = core.catalog.now().served().iter().find(|s| s.row.group == group && s.row.plural == plural).cloned();
    let Some(served) = served.filter(|s| s.custom().is_some()) else { return Ok(()) };
    let prefix = served.prefix("");
    let mut watch = core.store.watch(&prefix, core.store.revision()).map_err(|e| Status::internal(e.to_string()))?;
    loop {
        let range = minik_store::Range { prefix: &prefix, ..Default::default() };
        let page = core.store.range(&range).map_err(|e| Status::internal(e.to_string()))?;
        if page.entries.is_empty() {
            return Ok(());
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
