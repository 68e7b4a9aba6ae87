//! Where a Pod wants to be: by a Node's labels and by the Pods that are there.
//!
//! Owns: node selector terms and pod affinity terms, and what they match.
//! Called by: `pod`, which parses them; filters and scores.
//! Never: counts Pods over the cluster; that is `choose`.

use minik_api::selector::{LabelSelector, Operator, Requirement};
use serde_json::Value;

/// `nodeSelector` and the required part of `nodeAffinity`.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeWants {
    labels: Vec<(String, String)>,
    /// Any of these; None when no required affinity is given.
    terms: Option<Vec<NodeTerm>>,
    pub preferred: Vec<(i64, NodeTerm)>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct NodeTerm {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

fn requirements(list: &Value) -> Vec<Requirement> {
    let strings = |v: &Value| v.as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from).collect();
    let requirement = |v: &Value| Requirement {
        key: v["key"].as_str().unwrap_or("").to_string(),
        operator: match v["operator"].as_str().unwrap_or("") {
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::GreaterThan,
            "Lt" => Operator::LessThan,
            _ => Operator::In,
        },
        values: strings(&v["values"]),
    };
    list.as_array().into_iter().flatten().map(requirement).collect()
}

impl NodeTerm {
    pub(crate) fn parse(term: &Value) -> NodeTerm {
        NodeTerm { labels: requirements(&term["matchExpressions"]), fields: requirements(&term["matchFields"]) }
    }

    /// A term that says nothing matches no Node.
    pub(crate) fn matches(&self, name: &str, labels: &Value) -> bool {
        let label = |r: &Requirement| r.matches(labels.get(&r.key).and_then(Value::as_str));
        let field = |r: &Requirement| r.matches((r.key == "metadata.name").then_some(name));
        let says_something = !self.labels.is_empty() || !self.fields.is_empty();
        says_something && self.labels.iter().all(label) && self.fields.iter().all(field)
    }
}

impl NodeWants {
    pub(crate) fn parse(spec: &Value) -> NodeWants {
        let labels = spec["nodeSelector"].as_object().into_iter().flatten();
        let affinity = &spec["affinity"]["nodeAffinity"];
        let required = &affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
        let preferred = affinity["preferredDuringSchedulingIgnoredDuringExecution"].as_array();
        NodeWants {
            labels: labels.map(|(k, v)| (k.clone(), v.as_str().unwrap_or("").to_string())).collect(),
            terms: required.as_array().map(|terms| terms.iter().map(NodeTerm::parse).collect()),
            preferred: preferred
                .into_iter()
                .flatten()
                .map(|p| (p["weight"].as_i64().unwrap_or(0), NodeTerm::parse(&p["preference"])))
                .collect(),
        }
    }

    pub(crate) fn accepts(&self, name: &str, labels: &Value) -> bool {
        self.labels.iter().all(|(k, v)| labels.get(k).and_then(Value::as_str) == Some(v))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(name, labels)))
    }

    pub(crate) fn preference(&self, name: &str, labels: &Value) -> i64 {
        self.preferred.iter().filter(|(_, term)| term.matches(name, labels)).map(|(weight, _)| weight).sum()
    }
}

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
    fn any_term_and_every_expression_in_it_must_match() {
        let wants = NodeWants::parse(&json!({"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}, {"key": "n", "operator": "Gt", "values": ["3"]}]},
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["special"]}]},
            {},
        ]}}}}));
        assert!(wants.accepts("a", &json!({"disk": "ssd", "n": "4"})));
        assert!(!wants.accepts("a", &json!({"disk": "ssd", "n": "3"})));
        assert!(wants.accepts("special", &json!({})));
        assert!(!wants.accepts("a", &json!({})));
    }

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
