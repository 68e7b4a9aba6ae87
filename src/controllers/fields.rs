//! Reading and shaping the trees controllers work on.
//!
//! Owns: numbers with defaults, owner references, sameness of trees, int-or-percent, times as Kubernetes writes them.
//! Called by: every controller.
//! Never: knows one kind from another.

use jiff::{SignedDuration, Timestamp};
use minik_api::object;
use serde_json::{Value, json};

pub(crate) fn int(value: &Value, default: i64) -> i64 {
    value.as_i64().unwrap_or(default)
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `metav1.Time`: whole seconds.
pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(crate) fn parse_time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

pub(crate) fn seconds(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

/// An owner reference that controls.
pub(crate) fn controller_ref(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"],
        "name": object::name(owner), "uid": object::uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    })
}

pub(crate) fn is_controlled_by(object: &Value, uid: &str) -> bool {
    object::controller_of(object).is_some_and(|o| o["uid"] == uid)
}

/// Whether two trees mean the same: null, absent, `{}` and `[]` are alike, as Go's semantic equality has it.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            x.iter().all(|(k, v)| same(v, y.get(k).unwrap_or(&Value::Null)))
                && y.iter().all(|(k, v)| x.contains_key(k) || is_empty(v))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b)),
        _ => a == b || (is_empty(a) && is_empty(b)),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    Up,
    Down,
}

/// An IntOrString such as `2` or `"25%"` of `total`.
pub(crate) fn int_or_percent(value: &Value, total: i64, round: Round) -> i64 {
    match value {
        Value::Number(n) => n.as_i64().unwrap_or(0),
        Value::String(text) => {
            let Some(percent) = text.strip_suffix('%').and_then(|n| n.parse::<i64>().ok()) else {
                return text.parse().unwrap_or(0);
            };
            match round {
                Round::Up => (total * percent + 99).div_euclid(100),
                Round::Down => (total * percent).div_euclid(100),
            }
        }
        _ => 0,
    }
}

/// A name for what is made from a template, from a hash without vowels, so that it spells no word.
pub(crate) fn safe_hash(value: &Value, salt: &str) -> String {
    use sha2::{Digest, Sha256};
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let digest = Sha256::new().chain_update(value.to_string()).chain_update(salt).finalize();
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    number.to_string().bytes().map(|b| ALPHABET[b as usize % ALPHABET.len()] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_empty_mean_the_same() {
        assert!(same(&json!({"a": 1, "b": null, "c": {}, "d": []}), &json!({"a": 1})));
        assert!(same(&json!({"a": 1}), &json!({"a": 1, "m": {"creationTimestamp": null}})));
        assert!(!same(&json!({"a": 1}), &json!({"a": 1, "b": false})));
        assert!(!same(&json!([1]), &json!([1, 2])));
    }

    #[test]
    fn percentages_round_as_asked() {
        assert_eq!(int_or_percent(&json!("25%"), 10, Round::Up), 3);
        assert_eq!(int_or_percent(&json!("25%"), 10, Round::Down), 2);
        assert_eq!(int_or_percent(&json!(4), 10, Round::Down), 4);
    }
}
