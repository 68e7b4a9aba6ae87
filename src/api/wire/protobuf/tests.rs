//! There and back, upstream's published objects, and garbage.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;

#[test]
fn an_object_survives_the_way_there_and_back() {
    let pod = json!({"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"b":"c"},
        "creationTimestamp":"2024-05-06T07:08:09Z"},"spec":{"containers":[{"name":"c","image":"i","resources":{
        "limits":{"cpu":"1"}},"livenessProbe":{"httpGet":{"path":"/","port":"web"},"periodSeconds":-1}}],
        "volumes":[{"name":"v","configMap":{"name":"m"}}],"securityContext":{"supplementalGroups":[1,2]}},"status":{}});
    let bytes = encode(&pod).expect("a built-in kind");
    assert_eq!(decode(&bytes), Ok(pod));
}

#[test]
fn hostile_input_is_refused_and_never_believed() {
    let good = encode(&json!({"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}})).expect("a built-in kind");
    for cut in 0..good.len() {
        let _ = decode(&good[..cut]);
    }
    assert_eq!(decode(b"abc"), Err(ProtobufError::NoMagic));
    let mut long = good.clone();
    long.extend([0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    assert_eq!(decode(&long), Err(ProtobufError::Truncated));
}

#[test]
fn a_watch_frame_has_its_length_before_it_and_the_object_in_an_envelope() {
    let frame = watch_frame("ADDED", &json!({"apiVersion":"v1","kind":"Pod","metadata":{}})).expect("a built-in kind");
    assert_eq!(frame[..4], ((frame.len() - 4) as u32).to_be_bytes());
    let inside = read::message(Type::meta("WatchEvent").expect("built in"), &frame[4..], DEPTH_MAX).expect("an event");
    assert_eq!((&inside["type"], &inside["object"]["kind"]), (&json!("ADDED"), &json!("Pod")));
}

/// Upstream publishes one filled object of every kind in three encodings. They are read from Go's module cache and not
/// kept here, so without that module there is nothing to compare with.
fn fixtures() -> Option<PathBuf> {
    let cache = std::env::var("GOMODCACHE")
        .map(PathBuf::from)
        .or_else(|_| std::env::var("HOME").map(|home| Path::new(&home).join("go/pkg/mod")));
    let directory = cache.ok()?.join("k8s.io/api@v0.37.2/testdata/HEAD");
    directory.is_dir().then_some(directory)
}

#[test]
fn every_published_fixture_is_the_same_in_all_directions() {
    let Some(directory) = fixtures() else {
        eprintln!("skipped: module k8s.io/api v0.37.2 is not in Go's module cache");
        return;
    };
    let (mut compared, mut faults) = (0, Vec::new());
    for entry in std::fs::read_dir(directory).expect("the directory was there") {
        let path = entry.expect("a directory entry").path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let text = std::fs::read(&path).expect("a fixture");
        let object: Value = serde_json::from_slice(&text).expect("fixtures are JSON");
        let (Some(version), Some(kind)) = (object["apiVersion"].as_str(), object["kind"].as_str()) else { continue };
        let Some(of) = Type::of(version, kind) else { continue };
        let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
        compared += 1;
        let read = crate::decode::from_json(of, &text).map(|d| (d.object, d.strict));
        check(&mut faults, &name, "JSON -> JSON", &read, &Ok((object.clone(), Vec::new())));
        let binary = std::fs::read(path.with_extension("pb")).expect("each fixture has a protobuf form");
        check(&mut faults, &name, "protobuf -> JSON", &decode(&binary), &Ok(object.clone()));
        check(&mut faults, &name, "JSON -> protobuf", &encode(&object), &Ok(binary));
    }
    assert!(faults.is_empty(), "{} of {compared} kinds:\n{}", faults.len(), faults.join("\n"));
    assert!(compared > 70, "only {compared} fixtures had a type");
}

fn check<T: PartialEq + std::fmt::Debug>(faults: &mut Vec<String>, name: &str, way: &str, got: &T, want: &T) {
    if got != want {
        let (got, want) = (format!("{got:?}"), format!("{want:?}"));
        let at = got.bytes().zip(want.bytes()).take_while(|(a, b)| a == b).count().saturating_sub(60);
        let cut = |text: &str| text.chars().skip(at).take(160).collect::<String>();
        faults.push(format!("{name} {way}\n  got  {}\n  want {}", cut(&got), cut(&want)));
    }
}
