//! DefaultTolerationSeconds: pods stay five minutes on a node that has gone away.
//!
//! Owns: the two tolerations.
//! Called by: the admission chain for pods.
//! Never: changes a toleration that is there.

use minik_api::Status;
use serde_json::{Value, json};

use super::plugin::{Plugin, World};
use super::{Operation, Review};

const SECONDS: i64 = 300;

pub struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn mutate(&self, review: &mut Review, _: &World) -> Result<(), Status> {
        let write = matches!(review.operation, Operation::Create | Operation::Update);
        if !write || !review.is("", "pods", "") {
            return Ok(());
        }
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let empty_or = |value: &Value, wanted: &str| matches!(value.as_str(), None | Some("")) || value == wanted;
            let tolerations = &mut review.object["spec"]["tolerations"];
            let known = tolerations.as_array().into_iter().flatten();
            if known.into_iter().any(|t| empty_or(&t["key"], key) && empty_or(&t["effect"], "NoExecute")) {
                continue;
            }
            let toleration =
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS});
            match tolerations.as_array_mut() {
                Some(list) => list.push(toleration),
                None => *tolerations = json!([toleration]),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{review, world};
    use super::*;

    fn keys(tolerations: Value) -> Vec<(String, Value)> {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}, "spec": {"tolerations": tolerations}});
        let mut review = review(Operation::Create, pod);
        DefaultTolerationSeconds.mutate(&mut review, &world(vec![])).expect("never refuses");
        let list = review.object["spec"]["tolerations"].as_array().expect("some").clone();
        list.iter().map(|t| (t["key"].as_str().unwrap_or("").to_string(), t["tolerationSeconds"].clone())).collect()
    }

    #[test]
    fn both_tolerations_are_added_unless_they_are_there() {
        let (not_ready, unreachable) =
            ("node.kubernetes.io/not-ready".to_string(), "node.kubernetes.io/unreachable".to_string());
        assert_eq!(keys(Value::Null), [(not_ready.clone(), json!(300)), (unreachable.clone(), json!(300))]);
        let own = json!([{"key": unreachable, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]);
        assert_eq!(keys(own), [(unreachable, json!(5)), (not_ready, json!(300))]);
        assert_eq!(keys(json!([{"operator": "Exists"}])), [(String::new(), Value::Null)]);
    }
}
