//! Makes room for a more important Pod by removing less important ones.
//!
//! Owns: on which Node the least is lost, and which Pods go.
//! Called by: the loop, when a Pod fits nowhere.
//! Never: deletes; it only says what should be.

use std::cmp::Reverse;
use std::sync::Arc;

use minik_api::object;
use minik_api::selector::LabelSelector;
use serde_json::Value;

use crate::choose::{Misfit, Prepared};
use crate::cluster::Cluster;
use crate::pod::Pod;
use crate::request::check;

/// Nodes tried: a tenth of those that could help, but no fewer than this; upstream's numbers.
const NODES_TRIED_MIN: usize = 100;

/// A PodDisruptionBudget, as far as it matters here.
#[derive(Clone)]
pub(crate) struct Budget {
    namespace: String,
    selector: LabelSelector,
    allowed: i64,
    going: Vec<String>,
}

impl Budget {
    pub(crate) fn new(budget: &Value) -> Budget {
        let selector = LabelSelector::from_object(&budget["spec"]["selector"]);
        let going = budget["status"]["disruptedPods"].as_object();
        Budget {
            namespace: object::namespace(budget).into(),
            selector: selector.unwrap_or_else(|_| LabelSelector::nothing()),
            allowed: budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0),
            going: going.into_iter().flatten().map(|(name, _)| name.clone()).collect(),
        }
    }

    fn covers(&self, pod: &Pod) -> bool {
        pod.namespace() == self.namespace
            && !self.selector.is_everything()
            && self.selector.matches(pod.labels())
            && !self.going.contains(&pod.key.name)
    }
}

pub(crate) struct Preemption {
    pub node: String,
    pub victims: Vec<Arc<Pod>>,
}

/// Why a Pod may not preempt, in upstream's words.
pub(crate) fn ineligible(pod: &Pod, cluster: &Cluster) -> Option<&'static str> {
    if pod.spec()["preemptionPolicy"] == "Never" {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    // Room is being made already: the victims need their time.
    let nominated = cluster.node(pod.nominated_node())?;
    let going = |p: &Arc<Pod>| object::is_deleting(&p.object) && p.priority < pod.priority;
    nominated.pods.values().any(going).then_some("not eligible due to a terminating pod on the nominated node.")
}

/// The picture of the cluster is changed while trying, and is the same again afterwards.
pub(crate) fn preempt(pod: &Pod, cluster: &mut Cluster, misfit: &Misfit, budgets: &[Budget]) -> Option<Preemption> {
    let helpful: Vec<&str> = misfit
        .rejections
        .iter()
        .filter(|(_, rejection)| rejection.removing_pods_may_help)
        .map(|(name, _)| name.as_str())
        .collect();
    let enough = (helpful.len() / 10).max(NODES_TRIED_MIN);
    let mut candidates: Vec<Candidate> = Vec::new();
    for node in helpful {
        candidates.extend(try_node(pod, cluster, node, budgets));
        if candidates.len() >= enough {
            break;
        }
    }
    let best = candidates.into_iter().min_by_key(Candidate::cost)?;
    Some(Preemption { node: best.node, victims: best.victims })
}

struct Candidate {
    node: String,
    /// Most important first.
    victims: Vec<Arc<Pod>>,
    violations: usize,
}

/// `int32`'s range, so that negative priorities add to a cost instead of lowering it.
const PRIORITY_OFFSET: i64 = 1 << 31;

impl Candidate {
    /// Fewest broken budgets; then the least important most important victim; the least importance in all; the fewest;
    /// the latest started.
    fn cost(&self) -> (usize, i64, i64, usize, Reverse<String>) {
        let highest = self.victims.first().map_or(i64::MIN, |p| p.priority);
        let sum = self.victims.iter().map(|p| p.priority + PRIORITY_OFFSET).sum();
        let of_highest = self.victims.iter().filter(|p| p.priority == highest);
        let earliest = of_highest.map(|p| started(p)).min().unwrap_or_default();
        (self.violations, highest, sum, self.victims.len(), Reverse(earliest))
    }
}

fn started(pod: &Pod) -> String {
    let start = pod.object["status"]["startTime"].as_str();
    start.or(pod.object["metadata"]["creationTimestamp"].as_str()).unwrap_or("").to_string()
}

