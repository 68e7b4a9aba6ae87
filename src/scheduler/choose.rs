//! Chooses a Node for one Pod.
//!
//! Owns: how many Nodes are looked at, what is counted beforehand, and the tie-break between equal Nodes.
//! Called by: the loop, once a queued Pod, with the picture of the cluster as it is.
//! Never: reads the clock, draws unseeded random numbers, or writes to the API server.

use std::borrow::Cow;
use std::collections::HashMap;

use rand::Rng;

use crate::cluster::Cluster;
use crate::node::Node;
use crate::pod::Pod;
use crate::request::check;
use crate::score::totals;
use crate::spread::Required;
use crate::verdict::{Filter, Rejection, sentence};
use crate::volumes::{PodVolumes, Refusal};

/// Upstream's numbers: all Nodes of small clusters, then 50 % falling to 5 %, never fewer than 100.
const ALWAYS_LOOKED_AT: usize = 100;
const PERCENT_MIN: usize = 5;

/// What the Pods that are placed mean for this one: counted once, asked once a Node.
pub(crate) struct Prepared<'a> {
    pod: &'a Pod,
    cluster: &'a Cluster,
    volumes: Result<PodVolumes<'a>, Refusal>,
    spread: Required<'a>,
    /// (term's topology key, domain) -> how many Pods match all required affinity terms there.
    attracted: HashMap<(&'a str, &'a str), i64>,
    /// Domains where a Pod is that this one refuses.
    refused: HashMap<(&'a str, &'a str), i64>,
    /// Domains where a Pod is that refuses this one.
    refusing: HashMap<(&'a str, &'a str), i64>,
}

