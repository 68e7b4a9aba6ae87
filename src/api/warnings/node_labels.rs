//! Labels of Nodes that have other names by now.
//!
//! Owns: which, and the warnings about those who select by them.
//! Called by: `warnings`.
//! Never: looks at a Node: one may bear them.

use super::Warnings;
use crate::names;
use crate::validation::check::At;

const DEPRECATED: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#),
    ("beta.kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#),
    (
        "failure-domain.beta.kubernetes.io/region",
        r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#,
    ),
    ("failure-domain.beta.kubernetes.io/zone", r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#),
    ("beta.kubernetes.io/instance-type", r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", r#"use "node-role.kubernetes.io/control-plane" instead"#),
];

/// Whether values are judged too: only where a bad one makes a preference void instead of being refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    Judged,
    Refused,
}

fn deprecation(label: &str) -> Option<&'static str> {
    DEPRECATED.iter().find(|(key, _)| *key == label).map(|(_, text)| *text)
}

/// Where the path says which label it is, or upstream takes it to.
fn label(label: &str, at: &At<'_>, warnings: &mut Warnings) {
    if let Some(text) = deprecation(label) {
        warnings.at(at, text);
    }
}

/// Where a label is named by a field's value: the warning has to repeat it.
pub(super) fn named(at: &At<'_>, warnings: &mut Warnings) {
    if let Some(text) = deprecation(at.text()) {
        warnings.at(at, format!("{} is {text}", at.text()));
    }
}

/// As `named`, where upstream takes the path to say enough.
pub(super) fn placed(at: &At<'_>, warnings: &mut Warnings) {
    label(at.text(), at, warnings);
}

/// A map from labels to values.
pub(super) fn keys(selector: &At<'_>, warnings: &mut Warnings) {
    selector.entries().for_each(|(key, at)| label(key, &at, warnings));
}

/// One term of a node affinity.
pub(super) fn term(term: &At<'_>, values: Values, warnings: &mut Warnings) {
    let expressions = term.get("matchExpressions");
    for expression in expressions.items() {
        named(&expression.get("key"), warnings);
        if values == Values::Judged {
            for value in expression.get("values").items() {
                let faults = names::label_value(value.text());
                faults.iter().for_each(|fault| warnings.at(&value, format!("{} is invalid, {fault}", value.text())));
            }
        }
    }
}

pub(super) fn runtime_class(class: &At<'_>, warnings: &mut Warnings) {
    let scheduling = class.get("scheduling");
    let selector = scheduling.get("nodeSelector");
    selector.entries().for_each(|(key, _)| label(key, &selector, warnings));
}

/// A selector that is written as one of labels.
pub(super) fn topology(selector: &At<'_>, warnings: &mut Warnings) {
    let expressions = selector.get("matchExpressions");
    expressions.items().for_each(|expression| named(&expression.get("key"), warnings));
    let labels = selector.get("matchLabels");
    labels.entries().for_each(|(key, _)| label(key, &labels.get(key), warnings));
}
