//! Priority: the name of a class becomes a number in the pod.
//!
//! Owns: resolving classes, the default class, and that there is only one.
//! Called by: the admission chain for pods, pod groups and priority classes.
//! Never: preempts; the scheduler reads the numbers.

use minik_api::{Status, object, resources};
use serde_json::{Value, json};

use super::plugin::{Plugin, World};
use super::{Operation, Review};

pub struct Priority;

impl Plugin for Priority {
    fn mutate(&self, review: &mut Review, world: &World) -> Result<(), Status> {
        if review.is("", "pods", "") && review.operation == Operation::Update {
            keep(review);
            return Ok(());
        }
        let group = review.is("scheduling.k8s.io", "podgroups", "");
        if review.operation != Operation::Create || !(group || review.is("", "pods", "")) {
            return Ok(());
        }
        let class = class_of(review, world)?;
        let value = class.as_ref().map_or(0, |c| c["value"].as_i64().unwrap_or(0));
        let policy = match &class {
            Some(class) => class["preemptionPolicy"].clone(),
            None => json!("PreemptLowerPriority"),
        };
        check_given(review, value, &policy, group)?;
        let spec = &mut review.object["spec"];
        if let Some(class) = &class {
            spec["priorityClassName"] = object::name(class).into();
        }
        spec["priority"] = value.into();
        if policy.is_string() && !group {
            spec["preemptionPolicy"] = policy;
        }
        Ok(())
    }

    fn validate(&self, review: &Review, world: &World) -> Result<(), Status> {
        let write = matches!(review.operation, Operation::Create | Operation::Update);
        if !write || !review.is("scheduling.k8s.io", "priorityclasses", "") || review.object["globalDefault"] != true {
            return Ok(());
        }
        if let Some(known) = default_class(world) {
            let name = object::name(&known);
            if review.operation == Operation::Create || name != object::name(&review.object) {
                let why = format!("PriorityClass {name} is already marked as default. Only one default can exist");
                return Err(review.forbid(&why));
            }
        }
        Ok(())
    }
}

/// An update that says nothing about priority keeps it.
fn keep(review: &mut Review) {
    for field in ["priority", "preemptionPolicy"] {
        let old = &review.old["spec"][field];
        if review.object["spec"][field].is_null() && !old.is_null() {
            review.object["spec"][field] = old.clone();
        }
    }
}

fn class_of(review: &Review, world: &World) -> Result<Option<std::sync::Arc<Value>>, Status> {
    match review.object["spec"]["priorityClassName"].as_str().unwrap_or("") {
        "" => Ok(default_class(world)),
        name => match world.objects.get(resources::PRIORITYCLASSES, "", name) {
            Some(class) => Ok(Some(class)),
            None => Err(review.forbid(&format!("no PriorityClass with name {name} was found"))),
        },
    }
}

/// Of several defaults, which only a race can make, the lowest counts.
fn default_class(world: &World) -> Option<std::sync::Arc<Value>> {
    let classes = world.objects.list(resources::PRIORITYCLASSES, "");
    classes.into_iter().filter(|c| c["globalDefault"] == true).min_by_key(|c| c["value"].as_i64())
}

fn check_given(review: &Review, value: i64, policy: &Value, group: bool) -> Result<(), Status> {
    let spec = &review.object["spec"];
    if let Some(given) = spec["priority"].as_i64().filter(|given| *given != value) {
        let why = if group {
            format!(
                "priority set in the pod group ({given}) must match the priority computed ({value}) based on the priority class set in the spec"
            )
        } else {
            format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
            )
        };
        return Err(review.forbid(&why));
    }
    if let (Some(given), Some(policy)) = (spec["preemptionPolicy"].as_str(), policy.as_str())
        && given != policy
        && !group
    {
        return Err(review.forbid(&format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
            )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{review, world};
    use super::*;

    fn check(classes: Vec<Value>, spec: Value) -> Result<Value, String> {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}, "spec": spec});
        let mut review = review(Operation::Create, pod);
        Priority.mutate(&mut review, &world(classes)).map_err(|s| s.message)?;
        Ok(review.object["spec"].take())
    }

    fn class(name: &str, value: i64, default: bool) -> Value {
        json!({"kind": "PriorityClass", "metadata": {"name": name}, "value": value, "globalDefault": default,
            "preemptionPolicy": "Never"})
    }

    #[test]
    fn a_class_gives_its_number_and_its_policy() {
        assert_eq!(
            check(vec![class("high", 7, false)], json!({"priorityClassName": "high"})),
            Ok(json!({"priorityClassName": "high", "priority": 7, "preemptionPolicy": "Never"}))
        );
        assert_eq!(check(vec![], json!({})), Ok(json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"})));
        assert_eq!(check(vec![class("usual", 3, true)], json!({})).expect("admitted")["priorityClassName"], "usual");
    }

    #[test]
    fn an_unknown_class_or_another_number_is_refused() {
        assert_eq!(
            check(vec![], json!({"priorityClassName": "x"})),
            Err(r#"pods "p" is forbidden: no PriorityClass with name x was found"#.into())
        );
        assert_eq!(
            check(vec![class("high", 7, false)], json!({"priorityClassName": "high", "priority": 9})),
            Err(r#"pods "p" is forbidden: the integer value of priority (9) must not be provided in pod spec; priority admission controller computed 7 from the given PriorityClass name"#.into())
        );
    }

    #[test]
    fn there_is_one_default_class() {
        let mut second = class("second", 1, true);
        second["apiVersion"] = "scheduling.k8s.io/v1".into();
        let refused = Priority.validate(&review(Operation::Create, second), &world(vec![class("first", 1, true)]));
        assert_eq!(
            refused.expect_err("refused").message,
            r#"priorityclasses.scheduling.k8s.io "second" is forbidden: PriorityClass first is already marked as default. Only one default can exist"#
        );
    }
}