impl<'a> Prepared<'a> {
    pub(crate) fn build(pod: &'a Pod, cluster: &'a Cluster) -> Prepared<'a> {
        let mut prepared = Prepared {
            pod,
            cluster,
            volumes: PodVolumes::build(pod, &cluster.storage),
            spread: Required::build(pod, cluster),
            attracted: HashMap::new(),
            refused: HashMap::new(),
            refusing: HashMap::new(),
        };
        prepared.count_refusing(cluster);
        if !pod.pod_wants.required.is_empty() || !pod.pod_wants.required_anti.is_empty() {
            prepared.count_wanted(cluster);
        }
        prepared
    }

    fn count_refusing(&mut self, cluster: &'a Cluster) {
        let labels = |name: &str| cluster.namespace_labels(name);
        for (uid, node) in &cluster.with_terms {
            let Some(node) = cluster.node(node) else { continue };
            let Some(other) = node.pods.get(uid) else { continue };
            for term in &other.pod_wants.required_anti {
                if let Some(domain) = node.label(&term.topology_key)
                    && term.matches(self.pod.namespace(), self.pod.labels(), &labels)
                {
                    *self.refusing.entry((&term.topology_key, domain)).or_default() += 1;
                }
            }
        }
    }

    fn count_wanted(&mut self, cluster: &'a Cluster) {
        let labels = |name: &str| cluster.namespace_labels(name);
        let wants = &self.pod.pod_wants;
        for node in cluster.existing() {
            for other in node.pods.values() {
                let matches = |t: &&crate::affinity::PodTerm| t.matches(other.namespace(), other.labels(), &labels);
                if !wants.required.is_empty() && wants.required.iter().all(|t| matches(&t)) {
                    for term in &wants.required {
                        if let Some(domain) = node.label(&term.topology_key) {
                            *self.attracted.entry((&term.topology_key, domain)).or_default() += 1;
                        }
                    }
                }
                for term in wants.required_anti.iter().filter(matches) {
                    if let Some(domain) = node.label(&term.topology_key) {
                        *self.refused.entry((&term.topology_key, domain)).or_default() += 1;
                    }
                }
            }
        }
    }

    /// Why the Pod fits nowhere, whatever the Node.
    fn refusal(&self) -> Option<&Refusal> {
        self.volumes.as_ref().err()
    }

    /// The filters that depend on volumes, and on Pods elsewhere.
    pub(crate) fn check(&self, node: &Node) -> Result<(), Rejection> {
        match &self.volumes {
            Ok(volumes) => volumes.check(self.pod, node, &self.cluster.storage)?,
            Err((filter, why)) => {
                let reasons = vec![why.clone().into()];
                return Err(Rejection { filter: *filter, reasons, removing_pods_may_help: false });
            }
        }
        self.spread.check(node)?;
        let wants = &self.pod.pod_wants;
        if !wants.required.is_empty() && !self.is_attracted(node) {
            return Err(Rejection::final_(Filter::InterPodAffinity, "node(s) didn't match pod affinity rules"));
        }
        let is_refused = |t: &crate::affinity::PodTerm| {
            node.label(&t.topology_key).is_some_and(|d| self.refused.contains_key(&(t.topology_key.as_str(), d)))
        };
        if wants.required_anti.iter().any(is_refused) {
            let reason = "node(s) didn't match pod anti-affinity rules";
            return Err(Rejection::by_pods(Filter::InterPodAffinity, reason));
        }
        if self.refusing.keys().any(|(key, domain)| node.label(key) == Some(domain)) {
            let reason = "node(s) didn't satisfy existing pods anti-affinity rules";
            return Err(Rejection::by_pods(Filter::InterPodAffinity, reason));
        }
        Ok(())
    }

    fn is_attracted(&self, node: &Node) -> bool {
        let terms = &self.pod.pod_wants.required;
        if !terms.iter().all(|t| node.label(&t.topology_key).is_some()) {
            return false;
        }
        let there = |t: &crate::affinity::PodTerm| {
            let domain = node.label(&t.topology_key).expect("checked above");
            self.attracted.contains_key(&(t.topology_key.as_str(), domain))
        };
        if terms.iter().all(there) {
            return true;
        }
        // The first of a group that wants to be together: nobody is there yet whom it could join.
        let own = |t: &crate::affinity::PodTerm| t.matches(self.pod.namespace(), self.pod.labels(), &|_| None);
        self.attracted.is_empty() && terms.iter().all(own)
    }

    /// Sums of the preferred affinity terms of this Pod and, about this Pod, of those placed; None if there are none.
    pub(crate) fn preferences(&self, cluster: &Cluster, candidates: &[&Node]) -> Option<Vec<i64>> {
        let wants = &self.pod.pod_wants;
        let own: Vec<_> = wants.preferred.iter().chain(&wants.preferred_anti).collect();
        if own.is_empty() && cluster.with_terms.is_empty() {
            return None;
        }
        let labels = |name: &str| cluster.namespace_labels(name);
        let mut domains: HashMap<(&str, &str), i64> = HashMap::new();
        if !own.is_empty() {
            for node in cluster.existing() {
                for other in node.pods.values() {
                    for (weight, term) in &own {
                        if let Some(domain) = node.label(&term.topology_key)
                            && term.matches(other.namespace(), other.labels(), &labels)
                        {
                            *domains.entry((&term.topology_key, domain)).or_default() += weight;
                        }
                    }
                }
            }
        }
        for (uid, name) in &cluster.with_terms {
            let Some(node) = cluster.node(name) else { continue };
            let Some(other) = node.pods.get(uid) else { continue };
            let theirs = other.pod_wants.preferred.iter().chain(&other.pod_wants.preferred_anti);
            // A required affinity of a placed Pod counts as a preference of weight 1 (hardPodAffinityWeight).
            let hard = other.pod_wants.required.iter().map(|t| (1, t));
            for (weight, term) in theirs.map(|(w, t)| (*w, t)).chain(hard) {
                if let Some(domain) = node.label(&term.topology_key)
                    && term.matches(self.pod.namespace(), self.pod.labels(), &labels)
                {
                    *domains.entry((&term.topology_key, domain)).or_default() += weight;
                }
            }
        }
        let sum = |node: &&Node| -> i64 {
            domains.iter().filter(|((k, d), _)| node.label(k) == Some(d)).map(|(_, weight)| weight).sum()
        };
        Some(candidates.iter().map(sum).collect())
    }
}

pub(crate) enum Choice {
    Node(String),
    Nowhere(Misfit),
}

/// Why no Node is right.
pub(crate) struct Misfit {
    pub nodes: usize,
    /// What is said before any Node is looked at.
    pub beforehand: Option<Refusal>,
    /// By name of the Node.
    pub rejections: Vec<(String, Rejection)>,
}

