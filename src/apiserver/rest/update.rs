//! PUT, and what every change of an existing object has in common.
//!
//! Owns: optimistic concurrency, the fields no client may change, writes that change nothing, and the deletion that
//! the last removed finalizer completes.
//! Called by: `rest`; patch, apply, scale, evictions and bindings for `Change`.
//! Never: overwrites what the client has not seen, when it said what it has seen.

use std::sync::Arc;

use http::Response;
use minik_api::warnings::{self, Occasion};
use minik_api::{FieldError, Status, object, strategy, validation};
use minik_store::{Entry, Error, Write};
use parking_lot::Mutex;
use serde_json::Value;

use crate::admission::{Operation, Options};
use crate::body::Body;
use crate::call::{Call, WriteOptions, now};
use crate::custom::conversion;
use crate::rest::admit::{self, Subject};
use crate::rest::create::{self, NewObject, Outcome, Track, default, note, respond, store_failure, to_stored};
use crate::rest::face::{self, Face};
use crate::rest::owners::{self, Found};
use crate::rest::special;
use crate::server::Core;
use crate::{contents, decode, reply, stored};

/// How often a change that names no version is tried again when somebody else was faster.
const ATTEMPTS_MAX: usize = 16;
const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

pub async fn update(core: &Arc<Core>, call: &Call) -> Result<Response<Body>, Status> {
    let options = WriteOptions::of(call, "UpdateOptions")?;
    let kind = call.kind();
    let wanted = || -> Result<Value, Status> {
        let mut tree = decode::body(call, &kind, options.validation)?;
        decode::check_namespace(&mut tree, call.object_namespace())?;
        if object::name(&tree).is_empty() {
            let url = &call.info.name;
            let why = format!("the name of the object ({url} based on URL) was undeterminable: name must be provided");
            return Err(Status::bad_request(why));
        }
        check_name(call, &mut tree)?;
        default(&kind, &mut tree);
        owners::once(call, &mut tree, Found::InRequest);
        Ok(tree)
    };
    let face = Face::of(call);
    let first = Mutex::new(Some(wanted()?));
    // So seldom a second time that it is read again; no other update has to keep a copy for it.
    let rewrite = |_: &Value| first.lock().take().map_or_else(&wanted, Ok);
    let change = Change { face, options: &options, track: Track::Update, rewrite: &rewrite };
    match change.apply(core, call).await {
        Err(status) if status.code == 404 && face == Face::Whole && call.served.row.create_on_update => {
            let tree = rewrite(&Value::Null)?;
            if !object::uid(&tree).is_empty() || !object::resource_version(&tree).is_empty() {
                return Err(status);
            }
            let new = NewObject { tree, shares_labels: false };
            let outcome = create::insert(core, call, &options, new, Track::Update).await?;
            Ok(respond(call, 201, outcome))
        }
        outcome => Ok(shown(call, face, 200, outcome?)),
    }
}

pub fn check_name(call: &Call, tree: &mut Value) -> Result<(), Status> {
    let (said, url) = (object::name(tree), &call.info.name);
    if said.is_empty() {
        tree["metadata"]["name"] = url.as_str().into();
    } else if said != url {
        let message = format!("the name of the object ({said}) does not match the name on the URL ({url})");
        return Err(Status::bad_request(message));
    }
    Ok(())
}

/// The answer to a change, as the face that was written to.
pub fn shown(call: &Call, face: Face, code: u16, outcome: Outcome) -> Response<Body> {
    if face != Face::Scale {
        return respond(call, code, outcome);
    }
    let whole = match outcome {
        Outcome::Stored(entry) => reply::served_tree(&call.served, &entry),
        Outcome::Shown(tree) => tree,
    };
    reply::scale(call, code, &call.served, &face::scale_of(&call.served, &whole))
}

/// One change of an existing object.
pub struct Change<'a> {
    pub face: Face,
    pub options: &'a WriteOptions,
    pub track: Track,
    /// What the face should become, given what it is; called again when somebody else was faster.
    pub rewrite: &'a (dyn Fn(&Value) -> Result<Value, Status> + Send + Sync),
}

enum Try {
    Done(Outcome),
    Again,
}

