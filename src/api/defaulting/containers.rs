//! Defaults of Pods and of everything inside a pod template.
//!
//! Owns: Pod, PodSpec, containers, probes and volumes.
//! Called by: the walk in `defaulting`.
//! Never: sets a service account or tolerations: that is admission.

use serde_json::{Map, Value, json};

use super::image::pull_policy;
use super::{Object, each, if_absent, if_empty, inside, text};

pub(super) fn complete(name: &str, object: &mut Object) {
    match name {
        "Pod" => pod(object),
        "PodSpec" => pod_spec(object),
        "PodStatus" => pod_status(object),
        "Container" | "EphemeralContainer" => container(object),
        "Probe" => probe(object),
        "HTTPGetAction" => {
            if_empty(object, "path", "/");
            if_empty(object, "scheme", "HTTP");
        }
        "Volume" => volume(object),
        // 0644
        "SecretVolumeSource" | "ConfigMapVolumeSource" | "DownwardAPIVolumeSource" | "ProjectedVolumeSource" => {
            if_absent(object, "defaultMode", 0o644);
        }
        "ServiceAccountTokenProjection" => if_absent(object, "expirationSeconds", 3600),
        "HostPathVolumeSource" => if_absent(object, "type", ""),
        "ObjectFieldSelector" => if_empty(object, "apiVersion", "v1"),
        _ => {}
    }
}

/// Only on Pods, not in templates: limits become requests, host network ports become host ports.
fn pod(pod: &mut Object) {
    let spec = inside(pod, "spec");
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|s| s < 0) {
        spec.insert("terminationGracePeriodSeconds".into(), 1.into());
    }
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers"] {
        for container in each(spec, list) {
            requests_from_limits(container);
            if host_network {
                for port in each(container, "ports") {
                    let inner = port.get("containerPort").cloned().unwrap_or(0.into());
                    if_empty(port, "hostPort", inner);
                }
            }
        }
    }
    if_absent(spec, "enableServiceLinks", true);
}

fn requests_from_limits(container: &mut Object) {
    let Some(Value::Object(resources)) = container.get_mut("resources") else { return };
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    let requests = inside(resources, "requests");
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

fn pod_spec(spec: &mut Object) {
    // `serviceAccount` is the old name of `serviceAccountName`; they are kept equal.
    let account = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount").to_string(),
        name => name.to_string(),
    };
    if !account.is_empty() {
        spec.insert("serviceAccountName".into(), account.clone().into());
        spec.insert("serviceAccount".into(), account.into());
    }
    if_empty(spec, "dnsPolicy", "ClusterFirst");
    if_empty(spec, "restartPolicy", "Always");
    if_absent(spec, "securityContext", Map::new());
    if_absent(spec, "terminationGracePeriodSeconds", 30);
    if_empty(spec, "schedulerName", "default-scheduler");
}

fn pod_status(status: &mut Object) {
    let first = status.get("podIPs").and_then(|ips| ips[0]["ip"].as_str()).unwrap_or("").to_string();
    let single = text(status, "podIP").to_string();
    if single.is_empty() && !first.is_empty() {
        status.insert("podIP".into(), first.into());
    } else if single != first {
        // Older kubelets know the single field only, so it wins.
        status.insert("podIPs".into(), json!([{ "ip": single }]));
    }
}

fn container(container: &mut Object) {
    let policy = pull_policy(text(container, "image"));
    if_empty(container, "imagePullPolicy", policy);
    if_empty(container, "terminationMessagePath", "/dev/termination-log");
    if_empty(container, "terminationMessagePolicy", "File");
}

fn probe(probe: &mut Object) {
    if_empty(probe, "timeoutSeconds", 1);
    if_empty(probe, "periodSeconds", 10);
    if_empty(probe, "successThreshold", 1);
    if_empty(probe, "failureThreshold", 3);
    if let Some(Value::Object(grpc)) = probe.get_mut("grpc") {
        if_absent(grpc, "service", "");
    }
}

fn volume(volume: &mut Object) {
    if volume.iter().all(|(key, value)| key == "name" || value.is_null()) {
        volume.insert("emptyDir".into(), Value::Object(Map::new()));
    }
    if let Some(Value::Object(image)) = volume.get_mut("image") {
        let policy = pull_policy(text(image, "reference"));
        if_empty(image, "pullPolicy", policy);
    }
}
