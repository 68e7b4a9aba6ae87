//! Service-account tokens for projected volumes.
//!
//! Owns: asking for a token bound to the pod, and when to ask for the next.
//! Called by: projected volumes, at set-up and refresh.
//! Never: hands one pod's token to another.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ServiceAccountTokenProjection;
use minik_api::resources::SERVICEACCOUNTS;
use serde_json::json;

use super::{Context, VolumeError};
use crate::pod::Pod;

/// Refreshed when this much of its life has passed, or after a day.
const REFRESH_AFTER_PERCENT: i64 = 80;
const REFRESH_AFTER_MAX: SignedDuration = SignedDuration::from_hours(24);
const DEFAULT_SECONDS: i64 = 3600;

#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub text: String,
    pub refresh_at: Timestamp,
}

pub async fn request(
    context: &Context,
    pod: &Pod,
    source: &ServiceAccountTokenProjection,
) -> Result<Token, VolumeError> {
    let account = pod.spec.service_account_name.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
    let seconds = source.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
    let audiences: Vec<&String> = source.audience.iter().filter(|a| !a.is_empty()).collect();
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {
            "audiences": audiences,
            "expirationSeconds": seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": pod.uid},
        },
    });
    let asked_at = Timestamp::now();
    let answer = context.client.create_sub(SERVICEACCOUNTS, pod.namespace(), account, "token", &body).await;
    let answer = answer.map_err(|error| VolumeError::Token(error.chain()))?;
    let text = answer["status"]["token"].as_str().unwrap_or_default();
    if text.is_empty() {
        return Err(VolumeError::Token("the API server answered without a token".into()));
    }
    let expires = answer["status"]["expirationTimestamp"].as_str().and_then(|t| t.parse::<Timestamp>().ok());
    let life = expires.map_or(SignedDuration::from_secs(seconds), |t| t.duration_since(asked_at));
    Ok(Token { text: text.into(), refresh_at: asked_at + refresh_after(life) })
}

fn refresh_after(life: SignedDuration) -> SignedDuration {
    SignedDuration::from_secs(life.as_secs().max(0) * REFRESH_AFTER_PERCENT / 100).min(REFRESH_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_refreshed_after_four_fifths_of_its_life_or_a_day() {
        assert_eq!(refresh_after(SignedDuration::from_secs(3600)), SignedDuration::from_secs(2880));
        assert_eq!(refresh_after(SignedDuration::from_hours(24 * 365)), REFRESH_AFTER_MAX);
    }
}
