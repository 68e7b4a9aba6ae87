//! What can go wrong in the runtime, and which gRPC code a CRI client sees.
//!
//! Owns: the words, which end up in pod events that users read.
//! Called by: every module of this crate.
//! Never: hides the cause: a `Status` carries the whole chain, as containerd's do.

use std::io;

use crate::images::ImageError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("an error occurred when try to find {kind} {id:?}: not found")]
    NotFound { kind: &'static str, id: String },
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Precondition(String),
    #[error("{0}")]
    DeadlineExceeded(String),
    #[error("image {0:?} not found")]
    NoImage(String),
    #[error("{what}")]
    Io { what: String, source: io::Error },
    #[error("failed to setup network for sandbox {sandbox:?}")]
    Network { sandbox: String, source: minik_network::Error },
    #[error("failed to setup network namespace for sandbox {sandbox:?}")]
    Namespace { sandbox: String, source: minik_network::netns::Error },
    #[error("{verb}: {message}")]
    Shim { verb: &'static str, message: String },
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("a task of the runtime was cut off")]
    Cut(#[from] tokio::task::JoinError),
}

pub(crate) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}

/// The error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        let text = chain(&error);
        match error {
            Error::NotFound { .. } | Error::NoImage(_) => tonic::Status::not_found(text),
            Error::Invalid(_) => tonic::Status::invalid_argument(text),
            Error::Precondition(_) => tonic::Status::failed_precondition(text),
            Error::DeadlineExceeded(_) => tonic::Status::deadline_exceeded(text),
            Error::Image(ImageError::Reference(_)) => tonic::Status::invalid_argument(text),
            Error::Image(ImageError::Pull { .. }) if text.contains(": not found") => tonic::Status::not_found(text),
            _ => tonic::Status::unknown(text),
        }
    }
}
