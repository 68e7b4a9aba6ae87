//! Images of a cluster: unpacked once, shared by all of its nodes.
//!
//! Owns: the content-addressed layer folders, the records of images and references, and how they get there.
//! Called by: the CRI ImageService, container creation, and `minik image`.
//! Never: trusts a path, a size or a digest an archive or registry names.

mod archive;
mod builtin;
mod layer;
mod pull;
mod record;
mod reference;
mod registries;
mod uses;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use pull::Auth;
pub use reference::Reference;
pub use registries::{Mirror, Registries};

use record::{Records, Stored};

/// What a container is made from.
#[derive(Clone, Debug)]
pub struct Image {
    /// `sha256:` and the digest of its configuration.
    pub id: String,
    pub tags: Vec<String>,
    pub digests: Vec<String>,
    /// Bytes of the unpacked layers.
    pub size: u64,
    pub config: ImageConfig,
    /// Lowest first; already in overlayfs' form.
    pub layers: Vec<PathBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub volumes: Vec<String>,
    pub stop_signal: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("couldn't parse image name {0:?}: invalid reference format")]
    Reference(String),
    #[error("could not {what} in the image store")]
    Store { what: String, source: io::Error },
    #[error("the archive is damaged: {0}")]
    Archive(String),
    #[error("could not read the archive")]
    Read(#[source] io::Error),
    #[error("layer {digest}: {why}")]
    Layer { digest: String, why: String },
    #[error("failed to pull and unpack image {image:?}: {why}")]
    Pull { image: String, why: String },
}

/// Cheap to clone; all state is files, so several processes on several nodes may use it at once.
#[derive(Clone, Debug)]
pub struct ImageStore {
    root: PathBuf,
    registries: Registries,
}

impl ImageStore {
    pub fn open(root: &Path, registries: Registries) -> Result<Self, ImageError> {
        let store = Self { root: root.to_path_buf(), registries };
        for folder in ["layers", "images", "references", "locks", "new", "uses"] {
            let failed = |source| ImageError::Store { what: format!("make the folder {folder}"), source };
            fs::create_dir_all(store.root.join(folder)).map_err(failed)?;
        }
        builtin::ensure(&store)?;
        Ok(store)
    }

    fn records(&self) -> Records<'_> {
        Records::new(&self.root)
    }

    /// By tag, by digest, or by id (`sha256:...`, or its first characters).
    pub fn resolve(&self, name: &str) -> Result<Option<Image>, ImageError> {
        let records = self.records();
        if let Some(stored) = records.by_id(name)? {
            return self.image(stored).map(Some);
        }
        let reference = Reference::parse(name)?;
        match records.by_reference(&reference.to_string())? {
            Some(stored) => self.image(stored).map(Some),
            None => Ok(None),
        }
    }

    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        self.records().all()?.into_iter().map(|s| self.image(s)).collect()
    }

    /// Removes one reference, or with an id the image and all of its references. Layers no image needs go too.
    /// What is not there is removed already.
    pub fn remove(&self, name: &str) -> Result<(), ImageError> {
        let records = self.records();
        if let Some(stored) = records.by_id(name)? {
            records.forget(&stored.id)?;
        } else if let Some(stored) = records.by_reference(&Reference::parse(name)?.to_string())? {
            // As with containerd, removing an image by any of its names removes the image.
            records.forget(&stored.id)?;
        }
        self.sweep()
    }

    /// Takes in the output of `docker save` or an OCI layout; the references it brought, by name.
    pub fn import(&self, archive: impl Read) -> Result<Vec<String>, ImageError> {
        archive::import(self, archive)
    }

    pub async fn pull(&self, name: &str, auth: Option<Auth>) -> Result<Image, ImageError> {
        let reference = Reference::parse(name)?;
        let id = pull::pull(self, &reference, auth).await?;
        let missing = || ImageError::Pull { image: reference.to_string(), why: "it was removed meanwhile".into() };
        self.resolve(&id)?.ok_or_else(missing)
    }

    /// Bytes the store's layers use.
    pub fn bytes_used(&self) -> Result<u64, ImageError> {
        Ok(self.records().layers_of_all()?.values().sum())
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn image(&self, stored: Stored) -> Result<Image, ImageError> {
        let (tags, digests) = self.records().references_of(&stored.id)?;
        let layers = stored.layers.iter().map(|l| self.layer_folder(&l.diff_id)).collect();
        let size = stored.layers.iter().map(|l| l.size).sum();
        Ok(Image { id: stored.id, tags, digests, size, config: stored.config.into(), layers })
    }

    /// Short, because overlayfs takes all of an image's folders in one page of options.
    fn layer_folder(&self, diff_id: &str) -> PathBuf {
        const CHARS: usize = 24;
        let hex = diff_id.strip_prefix("sha256:").unwrap_or(diff_id);
        self.root.join("layers").join(&hex[..hex.len().min(CHARS)])
    }

    /// Removes layers that no record names and no container stands on.
    fn sweep(&self) -> Result<(), ImageError> {
        let failed = |source| ImageError::Store { what: "sweep the layers".into(), source };
        let _lock = record::lock(&self.root, "sweep")?;
        let named = self.records().layers_of_all()?;
        let held = self.held_layers()?;
        let keep: Vec<PathBuf> = named.keys().map(|d| self.layer_folder(d)).collect();
        for entry in fs::read_dir(self.root.join("layers")).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let is_held = path.file_name().is_some_and(|n| held.contains(&*n.to_string_lossy()));
            if !keep.contains(&path) && !is_held {
                fs::remove_dir_all(&path).map_err(failed)?;
            }
        }
        Ok(())
    }
}
