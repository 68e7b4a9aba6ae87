//! Replaces all files of a volume at once, so that a reader sees the old set or the new one and never a mixture.
//!
//! Owns: the layout: `name -> ..data/name`, `..data -> ..<time>.<random>`, swapped by one rename.
//! Called by: configMap, secret, downwardAPI and projected volumes.
//! Never: follows a path out of its directory: names are checked before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use super::VolumeError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    /// Owner, when not root.
    pub uid: Option<u32>,
}

/// Files by path relative to the volume.
pub type Payload = BTreeMap<String, File>;

const DATA: &str = "..data";
const DATA_TMP: &str = "..data_tmp";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Changed,
    Same,
}

/// Makes the volume at `dir` hold `payload` and nothing else.
pub fn write(dir: &Path, payload: &Payload, fs_group: Option<u32>) -> Result<Written, VolumeError> {
    for path in payload.keys() {
        check_path(path)?;
    }
    write_checked(dir, payload, fs_group).map_err(|source| VolumeError::io(dir, source))
}

fn write_checked(dir: &Path, payload: &Payload, fs_group: Option<u32>) -> io::Result<Written> {
    let old = fs::read_link(dir.join(DATA)).ok();
    if let Some(old) = &old
        && same(&dir.join(old), payload)?
        && payload.keys().all(|path| dir.join(top(path)).symlink_metadata().is_ok())
    {
        return Ok(Written::Same);
    }
    let stamp = jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S");
    let fresh = format!("..{stamp}.{:010}", rand::random::<u32>());
    write_files(&dir.join(&fresh), payload, fs_group)?;
    let _ = fs::remove_file(dir.join(DATA_TMP));
    symlink(&fresh, dir.join(DATA_TMP))?;
    fs::rename(dir.join(DATA_TMP), dir.join(DATA))?;
    show(dir, payload)?;
    if let Some(old) = old {
        remove_tree(&dir.join(old))?;
    }
    Ok(Written::Changed)
}

/// The first component: the link a user sees.
fn top(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

fn check_path(path: &str) -> Result<(), VolumeError> {
    let parts = || Path::new(path).components();
    let plain = parts().all(|c| matches!(c, Component::Normal(_))) && parts().next().is_some();
    if plain && !path.starts_with("..") { Ok(()) } else { Err(VolumeError::Path(path.into())) }
}

fn same(dir: &Path, payload: &Payload) -> io::Result<bool> {
    let mut seen = BTreeSet::new();
    let mut left = vec![PathBuf::new()];
    while let Some(below) = left.pop() {
        let entries = match fs::read_dir(dir.join(&below)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                left.push(path);
                continue;
            }
            let name = path.to_string_lossy().into_owned();
            let Some(file) = payload.get(&name) else { return Ok(false) };
            if fs::read(dir.join(&path))? != file.data {
                return Ok(false);
            }
            seen.insert(name);
        }
    }
    Ok(seen.len() == payload.len())
}

fn write_files(dir: &Path, payload: &Payload, fs_group: Option<u32>) -> io::Result<()> {
    make_dir(dir, fs_group)?;
    for (path, file) in payload {
        let full = dir.join(path);
        let mut parent = dir.to_path_buf();
        for part in Path::new(path).parent().into_iter().flat_map(Path::components) {
            parent.push(part);
            if !parent.exists() {
                make_dir(&parent, fs_group)?;
            }
        }
        fs::write(&full, &file.data)?;
        // A group that owns a volume can read all of it.
        let mode = if fs_group.is_some() { file.mode | 0o440 } else { file.mode };
        fs::set_permissions(&full, fs::Permissions::from_mode(mode))?;
        if file.uid.is_some() || fs_group.is_some() {
            chown(&full, file.uid, fs_group)?;
        }
    }
    Ok(())
}

fn make_dir(dir: &Path, fs_group: Option<u32>) -> io::Result<()> {
    fs::create_dir(dir)?;
    let mode = if fs_group.is_some() { 0o2755 } else { 0o755 };
    if fs_group.is_some() {
        chown(dir, None, fs_group)?;
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
}

/// Brings the links a user sees in line with the files behind them.
fn show(dir: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.keys().map(|path| top(path)).collect();
    for name in &wanted {
        match symlink(Path::new(DATA).join(name), dir.join(name)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(name.as_str()) && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |data: &str| File { data: data.into(), mode: 0o640, uid: None };
        files.iter().map(|(path, data)| (path.to_string(), file(data))).collect()
    }

    fn read(dir: &Path, path: &str) -> String {
        fs::read_to_string(dir.join(path)).unwrap_or_else(|e| e.kind().to_string())
    }

    #[test]
    fn files_appear_behind_links_and_are_swapped_together() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        assert_eq!(write(dir, &payload(&[("a", "1"), ("sub/b", "2")]), None).expect("written"), Written::Changed);
        assert_eq!((read(dir, "a"), read(dir, "sub/b")), ("1".into(), "2".into()));
        assert_eq!(fs::read_link(dir.join("a")).expect("a link"), Path::new("..data/a"));
        assert_eq!(fs::metadata(dir.join("a")).expect("there").permissions().mode() & 0o777, 0o640);
        let before = fs::read_link(dir.join(DATA)).expect("a link");
        assert_eq!(write(dir, &payload(&[("a", "3")]), None).expect("written"), Written::Changed);
        assert_eq!(read(dir, "a"), "3");
        assert!(!dir.join("sub").exists() && dir.join("sub").symlink_metadata().is_err());
        assert!(!dir.join(before).exists());
    }

    #[test]
    fn the_same_content_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), &payload(&[("a", "1")]), None).expect("written");
        let before = fs::read_link(dir.path().join(DATA)).expect("a link");
        assert_eq!(write(dir.path(), &payload(&[("a", "1")]), None).expect("written"), Written::Same);
        assert_eq!(fs::read_link(dir.path().join(DATA)).expect("a link"), before);
    }

    #[test]
    fn a_swap_cut_off_before_the_links_is_completed() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), &payload(&[("a", "1")]), None).expect("written");
        fs::remove_file(dir.path().join("a")).expect("removed");
        write(dir.path(), &payload(&[("a", "1")]), None).expect("written");
        assert_eq!(read(dir.path(), "a"), "1");
    }

    #[test]
    fn paths_out_of_the_volume_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        for path in ["../x", "/x", "a/../../x", "..data", ""] {
            assert!(write(dir.path(), &payload(&[(path, "1")]), None).is_err(), "{path} was written");
        }
    }
}
