//! What containers and pods use, read from cgroup files (v1 and v2) and the pod's link.
//!
//! Owns: which file holds what in which version.
//! Called by: the CRI RuntimeService.
//! Never: keeps a history; only the last CPU reading, to say a rate.

use std::fs;
use std::path::Path;

use k8s_cri::v1;
use minik_shim::{CgroupVersion, path_of};

use crate::record::now;
use crate::runtime::{Container, Runtime, Sandbox};
use crate::sandbox::cgroup_parent;

/// A CPU reading.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    at: i64,
    nanoseconds: u64,
    rate: u64,
}

/// Rates over less than this are noise.
const RATE_OVER_NANOSECONDS_MIN: i64 = 100_000_000;
/// A v1 cgroup without a limit says a number near 2^63.
const NO_LIMIT: u64 = 1 << 62;

/// A folder of cgroup files.
struct Files<'a> {
    version: CgroupVersion,
    cgroup: &'a str,
}

impl Files<'_> {
    fn text(&self, controller: &str, name: &str) -> String {
        fs::read_to_string(path_of(self.version, controller, self.cgroup).join(name)).unwrap_or_default()
    }

    fn number(&self, controller: &str, name: &str) -> Option<u64> {
        self.text(controller, name).trim().parse().ok()
    }

    fn cpu_nanoseconds(&self) -> Option<u64> {
        match self.version {
            CgroupVersion::V1 => self.number("cpuacct", "cpuacct.usage"),
            CgroupVersion::V2 => keyed(&self.text("cpu", "cpu.stat"), "usage_usec").map(|us| us * 1000),
        }
    }

    fn memory(&self, at: i64) -> v1::MemoryUsage {
        let stat = self.text("memory", "memory.stat");
        let (usage, limit, inactive, rss, faults, major) = match self.version {
            CgroupVersion::V1 => (
                self.number("memory", "memory.usage_in_bytes"),
                self.number("memory", "memory.limit_in_bytes").filter(|l| *l < NO_LIMIT),
                keyed(&stat, "total_inactive_file"),
                keyed(&stat, "total_rss"),
                keyed(&stat, "total_pgfault"),
                keyed(&stat, "total_pgmajfault"),
            ),
            CgroupVersion::V2 => (
                self.number("memory", "memory.current"),
                self.number("memory", "memory.max"),
                keyed(&stat, "inactive_file"),
                keyed(&stat, "anon"),
                keyed(&stat, "pgfault"),
                keyed(&stat, "pgmajfault"),
            ),
        };
        // What would be missing if the page cache that nobody used lately were given back.
        let working_set = usage.map(|u| u.saturating_sub(inactive.unwrap_or(0)));
        v1::MemoryUsage {
            timestamp: at,
            working_set_bytes: value(working_set),
            available_bytes: value(limit.zip(working_set).map(|(l, w)| l.saturating_sub(w))),
            usage_bytes: value(usage),
            rss_bytes: value(rss),
            page_faults: value(faults),
            major_page_faults: value(major),
        }
    }

    fn swap(&self, at: i64) -> v1::SwapUsage {
        let usage = match self.version {
            CgroupVersion::V1 => keyed(&self.text("memory", "memory.stat"), "total_swap"),
            CgroupVersion::V2 => self.number("memory", "memory.swap.current"),
        };
        v1::SwapUsage { timestamp: at, swap_available_bytes: None, swap_usage_bytes: value(usage) }
    }
}

fn value(number: Option<u64>) -> Option<v1::UInt64Value> {
    number.map(|value| v1::UInt64Value { value })
}

/// `name 123` in a file of such lines.
fn keyed(text: &str, name: &str) -> Option<u64> {
    let number = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(number)
}

fn cpu(files: &Files, at: i64, last: &mut Option<Sample>) -> Option<v1::CpuUsage> {
    let nanoseconds = files.cpu_nanoseconds()?;
    let rate = match *last {
        Some(last) if at - last.at < RATE_OVER_NANOSECONDS_MIN => last.rate,
        Some(last) => {
            let elapsed = u128::try_from(at - last.at).unwrap_or(1);
            let used = u128::from(nanoseconds.saturating_sub(last.nanoseconds));
            u64::try_from(used * 1_000_000_000 / elapsed).unwrap_or(0)
        }
        None => 0,
    };
    let rate_known = last.is_some();
    if last.is_none_or(|l| at - l.at >= RATE_OVER_NANOSECONDS_MIN) {
        *last = Some(Sample { at, nanoseconds, rate });
    }
    Some(v1::CpuUsage {
        timestamp: at,
        usage_core_nano_seconds: value(Some(nanoseconds)),
        usage_nano_cores: value(Some(rate).filter(|_| rate_known)),
    })
}

