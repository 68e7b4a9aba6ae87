//! Which of the Nodes that fit is best.
//!
//! Owns: the scores, their weights and their normalisation (0 to 100 each, as upstream's plugins and weights).
//! Called by: `choose`.
//! Never: rejects a Node.

use crate::choose::Prepared;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::pod::Pod;
use crate::request::images;
use crate::spread;
use minik_api::taints::disliked;

const MAX: i64 = 100;
const WEIGHT_TAINTS: i64 = 3;
const WEIGHT_NODE_AFFINITY: i64 = 2;
const WEIGHT_SPREAD: i64 = 2;
const WEIGHT_POD_AFFINITY: i64 = 2;
/// An image must be this large to matter, and counts fully from here on (a container).
const IMAGE_BYTES_MIN: i64 = 23 << 20;
const IMAGE_BYTES_MAX: i64 = 1000 << 20;

/// The sum of weighted scores for each candidate.
pub(crate) fn totals(pod: &Pod, cluster: &Cluster, prepared: &Prepared<'_>, candidates: &[&Node]) -> Vec<i64> {
    let each = |f: &dyn Fn(&Node) -> i64| -> Vec<i64> { candidates.iter().map(|n| f(n)).collect() };
    let mut totals = each(&|node| least_allocated(pod, node) + balanced(pod, node));
    let mut add = |weight: i64, scores: Vec<i64>| {
        totals.iter_mut().zip(scores).for_each(|(total, score)| *total += weight * score);
    };
    add(1, image_locality(pod, cluster, candidates));
    add(WEIGHT_TAINTS, normalized(each(&|n| disliked(&n.taints, &pod.tolerations)), Better::Lower));
    if !pod.node_wants.preferred.is_empty() {
        let raw = each(&|n| pod.node_wants.preference(&n.name, &n.labels));
        add(WEIGHT_NODE_AFFINITY, normalized(raw, Better::Higher));
    }
    add(WEIGHT_SPREAD, spread::scores(pod, cluster, candidates));
    if let Some(raw) = prepared.preferences(cluster, candidates) {
        add(WEIGHT_POD_AFFINITY, between(&raw));
    }
    totals
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    Higher,
    Lower,
}

fn normalized(raw: Vec<i64>, better: Better) -> Vec<i64> {
    let max = raw.iter().copied().max().unwrap_or(0);
    let scale = |score: i64| {
        let scaled = if max == 0 { 0 } else { MAX * score / max };
        if better == Better::Lower { MAX - scaled } else { scaled }
    };
    raw.into_iter().map(scale).collect()
}

/// From the lowest to the highest, since preferences may be negative.
fn between(raw: &[i64]) -> Vec<i64> {
    let (min, max) = (raw.iter().copied().min().unwrap_or(0), raw.iter().copied().max().unwrap_or(0));
    let scale = |score: &i64| if max == min { 0 } else { MAX * (score - min) / (max - min) };
    raw.iter().map(scale).collect()
}

/// The emptier, the better.
fn least_allocated(pod: &Pod, node: &Node) -> i64 {
    let free = |taken: i64, have: i64| if have == 0 || taken > have { 0 } else { (have - taken) * MAX / have };
    let cpu = free(node.scored_milli_cpu + pod.resources.scored_milli_cpu, node.allocatable.milli_cpu);
    let memory = free(node.scored_memory + pod.resources.scored_memory, node.allocatable.memory);
    (cpu + memory) / 2
}

/// The closer CPU and memory are to being used up together after this Pod, compared with before, the better.
fn balanced(pod: &Pod, node: &Node) -> i64 {
    let requests = &pod.resources.requests;
    if requests.milli_cpu == 0 && requests.memory == 0 {
        // Such a Pod changes nothing; upstream skips the score for it.
        return 0;
    }
    let balance = |cpu: i64, memory: i64| {
        let share = |taken: i64, have: i64| if have == 0 { 1.0 } else { (taken as f64 / have as f64).min(1.0) };
        let difference = share(cpu, node.allocatable.milli_cpu) - share(memory, node.allocatable.memory);
        // The standard deviation of two numbers is half their difference.
        ((1.0 - (difference / 2.0).abs()) * MAX as f64) as i64
    };
    let (cpu, memory) = (node.requested.milli_cpu, node.requested.memory);
    let with = balance(cpu + requests.milli_cpu, memory + requests.memory);
    MAX / 2 + (MAX / 2 + with - balance(cpu, memory)) / 2
}

/// Nodes that have the images already, weighted by how many do, so that not all Pods go to the one that has them.
fn image_locality(pod: &Pod, cluster: &Cluster, candidates: &[&Node]) -> Vec<i64> {
    let wanted: Vec<&str> = images(pod.spec()).collect();
    if !candidates.iter().any(|n| wanted.iter().any(|w| size_on(n, w) > 0)) {
        return vec![0; candidates.len()];
    }
    let nodes = cluster.nodes.len().max(1) as f64;
    let share = |image: &&str| cluster.existing().filter(|n| size_on(n, image) > 0).count() as f64 / nodes;
    let shares: Vec<f64> = wanted.iter().map(share).collect();
    let most = IMAGE_BYTES_MAX * wanted.len().max(1) as i64;
    let score = |node: &&Node| {
        let sum: i64 = wanted.iter().zip(&shares).map(|(w, share)| (size_on(node, w) as f64 * share) as i64).sum();
        MAX * (sum.clamp(IMAGE_BYTES_MIN, most) - IMAGE_BYTES_MIN) / (most - IMAGE_BYTES_MIN)
    };
    candidates.iter().map(score).collect()
}

/// A name without a tag means `latest`.
fn size_on(node: &Node, image: &str) -> i64 {
    if node.images.is_empty() {
        return 0;
    }
    let tagged = image.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    let found = if tagged { node.images.get(image) } else { node.images.get(&format!("{image}:latest")) };
    found.copied().unwrap_or(0)
}
