//! Tells kubelets by an annotation how long they may use what they know of ConfigMaps and Secrets.
//!
//! Owns: the annotation, which grows with the number of Nodes so that the API server is not asked too often.
//! Called by: the driver.
//! Never: changes it back and forth at a border: the borders of growing and shrinking differ.

use jiff::Timestamp;
use minik_api::resources::NODES;
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Plan, Reconciler, View};
use serde_json::json;

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// From how many Nodes to how many a number of seconds holds; upstream's table.
const STEPS: [(usize, usize, i64); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

pub(crate) struct NodeTtl;

/// Seconds for so many Nodes, where `before` holds now.
fn seconds(nodes: usize, before: Option<i64>) -> i64 {
    let mut step = STEPS.iter().position(|(_, _, seconds)| Some(*seconds) == before).unwrap_or(0);
    while nodes > STEPS[step].1 {
        step += 1;
    }
    while nodes < STEPS[step].0 {
        step -= 1;
    }
    STEPS[step].2
}

impl Reconciler for NodeTtl {
    fn name(&self) -> &'static str {
        "ttl"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[NODES]
    }

    /// A Node that comes or goes over a border concerns all of them.
    fn keys(&self, view: &View, change: &Change) -> Vec<ObjectKey> {
        let nodes = view.count(NODES);
        let counts = change.old.is_none() || change.new.is_none();
        let at_border = STEPS.iter().any(|(low, high, _)| nodes + 1 == *low || nodes == high.saturating_add(1));
        if counts && at_border {
            return view.list(NODES, "").map(|n| n.key()).collect();
        }
        vec![change.key.clone()]
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some(node) = view.get_key(NODES, key) else { return Plan::nothing() };
        let before = object::annotation(node, ANNOTATION).and_then(|a| a.parse().ok());
        let wanted = seconds(view.count(NODES), before);
        if before == Some(wanted) {
            return Plan::nothing();
        }
        let patch = json!({"metadata": {"annotations": {ANNOTATION: wanted.to_string()}}});
        Plan::of(vec![Action::merge_any_version(NODES, "", node, patch)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_cluster_asks_always_and_a_large_one_seldom() {
        assert_eq!(seconds(3, None), 0);
        assert_eq!(seconds(101, Some(0)), 15);
        assert_eq!(seconds(95, Some(15)), 15, "not back at once");
        assert_eq!(seconds(89, Some(15)), 0);
        assert_eq!(seconds(5000, Some(0)), 300);
    }

    #[test]
    fn a_node_without_the_annotation_gets_it() {
        let view = View::of([(NODES, json!({"metadata": {"name": "n"}}))]);
        let plan = NodeTtl.plan(&view, &ObjectKey::new("", "n"), Timestamp::UNIX_EPOCH);
        assert_eq!(
            plan.to_string(),
            "patch nodes n {\"metadata\":{\"annotations\":{\"node.alpha.kubernetes.io/ttl\":\"0\"}}}\n"
        );
    }
}
