//! A container's mounts: those every container has, the pod's files in `/etc`, and those of the request.
//!
//! Owns: their order, options and propagation.
//! Called by: container creation.
//! Never: resolves subpaths: the kubelet has.

use std::fs;
use std::path::Path;

use k8s_cri::v1;
use minik_shim::CgroupVersion;
use serde_json::{Value, json};

use crate::error::{Error, io_error};

/// Files and folders of the pod that its containers share.
pub(crate) struct PodFiles<'a> {
    pub resolv_conf: &'a str,
    pub hostname: &'a str,
    pub hosts: &'a str,
    pub shm: &'a str,
}

/// The mounts, and what the root's propagation must be ("" for the default).
pub(crate) fn mounts(
    asked: &[v1::Mount],
    security: &v1::LinuxContainerSecurityContext,
    pod: &PodFiles,
    cgroups: CgroupVersion,
) -> Result<(Vec<Value>, &'static str), Error> {
    let target = |path: &str| path.trim_end_matches('/').to_owned();
    let replaced = |path: &str| asked.iter().any(|m| target(&m.container_path) == path);
    let mut all: Vec<Value> = defaults(security.privileged, cgroups)
        .into_iter()
        .filter(|m| !replaced(m["destination"].as_str().unwrap_or_default()))
        .collect();
    let read_only = if security.readonly_rootfs { "ro" } else { "rw" };
    for (path, source, mode) in [
        ("/dev/shm", pod.shm, "rw"),
        ("/etc/hostname", pod.hostname, read_only),
        ("/etc/hosts", pod.hosts, read_only),
        ("/etc/resolv.conf", pod.resolv_conf, read_only),
    ] {
        if !replaced(path) && !source.is_empty() {
            all.push(
                json!({"destination": path, "type": "bind", "source": source, "options": ["rbind", "rprivate", mode]}),
            );
        }
    }
    // A mount below another one must come after it.
    let mut ordered: Vec<&v1::Mount> = asked.iter().collect();
    ordered.sort_by_key(|m| Path::new(&m.container_path).components().count());
    let mut propagation = "";
    for mount in ordered {
        let (value, needs) = bind(mount)?;
        all.push(value);
        if needs == "rshared" || propagation.is_empty() {
            propagation = needs;
        }
    }
    Ok((all, propagation))
}

fn defaults(privileged: bool, cgroups: CgroupVersion) -> Vec<Value> {
    let mode = if privileged { "rw" } else { "ro" };
    let mut all = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", mode]}),
    ];
    let options = match cgroups {
        CgroupVersion::V1 => json!(["nosuid", "noexec", "nodev", "relatime", mode]),
        CgroupVersion::V2 => json!(["nosuid", "noexec", "nodev", "relatime", mode]),
    };
    all.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}));
    all
}

fn bind(mount: &v1::Mount) -> Result<(Value, &'static str), Error> {
    let source = Path::new(&mount.host_path);
    if let Err(e) = fs::metadata(source) {
        if e.kind() != std::io::ErrorKind::NotFound {
            return Err(io_error(format!("failed to stat {:?}", mount.host_path))(e));
        }
        fs::create_dir_all(source).map_err(io_error(format!("failed to mkdir {:?}", mount.host_path)))?;
    }
    let source =
        fs::canonicalize(source).map_err(io_error(format!("failed to resolve symlink {:?}", mount.host_path)))?;
    let (option, needs) = match mount.propagation {
        p if p == v1::MountPropagation::PropagationBidirectional as i32 => ("rshared", "rshared"),
        p if p == v1::MountPropagation::PropagationHostToContainer as i32 => ("rslave", "rslave"),
        _ => ("rprivate", ""),
    };
    let mode = match (mount.readonly, mount.recursive_read_only) {
        (_, true) => "rro",
        (true, false) => "ro",
        (false, false) => "rw",
    };
    let value = json!({
        "destination": mount.container_path, "type": "bind", "source": source, "options": ["rbind", option, mode],
    });
    Ok((value, needs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeper_mounts_come_later_and_replace_the_pods_files() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().to_str().unwrap().to_owned();
        let mount = |path: &str| v1::Mount {
            container_path: path.into(),
            host_path: host.clone(),
            readonly: true,
            propagation: v1::MountPropagation::PropagationHostToContainer as i32,
            ..Default::default()
        };
        let pod = PodFiles { resolv_conf: "/p/resolv.conf", hostname: "/p/hostname", hosts: "/p/hosts", shm: "/p/shm" };
        let asked = [mount("/data/deep"), mount("/etc/hosts"), mount("/data")];
        let (all, propagation) = mounts(&asked, &Default::default(), &pod, CgroupVersion::V1).unwrap();
        let tail: Vec<String> =
            all[6..].iter().map(|m| format!("{} {}", m["destination"].as_str().unwrap(), m["options"])).collect();
        assert_eq!(
            tail.join("\n"),
            "/dev/shm [\"rbind\",\"rprivate\",\"rw\"]\n\
             /etc/hostname [\"rbind\",\"rprivate\",\"rw\"]\n\
             /etc/resolv.conf [\"rbind\",\"rprivate\",\"rw\"]\n\
             /data [\"rbind\",\"rslave\",\"ro\"]\n\
             /data/deep [\"rbind\",\"rslave\",\"ro\"]\n\
             /etc/hosts [\"rbind\",\"rslave\",\"ro\"]"
        );
        assert_eq!(propagation, "rslave");
    }
}
