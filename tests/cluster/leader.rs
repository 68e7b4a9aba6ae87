//! Two copies of a controller, of which one leads by a Lease, while their API server is killed and comes back.
//!
//! Owns: an election as client-go has it, on kube-rs, and what must hold meanwhile: one leader, and nothing acknowledged lost.
//! Called by: the run of tests that make what they need.
//! Never: needs a node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::Action;
use kube::runtime::wait::await_condition;
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::OwnTest;
use crate::alone::ApiServer;
use crate::harness::LIMIT;

pub const TESTS: &[(&str, OwnTest)] = &[("leader::one_leads_while_the_api_server_is_killed_and_comes_back", restart)];

/// In client-go's proportions, and long enough that a busy machine does not end a leadership.
const LEASE: Duration = Duration::from_secs(9);
const RENEW_DEADLINE: Duration = Duration::from_secs(6);
const RETRY: Duration = Duration::from_millis(500);
/// Written before the API server is killed, and as many after.
const TASKS: usize = 30;

/// What a candidate tells about itself.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct Told {
    terms: usize,
    failed_renewals: usize,
}

struct Candidate {
    identity: &'static str,
    client: Client,
    leases: Api<Lease>,
    /// The Lease as last seen, and when this process saw it change: clocks are not compared.
    observed: Option<(LeaseSpec, Instant)>,
    told: watch::Sender<Told>,
}

impl Candidate {
    async fn run(mut self) {
        let mut ticks = interval(RETRY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.acquires_or_renews().await.unwrap_or(false) {
                continue;
            }
            self.told.send_modify(|t| t.terms += 1);
            let work = AbortOnDropHandle::new(tokio::spawn(work(self.client.clone(), self.identity)));
            let mut renewed = Instant::now();
            while renewed.elapsed() < RENEW_DEADLINE {
                ticks.tick().await;
                match timeout(RENEW_DEADLINE, self.acquires_or_renews()).await {
                    Ok(Ok(true)) => renewed = Instant::now(),
                    _ => self.told.send_modify(|t| t.failed_renewals += 1),
                }
            }
            drop(work);
        }
    }

    async fn acquires_or_renews(&mut self) -> kube::Result<bool> {
        let now = Some(MicroTime(Timestamp::now()));
        let mut mine = LeaseSpec {
            holder_identity: Some(self.identity.into()),
            lease_duration_seconds: Some(LEASE.as_secs() as i32),
            acquire_time: now.clone(),
            renew_time: now,
            lease_transitions: Some(0),
            ..Default::default()
        };
        let Some(mut lease) = self.leases.get_opt("lock").await? else {
            let metadata = ObjectMeta { name: Some("lock".into()), ..Default::default() };
            self.leases.create(&PostParams::default(), &Lease { metadata, spec: Some(mine) }).await?;
            return Ok(true);
        };
        let held = lease.spec.take().unwrap_or_default();
        if self.observed.as_ref().is_none_or(|(seen, _)| *seen != held) {
            self.observed = Some((held.clone(), Instant::now()));
        }
        let since = self.observed.as_ref().map_or(Duration::ZERO, |(_, at)| at.elapsed());
        let is_mine = held.holder_identity.as_deref() == Some(self.identity);
        if !is_mine && held.holder_identity.is_some() && since < LEASE {
            return Ok(false);
        }
        mine.lease_transitions = Some(held.lease_transitions.unwrap_or(0) + i32::from(!is_mine));
        if is_mine {
            mine.acquire_time = held.acquire_time;
        }
        // With the version that was read: of two that try, one is refused.
        lease.spec = Some(mine);
        self.leases.replace("lock", &PostParams::default(), &lease).await?;
        Ok(true)
    }
}

/// Marks each task with who did it.
async fn work(client: Client, identity: &'static str) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let reconcile = move |task: Arc<ConfigMap>, maps: Arc<Api<ConfigMap>>| async move {
        if task.data.as_ref().is_none_or(|d| !d.contains_key("done")) {
            let done = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"done": identity}});
            maps.patch(&task.name_any(), &PatchParams::apply(identity), &Patch::Apply(done)).await?;
        }
        Ok::<_, kube::Error>(Action::await_change())
    };
    Controller::new(maps.clone(), watcher::Config::default().labels("task"))
        .run(reconcile, |_, _, _| Action::requeue(RETRY), Arc::new(maps))
        .for_each(|_| async {})
        .await;
}

