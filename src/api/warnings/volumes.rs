//! Warnings about the volumes of Pods.
//!
//! Owns: kinds of volumes that are gone, and files of one volume that are in each other's way.
//! Called by: `pod`.
//! Never: looks at what the volumes refer to.

use serde_json::Value;

use super::{Warnings, storage};
use crate::object::text;
use crate::validation::check::At;

const GONE: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

pub(super) fn volumes(volumes: &At<'_>, warnings: &mut Warnings) {
    for volume in volumes.items() {
        gone(&volume, |_| true, warnings);
        let ephemeral = volume.get("ephemeral");
        let template = ephemeral.get("volumeClaimTemplate");
        storage::claim_spec(&template.get("spec"), warnings);
    }
    for volume in volumes.items() {
        overlaps(volume.value, warnings);
    }
}

/// Kinds of volumes that no node has a driver for, as far as they are told of.
pub(super) fn gone(volume: &At<'_>, is_told: impl Fn(&str) -> bool, warnings: &mut Warnings) {
    for (field, text) in GONE.iter().filter(|(field, _)| is_told(field)) {
        if !volume.get(field).is_null() {
            // Of this one upstream shows Go's name.
            let shown = if *field == "storageos" { "storageOS" } else { field };
            warnings.at(&volume.get(shown), text);
        }
    }
}

/// A file of a volume, and what it comes from where that is not clear.
struct File<'a> {
    path: &'a str,
    source: String,
}

impl File<'_> {
    /// Whether one of them lies where the other does, or in it.
    fn is_in_the_way_of(&self, other: &File<'_>) -> bool {
        let within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let named = !self.path.is_empty() && !other.path.is_empty();
        named && (within(self.path, other.path) || within(other.path, self.path))
    }

    fn shown(&self) -> String {
        if self.source.is_empty() { format!("{:?}", self.path) } else { format!("{:?} ({})", self.path, self.source) }
    }
}

fn file(path: &str, source: String) -> File<'_> {
    File { path: path.trim_end_matches('/'), source }
}

/// The files that `items` names; none when it is absent, as all keys are taken then.
fn items<'a>(of: &'a Value, source: &str) -> Vec<File<'a>> {
    let items = of["items"].as_array().into_iter().flatten();
    items.map(|item| file(text(item, "path"), source.into())).collect()
}

fn overlaps(volume: &Value, warnings: &mut Warnings) {
    let named = |kind: &str, field: &str, name: &str| format!("{kind} {:?}", text(&volume[field], name));
    let whole = [
        ("configMap", named("ConfigMap", "configMap", "name")),
        ("secret", named("Secret", "secret", "secretName")),
        ("downwardAPI", "DownwardAPI".to_string()),
    ];
    for (field, what) in whole {
        collisions(text(volume, "name"), &what, &items(&volume[field], ""), 0, warnings);
    }
    let mut files = Vec::new();
    for source in volume["projected"]["sources"].as_array().into_iter().flatten() {
        if source.as_object().is_none_or(|kinds| kinds.values().all(Value::is_null)) {
            warnings.say(format!("volume {:?} (Projected) has no sources provided", text(volume, "name")));
            continue;
        }
        let old = files.len();
        files.extend(projected(source));
        collisions(text(volume, "name"), "Projected", &files, old, warnings);
    }
}

/// Each of the files from `first_new` on is judged against all before it.
fn collisions(volume: &str, what: &str, files: &[File<'_>], first_new: usize, warnings: &mut Warnings) {
    for (i, file) in files.iter().enumerate().skip(first_new) {
        for earlier in files[..i].iter().filter(|earlier| file.is_in_the_way_of(earlier)) {
            let (file, earlier) = (file.shown(), earlier.shown());
            warnings.say(format!("volume {volume:?} ({what}): overlapping paths: {file} with {earlier}"));
        }
    }
}

/// The files of one source of a projected volume.
fn projected(source: &Value) -> Vec<File<'_>> {
    let of = |field: &str| Some(&source[field]).filter(|of| of.is_object());
    let listed = |field: &str| of(field).filter(|of| of["items"].is_array());
    if let Some(map) = listed("configMap") {
        items(map, &format!("ConfigMap {:?}", text(map, "name")))
    } else if let Some(secret) = listed("secret") {
        items(secret, &format!("Secret {:?}", text(secret, "name")))
    } else if let Some(fields) = listed("downwardAPI") {
        items(fields, "DownwardAPI")
    } else if let Some(token) = of("serviceAccountToken") {
        vec![file(text(token, "path"), "ServiceAccountToken".into())]
    } else if let Some(bundle) = of("clusterTrustBundle") {
        let name = bundle["name"].as_str().unwrap_or_else(|| text(bundle, "signerName"));
        vec![file(text(bundle, "path"), format!("ClusterTrustBundle {name:?}"))]
    } else if let Some(certificate) = of("podCertificate") {
        let parts =
            [("certificateChainPath", "chain"), ("keyPath", "key"), ("credentialBundlePath", "credential bundle")];
        let present = parts.iter().filter(|(field, _)| !text(certificate, field).is_empty());
        present.map(|(field, part)| file(text(certificate, field), format!("PodCertificate {part}"))).collect()
    } else {
        Vec::new()
    }
}
