//! TokenReview and SelfSubjectReview.
//!
//! Owns: how a token's user is answered to somebody else, and one's own user to oneself.
//! Called by: the pipeline for a create of these kinds; nothing is stored.
//! Never: tells why more than upstream does.

use jiff::Timestamp;
use minik_api::Status;
use serde_json::{Value, json};

use super::{Authenticators, UserInfo};

/// Fills in the status of a `TokenReview`.
pub fn token_review(authenticators: &Authenticators, mut review: Value, now: Timestamp) -> Result<Value, Status> {
    let token = review["spec"]["token"].as_str().unwrap_or("").to_string();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = review["spec"]["audiences"].as_array().into_iter().flatten();
    let audiences: Vec<String> = audiences.filter_map(Value::as_str).map(str::to_string).collect();
    review["status"] = match authenticators.token(&token, &audiences, now) {
        Ok((user, audiences)) => json!({"authenticated": true, "user": user.to_json(), "audiences": audiences}),
        Err(errors) => {
            let error = if let [one] = errors.as_slice() { one.clone() } else { format!("[{}]", errors.join(", ")) };
            json!({"user": {}, "error": error})
        }
    };
    Ok(review)
}

/// A `SelfSubjectReview` of `user`.
pub fn self_subject_review(mut review: Value, user: &UserInfo, now: Timestamp) -> Value {
    review["metadata"]["creationTimestamp"] = super::token_request::seconds(now).into();
    review["status"] = json!({"userInfo": user.to_json()});
    review
}
