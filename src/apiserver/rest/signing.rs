//! What is special about CertificateSigningRequests: who asked, and the times of decisions.
//!
//! Owns: the fields of the spec that say who asked, times nobody gave.
//! Called by: `special`, as such an object is made or decided on.
//! Never: approves or signs.

use serde_json::{Value, json};

use crate::authn::UserInfo;

/// Whoever makes a request is who asks, whatever the object says.
pub fn asked_by(user: &UserInfo, tree: &mut Value) {
    let Some(spec) = tree["spec"].as_object_mut() else { return };
    for field in ["username", "uid", "groups", "extra"] {
        spec.remove(field);
    }
    spec.insert("username".into(), user.name.as_str().into());
    if !user.uid.is_empty() {
        spec.insert("uid".into(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        spec.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".into(), json!(user.extra));
    }
}

/// Conditions that were added without times get the present one.
pub fn decided(new: &mut Value, old: &Value, now: &str) {
    let before = old["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let conditions = new["status"].get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = now.into();
        }
        if condition["lastTransitionTime"].is_null() {
            let same = |c: &&Value| c["type"] == condition["type"] && c["status"] == condition["status"];
            let known = before.iter().find(same).map(|c| c["lastTransitionTime"].clone()).filter(|t| !t.is_null());
            condition["lastTransitionTime"] = known.unwrap_or_else(|| now.into());
        }
    }
}

/// Under `/status` the decisions stay as they were: one that was sent along, perhaps without its times, is no change.
pub fn keep_decisions(new: &mut Value, old: &Value) {
    let before = old["status"]["conditions"].as_array().cloned().unwrap_or_default();
    for kind in ["Approved", "Denied"] {
        let of_kind = |c: &&Value| c["type"] == kind;
        let kept: Vec<&Value> = before.iter().filter(of_kind).collect();
        let all = new["status"].get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten();
        let mut sent: Vec<&mut Value> = all.filter(|c| c["type"] == kind).collect();
        if sent.len() == kept.len() {
            sent.iter_mut().zip(kept).for_each(|(sent, kept)| **sent = kept.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_asks_in_anothers_name() {
        let mut tree = json!({"spec": {"username": "boss", "groups": ["system:masters"], "extra": {"a": ["b"]}}});
        asked_by(&UserInfo::new("jane", &["devs"]), &mut tree);
        assert_eq!(tree["spec"], json!({"username": "jane", "groups": ["devs"]}));
    }

    #[test]
    fn a_decision_gets_its_times_and_keeps_them() {
        let old = json!({"status": {"conditions": [
            {"type": "Approved", "status": "True", "lastUpdateTime": "then", "lastTransitionTime": "then"}]}});
        let mut new = json!({"status": {"conditions": [
            {"type": "Approved", "status": "True"}, {"type": "Failed", "status": "True"}]}});
        keep_decisions(&mut new, &old);
        decided(&mut new, &old, "now");
        assert_eq!(new["status"]["conditions"][0], old["status"]["conditions"][0]);
        assert_eq!(new["status"]["conditions"][1]["lastTransitionTime"], "now");
    }
}
