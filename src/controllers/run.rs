//! Starts all controllers on one cache.
//!
//! Owns: the configuration, and which controllers there are.
//! Called by: whoever wires a control plane.
//! Never: knows what a controller does.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use minik_api::resources::{
    APISERVICES, CONFIGMAPS, CUSTOMRESOURCEDEFINITIONS, HORIZONTALPODAUTOSCALERS, PODDISRUPTIONBUDGETS, RESOURCEQUOTAS,
    SECRETS, SERVICEACCOUNTS, STORAGEVERSIONMIGRATIONS,
};
use minik_client::{Cache, Client, DriverConfig, EventRecorder, Executor, Reconciler, Selection, Tasks, drive};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::autoscaler::Autoscaler;
use crate::bootstrap_tokens::{self, BootstrapSigner, TokenCleaner};
use crate::certificate_approver::CertificateApprover;
use crate::certificate_authority::Authority;
use crate::certificate_cleaner::CertificateCleaner;
use crate::certificate_signer::CertificateSigner;
use crate::claim_binder::ClaimBinder;
use crate::claim_expansion::ClaimExpansion;
use crate::claim_protection::ClaimProtection;
use crate::cluster_role_aggregation::ClusterRoleAggregation;
use crate::cronjob::CronJob;
use crate::daemonset::DaemonSet;
use crate::deployment::Deployment;
use crate::discovery::{self, Discovered, Watched};
use crate::disruption::{Disruption, StaleDisruption};
use crate::endpoint_slice_mirroring::EndpointSliceMirroring;
use crate::endpoint_slices::EndpointSlices;
use crate::endpoints::Endpoints;
use crate::ephemeral_volumes::EphemeralVolumes;
use crate::garbage_collector::GarbageCollector;
use crate::identity::{Clients, Identities};
use crate::job::Job;
use crate::namespace::NamespaceEnd;
use crate::namespace_starters::{DefaultServiceAccount, RootCa};
use crate::node_ipam::{Cidr, NodeIpam};
use crate::node_lifecycle::NodeLifecycle;
use crate::node_ttl::NodeTtl;
use crate::pod_gc::PodGc;
use crate::policy_status::PolicyStatus;
use crate::replicaset::ReplicaSet;
use crate::resource_claims::{ClaimsInUse, ClaimsOfPods};
use crate::resource_quota::{Over, ResourceQuota};
use crate::service_account_tokens::{self, ServiceAccountTokens};
use crate::service_cidr::ServiceCidr;
use crate::statefulset::StatefulSet;
use crate::storage_migration::StorageMigration;
use crate::taint_eviction::TaintEviction;
use crate::token_signer::TokenSigner;
use crate::trust_bundle::TrustBundle;
use crate::volume_binder::VolumeBinder;
use crate::volume_protection::{AttributesClassProtection, VolumeProtection};

/// Until what was begun is written, after the end was asked for.
const DRAIN_SECONDS_MAX: u64 = 5;
/// One resource that cannot be listed must not stop the garbage collector for all others; it asks before it deletes.
const SYNC_WAIT_MAX: Duration = Duration::from_secs(30);

pub struct Config {
    pub client: Client,
    /// As whom the controllers write.
    pub identities: Identities,
    /// What goes into the ConfigMap `kube-root-ca.crt` of each Namespace.
    pub ca_pem: String,
    /// Signs certificate requests; without one nothing is signed.
    pub authority: Option<Authority>,
    /// Signs tokens in Secrets of service accounts; without one such Secrets stay empty.
    pub token_signer: Option<TokenSigner>,
    /// Addresses of Pods; a /24 of it for each Node.
    pub cluster_cidr: Cidr,
    pub node_prefix: u8,
    /// How long a kubelet may be silent before its Node counts as unreachable.
    pub node_grace: SignedDuration,
}

impl Config {
    pub fn new(client: Client, ca_pem: String) -> Config {
        let cluster_cidr = Cidr { base: [10, 244, 0, 0].into(), prefix: 16 };
        Config {
            client,
            identities: Identities::One,
            ca_pem,
            authority: None,
            token_signer: None,
            cluster_cidr,
            node_prefix: 24,
            node_grace: SignedDuration::from_secs(40),
        }
    }
}

