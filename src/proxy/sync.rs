//! Keeps the kernel in step with the API: changes come in, a plan is made, the difference is applied.
//!
//! Owns: the cache of what was read, the plan last applied, and the name of the table it is in.
//! Called by: `node`, through `run`.
//! Never: decides a rule (`ruleset` does) or polls.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use minik_api::ObjectKey;
use minik_api::resources::{ENDPOINTSLICES, NODES, SERVICES};
use minik_client::{Cache, Change, Client, Object, Tasks};
use minik_network::nft_apply::Liveness;
use minik_network::{Ipv4Cidr, nft_apply};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::conntrack;
use crate::endpoints::{Endpoints, SERVICE_NAME_LABEL, Target};
use crate::health::{HealthPorts, serve_healthz};
use crate::node_routes;
use crate::ruleset::{self, Node, Plan};
use crate::service::Service;

pub struct Config {
    pub client: Client,
    pub node_name: String,
    /// The addresses NodePorts answer on.
    pub node_ips: Vec<Ipv4Addr>,
    /// All pods' addresses, 10.244.0.0/16.
    pub cluster_cidr: Ipv4Cidr,
    /// Service addresses that the node answers itself: cluster DNS.
    pub answered_here: Vec<Ipv4Addr>,
    /// Where `/healthz` answers, kube-proxy's 0.0.0.0:10256; `None` for nowhere.
    pub healthz: Option<SocketAddr>,
}

/// A table is built under the name that is free and swapped in, so that a new process takes over from a former one
/// without a moment in which a Service does not answer.
const TABLES: [&str; 2] = ["minik-proxy-a", "minik-proxy-b"];

/// After a refused change the whole table is written anew, at first at once and then not more often than this.
const RETRY: Duration = Duration::from_secs(2);

/// Tasks get this long to end after cancellation.
const DRAIN: Duration = Duration::from_secs(1);

/// Runs until cancelled; what fails is tried again. The rules stay when it ends: Services go on working while the
/// process restarts.
pub async fn run(config: Config, cancel: CancellationToken) -> Result<(), Infallible> {
    let tasks = Tasks::new(cancel.child_token());
    let cache = Cache::builder(config.client.clone()).watch(SERVICES).watch(ENDPOINTSLICES).watch(NODES).start(&tasks);
    let (ready, is_ready) = watch::channel(false);
    if let Some(address) = config.healthz {
        tasks.spawn(serve_healthz(address, is_ready));
    }
    tasks.spawn(node_routes::run(cache.clone(), config.node_name.clone(), config.cluster_cidr));
    tasks.spawn(Sync::new(config, cache, ready).run());
    cancel.cancelled().await;
    tasks.drained(DRAIN).await;
    Ok(())
}

/// What was read of the API, by Service.
#[derive(Default)]
struct State {
    services: BTreeMap<ObjectKey, Service>,
    /// Service -> slice's name -> its endpoints.
    slices: BTreeMap<ObjectKey, BTreeMap<String, Endpoints>>,
    /// `slices`, merged.
    endpoints: BTreeMap<ObjectKey, Endpoints>,
    zone: String,
}

impl State {
    fn take(&mut self, change: &Change, own_node: &str) {
        match change.resource {
            SERVICES => match change.new.as_deref().and_then(|object| Service::read(object)) {
                Some(service) => drop(self.services.insert(change.key.clone(), service)),
                None => drop(self.services.remove(&change.key)),
            },
            ENDPOINTSLICES => self.take_slice(change),
            NODES if change.key.name == own_node => {
                let zone = change
                    .new
                    .as_deref()
                    .and_then(|node| node["metadata"]["labels"]["topology.kubernetes.io/zone"].as_str());
                self.zone = zone.unwrap_or("").to_owned();
            }
            _ => {}
        }
    }

    fn take_slice(&mut self, change: &Change) {
        let service_of = |object: &Object| {
            let name = object["metadata"]["labels"][SERVICE_NAME_LABEL].as_str()?;
            Some(ObjectKey::new(change.key.namespace.clone(), name))
        };
        // The label may have changed, so the old owner loses the slice before the new one gets it.
        if let Some(service) = change.old.as_deref().and_then(service_of) {
            if let Some(slices) = self.slices.get_mut(&service) {
                slices.remove(&change.key.name);
            }
            self.merge(&service);
        }
        if let Some((service, object)) = change.new.as_deref().and_then(|object| Some((service_of(object)?, object))) {
            let slices = self.slices.entry(service.clone()).or_default();
            slices.insert(change.key.name.clone(), Endpoints::read(object));
            self.merge(&service);
        }
    }

    fn merge(&mut self, service: &ObjectKey) {
        let mut merged = Endpoints::default();
        self.slices.get(service).into_iter().flat_map(BTreeMap::values).for_each(|slice| merged.merge(slice));
        if merged.is_empty() && self.slices.get(service).is_none_or(BTreeMap::is_empty) {
            self.slices.remove(service);
            self.endpoints.remove(service);
        } else {
            self.endpoints.insert(service.clone(), merged);
        }
    }
}

