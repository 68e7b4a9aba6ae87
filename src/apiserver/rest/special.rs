//! What a few kinds do differently from all others.
//!
//! Owns: the list of those differences, one function a moment in the life of an object.
//! Called by: the verbs.
//! Never: grows into a second way of doing what the registry's row can say.

use std::sync::Arc;

use http::Response;
use jiff::Timestamp;
use minik_api::registry::{self, Dependents, GroupVersionKind};
use minik_api::schema::Type;
use minik_api::wire::time;
use minik_api::{Status, apply, object};
use minik_store::{Entry, Write};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::admission::{Operation, Options};
use crate::body::Body;
use crate::call::{Call, WriteOptions, now};
use crate::catalog::Served;
use crate::rest::admit::{self, Subject};
use crate::rest::delete::{self, DeleteOptions, Deletion};
use crate::rest::face::Face;
use crate::rest::signing;
use crate::server::Core;
use crate::{aggregation, decode, definitions, reply, services};

fn is(served: &Served, group: &str, kind: &str) -> bool {
    served.row.group == group && served.row.kind == kind
}

/// What only the server knows of an object that is being made: who asks for a certificate, that an API which this
/// server serves itself is available, or the name of a LimitRange, the only kind that needs none from its author.
pub fn born(call: &Call, new: &mut Value) {
    if is(&call.served, "apiregistration.k8s.io", "APIService") {
        aggregation::born(new, &now());
    }
    if is_signing_request(&call.served) {
        signing::asked_by(&call.user, new);
    }
    if is(&call.served, "", "LimitRange") && object::name(new).is_empty() {
        new["metadata"]["name"] = Uuid::new_v4().to_string().into();
    }
}

/// Defaults that are the present: since when a device bears a taint.
pub fn note_times(kind: &GroupVersionKind, tree: &mut Value) {
    let note = |taint: &mut Value| {
        if taint.is_object() && taint["timeAdded"].is_null() {
            taint["timeAdded"] = now().into();
        }
    };
    let Some(spec) = tree.get_mut("spec").filter(|_| kind.group == "resource.k8s.io") else { return };
    match kind.kind.as_ref() {
        "DeviceTaintRule" => {
            if let Some(taint) = spec.get_mut("taint") {
                note(taint);
            }
        }
        "ResourceSlice" => {
            for device in spec.get_mut("devices").and_then(Value::as_array_mut).into_iter().flatten() {
                let taints = device.get_mut("taints").and_then(Value::as_array_mut);
                taints.into_iter().flatten().for_each(note);
            }
        }
        _ => {}
    }
}

/// Before a write to a subresource is judged.
pub fn prepare_subresource(served: &Served, face: Face, new: &mut Value, old: &Value) {
    if !is_signing_request(served) {
        return;
    }
    if face == Face::Status {
        signing::keep_decisions(new, old);
    }
    signing::decided(new, old, &now());
}

fn is_signing_request(served: &Served) -> bool {
    is(served, "certificates.k8s.io", "CertificateSigningRequest")
}