fn candidate(identity: &'static str, client: &Client) -> (watch::Receiver<Told>, tokio::task::JoinHandle<()>) {
    let (told, telling) = watch::channel(Told::default());
    let leases = Api::default_namespaced(client.clone());
    let running = Candidate { identity, client: client.clone(), leases, observed: None, told }.run();
    (telling, tokio::spawn(running))
}

/// Creates tasks one after the other; a number is passed on once its task was acknowledged.
async fn write_tasks(client: Client, acknowledged: watch::Sender<usize>) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut retry = interval(Duration::from_millis(20));
    for number in 0..2 * TASKS {
        let metadata = ObjectMeta {
            name: Some(format!("task-{number}")),
            labels: Some(BTreeMap::from([("task".into(), "yes".into())])),
            ..Default::default()
        };
        let task = ConfigMap { metadata, ..Default::default() };
        loop {
            match maps.create(&PostParams::default(), &task).await {
                Ok(_) => break,
                // Done before the connection broke, though nobody heard of it.
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => break,
                Err(_) => retry.tick().await,
            };
        }
        acknowledged.send_replace(number + 1);
    }
}

async fn until<T>(what: &str, told: &mut watch::Receiver<T>, wanted: impl FnMut(&T) -> bool) -> Result<()> {
    timeout(LIMIT, told.wait_for(wanted)).await.with_context(|| format!("{what}: not within {LIMIT:?}"))??;
    Ok(())
}

/// Who did a task, once it is done.
async fn done_by(client: &Client, task: &str) -> Result<String> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let is_done = |map: Option<&ConfigMap>| map.and_then(|m| m.data.as_ref()).is_some_and(|d| d.contains_key("done"));
    let map =
        timeout(LIMIT, await_condition(maps, task, is_done)).await.with_context(|| format!("{task} is not done"))??;
    Ok(map.and_then(|m| m.data?.remove("done")).unwrap_or_default())
}

fn restart() -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut server = ApiServer::start()?;
        let kubeconfig = Kubeconfig::read_from(server.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let (mut first, leading) = candidate("first", &client);
        until("the first leads", &mut first, |t| t.terms == 1).await?;
        let (mut second, _waiting) = candidate("second", &client);
        let (acknowledge, mut acknowledged) = watch::channel(0);
        let writing = tokio::spawn(write_tasks(client.clone(), acknowledge));

        until("half of the tasks are acknowledged", &mut acknowledged, |n| *n >= TASKS).await?;
        server.kill()?;
        // Away for at least one renewal, and for less than what ends a leadership.
        until("a renewal fails", &mut first, |t| t.failed_renewals > 0).await?;
        server.begin()?;
        timeout(LIMIT, writing).await.context("the tasks are not all acknowledged")??;
        for number in 0..2 * TASKS {
            let by = done_by(&client, &format!("task-{number}")).await?;
            ensure!(by == "first", "task-{number} was done by {by:?}");
        }
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let all = maps.list(&ListParams::default().labels("task")).await?.items.len();
        ensure!(all == 2 * TASKS, "{all} tasks");
        let leases: Api<Lease> = Api::default_namespaced(client.clone());
        let lock = leases.get("lock").await?.spec.context("a spec")?;
        ensure!(lock.holder_identity.as_deref() == Some("first"), "{lock:?}");
        ensure!((lock.lease_transitions, first.borrow().terms, second.borrow().terms) == (Some(0), 1, 0), "{lock:?}");

        // Gone without a word, as a killed process is: the other waits for the Lease to end.
        leading.abort();
        until("the second leads", &mut second, |t| t.terms == 1).await?;
        let transitions = leases.get("lock").await?.spec.and_then(|s| s.lease_transitions);
        ensure!(transitions == Some(1), "transitions: {transitions:?}");
        let labels = json!({"metadata": {"name": "last", "labels": {"task": "yes"}}});
        maps.create(&PostParams::default(), &serde_json::from_value(labels)?).await?;
        let by = done_by(&client, "last").await?;
        ensure!(by == "second", "the last task was done by {by:?}");
        Ok(())
    })
}
