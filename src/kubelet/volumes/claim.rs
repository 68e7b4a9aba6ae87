//! PersistentVolumeClaims: volumes bound to a PersistentVolume of this node.
//!
//! Owns: following claim to volume to path.
//! Called by: volume set-up.
//! Never: binds or provisions; controllers do.

use std::path::PathBuf;

use k8s_openapi::api::core::v1 as core;
use minik_api::resources::{PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES};
use serde_json::Value;

use super::{Context, Volume, VolumeError, host_path, ownership};
use crate::pod::Pod;

/// Set by provisioners: processes need this group to use the volume.
const GID_ANNOTATION: &str = "pv.beta.kubernetes.io/gid";

pub async fn set_up(context: &Context, pod: &Pod, claim: &str, read_only: bool) -> Result<Volume, VolumeError> {
    let namespace = pod.namespace();
    let failed = |error: minik_client::Error| VolumeError::Claim(error.chain());
    let object = context.client.get(PERSISTENTVOLUMECLAIMS, namespace, claim).await.map_err(failed)?;
    let bound = object["status"]["phase"] == "Bound";
    let Some(name) = object["spec"]["volumeName"].as_str().filter(|n| bound && !n.is_empty()) else {
        return Err(VolumeError::Claim(format!("PVC {namespace}/{claim} is not bound")));
    };
    let volume = context.client.get(PERSISTENTVOLUMES, "", name).await.map_err(failed)?;
    if volume["spec"]["claimRef"]["uid"] != object["metadata"]["uid"] {
        return Err(VolumeError::Claim(format!("PV {name} is bound to another claim than {namespace}/{claim}")));
    }
    let path = path_of(&volume)?;
    // Local volumes belong to their pod; a hostPath keeps the owner it has.
    if volume["spec"]["local"].is_object() && !read_only {
        ownership::give(&path, ownership::fs_group(pod))?;
    }
    let gid = minik_api::object::annotation(&volume, GID_ANNOTATION).and_then(|g| g.parse().ok());
    Ok(Volume { path, read_only, groups: gid.into_iter().collect(), image: None })
}

fn path_of(volume: &Value) -> Result<PathBuf, VolumeError> {
    let spec = &volume["spec"];
    if let Some(path) = spec["hostPath"]["path"].as_str() {
        let type_ = spec["hostPath"]["type"].as_str().map(String::from);
        host_path::check(&core::HostPathVolumeSource { path: path.into(), type_ })?;
        return Ok(path.into());
    }
    if let Some(path) = spec["local"]["path"].as_str() {
        return Ok(path.into());
    }
    Err(VolumeError::Unsupported(match spec {
        _ if spec["csi"].is_object() => "csi",
        _ if spec["nfs"].is_object() => "nfs",
        _ => "other than hostPath and local",
    }))
}
