//! MutatingAdmissionPolicy: changes in CEL.
//!
//! Owns: evaluating mutations one after the other, laying what they say over the object, and when a policy speaks
//! twice about one write.
//! Called by: the admission chain, before mutating webhooks, in both rounds.
//! Never: takes ownership of a field; what a policy changes belongs to whoever wrote the object.

use std::sync::Arc;

use minik_api::structure::{Elements, Structure};
use minik_api::{Status, apply, defaulting, object, patch, resources};
use minik_cel::{Scope, Value as Cel};
use serde_json::Value;

use super::super::Review;
use super::super::expression::{Budget, Facts, POLICY_COST_MAX, conditions_hold};
use super::super::plugin::World;
use super::{Met, met, params};

/// Which policies spoke, and how the object looked afterwards.
#[derive(Default)]
pub struct Rounds {
    spoke: Vec<Spoke>,
    second: bool,
}

struct Spoke {
    key: String,
    after: Value,
}

impl Rounds {
    /// The next round is the second one, in which only policies speak that want to, about objects that changed since.
    pub fn again(&mut self) {
        self.second = true;
    }

    fn wants(&self, met: &Met, key: &str, object: &Value) -> bool {
        if !self.second {
            return true;
        }
        let again = met.policy["spec"]["reinvocationPolicy"] == "IfNeeded";
        again && self.spoke.iter().any(|spoke| spoke.key == key && spoke.after != *object)
    }
}

/// One round of all policies. Answers whether the object changed.
pub fn mutate(review: &mut Review, world: &World, rounds: &mut Rounds) -> Result<bool, Status> {
    if review.object.is_null() {
        return Ok(false);
    }
    let met = met(resources::MUTATINGADMISSIONPOLICIES, resources::MUTATINGADMISSIONPOLICYBINDINGS, review, world);
    let before = (!met.is_empty()).then(|| review.object.clone());
    let mut refused = None;
    for met in &met {
        let given = match params(met, review, world) {
            Ok(given) => given,
            Err(why) => {
                refused = refused.or(refuse(review, met, &format!("failed to configure binding: {why}")));
                continue;
            }
        };
        for param in given {
            let key = format!("{}/{}/{}", met.policy_name(), met.binding_name(), param_name(param.as_ref()));
            if !rounds.wants(met, &key, &review.object) {
                continue;
            }
            for error in speak(review, world, met, param.as_deref()) {
                refused = refused.or_else(|| refuse(review, met, &error));
            }
            rounds.spoke.retain(|spoke| spoke.key != key);
            rounds.spoke.push(Spoke { key, after: review.object.clone() });
        }
    }
    match refused {
        Some(status) => Err(status),
        None => Ok(before.is_some_and(|before| before != review.object)),
    }
}

fn param_name(param: Option<&Arc<Value>>) -> String {
    param.map(|p| format!("{}/{}", object::namespace(p), object::name(p))).unwrap_or_default()
}

/// `None`: the policy would rather have the write pass.
fn refuse(review: &Review, met: &Met, error: &str) -> Option<Status> {
    if met.is_lenient() {
        return None;
    }
    let (policy, binding) = (met.policy_name(), met.binding_name());
    let message = format!("policy '{policy}' with binding '{binding}' denied request: {error}");
    let mut status = review.forbid(&message);
    (status.code, status.reason) = (422, "Invalid".into());
    Some(status)
}

/// All mutations of one policy, each seeing what the one before it did. Answers what went wrong.
fn speak(review: &mut Review, world: &World, met: &Met, param: Option<&Value>) -> Vec<String> {
    let mut object = review.object.clone();
    let mut faults = Vec::new();
    let facts = Facts::of(review, world);
    match conditions_hold(&met.policy["spec"], met.takes_params(), &facts.scope(&object, param)) {
        Ok(true) => {}
        Ok(false) => return faults,
        Err(error) => return vec![error],
    }
    let mutations = met.policy["spec"]["mutations"].as_array().map_or(&[][..], Vec::as_slice);
    for (index, mutation) in mutations.iter().enumerate() {
        let outcome = match &met.programs.mutations[index] {
            Err(error) => Err(error.clone()),
            Ok(program) => {
                let scope = facts.scope(&object, param).with_composed(&met.programs.variables);
                match mutation["patchType"].as_str() {
                    Some("JSONPatch") => patched(program, &scope, &object),
                    _ => merged(program, &scope, &object, review),
                }
            }
        };
        match outcome {
            Ok(mut changed) => {
                defaulted(review, &mut changed);
                object = changed;
            }
            Err(error) => faults.push(error),
        }
    }
    drop(facts);
    review.object = object;
    faults
}

