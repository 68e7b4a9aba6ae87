//! Whether a Pod fits a Node, and the words Kubernetes has for why not.
//!
//! Owns: the reasons and the sentence made of their counts.
//! Called by: filters; the loop, for conditions and Events.
//! Never: decides.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// Which filter said no: decides what may make the Pod fit later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Filter {
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    VolumeZone,
    PodTopologySpread,
    InterPodAffinity,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rejection {
    pub filter: Filter,
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether removing Pods from the Node could help.
    pub removing_pods_may_help: bool,
}

impl Rejection {
    pub(crate) fn final_(filter: Filter, reason: &'static str) -> Rejection {
        Rejection { filter, reasons: vec![reason.into()], removing_pods_may_help: false }
    }
    pub(crate) fn by_pods(filter: Filter, reason: &'static str) -> Rejection {
        Rejection { filter, reasons: vec![reason.into()], removing_pods_may_help: true }
    }
}

/// `0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.`
pub(crate) fn sentence(nodes: usize, reasons: impl Iterator<Item = Cow<'static, str>>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".into();
    }
    let mut counts: BTreeMap<Cow<'static, str>, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    let mut texts: Vec<String> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    // As text, so 10 comes before 2: that is how kube-scheduler sorts.
    texts.sort();
    let head = format!("0/{nodes} nodes are available:");
    if texts.is_empty() { head } else { format!("{head} {}.", texts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_sorted_as_text() {
        let reasons = ["Insufficient cpu", "node(s) were unschedulable", "Insufficient cpu"];
        assert_eq!(
            sentence(3, reasons.into_iter().map(Cow::from)),
            "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu."
        );
        assert_eq!(sentence(0, std::iter::empty()), "no nodes available to schedule pods");
    }
}
