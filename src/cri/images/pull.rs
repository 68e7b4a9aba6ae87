//! Brings an image from a registry.
//!
//! Owns: the exchange with one source after the other, and the words of a failed pull, which users read in events.
//! Called by: the image store.
//! Never: downloads a layer that is in the store, or the same layer twice at once.

use futures::stream::{StreamExt, TryStreamExt};
use oci_client::Client;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use tokio_util::io::SyncIoBridge;

use super::record::{ConfigFile, Stored, StoredLayer, digest};
use super::registries::Source;
use super::{ImageError, ImageStore, Reference, layer};

/// As containerd and CRI-O.
const LAYERS_AT_ONCE: usize = 3;
const CONNECT_SECONDS_MAX: u64 = 30;
/// A registry that sends nothing for so long is gone.
const SILENCE_SECONDS_MAX: u64 = 60;
const PIPE_BYTES: usize = 1 << 20;
/// Where distributions keep the roots they trust; a node image has none unless somebody adds one.
const NODE_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Credentials for one registry, from an imagePullSecret.
#[derive(Clone, Default)]
pub struct Auth {
    pub username: String,
    pub password: String,
    pub registry_token: String,
}

impl Auth {
    fn to_registry(auth: Option<Auth>) -> RegistryAuth {
        match auth {
            Some(a) if !a.registry_token.is_empty() => RegistryAuth::Bearer(a.registry_token),
            Some(a) if !a.username.is_empty() => RegistryAuth::Basic(a.username, a.password),
            _ => RegistryAuth::Anonymous,
        }
    }
}

/// The id of the image pulled, from the first of its sources that has it.
pub async fn pull(store: &ImageStore, reference: &Reference, auth: Option<Auth>) -> Result<String, ImageError> {
    let mut auth = Some(Auth::to_registry(auth));
    let mut outcome = Err(ImageError::Reference(reference.to_string()));
    for source in store.registries.sources(&reference.registry) {
        // Credentials are the registry's own; its mirrors do not learn them.
        let auth = if source.mirror.is_none() { auth.take() } else { None };
        outcome = pull_from(store, reference, &source, &auth.unwrap_or(RegistryAuth::Anonymous)).await;
        match &outcome {
            Ok(_) => break,
            Err(error) if source.mirror.is_some() => {
                tracing::info!(%error, ?source.mirror, "a mirror has no such image")
            }
            Err(_) => {}
        }
    }
    outcome
}

async fn pull_from(
    store: &ImageStore,
    reference: &Reference,
    source: &Source,
    auth: &RegistryAuth,
) -> Result<String, ImageError> {
    let image = reference.to_string();
    let failed = |why: String| ImageError::Pull { image: image.clone(), why };
    let unresolved =
        |e: OciDistributionError| failed(format!("failed to resolve reference {image:?}: {}", words(&image, e)));
    let client = client(source.plain).map_err(|e| failed(e.to_string()))?;
    let mut remote: oci_client::Reference = image.parse().map_err(|_| ImageError::Reference(image.clone()))?;
    if let Some(mirror) = &source.mirror {
        remote.set_mirror_registry(mirror.clone());
    }
    let (manifest, own, list) = client.pull_image_manifest_and_list_digest(&remote, auth).await.map_err(unresolved)?;
    let mut config = Vec::new();
    client.pull_blob(&remote, &manifest.config, &mut config).await.map_err(|e| failed(words(&image, e)))?;
    let id = digest(&config);
    if id != manifest.config.digest {
        return Err(failed(format!("its configuration has the digest {id}, not {}", manifest.config.digest)));
    }
    let file = ConfigFile::parse(&config)?;
    if file.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(failed("its configuration names another number of layers than its manifest".into()));
    }
    let pairs = file.rootfs.diff_ids.iter().zip(&manifest.layers);
    // Made before the stream, because a closure over borrowed pairs makes a future that is not provably Send.
    let fetches: Vec<_> = pairs.map(|(diff_id, blob)| fetch(store, &client, &remote, diff_id, blob)).collect();
    let layers: Vec<StoredLayer> = futures::stream::iter(fetches).buffered(LAYERS_AT_ONCE).try_collect().await?;
    let by_digest = format!("{}@{}", reference.name(), list.unwrap_or(own));
    let mut names = vec![by_digest];
    if reference.digest.is_none() {
        names.push(image.clone());
    }
    store.records().put(&Stored { id: id.clone(), layers, config: file.config.unwrap_or_default() }, &names)?;
    Ok(id)
}