/// Addresses and ports that the object needs: set in it, and the writes that claim them.
pub fn allocate(
    core: &Core,
    call: &Call,
    new: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<Vec<Write>, Status> {
    if claims(call) { services::allocate(core, new, old, dry_run) } else { Ok(Vec::new()) }
}

/// Whether the kind needs addresses or ports at all.
pub fn claims(call: &Call) -> bool {
    is(&call.served, "", "Service")
}

/// What is given back when the object goes.
pub fn release(call: &Call, old: &Value) -> Vec<Write> {
    if claims(call) { services::release(old) } else { Vec::new() }
}

/// Upstream keeps a new claim without the phase that readers see: its first update writes that, and is never without
/// effect.
pub fn is_written_anew(served: &Served, entry: &Entry) -> bool {
    is(served, "", "PersistentVolumeClaim") && entry.created == entry.modified
}

/// A Namespace also waits for its own list of finalizers, in `spec`.
fn is_held(served: &Served, tree: &Value) -> bool {
    is(served, "", "Namespace") && tree["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty())
}

fn is_definition(served: &Served) -> bool {
    is(served, "apiextensions.k8s.io", "CustomResourceDefinition")
}

pub fn may_vanish(call: &Call, tree: &Value) -> bool {
    !is_held(&call.served, tree)
}

/// The first deletion of a Namespace or of a definition is not like others': what is in it goes first.
pub fn deletion(served: &Served, old: &Value, options: &DeleteOptions, now: Timestamp) -> Option<Deletion> {
    let is_namespace = is(served, "", "Namespace");
    if is_namespace && object::is_deleting(old) && is_held(served, old) {
        return Some(Deletion::Pending);
    }
    if object::is_deleting(old) || !(is_namespace || is_definition(served)) {
        return None;
    }
    let mut tree = old.clone();
    let now = time::format_seconds(now);
    tree["metadata"]["deletionTimestamp"] = now.as_str().into();
    if is_namespace {
        end_namespace(&mut tree, options)
    } else {
        end_definition(&mut tree, &now)
    }
    Some(Deletion::Mark(Box::new(tree)))
}

fn end_namespace(tree: &mut Value, options: &DeleteOptions) {
    tree["status"]["phase"] = "Terminating".into();
    // Here alone upstream reads dependents that are not to be orphaned as those that go first.
    let wanted = match options.orphan_dependents {
        Some(false) => Some(delete::FOREGROUND),
        _ => delete::finalizer_for(tree, Dependents::Delete, options),
    };
    delete::set_finalizer(tree, wanted);
}

/// Whatever the client asks for, the objects of a definition go first.
fn end_definition(tree: &mut Value, now: &str) {
    let mut finalizers: Vec<&str> = object::finalizers(tree).collect();
    if !finalizers.contains(&definitions::CLEANUP) {
        finalizers.push(definitions::CLEANUP);
    }
    tree["metadata"]["finalizers"] = json!(finalizers);
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    definitions::set_condition(tree, "Terminating", "True", "InstanceDeletionPending", message, now);
}

/// Upstream has hands of their own for the deletion of Namespaces and of definitions, with words of their own for a
/// precondition that fails: what they are before the field's name.
pub fn precondition_words(served: &Served) -> Option<&'static str> {
    if is(served, "", "Namespace") {
        return Some("Precondition failed");
    }
    is_definition(served).then_some("precondition failed")
}

/// Before a deletion: what upstream says when the client leaves open what becomes of a Job's Pods.
pub fn warn_of_deletion(call: &Call, says_what_follows: bool) {
    if is(&call.served, "batch", "Job") && !says_what_follows {
        call.warn(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove \
             them or set propagationPolicy=Orphan to suppress this warning",
        );
    }
}

/// Most deletions answer with a `Status`; these show the object.
pub fn shows_what_it_deletes(served: &Served) -> bool {
    served.row.returns_deleted
}

/// Kinds that are answered and not stored: reviews.
pub async fn answer(core: &Arc<Core>, call: &Call, tree: Value) -> Result<Response<Body>, Status> {
    let row = &call.served.row;
    let tree = admitted(core, call, tree).await?;
    match core.security.review(&call.user, &row.group, &row.plural, &call.info.namespace, tree) {
        Some(answer) => Ok(reply::object(call, 201, &call.served, &answer?)),
        None => Err(Status::method_not_allowed(&row.qualified(), "create")),
    }
}

/// Subresources that are no face of the object: tokens.
pub async fn subresource(core: &Arc<Core>, call: &Call) -> Result<Response<Body>, Status> {
    if !is(&call.served, "", "ServiceAccount") || call.info.subresource != "token" {
        return Err(Status::method_not_allowed(&call.served.row.qualified(), &call.info.verb));
    }
    let options = WriteOptions::of(call, "CreateOptions")?;
    let mut tree = decode::body(call, &call.kind(), options.validation)?;
    crate::rest::create::default(&call.kind(), &mut tree);
    let tree = admitted(core, call, tree).await?;
    let answer = core.security.token_request(&call.info.namespace, &call.info.name, tree)?;
    Ok(reply::object(call, 201, &call.served, &answer))
}

/// What is not stored passes admission all the same.
async fn admitted(core: &Arc<Core>, call: &Call, mut tree: Value) -> Result<Value, Status> {
    let options = WriteOptions::of(call, "CreateOptions")?;
    note_fields(call, &options, &mut tree);
    let subject = Subject {
        operation: Operation::Create,
        kind: call.kind(),
        name: call.info.name.clone(),
        object: tree,
        old: Arc::new(Value::Null),
        options: Options::Write(options.clone()),
        dry_run: options.dry_run,
    };
    let mut review = admit::review(call, subject);
    admit::mutate(core, call, &mut review).await?;
    admit::validate(core, call, &review).await?;
    Ok(review.object)
}

/// Nothing of it is stored, and yet the answer says who has set which field.
fn note_fields(call: &Call, options: &WriteOptions, tree: &mut Value) {
    let kind = call.kind();
    let Some(of) = Type::of_kind(&kind.group, &kind.version, &kind.kind) else { return };
    let (manager, api_version) = (&options.field_manager, registry::api_version(&kind.group, &kind.version));
    let (name, subresource) = (of.openapi_name(), &call.info.subresource);
    apply::track_update(None, tree, manager, apply::Operation::Update, &name, &api_version, subresource, &now());
}