impl Misfit {
    pub(crate) fn sentence(&self) -> String {
        if let Some((_, why)) = self.beforehand.as_ref().filter(|_| self.nodes > 0) {
            return format!("0/{} nodes are available: {why}.", self.nodes);
        }
        sentence(self.nodes, self.rejections.iter().flat_map(|(_, r)| r.reasons.iter().cloned()))
    }
    pub(crate) fn preemption_sentence(&self) -> String {
        let reason = |(_, r): &(String, Rejection)| -> Cow<'static, str> {
            if r.removing_pods_may_help {
                "No preemption victims found for incoming pod".into()
            } else {
                "Preemption is not helpful for scheduling".into()
            }
        };
        if self.beforehand.is_some() {
            // Upstream looks for Nodes to preempt on, has looked at none, and says just that.
            return "not found".into();
        }
        format!("preemption: {}", sentence(self.nodes, self.rejections.iter().map(reason)))
    }
    pub(crate) fn filters(&self) -> Vec<Filter> {
        let mut filters: Vec<Filter> = self.rejections.iter().map(|(_, r)| r.filter).collect();
        filters.extend(self.beforehand.iter().map(|(filter, _)| *filter));
        filters.sort();
        filters.dedup();
        if filters.is_empty() {
            // There is no Node at all: the first one wakes it.
            filters.push(Filter::NodeName);
        }
        filters
    }
}

/// `start` is where the search begins, so that in a large cluster all Nodes get their turn; it is moved on.
pub(crate) fn choose(pod: &Pod, cluster: &Cluster, start: &mut usize, random: &mut impl Rng) -> Choice {
    let existing = cluster.existing().count();
    let enough = candidates_wanted(existing);
    let prepared = Prepared::build(pod, cluster);
    if let Some(refusal) = prepared.refusal() {
        return Choice::Nowhere(Misfit { nodes: existing, beforehand: Some(refusal.clone()), rejections: Vec::new() });
    }
    let mut fitting: Vec<&Node> = Vec::new();
    let mut rejections = Vec::new();
    let all = cluster.nodes.len();
    let mut looked_at = 0;
    while looked_at < all && fitting.len() < enough {
        let node = &cluster.nodes[(*start + looked_at) % all];
        looked_at += 1;
        if node.object.is_none() {
            continue;
        }
        match check_with_nominated(pod, node, cluster, &prepared) {
            Ok(()) => fitting.push(node),
            Err(rejection) => rejections.push((node.name.clone(), rejection)),
        }
    }
    if all > 0 {
        *start = (*start + looked_at) % all;
    }
    if fitting.is_empty() {
        return Choice::Nowhere(Misfit { nodes: existing, beforehand: None, rejections });
    }
    if fitting.len() == 1 {
        return Choice::Node(fitting[0].name.clone());
    }
    let totals = totals(pod, cluster, &prepared, &fitting);
    Choice::Node(fitting[best(&totals, random)].name.clone())
}

/// Room kept for Pods that were promised it counts as taken, unless this Pod is more important.
fn check_with_nominated(pod: &Pod, node: &Node, cluster: &Cluster, prepared: &Prepared<'_>) -> Result<(), Rejection> {
    let promised = cluster.nominated(&node.name);
    let ahead = |p: &&std::sync::Arc<Pod>| p.priority >= pod.priority && p.uid != pod.uid;
    if promised.iter().any(|p| ahead(&p)) {
        let mut fuller = node.clone();
        promised.iter().filter(ahead).for_each(|p| fuller.add(p.clone()));
        check(pod, &fuller, prepared)?;
    }
    check(pod, node, prepared)
}

