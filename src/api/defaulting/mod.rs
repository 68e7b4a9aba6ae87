//! What the server fills in that a client left out.
//!
//! Owns: the defaults of every kind, as they are after decoding and before admission. They belong to types, not to
//! kinds: a Probe is completed wherever the schema has one.
//! Called by: the API server after decoding a body and after a patch.
//! Never: needs another object, a clock or randomness.

mod cluster;
mod containers;
mod core;
mod image;
mod workloads;

use serde_json::{Map, Value};

use crate::decode;
use crate::schema::{Form, Type};

type Object = Map<String, Value>;

/// Fills in the defaults of an object of this kind.
pub fn apply(group: &str, version: &str, kind: &str, object: &mut Value) {
    let Some(of) = Type::of_kind(group, version, kind) else { return };
    complete(of, object);
    decode::apply_schema_defaults(of, object);
}

/// Parents before children, so that what a parent creates is completed too.
fn complete(of: Type, value: &mut Value) {
    let Value::Object(object) = value else { return };
    match of.package() {
        "k8s.io/api/core/v1" => {
            containers::complete(of.name(), object);
            core::complete(of.name(), object);
        }
        "k8s.io/api/apps/v1" | "k8s.io/api/batch/v1" => workloads::complete(of.name(), object),
        package => cluster::complete(package, of.name(), object),
    }
    for field in of.fields() {
        let Some(inner) = field.shape().object() else {
            if matches!(field.form(), Form::Map(value) if value.form() == Form::Quantity) {
                round_quantities(object.get_mut(field.name()));
            }
            continue;
        };
        match (object.get_mut(field.name()), field.form()) {
            (Some(child), Form::Object(_)) => complete(inner, child),
            (Some(Value::Array(items)), _) => items.iter_mut().for_each(|i| complete(inner, i)),
            (Some(Value::Object(map)), _) => map.values_mut().for_each(|v| complete(inner, v)),
            _ => {}
        }
    }
}

/// Resource lists are kept to thousandths: `100u` of CPU becomes `1m`.
fn round_quantities(list: Option<&mut Value>) {
    let Some(Value::Object(list)) = list else { return };
    for value in list.values_mut() {
        let Ok(quantity) = crate::quantity::Quantity::from_json(value) else { continue };
        let rounded = quantity.round_up_to_milli();
        if rounded != quantity {
            *value = rounded.to_string().into();
        }
    }
}

/// Whether the field is absent or empty: what Go calls the zero value.
fn is_empty(object: &Object, field: &str) -> bool {
    match object.get(field) {
        None | Some(Value::Null) => true,
        Some(Value::String(s)) => s.is_empty(),
        Some(Value::Array(a)) => a.is_empty(),
        Some(Value::Object(o)) => o.is_empty(),
        Some(Value::Number(n)) => n.as_f64() == Some(0.0),
        Some(Value::Bool(b)) => !b,
    }
}

/// For pointers: only absence counts.
fn if_absent(object: &mut Object, field: &str, default: impl Into<Value>) {
    if object.get(field).is_none_or(Value::is_null) {
        object.insert(field.into(), default.into());
    }
}

/// For plain fields: empty counts as absent.
fn if_empty(object: &mut Object, field: &str, default: impl Into<Value>) {
    if is_empty(object, field) {
        object.insert(field.into(), default.into());
    }
}

/// A nested object, made when it is not there.
fn inside<'a>(object: &'a mut Object, field: &str) -> &'a mut Object {
    let slot = object.entry(field).or_insert(Value::Null);
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut().expect("an object was put there")
}

fn each<'a>(object: &'a mut Object, field: &str) -> impl Iterator<Item = &'a mut Object> {
    object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn text<'a>(object: &'a Object, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::json;

    /// What decoding and defaulting add to an object, as JSON lines of paths.
    fn check(group: &str, version: &str, kind: &str, object: Value, expected: Expect) {
        let of = Type::of_kind(group, version, kind).unwrap();
        let decoded = decode::from_value(of, object.clone()).unwrap().object;
        let mut completed = decoded.clone();
        apply(group, version, kind, &mut completed);
        let mut again = completed.clone();
        apply(group, version, kind, &mut again);
        assert_eq!(completed, again, "defaulting twice changes nothing");
        let patch = crate::patch::merge::difference(&object, &completed);
        expected.assert_eq(&serde_json::to_string_pretty(&patch).unwrap());
    }

    #[test]
    fn a_pod_is_completed_down_to_its_probes() {
        let pod = json!({"metadata": {"name": "x"}, "spec": {"hostNetwork": true, "containers": [{
            "name": "c", "image": "nginx", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "0.5"}}, "livenessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "s"}}]}});
        check(
            "",
            "v1",
            "Pod",
            pod,
            expect![[r#"
            {
              "spec": {
                "containers": [
                  {
                    "image": "nginx",
                    "imagePullPolicy": "Always",
                    "livenessProbe": {
                      "failureThreshold": 3,
                      "httpGet": {
                        "path": "/",
                        "port": 80,
                        "scheme": "HTTP"
                      },
                      "periodSeconds": 10,
                      "successThreshold": 1,
                      "timeoutSeconds": 1
                    },
                    "name": "c",
                    "ports": [
                      {
                        "containerPort": 80,
                        "hostPort": 80,
                        "protocol": "TCP"
                      }
                    ],
                    "resources": {
                      "limits": {
                        "cpu": "500m"
                      },
                      "requests": {
                        "cpu": "500m"
                      }
                    },
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File"
                  }
                ],
                "dnsPolicy": "ClusterFirst",
                "enableServiceLinks": true,
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30,
                "volumes": [
                  {
                    "emptyDir": {},
                    "name": "v"
                  },
                  {
                    "name": "s",
                    "secret": {
                      "defaultMode": 420,
                      "secretName": "s"
                    }
                  }
                ]
              },
              "status": {}
            }"#]],
        );
    }

    #[test]
    fn a_deployment_gets_its_strategy() {
        let deployment = json!({"metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}}});
        check(
            "apps",
            "v1",
            "Deployment",
            deployment,
            expect![[r#"
            {
              "spec": {
                "progressDeadlineSeconds": 600,
                "replicas": 1,
                "revisionHistoryLimit": 10,
                "strategy": {
                  "rollingUpdate": {
                    "maxSurge": "25%",
                    "maxUnavailable": "25%"
                  },
                  "type": "RollingUpdate"
                },
                "template": {
                  "spec": {
                    "dnsPolicy": "ClusterFirst",
                    "restartPolicy": "Always",
                    "schedulerName": "default-scheduler",
                    "securityContext": {},
                    "terminationGracePeriodSeconds": 30
                  }
                }
              },
              "status": {}
            }"#]],
        );
    }

    #[test]
    fn a_secret_takes_over_its_plain_strings() {
        let secret = json!({"data": {"a": "eA=="}, "stringData": {"b": "hello"}});
        check(
            "",
            "v1",
            "Secret",
            secret,
            expect![[r#"
            {
              "data": {
                "b": "aGVsbG8="
              },
              "metadata": {},
              "stringData": null,
              "type": "Opaque"
            }"#]],
        );
    }
}