fn defaulted(review: &Review, object: &mut Value) {
    let kind = &review.kind;
    match review.served.as_ref().and_then(|served| served.custom()) {
        Some(custom) => custom.complete(object),
        None => defaulting::apply(&kind.group, &kind.version, &kind.kind, object),
    }
}

fn merged(program: &minik_cel::Program, scope: &Scope<'_>, object: &Value, review: &Review) -> Result<Value, String> {
    let value = Budget::new(POLICY_COST_MAX).evaluate(program, scope).map_err(|failure| failure.to_string())?;
    let misnamed = misnamed(&value, "Object");
    if !misnamed.is_empty() {
        return Err(format!("type mismatch: {}", misnamed.join("\n")));
    }
    let mut said = value.to_json()?;
    if !said.is_object() {
        return Err(format!("unsupported return type from ApplyConfiguration expression: {}", value.type_name()));
    }
    for field in ["apiVersion", "kind"] {
        said[field] = object[field].clone();
    }
    let structure = match &review.served {
        Some(served) if served.custom().is_some() => served.structure(),
        _ => Structure::of(object["apiVersion"].as_str().unwrap_or(""), object["kind"].as_str().unwrap_or("")),
    };
    let mut atomic = Vec::new();
    atomics(structure, &said, "", true, &mut atomic);
    if !atomic.is_empty() {
        let places = atomic.join(", ");
        return Err(format!(
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {places}"
        ));
    }
    Ok(apply::merge(structure, object, &said))
}

/// What a policy names in a list or map that has one owner: it would drop what it does not name.
fn atomics(structure: Structure<'_>, said: &Value, path: &str, root: bool, found: &mut Vec<String>) {
    match said {
        Value::Object(fields) => {
            if !root && structure.is_atomic_map() {
                found.push(path.into());
            }
            for (key, value) in fields {
                if structure.field(key).is_some() {
                    atomics(structure.child(key), value, &format!("{path}.{key}"), false, found);
                }
            }
        }
        Value::Array(items) => {
            if structure.elements() == Elements::Atomic {
                found.push(path.into());
            }
            for (index, item) in items.iter().enumerate() {
                atomics(structure.element(), item, &format!("{path}[{index}]"), false, found);
            }
        }
        _ => {}
    }
}

/// Objects whose type is not the one of their place: `Object.spec` under `metadata`.
fn misnamed(value: &Cel<'_>, wanted: &str) -> Vec<String> {
    let mut found = Vec::new();
    match value {
        Cel::Object(object) => {
            if object.name != wanted {
                let why = "which matches field name path from root Object type";
                found.push(format!("unexpected type name {:?}, expected {wanted:?}, {why}", object.name));
            }
            for (field, value) in &object.fields {
                found.extend(misnamed(value, &format!("{wanted}.{field}")));
            }
        }
        Cel::List(list) => list.iter().for_each(|item| found.extend(misnamed(&item, wanted))),
        Cel::Map(map) => map.iter().for_each(|(_, item)| found.extend(misnamed(&item, wanted))),
        _ => {}
    }
    found
}

