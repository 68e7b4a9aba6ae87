//! What all checks of pod security have in common.
//!
//! Owns: walking the containers, naming them in sentences, and collecting what is wrong.
//! Called by: the checks of both levels.
//! Never: knows a rule.

use std::collections::BTreeSet;

use serde_json::Value;

pub struct Pod<'a> {
    pub metadata: &'a Value,
    pub spec: &'a Value,
    /// Minor version of Kubernetes whose rules apply.
    pub version: u32,
}

impl<'a> Pod<'a> {
    /// Init containers, containers, ephemeral containers.
    pub fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        let spec = self.spec;
        lists.into_iter().flat_map(move |list| spec[list].as_array().into_iter().flatten())
    }

    pub fn security(&self) -> &'a Value {
        &self.spec["securityContext"]
    }

    pub fn annotations(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let annotations = self.metadata["annotations"].as_object().into_iter().flatten();
        annotations.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }

    pub fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    /// Root in a user namespace of its own is nobody on the node.
    pub fn has_own_users(&self) -> bool {
        self.spec["hostUsers"] == false
    }

    /// Names of the containers for which `is_bad` holds.
    pub fn bad_containers(&self, mut is_bad: impl FnMut(&'a Value) -> bool) -> Vec<String> {
        self.containers().filter(|c| is_bad(c)).map(|c| c["name"].as_str().unwrap_or("").to_string()).collect()
    }
}

/// Reasons with their details, in the order of the checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict(Vec<(String, String)>);

impl Verdict {
    pub fn is_allowed(&self) -> bool {
        self.0.is_empty()
    }
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
    pub fn add(&mut self, found: Option<(String, String)>) {
        self.0.extend(found);
    }
    pub fn reasons(&self) -> String {
        self.0.iter().map(|(reason, _)| reason.as_str()).collect::<Vec<_>>().join(", ")
    }
    pub fn details(&self) -> String {
        let texts: Vec<String> = self
            .0
            .iter()
            .map(|(reason, detail)| if detail.is_empty() { reason.clone() } else { format!("{reason} ({detail})") })
            .collect();
        texts.join(", ")
    }
}

pub fn refuse(reason: &str, detail: String) -> Option<(String, String)> {
    Some((reason.to_string(), detail))
}

/// `container "a"`, `containers "a", "b"`.
pub fn named(one: &str, names: &[String]) -> String {
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("{one}{plural} {}", quoted(names))
}

pub fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let quoted: Vec<String> = items.into_iter().map(|i| format!("\"{}\"", i.as_ref())).collect();
    quoted.join(", ")
}

/// `pod`, `container "a"`, or both with `and`.
pub fn setters(pod: bool, containers: &[String]) -> Vec<String> {
    let mut setters = Vec::new();
    if pod {
        setters.push("pod".to_string());
    }
    if !containers.is_empty() {
        setters.push(named("container", containers));
    }
    setters
}

/// A value of pod or containers that must not be what `is_bad` says; answers the setters and the values.
pub fn bad_values(
    pod: &Pod<'_>,
    at: impl Fn(&Value) -> &Value,
    is_bad: impl Fn(&str) -> bool,
) -> (Vec<String>, BTreeSet<String>) {
    let mut values = BTreeSet::new();
    let mut judge = |security: &Value| {
        let value = at(security).as_str().filter(|v| is_bad(v));
        values.extend(value.map(str::to_string));
        value.is_some()
    };
    let of_pod = judge(pod.security());
    let containers = pod.bad_containers(|c| judge(&c["securityContext"]));
    (setters(of_pod, &containers), values)
}
