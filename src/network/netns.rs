//! Network namespaces that live without a process: held by a bind mount at a path.
//!
//! Owns: making, recognising and removing them, and the sysctls every pod's namespace starts with.
//! Called by: `cri`, once when a sandbox starts and once when it is removed.
//! Never: moves a thread of the caller into another namespace.

use std::path::{Path, PathBuf};

use nlink::netlink::namespace;

/// A namespace could not be made, opened or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not {verb} the network namespace {path}")]
    Namespace { verb: &'static str, path: PathBuf, source: nlink::Error },
    #[error("the task that worked on network namespace {path} did not finish")]
    Task { path: PathBuf, source: tokio::task::JoinError },
}

/// What containerd and CRI-O give a pod too: any port and ICMP echo without a capability. Safe, because both are
/// counted per network namespace.
const SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// Makes a namespace and holds it by a bind mount at `path` (its folder is made when missing). Loopback is still down
/// and there is no other link: `PodNetwork::attach` brings those.
pub async fn create(path: &Path) -> Result<(), Error> {
    on_blocking_thread(path, |path| {
        namespace::create_path(path).map_err(|source| failed("create", path, source))?;
        let written = namespace::set_sysctls_path(path, &SYSCTLS);
        if let Err(source) = written {
            // Half a namespace is worse than none: the next attempt would find the path taken.
            let _ = namespace::delete_path(path);
            return Err(failed("configure", path, source));
        }
        Ok(())
    })
    .await
}

/// Removes the mount and the file. Removing what is gone already is a success. The namespace itself ends with the
/// last process or socket in it.
pub async fn delete(path: &Path) -> Result<(), Error> {
    on_blocking_thread(path, |path| match namespace::delete_path(path) {
        Ok(()) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(source) => Err(failed("delete", path, source)),
    })
    .await
}

/// Whether a live namespace is held at `path`; a file that lost its mount (the node restarted) is none.
pub fn exists(path: &Path) -> bool {
    namespace::is_namespace_path(path)
}

/// Writes sysctls inside a namespace, keys with dots (`net.core.somaxconn`).
pub async fn write_sysctls(path: &Path, sysctls: Vec<(String, String)>) -> Result<(), Error> {
    on_blocking_thread(path, move |path| {
        let entries: Vec<(&str, &str)> = sysctls.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        namespace::set_sysctls_path(path, &entries).map_err(|source| failed("configure", path, source))
    })
    .await
}

fn failed(verb: &'static str, path: &Path, source: nlink::Error) -> Error {
    Error::Namespace { verb, path: path.to_owned(), source }
}

/// Making and ending namespaces waits for the kernel (RCU), so it stays off the async threads.
async fn on_blocking_thread(
    path: &Path,
    work: impl FnOnce(&Path) -> Result<(), Error> + Send + 'static,
) -> Result<(), Error> {
    let owned = path.to_owned();
    match tokio::task::spawn_blocking(move || work(&owned)).await {
        Ok(result) => result,
        Err(source) => Err(Error::Task { path: path.to_owned(), source }),
    }
}
