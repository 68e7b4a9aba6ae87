//! RuntimeClass: what a pod's runtime costs and where it runs.
//!
//! Owns: overhead, node selector and tolerations that a RuntimeClass brings into its pods.
//! Called by: the admission chain for new pods.
//! Never: chooses a runtime; the kubelet does by the class's handler.

use std::sync::Arc;

use minik_api::quantity::Quantity;
use minik_api::{Status, resources};
use serde_json::{Value, json};

use super::plugin::{Plugin, World};
use super::{Operation, Review};

pub struct RuntimeClass;

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

impl Plugin for RuntimeClass {
    fn mutate(&self, review: &mut Review, world: &World) -> Result<(), Status> {
        let Some(class) = class_of(review, world)? else { return Ok(()) };
        let overhead = &class["overhead"]["podFixed"];
        if class["overhead"].is_object() {
            let own = &review.object["spec"]["overhead"];
            if own.as_object().is_some_and(|o| !o.is_empty()) && !same(own, overhead) {
                return Err(review.forbid(MISMATCH));
            }
            review.object["spec"]["overhead"] = overhead.clone();
        }
        set_scheduling(review, &class["scheduling"])
    }

    fn validate(&self, review: &Review, world: &World) -> Result<(), Status> {
        if review.operation != Operation::Create || !review.is("", "pods", "") {
            return Ok(());
        }
        let class = class_of(review, world)?.filter(|class| class["overhead"].is_object());
        let own = &review.object["spec"]["overhead"];
        match class {
            Some(class) if !same(own, &class["overhead"]["podFixed"]) => Err(review.forbid(MISMATCH)),
            None if !own.is_null() => {
                Err(review.forbid("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
            }
            _ => Ok(()),
        }
    }
}

fn class_of(review: &Review, world: &World) -> Result<Option<Arc<Value>>, Status> {
    if review.operation != Operation::Create || !review.is("", "pods", "") {
        return Ok(None);
    }
    let Some(name) = review.object["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
    match world.objects.get(resources::RUNTIMECLASSES, "", name) {
        Some(class) => Ok(Some(class)),
        None => Err(review.forbid(&format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

/// The same amounts, however they are written.
fn same(a: &Value, b: &Value) -> bool {
    let (empty, none) = (serde_json::Map::new(), serde_json::Map::new());
    let (a, b) = (a.as_object().unwrap_or(&empty), b.as_object().unwrap_or(&none));
    let amount = |v: &Value| Quantity::from_json(v).ok();
    a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| amount(value) == amount(other)))
}

fn set_scheduling(review: &mut Review, scheduling: &Value) -> Result<(), Status> {
    for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let own = &review.object["spec"]["nodeSelector"][key.as_str()];
        if !own.is_null() && own != value {
            let text = |v: &Value| v.as_str().unwrap_or("").to_string();
            return Err(review.forbid(&format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(value),
                text(own)
            )));
        }
        review.object["spec"]["nodeSelector"][key.as_str()] = value.clone();
    }
    for toleration in scheduling["tolerations"].as_array().into_iter().flatten() {
        let tolerations = &mut review.object["spec"]["tolerations"];
        match tolerations.as_array_mut() {
            Some(list) if list.contains(toleration) => {}
            Some(list) => list.push(toleration.clone()),
            None => *tolerations = json!([toleration]),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{review, world};
    use super::*;

    fn check(spec: Value) -> Result<Value, String> {
        let class = json!({"kind": "RuntimeClass", "metadata": {"name": "vm"}, "overhead": {"podFixed": {"memory": "1Gi"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}, "spec": spec});
        let (mut review, world) = (review(Operation::Create, pod), world(vec![class]));
        RuntimeClass.mutate(&mut review, &world).map_err(|s| s.message)?;
        RuntimeClass.validate(&review, &world).map_err(|s| s.message)?;
        Ok(review.object["spec"].take())
    }

    #[test]
    fn a_class_brings_its_overhead_and_its_nodes() {
        assert_eq!(
            check(json!({"runtimeClassName": "vm", "overhead": {"memory": "1024Mi"}})),
            Ok(json!({"runtimeClassName": "vm", "overhead": {"memory": "1Gi"}, "nodeSelector": {"vm": "yes"}}))
        );
    }

    #[test]
    fn an_unknown_class_and_an_overhead_of_ones_own_are_refused() {
        assert_eq!(
            check(json!({"runtimeClassName": "x"})),
            Err(r#"pods "p" is forbidden: pod rejected: RuntimeClass "x" not found"#.into())
        );
        assert_eq!(
            check(json!({"overhead": {"cpu": "1"}})),
            Err(r#"pods "p" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"#.into())
        );
        assert_eq!(
            check(json!({"runtimeClassName": "vm", "nodeSelector": {"vm": "no"}})),
            Err(r#"pods "p" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no"#.into())
        );
    }
}
