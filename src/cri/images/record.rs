//! What the store knows: one small JSON file per image and per reference.
//!
//! Owns: the files' form, atomic writes, and the locks between processes and nodes.
//! Called by: the image store.
//! Never: keeps anything in memory: another node may have changed it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::reference::is_digest;
use super::{ImageConfig, ImageError};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stored {
    pub id: String,
    pub layers: Vec<StoredLayer>,
    pub config: Config,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredLayer {
    pub diff_id: String,
    pub size: u64,
}

/// `config` of an OCI image configuration, which `docker save` shares.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    stop_signal: Option<String>,
}

impl From<Config> for ImageConfig {
    fn from(c: Config) -> Self {
        Self {
            env: c.env.unwrap_or_default(),
            entrypoint: c.entrypoint.unwrap_or_default(),
            cmd: c.cmd.unwrap_or_default(),
            user: c.user.unwrap_or_default(),
            working_dir: c.working_dir.unwrap_or_default(),
            volumes: c.volumes.unwrap_or_default().into_keys().collect(),
            stop_signal: c.stop_signal.unwrap_or_default(),
        }
    }
}

/// The parts of an image configuration that matter here.
#[derive(Debug, Deserialize)]
pub struct ConfigFile {
    #[serde(default)]
    pub config: Option<Config>,
    pub rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
pub struct RootFs {
    pub diff_ids: Vec<String>,
}

impl ConfigFile {
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let file: Self = serde_json::from_slice(bytes)
            .map_err(|e| ImageError::Archive(format!("the image configuration is not valid: {e}")))?;
        match file.rootfs.diff_ids.iter().find(|d| !is_digest(d)) {
            Some(bad) => Err(ImageError::Archive(format!("{bad:?} is no layer digest"))),
            None => Ok(file),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Link {
    reference: String,
    image: String,
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Held until it is dropped; also between nodes, which share the volume and the kernel.
pub fn lock(root: &Path, name: &str) -> Result<File, ImageError> {
    let failed = |source: io::Error| ImageError::Store { what: format!("lock {name}"), source };
    let file = File::create(root.join("locks").join(name)).map_err(failed)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
    Ok(file)
}

pub struct Records<'a> {
    root: &'a Path,
}

fn store(what: impl Into<String>) -> impl FnOnce(io::Error) -> ImageError {
    let what = what.into();
    move |source| ImageError::Store { what, source }
}

impl<'a> Records<'a> {
    pub fn new(root: &'a Path) -> Self {
        Self { root }
    }

    fn image_path(&self, id: &str) -> PathBuf {
        self.root.join("images").join(format!("{}.json", id.strip_prefix("sha256:").unwrap_or(id)))
    }

    /// A name may be longer than a file name and contains slashes.
    fn reference_path(&self, reference: &str) -> PathBuf {
        let name = hex::encode(Sha256::digest(reference));
        self.root.join("references").join(format!("{name}.json"))
    }

    fn write(&self, path: &Path, value: &impl Serialize) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec(value).expect("records are plain data");
        let new = self.root.join("new").join(uuid::Uuid::new_v4().to_string());
        fs::write(&new, bytes).and_then(|()| fs::rename(&new, path)).map_err(store("write a record"))
    }

    fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, ImageError> {
        match fs::read(path) {
            // A record that does not parse was written by another version: as if it were not there.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(store("read a record")(e)),
        }
    }

    pub fn put(&self, image: &Stored, references: &[String]) -> Result<(), ImageError> {
        self.write(&self.image_path(&image.id), image)?;
        for reference in references {
            let link = Link { reference: reference.clone(), image: image.id.clone() };
            self.write(&self.reference_path(reference), &link)?;
        }
        Ok(())
    }

    pub fn by_id(&self, id: &str) -> Result<Option<Stored>, ImageError> {
        let hex = id.strip_prefix("sha256:").unwrap_or(id);
        let is_id = hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit());
        if is_id { Self::read(&self.image_path(hex)) } else { Ok(None) }
    }

    pub fn by_reference(&self, reference: &str) -> Result<Option<Stored>, ImageError> {
        match Self::read::<Link>(&self.reference_path(reference))? {
            Some(link) => self.by_id(&link.image),
            None => Ok(None),
        }
    }

    fn files<T: for<'de> Deserialize<'de>>(&self, folder: &str) -> Result<Vec<(PathBuf, T)>, ImageError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.root.join(folder)).map_err(store("list records"))? {
            let path = entry.map_err(store("list records"))?.path();
            // One that was removed while we list is not there.
            if let Some(value) = Self::read(&path)? {
                found.push((path, value));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    pub fn all(&self) -> Result<Vec<Stored>, ImageError> {
        Ok(self.files("images")?.into_iter().map(|(_, image)| image).collect())
    }

    /// Tags and digests that lead to an image.
    pub fn references_of(&self, id: &str) -> Result<(Vec<String>, Vec<String>), ImageError> {
        let links = self.files::<Link>("references")?.into_iter().map(|(_, link)| link);
        let mut names: Vec<String> = links.filter(|l| l.image == id).map(|l| l.reference).collect();
        names.sort();
        Ok(names.into_iter().partition(|n| !n.contains('@')))
    }

    pub fn forget(&self, id: &str) -> Result<(), ImageError> {
        for (path, link) in self.files::<Link>("references")? {
            if link.image == id {
                remove(&path)?;
            }
        }
        remove(&self.image_path(id))
    }

    /// Every layer some image needs, with its size.
    pub fn layers_of_all(&self) -> Result<BTreeMap<String, u64>, ImageError> {
        Ok(self.all()?.into_iter().flat_map(|i| i.layers).map(|l| (l.diff_id, l.size)).collect())
    }
}

fn remove(path: &Path) -> Result<(), ImageError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(store("remove a record")(e)),
        _ => Ok(()),
    }
}
