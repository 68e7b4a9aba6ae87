//! How much of everything this machine has.
//!
//! Owns: reading /proc, the cgroup limits and the disk.
//! Called by: `run`, once.
//! Never: reads how much is in use.

use std::path::Path;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::config::{Config, Resources};
use crate::resources::ResourceList;

/// Upstream's default hard eviction thresholds: memory.available<100Mi, nodefs.available<10%.
const MEMORY_EVICTION_BYTES: u64 = 100 << 20;
const STORAGE_EVICTION_PERCENT: u64 = 10;

#[derive(Clone, Debug, PartialEq)]
pub struct Capacity {
    pub total: Resources,
    pub capacity: ResourceList,
    pub allocatable: ResourceList,
}

pub fn capacity(config: &Config) -> Capacity {
    compute(config.capacity.unwrap_or_else(|| measure(&config.root_dir)), config.reserved, config.max_pods)
}

fn compute(total: Resources, reserved: Resources, max_pods: u32) -> Capacity {
    let list = |r: Resources, hugepages: bool| {
        let mut list = ResourceList::from([
            ("cpu".to_string(), cpu(r.cpu_milli)),
            ("memory".to_string(), Quantity(format!("{}Ki", r.memory_bytes >> 10))),
            ("ephemeral-storage".to_string(), Quantity(format!("{}Ki", r.ephemeral_storage_bytes >> 10))),
            ("pods".to_string(), Quantity(max_pods.to_string())),
        ]);
        if hugepages {
            list.extend(["hugepages-1Gi", "hugepages-2Mi"].map(|n| (n.to_string(), Quantity("0".into()))));
        }
        list
    };
    let storage = total.ephemeral_storage_bytes;
    let left = Resources {
        cpu_milli: total.cpu_milli.saturating_sub(reserved.cpu_milli),
        memory_bytes: total.memory_bytes.saturating_sub(reserved.memory_bytes + MEMORY_EVICTION_BYTES),
        ephemeral_storage_bytes: (storage - storage * STORAGE_EVICTION_PERCENT / 100)
            .saturating_sub(reserved.ephemeral_storage_bytes),
    };
    Capacity { total, capacity: list(total, true), allocatable: list(left, true) }
}

fn cpu(milli: u64) -> Quantity {
    Quantity(if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{milli}m") })
}

fn measure(disk: &Path) -> Resources {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let total = std::fs::read_to_string("/proc/meminfo").map(|t| mem_total(&t)).unwrap_or(0);
    let storage = nearest(disk).and_then(|d| rustix::fs::statvfs(d).ok()).map_or(0, |s| s.f_blocks * s.f_frsize);
    Resources {
        cpu_milli: cpus * 1000,
        memory_bytes: cgroup_memory_limit().map_or(total, |limit| limit.min(total)),
        ephemeral_storage_bytes: storage,
    }
}

/// The directory or the nearest one above it that exists.
fn nearest(path: &Path) -> Option<&Path> {
    path.ancestors().find(|p| p.exists())
}

fn mem_total(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// Of the container this node is, v2 then v1; "max" and v1's huge number are no limit.
fn cgroup_memory_limit() -> Option<u64> {
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|p| std::fs::read_to_string(p).ok())
        .and_then(|text| text.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocatable_is_capacity_without_what_is_held_back() {
        let total = Resources { cpu_milli: 4000, memory_bytes: 8 << 30, ephemeral_storage_bytes: 100 << 30 };
        let reserved = Resources { cpu_milli: 500, memory_bytes: 1 << 30, ..Default::default() };
        let got = compute(total, reserved, 110);
        let text = |l: &ResourceList, n: &str| l[n].0.clone();
        assert_eq!(text(&got.capacity, "cpu"), "4");
        assert_eq!(text(&got.allocatable, "cpu"), "3500m");
        assert_eq!(text(&got.allocatable, "memory"), format!("{}Ki", (7u64 << 20) - (100 << 10)));
        assert_eq!(text(&got.allocatable, "ephemeral-storage"), format!("{}Ki", 90u64 << 20));
        assert_eq!(text(&got.allocatable, "pods"), "110");
    }

    #[test]
    fn memory_is_read_from_meminfo() {
        assert_eq!(mem_total("MemTotal:       24000000 kB\nMemFree: 1 kB\n"), 24_000_000 << 10);
    }
}
