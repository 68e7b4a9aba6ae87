//! downwardAPI volumes: the pod's own fields as files.
//!
//! Owns: one file an item.
//! Called by: volume set-up and refresh.
//! Never: asks the API server.

use k8s_openapi::api::core::v1::DownwardAPIVolumeFile;

use super::VolumeError;
use super::atomic_writer::{File, Payload};
use crate::downward::{self, Around};
use crate::pod::Pod;

pub fn payload(
    pod: &Pod,
    around: &Around,
    items: &[DownwardAPIVolumeFile],
    default_mode: u32,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => downward::field(pod, around, &field.field_path)?,
            (None, Some(selector)) => downward::resource(pod, around, None, selector)?,
            (None, None) => String::new(),
        };
        let mode = item.mode.map_or(default_mode, |m| m as u32 & 0o777);
        payload.insert(item.path.clone(), File { data: text.into_bytes(), mode, uid: None });
    }
    Ok(payload)
}
