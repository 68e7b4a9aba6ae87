//! Where a runtime keeps its things.
//!
//! Owns: the layout of the runtime's state and run folders.
//! Called by: whoever wires a node; every module of this crate for paths.
//! Never: changes while the runtime runs.

use std::path::{Path, PathBuf};

use crate::images::Registries;

#[derive(Clone, Debug)]
pub struct Config {
    /// Survives a restart of the node: writable layers of containers. Must not lie on an overlay.
    pub state: PathBuf,
    /// Must not survive it (a tmpfs): records, sockets, namespaces.
    pub run: PathBuf,
    /// Image store, shared by the nodes of a cluster.
    pub images: PathBuf,
    /// What is started as `EXE shim ...`.
    pub exe: PathBuf,
    /// Loopback address of the streaming server; port 0 takes a free one.
    pub streaming: std::net::SocketAddr,
    pub registries: Registries,
    /// Parent of the cgroups of pods whose sandbox names none.
    pub cgroup_root: String,
    /// How containers reach DNS when a sandbox says nothing.
    pub resolv_conf: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            state: "/var/lib/minik/cri".into(),
            run: "/run/minik/cri".into(),
            images: "/var/lib/minik-images".into(),
            exe: "/proc/self/exe".into(),
            streaming: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            registries: Registries::default(),
            cgroup_root: "/kubepods".into(),
            resolv_conf: "/etc/resolv.conf".into(),
        }
    }
}

/// The file in a container's or sandbox's run folder that says what it is.
pub(crate) const RECORD_FILE: &str = "record.json";

impl Config {
    // One letter, because the path of a socket below must stay under 108 bytes.
    pub(crate) fn containers(&self) -> PathBuf {
        self.run.join("c")
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    pub(crate) fn execs(&self) -> PathBuf {
        self.run.join("x")
    }

    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.run.join("p")
    }

    pub(crate) fn sandbox(&self, id: &str) -> PathBuf {
        self.sandboxes().join(id)
    }

    /// Where a container's root filesystem is mounted.
    pub(crate) fn rootfs(&self, id: &str) -> PathBuf {
        self.container(id).join("rootfs")
    }

    /// A container's writable layer.
    pub(crate) fn layer(&self, id: &str) -> PathBuf {
        self.state.join("layers").join(id)
    }

    pub(crate) fn libcontainer(&self) -> PathBuf {
        self.run.join(minik_shim::LIBCONTAINER_DIR)
    }
}

pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, path)
}