fn client(plain: bool) -> Result<Client, OciDistributionError> {
    // Another component of the process may have done so; the first one wins, and all take ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::try_from(ClientConfig {
        protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
        tls_certs_only: roots(),
        connect_timeout: Some(std::time::Duration::from_secs(CONNECT_SECONDS_MAX)),
        read_timeout: Some(std::time::Duration::from_secs(SILENCE_SECONDS_MAX)),
        user_agent: concat!("minik/", env!("CARGO_PKG_VERSION")),
        https_proxy: std::env::var("HTTPS_PROXY").ok(),
        http_proxy: std::env::var("HTTP_PROXY").ok(),
        no_proxy: std::env::var("NO_PROXY").ok(),
        ..ClientConfig::default()
    })
}

/// Mozilla's roots, and what an administrator put on the node.
fn roots() -> Vec<Certificate> {
    let der = |data: &[u8]| Certificate { encoding: CertificateEncoding::Der, data: data.to_vec() };
    let mut roots: Vec<Certificate> = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|c| der(c)).collect();
    let bundle = std::fs::read(NODE_ROOTS).unwrap_or_default();
    for part in String::from_utf8_lossy(&bundle).split_inclusive("-----END CERTIFICATE-----") {
        if let Some(at) = part.find("-----BEGIN CERTIFICATE-----") {
            roots.push(Certificate { encoding: CertificateEncoding::Pem, data: part.as_bytes()[at..].to_vec() });
        }
    }
    roots
}

/// Downloads and unpacks at once, through a pipe; the unpacking thread holds the layer's lock.
async fn fetch(
    store: &ImageStore,
    client: &Client,
    remote: &oci_client::Reference,
    diff_id: &str,
    blob: &OciDescriptor,
) -> Result<StoredLayer, ImageError> {
    if let Some(known) = layer::find(store, diff_id) {
        return Ok(known);
    }
    let (write, read) = tokio::io::duplex(PIPE_BYTES);
    let (store, digest) = (store.clone(), diff_id.to_string());
    let unpack = tokio::task::spawn_blocking(move || layer::unpack(&store, &digest, SyncIoBridge::new(read)));
    let download = client.pull_blob(remote, blob, write).await;
    let unpacked = unpack.await.expect("unpacking returns its errors");
    match (unpacked, download) {
        // Another node unpacked it while we waited for the lock, so our download had no reader.
        (Ok(layer), _) => Ok(layer),
        (Err(_), Err(e)) => Err(ImageError::Layer { digest: diff_id.into(), why: words("layer", e) }),
        (Err(e), Ok(())) => Err(e),
    }
}

/// A registry's refusal in the words containerd has for it, since people search for these.
fn words(image: &str, error: OciDistributionError) -> String {
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) => format!("{image}: not found"),
        OciDistributionError::RegistryError { envelope, .. }
            if envelope.errors.iter().any(|e| format!("{:?}", e.code).contains("Unknown")) =>
        {
            format!("{image}: not found")
        }
        OciDistributionError::ServerError { code: 404, .. } => format!("{image}: not found"),
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            "pull access denied, repository does not exist or may require authorization".to_string()
        }
        other => {
            let mut text = other.to_string();
            let mut next = std::error::Error::source(&other);
            while let Some(cause) = next {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                next = cause.source();
            }
            text
        }
    }
}
