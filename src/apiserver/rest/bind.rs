//! Binding a Pod to a Node.
//!
//! Owns: what the scheduler writes when it has decided.
//! Called by: `rest`, for `pods/binding` and for `bindings`.
//! Never: moves a Pod that has a Node.

use std::sync::Arc;

use http::Response;
use minik_api::{FieldError, Status, object};
use minik_store::Error;
use serde_json::{Value, json};

use crate::admission::{Operation, Options};
use crate::body::Body;
use crate::call::{Call, WriteOptions, now};
use crate::rest::admit::{self, Subject};
use crate::rest::create::store_failure;
use crate::server::Core;
use crate::{decode, reply, stored};

/// How often the binding is tried again when somebody else changed the Pod meanwhile.
const ATTEMPTS_MAX: usize = 16;

pub async fn create(core: &Arc<Core>, call: &Call) -> Result<Response<Body>, Status> {
    let options = WriteOptions::of(call, "CreateOptions")?;
    let mut binding = decode::body(call, &call.kind(), options.validation)?;
    decode::check_namespace(&mut binding, &call.info.namespace)?;
    let name = object::name(&binding).to_string();
    if !call.info.name.is_empty() && call.info.name != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    check(&binding, &name)?;
    let mut review = admit::review(
        call,
        Subject {
            operation: Operation::Create,
            kind: call.kind(),
            name: name.clone(),
            object: binding,
            old: Arc::new(Value::Null),
            options: Options::Write(options.clone()),
            dry_run: options.dry_run,
        },
    );
    admit::mutate(core, call, &mut review).await?;
    admit::validate(core, call, &review).await?;
    let key = format!("pods/{}/{name}", call.info.namespace);
    for _ in 0..ATTEMPTS_MAX {
        let entry = core.store.get(&key).ok_or_else(|| Status::not_found("pods", &name))?;
        let bound = bound(stored::decode(&entry), &review.object)?;
        if options.dry_run {
            return Ok(reply::success(&call.accept, 201, None));
        }
        match core.store.update(&key, entry.modified, stored::encode(&bound)).await {
            Ok(_) => return Ok(reply::success(&call.accept, 201, None)),
            Err(Error::Conflict { .. }) => {}
            Err(Error::NotFound { .. }) => return Err(Status::not_found("pods", &name)),
            Err(error) => return Err(store_failure(&error)),
        }
    }
    Err(Status::conflict("pods/binding", &name, "the Pod changes too fast to be bound"))
}

fn check(binding: &Value, name: &str) -> Result<(), Status> {
    let target = &binding["target"];
    let kind = target["kind"].as_str().unwrap_or("");
    let mut faults = Vec::new();
    if !matches!(kind, "" | "Node") {
        faults.push(FieldError::not_supported("target.kind", &kind.into(), &["Node", "<empty>"]));
    }
    if target["name"].as_str().unwrap_or("").is_empty() {
        faults.push(FieldError::required("target.name", ""));
    }
    if faults.is_empty() { Ok(()) } else { Err(Status::invalid("", "Binding", name, &faults)) }
}

/// The Pod on its Node.
fn bound(mut pod: Value, binding: &Value) -> Result<Value, Status> {
    let name = object::name(&pod).to_string();
    let refuse = |why: String| Status::conflict("pods/binding", &name, &why);
    let (uid, version) = (object::uid(binding), object::resource_version(binding));
    if !uid.is_empty() && uid != object::uid(&pod) {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", object::uid(&pod));
        return Err(refuse(why));
    }
    if !version.is_empty() && version != object::resource_version(&pod) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
            object::resource_version(&pod)
        );
        return Err(refuse(why));
    }
    if object::is_deleting(&pod) {
        return Err(refuse(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let node = pod["spec"]["nodeName"].as_str().unwrap_or("");
    if !node.is_empty() {
        return Err(refuse(format!("pod {name} is already assigned to node {node:?}")));
    }
    if object::is_gated(&pod) {
        return Err(refuse(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    for field in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][field].as_object().into_iter().flatten() {
            pod["metadata"][field][key] = value.clone();
        }
    }
    scheduled(&mut pod);
    Ok(pod)
}

fn scheduled(pod: &mut Value) {
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now()});
    let Some(conditions) = pod["status"].get_mut("conditions").and_then(Value::as_array_mut) else {
        pod["status"]["conditions"] = json!([condition]);
        return;
    };
    match conditions.iter_mut().find(|c| c["type"] == "PodScheduled") {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let binding = json!({"metadata": {"annotations": {"a": "b"}}, "target": {"name": "n1"}});
        let pod = bound(json!({"metadata": {"name": "p"}, "spec": {}, "status": {}}), &binding).expect("free");
        assert_eq!((&pod["spec"]["nodeName"], &pod["metadata"]["annotations"]["a"]), (&json!("n1"), &json!("b")));
        assert_eq!(pod["status"]["conditions"][0]["status"], "True");
        let again = bound(pod, &binding).expect_err("bound already");
        let expected = r#"Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n1""#;
        assert_eq!((again.code, again.message.as_str()), (409, expected));
    }
}
