//! What the Node's status says.
//!
//! Owns: conditions, addresses, node info, images.
//! Called by: the reporter, with what the runtime and the machine say.
//! Never: decides whether the API server needs to hear it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_cri::v1 as cri;
use serde_json::{Value, json};

use crate::config::{KUBELET_VERSION, SERVER_PORT};
use crate::resources::ResourceList;

/// Upstream reports the fifty largest.
const IMAGES_MAX: usize = 50;
/// Names of one image: all its tags and digests would swell the Node.
const NAMES_PER_IMAGE_MAX: usize = 5;

/// What does not change while this kubelet runs.
#[derive(Clone, Debug)]
pub struct Facts {
    pub node_ip: String,
    pub hostname: String,
    pub capacity: ResourceList,
    pub allocatable: ResourceList,
    /// `minik://0.1.0`.
    pub runtime_version: String,
    pub kernel: String,
    pub os_image: String,
    pub machine_id: String,
    pub boot_id: String,
}

/// What the runtime says now.
#[derive(Clone, Debug, Default)]
pub struct RuntimeState {
    pub conditions: Vec<cri::RuntimeCondition>,
    pub handlers: Vec<cri::RuntimeHandler>,
    pub images: Vec<cri::Image>,
    /// Why it could not be asked.
    pub error: Option<String>,
}

pub fn node_status(facts: &Facts, runtime: &RuntimeState, old: &Value, now: Timestamp) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "addresses": [
            {"type": "InternalIP", "address": facts.node_ip},
            {"type": "Hostname", "address": facts.hostname},
        ],
        "capacity": quantities(&facts.capacity),
        "allocatable": quantities(&facts.allocatable),
        "conditions": conditions(runtime, old, now),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": SERVER_PORT}},
        "nodeInfo": {
            "machineID": facts.machine_id,
            "systemUUID": facts.machine_id,
            "bootID": facts.boot_id,
            "kernelVersion": facts.kernel,
            "osImage": facts.os_image,
            "containerRuntimeVersion": facts.runtime_version,
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": architecture,
        },
        "images": images(&runtime.images),
        "runtimeHandlers": runtime.handlers.iter().map(handler).collect::<Vec<_>>(),
    })
}

fn quantities(list: &ResourceList) -> Value {
    list.iter()
        .map(|(name, q)| (name.clone(), Value::from(q.0.clone())))
        .collect::<BTreeMap<_, _>>()
        .into_iter()
        .collect()
}

fn handler(handler: &cri::RuntimeHandler) -> Value {
    let features = handler.features.unwrap_or_default();
    json!({"name": handler.name, "features": {
        "recursiveReadOnlyMounts": features.recursive_read_only_mounts,
        "userNamespaces": features.user_namespaces,
    }})
}

fn images(images: &[cri::Image]) -> Vec<Value> {
    let mut images: Vec<&cri::Image> = images.iter().collect();
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    images
        .into_iter()
        .take(IMAGES_MAX)
        .map(|image| {
            let names = image.repo_digests.iter().chain(&image.repo_tags).take(NAMES_PER_IMAGE_MAX);
            json!({"names": names.collect::<Vec<_>>(), "sizeBytes": image.size})
        })
        .collect()
}

/// Why the node is not ready, in upstream's words; `None` when it is.
pub fn not_ready(runtime: &RuntimeState) -> Option<String> {
    if let Some(error) = &runtime.error {
        return Some(format!("container runtime is down: {error}"));
    }
    let problem = |kind: &str, name: &str| match runtime.conditions.iter().find(|c| c.r#type == kind) {
        Some(c) if c.status => None,
        Some(c) => Some(format!("{name} not ready: {kind}=false reason:{} message:{}", c.reason, c.message)),
        None => Some(format!("{name} status check may not have completed yet")),
    };
    let problems: Vec<String> =
        [problem("RuntimeReady", "container runtime"), problem("NetworkReady", "container runtime network")]
            .into_iter()
            .flatten()
            .collect();
    if problems.is_empty() { None } else { Some(format!("[{}]", problems.join(", ")).replace("[[", "[")) }
}