fn try_node(pod: &Pod, cluster: &mut Cluster, node: &str, budgets: &[Budget]) -> Option<Candidate> {
    let mut lower: Vec<Arc<Pod>> =
        cluster.node(node)?.pods.values().filter(|p| p.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return None;
    }
    lower.sort_by_key(|p| (Reverse(p.priority), started(p), p.uid.clone()));
    lower.iter().for_each(|p| cluster.lift(&p.uid));
    let mut candidate = None;
    if fits(pod, cluster, node) {
        let (breaking, free) = split(&lower, budgets);
        let (mut victims, mut violations) = (Vec::new(), 0);
        // Whoever can stay, stays: those whose loss breaks a budget first, the most important first.
        for (pods, breaks) in [(breaking, true), (free, false)] {
            for other in pods {
                cluster.place_again(other.clone(), node);
                if !fits(pod, cluster, node) {
                    cluster.lift(&other.uid);
                    violations += usize::from(breaks);
                    victims.push(other);
                }
            }
        }
        victims.sort_by_key(|p| (Reverse(p.priority), started(p)));
        candidate = Some(Candidate { node: node.to_string(), victims, violations });
    }
    for other in &lower {
        if !cluster.is_placed(&other.uid) {
            cluster.place_again(other.clone(), node);
        }
    }
    candidate.filter(|c| !c.victims.is_empty())
}

fn fits(pod: &Pod, cluster: &Cluster, node: &str) -> bool {
    let prepared = Prepared::build(pod, cluster);
    cluster.node(node).is_some_and(|n| check(pod, n, &prepared).is_ok())
}

/// Those whose removal would go beyond what a budget allows, and the others.
fn split(pods: &[Arc<Pod>], budgets: &[Budget]) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
    let mut left: Vec<i64> = budgets.iter().map(|b| b.allowed).collect();
    pods.iter().cloned().partition(|pod| {
        let mut breaks = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            if budget.covers(pod) {
                *left -= 1;
                breaks |= *left < 0;
            }
        }
        breaks
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choose::{Choice, choose};
    use minik_client::Object;
    use rand::SeedableRng;
    use serde_json::json;

    fn node(name: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {}, "status": {"allocatable": {"cpu": "2", "memory": "8Gi", "pods": "10"}}})
    }
    fn pod(name: &str, node: &str, cpu: &str, priority: i64, labels: Value) -> Value {
        json!({
            "metadata": {"namespace": "d", "name": name, "uid": name, "labels": labels},
            "spec": {"nodeName": node, "priority": priority, "containers": [{"resources": {"requests": {"cpu": cpu}}}]},
        })
    }
    /// Who goes, and where, when a Pod of one CPU and priority 10 comes to two Nodes of two CPUs.
    fn check(placed: &[Value], budgets: &[Value]) -> String {
        let mut cluster = Cluster::default();
        for name in ["a", "b"] {
            cluster.observe_node(&Arc::new(Object::new(node(name))));
        }
        for p in placed {
            cluster.observe_pod(&Arc::new(Object::new(p.clone())));
        }
        let before: Vec<usize> = cluster.nodes.iter().map(|n| n.pods.len()).collect();
        let incoming = Pod::new(Arc::new(Object::new(pod("p", "", "1", 10, json!({})))));
        let mut random = rand::rngs::SmallRng::seed_from_u64(1);
        let Choice::Nowhere(misfit) = choose(&incoming, &cluster, &mut 0, &mut random) else { return "fits".into() };
        let budgets: Vec<Budget> = budgets.iter().map(Budget::new).collect();
        let found = preempt(&incoming, &mut cluster, &misfit, &budgets);
        assert_eq!(before, cluster.nodes.iter().map(|n| n.pods.len()).collect::<Vec<_>>());
        found.map_or("nobody".into(), |f| {
            let names: Vec<&str> = f.victims.iter().map(|v| v.key.name.as_str()).collect();
            format!("{}: {}", f.node, names.join(" "))
        })
    }
    fn full(node: &str, priorities: [i64; 2]) -> Vec<Value> {
        let one = |(i, p): (usize, i64)| pod(&format!("{node}{i}"), node, "1", p, json!({"on": node}));
        priorities.into_iter().enumerate().map(one).collect()
    }

    #[test]
    fn the_least_important_go_and_no_more_than_needed() {
        assert_eq!(check(&[full("a", [5, 1]), full("b", [5, 4])].concat(), &[]), "a: a1");
        assert_eq!(check(&[full("a", [20, 20]), full("b", [10, 10])].concat(), &[]), "nobody");
    }

    #[test]
    fn a_budget_is_broken_only_if_there_is_no_other_way() {
        let budget = json!({"metadata": {"namespace": "d"}, "status": {"disruptionsAllowed": 0},
            "spec": {"selector": {"matchLabels": {"on": "a"}}}});
        let placed = [full("a", [1, 1]), full("b", [5, 5])].concat();
        assert_eq!(check(&placed, std::slice::from_ref(&budget)), "b: b1");
        let placed = [full("a", [1, 1]), full("b", [10, 10])].concat();
        assert_eq!(check(&placed, &[budget]), "a: a1");
    }
}
