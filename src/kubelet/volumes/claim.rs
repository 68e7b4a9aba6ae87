//! PersistentVolumeClaims: volumes bound to a PersistentVolume of this node.
//!
//! Owns: following claim to volume to path.
//! Called by: volume set-up.
//! Never: binds or provisions; controllers do.

use std::path::PathBuf;

use k8s_openapi::api::core::v1 as core;
use minik_api::object;
use minik_api::resources::{PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES};
use minik_api::volume_binding as binding;
use serde_json::Value;

use super::{Context, Volume, VolumeError, host_path, ownership};
use crate::pod::Pod;

/// Set by provisioners: processes need this group to use the volume.
const GID_ANNOTATION: &str = "pv.beta.kubernetes.io/gid";

/// How the pod names the claim.
pub enum Named<'a> {
    /// `persistentVolumeClaim`.
    Claim { name: &'a str, read_only: bool },
    /// `ephemeral`, by the volume's name.
    Ephemeral { volume: &'a str },
}

pub async fn set_up(context: &Context, pod: &Pod, named: Named<'_>) -> Result<Volume, VolumeError> {
    let (claim, read_only) = match named {
        Named::Claim { name, read_only } => (name.to_string(), read_only),
        Named::Ephemeral { volume } => (format!("{}-{volume}", pod.name()), false),
    };
    let namespace = pod.namespace();
    let failed = |error: minik_client::Error| VolumeError::Claim(error.chain());
    let object = context.client.get(PERSISTENTVOLUMECLAIMS, namespace, &claim).await.map_err(failed)?;
    let unusable = |why: &str| VolumeError::Claim(format!("error processing PVC {namespace}/{claim}: {why}"));
    if matches!(named, Named::Ephemeral { .. })
        && object::controller_of(&object).is_none_or(|owner| owner["uid"] != pod.uid.as_str())
    {
        return Err(unusable(&format!("PVC was not created for pod {} (pod is not owner)", pod.key)));
    }
    // A pod that runs keeps its claim until it ends, also over a restart of this kubelet.
    let begins = pod.api_status.phase.as_deref().is_none_or(|phase| phase == "Pending");
    if object::is_deleting(&object) && begins {
        return Err(unusable("PVC is being deleted"));
    }
    let name = binding::volume_name(&object);
    // The phase is written last, and the scheduler does not wait for it: both sides of the binding are what counts.
    let lost = object["status"]["phase"] == "Lost";
    if lost || !binding::is_fully_bound(&object) {
        return Err(unusable("PVC is not bound"));
    }
    let volume = context.client.get(PERSISTENTVOLUMES, "", name).await.map_err(failed)?;
    if volume["spec"]["claimRef"]["uid"] != object["metadata"]["uid"] {
        return Err(unusable(&format!("PV {name} is bound to another claim")));
    }
    if volume["spec"]["volumeMode"] == "Block" {
        return Err(VolumeError::Unsupported("block device"));
    }
    let path = path_of(&volume)?;
    if volume["spec"]["local"].is_object() {
        if !path.exists() {
            return Err(VolumeError::Claim(format!("path {:?} does not exist", path.display().to_string())));
        }
        // Local volumes belong to their pod; a hostPath keeps the owner it has.
        if !read_only {
            ownership::give_unless_given(&path, pod)?;
        }
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
    if let Some(driver) = spec["csi"]["driver"].as_str() {
        return Err(VolumeError::NoDriver(driver.into()));
    }
    Err(VolumeError::Unsupported(match spec {
        _ if spec["nfs"].is_object() => "nfs",
        _ => "other than hostPath and local",
    }))
}
