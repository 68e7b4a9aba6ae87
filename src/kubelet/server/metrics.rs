//! `/metrics` and `/metrics/resource` in Prometheus' text format, names as upstream's.
//!
//! Owns: the text.
//! Called by: the node server.
//! Never: keeps counters of its own.

use std::fmt::Write;

use http::Response;
use minik_client::Body;

use super::{Server, full, stats};

/// What metrics-server scrapes.
pub async fn resource(server: &Server) -> Response<Body> {
    let (cpu, memory) = stats::node_usage();
    let mut pods = String::new();
    let mut cpus = String::new();
    let mut memories = String::new();
    for stats in stats::collect(server).await {
        let metadata = stats.attributes.and_then(|a| a.metadata).unwrap_or_default();
        let linux = stats.linux.unwrap_or_default();
        let labels = format!("namespace=\"{}\",pod=\"{}\"", metadata.namespace, metadata.name);
        let seconds = |c: &Option<k8s_cri::v1::CpuUsage>| {
            let nanos = c.as_ref().and_then(|c| c.usage_core_nano_seconds.as_ref()).map(|v| v.value);
            nanos.map(|n| n as f64 / 1e9)
        };
        let bytes = |m: &Option<k8s_cri::v1::MemoryUsage>| {
            m.as_ref().and_then(|m| m.working_set_bytes.as_ref()).map(|v| v.value)
        };
        if let Some(s) = seconds(&linux.cpu) {
            let _ = writeln!(pods, "pod_cpu_usage_seconds_total{{{labels}}} {s}");
        }
        if let Some(b) = bytes(&linux.memory) {
            let _ = writeln!(pods, "pod_memory_working_set_bytes{{{labels}}} {b}");
        }
        for container in &linux.containers {
            let name = container.attributes.as_ref().and_then(|a| a.metadata.as_ref()).map(|m| m.name.clone());
            let labels = format!("container=\"{}\",{labels}", name.unwrap_or_default());
            if let Some(s) = seconds(&container.cpu) {
                let _ = writeln!(cpus, "container_cpu_usage_seconds_total{{{labels}}} {s}");
            }
            if let Some(b) = bytes(&container.memory) {
                let _ = writeln!(memories, "container_memory_working_set_bytes{{{labels}}} {b}");
            }
        }
    }
    let text = format!(
        "# TYPE container_cpu_usage_seconds_total counter\n{cpus}\
         # TYPE container_memory_working_set_bytes gauge\n{memories}\
         # TYPE node_cpu_usage_seconds_total counter\nnode_cpu_usage_seconds_total {}\n\
         # TYPE node_memory_working_set_bytes gauge\nnode_memory_working_set_bytes {}\n\
         # TYPE pod_cpu_usage_seconds_total counter\n{pods}\
         # TYPE resource_scrape_error gauge\nresource_scrape_error 0\n\
         # TYPE scrape_error gauge\nscrape_error 0\n",
        cpu as f64 / 1e9,
        memory.total - memory.available,
    );
    answer(text)
}

pub fn kubelet(server: &Server) -> Response<Body> {
    let all = server.pods.all();
    let running = all.iter().filter(|s| s.status.phase.as_deref() == Some("Running")).count();
    let containers: usize = all.iter().map(|s| s.seen.running().count()).sum();
    let text = format!(
        "# HELP kubelet_node_name The node's name. The count is always 1.\n\
         # TYPE kubelet_node_name gauge\nkubelet_node_name{{node=\"{}\"}} 1\n\
         # HELP kubelet_running_pods Number of pods that have a running pod sandbox\n\
         # TYPE kubelet_running_pods gauge\nkubelet_running_pods {running}\n\
         # HELP kubelet_running_containers Number of containers currently running\n\
         # TYPE kubelet_running_containers gauge\nkubelet_running_containers{{container_state=\"running\"}} {containers}\n",
        server.node.node_name
    );
    answer(text)
}

fn answer(text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert("content-type", kind);
    response
}
