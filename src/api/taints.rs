//! Taints of Nodes and what Pods tolerate.
//!
//! Owns: the matching of a toleration with a taint.
//! Called by: the scheduler's filter and score, DaemonSets, the eviction from tainted Nodes.
//! Never: decides what follows from it.

use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: Effect,
}

#[derive(Clone, Debug)]
pub struct Toleration {
    /// Empty with `exists` tolerates every key.
    key: String,
    value: String,
    matching: Matching,
    /// None tolerates every effect.
    effect: Option<Effect>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Matching {
    Exists,
    Equal,
    Greater,
    Less,
}

fn effect(text: &str) -> Option<Effect> {
    match text {
        "NoSchedule" => Some(Effect::NoSchedule),
        "PreferNoSchedule" => Some(Effect::PreferNoSchedule),
        "NoExecute" => Some(Effect::NoExecute),
        _ => None,
    }
}

pub fn taints(list: &Value) -> Vec<Taint> {
    let text = |v: &Value| v.as_str().unwrap_or("").to_string();
    let taint = |v: &Value| {
        Some(Taint { key: text(&v["key"]), value: text(&v["value"]), effect: effect(v["effect"].as_str()?)? })
    };
    list.as_array().into_iter().flatten().filter_map(taint).collect()
}

pub fn tolerations(list: &Value) -> Vec<Toleration> {
    let text = |v: &Value| v.as_str().unwrap_or("").to_string();
    let toleration = |v: &Value| Toleration {
        key: text(&v["key"]),
        value: text(&v["value"]),
        matching: match v["operator"].as_str() {
            Some("Exists") => Matching::Exists,
            Some("Gt") => Matching::Greater,
            Some("Lt") => Matching::Less,
            _ => Matching::Equal,
        },
        effect: v["effect"].as_str().and_then(effect),
    };
    list.as_array().into_iter().flatten().map(toleration).collect()
}

impl Toleration {
    pub fn tolerates(&self, taint: &Taint) -> bool {
        if self.effect.is_some_and(|e| e != taint.effect) || (!self.key.is_empty() && self.key != taint.key) {
            return false;
        }
        let ordered = || Some((taint.value.parse::<i64>().ok()?, self.value.parse::<i64>().ok()?));
        match self.matching {
            Matching::Exists => true,
            Matching::Equal => !self.key.is_empty() && self.value == taint.value,
            Matching::Greater => ordered().is_some_and(|(have, bound)| have > bound),
            Matching::Less => ordered().is_some_and(|(have, bound)| have < bound),
        }
    }

    fn is_for_preference(&self) -> bool {
        self.effect.is_none_or(|e| e == Effect::PreferNoSchedule)
    }
}

/// Whether no taint keeps the Pod away.
pub fn tolerated(taints: &[Taint], tolerations: &[Toleration]) -> bool {
    let keeps_away = |t: &&Taint| t.effect != Effect::PreferNoSchedule;
    taints.iter().filter(keeps_away).all(|taint| tolerations.iter().any(|t| t.tolerates(taint)))
}

/// How many taints would rather not have the Pod.
pub fn disliked(taints: &[Taint], tolerations: &[Toleration]) -> i64 {
    let dislikes = |t: &&Taint| t.effect == Effect::PreferNoSchedule;
    let accepted = |taint: &Taint| tolerations.iter().any(|t| t.is_for_preference() && t.tolerates(taint));
    taints.iter().filter(dislikes).filter(|taint| !accepted(taint)).count() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ok(taint: Value, toleration: Value) -> bool {
        tolerated(&taints(&json!([taint])), &tolerations(&json!([toleration])))
    }

    #[test]
    fn a_toleration_matches_by_key_value_and_effect() {
        let taint = || json!({"key": "a", "value": "x", "effect": "NoSchedule"});
        assert!(ok(taint(), json!({"operator": "Exists"})));
        assert!(ok(taint(), json!({"key": "a", "operator": "Exists"})));
        assert!(ok(taint(), json!({"key": "a", "value": "x"})));
        assert!(ok(taint(), json!({"key": "a", "value": "x", "effect": "NoSchedule"})));
        assert!(!ok(taint(), json!({"key": "a", "value": "y"})));
        assert!(!ok(taint(), json!({"key": "b", "operator": "Exists"})));
        assert!(!ok(taint(), json!({"key": "a", "operator": "Exists", "effect": "NoExecute"})));
    }

    #[test]
    fn a_preference_keeps_nobody_away_but_is_counted() {
        let list = taints(&json!([{"key": "a", "effect": "PreferNoSchedule"}]));
        assert!(tolerated(&list, &[]));
        assert_eq!(disliked(&list, &[]), 1);
        assert_eq!(disliked(&list, &tolerations(&json!([{"key": "a", "operator": "Exists"}]))), 0);
    }
}
