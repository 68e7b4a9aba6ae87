//! Secret volumes.
//!
//! Owns: which keys become which files.
//! Called by: volume set-up and refresh.
//! Never: fetches the Secret.

use serde_json::Value;

use super::VolumeError;
use super::atomic_writer::Payload;
use super::config_map::{Options, decoded, select};

/// `secret` is `None` when the object does not exist.
pub fn payload(secret: Option<&Value>, options: &Options) -> Result<Payload, VolumeError> {
    match secret {
        Some(secret) => select(decoded(&secret["data"]).collect(), options, "secret"),
        None if options.optional => Ok(Payload::new()),
        None => Err(VolumeError::NoSecret(options.name.into())),
    }
}
