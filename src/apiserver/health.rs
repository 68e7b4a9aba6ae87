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
    name: &'static str,
    failure: Option<&'static str>,
}

fn checks(core: &Core, path: &str) -> Vec<Check> {
    let passed = |name| Check { name, failure: None };
    let mut checks = vec![passed("ping"), passed("log"), passed("etcd")];
    if path == "readyz" {
        checks.push(passed("etcd-readiness"));
        checks.push(passed("informer-sync"));
    }
    checks.push(passed("poststarthook/bootstrap-controller"));
    checks.push(passed("poststarthook/rbac/bootstrap-roles"));
    if path == "readyz" {
        let failure = core.stopping.is_cancelled().then_some("process is shutting down");
        checks.push(Check { name: "shutdown", failure });
    }
    checks
}

pub fn answer(core: &Core, path: &str, check: &[&str], query: &Query) -> Response<Body> {
    let excluded: Vec<&str> = query.all("exclude").collect();
    let all = checks(core, path);
    if !check.is_empty() {
        let wanted = check.join("/");
        return match all.iter().find(|c| c.name == wanted) {
            None => reply::text(404, "404 page not found\n"),
            Some(Check { failure: None, .. }) => reply::text(200, "ok"),
            Some(Check { failure: Some(why), .. }) => reply::text(500, format!("internal server error: {why}\n")),
        };
    }
    let mut lines = String::new();
    let mut failed = false;
    for check in &all {
        let line = match check.failure {
            _ if excluded.contains(&check.name) => format!("[+]{} excluded: ok\n", check.name),
            None => format!("[+]{} ok\n", check.name),
            Some(_) => {
                failed = true;
                format!("[-]{} failed: reason withheld\n", check.name)
            }
        };
        lines.push_str(&line);
    }
    match (failed, query.has("verbose")) {
        (true, _) => reply::text(500, format!("{lines}{path} check failed\n")),
        (false, true) => reply::text(200, format!("{lines}{path} check passed\n")),
        (false, false) => reply::text(200, "ok"),
    }
}
