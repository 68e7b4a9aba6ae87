//! Rules of priority and fairness: flow schemas and priority levels.
//!
//! Owns: those kinds.
//! Called by: `validation`.
//! Never: knows which flow schemas and levels exist.

use serde_json::Value;

use super::check::{At, Errors};
use crate::names;

const EXEMPT: &str = "exempt";
const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
/// As much of a request's hash is there for dealing a hand of queues.
const HASH_BITS: f64 = 60.0;
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub fn create(kind: &str, object: &At<'_>, errors: &mut Errors) {
    let (metadata, spec) = (object.get("metadata"), object.get("spec"));
    let name = metadata.get("name");
    match kind {
        "FlowSchema" => flow_schema(name.text(), &spec, errors),
        "PriorityLevelConfiguration" => priority_level(name.text(), &spec, errors),
        _ => {}
    }
}

pub fn update(kind: &str, object: &At<'_>, _old: &Value, errors: &mut Errors) {
    create(kind, object, errors);
}

fn flow_schema(name: &str, spec: &At<'_>, errors: &mut Errors) {
    let precedence = spec.get("matchingPrecedence");
    match precedence.number().unwrap_or(0) {
        ..=0 => errors.invalid(&precedence, "must be a positive value"),
        1 if name != EXEMPT => {
            errors.invalid(&precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
        }
        n if n > PRECEDENCE_MAX => errors.invalid(&precedence, format!("must not be greater than {PRECEDENCE_MAX}")),
        _ => {}
    }
    let method = spec.get("distinguisherMethod");
    let kind = method.get("type");
    if !method.is_null() && !matches!(kind.text(), "ByNamespace" | "ByUser") {
        // Upstream shows the whole method, under the names of its own struct.
        let shown = serde_json::json!({"Type": kind.text()});
        errors.not_supported_shown(&kind.showing(&shown), &["ByNamespace", "ByUser"]);
    }
    let configuration = spec.get("priorityLevelConfiguration");
    let level = configuration.get("name");
    if level.text().is_empty() {
        errors.required(&level, "must reference a priority level");
    } else {
        errors.subdomain(&level);
    }
    for rule in spec.get("rules").items() {
        policy_rule(&rule, errors);
    }
}

fn policy_rule(rule: &At<'_>, errors: &mut Errors) {
    let subjects = rule.get("subjects");
    if subjects.len() == 0 {
        errors.required(&subjects, "subjects must contain at least one value");
    }
    subjects.items().for_each(|s| subject(&s, errors));
    let (of_resources, of_paths) = (rule.get("resourceRules"), rule.get("nonResourceRules"));
    if of_resources.len() == 0 && of_paths.len() == 0 {
        errors.required(rule, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    of_resources.items().for_each(|r| resource_rule(&r, errors));
    of_paths.items().for_each(|r| path_rule(&r, errors));
}

fn subject(subject: &At<'_>, errors: &mut Errors) {
    const FIELDS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = subject.get("kind");
    let Some((_, own)) = FIELDS.iter().find(|(k, _)| *k == kind.text()) else {
        return errors.not_supported(&kind, &["Group", "ServiceAccount", "User"]);
    };
    let said = subject.get(own);
    if said.is_null() {
        errors.required(&said, &format!("{own} is required when subject kind is '{}'", kind.text()));
    } else if *own == "serviceAccount" {
        service_account(&said, errors);
    } else if said.get("name").text().is_empty() {
        errors.required(&said.get("name"), "");
    }
    for (kind, field) in FIELDS.iter().filter(|(_, field)| field != own) {
        let other = subject.get(field);
        if !other.is_null() {
            errors.forbidden(&other, format!("{field} is forbidden when subject kind is not '{kind}'"));
        }
    }
}

fn service_account(account: &At<'_>, errors: &mut Errors) {
    let (name, namespace) = (account.get("name"), account.get("namespace"));
    match name.text() {
        "" => errors.required(&name, ""),
        "*" => {}
        _ => errors.subdomain(&name),
    }
    if namespace.text().is_empty() {
        errors.required(&namespace, "must specify namespace for service account");
    } else {
        errors.label(&namespace);
    }
}

/// A list that names everything names nothing else.
fn everything_alone(list: &At<'_>, what: &str, errors: &mut Errors) -> bool {
    let everything = list.items().any(|item| item.text() == "*");
    if everything && list.len() > 1 {
        errors.invalid(list, format!("if '*' is present, must not specify other {what}"));
    }
    everything
}

fn verbs(rule: &At<'_>, supported: Option<&[&str]>, errors: &mut Errors) {
    let verbs = rule.get("verbs");
    if verbs.len() == 0 {
        errors.required(&verbs, "verbs must contain at least one value");
    } else if !everything_alone(&verbs, "verbs", errors)
        && let Some(supported) = supported
        && verbs.items().any(|verb| !supported.contains(&verb.text()))
    {
        errors.not_supported_shown(&verbs, supported);
    }
}

fn resource_rule(rule: &At<'_>, errors: &mut Errors) {
    verbs(rule, Some(&VERBS), errors);
    for (field, one, many) in [("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")] {
        let list = rule.get(field);
        if list.len() == 0 {
            errors.required(&list, &format!("resource rules must supply at least one {one}"));
        } else {
            everything_alone(&list, many, errors);
        }
    }
    let namespaces = rule.get("namespaces");
    if namespaces.len() == 0 && !rule.get("clusterScope").is_true() {
        let why = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.required(&namespaces, why);
    } else if !everything_alone(&namespaces, "namespaces", errors) {
        for namespace in namespaces.items() {
            let faults = names::dns1123_label(namespace.text()).into_iter();
            let said = faults.map(|why| format!("each member of this list must be '*' or a DNS-1123 label; {why}"));
            errors.faults(&namespace, said.collect());
        }
    }
}

fn path_rule(rule: &At<'_>, errors: &mut Errors) {
    verbs(rule, None, errors);
    let paths = rule.get("nonResourceURLs");
    if paths.len() == 0 {
        errors.required(&paths, "nonResourceURLs must contain at least one value");
    } else if !everything_alone(&paths, "non-resource URLs", errors) {
        for path in paths.items() {
            if let Some(why) = path_fault(path.text()) {
                errors.invalid(&path, why);
            }
        }
    }
}

fn path_fault(path: &str) -> Option<&'static str> {
    match path {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !path.starts_with('/') => Some("must start with slash"),
        _ if path.contains(' ') => Some("must not contain white-space"),
        _ if path.contains("//") => Some("must not contain double slash"),
        _ if path.matches('*').count() > usize::from(path.ends_with("/*")) => {
            Some("wildcard can only do suffix matching")
        }
        _ => None,
    }
}

fn priority_level(name: &str, spec: &At<'_>, errors: &mut Errors) {
    let kind = spec.get("type");
    let (exempt, limited) = (spec.get("exempt"), spec.get("limited"));
    if matches!(kind.text(), "Exempt" | "Limited") && (kind.text() == "Exempt") != (name == EXEMPT) {
        errors.invalid(&kind, "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    if !exempt.is_null() {
        shares(&exempt, errors);
    }
    if !limited.is_null() {
        limit(&limited, errors);
    }
    union(spec, &[("Exempt", "exempt"), ("Limited", "limited")], &["limited"], errors);
    let response = limited.get("limitResponse");
    if !limited.is_null() {
        union(&response, &[("Queue", "queuing"), ("Reject", "")], &["queuing"], errors);
    }
}

/// The member that the type names is there (where it must be), and no other one.
fn union(of: &At<'_>, members: &[(&str, &str)], needed: &[&str], errors: &mut Errors) {
    let kind = of.get("type");
    for (value, field) in members.iter().filter(|(_, field)| !field.is_empty()) {
        let member = of.get(field);
        if *value != kind.text() && !member.is_null() {
            errors.forbidden_by_declaration(&member);
        } else if *value == kind.text() && member.is_null() && needed.contains(field) {
            errors.required_by_declaration(&member);
        }
    }
    let values: Vec<&str> = members.iter().map(|(value, _)| *value).collect();
    if kind.text().is_empty() {
        errors.required_by_declaration(&kind);
    } else if !values.contains(&kind.text()) {
        errors.not_supported(&kind, &values);
    }
}

fn shares(level: &At<'_>, errors: &mut Errors) {
    let (nominal, lendable) = (level.get("nominalConcurrencyShares"), level.get("lendablePercent"));
    if nominal.number().is_some_and(|n| n < 0) {
        errors.invalid(&nominal, "must be a non-negative integer");
    }
    if lendable.number().is_some_and(|n| !(0..=100).contains(&n)) {
        errors.invalid(&lendable, "must be between 0 and 100, inclusive");
    }
}

fn limit(limited: &At<'_>, errors: &mut Errors) {
    shares(limited, errors);
    let borrowing = limited.get("borrowingLimitPercent");
    if borrowing.number().is_some_and(|n| n < 0) {
        errors.invalid(&borrowing, "if specified, must be a non-negative integer");
    }
    let response = limited.get("limitResponse");
    let queuing = response.get("queuing");
    if response.get("type").text() == "Queue" && !queuing.is_null() {
        queues(&queuing, errors);
    }
}

fn queues(queuing: &At<'_>, errors: &mut Errors) {
    let at = |field: &'static str| (queuing.get(field), queuing.get(field).number().unwrap_or(0));
    let ((queues, decks), (hand, size), (length, longest)) = (at("queues"), at("handSize"), at("queueLengthLimit"));
    if longest <= 0 {
        errors.invalid(&length, "must be positive");
    }
    if decks <= 0 {
        errors.invalid(&queues, "must be positive");
    } else if decks > QUEUES_MAX {
        errors.invalid(&queues, format!("must not be greater than {QUEUES_MAX}"));
    }
    if size <= 0 {
        errors.invalid(&hand, "must be positive");
    } else if size > decks {
        errors.invalid(&hand, format!("should not be greater than queues ({decks})"));
    } else if (decks as f64).log2() * size as f64 > HASH_BITS {
        let why = format!(
            "required entropy bits of deckSize {decks} and handSize {size} should not be greater than {HASH_BITS}"
        );
        errors.invalid(&hand, why);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(kind: &str, name: &str, spec: Value) -> String {
        let object = json!({"metadata": {"name": name}, "spec": spec});
        let mut errors = Errors::default();
        create(kind, &At::root(&object), &mut errors);
        errors.into_texts().join("\n")
    }

    fn with_rule(rule: Value) -> String {
        let subject = json!({"kind": "Group", "group": {"name": "g"}});
        let mut whole = json!({"subjects": [subject]});
        for (field, value) in rule.as_object().unwrap() {
            whole[field] = value.clone();
        }
        let level = json!({"name": "l"});
        faults(
            "FlowSchema",
            "a",
            json!({"priorityLevelConfiguration": level, "matchingPrecedence": 5, "rules": [whole]}),
        )
    }

    #[test]
    fn a_flow_schema_says_whom_and_what_it_matches() {
        assert_eq!(
            faults("FlowSchema", "a", json!({"matchingPrecedence": 1, "distinguisherMethod": {}})),
            "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1\n\
             spec.distinguisherMethod.type: Unsupported value: {\"Type\":\"\"}: supported values: \"ByNamespace\", \"ByUser\"\n\
             spec.priorityLevelConfiguration.name: Required value: must reference a priority level"
        );
        let urls = json!(["*", "/a"]);
        assert_eq!(
            with_rule(json!({"nonResourceRules": [{"verbs": ["list"], "nonResourceURLs": urls}]})),
            "spec.rules[0].nonResourceRules[0].nonResourceURLs: Invalid value: [\"*\",\"/a\"]: if '*' is present, must not specify other non-resource URLs"
        );
        let rule = json!({"verbs": ["get", "foo"], "apiGroups": ["*"], "resources": ["a"]});
        assert_eq!(
            with_rule(json!({"resourceRules": [rule]})),
            "spec.rules[0].resourceRules[0].verbs: Unsupported value: [\"get\",\"foo\"]: supported values: \"create\", \"delete\", \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \"update\", \"watch\"\n\
             spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace"
        );
        assert_eq!(
            with_rule(json!({"subjects": [{"kind": "User", "user": {}, "group": {"name": "a"}}]})),
            "spec.rules[0].subjects[0].user.name: Required value\n\
             spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'\n\
             spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty"
        );
    }

    #[test]
    fn paths_end_in_their_only_wildcard() {
        let good = ["/", "/a", "/a/*"];
        assert!(good.iter().all(|path| path_fault(path).is_none()));
        for path in ["", "a", "/a//b", "/a b", "/a*", "/*/b", "/*/*"] {
            assert!(path_fault(path).is_some(), "{path}");
        }
    }

    #[test]
    fn a_priority_level_has_what_its_type_needs() {
        let level = |spec: Value| faults("PriorityLevelConfiguration", "a", spec);
        assert_eq!(level(json!({"type": "Limited"})), "spec.limited: Required value");
        assert_eq!(
            level(json!({"limited": {"limitResponse": {"type": "Reject"}}})),
            "spec.limited: Forbidden\nspec.type: Required value"
        );
        let queuing = |queues: i64, hand: i64| {
            let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 5});
            level(json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}}))
        };
        assert_eq!(queuing(8, 2), "");
        let at = "spec.limited.limitResponse.queuing";
        assert_eq!(queuing(8, 9), format!("{at}.handSize: Invalid value: 9: should not be greater than queues (8)"));
        assert_eq!(
            queuing(100_000, 20),
            format!(
                "{at}.handSize: Invalid value: 20: required entropy bits of deckSize 100000 and handSize 20 should not be greater than 60"
            )
        );
    }
}
