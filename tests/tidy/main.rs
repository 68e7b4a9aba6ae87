//! Rules of the house that the compiler does not know.
//!
//! Owns: module headers, banned names, allowed edges between crates, paths named in documents.
//! Called by: `cargo test`.
//! Never: needs a cluster.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie one folder below the root").to_path_buf()
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().unwrap() != "target" {
                rust_files(&path, found);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    rust_files(&root().join("src"), &mut found);
    rust_files(&root().join("tests"), &mut found);
    assert!(found.len() > 50, "the walk over the sources found too few files to mean anything");
    found
}

fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let bad = |p: &PathBuf| !fs::read_to_string(p).unwrap().starts_with("//!");
    report(sources().iter().filter(|p| bad(p)).map(|p| p.display().to_string()).collect());
}

#[test]
fn no_file_is_named_for_nothing() {
    const BANNED: [&str; 8] = ["util", "utils", "helper", "helpers", "common", "misc", "manager", "mgr"];
    let bad = |p: &&PathBuf| BANNED.contains(&p.file_stem().unwrap().to_str().unwrap());
    report(sources().iter().filter(bad).map(|p| p.display().to_string()).collect());
}

#[test]
fn crates_depend_only_where_the_architecture_allows() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("minik-api", &[][..]),
        ("minik-cel", &["minik-api"]),
        ("minik-store", &[]),
        ("minik-streaming", &[]),
        ("minik-shim", &[]),
        ("minik-network", &[]),
        ("minik-client", &["minik-api"]),
        ("minik-apiserver", &["minik-api", "minik-cel", "minik-descriptions", "minik-store"]),
        ("minik-scheduler", &["minik-api", "minik-client"]),
        ("minik-controllers", &["minik-api", "minik-cel", "minik-client"]),
        ("minik-proxy", &["minik-api", "minik-client", "minik-network"]),
        ("minik-dns", &["minik-api", "minik-client", "minik-network"]),
        ("minik-provisioner", &["minik-api", "minik-client"]),
        ("minik-kubelet", &["minik-api", "minik-client"]),
        ("minik-cri", &["minik-shim", "minik-network", "minik-streaming"]),
        ("minik", &["minik-api", "minik-client", "minik-node"]),
    ]);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some(edges) = allowed.get(name) else { continue };
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            if dependency["kind"].is_null() && to.starts_with("minik-") && !edges.contains(&to) {
                faults.push(format!("{name} -> {to}"));
            }
        }
    }
    report(faults);
}

#[test]
fn paths_named_in_documents_exist() {
    let mut faults = Vec::new();
    for document in ["README.md", "src/ARCHITECTURE.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for word in text.split(['`', '(', ')']) {
            let is_path = ["src/", "scripts/", "tests/", "manifests/", "images/"].iter().any(|p| word.starts_with(p));
            let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if is_path && plain && !root().join(word.trim_end_matches('/')).exists() {
                faults.push(format!("{document}: {word}"));
            }
        }
    }
    report(faults);
}
