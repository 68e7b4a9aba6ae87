//! Rules of a Pod's volumes.
//!
//! Owns: names, that each has one source, and the sources that a local cluster serves.
//! Called by: `pod`.
//! Never: looks whether a ConfigMap or claim exists.

use std::collections::BTreeSet;

use super::check::{At, Errors};
use super::containers::{VOLUME_FIELDS, descending_path, field_selector, no_backsteps, resource_selector};
use super::{core, pod_certificates, storage};
use crate::names;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const ONE_SOURCE: &str = "may not specify more than 1 volume type";

/// In the order in which upstream counts them: the second one found is the one too many.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// Checks the list and answers the names that mounts may use: those of sound volumes.
pub fn volumes<'v>(list: &At<'v>, errors: &mut Errors) -> BTreeSet<&'v str> {
    let mut sound = BTreeSet::new();
    for (i, volume) in list.value.as_array().into_iter().flatten().enumerate() {
        let at = list.index(i);
        let before = errors.0.len();
        source(&at, errors);
        let name = volume["name"].as_str().unwrap_or("");
        if name.is_empty() {
            errors.required(&at.get("name"), "");
        } else {
            errors.label(&at.get("name"));
        }
        if sound.contains(name) {
            errors.duplicate(&at.get("name"));
        }
        if errors.0.len() == before {
            sound.insert(name);
        }
    }
    sound
}

fn source(volume: &At<'_>, errors: &mut Errors) {
    let mut found = 0;
    for field in SOURCES {
        let at = volume.get(field);
        if at.is_null() {
            continue;
        }
        found += 1;
        if found > 1 {
            errors.forbidden(&at, ONE_SOURCE);
        } else {
            one(field, &at, errors);
        }
    }
    if found == 0 {
        errors.required(volume, "must specify a volume type");
    }
}

fn need(at: &At<'_>, field: &str, errors: &mut Errors) {
    if at.get(field).text().is_empty() {
        errors.required(&at.get(field), "");
    }
}

fn mode(at: &At<'_>, errors: &mut Errors) {
    if at.number().is_some_and(|m| !(0..=0o777).contains(&m)) {
        errors.invalid(at, MODE);
    }
}

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

fn one(field: &str, at: &At<'_>, errors: &mut Errors) {
    match field {
        "emptyDir" => {
            let size = crate::quantity::Quantity::from_json(at.get("sizeLimit").value);
            if size.is_ok_and(|q| q.signum() < 0) {
                errors.forbidden(&at.get("sizeLimit"), "SizeLimit field must be a valid resource quantity");
            }
        }
        "hostPath" => {
            need(at, "path", errors);
            no_backsteps(&at.get("path"), errors);
            errors.one_of_if_set(&at.get("type"), &HOST_PATH_TYPES);
        }
        "secret" | "configMap" => {
            need(at, if field == "secret" { "secretName" } else { "name" }, errors);
            mode(&at.get("defaultMode"), errors);
            keys(&at.get("items"), errors);
        }
        "nfs" => {
            need(at, "server", errors);
            need(at, "path", errors);
            if !at.get("path").text().starts_with('/') {
                errors.invalid(&at.get("path"), "must be an absolute path");
            }
        }
        "persistentVolumeClaim" => need(at, "claimName", errors),
        "downwardAPI" => {
            mode(&at.get("defaultMode"), errors);
            for file in at.get("items").items() {
                downward_file(&file, at, errors);
            }
        }
        "projected" => projected(at, errors),
        "csi" => storage::driver_name(&at.get("driver"), errors),
        "ephemeral" => {
            let template = at.get("volumeClaimTemplate");
            if template.is_null() {
                errors.required(&template, "");
            } else {
                core::claim_spec(&template.get("spec"), errors);
            }
        }
        "image" => {
            need(at, "reference", errors);
            errors.one_of(&at.get("pullPolicy"), &["Always", "IfNotPresent", "Never"]);
        }
        _ => {}
    }
}

