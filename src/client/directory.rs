//! Directories that plans ask for on the machine they are carried out on.
//!
//! Owns: making one with exact permissions, and removing one with all that is in it.
//! Called by: the executor.
//! Never: chooses a path, or fails because the work is done already.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::Error;

pub(crate) async fn make(path: PathBuf, mode: u32) -> Result<(), Error> {
    aside(path, "made", move |path| {
        fs::create_dir_all(path)?;
        set_mode(path, mode)
    })
    .await
}

/// The umask must not take away what was asked for.
#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// The host's CLI builds elsewhere too, and makes no plan with directories.
#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) -> io::Result<()> {
    Ok(())
}

pub(crate) async fn remove(path: PathBuf) -> Result<(), Error> {
    aside(path, "removed", |path| match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    })
    .await
}

/// Off the threads that answer: a volume may hold a million files.
async fn aside(
    path: PathBuf,
    what: &'static str,
    work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
) -> Result<(), Error> {
    let shown = path.display().to_string();
    let ended = tokio::task::spawn_blocking(move || work(&path)).await;
    let result = ended.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
    result.map_err(|source| Error::Directory { path: shown, what, source })
}
