//! DELETE of one object.
//!
//! Owns: delete options, grace periods, the finalizers that propagation asks for, and when an object may go at once.
//! Called by: `rest`, deletion of collections, evictions.
//! Never: touches dependents; the garbage collector does.

use std::sync::Arc;

use http::Response;
use jiff::{SignedDuration, Timestamp};
use minik_api::decode::DecodeError;
use minik_api::registry::Dependents;
use minik_api::schema::Type;
use minik_api::wire::{protobuf, time};
use minik_api::{FieldError, Status, decode, object};
use minik_store::{Entry, Error, Write};
use serde_json::{Value, json};

use crate::admission::{Operation, Options};
use crate::body::Body;
use crate::call::{Call, check_dry_run};
use crate::catalog::Served;
use crate::custom::conversion;
use crate::rest::admit::{self, Subject};
use crate::rest::create::{self, store_failure, to_stored};
use crate::rest::special;
use crate::server::Core;
use crate::{reply, stored};

const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";
/// How often a deletion is tried again when somebody else changed the object meanwhile.
const ATTEMPTS_MAX: usize = 16;

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub uid: String,
    pub resource_version: String,
    pub orphan_dependents: Option<bool>,
    /// `Orphan`, `Background`, `Foreground` or empty.
    pub propagation_policy: String,
    pub dry_run: bool,
    /// As the client sent it, for admission.
    pub tree: Value,
}

impl DeleteOptions {
    pub fn of(call: &Call) -> Result<Self, Status> {
        Self::from_tree(if call.body.is_empty() { from_query(call)? } else { from_body(call)? })
    }

    pub fn says_what_follows(&self) -> bool {
        self.orphan_dependents.is_some() || !self.propagation_policy.is_empty()
    }

    pub fn from_tree(mut tree: Value) -> Result<Self, Status> {
        let mut faults = Vec::new();
        let policy = tree["propagationPolicy"].as_str().unwrap_or("").to_string();
        let orphan_dependents = tree["orphanDependents"].as_bool();
        if !policy.is_empty() && orphan_dependents.is_some() {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            faults.push(FieldError::invalid("propagationPolicy", &json!(policy), detail));
        }
        if !matches!(policy.as_str(), "" | "Orphan" | "Background" | "Foreground") {
            faults.push(FieldError::not_supported(
                "propagationPolicy",
                &json!(policy),
                &["Foreground", "Background", "Orphan", "nil"],
            ));
        }
        let dry_run: Vec<&str> = tree["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        check_dry_run(&dry_run, &mut faults);
        if !faults.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &faults));
        }
        let precondition = |field: &str| tree["preconditions"][field].as_str().unwrap_or("").to_string();
        let options = Self {
            grace_period_seconds: tree["gracePeriodSeconds"].as_i64(),
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
            orphan_dependents,
            propagation_policy: policy,
            dry_run: !dry_run.is_empty(),
            tree: Value::Null,
        };
        tree["kind"] = "DeleteOptions".into();
        tree["apiVersion"] = "meta.k8s.io/v1".into();
        Ok(Self { tree, ..options })
    }
}

