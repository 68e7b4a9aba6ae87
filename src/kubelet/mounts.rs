//! What is mounted into one container.
//!
//! Owns: volume mounts with their sub-paths, the hosts file, the termination message file.
//! Called by: the start of a container.
//! Never: sets up a volume.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1 as core;

use crate::container_config::DEFAULT_TERMINATION_MESSAGE_PATH;
use crate::context::NodeContext;
use crate::env::Environment;
use crate::expand;
use crate::hosts;
use crate::pod::Pod;
use crate::start::termination_message_file;
use crate::volumes::{self, Volumes};

pub struct Place<'a> {
    pub node: &'a NodeContext,
    pub pod: &'a Pod,
    pub volumes: &'a Volumes,
    pub environment: &'a Environment,
    pub attempt: u32,
    pub pod_ips: &'a [String],
    /// References of the images behind image volumes, by volume.
    pub image_volumes: std::collections::BTreeMap<String, String>,
}

pub struct Made {
    pub mounts: Vec<cri::Mount>,
    /// Groups that volumes ask for.
    pub groups: Vec<i64>,
    pub termination_message_file: PathBuf,
}

/// The error is the message of a CreateContainerConfigError.
pub fn mounts(place: &Place, container: &core::Container) -> Result<Made, String> {
    let mut mounts = Vec::new();
    let mut groups = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = place.volumes.get(&mount.name);
        let volume = volume.ok_or_else(|| {
            format!("cannot find volume {:?} to mount into container {:?}", mount.name, container.name)
        })?;
        groups.extend_from_slice(&volume.groups);
        mounts.push(volume_mount(place, container, index, mount, volume)?);
    }
    let has = |path: &str| container.volume_mounts.iter().flatten().any(|m| m.mount_path.trim_end_matches('/') == path);
    if !has("/etc/hosts") && (place.pod.host_network() || !place.pod_ips.is_empty()) {
        mounts.push(file_mount(hosts_file(place)?, "/etc/hosts"));
    }
    let termination_message_file = termination_message_file(place.node, place.pod, &container.name, place.attempt);
    let inside = container.termination_message_path.as_deref().filter(|p| !p.is_empty());
    write(&termination_message_file, "", 0o666)?;
    mounts.push(file_mount(termination_message_file.clone(), inside.unwrap_or(DEFAULT_TERMINATION_MESSAGE_PATH)));
    Ok(Made { mounts, groups, termination_message_file })
}

fn file_mount(from: PathBuf, to: &str) -> cri::Mount {
    cri::Mount { container_path: to.into(), host_path: from.display().to_string(), ..Default::default() }
}

fn write(path: &std::path::Path, text: &str, mode: u32) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)
}

fn hosts_file(place: &Place) -> Result<PathBuf, String> {
    let path = place.node.pod_dir(&place.pod.uid).join("etc-hosts");
    let text = if place.pod.host_network() {
        hosts::node_hosts(place.pod, &fs::read_to_string("/etc/hosts").unwrap_or_default())
    } else {
        let names = place.node.names(place.pod).map_err(|e| e.to_string())?;
        hosts::pod_hosts(place.pod, &names, place.pod_ips)
    };
    // Shared by the pod's containers: written once a sandbox, in place, so that running ones see it too.
    if fs::read_to_string(&path).ok().as_deref() != Some(&text) {
        write(&path, &text, 0o644)?;
    }
    Ok(path)
}

fn volume_mount(
    place: &Place,
    container: &core::Container,
    index: usize,
    mount: &core::VolumeMount,
    volume: &volumes::Volume,
) -> Result<cri::Mount, String> {
    if let Some(source) = &volume.image {
        return Ok(cri::Mount {
            container_path: mount.mount_path.clone(),
            readonly: true,
            image: Some(cri::ImageSpec {
                image: place.image_volumes.get(&mount.name).cloned().unwrap_or_default(),
                user_specified_image: source.reference.clone().unwrap_or_default(),
                ..Default::default()
            }),
            ..Default::default()
        });
    }
    let host_path = match sub_path(place, mount)? {
        Some(sub) => {
            let at = place.node.pod_dir(&place.pod.uid).join("volume-subpaths").join(&mount.name);
            let at = at.join(&container.name).join(index.to_string());
            volumes::resolve_sub_path(&volume.path, &sub, &at)
                .map_err(|e| {
                    format!(
                        "failed to prepare subPath for volumeMount {:?} of container {:?}: {e}",
                        mount.name, container.name
                    )
                })?
                .path
        }
        None => volume.path.clone(),
    };
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
        _ => cri::MountPropagation::PropagationPrivate,
    };
    let container_path = match mount.mount_path.starts_with('/') {
        true => mount.mount_path.clone(),
        false => format!("/{}", mount.mount_path),
    };
    Ok(cri::Mount {
        container_path,
        host_path: host_path.display().to_string(),
        readonly: volume.read_only || mount.read_only.unwrap_or(false),
        recursive_read_only: is_recursively_read_only(mount),
        propagation: propagation as i32,
        ..Default::default()
    })
}

/// minik's runtime can do it, so what is asked for if possible is done (KEP-3857).
pub fn is_recursively_read_only(mount: &core::VolumeMount) -> bool {
    let asked = matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
    asked && mount.read_only.unwrap_or(false)
}

fn sub_path(place: &Place, mount: &core::VolumeMount) -> Result<Option<String>, String> {
    if let Some(expression) = mount.sub_path_expr.as_deref().filter(|e| !e.is_empty()) {
        let lookup = |name: &str| place.environment.get(name);
        if let Some(name) = expand::unresolved(expression, lookup) {
            return Err(format!("missing value for {name:?}"));
        }
        return Ok(Some(expand::expand(expression, lookup)));
    }
    Ok(mount.sub_path.clone().filter(|s| !s.is_empty()))
}
