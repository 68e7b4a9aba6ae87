//! Where a Pod wants to be by a Node's labels and name.
//!
//! Owns: node selector terms, `nodeSelector` and `nodeAffinity`, and what they match.
//! Called by: the scheduler, DaemonSets, volumes that are bound to Nodes.
//! Never: looks at other Pods.

use serde_json::Value;

use crate::selector::{Operator, Requirement};

/// `nodeSelector` and the required part of `nodeAffinity`.
#[derive(Clone, Debug, Default)]
pub struct NodeWants {
    labels: Vec<(String, String)>,
    /// Any of these; None when no required affinity is given.
    terms: Option<Vec<NodeTerm>>,
    pub preferred: Vec<(i64, NodeTerm)>,
}

#[derive(Clone, Debug, Default)]
pub struct NodeTerm {
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
    pub fn parse(term: &Value) -> NodeTerm {
        NodeTerm { labels: requirements(&term["matchExpressions"]), fields: requirements(&term["matchFields"]) }
    }

    /// A term that says nothing matches no Node.
    pub fn matches(&self, name: &str, labels: &Value) -> bool {
        let label = |r: &Requirement| r.matches(labels.get(&r.key).and_then(Value::as_str));
        let field = |r: &Requirement| r.matches((r.key == "metadata.name").then_some(name));
        let says_something = !self.labels.is_empty() || !self.fields.is_empty();
        says_something && self.labels.iter().all(label) && self.fields.iter().all(field)
    }
}

impl NodeWants {
    pub fn parse(spec: &Value) -> NodeWants {
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

    pub fn accepts(&self, name: &str, labels: &Value) -> bool {
        self.labels.iter().all(|(k, v)| labels.get(k).and_then(Value::as_str) == Some(v))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(name, labels)))
    }

    pub fn preference(&self, name: &str, labels: &Value) -> i64 {
        self.preferred.iter().filter(|(_, term)| term.matches(name, labels)).map(|(weight, _)| weight).sum()
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
}
