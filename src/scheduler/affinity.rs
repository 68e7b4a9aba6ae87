//! Which Pods a Pod wants to be near to or far from.
//!
//! Owns: pod affinity terms, and what they match.
//! Called by: `pod`, which parses them; filters and scores.
//! Never: counts Pods over the cluster; that is `choose`.

use minik_api::selector::{LabelSelector, Operator, Requirement};
use serde_json::Value;

/// One term of podAffinity or podAntiAffinity.
#[derive(Clone, Debug)]
pub(crate) struct PodTerm {
    pub topology_key: String,
    selector: LabelSelector,
    namespaces: Vec<String>,
    namespace_selector: LabelSelector,
}

/// The namespaces' labels, for terms that select namespaces by label.
pub(crate) type NamespaceLabels<'a> = &'a dyn Fn(&str) -> Option<&'a Value>;

impl PodTerm {
    /// `own` is the Pod that has the term: its namespace is meant where none is named.
    pub(crate) fn parse(term: &Value, own_namespace: &str, own_labels: &Value) -> PodTerm {
        let named: Vec<String> =
            term["namespaces"].as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from).collect();
        let by_label = &term["namespaceSelector"];
        let namespaces = if named.is_empty() && by_label.is_null() { vec![own_namespace.to_string()] } else { named };
        PodTerm {
            topology_key: term["topologyKey"].as_str().unwrap_or("").to_string(),
            selector: with_label_keys(term, own_labels),
            namespaces,
            namespace_selector: LabelSelector::from_object(by_label).unwrap_or_else(|_| LabelSelector::nothing()),
        }
    }

    pub(crate) fn matches(&self, namespace: &str, labels: &Value, of_namespace: NamespaceLabels<'_>) -> bool {
        let in_namespace = self.namespaces.iter().any(|n| n == namespace)
            || self.namespace_selector.is_everything()
            || (!self.namespace_selector.is_nothing()
                && of_namespace(namespace).is_some_and(|l| self.namespace_selector.matches(l)));
        in_namespace && self.selector.matches(labels)
    }
}

/// `labelSelector` and, from `matchLabelKeys` and `mismatchLabelKeys`, what the Pod's own labels add to it. The API
/// server writes these into the selector of affinity terms already; for spread constraints it is up to us.
pub(crate) fn with_label_keys(term: &Value, own_labels: &Value) -> LabelSelector {
    let base = LabelSelector::from_object(&term["labelSelector"]).unwrap_or_else(|_| LabelSelector::nothing());
    let keys = |field: &str| term[field].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut all = base.requirements().to_vec();
    let before = all.len();
    for (field, operator) in [("matchLabelKeys", Operator::In), ("mismatchLabelKeys", Operator::NotIn)] {
        for key in keys(field) {
            if let Some(value) = own_labels.get(key).and_then(Value::as_str) {
                all.push(Requirement { key: key.to_string(), operator, values: vec![value.to_string()] });
            }
        }
    }
    if base.is_nothing() || all.len() == before { base } else { LabelSelector::from_requirements(all) }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct PodWants {
    pub required: Vec<PodTerm>,
    pub required_anti: Vec<PodTerm>,
    pub preferred: Vec<(i64, PodTerm)>,
    /// With negative weights.
    pub preferred_anti: Vec<(i64, PodTerm)>,
}

impl PodWants {
    pub(crate) fn parse(spec: &Value, namespace: &str, labels: &Value) -> PodWants {
        let list = |side: &str, when: &str| spec["affinity"][side][when].as_array().map_or(&[][..], Vec::as_slice);
        let required = |side: &str| {
            let terms = list(side, "requiredDuringSchedulingIgnoredDuringExecution").iter();
            terms.map(|t| PodTerm::parse(t, namespace, labels)).collect()
        };
        let preferred = |side: &str, sign: i64| {
            let terms = list(side, "preferredDuringSchedulingIgnoredDuringExecution").iter();
            let weighted = |t: &Value| {
                let weight = t["weight"].as_i64().unwrap_or(0) * sign;
                (weight, PodTerm::parse(&t["podAffinityTerm"], namespace, labels))
            };
            terms.map(weighted).collect()
        };
        PodWants {
            required: required("podAffinity"),
            required_anti: required("podAntiAffinity"),
            preferred: preferred("podAffinity", 1),
            preferred_anti: preferred("podAntiAffinity", -1),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.required.is_empty()
            && self.required_anti.is_empty()
            && self.preferred.is_empty()
            && self.preferred_anti.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_term_without_namespaces_means_its_own() {
        let term = PodTerm::parse(
            &json!({"topologyKey": "z", "labelSelector": {"matchLabels": {"a": "b"}}}),
            "own",
            &Value::Null,
        );
        assert!(term.matches("own", &json!({"a": "b"}), &|_| None));
        assert!(!term.matches("other", &json!({"a": "b"}), &|_| None));
        let all = PodTerm::parse(
            &json!({"topologyKey": "z", "labelSelector": {}, "namespaceSelector": {}}),
            "own",
            &Value::Null,
        );
        assert!(all.matches("other", &json!({}), &|_| None));
    }
}