fn patched(program: &minik_cel::Program, scope: &Scope<'_>, object: &Value) -> Result<Value, String> {
    let value = Budget::new(POLICY_COST_MAX).evaluate(program, scope).map_err(|failure| failure.to_string())?;
    let Cel::List(list) = &value else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".into());
    };
    let mut operations = Vec::new();
    for item in list.iter() {
        let Cel::Object(operation) = &item else {
            return Err("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".into());
        };
        if let Some(value) = operation.fields.get("value").filter(|v| matches!(v, Cel::Object(_))) {
            let wanted = if let Cel::Object(made) = value { made.name.clone() } else { String::new() };
            let misnamed = misnamed(value, &wanted);
            if !misnamed.is_empty() {
                return Err(format!("type mismatch: {}", misnamed.join("\n")));
            }
        }
        operations.push(item.to_json()?);
    }
    match patch::json::operate_all(object, &Value::Array(operations)) {
        Ok(changed) => Ok(changed),
        // A failed test means that the policy has nothing to change here.
        Err(fault) if fault.is_failed_test() => Ok(object.clone()),
        Err(fault) => Err(format!("JSON Patch: {fault}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::Operation;
    use super::super::super::fixture::{review, world};
    use super::*;

    fn policy(name: &str, mutations: Value, extra: Value) -> Value {
        let mut spec = json!({"failurePolicy": "Fail", "reinvocationPolicy": "Never", "mutations": mutations,
            "matchConstraints": {"resourceRules": [
                {"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]}});
        for (key, value) in extra.as_object().expect("fields") {
            spec[key.as_str()] = value.clone();
        }
        json!({"kind": "MutatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec})
    }

    fn apply(expression: &str) -> Value {
        json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
    }
    fn patch(expression: &str) -> Value {
        json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
    }

    fn check(policies: Vec<Value>, rounds: usize) -> Result<Value, (u16, String)> {
        let binding = |policy: &Value| json!({"kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": "b"}, "spec": {"policyName": policy["metadata"]["name"]}});
        let bindings: Vec<Value> = policies.iter().map(binding).collect();
        let world = world(policies.into_iter().chain(bindings).collect());
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "a"},
            "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        let mut review = review(Operation::Create, deployment);
        let mut state = Rounds::default();
        for _ in 0..rounds {
            mutate(&mut review, &world, &mut state).map_err(|s| (s.code, s.message))?;
            state.again();
        }
        Ok(review.object)
    }

    #[test]
    fn what_a_policy_says_is_laid_over_the_object() {
        let adds = "Object{metadata: Object.metadata{labels: {'a': 'b'}}, spec: Object.spec{replicas: 3, template: Object.spec.template{spec: Object.spec.template.spec{initContainers: [Object.spec.template.spec.initContainers{name: 'init', image: variables.image}]}}}}";
        let with = json!({"variables": [{"name": "image", "expression": "object.spec.template.spec.containers[0].image + ':1'"}]});
        let object = check(vec![policy("p", json!([apply(adds)]), with)], 1).expect("allowed");
        assert_eq!(object["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(object["spec"]["replicas"], 3);
        let spec = &object["spec"]["template"]["spec"];
        assert_eq!((&spec["containers"][0]["name"], &spec["initContainers"][0]["image"]), (&json!("c"), &json!("i:1")));
    }

    #[test]
    fn patches_are_applied_in_order_and_a_failed_test_changes_nothing() {
        let patches = json!([
            patch("[JSONPatch{op: 'add', path: '/metadata/labels', value: {'x/y': '1'}}]"),
            patch(
                "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: object.metadata.labels['x/y'] + '2'}]"
            ),
            patch("[JSONPatch{op: 'test', path: '/spec/replicas', value: 7}, JSONPatch{op: 'remove', path: '/spec'}]"),
        ]);
        let object = check(vec![policy("p", patches, json!({}))], 1).expect("allowed");
        assert_eq!(object["metadata"]["labels"], json!({"x/y": "1", "a/b": "12"}));
        assert!(object["spec"].is_object());
    }

    #[test]
    fn a_policy_speaks_again_only_when_it_wants_to_and_something_changed() {
        let grow = |name: &str, again: &str| {
            let text = "[JSONPatch{op: 'add', path: '/spec/replicas', value: object.spec.?replicas.orValue(0) + 10}]";
            policy(name, json!([patch(text)]), json!({"reinvocationPolicy": again}))
        };
        // Defaulting makes the first replica one.
        let replicas = |policies: Vec<Value>| check(policies, 2).expect("allowed")["spec"]["replicas"].clone();
        assert_eq!(replicas(vec![grow("a", "Never")]), 10);
        assert_eq!(replicas(vec![grow("a", "IfNeeded")]), 10);
        assert_eq!(replicas(vec![grow("a", "IfNeeded"), grow("b", "Never")]), 30);
    }

    #[test]
    fn what_cannot_be_done_refuses_the_write() {
        let one = |mutation: Value| check(vec![policy("p", json!([mutation]), json!({}))], 1).map(|_| ());
        let denied = |why: &str| {
            Err((
                422,
                format!("deployments.apps \"web\" is forbidden: policy 'p' with binding 'b' denied request: {why}"),
            ))
        };
        assert_eq!(one(apply("Object{spec: Object.spec{replicas: object.spec.gone}}")), denied("no such key: gone"));
        assert_eq!(
            one(apply("Object{spec: Object.metadata{}}")),
            denied(
                "type mismatch: unexpected type name \"Object.metadata\", expected \"Object.spec\", which matches field name path from root Object type"
            )
        );
        assert_eq!(
            one(apply(
                "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: [Object.spec.template.spec.containers{name: 'c', command: ['x']}]}}}}"
            )),
            denied(
                "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.template.spec.containers[0].command"
            )
        );
    }
}
