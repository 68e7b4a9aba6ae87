//! What this server counts about itself.
//!
//! Owns: the counters and their Prometheus text, under upstream's names.
//! Called by: the pipeline, once per request; `/metrics`.
//! Never: counts by object name, which has no bound.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::route::RequestInfo;

/// Upstream's buckets of `apiserver_request_duration_seconds`.
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
/// Combinations of labels beyond this are counted together: paths are the client's choice.
const SERIES_MAX: usize = 2000;

#[derive(Default)]
struct Series {
    count: u64,
    seconds: f64,
    buckets: [u64; BUCKETS.len()],
}

/// What requests are counted by.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    verb: &'static str,
    writes: bool,
}

#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(Labels, u16), Series>>,
    reading: AtomicI64,
    writing: AtomicI64,
}

/// A request being served.
pub struct InFlight<'m>(&'m AtomicI64);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn method(verb: &str) -> &'static str {
    match verb {
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "list" => "LIST",
        "watch" => "WATCH",
        "get" => "GET",
        _ => "other",
    }
}

impl Labels {
    pub fn of(info: &RequestInfo) -> Self {
        let verb = method(&info.verb);
        let collection = matches!(verb, "LIST" | "WATCH" | "DELETECOLLECTION" | "POST");
        let scope = match (info.is_resource, collection && info.name.is_empty(), info.namespace.is_empty()) {
            (false, ..) => "",
            (true, false, _) => "resource",
            (true, true, false) => "namespace",
            (true, true, true) => "cluster",
        };
        Self {
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            scope,
            verb,
            writes: matches!(verb, "POST" | "PUT" | "PATCH" | "DELETE" | "DELETECOLLECTION"),
        }
    }

    fn text(&self) -> String {
        let Self { group, version, resource, subresource, scope, verb, .. } = self;
        format!(
            "component=\"apiserver\",dry_run=\"\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }
}

impl Metrics {
    pub fn begin(&self, labels: &Labels) -> InFlight<'_> {
        let count = if labels.writes { &self.writing } else { &self.reading };
        count.fetch_add(1, Ordering::Relaxed);
        InFlight(count)
    }

    pub fn request(&self, labels: Labels, code: u16, took: Duration) {
        let mut requests = self.requests.lock();
        let full = requests.len() >= SERIES_MAX;
        let labels = if full { Labels { verb: labels.verb, ..Labels::default() } } else { labels };
        let series = requests.entry((labels, code)).or_default();
        let seconds = took.as_secs_f64();
        series.count += 1;
        series.seconds += seconds;
        for (bucket, limit) in series.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= limit);
        }
    }

    /// `objects`: how many there are of each resource, by `resource.group`.
    pub fn text(&self, objects: &[(String, usize)]) -> String {
        let mut out = String::new();
        self.requests_text(&mut out);
        out.push_str("# HELP apiserver_current_inflight_requests [STABLE] Maximal number of currently used inflight request limit of this apiserver per request kind in last second.\n");
        out.push_str("# TYPE apiserver_current_inflight_requests gauge\n");
        for (kind, count) in [("mutating", &self.writing), ("readOnly", &self.reading)] {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {count}");
        }
        out.push_str("# HELP apiserver_storage_objects [STABLE] Number of stored objects at the time of last check split by kind.\n");
        out.push_str("# TYPE apiserver_storage_objects gauge\n");
        for (resource, count) in objects {
            let _ = writeln!(out, "apiserver_storage_objects{{resource=\"{resource}\"}} {count}");
        }
        process(&mut out);
        out
    }

    fn requests_text(&self, out: &mut String) {
        let requests = self.requests.lock();
        out.push_str("# HELP apiserver_request_total [STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.\n");
        out.push_str("# TYPE apiserver_request_total counter\n");
        for ((labels, code), series) in requests.iter() {
            let _ = writeln!(out, "apiserver_request_total{{code=\"{code}\",{}}} {}", labels.text(), series.count);
        }
        out.push_str("# HELP apiserver_request_duration_seconds [STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.\n");
        out.push_str("# TYPE apiserver_request_duration_seconds histogram\n");
        let mut whole: BTreeMap<&Labels, Series> = BTreeMap::new();
        for ((labels, _), series) in requests.iter() {
            let sum = whole.entry(labels).or_default();
            sum.count += series.count;
            sum.seconds += series.seconds;
            sum.buckets.iter_mut().zip(series.buckets).for_each(|(sum, more)| *sum += more);
        }
        let name = "apiserver_request_duration_seconds";
        for (labels, series) in whole {
            let labels = labels.text();
            for (count, limit) in series.buckets.iter().zip(BUCKETS) {
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{limit}\"}} {count}");
            }
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", series.count);
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", series.seconds);
            let _ = writeln!(out, "{name}_count{{{labels}}} {}", series.count);
        }
    }
}

/// Ticks of `/proc/self/stat` a second: fixed by the kernel's interface.
const TICKS: f64 = 100.0;
const PAGE_BYTES: u64 = 4096;

/// What Prometheus' clients tell of their process, from `/proc`; nothing where there is none.
fn process(out: &mut String) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    // The name in brackets may hold anything, so fields are counted from its end.
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0)).collect())
        .unwrap_or_default();
    let field = |index: usize| fields.get(index - 4).copied().unwrap_or(0);
    let booted = read("/proc/stat");
    let booted: f64 =
        booted.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|t| t.parse().ok()).unwrap_or(0.0);
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let lines = [
        (
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            (field(14) + field(15)) as f64 / TICKS,
        ),
        ("process_open_fds", "gauge", "Number of open file descriptors.", open as f64),
        ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", (field(24) * PAGE_BYTES) as f64),
        (
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            booted + field(22) as f64 / TICKS,
        ),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", field(23) as f64),
    ];
    for (name, kind, help, value) in lines {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::query::Query;

    #[test]
    fn requests_are_counted_under_upstreams_labels() {
        let metrics = Metrics::default();
        let query = Query::parse("");
        let labels = Labels::of(&RequestInfo::of(&Method::GET, "/apis/apps/v1/namespaces/a/deployments", &query));
        let held = metrics.begin(&labels);
        metrics.request(labels.clone(), 200, Duration::from_millis(30));
        metrics.request(labels, 500, Duration::from_secs(2));
        let text = metrics.text(&[("pods".into(), 3)]);
        drop(held);
        let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        let labels = "component=\"apiserver\",dry_run=\"\",group=\"apps\",resource=\"deployments\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\"";
        has(&format!("apiserver_request_total{{code=\"200\",{labels}}} 1"));
        has(&format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"0.05\"}} 1"));
        has(&format!("apiserver_request_duration_seconds_count{{{labels}}} 2"));
        has("apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1");
        has("apiserver_storage_objects{resource=\"pods\"} 3");
        assert!(text.contains("process_resident_memory_bytes "));
    }
}
