//! Rules of what guides the scheduler: affinity, spreading, tolerations, taints.
//!
//! Owns: those parts of a pod spec, and node selectors wherever they stand.
//! Called by: `pod`, `core` (taints, volumes' node affinity).
//! Never: schedules.

use std::collections::BTreeSet;

use super::check::{At, Errors};
use crate::names;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub fn affinity(at: &At<'_>, errors: &mut Errors) {
    let node = at.get("nodeAffinity");
    let required = node.get("requiredDuringSchedulingIgnoredDuringExecution");
    if !required.is_null() {
        node_selector(&required, errors);
    }
    for term in node.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(&term.get("weight"), errors);
        node_selector_term(&term.get("preference"), Term::Preferred, errors);
    }
    for field in ["podAffinity", "podAntiAffinity"] {
        let pods = at.get(field);
        for term in pods.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            pod_term(&term, errors);
        }
        for term in pods.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            weight(&term.get("weight"), errors);
            pod_term(&term.get("podAffinityTerm"), errors);
        }
    }
}

fn weight(at: &At<'_>, errors: &mut Errors) {
    if !(1..=100).contains(&at.number().unwrap_or(0)) {
        errors.invalid(at, "must be in the range 1-100");
    }
}

pub fn node_selector(at: &At<'_>, errors: &mut Errors) {
    let terms = at.get("nodeSelectorTerms");
    if terms.len() == 0 {
        errors.required(&terms, "must have at least one node selector term");
    }
    terms.items().for_each(|term| node_selector_term(&term, Term::Required, errors));
}

/// Whether it has to be met. A preference that no node can meet is only warned about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Term {
    Required,
    Preferred,
}

fn node_selector_term(term: &At<'_>, kind: Term, errors: &mut Errors) {
    for expression in term.get("matchExpressions").items() {
        let (operator, values) = (expression.get("operator"), expression.get("values"));
        errors.selector_values(&expression);
        match operator.text() {
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            "Gt" | "Lt" if values.len() == 1 => {}
            "Gt" | "Lt" => errors.required(&values, "must be specified single value when `operator` is 'Lt' or 'Gt'"),
            _ => errors.invalid(&operator.showing(&operator.text().into()), "not a valid selector operator"),
        }
        errors.qualified_name(&expression.get("key"));
        for value in values.items().filter(|_| kind == Term::Required) {
            errors.faults(&value, names::label_value(value.text()));
        }
    }
    for field in term.get("matchFields").items() {
        let (key, operator, values) = (field.get("key"), field.get("operator"), field.get("values"));
        match operator.text() {
            "In" | "NotIn" if values.len() != 1 => {
                errors.required(
                    &values,
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                );
            }
            "In" | "NotIn" => {}
            _ => errors.invalid(&operator, "not a valid selector operator"),
        }
        if key.text() == "metadata.name" {
            values.items().for_each(|name| errors.subdomain(&name));
        } else {
            errors.invalid(&key, "not a valid field selector key");
        }
    }
}

fn pod_term(term: &At<'_>, errors: &mut Errors) {
    errors.label_selector(&term.get("labelSelector"));
    errors.label_selector(&term.get("namespaceSelector"));
    for name in term.get("namespaces").items() {
        errors.faults(&term.get("namespace").showing(name.value), names::dns1123_label(name.text()));
    }
    let key = term.get("topologyKey");
    if key.text().is_empty() {
        errors.required(&key, "can not be empty");
    }
    errors.qualified_name(&key);
}

pub fn spread(list: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for constraint in list.items() {
        let skew = constraint.get("maxSkew");
        if skew.number().unwrap_or(0) <= 0 {
            errors.invalid(&skew.showing(&skew.number().unwrap_or(0).into()), "must be greater than zero");
        }
        let (key, action) = (constraint.get("topologyKey"), constraint.get("whenUnsatisfiable"));
        if key.text().is_empty() {
            errors.required(&key, "can not be empty");
        }
        if !matches!(action.text(), "DoNotSchedule" | "ScheduleAnyway") {
            errors.not_supported(&action, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        let pair = format!("{{{}, {}}}", key.text(), action.text());
        if !seen.insert(pair.clone()) {
            let at = constraint.get("{topologyKey, whenUnsatisfiable}");
            errors.duplicate(&at.showing(&pair.into()));
        }
        let domains = constraint.get("minDomains");
        if domains.number().is_some_and(|d| d <= 0) {
            errors.invalid(&domains, "must be greater than zero");
        } else if !domains.is_null() && action.text() != "DoNotSchedule" {
            let detail = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway";
            errors.invalid(&domains, detail);
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            errors.one_of_if_set(&constraint.get(policy), &["Honor", "Ignore"]);
        }
        errors.label_selector(&constraint.get("labelSelector"));
    }
}

pub fn tolerations(list: &At<'_>, errors: &mut Errors) {
    for toleration in list.items() {
        let (key, operator) = (toleration.get("key"), toleration.get("operator"));
        let (value, effect) = (toleration.get("value"), toleration.get("effect"));
        if !key.text().is_empty() {
            errors.qualified_name(&key);
        } else if operator.text() != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&operator.showing(&operator.text().into()), detail);
        }
        if !toleration.get("tolerationSeconds").is_null() && effect.text() != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&effect.showing(&effect.text().into()), detail);
        }
        match operator.text() {
            "" | "Equal" => {
                let faults = names::label_value(value.text());
                if !faults.is_empty() {
                    errors.invalid(&operator.showing(value.value), faults.join(";"));
                }
            }
            "Exists" if !value.text().is_empty() => {
                errors.invalid(&operator.showing(value.value), "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            _ => errors.not_supported(&operator, &["Equal", "Exists"]),
        }
        if !effect.text().is_empty() {
            errors.one_of_if_set(&effect, &EFFECTS);
        }
    }
}

pub fn taints(list: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for taint in list.items() {
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        errors.qualified_name(&key);
        let faults = names::label_value(value.text());
        if !faults.is_empty() {
            errors.invalid(&value, faults.join(";"));
        }
        errors.one_of(&effect, &EFFECTS);
        if !seen.insert((key.text().to_string(), effect.text().to_string())) {
            errors.duplicate(&taint);
            let text = |at: &At<'_>| at.value.as_str().unwrap_or("").to_string();
            let added = taint.get("timeAdded").value.clone();
            if let Some(last) = errors.0.last_mut() {
                last.value = Some(format!(
                    "{{\"Key\":{:?},\"Value\":{:?},\"Effect\":{:?},\"TimeAdded\":{added}}}",
                    text(&key),
                    text(&value),
                    text(&effect)
                ));
                last.detail = "taints must be unique by key and effect pair".into();
            }
        }
    }
}
