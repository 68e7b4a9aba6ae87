//! A Pod as the kubelet reads it: the typed view of one version of the object.
//!
//! Owns: parsing, which containers there are and of which kind, names used in messages and paths.
//! Called by: every module that works for one pod.
//! Never: is written back to the API; status is patched field by field.

use k8s_openapi::api::core::v1 as core;
use minik_api::ObjectKey;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// How a container takes part in the life of its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContainerKind {
    /// Runs to its end before the next starts.
    Init,
    /// An init container with `restartPolicy: Always`: started in order, kept running until the others end.
    Sidecar,
    App,
    Ephemeral,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Always" => Some(Self::Always),
            "OnFailure" => Some(Self::OnFailure),
            "Never" => Some(Self::Never),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Pod {
    pub key: ObjectKey,
    pub uid: String,
    pub metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    pub spec: core::PodSpec,
    /// As the API server has it; older than what this kubelet last wrote by at most one watch event.
    pub api_status: core::PodStatus,
    ephemeral: Vec<core::Container>,
}

#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error("the pod does not have the shape of a Pod")]
    Shape(#[source] serde_json::Error),
    #[error("the pod has no spec")]
    NoSpec,
}

impl Pod {
    pub fn parse(object: &Value) -> Result<Pod, ParseError> {
        let typed: core::Pod = serde::Deserialize::deserialize(object).map_err(ParseError::Shape)?;
        let spec = typed.spec.ok_or(ParseError::NoSpec)?;
        let ephemeral = spec.ephemeral_containers.iter().flatten().map(as_container).collect();
        Ok(Pod {
            key: ObjectKey::of(object),
            uid: typed.metadata.uid.clone().unwrap_or_default(),
            metadata: typed.metadata,
            spec,
            api_status: typed.status.unwrap_or_default(),
            ephemeral,
        })
    }

    pub fn name(&self) -> &str {
        &self.key.name
    }
    pub fn namespace(&self) -> &str {
        &self.key.namespace
    }

    /// `name_namespace(uid)`, as upstream names a pod inside messages.
    pub fn full_name(&self) -> String {
        format!("{}_{}({})", self.key.name, self.key.namespace, self.uid)
    }

