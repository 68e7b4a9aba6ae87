//! Warnings about volumes, claims and what they are made by.
//!
//! Owns: PersistentVolumes and their claims, and the kinds of storage.k8s.io.
//! Called by: `warnings`; for the templates of claims `volumes` and `workloads`.
//! Never: looks for the class that a claim names.

use serde_json::Value;

use super::Warnings;
use super::node_labels::{self, Values};
use super::volumes::gone;
use crate::validation::check::At;

const CLASS: (&str, &str) =
    ("volume.beta.kubernetes.io/storage-class", r#"deprecated since v1.8; use "storageClassName" attribute instead"#);
const MOUNT_OPTIONS: (&str, &str) =
    ("volume.beta.kubernetes.io/mount-options", r#"deprecated since v1.31; use "mountOptions" attribute instead"#);
/// The kinds of volumes that are gone and that upstream warns about here too.
const GONE: [&str; 6] = ["cephfs", "photonPersistentDisk", "scaleIO", "storageos", "glusterfs", "rbd"];

pub(super) fn volume(volume: &At<'_>, warnings: &mut Warnings) {
    warnings.annotations(&volume.get("metadata"), &[CLASS, MOUNT_OPTIONS]);
    let spec = volume.get("spec");
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if policy.text() == "Recycle" {
        let text = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic \
                    provisioning.";
        warnings.at(&policy, text);
    }
    let affinity = spec.get("nodeAffinity");
    let required = affinity.get("required");
    let terms = required.get("nodeSelectorTerms");
    terms.items().for_each(|term| node_labels::term(&term, Values::Refused, warnings));
    gone(&spec, |kind| GONE.contains(&kind), warnings);
}

pub(super) fn claim(claim: &At<'_>, warnings: &mut Warnings) {
    warnings.annotations(&claim.get("metadata"), &[CLASS]);
    claim_spec(&claim.get("spec"), warnings);
}

pub(super) fn claim_spec(spec: &At<'_>, warnings: &mut Warnings) {
    let resources = spec.get("resources");
    for side in ["requests", "limits"] {
        warnings.whole_bytes(&resources.get(side), "storage");
    }
}

pub(super) fn of_classes(kind: &str, old: Option<&Value>, at: &At<'_>, warnings: &mut Warnings) {
    match kind {
        "CSIDriver" => driver(at, old, warnings),
        "CSIStorageCapacity" => node_labels::topology(&at.get("nodeTopology"), warnings),
        "StorageClass" => {
            for topology in at.get("allowedTopologies").items() {
                let expressions = topology.get("matchLabelExpressions");
                expressions.items().for_each(|expression| node_labels::placed(&expression.get("key"), warnings));
            }
        }
        _ => {}
    }
}

/// Tokens that a driver is to be given may end in its log, unless they are among its secrets.
fn driver(driver: &At<'_>, old: Option<&Value>, warnings: &mut Warnings) {
    let (spec, requests) = (driver.get("spec"), &driver.value["spec"]["tokenRequests"]);
    let is_new = old.is_none_or(|old| old["spec"]["tokenRequests"] != *requests);
    if is_new && spec.get("tokenRequests").len() > 0 && spec.get("serviceAccountTokenInSecrets").is_null() {
        warnings.say(
            "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent \
             possible logging of tokens in volume attributes",
        );
    }
}
