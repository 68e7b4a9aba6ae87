//! Reads `docker save` output and OCI layouts, in whatever order their files come.
//!
//! Owns: finding images in an archive.
//! Called by: the image store.
//! Never: keeps a layer in memory.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::record::{ConfigFile, Stored, digest};
use super::{ImageError, ImageStore, Reference, layer};

/// Manifests and configurations are a few KiB.
const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// Images of one archive, and indexes in indexes.
const IMAGES_MAX: usize = 256;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// One image of the archive: its names, and the files that hold it.
struct Found {
    names: Vec<String>,
    config: String,
    layers: Vec<String>,
}

pub fn import(store: &ImageStore, archive: impl Read) -> Result<Vec<String>, ImageError> {
    let spool = Spool::fill(store, archive)?;
    let found = match spool.document("manifest.json")? {
        Some(bytes) => saved(&bytes)?,
        None => layout(&spool)?,
    };
    if found.is_empty() {
        return Err(ImageError::Archive("it holds no image".into()));
    }
    let mut names = Vec::new();
    for image in found {
        let id = take(store, &spool, &image)?;
        names.extend(if image.names.is_empty() { vec![id] } else { image.names });
    }
    Ok(names)
}

fn damaged(what: &str) -> impl Fn(serde_json::Error) -> ImageError {
    move |e| ImageError::Archive(format!("its {what} is not valid: {e}"))
}

fn saved(bytes: &[u8]) -> Result<Vec<Found>, ImageError> {
    let images: Vec<Saved> = serde_json::from_slice(bytes).map_err(damaged("manifest.json"))?;
    let found = images.into_iter().map(|image| {
        let tags = image.repo_tags.unwrap_or_default();
        let names = tags.iter().map(|t| Reference::parse(t).map(|r| r.to_string())).collect::<Result<_, _>>()?;
        Ok(Found { names, config: image.config, layers: image.layers.unwrap_or_default() })
    });
    found.collect()
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn layout(spool: &Spool) -> Result<Vec<Found>, ImageError> {
    let missing = || ImageError::Archive("it has neither manifest.json nor index.json".into());
    let index: Index =
        serde_json::from_slice(&spool.document("index.json")?.ok_or_else(missing)?).map_err(damaged("index.json"))?;
    let mut waiting: Vec<(Descriptor, Vec<String>)> = index.manifests.into_iter().map(|m| (m, Vec::new())).collect();
    let mut found = Vec::new();
    let mut seen = 0;
    while let Some((descriptor, inherited)) = waiting.pop() {
        seen += 1;
        if seen > IMAGES_MAX {
            return Err(ImageError::Archive(format!("it holds more than {IMAGES_MAX} images")));
        }
        let names = names(&descriptor)?.into_iter().chain(inherited).collect::<Vec<_>>();
        // A saved index may name platforms whose blobs were not saved.
        let Some(bytes) = spool.document(&blob(&descriptor.digest))? else { continue };
        if descriptor.media_type.contains("index") || descriptor.media_type.contains("manifest.list") {
            let inner: Index = serde_json::from_slice(&bytes).map_err(damaged("image index"))?;
            let fitting = inner.manifests.into_iter().filter(|m| m.platform.as_ref().is_none_or(fits));
            waiting.extend(fitting.map(|m| (m, names.clone())));
            continue;
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(damaged("image manifest"))?;
        let layers = manifest.layers.iter().map(|l| blob(&l.digest)).collect();
        found.push(Found { names, config: blob(&manifest.config.digest), layers });
    }
    Ok(found)
}

fn names(descriptor: &Descriptor) -> Result<Vec<String>, ImageError> {
    let keys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
    let name = keys.iter().find_map(|k| descriptor.annotations.get(*k));
    // The second key often holds a bare tag, which names nothing by itself.
    let whole = name.filter(|n| n.contains(['/', ':']));
    whole.map(|n| Reference::parse(n).map(|r| r.to_string())).into_iter().collect()
}

pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn fits(platform: &Platform) -> bool {
    platform.os == "linux" && platform.architecture == architecture()
}

fn take(store: &ImageStore, spool: &Spool, found: &Found) -> Result<String, ImageError> {
    let missing = |name: &str| ImageError::Archive(format!("the file {name} is missing"));
    let bytes = spool.document(&found.config)?.ok_or_else(|| missing(&found.config))?;
    let config = ConfigFile::parse(&bytes)?;
    if config.rootfs.diff_ids.len() != found.layers.len() {
        return Err(ImageError::Archive("its configuration names another number of layers".into()));
    }
    let mut layers = Vec::new();
    for (diff_id, name) in config.rootfs.diff_ids.iter().zip(&found.layers) {
        let known = layer::find(store, diff_id);
        layers.push(match known {
            Some(layer) => layer,
            None => layer::unpack(store, diff_id, spool.open(name)?.ok_or_else(|| missing(name))?)?,
        });
    }
    let image = Stored { id: digest(&bytes), layers, config: config.config.unwrap_or_default() };
    store.records().put(&image, &found.names)?;
    Ok(image.id)
}

/// The archive's files under numbers, since a tar can only be read forwards and its names are not to be trusted.
struct Spool {
    folder: PathBuf,
    files: HashMap<String, PathBuf>,
    /// `docker save` of old stores a layer once and links to it.
    links: HashMap<String, String>,
}

impl Spool {
    fn fill(store: &ImageStore, archive: impl Read) -> Result<Self, ImageError> {
        let folder = store.root().join("new").join(uuid::Uuid::new_v4().to_string());
        let failed = |source| ImageError::Store { what: "spool the archive".into(), source };
        fs::create_dir(&folder).map_err(failed)?;
        let mut spool = Self { folder, files: HashMap::new(), links: HashMap::new() };
        let mut archive = tar::Archive::new(archive);
        for entry in archive.entries().map_err(ImageError::Read)? {
            let mut entry = entry.map_err(ImageError::Read)?;
            let name = clean(&entry.path().map_err(ImageError::Read)?);
            match entry.header().entry_type() {
                tar::EntryType::Regular => {
                    let path = spool.folder.join(spool.files.len().to_string());
                    let mut file = File::create(&path).map_err(failed)?;
                    io::copy(&mut entry, &mut file).map_err(ImageError::Read)?;
                    spool.files.insert(name, path);
                }
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    if let Some(target) = entry.link_name().map_err(ImageError::Read)? {
                        let parent = Path::new(&name).parent().unwrap_or(Path::new(""));
                        spool.links.insert(name.clone(), clean(&parent.join(target)));
                    }
                }
                _ => {}
            }
        }
        Ok(spool)
    }

    fn open(&self, name: &str) -> Result<Option<File>, ImageError> {
        let name = clean(Path::new(name));
        let path = self.files.get(&name).or_else(|| self.files.get(self.links.get(&name)?));
        let failed = |source| ImageError::Store { what: "read the spooled archive".into(), source };
        path.map(File::open).transpose().map_err(failed)
    }

    fn document(&self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(file) = self.open(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(DOCUMENT_BYTES_MAX).read_to_end(&mut bytes).map_err(ImageError::Read)?;
        Ok(Some(bytes))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Without `.`, with `..` taken back: only a key, never a path of ours.
fn clean(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.to_str().unwrap_or("").split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}
