//! Bootstrap tokens: `abcdef.0123456789abcdef`, kept as Secrets in kube-system, for nodes that join.
//!
//! Owns: the form of such a token and what its Secret must say.
//! Called by: the chain of authenticators.
//! Never: deletes an expired token; the token cleaner does.

use base64::Engine;
use jiff::Timestamp;
use minik_api::{object, resources};
use serde_json::Value;

use super::{UserInfo, same_secret};
use crate::objects::Objects;

const GROUP: &str = "system:bootstrappers";

/// The user, when `token` has the form and a Secret stands behind it.
pub fn user(token: &str, objects: &dyn Objects, now: Timestamp) -> Option<UserInfo> {
    let (id, secret) = parse(token)?;
    let stored = objects.get(resources::SECRETS, "kube-system", &format!("bootstrap-token-{id}"))?;
    if object::is_deleting(&stored) || stored["type"] != "bootstrap.kubernetes.io/token" {
        return None;
    }
    let held = text(&stored, "token-secret")?;
    if !same_secret(&held, secret) {
        return None;
    }
    if text(&stored, "token-id")? != id || text(&stored, "usage-bootstrap-authentication")? != "true" {
        return None;
    }
    if let Some(expiration) = text(&stored, "expiration").filter(|e| !e.is_empty()) {
        // A time that cannot be read counts as over.
        let until: Timestamp = expiration.parse().ok()?;
        if until < now {
            return None;
        }
    }
    let mut groups = vec![GROUP.to_string()];
    for group in text(&stored, "auth-extra-groups").unwrap_or_default().split(',').filter(|g| !g.is_empty()) {
        if !is_group(group) {
            return None;
        }
        if !groups.iter().any(|g| g == group) {
            groups.push(group.into());
        }
    }
    groups.sort();
    Some(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() })
}

fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let legal =
        |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (legal(id, 6) && legal(secret, 16)).then_some((id, secret))
}

fn text(secret: &Value, key: &str) -> Option<String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(secret["data"][key].as_str()?).ok()?;
    String::from_utf8(bytes).ok()
}

fn is_group(group: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    group.strip_prefix("system:bootstrappers:").is_some_and(|rest| {
        rest.bytes().all(|b| legal(b) || b == b':' || b == b'-') && rest.bytes().last().is_some_and(legal)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::fixture::Fixture;

    fn check(change: impl FnOnce(&mut Value), token: &str) -> Option<UserInfo> {
        let mut data = json!({"token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:bootstrappers:minik"});
        change(&mut data);
        for value in data.as_object_mut().expect("test").values_mut() {
            *value = base64::engine::general_purpose::STANDARD.encode(value.as_str().expect("test")).into();
        }
        let secret = json!({"kind": "Secret", "apiVersion": "v1", "type": "bootstrap.kubernetes.io/token", "data": data,
            "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}});
        user(token, &Fixture::of(vec![secret]), "2026-01-01T00:00:00Z".parse().expect("test"))
    }

    #[test]
    fn a_bootstrap_token_is_its_secret() {
        let user = check(|_| {}, "abcdef.0123456789abcdef").expect("the right token");
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, ["system:bootstrappers", "system:bootstrappers:minik"]);
        assert_eq!(check(|_| {}, "abcdef.0123456789abcdee"), None);
        assert_eq!(check(|_| {}, "abcdef.0123"), None);
    }

    #[test]
    fn an_expired_or_unmarked_token_is_nobody() {
        let token = "abcdef.0123456789abcdef";
        assert_eq!(check(|d| d["expiration"] = "2025-12-31T00:00:00Z".into(), token), None);
        assert!(check(|d| d["expiration"] = "2026-12-31T00:00:00Z".into(), token).is_some());
        assert_eq!(check(|d| d["usage-bootstrap-authentication"] = "false".into(), token), None);
        assert_eq!(check(|d| d["auth-extra-groups"] = "system:masters".into(), token), None);
    }
}
