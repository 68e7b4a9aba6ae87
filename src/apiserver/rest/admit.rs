//! A write's meeting with admission.
//!
//! Owns: how a call becomes a `Review`.
//! Called by: every write.
//! Never: decides.

use std::sync::Arc;

use minik_api::registry::GroupVersionKind;
use minik_api::schema::Type;
use minik_api::{Status, decode};
use parking_lot::Mutex;
use serde_json::Value;

use crate::admission::{Operation, Options, Review};
use crate::call::Call;
use crate::server::Core;

/// What of a review differs from one write of a call to another.
pub struct Subject {
    pub operation: Operation,
    pub kind: GroupVersionKind,
    pub name: String,
    pub object: Value,
    pub old: Arc<Value>,
    pub options: Options,
    pub dry_run: bool,
}

pub fn review(call: &Call, subject: Subject) -> Review {
    let whole = call.served.custom().is_some() && subject.kind == call.served.row.kind();
    let served = whole.then(|| call.served.clone());
    Review {
        user: call.user.clone(),
        operation: subject.operation,
        kind: subject.kind,
        group: call.info.group.clone(),
        version: call.info.version.clone(),
        resource: call.info.resource.clone(),
        subresource: call.info.subresource.clone(),
        namespace: call.info.namespace.clone(),
        name: subject.name,
        object: subject.object,
        old: subject.old,
        rewritten: false,
        options: subject.options,
        dry_run: subject.dry_run,
        warnings: Mutex::default(),
        annotations: Mutex::default(),
        served,
    }
}

/// Moves what plugins warned about to the call, and what they annotated to the audit log.
fn pass_warnings(call: &Call, review: &Review) {
    if let Some(trail) = &call.trail {
        review.annotations.lock().iter().for_each(|(key, value)| trail.annotate(key, value));
    }
    for text in review.warnings.lock().drain(..) {
        call.warn(text);
    }
}

pub async fn mutate(core: &Core, call: &Call, review: &mut Review) -> Result<(), Status> {
    let outcome = core.admission.mutate(review).await;
    pass_warnings(call, review);
    outcome?;
    // Plugins leave nulls, and policies and webhooks also spellings, that reading into the type would not.
    if !review.rewritten && !has_null(&review.object) {
        return Ok(());
    }
    let kind = &review.kind;
    let is_custom = call.served.custom().is_some() && *kind == call.served.row.kind();
    let of = Type::of_kind(&kind.group, &kind.version, &kind.kind).filter(|_| !is_custom && review.object.is_object());
    if let Some(of) = of {
        let tree = std::mem::take(&mut review.object);
        review.object = decode::from_value(of, tree).map_err(|e| Status::internal(e.to_string()))?.object;
    }
    Ok(())
}

fn has_null(tree: &Value) -> bool {
    match tree {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(fields) => fields.values().any(has_null),
        _ => false,
    }
}

pub async fn validate(core: &Core, call: &Call, review: &Review) -> Result<(), Status> {
    let outcome = core.admission.validate(review).await;
    pass_warnings(call, review);
    outcome
}