/// Runs until cancelled.
pub async fn run(mut config: Config, cancel: CancellationToken) {
    let tasks = Tasks::new(cancel.clone());
    let client = config.client.clone();
    let identities = std::mem::replace(&mut config.identities, Identities::One);
    let clients = Arc::new(Clients::new(client.clone(), identities));
    on_secrets(&clients, &tasks, config.token_signer.take(), &config.ca_pem);
    let reconcilers = reconcilers(config);
    let needed = reconcilers.iter().flat_map(|r| r.watches().iter().copied());
    let discovering = [
        CUSTOMRESOURCEDEFINITIONS,
        APISERVICES,
        RESOURCEQUOTAS,
        HORIZONTALPODAUTOSCALERS,
        PODDISRUPTIONBUDGETS,
        STORAGEVERSIONMIGRATIONS,
    ];
    let resources = needed.chain(discovering);
    let cache = resources.fold(Cache::builder(client.clone()), |builder, r| builder.watch(r)).start(&tasks);
    tasks.spawn(over_all_resources(clients.clone(), cache.clone(), tasks.clone()));
    for reconciler in reconcilers {
        let recorder = EventRecorder::new(client.clone(), component(reconciler.name()), "", &tasks);
        let executor = Executor { client: clients.of(reconciler.name()), cache: cache.clone(), recorder };
        tasks.spawn(drive(executor, reconciler, DriverConfig::default()));
    }
    info!("controllers started");
    cancel.cancelled().await;
    tasks.drained(Duration::from_secs(DRAIN_SECONDS_MAX)).await;
}

/// Controllers of a few Secrets, on caches that hold no others: Secrets may be large and are nobody else's business.
fn on_secrets(clients: &Clients, tasks: &Tasks, signer: Option<TokenSigner>, ca_pem: &str) {
    let client = &clients.manager;
    let of_type = |kind: &str| Selection { field_selector: format!("type={kind}"), ..Selection::default() };
    let start = |cache: &Cache, reconciler: Arc<dyn Reconciler>| {
        let recorder = EventRecorder::new(client.clone(), component(reconciler.name()), "", tasks);
        let executor = Executor { client: clients.of(reconciler.name()), cache: cache.clone(), recorder };
        tasks.spawn(drive(executor, reconciler, DriverConfig::default()));
    };
    if let Some(signer) = signer {
        let cache = Cache::builder(client.clone())
            .watch(SERVICEACCOUNTS)
            .watch_as(SECRETS, of_type(service_account_tokens::TYPE))
            .start(tasks);
        start(&cache, Arc::new(ServiceAccountTokens { signer, ca_pem: ca_pem.into() }));
    }
    let tokens = Selection { namespace: bootstrap_tokens::NAMESPACE.into(), ..of_type(bootstrap_tokens::TYPE) };
    let info = Selection {
        namespace: bootstrap_tokens::INFO_NAMESPACE.into(),
        field_selector: format!("metadata.name={}", bootstrap_tokens::INFO),
        ..Selection::default()
    };
    let cache = Cache::builder(client.clone()).watch_as(SECRETS, tokens).watch_as(CONFIGMAPS, info).start(tasks);
    start(&cache, Arc::new(TokenCleaner));
    start(&cache, Arc::new(BootstrapSigner));
}

/// Garbage collection, the end of Namespaces, quotas, autoscaling and budgets: most on a cache of the metadata of all resources there are.
async fn over_all_resources(clients: Arc<Clients>, cache: Cache, tasks: Tasks) {
    let client = clients.manager.clone();
    let (found, discovered) = watch::channel(Arc::new(Discovered::default()));
    tasks.spawn(discovery::follow(client.clone(), cache.clone(), found));
    let metadata = Cache::builder(client.clone()).start(&tasks);
    let mut changed = discovered.clone();
    if changed.changed().await.is_err() {
        return;
    }
    adjust(&metadata, &discovered);
    let config = DriverConfig { workers: 32, sync_wait_max: Some(SYNC_WAIT_MAX), ..DriverConfig::default() };
    let quota = |over| ResourceQuota { main: cache.clone(), metadata: metadata.clone(), over };
    let migration = StorageMigration { discovered: discovered.clone(), metadata: metadata.clone() };
    let all: [(Arc<dyn Reconciler>, &Cache); 7] = [
        (Arc::new(migration), &cache),
        (Arc::new(GarbageCollector { discovered: discovered.clone() }), &metadata),
        (Arc::new(NamespaceEnd { discovered: discovered.clone(), namespaces: cache.clone() }), &metadata),
        (Arc::new(quota(Over::Content)), &cache),
        (Arc::new(quota(Over::Numbers)), &metadata),
        (Arc::new(Autoscaler::new(discovered.clone())), &cache),
        (Arc::new(Disruption { discovered: discovered.clone() }), &cache),
    ];
    for (reconciler, over) in all {
        let recorder = EventRecorder::new(client.clone(), component(reconciler.name()), "", &tasks);
        let executor = Executor { client: clients.of(reconciler.name()), cache: over.clone(), recorder };
        tasks.spawn(drive(executor, reconciler, config.clone()));
    }
    while changed.changed().await.is_ok() {
        adjust(&metadata, &discovered);
    }
}

