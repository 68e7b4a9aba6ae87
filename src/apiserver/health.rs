//! Whether this server lives and is ready.
//!
//! Owns: the checks behind `/healthz`, `/livez` and `/readyz`, and the text they print.
//! Called by: paths outside the resources.
//! Never: waits for anything.

use http::Response;

use crate::body::Body;
use crate::query::Query;
use crate::reply;
use crate::server::Core;

struct Check {
    name: String,
    failure: Option<&'static str>,
}

/// What upstream starts after it listens, this server has done when `build` returns: it answers no request before. The
/// names are those that health checks of others ask for.
const DONE_AT_START: [&str; 23] = [
    "start-apiserver-admission-initializer",
    "generic-apiserver-start-informers",
    "priority-and-fairness-config-consumer",
    "priority-and-fairness-filter",
    "storage-object-count-tracker-hook",
    "start-apiextensions-informers",
    "start-apiextensions-controllers",
    "crd-informer-synced",
    "start-system-namespaces-controller",
    "start-cluster-authentication-info-controller",
    "storage-readiness",
    "start-service-ip-repair-controllers",
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "bootstrap-controller",
    "start-kubernetes-service-cidr-controller",
    "start-kube-aggregator-informers",
    "apiservice-status-local-available-controller",
    "apiservice-status-remote-available-controller",
    "apiservice-registration-controller",
    "apiservice-discovery-controller",
    "kube-apiserver-autoregistration",
];
/// Upstream lists these after the completion of the registration.
const DONE_LAST: [&str; 2] = ["apiservice-openapi-controller", "apiservice-openapiv3-controller"];

fn checks(core: &Core, path: &str) -> Vec<Check> {
    let passed = |name: &str| Check { name: name.into(), failure: None };
    let hook = |name: &&str| passed(&format!("poststarthook/{name}"));
    let mut checks = vec![passed("ping"), passed("log")];
    if path != "readyz" {
        checks.push(passed("loopback-serving-certificate"));
    }
    checks.push(passed("etcd"));
    if path == "readyz" {
        checks.push(passed("etcd-readiness"));
        checks.push(passed("informer-sync"));
    }
    checks.extend(DONE_AT_START.iter().map(hook));
    checks.push(passed("autoregister-completion"));
    checks.extend(DONE_LAST.iter().map(hook));
    if path == "readyz" {
        let failure = core.stopping.is_cancelled().then_some("process is shutting down");
        checks.push(Check { name: "shutdown".into(), failure });
    }
    checks
}

/// Every check as Prometheus reads it, under the three paths it counts for.
pub fn metrics(core: &Core) -> String {
    let mut lines: Vec<String> = Vec::new();
    for path in ["healthz", "livez", "readyz"] {
        lines.extend(checks(core, path).iter().map(|check| {
            let passed = u8::from(check.failure.is_none());
            format!("kubernetes_healthcheck{{name={:?},type={path:?}}} {passed}\n", check.name)
        }));
    }
    lines.sort();
    let head = "# HELP kubernetes_healthcheck [STABLE] Whether a health check passes: 1, or 0.\n\
                # TYPE kubernetes_healthcheck gauge\n";
    head.to_owned() + &lines.concat()
}

pub fn answer(core: &Core, path: &str, check: &[&str], query: &Query) -> Response<Body> {
    let excluded: Vec<&str> = query.all("exclude").collect();
    let all = checks(core, path);
    if !check.is_empty() {
        let wanted = check.join("/");
        return match all.iter().find(|c| c.name == wanted) {
            None => reply::text(404, "404 page not found\n"),
            Some(Check { failure: None, .. }) => reply::raw(200, reply::PLAIN_TEXT, "ok"),
            Some(Check { failure: Some(why), .. }) => reply::text(500, format!("internal server error: {why}\n")),
        };
    }
    let mut lines = String::new();
    let mut failed = false;
    for check in &all {
        let line = match check.failure {
            _ if excluded.contains(&check.name.as_str()) => format!("[+]{} excluded: ok\n", check.name),
            None => format!("[+]{} ok\n", check.name),
            Some(_) => {
                failed = true;
                format!("[-]{} failed: reason withheld\n", check.name)
            }
        };
        lines.push_str(&line);
    }
    let mut unknown: Vec<String> =
        excluded.iter().filter(|name| !all.iter().any(|c| c.name == **name)).map(|name| format!("{name:?}")).collect();
    unknown.sort();
    if !unknown.is_empty() {
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(",")));
    }
    match (failed, query.has("verbose")) {
        (true, _) => reply::text(500, format!("{lines}{path} check failed\n")),
        (false, true) => reply::text(200, format!("{lines}{path} check passed\n")),
        (false, false) => reply::text(200, "ok"),
    }
}
