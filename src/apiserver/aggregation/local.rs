//! The APIServices of what this server serves itself.
//!
//! Owns: which there should be, and what to do about one that is different.
//! Called by: `aggregation::follow`, at start and whenever custom resources come or go.
//! Never: touches an APIService that somebody else made: those bear no label of ours.

use std::collections::BTreeMap;

use minik_api::object;
use serde_json::{Value, json};

use super::order::{self, Priority};
use crate::catalog::Table;

const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// How long this server keeps an APIService as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Built-in versions: mended when the server starts, and the administrator's until it starts again.
    AtStart,
    /// Versions of custom resources.
    Always,
}

impl Care {
    fn label(self) -> &'static str {
        match self {
            Care::AtStart => "onstart",
            Care::Always => "true",
        }
    }

    fn of(service: &Value) -> Option<Self> {
        match object::label(service, MANAGED) {
            Some("onstart") => Some(Care::AtStart),
            Some("true") => Some(Care::Always),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Keep,
    Create(Value),
    Update(Value),
    Delete,
}

pub fn name(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

fn service(group: &str, version: &str, priority: Priority, care: Care) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": name(group, version), "labels": {MANAGED: care.label()}},
        "spec": {
            "group": group, "version": version,
            "groupPriorityMinimum": priority.group, "versionPriority": priority.version,
        },
    })
}

/// By name, what the table calls for.
pub fn wanted(table: &Table) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for group in table.groups() {
        for version in &group.versions {
            let custom = table.of_version(&group.name, version).all(|s| s.custom().is_some());
            let (priority, care) = match order::built_in(&group.name, version) {
                Some(priority) if !custom => (priority, Care::AtStart),
                _ if custom => (order::CUSTOM, Care::Always),
                _ => continue,
            };
            all.insert(name(&group.name, version), service(&group.name, version, priority, care));
        }
    }
    all
}

/// What to do at the moment of `care`; what belongs to the other one is left alone.
pub fn plan(care: Care, existing: Option<&Value>, wanted: Option<&Value>) -> Step {
    let concerned = wanted.or(existing).and_then(Care::of) == Some(care);
    if concerned { step(existing, wanted) } else { Step::Keep }
}

fn step(existing: Option<&Value>, wanted: Option<&Value>) -> Step {
    match (existing, wanted) {
        (None, None) => Step::Keep,
        (None, Some(wanted)) => Step::Create(wanted.clone()),
        (Some(existing), _) if Care::of(existing).is_none() => Step::Keep,
        (Some(_), None) => Step::Delete,
        (Some(existing), Some(wanted)) if existing["spec"] == wanted["spec"] => Step::Keep,
        (Some(existing), Some(wanted)) => {
            let mut mended = existing.clone();
            mended["spec"] = wanted["spec"].clone();
            Step::Update(mended)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn every_built_in_version_has_one_but_the_aggregators_own() {
        let all = wanted(&Catalog::built_in().now());
        assert_eq!(all.len(), 22, "{:?}", all.keys());
        assert_eq!(all["v1."]["spec"]["groupPriorityMinimum"], 18_000);
        assert_eq!(all["v1.apps"]["metadata"]["labels"][MANAGED], "onstart");
    }

    #[test]
    fn what_others_made_stays_as_it_is() {
        let wanted = service("g", "v1", order::CUSTOM, Care::Always);
        let mut theirs = wanted.clone();
        theirs["metadata"]["labels"] = json!({});
        theirs["spec"]["versionPriority"] = 7.into();
        assert_eq!(plan(Care::Always, Some(&theirs), Some(&wanted)), Step::Keep);
        assert_eq!(plan(Care::Always, Some(&theirs), None), Step::Keep);
    }

    #[test]
    fn custom_versions_are_kept_always_and_built_in_ones_at_start() {
        let custom = service("g", "v1", order::CUSTOM, Care::Always);
        let built_in = service("apps", "v1", order::CUSTOM, Care::AtStart);
        let changed = |of: &Value| {
            let mut changed = of.clone();
            changed["spec"]["versionPriority"] = 7.into();
            changed
        };
        assert_eq!(plan(Care::Always, Some(&changed(&custom)), Some(&custom)), Step::Update(custom.clone()));
        assert_eq!(plan(Care::Always, Some(&custom), None), Step::Delete);
        assert_eq!(plan(Care::Always, Some(&changed(&built_in)), Some(&built_in)), Step::Keep);
        assert_eq!(plan(Care::AtStart, Some(&changed(&built_in)), Some(&built_in)), Step::Update(built_in.clone()));
        assert_eq!(plan(Care::Always, None, Some(&built_in)), Step::Keep);
        assert_eq!(plan(Care::AtStart, None, Some(&built_in)), Step::Create(built_in));
    }
}
