//! What a Job makes of a Pod that failed, and when it has succeeded early.
//!
//! Owns: podFailurePolicy and successPolicy.
//! Called by: `job`.
//! Never: counts.

use minik_api::object;
use serde_json::Value;

use crate::fields::{list, text};
use crate::job_indexes::Indexes;

#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Count,
    Ignore,
    FailIndex,
    FailJob(String),
}

/// The first rule that matches decides; without one the failure counts.
pub(crate) fn judge(job: &Value, pod: &Value) -> Verdict {
    for (at, rule) in list(&job["spec"]["podFailurePolicy"]["rules"]).iter().enumerate() {
        let action = text(&rule["action"]);
        let Some(subject) = matches(rule, pod) else { continue };
        return match action {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!("{subject} matching FailJob rule at index {at}")),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn matches(rule: &Value, pod: &Value) -> Option<String> {
    let name = format!("{}/{}", object::namespace(pod), object::name(pod));
    let codes = &rule["onExitCodes"];
    if codes.is_object() {
        let status = &pod["status"];
        let all = list(&status["initContainerStatuses"]).iter().chain(list(&status["containerStatuses"]));
        let matching = |c: &&Value| {
            let code = c["state"]["terminated"]["exitCode"].as_i64().unwrap_or(0);
            let named = codes["containerName"].is_null() || codes["containerName"] == c["name"];
            let listed = list(&codes["values"]).iter().any(|v| v.as_i64() == Some(code));
            code != 0 && named && if codes["operator"] == "NotIn" { !listed } else { listed }
        };
        let container = all.into_iter().find(matching)?;
        let code = &container["state"]["terminated"]["exitCode"];
        return Some(format!("Container {} for pod {name} failed with exit code {code}", text(&container["name"])));
    }
    for wanted in list(&rule["onPodConditions"]) {
        let status = wanted["status"].as_str().unwrap_or("True");
        let same = |c: &&Value| c["type"] == wanted["type"] && c["status"] == status;
        if list(&pod["status"]["conditions"]).iter().any(|c| same(&c)) {
            return Some(format!("Pod {name} has condition {}", text(&wanted["type"])));
        }
    }
    None
}

/// Why an indexed Job has succeeded before all indexes have.
pub(crate) fn early_success(job: &Value, succeeded: &Indexes, completions: i64) -> Option<String> {
    for (at, rule) in list(&job["spec"]["successPolicy"]["rules"]).iter().enumerate() {
        let wanted = rule["succeededIndexes"].as_str().map(|t| Indexes::parse(t, completions));
        let among = match &wanted {
            Some(wanted) => wanted.0.intersection(&succeeded.0).count() as i64,
            None => succeeded.total(),
        };
        let needed = rule["succeededCount"].as_i64().or(wanted.map(|w| w.total())).unwrap_or(i64::MAX);
        if among >= needed {
            return Some(format!("Matched rules at index {at}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_matching_rule_decides() {
        let job = json!({"spec": {"podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}}});
        let failed = |code: i64| {
            json!({"metadata": {"namespace": "d", "name": "p"}, "status": {"containerStatuses": [
            {"name": "c", "state": {"terminated": {"exitCode": code}}}]}})
        };
        assert_eq!(judge(&job, &failed(1)), Verdict::Count);
        let text = "Container c for pod d/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(judge(&job, &failed(42)), Verdict::FailJob(text.into()));
        let mut evicted = failed(42);
        evicted["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True"}]);
        assert_eq!(judge(&job, &evicted), Verdict::Ignore);
    }

    #[test]
    fn enough_of_the_named_indexes_are_a_success() {
        let job = json!({"spec": {"successPolicy": {"rules": [{"succeededIndexes": "0-2", "succeededCount": 2}]}}});
        assert_eq!(early_success(&job, &Indexes::parse("0,5,6", 10), 10), None);
        assert_eq!(early_success(&job, &Indexes::parse("0,2", 10), 10).as_deref(), Some("Matched rules at index 0"));
    }
}
