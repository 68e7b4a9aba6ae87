//! StorageVersionMigration: writes every object of a resource once more, so that each is stored in today's version.
//!
//! Owns: up to which version of the resource objects are written, and the conditions that tell how it went.
//! Called by: the driver.
//! Never: changes an object: a patch that says nothing makes the API server store it anew.

use jiff::{SignedDuration, Timestamp};
use minik_api::resources::STORAGEVERSIONMIGRATIONS;
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Cache, Change, Object, Patch, Plan, Question, Reconciler, View};
use serde_json::{Value, json};

use crate::conditions::{self, Repeat};
use crate::discovery::{Known, Watched};
use crate::fields::{parse_time, text};

/// A resource that was defined a moment ago may not be discovered yet; upstream waits as long.
const PATIENCE: SignedDuration = SignedDuration::from_mins(1);
const AGAIN: SignedDuration = SignedDuration::from_secs(5);

pub(crate) struct StorageMigration {
    pub discovered: Watched,
    /// Metadata of everything there is.
    pub metadata: Cache,
}

impl Reconciler for StorageMigration {
    fn name(&self) -> &'static str {
        "storage-version-migrator-controller"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[STORAGEVERSIONMIGRATIONS]
    }
    fn keys(&self, _: &View, change: &Change) -> Vec<ObjectKey> {
        vec![change.key.clone()]
    }

    fn plan(&self, view: &View, key: &ObjectKey, now: Timestamp) -> Plan {
        let Some(migration) = view.get_key(STORAGEVERSIONMIGRATIONS, key) else { return Plan::nothing() };
        let over = |kind| conditions::is_true(&migration["status"], kind);
        if over("Succeeded") || over("Failed") || object::is_deleting(migration) {
            return Plan::nothing();
        }
        let wanted = &migration["spec"]["resource"];
        let (group, plural) = (text(&wanted["group"]), text(&wanted["resource"]));
        let discovered = self.discovered.borrow().clone();
        let Some(known) = discovered.resources.iter().find(|k| k.id.group == group && k.id.plural == plural) else {
            let created = parse_time(&migration["metadata"]["creationTimestamp"]).unwrap_or(now);
            if created + PATIENCE > now {
                return Plan { requeue_at: Some(now + AGAIN), ..Plan::nothing() };
            }
            return fail(migration, "resource does not exist in discovery", now);
        };
        if let Some(verb) = ["update", "patch", "list"].iter().find(|verb| !known.can(verb)) {
            let why = format!("resource {:?} does not support discovery operations: [{verb}]", known.id.qualified());
            return fail(migration, &why, now);
        }
        match text(&migration["status"]["resourceVersion"]).parse::<u64>() {
            Ok(up_to) => migrate(migration, known, &self.metadata.view(), up_to, now),
            Err(_) => begin(migration, known.id),
        }
    }
}

/// The newest version there is: objects written later are stored as they should be.
fn begin(migration: &std::sync::Arc<Object>, resource: ResourceId) -> Plan {
    let root = if resource.group.is_empty() { "/api".into() } else { format!("/apis/{}", resource.group) };
    let path = format!("{root}/{}/{}?limit=1", resource.version, resource.plural);
    let migration = migration.clone();
    Plan::asking(vec![Question::Get { path }], move |answers, now| match &answers[0] {
        Err(_) => Plan { requeue_at: Some(now + AGAIN), ..Plan::nothing() },
        Ok(list) => {
            let mut status = status_of(&migration);
            status["resourceVersion"] = list["metadata"]["resourceVersion"].clone();
            let message = "The migration is running";
            conditions::set(&mut status, "Running", "True", "MigrationRunning", message, now, Repeat::Updates);
            Plan::of(Action::set_status(STORAGEVERSIONMIGRATIONS, &migration, &status).into_iter().collect())
        }
    })
}

