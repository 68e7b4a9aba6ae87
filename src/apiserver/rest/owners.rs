//! `metadata.ownerReferences`: each owner once.
//!
//! Owns: what is dropped, and what is said about it.
//! Called by: writes, before the managed fields are noted and after admission.
//! Never: refuses; validation does.

use serde_json::Value;

use crate::call::Call;

/// When references were found twice.
#[derive(Clone, Copy)]
pub enum Found {
    InRequest,
    AfterAdmission,
}

/// Drops what says the same as another and warns of it.
pub fn once(call: &Call, object: &mut Value, found: Found) {
    let twice = drop_equal(object);
    if twice.is_empty() {
        return;
    }
    let when = match found {
        Found::InRequest => "",
        Found::AfterAdmission => " after mutating admission happens",
    };
    call.warn(format!(
        ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and \
         may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        twice.join(", ")
    ));
}

/// The uids of what was dropped.
fn drop_equal(object: &mut Value) -> Vec<String> {
    let references = object
        .get_mut("metadata")
        .and_then(|metadata| metadata.get_mut("ownerReferences"))
        .and_then(Value::as_array_mut);
    let Some(references) = references.filter(|r| r.len() > 1) else { return Vec::new() };
    let mut twice = Vec::new();
    let mut kept: Vec<Value> = Vec::with_capacity(references.len());
    for reference in references.drain(..) {
        if kept.contains(&reference) {
            twice.push(reference["uid"].as_str().unwrap_or_default().to_string());
        } else {
            kept.push(reference);
        }
    }
    *references = kept;
    twice
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_owner_that_is_named_differently_stays() {
        let (a, b) = (json!({"uid": "1", "name": "a"}), json!({"uid": "1", "name": "a", "controller": true}));
        let mut object = json!({"metadata": {"ownerReferences": [a, b, a, b, a]}});
        assert_eq!(drop_equal(&mut object), ["1", "1", "1"]);
        assert_eq!(object["metadata"]["ownerReferences"], json!([a, b]));
        assert!(drop_equal(&mut json!({"metadata": {}})).is_empty());
    }
}
