//! Requests and limits: what they add up to, and what the kernel is told.
//!
//! Owns: QoS classes, CPU shares and quota, OOM score, cgroup paths.
//! Called by: what builds CRI configurations, pod status, and the downward API.
//! Never: reads a cgroup.

use std::collections::BTreeMap;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::Pod;

pub type ResourceList = BTreeMap<String, Quantity>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }
}

/// Thousandths, rounded up: how CPU is counted. A quantity that does not parse counts as absent.
pub fn milli(quantity: &Quantity) -> i64 {
    nano(&quantity.0).map_or(0, |n| ceil_div(n, 1_000_000))
}

/// Whole units, rounded up: bytes, or numbers of things.
pub fn units(quantity: &Quantity) -> i64 {
    nano(&quantity.0).map_or(0, |n| ceil_div(n, 1_000_000_000))
}

fn ceil_div(n: i128, by: i128) -> i64 {
    let quotient = n.div_euclid(by) + i128::from(n.rem_euclid(by) != 0);
    quotient.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// Billionths, the finest a Quantity can say.
fn nano(text: &str) -> Option<i128> {
    let end = text
        .char_indices()
        .find(|&(i, c)| !(c.is_ascii_digit() || c == '.' || (i == 0 && (c == '-' || c == '+'))))
        .map_or(text.len(), |(i, _)| i);
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let negative = whole.starts_with('-');
    let whole: i128 = match whole.trim_start_matches(['-', '+']) {
        "" => 0,
        digits => digits.parse().ok()?,
    };
    let mut scaled = whole.checked_mul(1_000_000_000)?;
    let padded: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    scaled += padded.parse::<i128>().ok()?;
    let magnitude = multiply(scaled, suffix)?;
    Some(if negative { -magnitude } else { magnitude })
}

fn multiply(n: i128, suffix: &str) -> Option<i128> {
    let decimal = |power: u32| n.checked_mul(10i128.pow(power));
    match suffix {
        "" => Some(n),
        "n" => Some(n / 1_000_000_000),
        "u" => Some(n / 1_000_000),
        "m" => Some(n / 1_000),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => n.checked_mul(1 << 10),
        "Mi" => n.checked_mul(1 << 20),
        "Gi" => n.checked_mul(1 << 30),
        "Ti" => n.checked_mul(1 << 40),
        "Pi" => n.checked_mul(1 << 50),
        "Ei" => n.checked_mul(1 << 60),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            match exponent {
                0..=18 => decimal(exponent as u32),
                -18..0 => Some(n / 10i128.pow(-exponent as u32)),
                _ => None,
            }
        }
    }
}

pub fn requests(container: &core::Container) -> Option<&ResourceList> {
    container.resources.as_ref()?.requests.as_ref()
}
pub fn limits(container: &core::Container) -> Option<&ResourceList> {
    container.resources.as_ref()?.limits.as_ref()
}

/// The class that follows from cpu and memory of the pod, or, without pod-level resources, of all its containers.
pub fn qos_class(pod: &Pod) -> QosClass {
    if let Some(level) = &pod.spec.resources {
        return qos_of(std::iter::once((level.requests.as_ref(), level.limits.as_ref())));
    }
    let all = pod.spec.init_containers.iter().flatten().chain(&pod.spec.containers);
    qos_of(all.map(|c| (requests(c), limits(c))))
}

fn qos_of<'a>(parts: impl Iterator<Item = (Option<&'a ResourceList>, Option<&'a ResourceList>)>) -> QosClass {
    let (mut any, mut guaranteed) = (false, true);
    for (requests, limits) in parts {
        for name in ["cpu", "memory"] {
            let amount = |list: Option<&ResourceList>| {
                list.and_then(|l| l.get(name)).and_then(|q| nano(&q.0)).filter(|n| *n > 0)
            };
            let (request, limit) = (amount(requests), amount(limits));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

/// Parent of the pod's containers in every cgroup hierarchy; Guaranteed pods lie directly below `kubepods`.
pub fn cgroup_parent(pod: &Pod) -> String {
    match qos_class(pod) {
        QosClass::Guaranteed => format!("/kubepods/pod{}", pod.uid),
        QosClass::Burstable => format!("/kubepods/burstable/pod{}", pod.uid),
        QosClass::BestEffort => format!("/kubepods/besteffort/pod{}", pod.uid),
    }
}

const CPU_PERIOD_US: i64 = 100_000;
/// The kernel's least `cpu.shares` and `cfs_quota_us`, and the most shares (sched(7), cgroup v1 cpu).
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
const QUOTA_US_MIN: i64 = 1_000;

pub fn cpu_shares(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 { SHARES_MIN } else { (milli_cpu * 1024 / 1000).clamp(SHARES_MIN, SHARES_MAX) }
}

pub fn cpu_quota(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 { 0 } else { (milli_cpu * CPU_PERIOD_US / 1000).max(QUOTA_US_MIN) }
}

/// What of this node a container's limits depend on.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    pub memory_bytes: u64,
    /// What every container's cgroup v2 says besides its limits; empty on v1.
    pub unified: BTreeMap<String, String>,
}

pub fn linux_resources(pod: &Pod, container: &core::Container, node: &Kernel) -> cri::LinuxContainerResources {
    let level = pod.spec.resources.as_ref();
    let limit = |name: &str| {
        limits(container)
            .and_then(|l| l.get(name))
            .or_else(|| level.and_then(|r| r.limits.as_ref()).and_then(|l| l.get(name)))
    };
    let cpu_limit = limit("cpu").map_or(0, milli);
    let cpu_request = requests(container).and_then(|r| r.get("cpu")).map_or(cpu_limit, milli);
    cri::LinuxContainerResources {
        cpu_period: if cpu_limit > 0 { CPU_PERIOD_US } else { 0 },
        cpu_quota: cpu_quota(cpu_limit),
        cpu_shares: cpu_shares(cpu_request),
        memory_limit_in_bytes: limit("memory").map_or(0, units),
        oom_score_adj: oom_score_adj(pod, container, node.memory_bytes),
        unified: node.unified.clone().into_iter().collect(),
        ..Default::default()
    }
}

/// Who the kernel kills first. Numbers from upstream's QoS policy: 2..999 for Burstable by share of memory asked for.
pub fn oom_score_adj(pod: &Pod, container: &core::Container, node_memory: u64) -> i64 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    if pod.spec.priority.is_some_and(|p| p >= 2_000_001_000) {
        return GUARANTEED;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => GUARANTEED,
        QosClass::BestEffort => BEST_EFFORT,
        QosClass::Burstable => {
            let asked = requests(container).and_then(|r| r.get("memory")).map_or(0, units);
            let score = 1000 - 1000 * i128::from(asked) / i128::from(node_memory.max(1));
            (score as i64).clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
        }
    }
}