fn migrate(migration: &Object, known: &Known, view: &View, up_to: u64, now: Timestamp) -> Plan {
    let version = |o: &Object| object::resource_version(o).parse::<u64>().unwrap_or(0);
    let total = view.count(known.id);
    let old = view.list(known.id, "").filter(|o| version(o) <= up_to);
    let mut plan = Plan::of(old.map(|o| again(known, o)).collect());
    let mut status = status_of(migration);
    let message =
        if total > 0 { format!("The migration is running, {total} objects verified migrated") } else { String::new() };
    let message = if message.is_empty() { "The migration is running" } else { &message };
    conditions::set(&mut status, "Running", "True", "MigrationRunning", message, now, Repeat::Updates);
    let (reason, message) = ("StorageVersionMigrationSucceeded", "Migration completed");
    conditions::set(&mut status, "Succeeded", "True", reason, message, now, Repeat::Updates);
    plan.actions.extend(Action::set_status(STORAGEVERSIONMIGRATIONS, migration, &status));
    let migration = std::sync::Arc::new(Object::new(migration.value().clone()));
    plan.if_failed = Some(Box::new(move |failure, now| {
        // What the server cannot do just now is tried again; what it refuses stays refused.
        let refused = failure.error.status().is_some_and(|s| (400..500).contains(&s.code) && s.code != 429);
        if refused { fail(&migration, &failure.error.to_string(), now).actions } else { Vec::new() }
    }));
    plan
}

fn again(known: &Known, object: &Object) -> Action {
    let body = json!({
        "apiVersion": known.id.api_version(), "kind": known.kind,
        "metadata": {"uid": object::uid(object), "resourceVersion": object::resource_version(object)},
    });
    Action::Patch { resource: known.id, key: object.key(), sub: "", patch: Patch::Merge(body) }
}

fn fail(migration: &Object, why: &str, now: Timestamp) -> Plan {
    let mut status = status_of(migration);
    let message = format!("migration encountered unhandled error: {why}");
    let reason = "StorageVersionMigrationFailed";
    conditions::set(&mut status, "Failed", "True", reason, &message, now, Repeat::Updates);
    Plan::of(Action::set_status(STORAGEVERSIONMIGRATIONS, migration, &status).into_iter().collect())
}

fn status_of(migration: &Object) -> Value {
    if migration["status"].is_object() { migration["status"].clone() } else { json!({}) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik_api::resources::CONFIGMAPS;

    fn known() -> Known {
        let verbs = ["update", "patch", "list"].map(String::from).to_vec();
        Known { id: CONFIGMAPS, kind: "ConfigMap".into(), namespaced: true, verbs }
    }
    fn migration(version: &str) -> Object {
        Object::new(json!({"metadata": {"name": "m"}, "status": {"resourceVersion": version},
            "spec": {"resource": {"group": "", "resource": "configmaps"}}}))
    }

    #[test]
    fn what_was_written_before_is_written_again_and_then_it_is_done() {
        let map = |name: &str, version: &str| {
            (CONFIGMAPS, json!({"metadata": {"namespace": "d", "name": name, "uid": name, "resourceVersion": version}}))
        };
        let view = View::of([map("old", "5"), map("new", "11")]);
        let text = migrate(&migration("10"), &known(), &view, 10, Timestamp::UNIX_EPOCH).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0], r#"patch configmaps d/old {"apiVersion":"v1","kind":"ConfigMap"}"#);
        assert!(lines[1].contains(r#""reason":"StorageVersionMigrationSucceeded""#), "{text}");
        assert!(lines[1].contains("2 objects verified migrated"), "{text}");
    }

    #[test]
    fn it_begins_with_the_newest_version() {
        let plan = begin(&std::sync::Arc::new(migration("")), CONFIGMAPS);
        assert_eq!(plan.to_string(), "ask /api/v1/configmaps?limit=1\n");
        let list = json!({"metadata": {"resourceVersion": "42"}});
        let text = plan.answered(vec![Ok(list)], Timestamp::UNIX_EPOCH).to_string();
        assert!(text.contains(r#""resourceVersion":"42""#) && text.contains(r#""type":"Running""#), "{text}");
    }
}
