//! All groups there are, this server's and others', in the order clients are told them.
//!
//! Owns: that order, and which of two servers is shown for a version that both have: the APIService decides.
//! Called by: discovery, in both its forms.
//! Never: writes a document.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::order::{self, Priority};
use super::{Backend, Backends, local};
use crate::catalog::Table;

pub struct Group {
    pub name: String,
    /// The preferred one first.
    pub versions: Vec<Version>,
}

pub struct Version {
    pub name: String,
    priority: Priority,
    /// Who serves it, if it is another server.
    pub backend: Option<Arc<Backend>>,
}

/// What decides between groups of one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// The name of the group's first APIService, as the plain form has it.
    Service,
    /// The name of the group, as the aggregated form has it.
    Group,
}

fn local_priority(table: &Table, group: &str, version: &str) -> Priority {
    if group == "apiregistration.k8s.io" {
        return Priority { group: order::APIREGISTRATION, version: 0 };
    }
    let custom = table.of_version(group, version).all(|s| s.custom().is_some());
    order::built_in(group, version).filter(|_| !custom).unwrap_or(order::CUSTOM)
}

/// The core group included, named ``.
pub fn groups(table: &Table, backends: &Backends, tie: Tie) -> Vec<Group> {
    let mut all: BTreeMap<String, Vec<Version>> = BTreeMap::new();
    for group in table.groups() {
        let own = group.versions.iter().filter(|v| !backends.contains_key(&(group.name.clone(), v.to_string())));
        let version = |name: &String| Version {
            name: name.clone(),
            priority: local_priority(table, &group.name, name),
            backend: None,
        };
        all.entry(group.name.clone()).or_default().extend(own.map(version));
    }
    for ((group, name), backend) in backends {
        let version = Version { name: name.clone(), priority: backend.priority, backend: Some(backend.clone()) };
        all.entry(group.clone()).or_default().push(version);
    }
    let mut groups: Vec<Group> = all.into_iter().map(|(name, versions)| Group { name, versions }).collect();
    for group in &mut groups {
        group.versions.sort_by_cached_key(|v| Reverse((v.priority.version, order::rank(&v.name))));
    }
    groups.sort_by_cached_key(|group| {
        let highest = group.versions.iter().map(|v| v.priority.group).max().unwrap_or(0);
        let first = group.versions.iter().filter(|v| v.priority.group == highest);
        let first = first.map(|v| local::name(&group.name, &v.name)).min().unwrap_or_default();
        (Reverse(highest), if tie == Tie::Service { first } else { group.name.clone() })
    });
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;
    use minik_api::registry;
    use serde_json::json;

    fn told(backends: &Backends) -> Vec<String> {
        let table = Catalog::built_in().now();
        let line = |g: Group| {
            let versions: Vec<String> = g.versions.into_iter().map(|v| v.name).collect();
            format!("{} {}", g.name, versions.join(","))
        };
        groups(&table, backends, Tie::Service).into_iter().map(line).collect()
    }

    fn backend(group: &str, version: &str, priority: (i64, i64)) -> ((String, String), Arc<Backend>) {
        let service = json!({"metadata": {"name": format!("{version}.{group}")}, "spec": {
            "group": group, "version": version, "groupPriorityMinimum": priority.0, "versionPriority": priority.1,
            "insecureSkipTLSVerify": true, "service": {"namespace": "a", "name": "s"}}});
        let backend = Backend::of(&service, None, None).expect("it has a service");
        ((group.into(), version.into()), Arc::new(backend))
    }

    #[test]
    fn built_in_groups_come_in_the_order_of_their_table() {
        let told = told(&Backends::new());
        let mut expected: Vec<String> =
            registry::groups().iter().map(|g| format!("{} {}", g.name, g.versions.join(","))).collect();
        // The aggregator's own group precedes even the core group, which the plain form leaves out.
        expected.swap(0, 1);
        assert_eq!(told, expected);
    }

    #[test]
    fn groups_of_others_stand_where_their_priority_puts_them() {
        let told = told(&Backends::from([
            backend("metrics.k8s.io", "v1beta1", (100, 100)),
            backend("example.com", "v1beta1", (17_750, 10)),
            backend("example.com", "v1", (17_750, 10)),
            backend("batch", "v2", (2000, 1)),
        ]));
        let at = |line: &str| told.iter().position(|t| t == line).unwrap_or_else(|| panic!("{line} in {told:?}"));
        assert_eq!(at("metrics.k8s.io v1beta1"), told.len() - 1);
        assert_eq!(at("example.com v1,v1beta1"), at("events.k8s.io v1") + 1);
        at("batch v1,v2");
    }
}
