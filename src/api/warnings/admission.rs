//! Warnings about rules of admission that never apply.
//!
//! Owns: which resources no webhook sees.
//! Called by: `warnings`.
//! Never: evaluates a rule.

use std::collections::BTreeSet;

use super::Warnings;
use crate::validation::check::At;

/// Reviews: a webhook on them could lock everybody out, itself included.
const EXCLUDED: [(&str, &str); 6] = [
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

/// Of a configuration of webhooks; other kinds of the group have none.
pub(super) fn without_effect(configuration: &At<'_>, warnings: &mut Warnings) {
    for webhook in configuration.get("webhooks").items() {
        webhook.get("rules").items().for_each(|rule| of_rule(&rule, warnings));
    }
}

fn of_rule(rule: &At<'_>, warnings: &mut Warnings) {
    let list = |field: &str| rule.value[field].as_array().into_iter().flatten().filter_map(|name| name.as_str());
    // Whoever wants everything does not mean these.
    if list("apiGroups").chain(list("resources")).any(|name| name == "*") {
        return;
    }
    let mut told = BTreeSet::new();
    for group in list("apiGroups") {
        for resource in list("resources") {
            if EXCLUDED.contains(&(group, resource)) && told.insert((group, resource)) {
                let which = format!("{resource}.{group}");
                warnings
                    .at(rule, format!("{which} is excluded from admission webhooks; this rule will have no effect"));
            }
        }
    }
}