/// The source of a PersistentVolume.
pub fn persistent_source(field: &str, at: &At<'_>, errors: &mut Errors) {
    match field {
        "local" => {
            need(at, "path", errors);
            no_backsteps(&at.get("path"), errors);
        }
        "csi" => {
            storage::driver_name(&at.get("driver"), errors);
            need(at, "volumeHandle", errors);
            for secret in ["controllerPublish", "controllerExpand", "nodePublish", "nodeExpand"] {
                let field = format!("{secret}SecretRef");
                let reference = at.get(&field);
                if !reference.is_null() {
                    errors.required_name(&reference.get("name"), names::dns1123_subdomain);
                    errors.required_name(&reference.get("namespace"), names::dns1123_label);
                }
            }
        }
        "hostPath" | "nfs" => one(field, at, errors),
        _ => {}
    }
}

pub fn local_path(at: &At<'_>, errors: &mut Errors) {
    descending_path(at, errors);
    if at.text().starts_with("..") && !at.text().starts_with("../") {
        errors.invalid(at, "must not start with '..'");
    }
}

fn keys(list: &At<'_>, errors: &mut Errors) {
    for item in list.items() {
        need(&item, "key", errors);
        need(&item, "path", errors);
        local_path(&item.get("path"), errors);
        mode(&item.get("mode"), errors);
    }
}

/// Upstream reports a downward file at its list's owner, not at its own index.
fn downward_file(file: &At<'_>, owner: &At<'_>, errors: &mut Errors) {
    let (path, field, resource) = (file.get("path"), file.get("fieldRef"), file.get("resourceFieldRef"));
    if path.text().is_empty() {
        errors.required(&owner.get("path"), "");
    }
    local_path(&owner.get("path").showing(path.value), errors);
    if !field.is_null() {
        field_selector(&owner.get("fieldRef").showing(field.value), &VOLUME_FIELDS, errors);
        if !resource.is_null() {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errors.invalid(&owner.showing(&"resource".into()), detail);
        }
    } else if !resource.is_null() {
        resource_selector(&owner.get("resourceFieldRef").showing(resource.value), true, errors);
    } else {
        errors.required(owner, "one of fieldRef and resourceFieldRef is required");
    }
    mode(&owner.get("mode").showing(file.get("mode").value), errors);
}

fn projected(at: &At<'_>, errors: &mut Errors) {
    mode(&at.get("defaultMode"), errors);
    let mut paths = BTreeSet::new();
    for source in at.get("sources").items() {
        let kinds =
            ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
        for field in kinds {
            let part = source.get(field);
            if part.is_null() {
                continue;
            }
            match field {
                "secret" | "configMap" => {
                    need(&part, "name", errors);
                    keys(&part.get("items"), errors);
                }
                "downwardAPI" => part.get("items").items().for_each(|file| downward_file(&file, &part, errors)),
                "serviceAccountToken" => token(at, &part, errors),
                "clusterTrustBundle" => {
                    one_each(at, pod_certificates::projected_bundle(&part, errors), &mut paths, errors)
                }
                _ => one_each(at, pod_certificates::projected_certificate(&part, errors), &mut paths, errors),
            }
            for item in part.get("items").items() {
                let path = item.get("path");
                if !path.text().is_empty() && !paths.insert(path.text().to_string()) {
                    let shown = if field == "downwardAPI" { path.value } else { part.get("name").value };
                    errors.invalid(&at.showing(shown), "conflicting duplicate paths");
                }
            }
        }
        if kinds.iter().filter(|k| !source.get(k).is_null()).count() > 1 {
            errors.forbidden(&source, "may not specify more than 1 volume type per source");
        }
    }
}

/// Files of two sources may not meet.
fn one_each(volume: &At<'_>, new: Vec<&str>, paths: &mut BTreeSet<String>, errors: &mut Errors) {
    for path in new {
        if !paths.insert(path.to_string()) {
            errors.invalid(&volume.showing(&path.into()), "conflicting duplicate paths");
        }
    }
}

fn token(volume: &At<'_>, token: &At<'_>, errors: &mut Errors) {
    let seconds = token.get("expirationSeconds");
    match seconds.number() {
        None => errors.required(&seconds, ""),
        Some(s) if s < 600 => errors.invalid(&seconds, "may not specify a duration less than 10 minutes"),
        Some(s) if s > 1 << 32 => errors.invalid(&seconds, "may not specify a duration larger than 2^32 seconds"),
        Some(_) => {}
    }
    let path = token.get("path");
    if path.text().is_empty() {
        errors.required(&volume.get("path"), "");
    } else {
        local_path(&volume.get("path").showing(path.value), errors);
    }
}
