//! Security contexts: what of the pod's and the container's wishes holds, in CRI's words.
//!
//! Owns: how container settings override the pod's, and the runAsNonRoot check.
//! Called by: `sandbox_config` and `container_config`.
//! Never: enforces anything; the runtime does.

use k8s_cri::v1 as cri;
use k8s_cri::v1::security_profile::ProfileType;
use k8s_openapi::api::core::v1 as core;

use crate::pod::Pod;

/// Who an image runs as unless the pod says otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageUser {
    pub uid: Option<i64>,
    pub username: String,
}

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SecurityError {
    #[error("container's runAsUser breaks non-root policy (pod: {pod:?}, container: {container})")]
    RootAsked { pod: String, container: String },
    #[error("container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})")]
    RootImage { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: {pod:?}, container: {container})"
    )]
    UnknownUser { user: String, pod: String, container: String },
}

/// Hidden from a container with the default procMount; the list is upstream's.
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub fn namespace_options(pod: &Pod, target: Option<&str>) -> cri::NamespaceOption {
    let node_if = |wanted: Option<bool>| {
        if wanted == Some(true) { cri::NamespaceMode::Node as i32 } else { cri::NamespaceMode::Pod as i32 }
    };
    let pid = match (pod.spec.host_pid, pod.spec.share_process_namespace, target) {
        (Some(true), _, _) => cri::NamespaceMode::Node,
        (_, Some(true), _) => cri::NamespaceMode::Pod,
        (_, _, Some(_)) => cri::NamespaceMode::Target,
        (_, _, None) => cri::NamespaceMode::Container,
    };
    let target_id =
        if pid == cri::NamespaceMode::Target { target.unwrap_or_default().to_string() } else { String::new() };
    cri::NamespaceOption {
        network: node_if(pod.spec.host_network),
        ipc: node_if(pod.spec.host_ipc),
        pid: pid as i32,
        target_id,
        userns_options: None,
    }
}

fn int64(value: i64) -> cri::Int64Value {
    cri::Int64Value { value }
}

fn profile(own: Option<&core::SeccompProfile>) -> cri::SecurityProfile {
    let (kind, localhost_ref) = match own.map(|p| p.type_.as_str()) {
        Some("RuntimeDefault") => (ProfileType::RuntimeDefault, String::new()),
        Some("Localhost") => {
            let file = own.and_then(|p| p.localhost_profile.as_deref()).unwrap_or_default();
            (ProfileType::Localhost, format!("/var/lib/kubelet/seccomp/{file}"))
        }
        _ => (ProfileType::Unconfined, String::new()),
    };
    cri::SecurityProfile { profile_type: kind as i32, localhost_ref }
}

fn selinux(options: &core::SELinuxOptions) -> cri::SeLinuxOption {
    cri::SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

fn supplemental_groups(pod: &Pod, volume_groups: &[i64]) -> Vec<i64> {
    let context = pod.spec.security_context.as_ref();
    let mut groups: Vec<i64> = context.and_then(|c| c.supplemental_groups.clone()).unwrap_or_default();
    groups.extend(context.and_then(|c| c.fs_group));
    groups.extend_from_slice(volume_groups);
    groups
}

fn groups_policy(pod: &Pod) -> i32 {
    let policy = pod.spec.security_context.as_ref().and_then(|c| c.supplemental_groups_policy.as_deref());
    match policy {
        Some("Strict") => cri::SupplementalGroupsPolicy::Strict as i32,
        _ => cri::SupplementalGroupsPolicy::Merge as i32,
    }
}

pub fn sandbox_context(pod: &Pod) -> cri::LinuxSandboxSecurityContext {
    let context = pod.spec.security_context.as_ref();
    let privileged =
        pod.containers().any(|(_, c)| c.security_context.as_ref().is_some_and(|s| s.privileged == Some(true)));
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespace_options(pod, None)),
        selinux_options: context.and_then(|c| c.se_linux_options.as_ref()).map(selinux),
        run_as_user: context.and_then(|c| c.run_as_user).map(int64),
        run_as_group: context.and_then(|c| c.run_as_group).map(int64),
        supplemental_groups: supplemental_groups(pod, &[]),
        supplemental_groups_policy: groups_policy(pod),
        privileged,
        // The sandbox runs no code of the user's; upstream confines it by default.
        seccomp: Some(cri::SecurityProfile { profile_type: ProfileType::RuntimeDefault as i32, ..Default::default() }),
        ..Default::default()
    }
}