/// The pod's cgroup limits, for the sandbox: sums over containers, unlimited when one has no limit.
pub fn pod_resources(pod: &Pod) -> cri::LinuxContainerResources {
    let level = pod.spec.resources.as_ref();
    let sum = |read: fn(&core::Container) -> Option<&ResourceList>, name: &str, count: fn(&Quantity) -> i64| {
        pod.spec.containers.iter().map(|c| read(c).and_then(|l| l.get(name)).map(count)).collect::<Vec<_>>()
    };
    let at_level = |list: Option<&ResourceList>, name: &str, count: fn(&Quantity) -> i64| {
        list.and_then(|l| l.get(name)).map(count)
    };
    let all = |parts: Vec<Option<i64>>| parts.into_iter().sum::<Option<i64>>();
    let any = |parts: Vec<Option<i64>>| parts.into_iter().flatten().sum::<i64>();
    let level_limits = level.and_then(|r| r.limits.as_ref());
    let level_requests = level.and_then(|r| r.requests.as_ref());
    let cpu_limit = at_level(level_limits, "cpu", milli).or_else(|| all(sum(limits, "cpu", milli))).unwrap_or(0);
    let memory = at_level(level_limits, "memory", units).or_else(|| all(sum(limits, "memory", units))).unwrap_or(0);
    let cpu_request = at_level(level_requests, "cpu", milli).unwrap_or_else(|| any(sum(requests, "cpu", milli)));
    cri::LinuxContainerResources {
        cpu_period: if cpu_limit > 0 { CPU_PERIOD_US } else { 0 },
        cpu_quota: cpu_quota(cpu_limit),
        cpu_shares: cpu_shares(cpu_request),
        memory_limit_in_bytes: memory,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::pod;

    #[test]
    fn quantities_are_read_in_every_notation() {
        let q = |s: &str| Quantity(s.into());
        assert_eq!(milli(&q("0.1")), 100);
        assert_eq!(milli(&q("250m")), 250);
        assert_eq!(milli(&q("1500u")), 2);
        assert_eq!(units(&q("64Mi")), 64 << 20);
        assert_eq!(units(&q("1.5Gi")), 3 << 29);
        assert_eq!(units(&q("1e3")), 1000);
        assert_eq!(units(&q("100m")), 1);
        assert_eq!(units(&q("nonsense")), 0);
    }

    #[test]
    fn qos_follows_from_requests_and_limits() {
        let with = |r: &str| qos_class(&pod(&format!("containers: [{{name: a, image: i, resources: {r}}}]")));
        assert_eq!(with("{}"), QosClass::BestEffort);
        assert_eq!(with("{requests: {cpu: 100m}}"), QosClass::Burstable);
        assert_eq!(with("{limits: {cpu: 1, memory: 1Gi}}"), QosClass::Guaranteed);
        assert_eq!(with("{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 1000m, memory: 1Gi}}"), QosClass::Guaranteed);
        assert_eq!(with("{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 500m, memory: 1Gi}}"), QosClass::Burstable);
        assert_eq!(with("{limits: {cpu: 1}}"), QosClass::Burstable);
    }

    #[test]
    fn the_kernel_is_told_shares_quota_and_memory() {
        let pod = pod(
            "containers: [{name: a, image: i, resources: {requests: {cpu: 250m}, limits: {cpu: 5m, memory: 64Mi}}}]",
        );
        let unified = [("memory.oom.group".to_string(), "1".to_string())];
        let node = Kernel { memory_bytes: 8 << 30, unified: unified.clone().into() };
        let told = linux_resources(&pod, &pod.spec.containers[0], &node);
        assert_eq!(told.unified, unified.into());
        assert_eq!((told.cpu_shares, told.cpu_quota, told.cpu_period), (256, 1000, 100_000));
        assert_eq!(told.memory_limit_in_bytes, 64 << 20);
    }

    #[test]
    fn burstable_pods_are_killed_later_the_more_memory_they_asked_for() {
        let score = |memory: &str| {
            let pod =
                pod(&format!("containers: [{{name: a, image: i, resources: {{requests: {{memory: {memory}}}}}}}]"));
            oom_score_adj(&pod, &pod.spec.containers[0], 8 << 30)
        };
        assert_eq!(score("1"), 999);
        assert_eq!(score("4Gi"), 500);
        assert_eq!(score("8Gi"), 3);
    }
}
