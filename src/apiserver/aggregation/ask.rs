//! What this server itself asks extension API servers: are you there, what do you serve.
//!
//! Owns: a connection for a few such questions, who asks them, and their limits on time and size.
//! Called by: the attendant of each backend; OpenAPI, for v2 documents.
//! Never: carries a client's request.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;

use super::backend::{Backend, ReachError};
use crate::authn::{UserInfo, front_proxy};
use crate::connect::dial;
use crate::objects::Objects;

/// Upstream gives discovery five seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error("failing or missing response from {url}: {why}")]
    Failed { url: String, why: String },
    #[error("timed out waiting for {0}")]
    TimedOut(String),
}

pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }
}

/// One connection; it ends with this value.
pub struct Session {
    sender: SendRequest<Empty<Bytes>>,
    authority: String,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    pub async fn open(objects: &dyn Objects, backend: &Backend) -> Result<Self, AskError> {
        let (host, port) = backend.place(objects)?;
        let authority = dial::join(&host, port);
        let failed = |why: String| AskError::Failed { url: format!("https://{authority}"), why };
        let opened = tokio::time::timeout(ANSWER_TIMEOUT, backend.connect(&host, port)).await;
        let connection = opened.map_err(|_| AskError::TimedOut(format!("https://{authority}")))?;
        let connection = connection.map_err(|e| failed(e.to_string()))?;
        let (sender, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(connection)).await.map_err(|e| failed(e.to_string()))?;
        let driver = tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "the connection to an extension API server ended badly");
            }
        });
        Ok(Self { sender, authority, driver })
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.authority)
    }

    pub async fn get(&mut self, path: &str, accept: &str) -> Result<Answer, AskError> {
        let url = self.url(path);
        let failed = |why: String| AskError::Failed { url: url.clone(), why };
        let mut request = Request::builder()
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, "kube-aggregator")
            .body(Empty::new())
            .map_err(|e| failed(e.to_string()))?;
        front_proxy::write(request.headers_mut(), &UserInfo::new("system:kube-aggregator", &["system:masters"]));
        let talk = async {
            let response = self.sender.send_request(request).await.map_err(|e| e.to_string())?;
            let (parts, body) = response.into_parts();
            let bytes = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|e| e.to_string())?.to_bytes();
            Ok(Answer { code: parts.status.as_u16(), headers: parts.headers, bytes })
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, talk).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(AskError::TimedOut(url)),
        }
    }
}