/// Caches what can be owned and deleted, and forgets what is no longer served.
fn adjust(metadata: &Cache, discovered: &Watched) {
    let discovered = discovered.borrow().clone();
    // Events come and go by the thousand and own nothing.
    let wanted = |k: &&discovery::Known| k.id.plural != "events" && k.can("list") && k.can("watch") && k.can("delete");
    let selection = Selection { metadata_only: true, ..Selection::default() };
    for known in discovered.resources.iter().filter(wanted) {
        metadata.add(known.id, selection.clone());
    }
    for id in metadata.resources() {
        let failed = discovered.failed.iter().any(|f| *f == id.api_version());
        if !failed && discovered.by_id(id).is_none() {
            metadata.remove(id);
        }
    }
}

fn reconcilers(config: Config) -> Vec<Arc<dyn Reconciler>> {
    let mut all: Vec<Arc<dyn Reconciler>> = vec![
        Arc::new(NodeIpam { cluster: config.cluster_cidr, node_prefix: config.node_prefix }),
        Arc::new(TrustBundle { pem: config.ca_pem.clone() }),
        Arc::new(RootCa { pem: config.ca_pem }),
        Arc::new(DefaultServiceAccount),
        Arc::new(Deployment),
        Arc::new(ReplicaSet::Set),
        Arc::new(ReplicaSet::Controller),
        Arc::new(DaemonSet),
        Arc::new(StatefulSet),
        Arc::new(Job),
        Arc::new(CronJob),
        Arc::new(StaleDisruption),
        Arc::new(PodGc::new(Timestamp::now())),
        Arc::new(ClusterRoleAggregation),
        Arc::new(Endpoints),
        Arc::new(EndpointSlices),
        Arc::new(EndpointSliceMirroring),
        Arc::new(NodeLifecycle { started: Timestamp::now(), grace: config.node_grace }),
        Arc::new(TaintEviction::default()),
        Arc::new(ClaimBinder),
        Arc::new(VolumeBinder),
        Arc::new(ClaimProtection),
        Arc::new(VolumeProtection),
        Arc::new(AttributesClassProtection),
        Arc::new(ClaimExpansion),
        Arc::new(EphemeralVolumes),
        Arc::new(ClaimsOfPods),
        Arc::new(ClaimsInUse),
        Arc::new(NodeTtl),
        Arc::new(PolicyStatus),
        Arc::new(ServiceCidr),
        Arc::new(CertificateApprover),
        Arc::new(CertificateCleaner::Signing),
        Arc::new(CertificateCleaner::Pods),
    ];
    if let Some(authority) = config.authority {
        all.push(Arc::new(CertificateSigner { authority }));
    }
    all
}

/// What `kubectl describe` shows under From.
fn component(name: &'static str) -> &'static str {
    match name {
        "deployment" => "deployment-controller",
        "replicaset" => "replicaset-controller",
        "replicationcontroller" => "replication-controller",
        "daemonset" => "daemonset-controller",
        "statefulset" => "statefulset-controller",
        "job" => "job-controller",
        "cronjob" => "cronjob-controller",
        "node-ipam" => "cidrAllocator",
        "node-lifecycle" => "node-controller",
        "endpointslice" => "endpoint-slice-controller",
        "endpoints" => "endpoint-controller",
        "disruption" => "controllermanager",
        "persistentvolume-binder" | "persistentvolumeclaim-binder" => "persistentvolume-controller",
        "ephemeral-volume" => "ephemeral_volume",
        "volume-expand" => "volume_expand",
        "garbage-collector" => "garbage-collector-controller",
        other => other,
    }
}
