//! Who may ask this node what.
//!
//! Owns: reading client certificates, TokenReview and SubjectAccessReview with their caches, and the attributes of a path.
//! Called by: the node server, for every request.
//! Never: lets anybody in when the API server cannot be asked.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Response, StatusCode};
use minik_api::resources::{SUBJECTACCESSREVIEWS, TOKENREVIEWS};
use minik_client::{Body, Client};
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;

use super::text;

/// Upstream's defaults of the webhook caches.
const TOKEN_TTL: Duration = Duration::from_secs(120);
const ALLOWED_TTL: Duration = Duration::from_secs(300);
const DENIED_TTL: Duration = Duration::from_secs(30);
const CACHED_MAX: usize = 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
    pub uid: String,
}

/// Digest of a token -> whose it is, and when that was learnt.
type Tokens = HashMap<[u8; 32], (Option<User>, Instant)>;
/// User, verb and subresource -> allowed or not, and when that was learnt.
type Decisions = HashMap<(User, &'static str, &'static str), (bool, Instant)>;

pub struct Gate {
    client: Client,
    node_name: String,
    tokens: Mutex<Tokens>,
    decisions: Mutex<Decisions>,
}

/// CN is the user, O the groups. The chain was verified by TLS.
pub fn user_of_certificate(der: &[u8]) -> Option<User> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_string();
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok().map(String::from)).collect();
    Some(User { name, groups, uid: String::new() })
}

/// What a path is in terms of RBAC: subresources of `nodes`, any of which lets the caller in.
pub fn subresources(path: &str) -> &'static [&'static str] {
    let first = path.split('/').find(|p| !p.is_empty()).unwrap_or_default();
    match first {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        // Since KEP-2862 these have names of their own beside the all-powerful proxy.
        "healthz" => &["healthz", "proxy"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

type Refusal = Response<Body>;

impl Gate {
    pub fn new(client: Client, node_name: &str) -> Gate {
        Gate { client, node_name: node_name.into(), tokens: Mutex::default(), decisions: Mutex::default() }
    }
    pub async fn authenticate(&self, certificate: Option<User>, headers: &HeaderMap) -> Result<User, Refusal> {
        if let Some(user) = certificate {
            return Ok(user);
        }
        let unauthorized = || text(StatusCode::UNAUTHORIZED, "Unauthorized");
        let header = headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let token = header.strip_prefix("Bearer ").map(str::trim).filter(|t| !t.is_empty());
        self.review_token(token.ok_or_else(unauthorized)?).await.ok_or_else(unauthorized)
    }

    async fn review_token(&self, token: &str) -> Option<User> {
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some((user, at)) = self.tokens.lock().get(&key)
            && at.elapsed() < TOKEN_TTL
        {
            return user.clone();
        }
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        let answer = match self.client.create(TOKENREVIEWS, "", &body).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(error = %error.chain(), "token of a caller could not be reviewed");
                return None;
            }
        };
        let status = &answer["status"];
        let user = (status["authenticated"] == true).then(|| User {
            name: status["user"]["username"].as_str().unwrap_or_default().into(),
            groups: status["user"]["groups"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|g| g.as_str().map(String::from))
                .collect(),
            uid: status["user"]["uid"].as_str().unwrap_or_default().into(),
        });
        let mut tokens = self.tokens.lock();
        if tokens.len() >= CACHED_MAX {
            tokens.clear();
        }
        tokens.insert(key, (user.clone(), Instant::now()));
        user
    }
    pub async fn authorize(&self, user: &User, method: &Method, path: &str) -> Result<(), Refusal> {
        let verb = verb(method);
        let names = subresources(path);
        for name in names {
            if self.may(user, verb, name).await {
                return Ok(());
            }
        }
        let message = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
            user.name,
            names.join(" ")
        );
        Err(text(StatusCode::FORBIDDEN, message))
    }

    async fn may(&self, user: &User, verb: &'static str, subresource: &'static str) -> bool {
        let key = (user.clone(), verb, subresource);
        if let Some((allowed, at)) = self.decisions.lock().get(&key) {
            let ttl = if *allowed { ALLOWED_TTL } else { DENIED_TTL };
            if at.elapsed() < ttl {
                return *allowed;
            }
        }
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": user.name, "groups": user.groups, "uid": user.uid,
                "resourceAttributes": {
                    "verb": verb, "group": "", "version": "v1", "resource": "nodes",
                    "subresource": subresource, "name": self.node_name,
                },
            },
        });
        let allowed = match self.client.create(SUBJECTACCESSREVIEWS, "", &body).await {
            Ok(answer) => answer["status"]["allowed"] == true,
            Err(error) => {
                tracing::warn!(error = %error.chain(), "access of a caller could not be reviewed");
                return false;
            }
        };
        let mut decisions = self.decisions.lock();
        if decisions.len() >= CACHED_MAX {
            decisions.clear();
        }
        decisions.insert(key, (allowed, Instant::now()));
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_subresources_of_the_node() {
        assert_eq!(subresources("/containerLogs/ns/p/c"), ["proxy"]);
        assert_eq!(subresources("/exec/ns/p/c"), ["proxy"]);
        assert_eq!(subresources("/metrics/resource"), ["metrics"]);
        assert_eq!(subresources("/stats/summary"), ["stats"]);
        assert_eq!(subresources("/healthz"), ["healthz", "proxy"]);
        assert_eq!(subresources("/pods"), ["pods", "proxy"]);
    }
}