/// Blocks: it walks the container's writable layer.
pub(crate) fn container(runtime: &Runtime, container: &Container) -> v1::ContainerStats {
    let record = container.record.lock().clone();
    let at = now();
    let files = Files { version: runtime.0.cgroups, cgroup: &record.cgroup };
    let layer = runtime.0.config.layer(&record.id).join("upper");
    let (bytes, inodes) = disk_usage(&layer);
    v1::ContainerStats {
        attributes: Some(v1::ContainerAttributes {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }),
        cpu: cpu(&files, at, &mut container.sample.lock()),
        memory: Some(files.memory(at)),
        writable_layer: Some(v1::FilesystemUsage {
            timestamp: at,
            fs_id: Some(v1::FilesystemIdentifier { mountpoint: runtime.0.config.state.to_string_lossy().into_owned() }),
            used_bytes: value(Some(bytes)),
            inodes_used: value(Some(inodes)),
        }),
        swap: Some(files.swap(at)),
    }
}

/// Blocks.
pub(crate) fn sandbox(runtime: &Runtime, sandbox: &Sandbox) -> v1::PodSandboxStats {
    let record = sandbox.record.lock().clone();
    let at = now();
    let members: Vec<_> = runtime.containers_of(&record.id);
    let containers: Vec<v1::ContainerStats> = members
        .iter()
        .filter(|c| matches!(c.record.lock().state, crate::record::State::Running { .. }))
        .map(|c| container(runtime, c))
        .collect();
    let parent = cgroup_parent(&record.config);
    let files = Files { version: runtime.0.cgroups, cgroup: parent };
    // The pod's own cgroup has the sum, and what containers that are gone used.
    let has_own = !parent.is_empty() && files.cpu_nanoseconds().is_some();
    let pod_cpu = files.cpu_nanoseconds().filter(|_| has_own);
    let rate = containers.iter().filter_map(|c| c.cpu.as_ref()?.usage_nano_cores).map(|v| v.value).sum();
    let processes = minik_shim::member_pids(parent).len() as u64;
    let linux = v1::LinuxPodSandboxStats {
        cpu: pod_cpu.map(|used| v1::CpuUsage {
            timestamp: at,
            usage_core_nano_seconds: value(Some(used)),
            usage_nano_cores: value(Some(rate)),
        }),
        memory: has_own.then(|| files.memory(at)),
        network: record.ip.is_some().then(|| network(&record.id, at)),
        process: has_own.then(|| v1::ProcessUsage { timestamp: at, process_count: value(Some(processes)) }),
        containers,
    };
    v1::PodSandboxStats {
        attributes: Some(v1::PodSandboxAttributes {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }),
        linux: Some(linux),
        windows: None,
    }
}

/// From the node's end of the pod's link, so that no namespace has to be entered: what it sends, the pod receives.
fn network(sandbox: &str, at: i64) -> v1::NetworkUsage {
    let folder = Path::new("/sys/class/net").join(minik_network::pod::host_interface(sandbox)).join("statistics");
    let read = |name: &str| value(fs::read_to_string(folder.join(name)).ok().and_then(|t| t.trim().parse().ok()));
    let interface = v1::NetworkInterfaceUsage {
        name: minik_network::pod::POD_INTERFACE.to_owned(),
        rx_bytes: read("tx_bytes"),
        rx_errors: read("tx_errors"),
        tx_bytes: read("rx_bytes"),
        tx_errors: read("rx_errors"),
    };
    v1::NetworkUsage { timestamp: at, default_interface: Some(interface), interfaces: Vec::new() }
}

/// Bytes on disk and inodes below a folder.
pub(crate) fn disk_usage(folder: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    const BLOCK: u64 = 512;
    let (mut bytes, mut inodes) = (0, 0);
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            bytes += found.blocks() * BLOCK;
            inodes += 1;
            if found.is_dir() {
                open.push(entry.path());
            }
        }
    }
    (bytes, inodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_whole_word() {
        let text = "total_rss 5\nrss 3\npgfault 9\n";
        assert_eq!((keyed(text, "rss"), keyed(text, "total_rss"), keyed(text, "fault")), (Some(3), Some(5), None));
    }
}
