//! POST: a new object.
//!
//! Owns: system metadata, generated names, and the order decode, default, admit, prepare, validate, store.
//! Called by: `rest`; update and apply, when they may create what is not there.
//! Never: overwrites.

use std::sync::Arc;

use http::Response;
use minik_api::registry::GroupVersionKind;
use minik_api::structure::Structure;
use minik_api::warnings::{self, Occasion};
use minik_api::{Status, apply, convert, defaulting, object, strategy, validation};
use minik_store::{Entry, Error, Write};
use rand::Rng;
use serde_json::Value;
use uuid::Uuid;

use crate::admission::{Operation, Options};
use crate::body::Body;
use crate::call::{Call, WriteOptions, now};
use crate::catalog::Served;
use crate::custom::conversion;
use crate::rest::admit::{self, Subject};
use crate::rest::face::Face;
use crate::rest::owners::{self, Found};
use crate::rest::special;
use crate::server::Core;
use crate::{contents, decode, reply, stored};

/// Names that a client leaves to the server end in this many random letters.
const SUFFIX_LENGTH: usize = 5;
/// What a generated name is cut to, so that the whole of it is no longer than a DNS label.
const BASE_LENGTH_MAX: usize = 63 - SUFFIX_LENGTH;
/// Without vowels and what looks alike, so that no words come out.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Upstream tries as often when what was chosen for an object is taken.
const ATTEMPTS_MAX: usize = 8;

/// What a write came to.
pub enum Outcome {
    Stored(Entry),
    /// A dry run, or the last state of what the write made disappear.
    Shown(Value),
}

pub fn respond(call: &Call, code: u16, outcome: Outcome) -> Response<Body> {
    match outcome {
        Outcome::Stored(entry) => reply::entry(call, code, &call.served, &entry),
        Outcome::Shown(tree) => reply::object(call, code, &call.served, &tree),
    }
}

pub async fn create(core: &Arc<Core>, call: &Call) -> Result<Response<Body>, Status> {
    let options = WriteOptions::of(call, "CreateOptions")?;
    let kind = call.kind();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let mut tree = decode::body(call, &kind, options.validation)?;
        decode::check_namespace(&mut tree, call.object_namespace())?;
        let shares_labels = strategy::shares_labels(&call.served.row, &tree);
        default(&kind, &mut tree);
        if !call.served.row.is_stored() {
            return special::answer(core, call, tree).await;
        }
        owners::once(call, &mut tree, Found::InRequest);
        let generated = object::name(&tree).is_empty();
        match insert(core, call, &options, NewObject { tree, shares_labels }, Track::Update).await {
            Ok(outcome) => return Ok(respond(call, 201, outcome)),
            // So seldom that it begins anew with the body; no other create has to keep a copy for it.
            Err(Failure::Taken(_)) if generated && attempts < ATTEMPTS_MAX => {}
            Err(failure) => return Err(failure.into()),
        }
    }
}

pub fn default(kind: &GroupVersionKind, tree: &mut Value) {
    defaulting::apply(&kind.group, &kind.version, &kind.kind, tree);
    convert::renew_carriers(tree);
    special::note_times(kind, tree);
}

/// Whether the write has to be noted in the managed fields, or apply has done so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Track {
    Update,
    Done,
}

/// An object to be, decoded and defaulted.
pub struct NewObject {
    pub tree: Value,
    /// Its labels are those of its template (`strategy::shares_labels`).
    pub shares_labels: bool,
}

pub enum Failure {
    /// The name is.
    Taken(Status),
    Refused(Status),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Failure::Refused(status)
    }
}

impl From<Failure> for Status {
    fn from((Failure::Taken(status) | Failure::Refused(status)): Failure) -> Self {
        status
    }
}

