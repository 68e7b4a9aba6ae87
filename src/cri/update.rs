//! Changing the limits of a container that exists.
//!
//! Owns: which cgroup files take which limit, and the order that keeps the kernel from refusing.
//! Called by: the CRI RuntimeService.
//! Never: restarts anything.

use std::fs;

use k8s_cri::v1::LinuxContainerResources;
use minik_shim::{CgroupVersion, path_of};

use crate::error::{Error, io_error};

/// The writes that put `wanted` into force, in order: controller, file, content. Zero and empty mean "unchanged".
fn plan(version: CgroupVersion, wanted: &LinuxContainerResources) -> Vec<(&'static str, String, String)> {
    let mut writes: Vec<(&'static str, String, String)> = Vec::new();
    let mut write = |controller, file: &str, content: String| writes.push((controller, file.to_owned(), content));
    match version {
        CgroupVersion::V1 => {
            if wanted.cpu_shares != 0 {
                write("cpu", "cpu.shares", wanted.cpu_shares.to_string());
            }
            if wanted.cpu_period != 0 {
                write("cpu", "cpu.cfs_period_us", wanted.cpu_period.to_string());
            }
            if wanted.cpu_quota != 0 {
                write("cpu", "cpu.cfs_quota_us", wanted.cpu_quota.to_string());
            }
            if wanted.memory_limit_in_bytes != 0 {
                write("memory", "memory.limit_in_bytes", wanted.memory_limit_in_bytes.to_string());
            }
        }
        CgroupVersion::V2 => {
            if wanted.cpu_shares != 0 {
                write("cpu", "cpu.weight", weight(wanted.cpu_shares).to_string());
            }
            if wanted.cpu_quota != 0 || wanted.cpu_period != 0 {
                let period = if wanted.cpu_period == 0 { 100_000 } else { wanted.cpu_period };
                let quota = if wanted.cpu_quota > 0 { wanted.cpu_quota.to_string() } else { "max".to_owned() };
                write("cpu", "cpu.max", format!("{quota} {period}"));
            }
            if wanted.memory_limit_in_bytes != 0 {
                let limit = wanted.memory_limit_in_bytes;
                write("memory", "memory.max", if limit > 0 { limit.to_string() } else { "max".to_owned() });
            }
            for (file, content) in &wanted.unified {
                write("unified", file, content.clone());
            }
        }
    }
    for (file, content) in [("cpuset.cpus", &wanted.cpuset_cpus), ("cpuset.mems", &wanted.cpuset_mems)] {
        if !content.is_empty() {
            write("cpuset", file, content.clone());
        }
    }
    writes
}

/// The weight that libcontainer, runc (since 1.3.2) and crun give these shares: 2, 1024 and 262144, v1's least, default
/// and most, become v2's 1, 100 and 10000, and the curve between them is a parabola in log-log scale.
fn weight(shares: i64) -> i64 {
    if shares <= 2 {
        return 1;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as i64).clamp(1, 10_000)
}

pub(crate) fn apply(version: CgroupVersion, cgroup: &str, wanted: &LinuxContainerResources) -> Result<(), Error> {
    for (controller, file, content) in plan(version, wanted) {
        if file.contains('/') {
            return Err(Error::Invalid(format!("{file:?} is not a cgroup file")));
        }
        let path = path_of(version, controller, cgroup).join(&file);
        fs::write(&path, &content).map_err(io_error(format!("failed to set {file} to {content}")))?;
    }
    Ok(())
}

/// What the container now has: the new limits where they were said, the old ones else.
pub(crate) fn merge(old: &LinuxContainerResources, new: &LinuxContainerResources) -> LinuxContainerResources {
    let number = |old: i64, new: i64| if new == 0 { old } else { new };
    let text = |old: &String, new: &String| if new.is_empty() { old.clone() } else { new.clone() };
    LinuxContainerResources {
        cpu_period: number(old.cpu_period, new.cpu_period),
        cpu_quota: number(old.cpu_quota, new.cpu_quota),
        cpu_shares: number(old.cpu_shares, new.cpu_shares),
        memory_limit_in_bytes: number(old.memory_limit_in_bytes, new.memory_limit_in_bytes),
        oom_score_adj: number(old.oom_score_adj, new.oom_score_adj),
        cpuset_cpus: text(&old.cpuset_cpus, &new.cpuset_cpus),
        cpuset_mems: text(&old.cpuset_mems, &new.cpuset_mems),
        hugepage_limits: if new.hugepage_limits.is_empty() { old } else { new }.hugepage_limits.clone(),
        unified: old.unified.iter().chain(&new.unified).map(|(k, v)| (k.clone(), v.clone())).collect(),
        memory_swap_limit_in_bytes: number(old.memory_swap_limit_in_bytes, new.memory_swap_limit_in_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_own_files() {
        let wanted = LinuxContainerResources {
            cpu_shares: 1024,
            cpu_quota: -1,
            memory_limit_in_bytes: 64,
            cpuset_cpus: "0".into(),
            ..Default::default()
        };
        let lines = |version| {
            let writes = plan(version, &wanted);
            writes.iter().map(|(_, file, content)| format!("{file}={content}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            lines(CgroupVersion::V1),
            "cpu.shares=1024 cpu.cfs_quota_us=-1 memory.limit_in_bytes=64 cpuset.cpus=0"
        );
        assert_eq!(lines(CgroupVersion::V2), "cpu.weight=100 cpu.max=max 100000 memory.max=64 cpuset.cpus=0");
    }

    #[test]
    fn a_resized_container_weighs_what_a_new_one_does() {
        assert_eq!([0, 2, 102, 512, 1024, 262_144, 1 << 40].map(weight), [1, 1, 17, 59, 100, 10_000, 10_000]);
    }

    #[test]
    fn what_is_not_said_stays() {
        let old = LinuxContainerResources { cpu_shares: 2, memory_limit_in_bytes: 9, ..Default::default() };
        let new = LinuxContainerResources { cpu_shares: 5, ..Default::default() };
        let now = merge(&old, &new);
        assert_eq!((now.cpu_shares, now.memory_limit_in_bytes), (5, 9));
    }
}
