//! The runtime of one node: what it holds, and taking over what a former process of it left running.
//!
//! Owns: the tables of sandboxes and containers, events, and the scan at start.
//! Called by: the CRI services.
//! Never: polls: a container's end comes over its shim's socket.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_cri::v1;
use minik_network::PodNetwork;
use minik_shim::CgroupVersion;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{broadcast, watch};

use crate::config::Config;
use crate::container;
use crate::error::{Error, chain, io_error};
use crate::images::ImageStore;
use crate::record::{self, ContainerRecord, SandboxRecord, State};
use crate::sandbox;
use crate::stats::Sample;
use crate::stream_server::StreamServer;

/// A listener that is so far behind loses its stream and lists anew.
const EVENTS_KEPT: usize = 4096;

/// Cheap to clone.
#[derive(Clone)]
pub struct Runtime(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub config: Config,
    pub images: ImageStore,
    pub network: PodNetwork,
    pub cgroups: CgroupVersion,
    pub streaming: StreamServer,
    pub events: broadcast::Sender<v1::ContainerEventResponse>,
    objects: RwLock<Objects>,
}

#[derive(Default)]
struct Objects {
    sandboxes: HashMap<String, Arc<Sandbox>>,
    containers: HashMap<String, Arc<Container>>,
}

pub(crate) struct Sandbox {
    pub record: Mutex<SandboxRecord>,
    /// Held while it is changed, so that stop and remove do not interleave.
    pub work: tokio::sync::Mutex<()>,
}

pub(crate) struct Container {
    pub record: Mutex<ContainerRecord>,
    pub work: tokio::sync::Mutex<()>,
    /// True once it has ended.
    pub ended: watch::Sender<bool>,
    /// The last CPU reading, for the rate since then.
    pub sample: Mutex<Option<Sample>>,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord) -> Arc<Container> {
        let ended = matches!(record.state, State::Exited(_));
        Arc::new(Container {
            record: Mutex::new(record),
            work: tokio::sync::Mutex::default(),
            ended: watch::Sender::new(ended),
            sample: Mutex::default(),
        })
    }
}

impl Runtime {
    /// Takes over what runs already, and listens for streams. Must be called in a tokio runtime.
    pub async fn new(config: Config) -> Result<Runtime, Error> {
        for dir in
            [config.containers(), config.execs(), config.sandboxes(), config.libcontainer(), config.state.clone()]
        {
            std::fs::create_dir_all(&dir).map_err(io_error(format!("could not make {}", dir.display())))?;
        }
        let (root, registries) = (config.images.clone(), config.registries.clone());
        let images = tokio::task::spawn_blocking(move || ImageStore::open(&root, registries)).await??;
        let network = PodNetwork::new(minik_network::Config { run_dir: config.run.clone(), mtu: None })
            .map_err(|source| Error::Network { sandbox: String::new(), source })?;
        let streaming = StreamServer::bind(config.streaming).await.map_err(io_error("could not listen for streams"))?;
        let runtime = Runtime(Arc::new(Inner {
            config,
            images,
            network,
            cgroups: CgroupVersion::detect(),
            streaming,
            events: broadcast::Sender::new(EVENTS_KEPT),
            objects: RwLock::default(),
        }));
        runtime.adopt().await;
        runtime.0.streaming.serve(&runtime);
        Ok(runtime)
    }

    async fn adopt(&self) {
        let config = &self.0.config;
        let (sandboxes, half_sandboxes) = record::load_all::<SandboxRecord>(&config.sandboxes());
        let (containers, half_containers) = record::load_all::<ContainerRecord>(&config.containers());
        for record in sandboxes {
            self.insert_sandbox(record);
        }
        for record in containers {
            let container = Container::new(record);
            self.insert_container(container.clone());
            container::adopt(self, container);
        }
        for dir in half_sandboxes {
            sandbox::clean_up(self, &dir).await;
        }
        for dir in half_containers {
            container::clean_up(self, &dir);
        }
        // An exec ends with the connection of who asked for it, and that was the former process.
        for entry in std::fs::read_dir(config.execs()).into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
        let known = |id: &str| self.container(id).is_ok();
        if let Err(error) = self.0.images.release_unknown(known) {
            tracing::warn!(error = chain(&error), "images of former containers stay marked as used");
        }
        for entry in std::fs::read_dir(config.state.join("layers")).into_iter().flatten().flatten() {
            // The node restarted: the record vanished with the tmpfs, the writable layer did not.
            if self.container(&entry.file_name().to_string_lossy()).is_err() {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let live = |id: &str| self.sandbox(id).is_ok_and(|s| s.record.lock().ready);
        if let Err(error) = self.0.network.collect_garbage(live).await {
            tracing::warn!(%error, "addresses of former sandboxes could not be freed");
        }
    }

    pub(crate) fn insert_sandbox(&self, record: SandboxRecord) -> Arc<Sandbox> {
        let id = record.id.clone();
        let sandbox = Arc::new(Sandbox { record: Mutex::new(record), work: tokio::sync::Mutex::default() });
        self.0.objects.write().sandboxes.insert(id, sandbox.clone());
        sandbox
    }

    pub(crate) fn insert_container(&self, container: Arc<Container>) {
        let id = container.record.lock().id.clone();
        self.0.objects.write().containers.insert(id, container);
    }

    pub(crate) fn forget_sandbox(&self, id: &str) {
        self.0.objects.write().sandboxes.remove(id);
    }

    pub(crate) fn forget_container(&self, id: &str) {
        self.0.objects.write().containers.remove(id);
    }

    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Error> {
        find(&self.0.objects.read().sandboxes, "sandbox", id)
    }

    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        find(&self.0.objects.read().containers, "container", id)
    }

    /// Oldest first.
    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        let mut all: Vec<_> = self.0.objects.read().sandboxes.values().cloned().collect();
        all.sort_by_key(|s| s.record.lock().created_at);
        all
    }

    /// Oldest first.
    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = self.0.objects.read().containers.values().cloned().collect();
        all.sort_by_key(|c| c.record.lock().created_at);
        all
    }

    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        self.containers().into_iter().filter(|c| c.record.lock().sandbox == sandbox).collect()
    }
}

/// By id, or by the beginning of one, as `crictl` shows them.
fn find<T>(table: &HashMap<String, Arc<T>>, kind: &'static str, id: &str) -> Result<Arc<T>, Error> {
    if let Some(found) = table.get(id) {
        return Ok(found.clone());
    }
    let mut matching = table.iter().filter(|(key, _)| !id.is_empty() && key.starts_with(id));
    match (matching.next(), matching.next()) {
        (Some((_, found)), None) => Ok(found.clone()),
        _ => Err(Error::NotFound { kind, id: id.to_owned() }),
    }
}

/// 64 hexadecimal digits, as every runtime's ids.
pub(crate) fn new_id() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}
