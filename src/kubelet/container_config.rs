//! One container in CRI's words.
//!
//! Owns: the ContainerConfig: command and arguments, labels, log path.
//! Called by: the start of a container, once everything it needs is resolved.
//! Never: calls the runtime.

use std::collections::HashMap;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1 as core;

use crate::env::Environment;
use crate::expand::expand;
use crate::names;
use crate::pod::{self, Pod};
use crate::resources::Kernel;
use crate::security::{self, ImageUser, SecurityError};

/// Everything that was resolved for one start.
pub struct Inputs<'a> {
    pub attempt: u32,
    pub environment: &'a Environment,
    /// As the runtime names it, so that a moved tag cannot come between pull and create.
    pub image_ref: &'a str,
    pub image_user: &'a ImageUser,
    pub mounts: Vec<cri::Mount>,
    pub devices: Vec<cri::Device>,
    pub volume_groups: &'a [i64],
    /// Id of the container whose processes an ephemeral container sees.
    pub target: Option<&'a str>,
    pub termination_message_file: String,
    pub kernel: &'a Kernel,
}

pub fn container_config(
    pod: &Pod,
    container: &core::Container,
    inputs: Inputs,
) -> Result<cri::ContainerConfig, SecurityError> {
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| expand(text, |name| inputs.environment.get(name))).collect()
    };
    let security = security::container_context(pod, container, inputs.image_user, inputs.target, inputs.volume_groups)?;
    let image = cri::ImageSpec {
        image: inputs.image_ref.into(),
        user_specified_image: container.image.clone().unwrap_or_default(),
        ..Default::default()
    };
    let linux = cri::LinuxContainerConfig {
        resources: Some(crate::resources::linux_resources(pod, container, inputs.kernel)),
        security_context: Some(security),
    };
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: container.name.clone(), attempt: inputs.attempt }),
        image: Some(image),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: inputs
            .environment
            .variables
            .iter()
            .map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts: inputs.mounts,
        devices: inputs.devices,
        labels: labels(pod, container),
        annotations: annotations(pod, container, inputs.attempt, inputs.termination_message_file),
        log_path: format!("{}/{}.log", container.name, inputs.attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(linux),
        windows: None,
        cdi_devices: vec![],
    })
}

fn labels(pod: &Pod, container: &core::Container) -> HashMap<String, String> {
    HashMap::from([
        (names::POD_NAME.to_string(), pod.name().to_string()),
        (names::POD_NAMESPACE.to_string(), pod.namespace().to_string()),
        (names::POD_UID.to_string(), pod.uid.clone()),
        (names::CONTAINER_NAME.to_string(), container.name.clone()),
    ])
}

fn annotations(pod: &Pod, container: &core::Container, attempt: u32, message_file: String) -> HashMap<String, String> {
    let text = |value: &Option<String>, default: &str| value.clone().unwrap_or_else(|| default.into());
    HashMap::from([
        (names::CONTAINER_HASH.to_string(), pod::container_hash(container)),
        (names::RESTART_COUNT.to_string(), attempt.to_string()),
        (
            names::TERMINATION_MESSAGE_PATH.to_string(),
            text(&container.termination_message_path, DEFAULT_TERMINATION_MESSAGE_PATH),
        ),
        (names::TERMINATION_MESSAGE_POLICY.to_string(), text(&container.termination_message_policy, "File")),
        (names::TERMINATION_MESSAGE_FILE.to_string(), message_file),
        (
            names::RESOURCES.to_string(),
            serde_json::to_string(&container.resources.clone().unwrap_or_default()).expect("quantities are text"),
        ),
        (names::POD_GRACE.to_string(), pod.spec.termination_grace_period_seconds.unwrap_or(30).to_string()),
    ])
}

pub const DEFAULT_TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::pod;

    #[test]
    fn commands_are_expanded_from_the_environment_and_images_pinned() {
        let pod = pod("containers: [{name: a, image: 'x:1', command: [run, $(A)], args: [$(B), $$(A)]}]");
        let environment = Environment { variables: vec![("A".into(), "1".into())], skipped: vec![] };
        let inputs = Inputs {
            attempt: 3,
            environment: &environment,
            image_ref: "sha256:abc",
            image_user: &ImageUser::default(),
            mounts: vec![],
            devices: vec![],
            volume_groups: &[],
            target: None,
            termination_message_file: "/f".into(),
            kernel: &Kernel::default(),
        };
        let config = container_config(&pod, &pod.spec.containers[0], inputs).expect("allowed");
        assert_eq!(config.command, ["run", "1"]);
        assert_eq!(config.args, ["$(B)", "$(A)"]);
        assert_eq!(config.log_path, "a/3.log");
        let image = config.image.expect("image");
        assert_eq!((image.image.as_str(), image.user_specified_image.as_str()), ("sha256:abc", "x:1"));
    }
}
