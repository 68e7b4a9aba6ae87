//! Rows of Pods: the STATUS column says more than the phase.
//!
//! Owns: the reason shown for a Pod, its restarts, and the completion conditions of its row.
//! Called by: `render`.
//! Never: looks at Events.

use serde_json::{Value, json};

use super::{NONE, Row, age, condition, containers, items, labels, number, text, text_or};
use jiff::Timestamp;

pub(super) fn print(kind: &str, row: &mut Row<'_>) -> bool {
    match kind {
        "Pod" => pod(row),
        "PodTemplate" => {
            row.name();
            let template = &row.object["template"];
            row.extend(containers(template));
            row.push(labels(&template["metadata"]["labels"]));
        }
        _ => return false,
    }
    true
}

/// A finished Pod's row says so, which clients use to leave it out.
pub(super) fn row_conditions(kind: &str, object: &Value) -> Option<Value> {
    if kind != "Pod" {
        return None;
    }
    let (reason, message) = match text(&object["status"]["phase"]) {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{ "type": "Completed", "status": "True", "reason": reason, "message": message }]))
}

#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += number(&status["restartCount"]);
        self.last = self.last.max(age::parse(&status["lastState"]["terminated"]["finishedAt"]));
    }
    fn text(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, age::human_duration(age::seconds_between(last, now)))
            }
            _ => self.count.to_string(),
        }
    }
}

/// What a Pod's containers add up to.
struct Summary {
    reason: String,
    ready: usize,
    restarts: Restarts,
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn ended(terminated: &Value) -> String {
    match (text(&terminated["reason"]), number(&terminated["signal"])) {
        ("", 0) => format!("ExitCode:{}", number(&terminated["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}

/// The reason when initialization is not over, `None` when it is.
fn init_reason(pod: &Value, ready: &mut usize, all: &mut Restarts, sidecars: &mut Restarts) -> Option<String> {
    let specs = items(&pod["spec"]["initContainers"]);
    for (i, status) in items(&pod["status"]["initContainerStatuses"]).iter().enumerate() {
        all.add(status);
        let sidecar = specs.iter().any(|s| s["name"] == status["name"] && is_sidecar(s));
        if sidecar {
            sidecars.add(status);
        }
        let state = &status["state"];
        let terminated = state.get("terminated").filter(|t| t.is_object());
        let waiting = text(&state["waiting"]["reason"]);
        if terminated.is_some_and(|t| number(&t["exitCode"]) == 0) {
            continue;
        }
        if sidecar && status["started"] == true {
            *ready += usize::from(status["ready"] == true);
            continue;
        }
        return Some(match terminated {
            Some(terminated) => format!("Init:{}", ended(terminated)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{i}/{}", specs.len()),
        });
    }
    None
}

fn main_reason(pod: &Value, summary: &mut Summary) {
    let (mut running, mut error) = (false, String::new());
    for status in items(&pod["status"]["containerStatuses"]).iter().rev() {
        summary.restarts.add(status);
        let state = &status["state"];
        if !text(&state["waiting"]["reason"]).is_empty() {
            summary.reason = text(&state["waiting"]["reason"]).into();
        } else if state["terminated"].is_object() {
            summary.reason = ended(&state["terminated"]);
            if number(&state["terminated"]["exitCode"]) != 0 {
                error = summary.reason.clone();
            }
        } else if status["ready"] == true && state["running"].is_object() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" {
        let ready = condition(pod, "Ready").is_some_and(|c| c["status"] == "True");
        summary.reason = match (running, ready, error.is_empty()) {
            (true, true, _) => "Running".into(),
            (_, _, false) => error,
            (true, false, true) => "NotReady".into(),
            (false, _, true) => return,
        };
    }
}

fn summarize(pod: &Value) -> Summary {
    let status = &pod["status"];
    let phase = text(&status["phase"]);
    let mut reason = text_or(&status["reason"], phase);
    if condition(pod, "PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    let (mut ready, mut all, mut sidecars) = (0, Restarts::default(), Restarts::default());
    let init = init_reason(pod, &mut ready, &mut all, &mut sidecars);
    let initialized = condition(pod, "Initialized").is_some_and(|c| c["status"] == "True");
    let mut summary = Summary { reason, ready, restarts: Restarts::default() };
    match init {
        Some(init) if !initialized => {
            summary.reason = init;
            summary.restarts = all;
        }
        init => {
            summary.reason = init.unwrap_or(summary.reason);
            // What init containers did before is history once the Pod runs; sidecars still count.
            summary.restarts = sidecars;
            main_reason(pod, &mut summary);
        }
    }
    if crate::object::is_deleting(pod) {
        if status["reason"] == "NodeLost" {
            summary.reason = "Unknown".into();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".into();
        }
    }
    summary
}

fn pod(row: &mut Row<'_>) {
    let pod = row.object;
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let summary = summarize(pod);
    let sidecars = items(&spec["initContainers"]).iter().filter(|c| is_sidecar(c)).count();
    let total = items(&spec["containers"]).len() + sidecars;
    row.name();
    row.push(format!("{}/{total}", summary.ready));
    row.push(summary.reason);
    row.push(summary.restarts.text(row.now));
    row.age();
    row.push(text_or(&status["podIPs"][0]["ip"], NONE));
    row.push(text_or(&spec["nodeName"], NONE));
    row.push(text_or(&status["nominatedNodeName"], NONE));
    let gates = items(&spec["readinessGates"]);
    let open = |g: &&Value| condition(pod, text(&g["conditionType"])).is_some_and(|c| c["status"] == "True");
    let cell =
        if gates.is_empty() { NONE.into() } else { format!("{}/{}", gates.iter().filter(open).count(), gates.len()) };
    row.push(cell);
}
