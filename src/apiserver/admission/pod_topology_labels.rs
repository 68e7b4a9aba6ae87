//! PodTopologyLabels: a pod knows the zone and region of its node.
//!
//! Owns: which labels go from the node to the pod.
//! Called by: the admission chain for bindings, and for pods that are born on a node.
//! Never: follows later changes of the node's labels.

use minik_api::{Status, object, resources};

use super::plugin::{Plugin, World};
use super::{Operation, Review};

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub struct PodTopologyLabels;

impl Plugin for PodTopologyLabels {
    fn mutate(&self, review: &mut Review, world: &World) -> Result<(), Status> {
        if review.operation != Operation::Create {
            return Ok(());
        }
        let binding =
            review.kind.kind == "Binding" && (review.is("", "pods", "binding") || review.is("", "bindings", ""));
        let node = if binding {
            (review.object["target"]["kind"] == "Node").then_some(&review.object["target"]["name"])
        } else {
            review.is("", "pods", "").then_some(&review.object["spec"]["nodeName"])
        };
        let Some(node) = node.and_then(|n| n.as_str()).filter(|n| !n.is_empty()) else { return Ok(()) };
        // A node that is not there yet is no reason to refuse.
        let Some(node) = world.objects.get(resources::NODES, "", node) else { return Ok(()) };
        for key in LABELS {
            if let Some(value) = object::label(&node, key) {
                review.object["metadata"]["labels"][key] = value.into();
            }
        }
        Ok(())
    }
}
