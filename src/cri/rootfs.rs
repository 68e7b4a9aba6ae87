//! A container's root filesystem: image layers below, a layer of its own above.
//!
//! Owns: the overlay mount, and reading files of a root filesystem without being led out of it by links.
//! Called by: container creation and removal.
//! Never: writes to an image's layers.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::UnshareFlags;

use crate::error::{Error, io_error};

/// `/etc/passwd` and such: what is longer is not read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Mounts at `target`; `own` gets the folders `upper` and `work`. `layers` are lowest first, all in one folder.
pub(crate) fn mount_overlay(layers: &[PathBuf], own: &Path, target: &Path) -> Result<(), Error> {
    let (upper, work) = (own.join("upper"), own.join("work"));
    for dir in [&upper, &work, &target.to_path_buf()] {
        fs::create_dir_all(dir).map_err(io_error(format!("could not make {}", dir.display())))?;
    }
    let options = format!("upperdir={},workdir={}", upper.display(), work.display());
    overlay(layers, &options, target)
}

/// A read-only view of an image, for volumes that are images.
pub(crate) fn mount_image(layers: &[PathBuf], empty: &Path, target: &Path) -> Result<(), Error> {
    for dir in [empty, target] {
        fs::create_dir_all(dir).map_err(io_error(format!("could not make {}", dir.display())))?;
    }
    // overlayfs without an upper layer wants two lower ones; the second may be an empty folder.
    let mut all = vec![empty.to_path_buf()];
    all.extend_from_slice(layers);
    overlay(&all, "", target)
}

/// The kernel takes one page of options. Layers are named relative to their folder, by a thread with a working
/// directory of its own, so that an image may have the 127 layers that Docker allows.
fn overlay(layers: &[PathBuf], rest: &str, target: &Path) -> Result<(), Error> {
    let folder = layers.last().and_then(|l| l.parent()).unwrap_or(Path::new("/")).to_owned();
    let names: Vec<String> = layers
        .iter()
        .rev()
        .map(|layer| match layer.strip_prefix(&folder) {
            Ok(name) => name.display().to_string(),
            Err(_) => layer.display().to_string(),
        })
        .collect();
    let lower = format!("lowerdir={}", if names.is_empty() { "/var/empty".to_owned() } else { names.join(":") });
    let options = if rest.is_empty() { lower } else { format!("{lower},{rest}") };
    let target_copy = target.to_owned();
    let done = std::thread::spawn(move || -> io::Result<()> {
        own_working_directory()?;
        std::env::set_current_dir(&folder)?;
        let options = std::ffi::CString::new(options).map_err(|_| io::ErrorKind::InvalidInput)?;
        mount("overlay", &target_copy, "overlay", MountFlags::empty(), options.as_c_str())?;
        Ok(())
    });
    let result = done.join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread ended early")));
    result.map_err(io_error(format!("failed to mount rootfs at {}", target.display())))
}

#[expect(unsafe_code, reason = "unshare is unsafe for CLONE_FILES only")]
fn own_working_directory() -> io::Result<()> {
    // SAFETY: FS separates this thread's working directory; descriptors stay shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
    Ok(())
}

/// Unmounts whatever is mounted at `target`; nothing is fine too.
pub(crate) fn unmount_all(target: &Path) {
    // More than one mount can lie on a path after a crash between mount and record.
    const MOUNTS_MAX: usize = 8;
    for _ in 0..MOUNTS_MAX {
        if unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_err() {
            return;
        }
    }
}

/// A file's text, with every link resolved inside `root`; empty if there is none.
pub(crate) fn read_inside(root: &Path, path: &str) -> String {
    let read = || -> io::Result<String> {
        let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = fs::File::from(openat2(&root, path, flags, Mode::empty(), resolve)?);
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// Makes the folder `path` inside `root` with what is missing above it, as runtimes do for a working directory.
pub(crate) fn make_dir_inside(root: &Path, path: &str) -> io::Result<()> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat2(CWD, root, flags, Mode::empty(), ResolveFlags::empty())?;
    let mut so_far = PathBuf::new();
    for part in Path::new(path).components() {
        let std::path::Component::Normal(name) = part else { continue };
        let parent = if so_far.as_os_str().is_empty() {
            root.try_clone()?
        } else {
            openat2(&root, &so_far, flags, Mode::empty(), resolve)?
        };
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        so_far.push(name);
    }
    Ok(())
}
