//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply.
//!
//! Owns: which of them a content type means, and how a patched object is read again.
//! Called by: `rest`.
//! Never: knows how a patch works; `minik_api` does.

use std::sync::Arc;

use http::Response;
use minik_api::patch::{json, merge, strategic};
use minik_api::registry::GroupVersionKind;
use minik_api::schema::Type;
use minik_api::structure::Structure;
use minik_api::{FieldError, Status, apply, decode, object, strategy};
use serde_json::Value;

use crate::body::Body;
use crate::call::{Call, FieldValidation, WriteOptions, now};
use crate::decode::unsupported;
use crate::rest::create::{self, NewObject, Track, default, respond};
use crate::rest::face::Face;
use crate::rest::update::{Change, shown};
use crate::server::Core;
use crate::stored;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// The router's refusal of a content type that no route of a built-in kind takes.
fn unroutable() -> Status {
    Status::of_route(415, "UnsupportedMediaType", "415: Unsupported Media Type")
}

enum Kind {
    Json(Value),
    Merge(Value),
    Strategic(Value),
}

pub async fn patch(core: &Arc<Core>, call: &Call) -> Result<Response<Body>, Status> {
    let is_custom = call.served.custom().is_some();
    let accepted: &[&str] = if is_custom { &[JSON, MERGE, APPLY] } else { &[JSON, MERGE, STRATEGIC, APPLY] };
    let content_type = call.content_type();
    if !accepted.contains(&content_type) {
        return Err(if is_custom { unsupported(accepted) } else { unroutable() });
    }
    let options = WriteOptions::of(call, "PatchOptions")?;
    if content_type == APPLY {
        return apply_patch(core, call, &options).await;
    }
    let tree: Value = serde_json::from_slice(&call.body).map_err(|_| Status::bad_request("invalid JSON patch"))?;
    if content_type == JSON && !tree.is_array() {
        let what = if tree.is_object() { "object" } else { "value" };
        let why = format!("json: cannot unmarshal {what} into Go value of type []handlers.jsonPatchOp");
        return Err(Status::bad_request(format!("error decoding patch: {why}")));
    }
    let patch = match content_type {
        JSON => Kind::Json(tree),
        MERGE => Kind::Merge(tree),
        _ => Kind::Strategic(tree),
    };
    let face = Face::of(call);
    let rewrite = |current: &Value| patched(call, &options, &patch, current);
    let change = Change { face, options: &options, track: Track::Update, rewrite: &rewrite };
    Ok(shown(call, face, 200, change.apply(core, call).await?))
}

/// The object as the patch leaves it, read again as if it had been sent whole.
fn patched(call: &Call, options: &WriteOptions, patch: &Kind, current: &Value) -> Result<Value, Status> {
    let tree = match patch {
        Kind::Json(patch) => json::apply(current, patch)?,
        Kind::Merge(patch) => {
            if !patch.is_object() {
                return Err(Status::bad_request(
                    "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
                ));
            }
            merge::apply(current, patch)
        }
        Kind::Strategic(patch) => strategic::apply_to(current, patch, structure(call))?,
    };
    let mut tree = reread(call, &call.kind(), tree, options.validation)?;
    same_object(call, &tree)?;
    default(&call.kind(), &mut tree);
    // A patch that does not speak of the version applies to whatever is there.
    Ok(tree)
}

fn structure(call: &Call) -> Structure<'_> {
    let kind = call.kind();
    if kind == call.served.row.kind() {
        return call.served.structure();
    }
    Structure::of(&minik_api::registry::api_version(&kind.group, &kind.version), &kind.kind)
}

/// Back into the shape of its type: unknown fields go, quantities and times get their one spelling.
fn reread(call: &Call, kind: &GroupVersionKind, tree: Value, validation: FieldValidation) -> Result<Value, Status> {
    let sent = tree.clone();
    let refuse = |why: &str| refuse(&sent, why);
    let is_custom = call.served.custom().is_some() && *kind == call.served.row.kind();
    let of = Type::of_kind(&kind.group, &kind.version, &kind.kind).filter(|_| !is_custom);
    let (tree, strict) = match (of, call.served.custom()) {
        (Some(of), _) => {
            let decoded = decode::from_value(of, tree).map_err(|e| refuse(&e.to_string()))?;
            (decoded.object, decoded.strict)
        }
        (None, Some(custom)) => {
            let mut tree = tree;
            let strict = custom.read(&mut tree).map_err(|e| refuse(&e))?;
            (tree, strict)
        }
        (None, None) => (tree, Vec::new()),
    };
    crate::decode::strictly(call, &strict, validation, refuse)?;
    Ok(tree)
}

/// 422 about the patch as a whole: it leads to an object that cannot be.
fn refuse(patched: &Value, why: &str) -> Status {
    let text = String::from_utf8_lossy(&stored::to_json(patched)).into_owned();
    Status::invalid("", "", "", &[FieldError::invalid("patch", &text.into(), why)])
}

