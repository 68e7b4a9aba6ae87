//! Amounts of what Nodes have and Pods ask for.
//!
//! Owns: the vector of resources, and how much one Pod counts for.
//! Called by: filters, scores, and the picture of the cluster.
//! Never: compares a Pod with a Node; that is a filter.

use minik_api::quantity::Quantity;
use serde_json::Value;

/// What a container without requests is scored as, so that many such do not all land on one Node (upstream's numbers).
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// CPU in thousandths, the rest in units.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// Extended resources and huge pages, by name.
    pub others: Vec<(String, i64)>,
}

impl Resources {
    pub(crate) fn parse(list: &Value) -> Resources {
        let mut all = Resources::default();
        for (name, value) in list.as_object().into_iter().flatten() {
            // What validation let through parses; anything else counts as nothing.
            let quantity = Quantity::from_json(value).unwrap_or(Quantity::ZERO);
            match name.as_str() {
                "cpu" => all.milli_cpu = quantity.milli_value(),
                "memory" => all.memory = quantity.value(),
                "ephemeral-storage" => all.ephemeral_storage = quantity.value(),
                "pods" => {}
                _ => all.others.push((name.clone(), quantity.value())),
            }
        }
        all
    }

    pub(crate) fn other(&self, name: &str) -> i64 {
        self.others.iter().find(|(n, _)| n == name).map_or(0, |(_, amount)| *amount)
    }

    pub(crate) fn add(&mut self, more: &Resources) {
        self.combine(more, |a, b| a + b);
    }
    pub(crate) fn subtract(&mut self, less: &Resources) {
        self.combine(less, |a, b| a - b);
    }
    fn raise_to(&mut self, at_least: &Resources) {
        self.combine(at_least, i64::max);
    }

    fn combine(&mut self, with: &Resources, f: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = f(self.milli_cpu, with.milli_cpu);
        self.memory = f(self.memory, with.memory);
        self.ephemeral_storage = f(self.ephemeral_storage, with.ephemeral_storage);
        for (name, amount) in &with.others {
            match self.others.iter_mut().find(|(n, _)| n == name) {
                Some((_, known)) => *known = f(*known, *amount),
                None => self.others.push((name.clone(), f(0, *amount))),
            }
        }
    }
}

/// What one Pod takes of a Node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodResources {
    pub requests: Resources,
    /// CPU and memory with defaults for containers that ask for none: for scores.
    pub scored_milli_cpu: i64,
    pub scored_memory: i64,
}

/// Containers run together; init containers one after another before them, beside the sidecars started so far
/// (KEP-753). Requests of the Pod itself, where given, stand for all its containers (KEP-2837).
pub(crate) fn of_pod(spec: &Value) -> PodResources {
    let plain = total(spec, &|container| Resources::parse(&container["resources"]["requests"]));
    let scored = total(spec, &|container| {
        let list = &container["resources"]["requests"];
        let mut r = Resources::parse(list);
        if list.get("cpu").is_none() {
            r.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if list.get("memory").is_none() {
            r.memory = DEFAULT_MEMORY;
        }
        r
    });
    let mut all = PodResources { requests: plain, scored_milli_cpu: scored.milli_cpu, scored_memory: scored.memory };
    let level = &spec["resources"]["requests"];
    if level.is_object() {
        let given = Resources::parse(level);
        if level.get("cpu").is_some() {
            all.requests.milli_cpu = given.milli_cpu;
            all.scored_milli_cpu = given.milli_cpu;
        }
        if level.get("memory").is_some() {
            all.requests.memory = given.memory;
            all.scored_memory = given.memory;
        }
        for (name, amount) in given.others {
            all.requests.others.retain(|(n, _)| *n != name);
            all.requests.others.push((name, amount));
        }
    }
    let overhead = Resources::parse(&spec["overhead"]);
    all.scored_milli_cpu += overhead.milli_cpu;
    all.scored_memory += overhead.memory;
    all.requests.add(&overhead);
    all
}

fn total(spec: &Value, of_container: &dyn Fn(&Value) -> Resources) -> Resources {
    let list = |name: &str| spec[name].as_array().map_or(&[][..], Vec::as_slice);
    let mut running = Resources::default();
    for container in list("containers") {
        running.add(&of_container(container));
    }
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for container in list("initContainers") {
        let mut own = of_container(container);
        if container["restartPolicy"] == "Always" {
            running.add(&own);
            sidecars.add(&own);
            own = sidecars.clone();
        } else {
            own.add(&sidecars);
        }
        peak.raise_to(&own);
    }
    running.raise_to(&peak);
    running
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(cpu: &str) -> Value {
        json!({"resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn an_init_container_counts_only_beyond_what_runs_later() {
        let spec = json!({"containers": [container("1"), container("500m")], "initContainers": [container("2")]});
        assert_eq!(of_pod(&spec).requests.milli_cpu, 2000);
        let spec = json!({"containers": [container("1"), container("1500m")], "initContainers": [container("2")]});
        assert_eq!(of_pod(&spec).requests.milli_cpu, 2500);
    }

    #[test]
    fn a_sidecar_counts_beside_later_init_containers_and_the_containers() {
        let mut sidecar = container("1");
        sidecar["restartPolicy"] = "Always".into();
        let spec = json!({"containers": [container("1")], "initContainers": [sidecar, container("3")]});
        assert_eq!(of_pod(&spec).requests.milli_cpu, 4000);
    }

    #[test]
    fn a_container_without_requests_takes_nothing_but_is_scored() {
        let all = of_pod(&json!({"containers": [{}]}));
        assert_eq!(all.requests, Resources::default());
        assert_eq!((all.scored_milli_cpu, all.scored_memory), (100, 209_715_200));
    }

    #[test]
    fn overhead_and_pod_level_requests_count() {
        let spec = json!({"containers": [container("1")], "overhead": {"cpu": "250m"},
            "resources": {"requests": {"cpu": "3"}}});
        assert_eq!(of_pod(&spec).requests.milli_cpu, 3250);
    }
}
