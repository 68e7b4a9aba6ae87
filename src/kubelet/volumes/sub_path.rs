//! subPath: one file or directory of a volume, which the pod may have filled with links.
//!
//! Owns: resolving it without ever leaving the volume, also while a container changes it.
//! Called by: the start of a container.
//! Never: hands a path to the runtime that could be swapped before it is mounted: it is bound to its own place first.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{VolumeError, mounting};

#[derive(Debug)]
pub struct Resolved {
    pub path: PathBuf,
}

/// Finds or makes `sub` inside `volume` and binds it to `place`.
pub fn resolve(volume: &Path, sub: &str, place: &Path) -> Result<Resolved, VolumeError> {
    let target = open_or_make(volume, sub)?;
    let through = PathBuf::from(format!("/proc/self/fd/{}", target.as_raw_fd()));
    let is_dir = std::fs::metadata(&through).map_err(|e| VolumeError::io(volume, e))?.is_dir();
    // A place left from an earlier start of the container points to what was there then.
    mounting::unmount_below(place)?;
    if is_dir {
        if place.is_file() {
            std::fs::remove_file(place).map_err(|e| VolumeError::io(place, e))?;
        }
        mounting::make_dir(place, 0o750)?;
    } else {
        if place.is_dir() {
            std::fs::remove_dir(place).map_err(|e| VolumeError::io(place, e))?;
        }
        if let Some(parent) = place.parent() {
            mounting::make_dir(parent, 0o750)?;
        }
        std::fs::write(place, "").map_err(|e| VolumeError::io(place, e))?;
    }
    mounting::bind(&through, place)?;
    Ok(Resolved { path: place.into() })
}

/// Walks down, following links only as far as they stay below the volume (openat2(2), RESOLVE_BENEATH).
fn open_or_make(volume: &Path, sub: &str) -> Result<OwnedFd, VolumeError> {
    let failed = |error: Errno| VolumeError::io(&volume.join(sub), error.into());
    if Path::new(sub).is_absolute() || Path::new(sub).components().any(|c| c == Component::ParentDir) {
        return Err(VolumeError::Path(sub.into()));
    }
    let base =
        rustix::fs::open(volume, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let open = |path: &Path| {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&base, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    let mut below = PathBuf::new();
    let mut parent: Option<OwnedFd> = None;
    for part in Path::new(sub).components().filter(|c| matches!(c, Component::Normal(_))) {
        below.push(part);
        let next = match open(&below) {
            Err(Errno::NOENT) => {
                let at = parent.as_ref().unwrap_or(&base);
                match rustix::fs::mkdirat(at, part.as_os_str(), Mode::from_raw_mode(0o750)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(failed(error)),
                }
                open(&below).map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        parent = Some(next);
    }
    Ok(parent.unwrap_or(base))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_inside_are_followed_and_links_out_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let volume = dir.path().join("v");
        std::fs::create_dir_all(volume.join("real")).expect("made");
        symlink("real", volume.join("inside")).expect("linked");
        symlink("../..", volume.join("up")).expect("linked");
        symlink("/etc", volume.join("etc")).expect("linked");
        assert!(open_or_make(&volume, "inside").is_ok());
        assert!(open_or_make(&volume, "up").is_err());
        assert!(open_or_make(&volume, "etc/passwd").is_err());
        assert!(open_or_make(&volume, "../x").is_err());
    }

    #[test]
    fn missing_directories_are_made() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(open_or_make(dir.path(), "a/b/c").is_ok());
        assert!(dir.path().join("a/b/c").is_dir());
    }
}
