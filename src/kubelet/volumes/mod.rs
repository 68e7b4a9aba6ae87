//! Volumes: what a pod's containers find at their mount paths.
//!
//! Owns: setting up and tearing down a pod's volumes, and keeping those current whose sources change.
//! Called by: the pod worker.
//! Never: knows what runs in the pod.

mod atomic_writer;
mod claim;
mod config_map;
mod credential;
mod downward_api;
mod empty_dir;
mod host_path;
mod keep;
mod mounting;
mod ownership;
mod pem;
mod private_key;
mod projected;
mod secret;
mod sub_path;
mod token;
mod trust_bundle;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1 as core;
use minik_client::{Client, EventRecorder};

pub use keep::Keeper;
pub use mounting::unmount_below;
pub use sub_path::resolve as resolve_sub_path;

use crate::downward::Around;
use crate::pod::Pod;
use crate::sources::Sources;
use atomic_writer::Payload;

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("configmap {0:?} not found")]
    NoConfigMap(String),
    #[error("secret {0:?} not found")]
    NoSecret(String),
    #[error("references non-existent {kind} key: {key}")]
    NoKey { kind: &'static str, key: String },
    #[error("invalid path {0:?}")]
    Path(String),
    #[error("hostPath type check failed: {path} is not a {what}, it's a {is}")]
    HostPathType { path: String, what: &'static str, is: &'static str },
    #[error("hostPath type check failed, {path} is not a {what}, unable to determine its type: {source}")]
    HostPathUnknown { path: String, what: &'static str, source: std::io::Error },
    #[error("{0}")]
    Claim(String),
    #[error("volumes of kind {0} are not supported by this node")]
    Unsupported(&'static str),
    /// No CSI driver is ever registered with this node.
    #[error("driver name {0} not found in the list of registered CSI drivers")]
    NoDriver(String),
    #[error("failed to fetch token: {0}")]
    Token(String),
    #[error("{0}")]
    TrustBundle(String),
    #[error("{0}")]
    Credential(String),
    #[error(transparent)]
    Field(#[from] crate::downward::FieldError),
    #[error(transparent)]
    NoAnswer(#[from] crate::sources::NoAnswer),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
}

impl VolumeError {
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}

/// A volume that could not be set up, by its name in the pod.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
pub struct SetUpError {
    pub volume: String,
    #[source]
    pub source: VolumeError,
}

/// A volume ready to be mounted into containers.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    pub path: PathBuf,
    /// Content that only the kubelet writes.
    pub read_only: bool,
    /// Groups a container needs to use it.
    pub groups: Vec<i64>,
    /// An image volume has no path: the runtime mounts it, once the image is there.
    pub image: Option<core::ImageVolumeSource>,
}

/// By name in the pod.
pub type Volumes = BTreeMap<String, Volume>;

/// What volumes are made from.
#[derive(Clone)]
pub struct Context {
    pub node_name: String,
    pub client: Client,
    pub sources: Sources,
    pub recorder: EventRecorder,
    /// `<root>/pods`.
    pub pods_dir: PathBuf,
}

impl Context {
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir.join(uid)
    }
    fn volume_dir(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.pod_dir(uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
    }
}

/// Where a volume's content comes from.
enum Source<'a> {
    EmptyDir(&'a core::EmptyDirVolumeSource),
    HostPath(&'a core::HostPathVolumeSource),
    Claim(claim::Named<'a>),
    Csi(&'a core::CSIVolumeSource),
    Image(&'a core::ImageVolumeSource),
    /// Files the kubelet writes: configMap, secret, downwardAPI, projected.
    Files {
        plugin: &'static str,
    },
    Unsupported(&'static str),
}

fn source(volume: &core::Volume) -> Source<'_> {
    if let Some(s) = &volume.empty_dir {
        return Source::EmptyDir(s);
    }
    if let Some(s) = &volume.host_path {
        return Source::HostPath(s);
    }
    if let Some(s) = &volume.image {
        return Source::Image(s);
    }
    if let Some(s) = &volume.persistent_volume_claim {
        return Source::Claim(claim::Named::Claim { name: &s.claim_name, read_only: s.read_only.unwrap_or(false) });
    }
    if volume.ephemeral.is_some() {
        return Source::Claim(claim::Named::Ephemeral { volume: &volume.name });
    }
    if let Some(s) = &volume.csi {
        return Source::Csi(s);
    }
    let files = [
        (volume.config_map.is_some(), "configmap"),
        (volume.secret.is_some(), "secret"),
        (volume.downward_api.is_some(), "downward-api"),
        (volume.projected.is_some(), "projected"),
    ];
    if let Some((_, plugin)) = files.into_iter().find(|(present, _)| *present) {
        return Source::Files { plugin };
    }
    let unsupported = [
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.fc.is_some(), "fc"),
        (volume.git_repo.is_some(), "gitRepo"),
    ];
    Source::Unsupported(unsupported.into_iter().find(|(present, _)| *present).map_or("unknown", |(_, kind)| kind))
}

/// Sets up every volume of the pod. Doing it again changes nothing that is in place.
pub async fn set_up(context: &Context, pod: &Pod, around: &Around, keeper: &mut Keeper) -> Result<Volumes, SetUpError> {
    let mut ready = Volumes::new();
    for volume in pod.spec.volumes.iter().flatten() {
        let made = set_up_one(context, pod, around, volume, keeper).await;
        let made = made.map_err(|source| SetUpError { volume: volume.name.clone(), source })?;
        ready.insert(volume.name.clone(), made);
    }
    Ok(ready)
}

async fn set_up_one(
    context: &Context,
    pod: &Pod,
    around: &Around,
    volume: &core::Volume,
    keeper: &mut Keeper,
) -> Result<Volume, VolumeError> {
    let groups = Vec::new();
    match source(volume) {
        Source::EmptyDir(source) => {
            let path = context.volume_dir(&pod.uid, "empty-dir", &volume.name);
            empty_dir::set_up(&path, source, pod)?;
            Ok(Volume { path, read_only: false, groups, image: None })
        }
        Source::HostPath(source) => {
            host_path::check(source)?;
            Ok(Volume { path: PathBuf::from(&source.path), read_only: false, groups, image: None })
        }
        Source::Image(source) => {
            Ok(Volume { path: PathBuf::new(), read_only: true, groups, image: Some(source.clone()) })
        }
        Source::Claim(named) => claim::set_up(context, pod, named).await,
        Source::Csi(source) => Err(VolumeError::NoDriver(source.driver.clone())),
        Source::Files { plugin } => {
            let path = context.volume_dir(&pod.uid, plugin, &volume.name);
            prepare_files(&path, plugin)?;
            let payload = payload(context, pod, around, volume, keeper).await?;
            atomic_writer::write(&path, &payload, ownership::fs_group(pod))?;
            keeper.written(&volume.name, path.clone());
            Ok(Volume { path, read_only: true, groups, image: None })
        }
        Source::Unsupported(kind) => Err(VolumeError::Unsupported(kind)),
    }
}

/// Secrets and tokens stay in memory; ConfigMaps may lie on disk, as upstream has it.
fn prepare_files(path: &Path, plugin: &str) -> Result<(), VolumeError> {
    mounting::make_dir(path, 0o755)?;
    if plugin != "configmap" && !mounting::is_mount_point(path) {
        mounting::mount_tmpfs(path, None, 0o755)?;
    }
    Ok(())
}

async fn payload(
    context: &Context,
    pod: &Pod,
    around: &Around,
    volume: &core::Volume,
    keeper: &mut Keeper,
) -> Result<Payload, VolumeError> {
    let namespace = pod.namespace();
    if let Some(source) = &volume.config_map {
        let map = keeper.config_map(context, namespace, &source.name).await?;
        let options = config_map::Options {
            name: &source.name,
            items: source.items.as_deref(),
            mode: mode(source.default_mode),
            optional: source.optional.unwrap_or(false),
        };
        return config_map::payload(map.as_deref(), &options);
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let secret = keeper.secret(context, namespace, name).await?;
        let options = config_map::Options {
            name,
            items: source.items.as_deref(),
            mode: mode(source.default_mode),
            optional: source.optional.unwrap_or(false),
        };
        return secret::payload(secret.as_deref(), &options);
    }
    if let Some(source) = &volume.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        return downward_api::payload(pod, around, items, mode(source.default_mode));
    }
    match &volume.projected {
        Some(source) => projected::payload(context, pod, around, &volume.name, source, keeper).await,
        None => Ok(Payload::new()),
    }
}

fn mode(given: Option<i32>) -> u32 {
    given.map_or(0o644, |m| m as u32 & 0o777)
}

/// Unmounts and removes everything that lies below the pod's directory.
pub fn tear_down(context: &Context, uid: &str) -> Result<(), VolumeError> {
    let dir = context.pod_dir(uid);
    unmount_below(&dir)?;
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(VolumeError::io(&dir, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
