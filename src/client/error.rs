//! What can go wrong between a component and the API.
//!
//! Owns: the error types of this crate's edge.
//! Called by: everything that makes a request or reads a kubeconfig.
//! Never: repeats its source in its own text.

use minik_api::Status;

use crate::transport::BoxError;

/// A request failed, or something else a plan asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server answered, and its answer is no.
    #[error(transparent)]
    Status(Box<Status>),
    #[error("the API server could not be reached")]
    Transport(#[from] TransportError),
    #[error("the answer of the API server could not be read")]
    Decode(#[from] DecodeError),
    /// Not a request: something a plan asked for on this machine.
    #[error("{path} could not be {what}")]
    Directory { path: String, what: &'static str, source: std::io::Error },
}

impl Error {
    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Status(status) => Some(status),
            Error::Transport(_) | Error::Decode(_) | Error::Directory { .. } => None,
        }
    }
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(Status::is_not_found)
    }
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(Status::is_conflict)
    }
    /// A patch named the uid of an object that has gone; another has its name now.
    pub fn is_of_another_object(&self) -> bool {
        self.status().is_some_and(Status::is_of_another_object)
    }
    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(Status::is_already_exists)
    }
    /// 410: the resource version asked for is no longer in the server's history.
    pub fn is_gone(&self) -> bool {
        self.status().is_some_and(|s| s.code == 410)
    }
    /// The text with all its causes, as a log line wants it.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Error::Status(Box::new(status))
    }
}

/// The bytes did not get there or did not come back.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("connecting to {address}")]
    Connect { address: String, source: BoxError },
    #[error("TLS handshake with {address}")]
    Tls { address: String, source: std::io::Error },
    #[error("no answer within {seconds} s")]
    Timeout { seconds: u64 },
    #[error("the request could not be sent")]
    Send { source: BoxError },
    #[error("the answer broke off")]
    Receive { source: BoxError },
    #[error("the request is malformed")]
    Request(#[from] http::Error),
    #[error("the token file {path} could not be read")]
    Token { path: String, source: std::io::Error },
    #[error("could not get a token of service account {name}")]
    ServiceAccount { name: String, source: Box<Error> },
}

/// The bytes came, and are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not JSON")]
    Json(#[from] serde_json::Error),
    #[error("an answer of more than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("an object of this watch has no {field}")]
    Missing { field: &'static str },
    #[error("unknown watch event type {kind:?}")]
    EventType { kind: String },
}

/// A kubeconfig does not tell how to connect.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("kubeconfig {path} could not be read")]
    Read { path: String, source: std::io::Error },
    #[error("kubeconfig {path} is not valid YAML")]
    Yaml { path: String, source: serde_yaml::Error },
    #[error("kubeconfig has no {kind} named {name:?}")]
    Missing { kind: &'static str, name: String },
    #[error("{field} is not valid base64")]
    Base64 { field: &'static str, source: base64::DecodeError },
    #[error("{field} holds no usable PEM data")]
    Pem { field: &'static str },
    #[error("server address {server:?} is not a URL")]
    Server { server: String },
    #[error("the TLS settings do not fit together")]
    Tls(#[from] rustls::Error),
}
