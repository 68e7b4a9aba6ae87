//! Filters that compare one Pod with one Node.
//!
//! Owns: the order of filters and the reasons they give.
//! Called by: `choose`, for each Node until enough fit.
//! Never: counts over the cluster; what needs that is prepared once in `Prepared`.

use std::borrow::Cow;

use serde_json::Value;

use crate::choose::Prepared;
use crate::node::Node;
use crate::pod::Pod;
use crate::verdict::{Filter, Rejection};
use minik_api::taints::{Effect, Taint, tolerated};

const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// Whether the Pod may run on the Node; the first filter that says no is the reason.
pub(crate) fn check(pod: &Pod, node: &Node, prepared: &Prepared<'_>) -> Result<(), Rejection> {
    unschedulable(pod, node)?;
    let wanted = pod.node_name();
    if !wanted.is_empty() && wanted != node.name {
        return Err(Rejection::final_(Filter::NodeName, "node(s) didn't match the requested node name"));
    }
    if !tolerated(&node.taints, &pod.tolerations) {
        return Err(Rejection::final_(Filter::TaintToleration, "node(s) had untolerated taint(s)"));
    }
    if !pod.node_wants.accepts(&node.name, &node.labels) {
        let reason = "node(s) didn't match Pod's node affinity/selector";
        return Err(Rejection::final_(Filter::NodeAffinity, reason));
    }
    if pod.host_ports.iter().any(|wanted| node.ports.iter().any(|taken| taken.conflicts(wanted))) {
        let reason = "node(s) didn't have free ports for the requested pod ports";
        return Err(Rejection::by_pods(Filter::NodePorts, reason));
    }
    fits(pod, node)?;
    prepared.check(node)
}

fn unschedulable(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    if !node.unschedulable {
        return Ok(());
    }
    let taint = Taint { key: UNSCHEDULABLE_TAINT.into(), value: String::new(), effect: Effect::NoSchedule };
    if pod.tolerations.iter().any(|t| t.tolerates(&taint)) {
        return Ok(());
    }
    Err(Rejection::final_(Filter::NodeUnschedulable, "node(s) were unschedulable"))
}

fn fits(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    // More than the Node has even when it is empty: no preemption helps.
    let mut hopeless = false;
    if node.pods.len() as i64 + 1 > node.pods_max {
        reasons.push("Too many pods".into());
    }
    let wanted = &pod.resources.requests;
    let mut compare = |name: &str, want: i64, have: i64, taken: i64| {
        if want > 0 && want > have - taken {
            reasons.push(format!("Insufficient {name}").into());
            hopeless |= want > have;
        }
    };
    compare("cpu", wanted.milli_cpu, node.allocatable.milli_cpu, node.requested.milli_cpu);
    compare("memory", wanted.memory, node.allocatable.memory, node.requested.memory);
    let storage = (node.allocatable.ephemeral_storage, node.requested.ephemeral_storage);
    compare("ephemeral-storage", wanted.ephemeral_storage, storage.0, storage.1);
    for (name, amount) in &wanted.others {
        compare(name, *amount, node.allocatable.other(name), node.requested.other(name));
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Rejection { filter: Filter::NodeResourcesFit, reasons, removing_pods_may_help: !hopeless })
}

/// The images of a Pod's containers.
pub(crate) fn images(spec: &Value) -> impl Iterator<Item = &str> {
    let list = |name: &str| spec[name].as_array().into_iter().flatten();
    list("initContainers").chain(list("containers")).filter_map(|c| c["image"].as_str())
}
