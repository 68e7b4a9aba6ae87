//! In which order groups and versions are told to clients.
//!
//! Owns: the priorities of what this server serves itself (upstream's numbers: the order of `kubectl api-resources` and
//! which group wins a short name follow from them), and how versions compare.
//! Called by: discovery, the APIServices of this server, definitions.
//! Never: knows which groups there are.

use std::cmp::Reverse;

/// As an APIService states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority {
    pub group: i64,
    pub version: i64,
}

/// Custom resources come after everything built in.
pub const CUSTOM: Priority = Priority { group: 1000, version: 100 };
/// Before all others, and higher than any APIService may ask for.
pub const APIREGISTRATION: i64 = 20_001;

/// Group priorities, and the priority of a version that is not 15.
const GROUPS: [(&str, i64); 23] = [
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("resource.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("internal.apiserver.k8s.io", 16_000),
    ("storagemigration.k8s.io", 15_800),
    ("lifecycle.k8s.io", 15_700),
];

const VERSIONS: [(&str, &str, i64); 4] = [
    ("", "v1", 1),
    ("autoscaling", "v2", 30),
    ("flowcontrol.apiserver.k8s.io", "v1", 21),
    ("resource.k8s.io", "v1", 21),
];

/// Of a built-in group version; `None` for one that has no APIService, as `apiregistration.k8s.io` itself has none.
pub fn built_in(group: &str, version: &str) -> Option<Priority> {
    let (_, of_group) = GROUPS.iter().find(|(name, _)| *name == group)?;
    let special = VERSIONS.iter().find(|(g, v, _)| (*g, *v) == (group, version));
    Some(Priority { group: *of_group, version: special.map_or(15, |s| s.2) })
}

/// `v2` before `v1` before `v1beta1` before `v1alpha1` before anything else, by the alphabet: what is greater comes first.
pub fn rank(version: &str) -> (u8, u32, u32, Reverse<String>) {
    let other = (0, 0, 0, Reverse(version.to_string()));
    let Some(rest) = version.strip_prefix('v') else { return other };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse() else { return other };
    let (stability, minor) = match &rest[digits..] {
        "" => (3, "0"),
        tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            (Some(minor), _) => (2, minor),
            (_, Some(minor)) => (1, minor),
            _ => return other,
        },
    };
    match minor.parse() {
        Ok(minor) => (stability, major, minor, Reverse(String::new())),
        Err(_) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik_api::registry;

    #[test]
    fn versions_are_ordered_as_discovery_orders_them() {
        let mut versions = ["v1alpha1", "foo", "v2", "v11beta2", "v1", "v10", "v12alpha1"];
        versions.sort_by_key(|v| Reverse(rank(v)));
        assert_eq!(versions, ["v10", "v2", "v1", "v11beta2", "v12alpha1", "v1alpha1", "foo"]);
    }

    #[test]
    fn everything_built_in_has_a_place() {
        let without: Vec<&str> =
            registry::groups().iter().map(|g| g.name).filter(|g| built_in(g, "v1").is_none()).collect();
        assert_eq!(without, ["apiregistration.k8s.io"]);
        assert_eq!(built_in("autoscaling", "v2"), Some(Priority { group: 17_500, version: 30 }));
    }
}
