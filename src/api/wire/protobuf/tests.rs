//! There and back, and garbage. Every kind, and upstream's published objects: `tests/api/encodings.rs`.

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
