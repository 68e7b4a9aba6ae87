//! Keeping Pods that belong together apart: topology spread constraints.
//!
//! Owns: the constraints, the counts they compare, and the constraints every Pod has by default.
//! Called by: `choose`, once a Pod.
//! Never: looks at resources.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use minik_api::object;
use minik_api::selector::LabelSelector;
use minik_client::Object;
use serde_json::Value;

use crate::affinity::with_label_keys;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::pod::Pod;
use crate::verdict::{Filter, Rejection};
use minik_api::taints::tolerated;

pub(crate) const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const NOT_MATCHED: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

#[derive(Clone, Debug)]
pub(crate) struct Constraint {
    pub key: String,
    max_skew: i64,
    min_domains: i64,
    pub required: bool,
    selector: LabelSelector,
    honor_affinity: bool,
    honor_taints: bool,
}

impl Constraint {
    pub(crate) fn parse_all(list: &Value, own_labels: &Value) -> Vec<Constraint> {
        let one = |c: &Value| Constraint {
            key: c["topologyKey"].as_str().unwrap_or("").to_string(),
            max_skew: c["maxSkew"].as_i64().unwrap_or(1),
            min_domains: c["minDomains"].as_i64().unwrap_or(1),
            required: c["whenUnsatisfiable"] != "ScheduleAnyway",
            selector: with_label_keys(c, own_labels),
            honor_affinity: c["nodeAffinityPolicy"] != "Ignore",
            honor_taints: c["nodeTaintsPolicy"] == "Honor",
        };
        list.as_array().into_iter().flatten().map(one).collect()
    }

    fn preferred(key: &str, max_skew: i64, selector: &LabelSelector) -> Constraint {
        Constraint {
            key: key.into(),
            max_skew,
            min_domains: 1,
            required: false,
            selector: selector.clone(),
            honor_affinity: true,
            honor_taints: false,
        }
    }

    fn counts(&self, pod: &Pod, node: &Node) -> bool {
        (!self.honor_affinity || pod.node_wants.accepts(&node.name, &node.labels))
            && (!self.honor_taints || tolerated(&node.taints, &pod.tolerations))
    }

    fn on(&self, pod: &Pod, node: &Node) -> i64 {
        let same = |p: &&Arc<Pod>| {
            p.namespace() == pod.namespace() && !object::is_deleting(&p.object) && self.selector.matches(p.labels())
        };
        node.pods.values().filter(same).count() as i64
    }
}

/// What selects Pods, by namespace, for the default constraints.
#[derive(Default)]
pub(crate) struct Selectors {
    services: BTreeMap<String, HashMap<String, LabelSelector>>,
    /// Uid of a ReplicaSet, ReplicationController or StatefulSet -> its selector.
    owners: HashMap<String, LabelSelector>,
}

impl Selectors {
    pub(crate) fn observe_service(&mut self, service: &Object) {
        let map = &service["spec"]["selector"];
        if map.as_object().is_some_and(|m| !m.is_empty()) {
            let services = self.services.entry(object::namespace(service).into()).or_default();
            services.insert(object::uid(service).into(), LabelSelector::from_map(map));
        } else {
            self.forget_service(service);
        }
    }
    pub(crate) fn forget_service(&mut self, service: &Object) {
        if let Some(services) = self.services.get_mut(object::namespace(service)) {
            services.remove(object::uid(service));
        }
    }
    pub(crate) fn observe_owner(&mut self, owner: &Object) {
        let selector = &owner["spec"]["selector"];
        let selector = if owner["kind"] == "ReplicationController" {
            LabelSelector::from_map(selector)
        } else {
            LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing())
        };
        self.owners.insert(object::uid(owner).into(), selector);
    }
    pub(crate) fn forget_owner(&mut self, owner: &Object) {
        self.owners.remove(object::uid(owner));
    }

    /// All of them together, as upstream's default constraints; none if nothing selects the Pod.
    fn of(&self, pod: &Pod) -> Option<LabelSelector> {
        let mut all = Vec::new();
        for selector in self.services.get(pod.namespace()).into_iter().flat_map(HashMap::values) {
            if selector.matches(pod.labels()) {
                all.extend(selector.requirements().iter().cloned());
            }
        }
        let owner = object::controller_of(&pod.object).and_then(|o| self.owners.get(o["uid"].as_str()?));
        all.extend(owner.into_iter().flat_map(|s| s.requirements().iter().cloned()));
        (!all.is_empty()).then(|| LabelSelector::from_requirements(all))
    }
}

/// Required constraints with their counts: built once a Pod, asked once a Node.
pub(crate) struct Required<'a> {
    pod: &'a Pod,
    constraints: Vec<(&'a Constraint, HashMap<&'a str, i64>)>,
}

