//! TaintNodesByCondition: a new node is not ready until its conditions say so.
//!
//! Owns: the taint of a new node.
//! Called by: the admission chain for new nodes.
//! Never: takes the taint away; the node lifecycle controller does.

use minik_api::Status;
use serde_json::json;

use super::plugin::{Plugin, World};
use super::{Operation, Review};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn mutate(&self, review: &mut Review, _: &World) -> Result<(), Status> {
        if review.operation != Operation::Create || !review.is("", "nodes", "") {
            return Ok(());
        }
        let taints = &mut review.object["spec"]["taints"];
        let known = taints.as_array().into_iter().flatten();
        if !known.into_iter().any(|t| t["key"] == NOT_READY && t["effect"] == "NoSchedule") {
            let taint = json!({"key": NOT_READY, "effect": "NoSchedule"});
            match taints.as_array_mut() {
                Some(list) => list.push(taint),
                None => *taints = json!([taint]),
            }
        }
        Ok(())
    }
}