pub fn container_context(
    pod: &Pod,
    container: &core::Container,
    image_user: &ImageUser,
    target: Option<&str>,
    volume_groups: &[i64],
) -> Result<cri::LinuxContainerSecurityContext, SecurityError> {
    verify_non_root(pod, container, image_user)?;
    let of_pod = pod.spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let privileged = own.and_then(|o| o.privileged).unwrap_or(false);
    let user = own.and_then(|o| o.run_as_user).or(of_pod.and_then(|p| p.run_as_user));
    let group = own.and_then(|o| o.run_as_group).or(of_pod.and_then(|p| p.run_as_group));
    let run_as_username = match (user, image_user.uid) {
        (None, None) => image_user.username.clone(),
        (Some(_), _) | (_, Some(_)) => String::new(),
    };
    let unmasked = own.and_then(|o| o.proc_mount.as_deref()) == Some("Unmasked");
    let paths = |list: &[&str]| if unmasked { vec![] } else { list.iter().map(|p| p.to_string()).collect() };
    let capabilities = own.and_then(|o| o.capabilities.as_ref()).map(|c| cri::Capability {
        add_capabilities: c.add.clone().unwrap_or_default(),
        drop_capabilities: c.drop.clone().unwrap_or_default(),
        add_ambient_capabilities: vec![],
    });
    Ok(cri::LinuxContainerSecurityContext {
        capabilities,
        privileged,
        namespace_options: Some(namespace_options(pod, target)),
        selinux_options: own
            .and_then(|o| o.se_linux_options.as_ref())
            .or(of_pod.and_then(|p| p.se_linux_options.as_ref()))
            .map(selinux),
        run_as_user: user.or(image_user.uid).map(int64),
        run_as_group: group.map(int64),
        run_as_username,
        readonly_rootfs: own.and_then(|o| o.read_only_root_filesystem).unwrap_or(false),
        supplemental_groups: supplemental_groups(pod, volume_groups),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: own.and_then(|o| o.allow_privilege_escalation) == Some(false),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(profile(
            own.and_then(|o| o.seccomp_profile.as_ref()).or(of_pod.and_then(|p| p.seccomp_profile.as_ref())),
        )),
        ..Default::default()
    })
}

fn verify_non_root(pod: &Pod, container: &core::Container, image_user: &ImageUser) -> Result<(), SecurityError> {
    let of_pod = pod.spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let non_root = own.and_then(|o| o.run_as_non_root).or(of_pod.and_then(|p| p.run_as_non_root));
    if non_root != Some(true) {
        return Ok(());
    }
    let (name, container) = (pod.full_name(), container.name.clone());
    let user = own.and_then(|o| o.run_as_user).or(of_pod.and_then(|p| p.run_as_user));
    match (user, image_user.uid, image_user.username.as_str()) {
        (Some(0), _, _) => Err(SecurityError::RootAsked { pod: name, container }),
        (Some(_), _, _) => Ok(()),
        (None, Some(0), _) | (None, None, "") => Err(SecurityError::RootImage { pod: name, container }),
        (None, Some(_), _) => Ok(()),
        (None, None, user) => Err(SecurityError::UnknownUser { user: user.into(), pod: name, container }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::pod;

    fn context(spec: &str, user: ImageUser) -> Result<cri::LinuxContainerSecurityContext, SecurityError> {
        let pod = pod(spec);
        container_context(&pod, &pod.spec.containers[0], &user, None, &[])
    }

    #[test]
    fn the_container_overrides_its_pod_and_fs_group_is_a_group_of_all() {
        let spec = "{securityContext: {runAsUser: 1000, runAsGroup: 3000, fsGroup: 2000, supplementalGroups: [5]}, containers: [{name: c, securityContext: {runAsUser: 7, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}";
        let got = context(spec, ImageUser::default()).expect("allowed");
        assert_eq!(got.run_as_user, Some(int64(7)));
        assert_eq!(got.run_as_group, Some(int64(3000)));
        assert_eq!(got.supplemental_groups, [5, 2000]);
        assert!(got.no_new_privs);
        assert_eq!(got.capabilities.expect("given").drop_capabilities, ["ALL"]);
    }

    #[test]
    fn non_root_is_refused_when_it_cannot_be_promised() {
        let spec = "{securityContext: {runAsNonRoot: true}, containers: [{name: c}]}";
        let error = |uid, name: &str| context(spec, ImageUser { uid, username: name.into() }).map(|_| ()).err();
        assert_eq!(
            error(None, "").expect("refused").to_string(),
            "container has runAsNonRoot and image will run as root (pod: \"p_ns(u)\", container: c)"
        );
        assert!(matches!(error(None, "app"), Some(SecurityError::UnknownUser { .. })));
        assert_eq!(error(Some(65534), ""), None);
    }

    #[test]
    fn an_ephemeral_container_joins_its_targets_processes() {
        let own = namespace_options(&pod("containers: []"), Some("id1"));
        assert_eq!((own.pid, own.target_id.as_str()), (cri::NamespaceMode::Target as i32, "id1"));
        let shared = namespace_options(&pod("{containers: [], shareProcessNamespace: true}"), Some("id1"));
        assert_eq!((shared.pid, shared.target_id.as_str()), (cri::NamespaceMode::Pod as i32, ""));
    }
}