impl<'a> Required<'a> {
    pub(crate) fn build(pod: &'a Pod, cluster: &'a Cluster) -> Required<'a> {
        let required: Vec<&Constraint> = pod.spread.iter().filter(|c| c.required).collect();
        let mut constraints: Vec<_> = required.iter().map(|c| (*c, HashMap::new())).collect();
        if required.is_empty() {
            return Required { pod, constraints };
        }
        for node in cluster.existing() {
            if !required.iter().all(|c| node.label(&c.key).is_some()) {
                continue;
            }
            for (constraint, counts) in &mut constraints {
                if constraint.counts(pod, node) {
                    let domain = node.label(&constraint.key).expect("checked above");
                    *counts.entry(domain).or_insert(0) += constraint.on(pod, node);
                }
            }
        }
        Required { pod, constraints }
    }

    pub(crate) fn check(&self, node: &Node) -> Result<(), Rejection> {
        for (constraint, counts) in &self.constraints {
            let Some(domain) = node.label(&constraint.key) else {
                return Err(Rejection::final_(Filter::PodTopologySpread, NO_LABEL));
            };
            let enough = counts.len() as i64 >= constraint.min_domains;
            let least = if enough { counts.values().copied().min().unwrap_or(0) } else { 0 };
            let own = i64::from(constraint.selector.matches(self.pod.labels()));
            let here = counts.get(domain).copied().unwrap_or(0);
            if here + own - least > constraint.max_skew {
                return Err(Rejection::by_pods(Filter::PodTopologySpread, NOT_MATCHED));
            }
        }
        Ok(())
    }
}

/// Scores of the candidates by the preferred constraints: 100 is best.
pub(crate) fn scores(pod: &Pod, cluster: &Cluster, candidates: &[&Node]) -> Vec<i64> {
    let defaulted = pod.spread.is_empty();
    let preferred: Vec<Constraint> = if defaulted {
        let Some(selector) = cluster.selectors.of(pod) else { return vec![0; candidates.len()] };
        vec![Constraint::preferred(HOSTNAME, 3, &selector), Constraint::preferred(ZONE, 5, &selector)]
    } else {
        pod.spread.iter().filter(|c| !c.required).cloned().collect()
    };
    if preferred.is_empty() {
        return vec![0; candidates.len()];
    }
    let ignored = |node: &Node| !defaulted && preferred.iter().any(|c| node.label(&c.key).is_none());
    let raw: Vec<Option<f64>> = {
        let mut sums: Vec<Option<f64>> = candidates.iter().map(|n| (!ignored(n)).then_some(0.0)).collect();
        for constraint in &preferred {
            add(constraint, pod, cluster, candidates, &mut sums);
        }
        sums
    };
    normalized(&raw)
}

fn add(constraint: &Constraint, pod: &Pod, cluster: &Cluster, candidates: &[&Node], sums: &mut [Option<f64>]) {
    // A hostname is a domain of its own: only the candidates need counting, however large the cluster.
    let by_node = constraint.key == HOSTNAME;
    let mut domains: HashMap<&str, i64> = HashMap::new();
    for (node, sum) in candidates.iter().zip(sums.iter()) {
        if let (Some(domain), true) = (node.label(&constraint.key), sum.is_some()) {
            domains.entry(domain).or_insert(0);
        }
    }
    if !by_node && !domains.is_empty() {
        for node in cluster.existing() {
            if let Some(domain) = node.label(&constraint.key)
                && let Some(count) = domains.get_mut(domain)
                && constraint.counts(pod, node)
            {
                *count += constraint.on(pod, node);
            }
        }
    }
    let size = if by_node { sums.iter().flatten().count() } else { domains.len() };
    // Fewer domains, smaller differences: the logarithm makes zones and hosts comparable.
    let weight = ((size + 2) as f64).ln();
    for (node, sum) in candidates.iter().zip(sums.iter_mut()) {
        let (Some(sum), Some(domain)) = (sum.as_mut(), node.label(&constraint.key)) else { continue };
        let count = if by_node { constraint.on(pod, node) } else { domains[domain] };
        *sum += count as f64 * weight + (constraint.max_skew - 1) as f64;
    }
}

/// The fewer, the better; a Node without the labels gets nothing.
fn normalized(raw: &[Option<f64>]) -> Vec<i64> {
    let rounded: Vec<Option<i64>> = raw.iter().map(|s| s.map(|s| s.round() as i64)).collect();
    let max = rounded.iter().flatten().copied().max().unwrap_or(0);
    let min = rounded.iter().flatten().copied().min().unwrap_or(0);
    let one = |score: &Option<i64>| match score {
        None => 0,
        Some(_) if max == 0 => 100,
        Some(score) => 100 * (max + min - score) / max,
    };
    rounded.iter().map(one).collect()
}
