//! Whether a default role or binding must be written, as a function of what is there.
//!
//! Owns: adding what is missing without removing what was added.
//! Called by: `bootstrap::ensure`, once for each default object.
//! Never: does it.

use serde_json::{Map, Value, json};

use crate::authz::rule::{Rule, missing_rules};

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Keep,
    Create(Value),
    Update(Value),
    /// A binding cannot change its role, so it is deleted first.
    Recreate(Value),
}

pub fn plan(existing: Option<&Value>, wanted: Value) -> Step {
    let Some(existing) = existing else { return Step::Create(wanted) };
    if existing["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] == "false" {
        return Step::Keep;
    }
    if wanted["roleRef"] != existing["roleRef"] {
        return Step::Recreate(wanted);
    }
    let mut mended = existing.clone();
    for field in ["labels", "annotations"] {
        let merged = merge(&wanted["metadata"][field], &existing["metadata"][field]);
        if !merged.is_empty() {
            mended["metadata"][field] = Value::Object(merged);
        }
    }
    if wanted["roleRef"].is_null() {
        mend_role(&mut mended, existing, &wanted);
    } else {
        append_missing(&mut mended, existing, &wanted, "subjects");
    }
    if mended == *existing { Step::Keep } else { Step::Update(mended) }
}

/// What an administrator set wins.
fn merge(wanted: &Value, existing: &Value) -> Map<String, Value> {
    let mut merged = wanted.as_object().cloned().unwrap_or_default();
    merged.extend(existing.as_object().cloned().unwrap_or_default());
    merged
}

fn mend_role(mended: &mut Value, existing: &Value, wanted: &Value) {
    let missing = missing_rules(&Rule::list(existing), &Rule::list(wanted));
    if !missing.is_empty() {
        let mut rules = existing["rules"].as_array().cloned().unwrap_or_default();
        rules.extend(missing.iter().map(Rule::to_json));
        mended["rules"] = rules.into();
    }
    match (wanted["aggregationRule"].is_object(), existing["aggregationRule"].is_object()) {
        (false, true) => {
            if let Some(fields) = mended.as_object_mut() {
                fields.remove("aggregationRule");
            }
        }
        (true, _) => {
            let lacking =
                missing_items(&existing["aggregationRule"], &wanted["aggregationRule"], "clusterRoleSelectors");
            if !lacking.is_empty() {
                let mut selectors =
                    existing["aggregationRule"]["clusterRoleSelectors"].as_array().cloned().unwrap_or_default();
                selectors.extend(lacking);
                mended["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
            }
        }
        (false, false) => {}
    }
}

fn missing_items(existing: &Value, wanted: &Value, field: &str) -> Vec<Value> {
    let have = existing[field].as_array().map_or(&[][..], Vec::as_slice);
    wanted[field].as_array().into_iter().flatten().filter(|item| !have.contains(item)).cloned().collect()
}

fn append_missing(mended: &mut Value, existing: &Value, wanted: &Value, field: &str) {
    let lacking = missing_items(existing, wanted, field);
    if !lacking.is_empty() {
        let mut all = existing[field].as_array().cloned().unwrap_or_default();
        all.extend(lacking);
        mended[field] = all.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(rules: Value) -> Value {
        json!({"kind": "ClusterRole", "metadata": {"name": "r", "annotations": {"a": "1"}}, "rules": rules})
    }

    #[test]
    fn a_missing_rule_is_added_and_an_added_one_is_kept() {
        let get = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        let both = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]});
        let extra = json!({"verbs": ["get"], "apiGroups": ["x.io"], "resources": ["things"]});
        assert_eq!(plan(None, role(json!([get]))), Step::Create(role(json!([get]))));
        assert_eq!(plan(Some(&role(json!([both, extra]))), role(json!([get]))), Step::Keep);
        let list = json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]});
        assert_eq!(
            plan(Some(&role(json!([get, extra]))), role(json!([both]))),
            Step::Update(role(json!([get, extra, list])))
        );
    }

    #[test]
    fn an_object_marked_so_is_left_alone() {
        let mut existing = role(json!([]));
        existing["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "false".into();
        assert_eq!(plan(Some(&existing), role(json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]))), Step::Keep);
    }

    #[test]
    fn a_binding_to_another_role_is_made_anew_and_lost_subjects_come_back() {
        let binding = |role: &str, subjects: Value| json!({"kind": "ClusterRoleBinding", "metadata": {"name": "b"}, "roleRef": {"name": role}, "subjects": subjects});
        let (jane, joe) = (json!({"name": "jane"}), json!({"name": "joe"}));
        assert_eq!(
            plan(Some(&binding("x", json!([jane]))), binding("y", json!([jane]))),
            Step::Recreate(binding("y", json!([jane])))
        );
        assert_eq!(
            plan(Some(&binding("x", json!([joe]))), binding("x", json!([jane]))),
            Step::Update(binding("x", json!([joe, jane])))
        );
    }

    #[test]
    fn an_aggregated_role_keeps_the_rules_its_controller_wrote() {
        let wanted = json!({"kind": "ClusterRole", "metadata": {"name": "view"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
        let mut filled = wanted.clone();
        filled["rules"] = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
        assert_eq!(plan(Some(&filled), wanted), Step::Keep);
    }
}