fn conditions(runtime: &RuntimeState, old: &Value, now: Timestamp) -> Vec<Value> {
    let ready = match not_ready(runtime) {
        None => ("Ready", "True", "KubeletReady", "kubelet is posting ready status".to_string()),
        Some(why) => {
            // One problem stands without brackets, as in upstream's aggregate of errors.
            let single = why.trim_start_matches('[').trim_end_matches(']');
            let text = if single.contains(", container runtime") { why.clone() } else { single.to_string() };
            ("Ready", "False", "KubeletNotReady", text)
        }
    };
    let fixed = [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available".to_string(),
        ),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure".to_string()),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available".to_string()),
    ];
    let stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    fixed
        .into_iter()
        .chain([ready])
        .map(|(kind, status, reason, message)| {
            let known = old["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind);
            let since = known.filter(|c| c["status"] == status).map(|c| c["lastTransitionTime"].clone());
            json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": stamp, "lastTransitionTime": since.unwrap_or_else(|| stamp.clone().into()),
            })
        })
        .collect()
}

/// Whether the API server must hear of `new`: anything but the heartbeats differs.
pub fn differs(old: &Value, new: &Value) -> bool {
    let plain = |status: &Value, condition: &Value| {
        let found = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == condition["type"]);
        found.map(|c| [c["status"].clone(), c["reason"].clone(), c["message"].clone()])
    };
    let conditions_differ = new["conditions"].as_array().into_iter().flatten().any(|c| plain(old, c) != plain(new, c));
    let fields = ["addresses", "capacity", "allocatable", "daemonEndpoints", "nodeInfo", "images", "runtimeHandlers"];
    conditions_differ || fields.iter().any(|f| !includes(&old[*f], &new[*f]))
}

/// Everything of `new` is in `old`; the server may have filled in more.
fn includes(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            new.iter().all(|(k, v)| includes(old.get(k).unwrap_or(&Value::Null), v))
        }
        (Value::Array(old), Value::Array(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(|(o, n)| includes(o, n))
        }
        // Empty fields may be left out on the way.
        (Value::Null, Value::Array(new)) => new.is_empty(),
        (Value::Null, Value::String(new)) => new.is_empty(),
        (Value::Null, Value::Bool(new)) => !new,
        (old, new) => old == new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(network: bool) -> RuntimeState {
        let condition = |kind: &str, status, reason: &str, message: &str| cri::RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: reason.into(),
            message: message.into(),
        };
        let conditions = vec![
            condition("RuntimeReady", true, "", ""),
            condition("NetworkReady", network, "NoPodCidr", "no pod network yet"),
        ];
        RuntimeState { conditions, ..Default::default() }
    }

    #[test]
    fn the_node_is_ready_when_runtime_and_network_are() {
        assert_eq!(not_ready(&runtime(true)), None);
        let list = conditions(&runtime(false), &Value::Null, Timestamp::UNIX_EPOCH);
        assert_eq!(
            list[3]["message"],
            "container runtime network not ready: NetworkReady=false reason:NoPodCidr message:no pod network yet"
        );
    }

    #[test]
    fn heartbeats_alone_are_no_difference() {
        let status = |second| json!({"conditions": conditions(&runtime(true), &Value::Null, Timestamp::from_second(second).expect("in range"))});
        assert!(!differs(&status(1), &status(100)));
        let not_ready = json!({"conditions": conditions(&runtime(false), &Value::Null, Timestamp::UNIX_EPOCH)});
        assert!(differs(&status(1), &not_ready));
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_change() {
        let old =
            json!({"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]});
        let now = Timestamp::from_second(2_000_000_000).expect("in range");
        let ready = conditions(&runtime(true), &old, now).remove(3);
        assert_eq!(ready["lastTransitionTime"], "2020-01-01T00:00:00Z");
    }
}
