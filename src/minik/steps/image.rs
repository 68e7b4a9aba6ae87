//! The node image: one layer that holds this executable and the folders a node needs.
//!
//! Owns: the image's tag (the executable's hash), and importing it when Docker lacks it.
//! Called by: `start` and `node add`.
//! Never: downloads anything.

use bollard::Docker;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::TryStreamExt;

use crate::docker;
use crate::error::CliError;

const REPOSITORY: &str = "minik-node";
/// Enough of a SHA-256 to never meet another build's.
const HASH_CHARS: usize = 16;
const FOLDERS: [&str; 9] = ["proc", "sys", "dev", "etc", "run", "tmp", "root", "var/lib/minik", "var/lib/minik-images"];

/// Tag of the image, and whether it had to be imported.
pub struct Image {
    pub tag: String,
    pub imported: bool,
}

/// Reads the executable once, for its hash and (if Docker lacks the image) for the layer.
pub async fn ensure(docker: &Docker) -> Result<Image, CliError> {
    let read = |source| CliError::Io { what: "minik's own executable".into(), source };
    let (executable, hash) = tokio::task::spawn_blocking(|| {
        let path = std::env::current_exe()?;
        let bytes = std::fs::read(path)?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        Ok::<_, std::io::Error>((bytes, hex::encode(digest)))
    })
    .await
    .expect("hashing does not panic")
    .map_err(read)?;
    let version = &hash[..HASH_CHARS];
    let tag = format!("{REPOSITORY}:{version}");
    match docker.inspect_image(&tag).await {
        Ok(_) => return Ok(Image { tag, imported: false }),
        Err(e) if docker::code(&e) == Some(404) => {}
        Err(e) => return Err(docker::failed("look for the node image")(e)),
    }
    let layer = layer(&executable).map_err(read)?;
    let options = CreateImageOptionsBuilder::new().from_src("-").repo(REPOSITORY).tag(version).build();
    let imported = docker.create_image(Some(options), Some(bollard::body_full(layer.into())), None);
    imported.try_collect::<Vec<_>>().await.map_err(docker::failed("import the node image"))?;
    Ok(Image { tag, imported: true })
}

fn layer(executable: &[u8]) -> Result<Vec<u8>, std::io::Error> {
    let mut tar = tar::Builder::new(Vec::with_capacity(executable.len() + 64 * 1024));
    for folder in FOLDERS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(if folder == "tmp" { 0o1777 } else { 0o755 });
        header.set_size(0);
        tar.append_data(&mut header, format!("{folder}/"), std::io::empty())?;
    }
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(executable.len() as u64);
    tar.append_data(&mut header, "minik", executable)?;
    tar.into_inner()
}
