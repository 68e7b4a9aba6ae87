//! What a few kinds do differently from all others.
//!
//! Owns: the list of those differences, one function a moment in the life of an object.
//! Called by: the verbs.
//! Never: grows into a second way of doing what the registry's row can say.

use std::sync::Arc;

use http::Response;
use minik_api::Status;
use minik_store::Write;
use serde_json::{Value, json};

use crate::body::Body;
use crate::call::Call;
use crate::catalog::Served;
use crate::rest::face::Face;
use crate::server::Core;
use crate::services;

fn is(served: &Served, group: &str, kind: &str) -> bool {
    served.row.group == group && served.row.kind == kind
}

/// After the strategy, before validation.
pub fn before_create(call: &Call, tree: &mut Value) {
    if is(&call.served, "", "Namespace") {
        tree["spec"]["finalizers"] = json!(["kubernetes"]);
        tree["status"] = json!({"phase": "Active"});
    }
}

pub fn before_update(call: &Call, face: Face, new: &mut Value, old: &Value) {
    if is(&call.served, "", "Namespace") && face == Face::Whole {
        new["spec"] = old["spec"].clone();
    }
}

/// Addresses and ports that the object needs: set in it, and the writes that claim them.
pub fn allocate(core: &Core, call: &Call, new: &mut Value, old: Option<&Value>) -> Result<Vec<Write>, Status> {
    if is(&call.served, "", "Service") { services::allocate(core, new, old) } else { Ok(Vec::new()) }
}

/// What is given back when the object goes.
pub fn release(call: &Call, old: &Value) -> Vec<Write> {
    if is(&call.served, "", "Service") { services::release(old) } else { Vec::new() }
}

/// A Namespace also waits for its own list of finalizers, in `spec`.
pub fn is_held(served: &Served, tree: &Value) -> bool {
    is(served, "", "Namespace") && tree["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty())
}

pub fn may_vanish(call: &Call, tree: &Value) -> bool {
    !is_held(&call.served, tree)
}

pub fn terminating(served: &Served, tree: &mut Value) {
    if is(served, "", "Namespace") {
        tree["status"]["phase"] = "Terminating".into();
        tree["metadata"].as_object_mut().expect("a stored object has metadata").remove("deletionGracePeriodSeconds");
    }
}

/// Most deletions answer with a `Status`; these show the object.
pub fn shows_what_it_deletes(served: &Served) -> bool {
    let row = &served.row;
    match row.group.as_ref() {
        "" => matches!(
            row.kind.as_ref(),
            "Pod" | "Service" | "Namespace" | "PersistentVolume" | "PersistentVolumeClaim" | "PodTemplate"
                | "ResourceQuota" | "ServiceAccount"
        ),
        "storage.k8s.io" => row.kind != "CSIStorageCapacity",
        "resource.k8s.io" => true,
        _ => false,
    }
}

/// Kinds that are answered and not stored: reviews.
pub async fn answer(core: &Arc<Core>, call: &Call, tree: Value) -> Result<Response<Body>, Status> {
    let _ = (core, tree);
    Err(Status::method_not_allowed(&call.served.row.qualified(), "create"))
}

/// Subresources that are no face of the object: tokens.
pub async fn subresource(core: &Arc<Core>, call: &Call) -> Result<Response<Body>, Status> {
    let _ = core;
    Err(Status::method_not_allowed(&call.served.row.qualified(), &call.info.verb))
}