    /// `namespace_name_uid`: the pod's directory below the log directory.
    pub fn log_dir_name(&self) -> String {
        format!("{}_{}_{}", self.key.namespace, self.key.name, self.uid)
    }

    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// A static component's image in the API, or another kubelet's: never run from here.
    pub fn is_mirror(&self) -> bool {
        self.annotation(minik_api::pod_annotations::MIRROR).is_some()
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    pub fn restart_policy(&self) -> RestartPolicy {
        self.spec.restart_policy.as_deref().and_then(RestartPolicy::parse).unwrap_or(RestartPolicy::Always)
    }

    pub fn host_network(&self) -> bool {
        self.spec.host_network.unwrap_or(false)
    }

    /// Seconds between asking containers to end and killing them; never below one, so that exits are seen.
    pub fn grace_seconds(&self) -> i64 {
        self.metadata.deletion_grace_period_seconds.or(self.spec.termination_grace_period_seconds).unwrap_or(30).max(1)
    }

    pub fn init_containers(&self) -> impl DoubleEndedIterator<Item = (ContainerKind, &core::Container)> {
        self.spec.init_containers.iter().flatten().map(|c| (init_kind(c), c))
    }
    pub fn app_containers(&self) -> impl DoubleEndedIterator<Item = &core::Container> {
        self.spec.containers.iter()
    }
    pub fn ephemeral_containers(&self) -> impl Iterator<Item = &core::Container> {
        self.ephemeral.iter()
    }

    /// All containers in the order in which they start.
    pub fn containers(&self) -> impl Iterator<Item = (ContainerKind, &core::Container)> {
        self.init_containers()
            .chain(self.app_containers().map(|c| (ContainerKind::App, c)))
            .chain(self.ephemeral_containers().map(|c| (ContainerKind::Ephemeral, c)))
    }

    pub fn container(&self, name: &str) -> Option<(ContainerKind, &core::Container)> {
        self.containers().find(|(_, c)| c.name == name)
    }

    /// The container an ephemeral one looks into.
    pub fn target_of(&self, ephemeral: &str) -> Option<&str> {
        self.spec
            .ephemeral_containers
            .iter()
            .flatten()
            .find(|c| c.name == ephemeral)?
            .target_container_name
            .as_deref()
            .filter(|t| !t.is_empty())
    }

    pub fn phase_is_terminal(&self) -> bool {
        matches!(self.api_status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }
}

fn init_kind(container: &core::Container) -> ContainerKind {
    match container.restart_policy.as_deref() {
        Some("Always") => ContainerKind::Sidecar,
        _ => ContainerKind::Init,
    }
}

/// Changes of these fields restart a running container; everything else of it is immutable or applied in place.
pub fn container_hash(container: &core::Container) -> String {
    let mut hash = Sha256::new();
    hash.update(&container.name);
    hash.update([0]);
    hash.update(container.image.as_deref().unwrap_or(""));
    hash.finalize()[..8].iter().map(|b| format!("{b:02x}")).collect()
}

/// `spec.containers{name}`: the field path in events about a container.
pub fn field_path(kind: ContainerKind, name: &str) -> String {
    match kind {
        ContainerKind::Init | ContainerKind::Sidecar => format!("spec.initContainers{{{name}}}"),
        ContainerKind::App => format!("spec.containers{{{name}}}"),
        ContainerKind::Ephemeral => format!("spec.ephemeralContainers{{{name}}}"),
    }
}

fn as_container(e: &core::EphemeralContainer) -> core::Container {
    core::Container {
        args: e.args.clone(),
        command: e.command.clone(),
        env: e.env.clone(),
        env_from: e.env_from.clone(),
        image: e.image.clone(),
        image_pull_policy: e.image_pull_policy.clone(),
        name: e.name.clone(),
        security_context: e.security_context.clone(),
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path.clone(),
        termination_message_policy: e.termination_message_policy.clone(),
        tty: e.tty,
        volume_devices: e.volume_devices.clone(),
        volume_mounts: e.volume_mounts.clone(),
        working_dir: e.working_dir.clone(),
        ..core::Container::default()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A pod `ns/p` with uid `u` from the YAML of its spec.
    pub fn pod(spec: &str) -> Pod {
        pod_with(spec, "{}")
    }

    pub fn pod_with(spec: &str, status: &str) -> Pod {
        let spec: Value = serde_yaml::from_str(spec).expect("YAML of a spec");
        let status: Value = serde_yaml::from_str(status).expect("YAML of a status");
        let metadata = serde_json::json!({"name": "p", "namespace": "ns", "uid": "u", "generation": 1});
        Pod::parse(&serde_json::json!({"metadata": metadata, "spec": spec, "status": status})).expect("a pod")
    }

    #[test]
    fn containers_come_in_the_order_in_which_they_start() {
        let pod = pod(
            "{initContainers: [{name: i}, {name: s, restartPolicy: Always}], containers: [{name: a}], ephemeralContainers: [{name: e, targetContainerName: a}]}",
        );
        let order: Vec<_> = pod.containers().map(|(k, c)| (k, c.name.as_str())).collect();
        assert_eq!(
            order,
            [
                (ContainerKind::Init, "i"),
                (ContainerKind::Sidecar, "s"),
                (ContainerKind::App, "a"),
                (ContainerKind::Ephemeral, "e")
            ]
        );
        assert_eq!(pod.target_of("e"), Some("a"));
    }

    #[test]
    fn an_image_change_changes_the_hash_and_a_probe_change_does_not() {
        let one = core::Container { name: "a".into(), image: Some("x:1".into()), ..Default::default() };
        let probe = core::Container { liveness_probe: Some(core::Probe::default()), ..one.clone() };
        let image = core::Container { image: Some("x:2".into()), ..one.clone() };
        assert_eq!(container_hash(&one), container_hash(&probe));
        assert_ne!(container_hash(&one), container_hash(&image));
    }
}
