//! Bodies in, objects and complaints out.

use super::*;
use serde_json::json;

fn of(kind: &str) -> Type {
    let version = if kind == "Deployment" { "apps/v1" } else { "v1" };
    Type::of(version, kind).expect("a built-in kind")
}

fn read(kind: &str, body: &str) -> Result<Decoded, String> {
    from_json(of(kind), body.as_bytes()).map_err(|e| e.to_string())
}

fn object(kind: &str, body: &str) -> Value {
    read(kind, body).expect("the body is sound").object
}

fn refused(kind: &str, body: &str) -> String {
    read(kind, body).expect_err("the body is unsound")
}

#[test]
fn a_pod_comes_back_as_the_go_struct_writes_it() {
    let pod = object(
        "Pod",
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","creationTimestamp":null,"labels":{}},
            "spec":{"nodeName":"","hostNetwork":false,"volumes":[],"containers":[{"name":"c","image":"i","resources":
            {"limits":{"cpu":"1000m","memory":1024}}}]}}"#,
    );
    let expected = json!({"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[
        {"name":"c","image":"i","resources":{"limits":{"cpu":"1","memory":"1024"}}}]},"status":{}});
    assert_eq!(pod, expected);
}

#[test]
fn structs_appear_even_when_nobody_wrote_them() {
    let deployment = object("Deployment", r#"{"spec":{"template":{"spec":{"containers":[]}}}}"#);
    let expected = json!({"metadata":{},"spec":{"selector":null,"strategy":{},"template":{"metadata":{},
        "spec":{"containers":[]}}},"status":{}});
    assert_eq!(deployment, expected);
}

#[test]
fn unknown_and_duplicate_fields_are_reported_in_the_order_of_the_body() {
    let body = r#"{"metadata":{"name":"a","name":"b","foo":1,"labels":{"a":"1","a":"2"}},"bar":{"a":1},"spec":{"x":1,
        "containers":[{"name":"c","fo":1,"resources":{"limits":{"cpu":"1","cpu":"2"}}}]}}"#;
    let strict = read("Pod", body).expect("strictness is no error here").strict;
    assert_eq!(
        strict_error(&strict),
        r#"strict decoding error: duplicate field "metadata.name", unknown field "metadata.foo", duplicate field "metadata.labels.a", unknown field "bar", unknown field "spec.x", unknown field "spec.containers[0].fo", duplicate field "spec.containers[0].resources.limits.cpu""#
    );
}

#[test]
fn a_value_of_a_wrong_type_is_named_as_go_names_it() {
    let cases = [
        (
            r#"{"spec":{"containers":{"a":1}}}"#,
            "object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (r#"{"metadata":{"labels":{"a":1}}}"#, "number into Go struct field ObjectMeta.metadata.labels of type string"),
        (r#"{"metadata":"x"}"#, "string into Go struct field Pod.metadata of type v1.ObjectMeta"),
        (
            r#"{"metadata":{"creationTimestamp":5}}"#,
            "number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
        ),
        (
            r#"{"spec":{"containers":[{"ports":[{"containerPort":99999999999}]}]}}"#,
            "number 99999999999 into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            r#"{"spec":{"containers":[{"ports":[{"protocol":5}]}]}}"#,
            "number into Go struct field ContainerPort.spec.containers.ports.protocol of type v1.Protocol",
        ),
        (
            r#"{"spec":{"nodeSelector":["a"]}}"#,
            "array into Go struct field PodSpec.spec.nodeSelector of type map[string]string",
        ),
        (
            r#"{"spec":{"automountServiceAccountToken":"x"}}"#,
            "string into Go struct field PodSpec.spec.automountServiceAccountToken of type bool",
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(refused("Pod", body), format!("json: cannot unmarshal {expected}"));
    }
}

#[test]
fn a_value_its_own_reader_refuses_wins_over_an_earlier_wrong_type() {
    let body = r#"{"spec":{"ports":[{"port":1.5,"targetPort":99999999999}]}}"#;
    let expected = "json: cannot unmarshal number 99999999999 into Go struct field ServicePort.spec.ports.targetPort of type int32";
    assert_eq!(refused("Service", body), expected);
    let bad_time = r#"parsing time "abc" as "2006-01-02T15:04:05Z07:00": cannot parse "abc" as "2006""#;
    assert_eq!(refused("Pod", r#"{"metadata":{"creationTimestamp":"abc"}}"#), bad_time);
    assert_eq!(refused("Secret", r#"{"data":{"a":"???"}}"#), "illegal base64 data at input byte 0");
    let bad_quantity = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    assert_eq!(refused("Pod", r#"{"spec":{"overhead":{"cpu":"zz"}}}"#), bad_quantity);
}

#[test]
fn schema_defaults_reach_every_depth() {
    let mut service = json!({"spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}});
    apply_schema_defaults(of("Service"), &mut service);
    assert_eq!(service["spec"]["ports"], json!([{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]));
}

#[test]
fn an_event_keeps_its_null_times() {
    let event = object("Event", r#"{"metadata":{"name":"e"},"involvedObject":{"kind":"Pod"}}"#);
    let expected = json!({"metadata":{"name":"e"},"involvedObject":{"kind":"Pod"},"source":{},"firstTimestamp":null,
        "lastTimestamp":null,"eventTime":null,"reportingComponent":"","reportingInstance":""});
    assert_eq!(event, expected);
}

#[test]
fn duplicates_are_found_without_a_schema_too() {
    let found = untyped_json(br#"{"a":{"b":1,"b":2},"c":[{"d":1,"d":2}]}"#).expect("JSON");
    assert_eq!(found.strict, [r#"duplicate field "a.b""#, r#"duplicate field "c[0].d""#]);
    assert_eq!(found.object["a"]["b"], 2);
}

#[test]
fn no_type_has_more_fields_than_the_bits_that_find_duplicates() {
    assert!(crate::schema::types().all(|t| t.fields().len() <= 64));
}

#[test]
fn the_client_is_told_what_upstream_tells() {
    let told = |body: &str| match from_json(of("Service"), body.as_bytes()) {
        Err(error) => error.status(of("Service"), "v1", body.as_bytes()).message,
        Ok(read) => strict_status(of("Service"), "v1", &read.strict).message,
    };
    let unrecognized = "the object provided is unrecognized (must be of type Service): couldn't get version/kind; \
        json parse error: ";
    assert_eq!(told(""), format!("{unrecognized}unexpected end of JSON input (<empty>)"));
    let expected = r#"invalid character 'x' looking for beginning of value ({"apiVersion":"v1","kind":"Ser ...)"#;
    let body = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":x}"#;
    assert_eq!(told(body), format!("{unrecognized}{expected}"));
    let array = r#"json: cannot unmarshal array into Go value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" } (5b315d)"#;
    assert_eq!(told("[1]"), format!("{unrecognized}{array}"));
    let strict = r#"Service in version "v1" cannot be handled as a Service: strict decoding error: unknown field "a""#;
    assert_eq!(told(r#"{"a":1}"#), strict);
}