pub async fn insert(
    core: &Arc<Core>,
    call: &Call,
    options: &WriteOptions,
    new: NewObject,
    track: Track,
) -> Result<Outcome, Failure> {
    let NewObject { mut tree, shares_labels } = new;
    // Before admission and the strategy: what the server adds belongs to nobody.
    if track == Track::Update {
        note(call, None, &mut tree, options, "");
    }
    let mut review = admit::review(call, subject(call, options, tree));
    admit::mutate(core, call, &mut review).await?;
    let (rewritten, mut tree) = (review.rewritten, review.object);
    owners::once(call, &mut tree, Found::AfterAdmission);
    if rewritten {
        default(&call.served.row.kind(), &mut tree);
    }
    // Only what claims something can find it claimed.
    let mut attempts = if special::claims(call) { ATTEMPTS_MAX } else { 1 };
    loop {
        attempts -= 1;
        let spare = (attempts > 0).then(|| tree.clone());
        if let Some(outcome) = attempt(core, call, options, NewObject { tree, shares_labels }).await? {
            return Ok(outcome);
        }
        tree = spare.ok_or_else(|| Status::internal("every address that was tried is taken"))?;
    }
}

fn taken(core: &Core, call: &Call, name: &str) -> Failure {
    let status = Status::already_exists(&call.served.row.qualified(), name);
    let there = core.store.get(&call.served.key(&call.info.namespace, name));
    if there.is_some_and(|entry| object::is_deleting(&stored::decode(&entry))) {
        return Failure::Taken(Status { message: format!("object is being deleted: {}", status.message), ..status });
    }
    Failure::Taken(status)
}

fn subject(call: &Call, options: &WriteOptions, object: Value) -> Subject {
    Subject {
        operation: Operation::Create,
        kind: call.served.row.kind(),
        name: object::name(&object).to_string(),
        object,
        old: Arc::new(Value::Null),
        options: Options::Write(options.clone()),
        dry_run: options.dry_run,
    }
}

/// `None`: an address or a port that was chosen for it is taken.
async fn attempt(
    core: &Arc<Core>,
    call: &Call,
    options: &WriteOptions,
    new: NewObject,
) -> Result<Option<Outcome>, Failure> {
    let NewObject { mut tree, shares_labels } = new;
    let kind = call.served.row.kind();
    born(&mut tree);
    strategy::prepare_create(&call.served.row, &mut tree).into_iter().for_each(|text| call.warn(text));
    if shares_labels {
        strategy::share_labels(&mut tree);
    }
    special::born(call, &mut tree);
    // Upstream claims addresses and ports first, so what is taken is told before anything else.
    let mut writes = special::allocate(core, call, &mut tree, None, options.dry_run)?;
    let faults = match call.served.custom() {
        None => {
            let mut faults = validation::create(&kind.group, &kind.version, &kind.kind, &tree);
            contents::check(&kind, Face::Whole, &tree, None, &mut faults);
            faults
        }
        Some(custom) => {
            let mut faults = validation::custom(&tree, None, call.served.row.is_namespaced());
            let (broken, warnings) = custom.validate(&tree, None);
            warnings.into_iter().for_each(|text| call.warn(text));
            faults.extend(broken);
            faults
        }
    };
    if !faults.is_empty() {
        return Err(Status::invalid(told_group(&kind), &kind.kind, object::name(&tree), &faults).into());
    }
    warnings::of(&call.served.row, Occasion::Create, &tree).into_iter().for_each(|text| call.warn(text));
    let review = admit::review(call, subject(call, options, tree));
    admit::validate(core, call, &review).await?;
    let mut tree = review.object;
    settle(&call.served, &mut tree);
    let name = object::name(&tree).to_string();
    let key = call.served.key(&call.info.namespace, &name);
    if options.dry_run {
        let is_taken = core.store.get(&key).is_some();
        return if is_taken { Err(taken(core, call, &name)) } else { Ok(Some(Outcome::Shown(tree))) };
    }
    let value = stored::encode(&to_stored(core, call, tree).await?);
    writes.insert(0, Write::Create { key: key.clone(), value });
    match core.write(&call.served, writes).await {
        Ok(mut entries) => {
            let entry = conversion::entry(core.objects.as_ref(), &call.served, entries.swap_remove(0)).await?;
            Ok(Some(Outcome::Stored(entry)))
        }
        Err(Error::Exists { key: there }) if there == key => Err(taken(core, call, &name)),
        Err(Error::Exists { .. }) => Ok(None),
        Err(error) => Err(store_failure(&error).into()),
    }
}

