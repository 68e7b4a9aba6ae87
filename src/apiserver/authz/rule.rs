//! One rule of a Role: what it allows and which other rules it covers.
//!
//! Owns: matching a request against a rule, and comparing rules for the check against escalation.
//! Called by: the RBAC index, the node authorizer, the escalation check.
//! Never: knows who the rule is for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{ResourceTarget, Target};

/// `rbac/v1 PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
    pub non_resource_urls: Vec<String>,
}

const ALL: &str = "*";

impl Rule {
    pub fn from_json(rule: &Value) -> Self {
        let list = |key: &str| -> Vec<String> {
            rule[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
        };
        Self {
            verbs: list("verbs"),
            api_groups: list("apiGroups"),
            resources: list("resources"),
            resource_names: list("resourceNames"),
            non_resource_urls: list("nonResourceURLs"),
        }
    }

    /// The `rules` of a Role or ClusterRole.
    pub fn list(role: &Value) -> Vec<Self> {
        role["rules"].as_array().into_iter().flatten().map(Self::from_json).collect()
    }

    pub fn to_json(&self) -> Value {
        let mut rule = json!({"verbs": self.verbs});
        let lists = [
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ];
        for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            rule[key] = json!(list);
        }
        rule
    }

    pub fn allows(&self, verb: &str, target: &Target<'_>) -> bool {
        has_or_all(&self.verbs, verb)
            && match target {
                Target::Resource(target) => self.allows_resource(target),
                Target::Path(path) => self.non_resource_urls.iter().any(|url| url_covers(url, path)),
            }
    }

    fn allows_resource(&self, target: &ResourceTarget<'_>) -> bool {
        has_or_all(&self.api_groups, target.group)
            && self.resources.iter().any(|r| resource_matches(r, target.resource, target.subresource))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == target.name))
    }

    /// Every rule of one group, resource, verb and name that this one stands for.
    fn atoms(&self) -> Vec<Rule> {
        let mut atoms = Vec::new();
        let one = |text: &String| vec![text.clone()];
        let names: Vec<Vec<String>> =
            if self.resource_names.is_empty() { vec![vec![]] } else { self.resource_names.iter().map(one).collect() };
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    for name in &names {
                        atoms.push(Rule {
                            verbs: one(verb),
                            api_groups: one(group),
                            resources: one(resource),
                            resource_names: name.clone(),
                            non_resource_urls: vec![],
                        });
                    }
                }
            }
        }
        for url in &self.non_resource_urls {
            for verb in &self.verbs {
                atoms.push(Rule { verbs: one(verb), non_resource_urls: one(url), ..Rule::default() });
            }
        }
        atoms
    }

    fn covers(&self, atom: &Rule) -> bool {
        let covers =
            |own: &[String], theirs: &[String]| own.iter().any(|o| o == ALL) || theirs.iter().all(|t| own.contains(t));
        covers(&self.verbs, &atom.verbs)
            && covers(&self.api_groups, &atom.api_groups)
            && atom.resources.iter().all(|r| self.covers_resource(r))
            && atom.non_resource_urls.iter().all(|u| self.non_resource_urls.iter().any(|own| own == u || ends_cover(own, u)))
            // A rule without names is for all names, so names never cover it.
            && (self.resource_names.is_empty()
                || (!atom.resource_names.is_empty() && atom.resource_names.iter().all(|n| self.resource_names.contains(n))))
    }

    fn covers_resource(&self, resource: &str) -> bool {
        self.resources.iter().any(|own| {
            own == ALL
                || own == resource
                || resource.split_once('/').is_some_and(|(_, sub)| own.strip_prefix("*/") == Some(sub))
        })
    }

    /// As the message about escalation prints it; lists look like Go's.
    fn compact(&self) -> String {
        let list = |values: &[String]| {
            let quoted: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
            format!("[{}]", quoted.join(" "))
        };
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(_, v)| !v.is_empty()).map(|(name, v)| format!("{name}:{}", list(v))).collect();
        format!("{{{}}}", parts.join(", "))
    }

    /// `authorization/v1 ResourceRule`, when the rule is about resources.
    pub fn as_resource_rule(&self) -> Option<Value> {
        if self.resources.is_empty() {
            return None;
        }
        let mut rule = json!({"verbs": self.verbs, "apiGroups": self.api_groups, "resources": self.resources});
        if !self.resource_names.is_empty() {
            rule["resourceNames"] = json!(self.resource_names);
        }
        Some(rule)
    }

    /// `authorization/v1 NonResourceRule`, when the rule is about paths.
    pub fn as_non_resource_rule(&self) -> Option<Value> {
        (!self.non_resource_urls.is_empty())
            .then(|| json!({"verbs": self.verbs, "nonResourceURLs": self.non_resource_urls}))
    }
}

