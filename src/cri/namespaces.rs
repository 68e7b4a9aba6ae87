//! Namespaces of a pod without a process in them: bind mounts hold them.
//!
//! Owns: the IPC and UTS namespaces, the mounts under a sandbox's `ns` folder, and sysctls of the IPC namespace.
//! Called by: sandboxes.
//! Never: changes the namespaces of the calling thread: it works in a thread that ends with the work.

use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::mount_bind;
use rustix::thread::UnshareFlags;

use crate::error::{Error, io_error};
use crate::rootfs::unmount_all;

/// Which namespaces to make.
pub(crate) struct Wanted {
    pub ipc: bool,
    /// The host name in a new UTS namespace.
    pub hostname: Option<String>,
    /// `kernel.shm_rmid_forced` and its like, by name with dots; those of the network namespace are not ours.
    pub sysctls: Vec<(String, String)>,
}

pub(crate) const IPC: &str = "ipc";
pub(crate) const UTS: &str = "uts";
pub(crate) const NET: &str = "net";
pub(crate) const PID: &str = "pid";

/// Makes them and holds each at `dir/NAME`. Blocks.
pub(crate) fn make(dir: &Path, wanted: Wanted) -> Result<(), Error> {
    let dir = dir.to_owned();
    let done = std::thread::spawn(move || in_this_thread(&dir, &wanted)).join();
    done.unwrap_or_else(|_| Err(io_error("could not make namespaces")(io::Error::other("the thread ended early"))))
}

fn in_this_thread(dir: &Path, wanted: &Wanted) -> Result<(), Error> {
    let mut flags = UnshareFlags::empty();
    if wanted.ipc {
        flags |= UnshareFlags::NEWIPC;
    }
    if wanted.hostname.is_some() {
        flags |= UnshareFlags::NEWUTS;
    }
    unshare(flags).map_err(io_error("could not make namespaces"))?;
    if let Some(name) = &wanted.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(|e| io_error("could not set the host name")(e.into()))?;
        hold(Path::new("/proc/thread-self/ns/uts"), &dir.join(UTS))?;
    }
    if wanted.ipc {
        hold(Path::new("/proc/thread-self/ns/ipc"), &dir.join(IPC))?;
    }
    for (name, value) in &wanted.sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(&path, value).map_err(io_error(format!("could not set sysctl {name} to {value:?}")))?;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "unshare is unsafe for CLONE_FILES only")]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: only IPC and UTS are separated; descriptors and memory stay shared.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// Keeps the namespace behind `source` alive at `path`.
pub(crate) fn hold(source: &Path, path: &Path) -> Result<(), Error> {
    let what = || format!("could not hold a namespace at {}", path.display());
    fs::File::create(path).map_err(io_error(what()))?;
    mount_bind(source, path).map_err(|e| io_error(what())(e.into()))
}

/// Lets go of every namespace under `dir`; one still used by a process lives on with it.
pub(crate) fn release(dir: &Path) {
    for name in [IPC, UTS, PID] {
        unmount_all(&dir.join(name));
    }
}