struct Sync {
    node: Node,
    cache: Cache,
    ready: watch::Sender<bool>,
    state: State,
    /// What the kernel has, and under which name; `None` before the first plan and after a refused change.
    applied: Option<(&'static str, Plan)>,
    health: HealthPorts,
}

impl Sync {
    fn new(config: Config, cache: Cache, ready: watch::Sender<bool>) -> Sync {
        let node = Node {
            name: config.node_name,
            zone: String::new(),
            addresses: config.node_ips.into_iter().collect(),
            cluster_cidr: config.cluster_cidr,
            answered_here: config.answered_here.into_iter().collect(),
        };
        Sync { node, cache, ready, state: State::default(), applied: None, health: HealthPorts::default() }
    }

    async fn run(mut self) {
        let mut changes = self.cache.changes();
        // A plan from half of the objects would refuse Services whose endpoints are still to come.
        self.cache.synced().await;
        loop {
            while let Some(change) = changes.try_recv() {
                self.state.take(&change, &self.node.name);
            }
            self.node.zone.clone_from(&self.state.zone);
            let next = if self.apply().await {
                Some(changes.recv().await)
            } else {
                tokio::time::timeout(RETRY, changes.recv()).await.ok()
            };
            if let Some(change) = next {
                self.state.take(&change, &self.node.name);
            }
        }
    }

    /// Brings the kernel to the current plan. False when it must be tried again.
    async fn apply(&mut self) -> bool {
        let start = Instant::now();
        let none = Endpoints::default();
        let with_endpoints = |(key, service)| (service, self.state.endpoints.get(key).unwrap_or(&none));
        let plan = ruleset::plan(&self.node, self.state.services.iter().map(with_endpoints));
        let planned = start.elapsed();
        let outcome = match self.applied.take() {
            Some((table, before)) if before == plan => {
                self.applied = Some((table, before));
                return true;
            }
            Some((table, before)) => match nft_apply::update(table, &before.table, &plan.table).await {
                Ok(applied) => Ok((table, applied, before)),
                Err(error) => {
                    // Somebody else touched the table, or flushed everything: start over with a new one.
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a rule change was refused; writing all rules anew"
                    );
                    swap_in(&plan).await.map(|(table, applied)| (table, applied, Plan::default()))
                }
            },
            None => swap_in(&plan).await.map(|(table, applied)| (table, applied, Plan::default())),
        };
        match outcome {
            Ok((table, applied, before)) => {
                tracing::debug!(
                    table,
                    changes = applied.changes,
                    transactions = applied.transactions,
                    planned_us = planned.as_micros(),
                    applied_us = (start.elapsed() - planned).as_micros(),
                    "Service rules applied"
                );
                self.finish(table, &before, plan).await;
                true
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "Service rules could not be written; will retry"
                );
                false
            }
        }
    }

    /// What follows once packets meet the new rules.
    async fn finish(&mut self, table: &'static str, before: &Plan, plan: Plan) {
        let stale = conntrack::touched(&before.udp, &plan.udp);
        match conntrack::forget_stale(&stale).await {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "stale UDP connections forgotten"),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "stale UDP connections remain"),
        }
        for (map, targets) in &plan.learned {
            let lost = before.learned.get(map).is_some_and(|known| !known.is_subset(targets));
            if lost {
                forget_learned(table, map, targets).await;
            }
        }
        self.health.update(&plan.health).await;
        self.applied = Some((table, plan));
        self.ready.send_replace(true);
    }
}

/// Writes the whole plan under the name that is not live, and takes the other table's place.
async fn swap_in(plan: &Plan) -> Result<(&'static str, nft_apply::Applied), nft_apply::Error> {
    let present = nft_apply::tables().await?;
    let is_live = |name: &&&str| present.get(**name) == Some(&Liveness::Live);
    let replaced: Vec<String> = TABLES.iter().filter(is_live).map(|name| (*name).to_owned()).collect();
    let free = TABLES.iter().find(|name| !is_live(name)).unwrap_or(&TABLES[0]);
    let applied = nft_apply::swap_in(free, &plan.table, &replaced).await?;
    Ok((free, applied))
}

/// Clients that were bound to an endpoint which is gone get another.
async fn forget_learned(table: &str, map: &str, targets: &BTreeSet<Target>) {
    match nft_apply::forget_learned(table, map, targets).await {
        Ok(0) => {}
        Ok(count) => tracing::debug!(map, count, "clients freed from endpoints that are gone"),
        Err(error) => {
            tracing::warn!(
                map,
                error = &error as &dyn std::error::Error,
                "clients stay bound to endpoints that are gone"
            );
        }
    }
}