fn same_object(call: &Call, tree: &Value) -> Result<(), Status> {
    let (said, url) = (object::name(tree), &call.info.name);
    if said.is_empty() {
        let message = format!("the name of the object ({url} based on URL) was undeterminable: name must be provided");
        return Err(Status::bad_request(message));
    }
    if said != url {
        let message = format!("the name of the object ({said}) does not match the name on the URL ({url})");
        return Err(Status::bad_request(message));
    }
    if object::namespace(tree) != call.object_namespace() {
        let message = "the namespace of the object does not match the namespace on the URL";
        return Err(Status::bad_request(message));
    }
    Ok(())
}

async fn apply_patch(core: &Arc<Core>, call: &Call, options: &WriteOptions) -> Result<Response<Body>, Status> {
    let applied = applied_configuration(call, options)?;
    let face = Face::of(call);
    let kind = call.kind();
    let merged = |live: Option<&Value>| -> Result<Value, Status> {
        let (manager, subresource) = (&options.field_manager, face.subresource());
        let ignored = match call.served.custom().filter(|_| face != Face::Scale) {
            None => apply::ignored_fields(&applied, subresource),
            Some(_) => create::ignored_fields(call, subresource),
        };
        let api_version = applied["apiVersion"].as_str().unwrap_or_default();
        let write = apply::Write { manager, api_version, subresource, now: &now(), ignored };
        let tree = apply::apply_to(live, &applied, options.force, structure(call), &write)?;
        let mut tree = reread(call, &kind, tree, FieldValidation::Ignore)?;
        crate::decode::check_namespace(&mut tree, call.object_namespace())?;
        default(&kind, &mut tree);
        Ok(tree)
    };
    let rewrite = |live: &Value| merged(Some(live));
    let change = Change { face, options, track: Track::Done, rewrite: &rewrite };
    match change.apply(core, call).await {
        Err(status) if status.code == 404 && face == Face::Whole => {
            if !object::uid(&applied).is_empty() {
                let why = format!(
                    "uid mismatch: the provided object specified uid {}, and no existing object was found",
                    object::uid(&applied)
                );
                return Err(Status::conflict(&call.served.row.qualified(), &call.info.name, &why));
            }
            let shares_labels = strategy::shares_labels(&call.served.row, &applied);
            let new = NewObject { tree: merged(None)?, shares_labels };
            let outcome = create::insert(core, call, options, new, Track::Done).await?;
            Ok(respond(call, 201, outcome))
        }
        outcome => Ok(shown(call, face, 200, outcome?)),
    }
}

/// The body of an apply: only what the manager says, so it is checked against the type but not completed by it.
fn applied_configuration(call: &Call, options: &WriteOptions) -> Result<Value, Status> {
    let mut tree: Value =
        crate::decode::yaml(&call.body).map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))?;
    if !tree.is_object() {
        return Err(Status::bad_request("error decoding YAML: the body is no object"));
    }
    let kind = call.kind();
    let expected = minik_api::registry::api_version(&kind.group, &kind.version);
    let said = |field: &str| tree[field].as_str().unwrap_or("").to_string();
    if said("apiVersion") == expected && !said("kind").is_empty() && said("kind") != *kind.kind {
        let version = if kind.group.is_empty() { format!("/{expected}") } else { expected };
        return Err(Status::bad_request(format!("invalid object type: {version}, Kind={}", said("kind"))));
    }
    if said("kind") != *kind.kind || said("apiVersion") != expected {
        let message = format!(
            "Incorrect version specified in apply patch. Specified patch version: {}, expected: {expected}",
            said("apiVersion")
        );
        return Err(Status::bad_request(message));
    }
    if tree["metadata"].get("managedFields").is_some_and(|m| m.as_array().is_none_or(|a| !a.is_empty())) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    if !tree["metadata"].is_object() {
        tree["metadata"] = Value::Object(Default::default());
    }
    crate::rest::update::check_name(call, &mut tree)?;
    // Only checked: what the applier did not say shows in messages about what it did.
    crate::decode::check_namespace(&mut tree.clone(), call.object_namespace())?;
    if let Some(fault) = crate::decode::repeated_key(&call.body) {
        let fault = format!("error converting YAML to JSON: {fault}");
        match options.validation {
            FieldValidation::Strict => {
                return Err(Status::bad_request(format!("error strict decoding patch: {fault}")));
            }
            FieldValidation::Warn => call.warn(fault),
            FieldValidation::Ignore => {}
        }
    }
    // What the schema does not know, apply itself refuses, whatever the client wants validated.
    if let Err(status) = reread(call, &kind, tree.clone(), FieldValidation::Ignore) {
        apply::check(&tree, structure(call))?;
        return Err(status);
    }
    Ok(tree)
}