/// The group a refusal names: events of either group are core's to upstream.
pub fn told_group(kind: &GroupVersionKind) -> &str {
    if kind.group == "events.k8s.io" { "" } else { &kind.group }
}

/// The form in which an object is kept, which is also what a rehearsal shows.
pub fn settle(served: &Served, tree: &mut Value) {
    if let Some(of) = served.built_in() {
        minik_api::decode::without_empty_lists(of, tree);
    }
}

/// The metadata that only the server gives.
fn born(tree: &mut Value) {
    let base = tree["metadata"]["generateName"].as_str().unwrap_or("").to_string();
    let has_name = !object::name(tree).is_empty();
    let metadata = tree["metadata"].as_object_mut().expect("decoding gave it one");
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "selfLink"] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), now().into());
    if !has_name && !base.is_empty() {
        metadata.insert("name".into(), generated_name(&base, &mut rand::rng()).into());
    }
}

fn generated_name(base: &str, dice: &mut impl Rng) -> String {
    let mut name: String = base.chars().take(BASE_LENGTH_MAX).collect();
    for _ in 0..SUFFIX_LENGTH {
        name.push(ALPHABET[dice.random_range(0..ALPHABET.len())] as char);
    }
    name
}

/// Notes in the managed fields who wrote what.
pub fn note(call: &Call, old: Option<&Value>, new: &mut Value, options: &WriteOptions, subresource: &str) {
    let (manager, api_version) = (&options.field_manager, call.served.row.api_version());
    let now = now();
    match call.served.custom() {
        None => {
            let type_name = call.served.type_name();
            apply::track_update(
                old,
                new,
                manager,
                apply::Operation::Update,
                type_name,
                &api_version,
                subresource,
                &now,
            );
        }
        Some(custom) => {
            let ignored = ignored_fields(call, subresource);
            let write = apply::Write { manager, api_version: &api_version, subresource, now: &now, ignored };
            apply::track_update_of(old, new, custom.structure(), &write);
        }
    }
}

/// As `note`, of a `Scale`, which is its own type whatever it scales.
pub fn note_scale(old: &Value, new: &mut Value, options: &WriteOptions) {
    const API_VERSION: &str = "autoscaling/v1";
    let (manager, now) = (&options.field_manager, now());
    let write = apply::Write { manager, api_version: API_VERSION, subresource: "scale", now: &now, ignored: &[] };
    apply::track_update_of(Some(old), new, Structure::of(API_VERSION, "Scale"), &write);
}

/// Fields of a custom resource that this write cannot change, so nobody comes to own them by it.
pub fn ignored_fields(call: &Call, subresource: &str) -> &'static [&'static str] {
    match subresource {
        "status" => &["spec"],
        "" if call.served.row.subresource("status").is_some() => &["status"],
        _ => &[],
    }
}

/// The object in the version that is stored.
pub async fn to_stored(core: &Core, call: &Call, tree: Value) -> Result<Value, Status> {
    if call.served.is_stored_version() {
        return Ok(tree);
    }
    let wanted = call.served.stored_api_version();
    let mut trees = conversion::trees(core.objects.as_ref(), &call.served, vec![tree], &wanted).await?;
    Ok(convert::convert(trees.swap_remove(0), &wanted))
}

/// What a client sees when the store itself fails.
pub fn store_failure(error: &Error) -> Status {
    Status::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_generated_name_fits_into_a_label_and_keeps_its_base() {
        let mut dice = rand::rngs::StdRng::seed_from_u64(1);
        let name = generated_name("web-", &mut dice);
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        let long = generated_name(&"x".repeat(80), &mut dice);
        assert_eq!(long.len(), 63);
        assert!(long.bytes().skip(58).all(|b| ALPHABET.contains(&b)));
    }
}
