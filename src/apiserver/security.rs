//! Authentication, authorization and admission of one server, put together.
//!
//! Owns: how they share the store's objects and the token keys, and the resources that are answered by them alone:
//! reviews, token requests, the published keys.
//! Called by: `ApiServer::build`, and the pipeline for those resources.
//! Never: handles a request's body itself.

use std::sync::Arc;

use jiff::Timestamp;
use minik_api::Status;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admissions;
use crate::authn::jwt::{KeyError, Keys};
use crate::authn::service_account::ServiceAccountTokens;
use crate::authn::x509::{Authority, AuthorityError};
use crate::authn::{self, Anonymous, Authenticators, FrontProxy, UserInfo};
use crate::authz::{self, Authorizers};
use crate::bootstrap;
use crate::objects::Objects;

#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// What must be known to tell users apart; certificates and keys are PEM.
#[derive(Clone, Debug, Default)]
pub struct Settings<'a> {
    pub client_ca: Option<&'a str>,
    pub front_proxy_ca: Option<&'a str>,
    pub issuer: &'a str,
    /// Without one a key is made that lives as long as the server.
    pub token_key: Option<&'a str>,
    pub static_tokens: Vec<(String, UserInfo)>,
}

pub struct Security {
    pub authenticators: Arc<Authenticators>,
    pub authorizers: Arc<Authorizers>,
    pub admissions: Arc<Admissions>,
    pub tokens: Arc<ServiceAccountTokens>,
    objects: Arc<dyn Objects>,
}

impl Security {
    /// The indices are filled from what is stored when this returns.
    pub fn start(
        objects: Arc<dyn Objects>,
        settings: &Settings<'_>,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Result<Self, SecurityError> {
        let keys = match settings.token_key {
            Some(pem) => Keys::load(pem, &[])?,
            None => Keys::generate()?,
        };
        let authority = |pem: Option<&str>| pem.map(|pem| Authority::from_pem(pem.as_bytes())).transpose();
        let tokens = ServiceAccountTokens::new(keys, settings.issuer.into(), vec![], objects.clone());
        let tokens = Arc::new(tokens);
        let authenticators = Authenticators {
            clients: authority(settings.client_ca)?,
            front_proxy: authority(settings.front_proxy_ca)?
                .map(|authority| FrontProxy { authority, names: vec!["front-proxy-client".into()] }),
            service_accounts: tokens.clone(),
            static_tokens: settings.static_tokens.clone(),
            anonymous: Anonymous::Allowed,
            objects: objects.clone(),
        };
        let authorizers = Authorizers::start(&objects, bootstrap::node_rules(), tasks, cancel);
        let admissions = Arc::new(Admissions::new(objects.clone(), authorizers.clone()));
        Ok(Self { authenticators: Arc::new(authenticators), authorizers, admissions, tokens, objects })
    }

    /// A create of a review; `None` when the resource is none of ours. `tree` is decoded and defaulted.
    pub fn review(
        &self,
        user: &UserInfo,
        group: &str,
        resource: &str,
        namespace: &str,
        tree: Value,
    ) -> Option<Result<Value, Status>> {
        let now = Timestamp::now();
        Some(match (group, resource) {
            ("authentication.k8s.io", "tokenreviews") => authn::review::token_review(&self.authenticators, tree, now),
            ("authentication.k8s.io", "selfsubjectreviews") => Ok(authn::review::self_subject_review(tree, user, now)),
            (
                "authorization.k8s.io",
                "subjectaccessreviews"
                | "localsubjectaccessreviews"
                | "selfsubjectaccessreviews"
                | "selfsubjectrulesreviews",
            ) => authz::review::create(self.authorizers.as_ref(), user, resource, namespace, tree),
            _ => return None,
        })
    }

    /// A create of `serviceaccounts/token`, after admission.
    pub fn token_request(&self, namespace: &str, name: &str, tree: Value) -> Result<Value, Status> {
        authn::token_request::create(&self.tokens, self.objects.as_ref(), namespace, name, tree, Timestamp::now())
    }

    /// Body and media type of `/openid/v1/jwks` and `/.well-known/openid-configuration`; `server` is `address:port`.
    pub fn discovery(&self, path: &str, server: &str) -> Option<(Value, &'static str)> {
        match path.trim_end_matches('/') {
            "/openid/v1/jwks" => Some((self.tokens.keys().key_set(), "application/jwk-set+json")),
            "/.well-known/openid-configuration" => Some((
                json!({
                    "issuer": self.tokens.issuer(),
                    "jwks_uri": format!("https://{server}/openid/v1/jwks"),
                    "response_types_supported": ["id_token"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["ES256"],
                }),
                "application/json",
            )),
            _ => None,
        }
    }
}