fn candidates_wanted(nodes: usize) -> usize {
    if nodes < ALWAYS_LOOKED_AT {
        return nodes;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(PERCENT_MIN);
    (nodes * percent / 100).max(ALWAYS_LOOKED_AT)
}

/// Index of a highest total; among equals each is as likely (reservoir sampling).
fn best(totals: &[i64], random: &mut impl Rng) -> usize {
    let mut chosen = 0;
    let mut equal = 1;
    for (at, total) in totals.iter().enumerate().skip(1) {
        if *total > totals[chosen] {
            (chosen, equal) = (at, 1);
        } else if *total == totals[chosen] {
            equal += 1;
            if random.random_range(0..equal) == 0 {
                chosen = at;
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik_client::Object;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn node(name: &str, cpu: &str) -> Value {
        json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": &name[..1]}},
            "spec": {}, "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}},
        })
    }
    fn pod(name: &str, cpu: &str) -> Value {
        json!({
            "metadata": {"namespace": "d", "name": name, "uid": name, "labels": {"app": "web"}},
            "spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}]},
        })
    }
    fn on(node: &str, mut pod: Value) -> Value {
        pod["spec"]["nodeName"] = node.into();
        pod
    }
    fn with(mut object: Value, path: &str, value: Value) -> Value {
        *object.pointer_mut(path).unwrap() = value;
        object
    }

    /// Places `pod` in a cluster of `nodes` and `placed` Pods: a Node's name, or the sentence why not.
    fn check(nodes: &[Value], placed: &[Value], pod: Value) -> String {
        let mut cluster = Cluster::default();
        for n in nodes {
            cluster.observe_node(&Arc::new(Object::new(n.clone())));
        }
        for p in placed {
            cluster.observe_pod(&Arc::new(Object::new(p.clone())));
        }
        let pod = Pod::new(Arc::new(Object::new(pod)));
        match choose(&pod, &cluster, &mut 0, &mut SmallRng::seed_from_u64(1)) {
            Choice::Node(name) => name,
            Choice::Nowhere(misfit) => format!("{} {}", misfit.sentence(), misfit.preemption_sentence()),
        }
    }

    #[test]
    fn a_pod_goes_where_there_is_room_and_more_of_it() {
        let nodes = [node("a", "1"), node("b", "4"), node("c", "4")];
        assert_eq!(check(&nodes, &[on("b", pod("x", "2"))], pod("p", "1")), "c");
        assert_eq!(check(&nodes, &[on("c", pod("x", "2"))], pod("p", "3")), "b");
    }

    #[test]
    fn why_nothing_fits_is_said_in_upstreams_words() {
        let tainted = with(node("a", "4"), "/spec", json!({"taints": [{"key": "k", "effect": "NoSchedule"}]}));
        let cordoned = with(node("b", "4"), "/spec", json!({"unschedulable": true}));
        let nodes = [tainted, cordoned, node("c", "2")];
        assert_eq!(
            check(&nodes, &[on("c", pod("x", "1"))], pod("p", "1500m")),
            "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), \
             1 node(s) were unschedulable. preemption: 0/3 nodes are available: \
             1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
        );
    }

    #[test]
    fn two_pods_cannot_have_the_same_host_port() {
        let ports = |mut p: Value| {
            p["spec"]["containers"][0]["ports"] = json!([{"hostPort": 80}]);
            p
        };
        let nodes = [node("a", "4"), node("b", "1")];
        assert_eq!(check(&nodes, &[on("a", ports(pod("x", "0")))], ports(pod("p", "0"))), "b");
    }

    #[test]
    fn a_required_spread_keeps_domains_within_the_skew() {
        let mut p = pod("p", "0");
        p["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "zone",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]);
        let nodes = [node("a1", "9"), node("a2", "9"), node("b1", "1")];
        assert_eq!(check(&nodes, &[on("a1", pod("x", "0"))], p), "b1");
    }

    #[test]
    fn anti_affinity_works_both_ways_and_affinity_joins() {
        let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}});
        let anti = |mut p: Value| {
            p["spec"]["affinity"] =
                json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
            p
        };
        let nodes = [node("a1", "9"), node("b1", "1")];
        assert_eq!(check(&nodes, &[on("a1", pod("x", "0"))], anti(pod("p", "0"))), "b1");
        assert_eq!(check(&nodes, &[on("a1", anti(pod("x", "0")))], pod("p", "0")), "b1");
        let mut joins = pod("p", "0");
        joins["spec"]["affinity"] = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        assert_eq!(check(&nodes, &[on("b1", pod("x", "0"))], joins.clone()), "b1");
        assert_eq!(check(&nodes, &[], joins), "a1", "the first of its kind may go anywhere");
    }

    #[test]
    fn a_preferred_node_wins_over_an_emptier_one() {
        let mut p = pod("p", "0");
        p["spec"]["affinity"] = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}}]}});
        assert_eq!(check(&[node("a1", "9"), node("b1", "8")], &[], p), "b1");
    }

    #[test]
    fn large_clusters_are_searched_in_part() {
        assert_eq!([99, 100, 1000, 5000, 20000].map(candidates_wanted), [99, 100, 420, 500, 1000]);
    }
}
