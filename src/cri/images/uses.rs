//! Which image layers containers stand on, on all nodes that share the store.
//!
//! Owns: one small file per container, named for its node and itself, holding the layers' folder names.
//! Called by: the image store: containers mark and release, sweeping spares what is marked.
//! Never: trusts that the kernel protects a mounted overlay: files removed below it vanish from the container.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use super::{Image, ImageError, ImageStore};

fn failed(what: &str) -> impl FnOnce(io::Error) -> ImageError {
    let what = what.to_owned();
    move |source| ImageError::Store { what, source }
}

/// Nodes of a cluster have different names; containers, ids that never repeat.
fn mark_of(container: &str) -> String {
    format!("{}.{container}", rustix::system::uname().nodename().to_string_lossy())
}

impl ImageStore {
    fn uses(&self) -> PathBuf {
        self.root().join("uses")
    }

    /// Keeps the image's layers until [`ImageStore::release`], whatever happens to the image.
    pub fn hold(&self, image: &Image, container: &str) -> Result<(), ImageError> {
        let names: Vec<_> = image.layers.iter().filter_map(|l| l.file_name()).map(|n| n.to_string_lossy()).collect();
        // Several images may be held for one container: its own, and those it has as volumes.
        let path = self.uses().join(mark_of(container));
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(&path, format!("{before}{}\n", names.join("\n"))).map_err(failed("mark an image as used"))
    }

    pub fn release(&self, container: &str) -> Result<(), ImageError> {
        match fs::remove_file(self.uses().join(mark_of(container))) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("release an image")(e)),
            _ => Ok(()),
        }
    }

    /// Releases what containers of this node held that are not `known` any more.
    pub fn release_unknown(&self, known: impl Fn(&str) -> bool) -> Result<(), ImageError> {
        let own = mark_of("");
        for entry in fs::read_dir(self.uses()).map_err(failed("list the images used"))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(container) = name.strip_prefix(&own).filter(|c| !known(c)) {
                self.release(container)?;
            }
        }
        Ok(())
    }

    /// Folder names of layers that some container stands on.
    pub(super) fn held_layers(&self) -> Result<BTreeSet<String>, ImageError> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(self.uses()).map_err(failed("list the images used"))?.flatten() {
            // One that was released while we list holds nothing.
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            names.extend(text.lines().map(str::to_owned));
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Registries;

    #[test]
    fn layers_are_held_until_the_container_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("uses")).unwrap();
        let store = ImageStore { root: dir.path().to_path_buf(), registries: Registries::default() };
        let image = Image {
            id: "sha256:1".into(),
            tags: Vec::new(),
            digests: Vec::new(),
            size: 0,
            config: Default::default(),
            layers: vec!["/x/layers/a".into(), "/x/layers/b".into()],
        };
        store.hold(&image, "c1").unwrap();
        store.hold(&image, "c2").unwrap();
        store.release_unknown(|c| c == "c2").unwrap();
        assert_eq!(store.held_layers().unwrap().into_iter().collect::<Vec<_>>(), ["a", "b"]);
        store.release("c2").unwrap();
        assert!(store.held_layers().unwrap().is_empty());
    }
}
