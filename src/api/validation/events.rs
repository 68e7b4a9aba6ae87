//! Rules of events, the older of core and the newer of events.k8s.io.
//!
//! Owns: that kind in both groups.
//! Called by: `validation`.
//! Never: counts or joins events; who writes them does.

use serde_json::{Value, json};

use super::check::{At, Errors};
use super::core_type;
use super::metadata::{self, FinalizerRule, NameRule};
use crate::go_json;

const TEXT_MAX: usize = 128;
const NOTE_MAX: usize = 1024;
const SERIES_MIN: i64 = 2;

/// How the fields of one group are named; errors name most of them as core does.
struct Names {
    about: &'static str,
    controller: &'static str,
    note: &'static str,
}

const CORE: Names = Names { about: "involvedObject", controller: "reportingComponent", note: "message" };
const NEWER: Names = Names { about: "regarding", controller: "reportingController", note: "note" };

/// Field of the newer group, and what core and all errors call it.
const DEPRECATED: [(&str, &str); 4] = [
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("deprecatedSource", "source"),
];

pub fn create_core(_kind: &str, object: &At<'_>, errors: &mut Errors) {
    either(object, &CORE, errors);
}

pub fn update_core(_kind: &str, object: &At<'_>, _old: &Value, errors: &mut Errors) {
    either(object, &CORE, errors);
}

pub fn create_newer(_kind: &str, object: &At<'_>, errors: &mut Errors) {
    either(object, &NEWER, errors);
    metadata::create(object, NameRule::Subdomain, FinalizerRule::Standard, true, errors);
    series(object, errors);
    if object.get("eventTime").is_null() {
        errors.required(&object.get("eventTime"), "");
    }
    let kind = object.get("type");
    if !matches!(kind.text(), "Normal" | "Warning") {
        errors.invalid(&kind.showing(&json!("")), format!("has invalid value: {}", kind.text()));
    }
    for (field, named) in DEPRECATED {
        let said = object.get(field);
        if !said.is_null() && said.value != &json!({}) && said.number() != Some(0) {
            errors.invalid(&object.get(named).showing(&json!("")), "needs to be unset");
        }
    }
}

pub fn update_newer(_kind: &str, object: &At<'_>, old: &Value, errors: &mut Errors) {
    either(object, &NEWER, errors);
    series(object, errors);
    let same = ["reason", "reportingController", "reportingInstance", "action", "eventTime", "type"];
    let fields = [("regarding", "involvedObject"), ("note", "message"), ("related", "related")].into_iter();
    for (field, named) in fields.chain(same.map(|field| (field, field))).chain(DEPRECATED) {
        if object.get(field).value != &old[field] {
            let (at, value) = (object.get(named), object.get(field).value);
            match field {
                "regarding" | "related" if !value.is_null() => {
                    errors.invalid_shown(
                        &at,
                        go_json::internal(core_type("ObjectReference"), value),
                        "field is immutable",
                    );
                }
                _ => errors.invalid(&at.showing(value), "field is immutable"),
            }
        }
    }
}

/// An event without an `eventTime` is one of the older sort, whatever the group.
fn either(object: &At<'_>, names: &Names, errors: &mut Errors) {
    let metadata = object.get("metadata");
    let namespace = metadata.get("namespace").text();
    let about = object.get(names.about);
    let about_namespace = about.get("namespace").text();
    let newer = !object.get("eventTime").is_null();
    let fits = match (about_namespace, newer) {
        ("", true) => matches!(namespace, "default" | "kube-system"),
        ("", false) => matches!(namespace, "" | "default"),
        (_, true) => true,
        (other, false) => other == namespace,
    };
    if !fits {
        let place = object.get("involvedObject");
        errors.invalid(&place.get("namespace").showing(&json!(about_namespace)), "does not match event.namespace");
    }
    if !newer {
        return;
    }
    let controller = object.get(names.controller);
    if controller.text().is_empty() {
        errors.required(&controller, "");
    }
    errors.qualified_name(&controller);
    for field in ["reportingInstance", "action", "reason"] {
        let said = object.get(field);
        if said.text().is_empty() {
            errors.required(&said, "");
        }
        at_most(&said, said.text(), TEXT_MAX, errors);
    }
    at_most(&object.get("message"), object.get(names.note).text(), NOTE_MAX, errors);
}

fn at_most(at: &At<'_>, text: &str, max: usize, errors: &mut Errors) {
    if text.len() > max {
        errors.invalid(&at.showing(&json!("")), format!("can have at most {max} characters"));
    }
}

fn series(object: &At<'_>, errors: &mut Errors) {
    let series = object.get("series");
    if series.is_null() {
        return;
    }
    if series.get("count").number().unwrap_or(0) < SERIES_MIN {
        errors.invalid(&series.get("count").showing(&json!("")), format!("should be at least {SERIES_MIN}"));
    }
    if series.get("lastObservedTime").is_null() {
        errors.required(&series.get("lastObservedTime"), "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(check: impl FnOnce(&At<'_>, &mut Errors), object: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        check(&At::root(object), &mut errors);
        errors.into_texts()
    }

    fn event() -> Value {
        json!({
            "metadata": {"name": "e", "namespace": "a"}, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal",
            "reportingController": "example.com/c", "reportingInstance": "c-0", "action": "Fail", "reason": "R",
            "regarding": {"kind": "Pod", "namespace": "a", "name": "p"}, "note": "n",
        })
    }

    #[test]
    fn a_newer_event_says_who_reports_what_about_whom() {
        let with = |field: &str, value: Value| {
            let mut event = event();
            event[field] = value;
            faults(|at, errors| create_newer("", at, errors), &event)
        };
        assert!(with("reason", json!("Other")).is_empty());
        assert_eq!(with("eventTime", Value::Null), ["eventTime: Required value"]);
        assert_eq!(
            with("regarding", json!({})),
            ["involvedObject.namespace: Invalid value: \"\": does not match event.namespace"]
        );
        assert_eq!(with("type", json!("x")), ["type: Invalid value: \"\": has invalid value: x"]);
        assert_eq!(with("deprecatedCount", json!(3)), ["count: Invalid value: \"\": needs to be unset"]);
        assert_eq!(
            with("series", json!({"count": 1})),
            ["series.count: Invalid value: \"\": should be at least 2", "series.lastObservedTime: Required value",]
        );
        assert_eq!(
            with("note", json!("x".repeat(1025))),
            ["message: Invalid value: \"\": can have at most 1024 characters"]
        );
    }

    #[test]
    fn only_the_series_of_a_newer_event_goes_on() {
        let mut event = event();
        let old = event.clone();
        event["series"] = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"});
        assert!(faults(|at, errors| update_newer("", at, &old, errors), &event).is_empty());
        event["note"] = "other".into();
        assert_eq!(
            faults(|at, errors| update_newer("", at, &old, errors), &event),
            ["message: Invalid value: \"other\": field is immutable"]
        );
    }

    #[test]
    fn an_older_event_lies_where_its_object_does() {
        let at = |namespace: &str| {
            let event = json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": namespace}});
            faults(|at, errors| create_core("", at, errors), &event)
        };
        assert!(at("a").is_empty());
        for other in ["b", ""] {
            assert_eq!(
                at(other),
                [format!("involvedObject.namespace: Invalid value: {other:?}: does not match event.namespace")]
            );
        }
    }
}