fn from_query(call: &Call) -> Result<Value, Status> {
    let mut tree = json!({});
    if let Some(seconds) = call.query.number("gracePeriodSeconds")? {
        tree["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(orphan) = call.query.optional_flag("orphanDependents") {
        tree["orphanDependents"] = orphan.into();
    }
    let policy = call.query.get("propagationPolicy");
    if !policy.is_empty() {
        tree["propagationPolicy"] = policy.into();
    }
    let dry_run: Vec<&str> = call.query.all("dryRun").collect();
    if !dry_run.is_empty() {
        tree["dryRun"] = json!(dry_run);
    }
    Ok(tree)
}

fn from_body(call: &Call) -> Result<Value, Status> {
    let of = Type::meta("DeleteOptions").expect("meta/v1 has DeleteOptions");
    let wrong = |e: String| Status::bad_request(format!("the delete options could not be decoded: {e}"));
    let tree: Value = match call.content_type() {
        protobuf::CONTENT_TYPE => {
            let envelope = protobuf::open(&call.body).map_err(|e| wrong(e.to_string()))?;
            protobuf::decode_as(&envelope, Some(of)).map_err(|e| wrong(e.to_string()))?
        }
        "application/yaml" => crate::decode::yaml(&call.body).map_err(wrong)?,
        _ => match decode::from_json(of, &call.body) {
            Ok(decoded) => decoded.object,
            Err(DecodeError::Syntax(why)) => return Err(Status::bad_request(crate::decode::no_json(&why))),
            Err(error) => return Err(wrong(error.to_string())),
        },
    };
    let said = |field: &str| tree[field].as_str().unwrap_or_default();
    if !matches!(said("kind"), "" | "DeleteOptions") {
        return Err(Status::bad_request(crate::decode::not_registered(said("kind"), said("apiVersion"))));
    }
    Ok(tree)
}

/// What is to be done with the object now.
#[derive(Debug, PartialEq)]
pub enum Deletion {
    /// It is on its way already, and this request does not hurry it.
    Pending,
    /// It stays, changed so: it waits for its grace period or for finalizers.
    Mark(Box<Value>),
    /// It goes. Where it could have had time to end, watchers see it marked so before.
    Now(Option<Box<Value>>),
}

/// How long an object may take to end from now on.
#[derive(Debug, PartialEq)]
enum Grace {
    /// It has no such time, or had it.
    Over,
    /// Less than this request leaves it.
    Running,
    Seconds(i64),
}

/// Upstream reads a negative period as one second: at once, but in order.
fn positive(seconds: i64) -> i64 {
    if seconds < 0 { 1 } else { seconds }
}

fn grace_of_pod(pod: &mut Value, asked: Option<i64>, now: Timestamp) -> Grace {
    let asked = asked.map(positive);
    if object::is_deleting(pod) {
        let current = positive(pod["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0));
        return match asked {
            _ if current == 0 => Grace::Over,
            Some(seconds) if seconds < current => {
                shorten(pod, seconds - current, seconds, now);
                Grace::Seconds(seconds)
            }
            _ => Grace::Running,
        };
    }
    let phase = pod["status"]["phase"].as_str().unwrap_or("");
    let is_placed = pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let seconds = if !is_placed || matches!(phase, "Succeeded" | "Failed") {
        0
    } else {
        asked.or(pod["spec"]["terminationGracePeriodSeconds"].as_i64()).map_or(0, positive)
    };
    mark(pod, now + SignedDuration::from_secs(seconds), seconds);
    Grace::Seconds(seconds)
}

fn end_of(tree: &Value) -> Option<Timestamp> {
    tree["metadata"]["deletionTimestamp"].as_str()?.parse().ok()
}

/// Brings the end of the grace period forward, though never before now: then the kubelet has a last second.
fn shorten(pod: &mut Value, by: i64, seconds: i64, now: Timestamp) {
    let end = end_of(pod).map_or(now, |end| end + SignedDuration::from_secs(by));
    let seconds = if end < now { seconds.min(1) } else { seconds };
    pod["metadata"]["deletionTimestamp"] = time::format_seconds(end.max(now)).into();
    pod["metadata"]["deletionGracePeriodSeconds"] = seconds.into();
}

/// From its first deletion on, an object's desired state is another: that it ends.
fn mark(tree: &mut Value, end: Timestamp, seconds: i64) {
    let generation = object::generation(tree);
    if generation > 0 && !object::is_deleting(tree) {
        tree["metadata"]["generation"] = (generation + 1).into();
    }
    if end_of(tree).is_none_or(|known| known > end) {
        tree["metadata"]["deletionTimestamp"] = time::format_seconds(end).into();
    }
    tree["metadata"]["deletionGracePeriodSeconds"] = seconds.into();
}

/// The finalizer that stands for orphaning dependents or for deleting them first, when there is to be one.
pub fn finalizer_for(object: &Value, default: Dependents, options: &DeleteOptions) -> Option<&'static str> {
    match (options.orphan_dependents, options.propagation_policy.as_str()) {
        _ if default == Dependents::Ignore => None,
        (Some(true), _) | (None, "Orphan") => Some(ORPHAN),
        (Some(false), _) | (None, "Background") => None,
        (None, "Foreground") => Some(FOREGROUND),
        _ => {
            let present = object::finalizers(object).find_map(|f| [ORPHAN, FOREGROUND].into_iter().find(|k| *k == f));
            present.or((default == Dependents::Orphan).then_some(ORPHAN))
        }
    }
}

pub fn set_finalizer(tree: &mut Value, wanted: Option<&str>) {
    let is_one = |name: &&str| [ORPHAN, FOREGROUND].contains(name);
    let present: Vec<&str> = object::finalizers(tree).filter(is_one).collect();
    if present == wanted.as_slice() {
        return;
    }
    let others = object::finalizers(tree).filter(|f| !is_one(f));
    let finalizers: Vec<String> = others.chain(wanted).map(String::from).collect();
    if finalizers.is_empty() {
        tree["metadata"].as_object_mut().expect("a stored object has metadata").remove("finalizers");
    } else {
        tree["metadata"]["finalizers"] = json!(finalizers);
    }
}

pub fn plan(served: &Served, old: &Value, options: &DeleteOptions, now: Timestamp) -> Deletion {
    if let Some(deletion) = special::deletion(served, old, options, now) {
        return deletion;
    }
    let mut tree = old.clone();
    let is_pod = served.row.kind == "Pod" && served.row.group.is_empty();
    let grace = if is_pod { grace_of_pod(&mut tree, options.grace_period_seconds, now) } else { Grace::Over };
    let wanted = finalizer_for(&tree, served.row.dependents, options);
    set_finalizer(&mut tree, wanted);
    let held = object::finalizers(&tree).next().is_some();
    match grace {
        Grace::Running => Deletion::Pending,
        Grace::Over if held => {
            mark(&mut tree, now, 0);
            Deletion::Mark(Box::new(tree))
        }
        Grace::Over => Deletion::Now(None),
        Grace::Seconds(0) if !held => Deletion::Now(Some(Box::new(tree))),
        Grace::Seconds(_) => Deletion::Mark(Box::new(tree)),
    }
}

/// What became of the object.
pub enum Gone {
    /// Its last state.
    Now(Entry),
    /// It is still there, on its way out.
    Later(Entry),
    DryRun(Value, Deletion),
}

pub async fn delete(core: &Arc<Core>, call: &Call) -> Result<Response<Body>, Status> {
    let options = DeleteOptions::of(call)?;
    special::warn_of_deletion(call, options.says_what_follows());
    let gone = remove(core, call, &call.info.namespace, &call.info.name, &options).await?;
    let status = |tree: &Value| {
        let row = &call.served.row;
        let mut details = json!({"name": object::name(tree), "kind": row.plural, "uid": object::uid(tree)});
        if !row.group.is_empty() {
            details["group"] = row.group.as_ref().into();
        }
        reply::success(&call.accept, 200, Some(details))
    };
    Ok(match gone {
        Gone::Later(entry) => {
            // The client asked to wait for dependents, so it is told that this takes time.
            let code = if options.orphan_dependents == Some(false) { 202 } else { 200 };
            reply::entry(call, code, &call.served, &entry)
        }
        Gone::Now(entry) if special::shows_what_it_deletes(&call.served) => {
            reply::entry(call, 200, &call.served, &entry)
        }
        Gone::Now(entry) => status(&stored::decode(&entry)),
        Gone::DryRun(tree, Deletion::Now(_)) if !special::shows_what_it_deletes(&call.served) => status(&tree),
        Gone::DryRun(tree, _) => reply::object(call, 200, &call.served, &tree),
    })
}

/// Deletes one object of the call's resource.
pub async fn remove(
    core: &Arc<Core>,
    call: &Call,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Gone, Status> {
    let served = &call.served;
    let key = served.key(namespace, name);
    let missing = || Status::not_found(&served.row.qualified(), name);
    for _ in 0..ATTEMPTS_MAX {
        let entry = core.store.get(&key).ok_or_else(missing)?;
        let entry = conversion::entry(core.objects.as_ref(), served, entry).await?;
        let old = Arc::new(reply::served_tree(served, &entry));
        check_preconditions(served, &old, options)?;
        admit(core, call, namespace, name, &old, options).await?;
        let deletion = plan(served, &old, options, Timestamp::now());
        if options.dry_run {
            let tree = match &deletion {
                Deletion::Mark(tree) | Deletion::Now(Some(tree)) => tree.as_ref().clone(),
                Deletion::Pending | Deletion::Now(None) => old.as_ref().clone(),
            };
            return Ok(Gone::DryRun(tree, deletion));
        }
        let update = async |tree: Value| {
            let value = stored::encode(&to_stored(core, call, tree).await?);
            Ok::<_, Status>(Write::Update { key: key.clone(), expected: entry.modified, value })
        };
        let (mut writes, now) = match deletion {
            Deletion::Pending => return Ok(Gone::Later(entry)),
            Deletion::Mark(tree) if *tree == *old => return Ok(Gone::Later(entry)),
            Deletion::Mark(tree) => (vec![update(*tree).await?], false),
            Deletion::Now(Some(tree)) => {
                (vec![update(*tree).await?, Write::Delete { key: key.clone(), expected: None }], true)
            }
            Deletion::Now(None) => (vec![Write::Delete { key: key.clone(), expected: Some(entry.modified) }], true),
        };
        let last = writes.len() - 1;
        if now {
            writes.extend(special::release(call, &old));
        }
        match core.write(served, writes).await {
            Ok(mut entries) => {
                let last = conversion::entry(core.objects.as_ref(), served, entries.swap_remove(last)).await?;
                return Ok(if now { Gone::Now(last) } else { Gone::Later(last) });
            }
            Err(Error::Conflict { .. }) => {}
            Err(Error::NotFound { .. }) => return Err(missing()),
            Err(error) => return Err(store_failure(&error)),
        }
    }
    Err(Status::conflict(&served.row.qualified(), name, "it changes too fast to be deleted"))
}

fn check_preconditions(served: &Served, old: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let (uid, version) = (object::uid(old), object::resource_version(old));
    let (field, record, wanted, is) = if !options.uid.is_empty() && options.uid != uid {
        ("UID", "deleted and then recreated", &options.uid, uid)
    } else if !options.resource_version.is_empty() && options.resource_version != version {
        ("ResourceVersion", "modified", &options.resource_version, version)
    } else {
        return Ok(());
    };
    let row = &served.row;
    if let Some(words) = special::precondition_words(served) {
        let why = format!("{words}: {field} in precondition: {wanted}, {field} in object meta: {is}");
        return Err(Status::conflict(&row.qualified(), object::name(old), &why));
    }
    let why = format!(
        "the {field} in the precondition ({wanted}) does not match the {field} in record ({is}). The object might have been {record}"
    );
    // Here upstream speaks of the kind, not of the resource.
    let kind = match create::told_group(&row.kind()) {
        "" => row.kind.to_string(),
        group => format!("{}.{group}", row.kind),
    };
    Err(Status::conflict(&kind, object::name(old), &why))
}

async fn admit(
    core: &Core,
    call: &Call,
    namespace: &str,
    name: &str,
    old: &Arc<Value>,
    options: &DeleteOptions,
) -> Result<(), Status> {
    let mut review = admit::review(
        call,
        Subject {
            operation: Operation::Delete,
            kind: call.served.row.kind(),
            name: name.into(),
            object: Value::Null,
            old: old.clone(),
            options: Options::Delete(options.tree.clone()),
            dry_run: options.dry_run,
        },
    );
    review.namespace = namespace.into();
    review.subresource = String::new();
    admit::mutate(core, call, &mut review).await?;
    admit::validate(core, call, &review).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2030-01-01T00:01:00Z";

    fn deleted(metadata: &Value, asked: Option<i64>) -> (Value, Grace) {
        let mut pod = json!({"metadata": metadata, "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 30}});
        let grace = grace_of_pod(&mut pod, asked, NOW.parse().expect("a time"));
        (pod["metadata"].clone(), grace)
    }

    #[test]
    fn a_grace_period_begins_once_and_is_only_ever_shortened() {
        let (marked, grace) = deleted(&json!({"generation": 1}), None);
        assert_eq!(grace, Grace::Seconds(30));
        let ends_later =
            json!({"generation": 2, "deletionGracePeriodSeconds": 30, "deletionTimestamp": "2030-01-01T00:01:30Z"});
        assert_eq!(marked, ends_later);
        assert_eq!(deleted(&marked, None), (marked.clone(), Grace::Running));
        assert_eq!(deleted(&marked, Some(30)).1, Grace::Running);
        let (shorter, grace) = deleted(&marked, Some(10));
        assert_eq!(grace, Grace::Seconds(10));
        assert_eq!(shorter["deletionTimestamp"], "2030-01-01T00:01:10Z");
    }

    #[test]
    fn a_grace_period_that_would_be_over_ends_now_with_one_last_second() {
        let overdue = json!({"deletionGracePeriodSeconds": 30, "deletionTimestamp": "2030-01-01T00:00:20Z"});
        let (left, grace) = deleted(&overdue, Some(5));
        assert_eq!((&left["deletionTimestamp"], &left["deletionGracePeriodSeconds"]), (&json!(NOW), &json!(1)));
        assert_eq!(grace, Grace::Seconds(5));
        assert_eq!(deleted(&overdue, Some(0)).1, Grace::Seconds(0));
    }

    #[test]
    fn finalizers_that_are_as_the_request_wants_them_keep_their_order() {
        let mut tree = json!({"metadata": {"finalizers": ["orphan", "example.com/a"]}});
        set_finalizer(&mut tree, Some(ORPHAN));
        assert_eq!(tree["metadata"]["finalizers"], json!(["orphan", "example.com/a"]));
        set_finalizer(&mut tree, Some(FOREGROUND));
        assert_eq!(tree["metadata"]["finalizers"], json!(["example.com/a", "foregroundDeletion"]));
        set_finalizer(&mut tree, None);
        assert_eq!(tree["metadata"]["finalizers"], json!(["example.com/a"]));
    }
}
