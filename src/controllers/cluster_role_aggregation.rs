//! ClusterRoles that are the sum of others.
//!
//! Owns: the rules of each ClusterRole with an aggregationRule.
//! Called by: the driver.
//! Never: grants anything that the summed roles do not.

use jiff::Timestamp;
use minik_api::resources::CLUSTERROLES;
use minik_api::selector::LabelSelector;
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Action, Change, Plan, Reconciler, View};
use serde_json::Value;

use crate::fields::{list, same};

pub(crate) struct ClusterRoleAggregation;

impl Reconciler for ClusterRoleAggregation {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation"
    }
    fn watches(&self) -> &'static [ResourceId] {
        &[CLUSTERROLES]
    }
    /// Any role may be part of any sum.
    fn keys(&self, view: &View, _: &Change) -> Vec<ObjectKey> {
        view.list(CLUSTERROLES, "").filter(|r| r["aggregationRule"].is_object()).map(|r| r.key()).collect()
    }

    fn plan(&self, view: &View, key: &ObjectKey, _: Timestamp) -> Plan {
        let Some(role) = view.get_key(CLUSTERROLES, key) else { return Plan::nothing() };
        let selectors = list(&role["aggregationRule"]["clusterRoleSelectors"]);
        if selectors.is_empty() {
            return Plan::nothing();
        }
        let mut rules: Vec<Value> = Vec::new();
        for selector in selectors.iter().filter_map(|s| LabelSelector::from_object(s).ok()) {
            for part in view.list(CLUSTERROLES, "") {
                if object::name(part) == key.name || !selector.matches(&part["metadata"]["labels"]) {
                    continue;
                }
                for rule in list(&part["rules"]) {
                    if !rules.iter().any(|known| same(known, rule)) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        let rules = Value::from(rules);
        if same(&rules, &role["rules"]) {
            return Plan::nothing();
        }
        let mut changed = role.value().clone();
        changed["rules"] = rules;
        Plan::of(Action::replace(CLUSTERROLES, "", role, changed).into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_role_gets_the_rules_of_those_it_selects_each_once() {
        let rule = json!({"verbs": ["get"], "resources": ["pods"]});
        let part =
            |name: &str| (CLUSTERROLES, json!({"metadata": {"name": name, "labels": {"a": "b"}}, "rules": [rule]}));
        let sum = json!({"metadata": {"name": "sum"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
        let view = View::of([part("x"), part("y"), (CLUSTERROLES, sum)]);
        let plan = ClusterRoleAggregation.plan(&view, &ObjectKey::new("", "sum"), Timestamp::UNIX_EPOCH);
        assert_eq!(
            plan.to_string(),
            "update clusterroles sum {\"rules\":[{\"resources\":[\"pods\"],\"verbs\":[\"get\"]}]}\n"
        );
    }
}
