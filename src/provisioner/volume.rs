//! What a volume of this provisioner looks like.
//!
//! Owns: its name, its directory, and reading both back from a PersistentVolume.
//! Called by: provisioning and reclaiming.
//! Never: does IO.

use std::path::{Component, Path, PathBuf};

use minik_api::object;
use minik_api::volume_binding::{self as binding, PROVISIONED_BY};
use serde_json::{Value, json};

pub(crate) const PROVISIONER: &str = "minik.dev/local-path";
/// On a volume: the Node whose disk it lies on.
const NODE: &str = "minik.dev/node";
/// Keeps a volume that is deleted too early until its data is gone (KEP-2644).
pub(crate) const FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
const HOSTNAME: &str = "kubernetes.io/hostname";
/// ext4's and overlay's limit for one name.
const FILE_NAME_BYTES_MAX: usize = 255;

pub(crate) fn name(claim: &Value) -> String {
    format!("pvc-{}", object::uid(claim))
}

/// Begins with the volume's name, so that it is unique, and goes on with the claim's, so that people find it.
pub(crate) fn directory(root: &Path, claim: &Value) -> PathBuf {
    let mut name = format!("{}_{}_{}", name(claim), object::namespace(claim), object::name(claim));
    name.truncate(FILE_NAME_BYTES_MAX);
    root.join(name)
}

/// The PersistentVolume of a claim, on a node with these labels.
pub(crate) fn body(claim: &Value, class: &Value, node: &str, labels: &Value, directory: &Path) -> Value {
    let host = labels.get(HOSTNAME).and_then(Value::as_str).unwrap_or(node);
    let policy = class["reclaimPolicy"].as_str().unwrap_or("Delete");
    let mut volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name(claim), "annotations": {PROVISIONED_BY: PROVISIONER, NODE: node}},
        "spec": {
            "accessModes": claim["spec"]["accessModes"],
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": object::namespace(claim), "name": object::name(claim),
                "uid": object::uid(claim), "resourceVersion": object::resource_version(claim),
            },
            "local": {"path": directory},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [host]}]},
            ]}},
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": binding::class_of(claim),
            "volumeMode": "Filesystem",
        },
    });
    if policy == "Delete" {
        volume["metadata"]["finalizers"] = json!([FINALIZER]);
    }
    volume
}

/// The Node a volume lies on, if it is one of this provisioner's.
pub(crate) fn node_of(volume: &Value) -> Option<&str> {
    let ours = object::annotation(volume, PROVISIONED_BY) == Some(PROVISIONER);
    object::annotation(volume, NODE).filter(|_| ours)
}

/// The volume's directory; none if it does not lie directly in the provisioner's folder.
pub(crate) fn directory_of(root: &Path, volume: &Value) -> Option<PathBuf> {
    let path = Path::new(volume["spec"]["local"]["path"].as_str()?);
    let mut below = path.strip_prefix(root).ok()?.components();
    let one = matches!(below.next(), Some(Component::Normal(_))) && below.next().is_none();
    one.then(|| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_folder_directly_below_the_root_is_a_volumes_directory() {
        let of = |path: &str| directory_of(Path::new("/data"), &json!({"spec": {"local": {"path": path}}})).is_some();
        assert!(of("/data/pvc-1_d_web"));
        for path in ["/data", "/data/", "/data/..", "/data/a/b", "/etc", "/data/../etc", ""] {
            assert!(!of(path), "{path} would be removed");
        }
    }

    #[test]
    fn a_long_claim_still_has_a_directory_name() {
        let claim = json!({"metadata": {"namespace": "n".repeat(63), "name": "c".repeat(253), "uid": "u".repeat(36)}});
        let directory = directory(Path::new("/data"), &claim);
        assert_eq!(directory.file_name().unwrap().len(), FILE_NAME_BYTES_MAX);
    }
}
