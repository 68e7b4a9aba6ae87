//! `/stats/summary`: what the node and its pods use.
//!
//! Owns: the Summary document.
//! Called by: the node server.
//! Never: measures; the runtime and /proc do.

use http::Response;
use k8s_cri::v1 as cri;
use minik_client::Body;
use serde_json::{Value, json};

use super::{Server, json as answer};
use crate::observed::timestamp;

pub async fn summary(server: &Server) -> Response<Body> {
    let pods: Vec<Value> = collect(server).await.iter().map(pod).collect();
    let (cpu, memory) = node_usage();
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let storage = rustix::fs::statvfs(&server.node.root_dir).ok();
    let fs = storage.map(|s| {
        json!({
            "time": now, "availableBytes": s.f_bavail * s.f_frsize, "capacityBytes": s.f_blocks * s.f_frsize,
            "usedBytes": (s.f_blocks - s.f_bfree) * s.f_frsize, "inodesFree": s.f_ffree, "inodes": s.f_files,
            "inodesUsed": s.f_files - s.f_ffree,
        })
    });
    answer(&json!({
        "node": {
            "nodeName": server.node.node_name,
            "cpu": {"time": now, "usageCoreNanoSeconds": cpu},
            "memory": {
                "time": now, "availableBytes": memory.available, "usageBytes": memory.total - memory.free,
                "workingSetBytes": memory.total - memory.available,
            },
            "fs": fs,
        },
        "pods": pods,
    }))
}

pub async fn collect(server: &Server) -> Vec<cri::PodSandboxStats> {
    let request = cri::ListPodSandboxStatsRequest { filter: None };
    match server.node.cri.runtime().list_pod_sandbox_stats(request).await {
        Ok(answer) => answer.into_inner().stats,
        Err(status) => {
            tracing::debug!(error = status.message(), "no statistics from the runtime");
            vec![]
        }
    }
}

fn time(nanoseconds: i64) -> Value {
    timestamp(nanoseconds).map_or(Value::Null, |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into())
}

fn number(value: &Option<cri::UInt64Value>) -> Value {
    value.as_ref().map_or(Value::Null, |v| v.value.into())
}

fn cpu(usage: &cri::CpuUsage) -> Value {
    json!({
        "time": time(usage.timestamp), "usageNanoCores": number(&usage.usage_nano_cores),
        "usageCoreNanoSeconds": number(&usage.usage_core_nano_seconds),
    })
}

fn memory(usage: &cri::MemoryUsage) -> Value {
    json!({
        "time": time(usage.timestamp), "availableBytes": number(&usage.available_bytes),
        "usageBytes": number(&usage.usage_bytes), "workingSetBytes": number(&usage.working_set_bytes),
        "rssBytes": number(&usage.rss_bytes), "pageFaults": number(&usage.page_faults),
        "majorPageFaults": number(&usage.major_page_faults),
    })
}

fn pod(stats: &cri::PodSandboxStats) -> Value {
    let attributes = stats.attributes.clone().unwrap_or_default();
    let metadata = attributes.metadata.unwrap_or_default();
    let linux = stats.linux.clone().unwrap_or_default();
    let containers: Vec<Value> = linux
        .containers
        .iter()
        .map(|c| {
            let name = c.attributes.as_ref().and_then(|a| a.metadata.as_ref()).map(|m| m.name.clone());
            json!({
                "name": name, "cpu": c.cpu.as_ref().map(cpu), "memory": c.memory.as_ref().map(memory),
                "rootfs": c.writable_layer.as_ref().map(|w| json!({
                    "time": time(w.timestamp), "usedBytes": number(&w.used_bytes), "inodesUsed": number(&w.inodes_used),
                })),
            })
        })
        .collect();
    let network = linux.network.as_ref().map(|n| {
        let of = |i: &cri::NetworkInterfaceUsage| {
            json!({
                "name": i.name, "rxBytes": number(&i.rx_bytes), "rxErrors": number(&i.rx_errors),
                "txBytes": number(&i.tx_bytes), "txErrors": number(&i.tx_errors),
            })
        };
        let mut value = n.default_interface.as_ref().map_or_else(|| json!({}), of);
        value["time"] = time(n.timestamp);
        value["interfaces"] = n.interfaces.iter().map(of).collect();
        value
    });
    json!({
        "podRef": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid},
        "cpu": linux.cpu.as_ref().map(cpu), "memory": linux.memory.as_ref().map(memory),
        "network": network, "containers": containers,
        "process_stats": linux.process.as_ref().map(|p| json!({"process_count": number(&p.process_count)})),
    })
}

pub struct NodeMemory {
    pub total: u64,
    pub free: u64,
    pub available: u64,
}

/// CPU nanoseconds since boot, and memory.
pub fn node_usage() -> (u64, NodeMemory) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let meminfo = read("/proc/meminfo");
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|l| l.strip_prefix(name));
        let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
        kib.unwrap_or(0) << 10
    };
    let memory = NodeMemory { total: field("MemTotal:"), free: field("MemFree:"), available: field("MemAvailable:") };
    (busy_nanoseconds(&read("/proc/stat")), memory)
}

/// Ticks of all but idle and iowait, at 100 a second (USER_HZ of every Linux architecture in use).
fn busy_nanoseconds(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|t| t.parse().ok()).collect();
    let busy: u64 = ticks.iter().take(8).enumerate().filter(|(i, _)| !matches!(i, 3 | 4)).map(|(_, t)| t).sum();
    busy * 10_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_leaves_out_idle_and_waiting() {
        assert_eq!(busy_nanoseconds("cpu  1 2 3 1000 500 4 5 6 7 8\n"), 21 * 10_000_000);
    }
}
