//! Requests as a service account, by a token that somebody with the right asks for.
//!
//! Owns: the token: asked for before the first request, and again when a fifth of its life is left.
//! Called by: a controller manager that gives each controller only its own rights.
//! Never: uses the asker's rights for a request of the service account.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, Response};
use minik_api::resources::SERVICEACCOUNTS;
use serde_json::json;
use tokio::sync::Mutex;

use crate::error::{Error, TransportError};
use crate::transport::{Body, Transport};
use crate::verbs::Client;

/// An hour, as upstream's controller manager asks for.
const TOKEN_SECONDS: u64 = 3600;
/// Of a token's life, after which a new one is asked for.
const USED_FOR: Duration = Duration::from_secs(TOKEN_SECONDS * 4 / 5);

pub struct AsServiceAccount {
    /// Brings no identity of its own.
    pub anonymous: Arc<dyn Transport>,
    /// May make service accounts and their tokens.
    pub asker: Client,
    pub namespace: String,
    pub name: String,
    token: Mutex<Option<(Instant, HeaderValue)>>,
}

impl AsServiceAccount {
    pub fn new(anonymous: Arc<dyn Transport>, asker: Client, namespace: &str, name: &str) -> AsServiceAccount {
        AsServiceAccount { anonymous, asker, namespace: namespace.into(), name: name.into(), token: Mutex::default() }
    }

    /// Held while it is asked for, so that many requests at once ask once.
    async fn token(&self) -> Result<HeaderValue, TransportError> {
        let mut token = self.token.lock().await;
        if let Some((asked, value)) = &*token
            && asked.elapsed() < USED_FOR
        {
            return Ok(value.clone());
        }
        let failed = |source: Error| TransportError::ServiceAccount {
            name: format!("{}/{}", self.namespace, self.name),
            source: Box::new(source),
        };
        let answer = match self.ask().await {
            Err(error) if error.is_not_found() => {
                self.make().await.map_err(failed)?;
                self.ask().await
            }
            other => other,
        };
        let answer = answer.map_err(failed)?;
        let text = answer["status"]["token"].as_str().unwrap_or_default();
        let value = HeaderValue::from_str(&format!("Bearer {text}")).map_err(http::Error::from)?;
        *token = Some((Instant::now(), value.clone()));
        Ok(value)
    }

    async fn ask(&self) -> Result<serde_json::Value, Error> {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [], "expirationSeconds": TOKEN_SECONDS},
        });
        self.asker.create_sub(SERVICEACCOUNTS, &self.namespace, &self.name, "token", &body).await
    }

    async fn make(&self) -> Result<(), Error> {
        let body = json!({"metadata": {"name": self.name, "namespace": self.namespace}});
        match self.asker.create(SERVICEACCOUNTS, &self.namespace, &body).await {
            Err(error) if !error.is_already_exists() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

impl Transport for AsServiceAccount {
    fn send(&self, mut request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, TransportError>> {
        async move {
            request.headers_mut().insert(AUTHORIZATION, self.token().await?);
            self.anonymous.send(request).await
        }
        .boxed()
    }
}