/// The parts of `wanted` that nobody among `held` covers, each of one group, resource, verb and name.
pub fn missing_rules(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    wanted.iter().flat_map(Rule::atoms).filter(|atom| !held.iter().any(|rule| rule.covers(atom))).collect()
}

/// The same for people, one line each, sorted; empty when all is covered.
pub fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<String> {
    let lines: BTreeSet<String> = merge_verbs(missing_rules(held, wanted)).iter().map(Rule::compact).collect();
    lines.into_iter().collect()
}

/// Atoms that differ in their verb alone become one rule.
fn merge_verbs(atoms: Vec<Rule>) -> Vec<Rule> {
    let mut merged: BTreeMap<Rule, Vec<String>> = BTreeMap::new();
    let mut rest = Vec::new();
    for mut atom in atoms {
        if atom.non_resource_urls.is_empty() {
            let verbs = std::mem::take(&mut atom.verbs);
            let known = merged.entry(atom).or_default();
            known.extend(verbs.into_iter().filter(|v| !known.contains(v)).collect::<Vec<_>>());
        } else {
            rest.push(atom);
        }
    }
    rest.extend(merged.into_iter().map(|(rule, verbs)| Rule { verbs, ..rule }));
    rest
}

fn has_or_all(values: &[String], value: &str) -> bool {
    values.iter().any(|v| v == ALL || v == value)
}

/// A rule may name `pods`, `pods/log`, `*` for everything, or `*/scale` for a subresource of everything.
fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((of, sub)) => !subresource.is_empty() && sub == subresource && (of == ALL || of == resource),
    }
}

fn url_covers(rule: &str, path: &str) -> bool {
    rule == ALL || rule == path || ends_cover(rule, path)
}

fn ends_cover(rule: &str, path: &str) -> bool {
    rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: Value) -> Rule {
        Rule::from_json(&json)
    }

    fn allows(rule: &Rule, verb: &str, group: &str, path: &str, name: &str) -> bool {
        let (resource, subresource) = path.split_once('/').unwrap_or((path, ""));
        let target = ResourceTarget { group, resource, subresource, name, ..Default::default() };
        rule.allows(verb, &Target::Resource(target))
    }

    #[test]
    fn a_rule_for_a_resource_is_not_for_its_subresources() {
        let pods = rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}));
        assert!(allows(&pods, "get", "", "pods", "a"));
        assert!(!allows(&pods, "get", "", "pods/log", "a"));
        assert!(!allows(&pods, "get", "apps", "pods", "a"));
        assert!(!allows(&pods, "list", "", "pods", ""));
    }

    #[test]
    fn stars_stand_for_everything_and_for_a_subresource_of_everything() {
        let all = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        assert!(allows(&all, "get", "x.io", "things/status", "a"));
        let scale = rule(json!({"verbs": ["update"], "apiGroups": ["apps"], "resources": ["*/scale"]}));
        assert!(allows(&scale, "update", "apps", "deployments/scale", "a"));
        assert!(!allows(&scale, "update", "apps", "deployments", "a"));
    }

    #[test]
    fn names_limit_a_rule_and_exclude_requests_without_a_name() {
        let one = rule(json!({"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}));
        assert!(allows(&one, "get", "", "secrets", "a"));
        assert!(!allows(&one, "get", "", "secrets", "b"));
        assert!(!allows(&one, "list", "", "secrets", ""));
    }

    #[test]
    fn paths_match_exactly_or_by_a_star_at_the_end() {
        let health = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez/*"]}));
        let allows = |path| health.allows("get", &Target::Path(path));
        assert!(allows("/healthz") && allows("/livez/ping"));
        assert!(!allows("/healthz/etcd") && !allows("/livez") && !allows("/metrics"));
    }

    #[test]
    fn what_is_missing_is_named_by_atoms_with_their_verbs_together() {
        let held = [rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}))];
        let wanted = [
            rule(json!({"verbs": ["get", "delete", "watch"], "apiGroups": ["", "apps"], "resources": ["pods"]})),
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/metrics"]})),
        ];
        assert_eq!(
            missing(&held, &wanted),
            [
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete" "watch"]}"#,
                r#"{APIGroups:["apps"], Resources:["pods"], Verbs:["get" "delete" "watch"]}"#,
                r#"{NonResourceURLs:["/metrics"], Verbs:["get"]}"#,
            ]
        );
    }

    #[test]
    fn a_rule_limited_to_names_does_not_cover_one_for_all_names() {
        let held = [rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["a"]}))];
        let all = [rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}))];
        let one = [rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}))];
        assert_eq!(missing(&held, &all).len(), 1);
        assert!(missing(&held, &one).is_empty());
    }
}