impl Change<'_> {
    /// To the object that the call names.
    pub async fn apply(&self, core: &Arc<Core>, call: &Call) -> Result<Outcome, Status> {
        for _ in 0..ATTEMPTS_MAX {
            match self.attempt(core, call).await? {
                Try::Done(outcome) => return Ok(outcome),
                Try::Again => {}
            }
        }
        Err(Status::conflict(&call.served.row.qualified(), &call.info.name, MODIFIED))
    }

    async fn attempt(&self, core: &Arc<Core>, call: &Call) -> Result<Try, Status> {
        let key = call.served.key(&call.info.namespace, &call.info.name);
        let entry = core.store.get(&key).ok_or_else(|| call.not_found())?;
        let entry = conversion::entry(core.objects.as_ref(), &call.served, entry).await?;
        let old = Arc::new(reply::served_tree(&call.served, &entry));
        let shown = match self.face {
            Face::Scale => Arc::new(face::owned_scale_of(&call.served, &old)),
            _ => old.clone(),
        };
        let mut written = (self.rewrite)(&shown)?;
        check_version(call, &written, &old)?;
        // Before admission: what admission adds belongs to nobody.
        match (self.track, self.face) {
            (Track::Update, Face::Whole) => note(call, Some(&old), &mut written, self.options, ""),
            (Track::Update, Face::Scale) => create::note_scale(&shown, &mut written, self.options),
            _ => {}
        }
        let mut review = admit::review(call, self.subject(call, written, &shown));
        admit::mutate(core, call, &mut review).await?;
        owners::once(call, &mut review.object, Found::AfterAdmission);
        let uid = object::uid(&review.object).to_string();
        let mut new = self.face.merge(&call.served, &old, std::mem::take(&mut review.object))?;
        if !uid.is_empty() {
            // Whichever part is written: who means another object by that name must not write this one.
            new["metadata"]["uid"] = uid.into();
        }
        keep_identity(&mut new, &old);
        if self.track == Track::Update && !matches!(self.face, Face::Whole | Face::Scale) {
            note(call, Some(&old), &mut new, self.options, self.face.subresource());
        }
        if self.face == Face::Status {
            // After that: the moment is the server's, so nobody owns it.
            strategy::note_phase(&call.served.row, &mut new, &old, &now());
        }
        // As for a new object, what is taken is told before anything else.
        let writes = special::allocate(core, call, &mut new, Some(&old), self.options.dry_run)?;
        self.check(call, &new, &old)?;
        let (object, whole) = match self.face {
            Face::Scale => (face::scale_of(&call.served, &new), Some(new)),
            _ => (new, None),
        };
        let review = admit::review(call, self.subject(call, object, &old));
        admit::validate(core, call, &review).await?;
        self.write(core, call, &entry, &old, whole.unwrap_or(review.object), writes).await
    }

    fn subject(&self, call: &Call, object: Value, old: &Arc<Value>) -> Subject {
        Subject {
            operation: Operation::Update,
            kind: call.kind(),
            name: call.info.name.clone(),
            object,
            old: old.clone(),
            options: Options::Write(self.options.clone()),
            dry_run: self.options.dry_run,
        }
    }

    fn check(&self, call: &Call, new: &Value, old: &Value) -> Result<(), Status> {
        let kind = call.served.row.kind();
        let custom = call.served.custom();
        let faults = match self.face {
            _ if custom.is_some() => {
                let mut faults = validation::custom(new, Some(old), call.served.row.is_namespaced());
                let (broken, warnings) = custom.map(|c| c.validate(new, Some(old))).unwrap_or_default();
                warnings.into_iter().for_each(|text| call.warn(text));
                faults.extend(broken);
                faults
            }
            Face::Whole => {
                let mut faults = validation::update(&kind.group, &kind.version, &kind.kind, new, old);
                contents::check(&kind, Face::Whole, new, Some(old), &mut faults);
                faults
            }
            face => {
                let sub = face.subresource();
                let mut faults = validation::update_subresource(&kind.group, &kind.version, &kind.kind, sub, new, old);
                contents::check(&kind, face, new, Some(old), &mut faults);
                faults
            }
        };
        if faults.is_empty() {
            let occasion = match self.face {
                Face::Whole | Face::Scale => Some(Occasion::Update { old }),
                Face::Status => Some(Occasion::Status),
                _ => None,
            };
            let told = occasion.map(|occasion| warnings::of(&call.served.row, occasion, new)).unwrap_or_default();
            told.into_iter().for_each(|text| call.warn(text));
            return Ok(());
        }
        Err(Status::invalid(create::told_group(&kind), &kind.kind, &call.info.name, &faults))
    }

    async fn write(
        &self,
        core: &Arc<Core>,
        call: &Call,
        entry: &Entry,
        old: &Value,
        mut new: Value,
        mut writes: Vec<Write>,
    ) -> Result<Try, Status> {
        create::settle(&call.served, &mut new);
        if new == *old && !special::is_written_anew(&call.served, entry) {
            return Ok(Try::Done(Outcome::Stored(entry.clone())));
        }
        let vanishes = completes_deletion(&new, old) && special::may_vanish(call, &new);
        if self.options.dry_run {
            return Ok(Try::Done(Outcome::Shown(new)));
        }
        let key = entry.key.to_string();
        let last = vanishes.then(|| new.clone());
        if vanishes {
            writes = special::release(call, old);
            writes.insert(0, Write::Delete { key, expected: Some(entry.modified) });
        } else {
            let value = stored::encode(&to_stored(core, call, new).await?);
            writes.insert(0, Write::Update { key, expected: entry.modified, value });
        }
        match core.write(&call.served, writes).await {
            Ok(mut entries) => Ok(Try::Done(match last {
                Some(tree) => Outcome::Shown(tree),
                None => {
                    let entry = entries.swap_remove(0);
                    Outcome::Stored(conversion::entry(core.objects.as_ref(), &call.served, entry).await?)
                }
            })),
            Err(Error::Conflict { .. } | Error::Exists { .. }) => Ok(Try::Again),
            Err(Error::NotFound { .. }) => Err(call.not_found()),
            Err(error) => Err(store_failure(&error)),
        }
    }
}

