//! The Docker API, with errors a person can act on.
//!
//! Owns: the connection, and the translation of Docker's answers into `CliError`.
//! Called by: every step that touches containers, networks, volumes or images.
//! Never: keeps state: what exists is asked of Docker each time.

use bollard::Docker;
use bollard::errors::Error;

use crate::error::CliError;

/// Where the client connects, for messages.
pub fn endpoint() -> String {
    std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into())
}

/// A connection that has answered once; the version is negotiated so that old daemons work.
pub async fn connect() -> Result<Docker, CliError> {
    let docker = Docker::connect_with_defaults().map_err(unreachable)?;
    docker.negotiate_version().await.map_err(unreachable)
}

fn unreachable(source: Error) -> CliError {
    let endpoint = endpoint();
    let mut next: Option<&dyn std::error::Error> = Some(&source);
    while let Some(error) = next {
        if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
            || error.to_string().contains("ermission denied")
        {
            return CliError::DockerPermission { endpoint, source };
        }
        next = error.source();
    }
    CliError::DockerUnreachable { endpoint, source }
}

/// Status code of Docker's answer, when it answered.
pub fn code(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Docker's own words.
pub fn message(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } | Error::DockerStreamError { error: message } => {
            message.clone()
        }
        other => other.to_string(),
    }
}

/// For `map_err`: names what failed, and singles out a full disk.
pub fn failed(what: impl Into<String>) -> impl FnOnce(Error) -> CliError {
    let what = what.into();
    move |source| {
        if message(&source).contains("no space left on device") {
            CliError::DiskFull { source }
        } else {
            CliError::Docker { what, source }
        }
    }
}
