//! hostPath volumes: a path of the node.
//!
//! Owns: the checks of `type`, and making what `...OrCreate` asks for.
//! Called by: volume set-up, also for PersistentVolumes.
//! Never: removes anything.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1 as core;

use super::VolumeError;

pub fn check(source: &core::HostPathVolumeSource) -> Result<(), VolumeError> {
    let path = Path::new(&source.path);
    let failed = |error| VolumeError::io(path, error);
    let is = |what: &'static str, holds: fn(&fs::FileType) -> bool| match fs::metadata(path) {
        Ok(meta) if holds(&meta.file_type()) => Ok(()),
        Ok(meta) => Err(VolumeError::HostPathType { path: source.path.clone(), what, is: type_of(&meta.file_type()) }),
        Err(source_of) => Err(VolumeError::HostPathUnknown { path: source.path.clone(), what, source: source_of }),
    };
    match source.type_.as_deref().unwrap_or("") {
        "DirectoryOrCreate" => {
            if !path.exists() {
                super::mounting::make_dir(path, 0o755)?;
            }
            is("directory", fs::FileType::is_dir)
        }
        "FileOrCreate" => {
            if !path.exists() {
                fs::write(path, "").map_err(failed)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(failed)?;
            }
            is("file", fs::FileType::is_file)
        }
        "Directory" => is("directory", fs::FileType::is_dir),
        "File" => is("file", fs::FileType::is_file),
        "Socket" => is("socket file", FileTypeExt::is_socket),
        "CharDevice" => is("character device", FileTypeExt::is_char_device),
        "BlockDevice" => is("block device", FileTypeExt::is_block_device),
        // Without a type nothing is checked, and the runtime makes a directory of what is missing.
        _ if !path.exists() => super::mounting::make_dir(path, 0o755),
        _ => Ok(()),
    }
}

/// As the API names types.
fn type_of(kind: &fs::FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "Directory",
        _ if kind.is_file() => "File",
        _ if kind.is_socket() => "Socket",
        _ if kind.is_char_device() => "CharDevice",
        _ if kind.is_block_device() => "BlockDevice",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_missing_paths_made_only_on_request() {
        let dir = tempfile::tempdir().expect("a directory");
        let check = |name: &str, kind: &str| {
            let path = dir.path().join(name).display().to_string();
            super::check(&core::HostPathVolumeSource { path, type_: Some(kind.into()) })
        };
        assert!(check("missing", "Directory").is_err());
        assert!(check("made", "DirectoryOrCreate").is_ok());
        assert!(check("made", "Directory").is_ok());
        let text = check("made", "File").expect_err("a directory is no file").to_string();
        assert!(
            text.starts_with("hostPath type check failed: ") && text.ends_with(" is not a file, it's a Directory"),
            "{text}"
        );
        assert!(check("file", "FileOrCreate").is_ok() && check("file", "File").is_ok());
    }
}
