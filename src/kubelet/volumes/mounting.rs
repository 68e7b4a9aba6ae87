//! Mounts below a pod's directory.
//!
//! Owns: the calls to the kernel, and finding what is mounted where.
//! Called by: volume set-up, sub-paths, tear-down.
//! Never: mounts or unmounts outside the directory it is given.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

use super::VolumeError;

/// Makes the directory and its parents; exactly this mode, whatever the umask.
pub fn make_dir(path: &Path, mode: u32) -> Result<(), VolumeError> {
    let failed = |error| VolumeError::io(path, error);
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)
}

pub fn mount_tmpfs(path: &Path, size: Option<u64>, mode: u32) -> Result<(), VolumeError> {
    let size = size.map_or(String::new(), |bytes| format!(",size={bytes}"));
    let options = CString::new(format!("mode={mode:o}{size}")).expect("digits hold no zero byte");
    rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_c_str())
        .map_err(|error| VolumeError::io(path, error.into()))
}

pub fn bind(from: &Path, to: &Path) -> Result<(), VolumeError> {
    rustix::mount::mount_bind(from, to).map_err(|error| VolumeError::io(to, error.into()))
}

pub fn is_mount_point(path: &Path) -> bool {
    mount_points().contains(&path.to_path_buf())
}

fn mount_points() -> Vec<PathBuf> {
    fs::read_to_string("/proc/self/mountinfo").map(|text| parse_mount_points(&text)).unwrap_or_default()
}

/// Fifth field of each line, with `\040` and the like unescaped (proc_pid_mountinfo(5)).
fn parse_mount_points(mountinfo: &str) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(|p| PathBuf::from(p.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))).collect()
}

/// What is mounted at or below `dir`, innermost first.
pub fn below(dir: &Path) -> Vec<PathBuf> {
    let mut points = mount_points();
    points.retain(|p| p.starts_with(dir));
    points.reverse();
    points
}

pub fn unmount_below(dir: &Path) -> Result<(), VolumeError> {
    for point in below(dir) {
        // Detached: a process that lingers in it must not keep the pod from ending.
        match rustix::mount::unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) | Ok(()) => {}
            Err(error) => return Err(VolumeError::io(&point, error.into())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let text = "22 1 0:21 / /proc rw - proc proc rw\n30 22 0:5 / /a\\040b rw,nosuid shared:1 - tmpfs tmpfs rw\n";
        assert_eq!(parse_mount_points(text), [PathBuf::from("/proc"), PathBuf::from("/a b")]);
    }
}