/// What the client says it has seen must be what is there.
fn check_version(call: &Call, written: &Value, old: &Value) -> Result<(), Status> {
    let row = &call.served.row;
    let uid = object::uid(written);
    // Of a patch, the uid is one of the fields that may not change.
    if call.info.verb != "patch" && !uid.is_empty() && uid != object::uid(old) {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", object::uid(old));
        return Err(Status::conflict(&row.qualified(), &call.info.name, &why));
    }
    let version = object::resource_version(written);
    if !version.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Status::new(500, "", format!("strconv.ParseUint: parsing {version:?}: invalid syntax")));
    }
    if version.is_empty() || version == "0" {
        if row.unconditional_update {
            return Ok(());
        }
        let mut fault =
            FieldError::invalid("metadata.resourceVersion", &Value::Null, "must be specified for an update");
        fault.value = Some("0".into());
        return Err(Status::invalid(&row.group, &row.plural, &call.info.name, &[fault]));
    }
    if version != object::resource_version(old) {
        return Err(Status::conflict(&row.qualified(), &call.info.name, MODIFIED));
    }
    Ok(())
}

/// What no client changes. Some of it is put back whatever was said, the rest only where nothing was said: validation
/// refuses another value.
fn keep_identity(new: &mut Value, old: &Value) {
    const KEPT: [&str; 2] = ["creationTimestamp", "resourceVersion"];
    let Some(metadata) = new["metadata"].as_object_mut() else { return };
    metadata.remove("selfLink");
    for field in KEPT {
        match old["metadata"].get(field) {
            Some(value) => drop(metadata.insert(field.into(), value.clone())),
            None => drop(metadata.remove(field)),
        }
    }
    for field in ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let is_said = metadata.get(field).is_some_and(|said| !said.is_null() && said != "");
        let said_for_good = field == "deletionTimestamp" && object::is_deleting(old);
        match old["metadata"].get(field) {
            Some(value) if !is_said || said_for_good => drop(metadata.insert(field.into(), value.clone())),
            None if !is_said => drop(metadata.remove(field)),
            _ => {}
        }
    }
}

/// Whether the object waits for nothing but this write to disappear.
fn completes_deletion(new: &Value, old: &Value) -> bool {
    object::is_deleting(old)
        && object::finalizers(new).next().is_none()
        && old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}
