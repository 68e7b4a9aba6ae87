//! One pod's worker: looks, plans, acts, and tells, until the pod is gone.
//!
//! Owns: the pod's memory and everything under way for it.
//! Called by: the dispatcher, one worker a pod uid.
//! Never: decides anything the plan could decide; what it does itself is bookkeeping.

mod actions;
mod probing;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use minik_api::resources::NODES;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::admission::{self, Refusal};
use crate::context::NodeContext;
use crate::events::PodEvents;
use crate::memory::{Memory, Stage, Termination, Volumes as VolumesState, Why};
use crate::observed::{self, Observed};
use crate::plan::{self, Action};
use crate::pod::Pod;
use crate::probe;
use crate::status;
use crate::status_writer::StatusWriter;
use crate::termination_message::Messages;
use crate::volumes::{Keeper, Volumes};
use actions::Outcome;

/// Looking at a runtime that does not answer is tried again after this.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Verdicts of probes waiting for a worker that is busy looking.
const REPORTS_MAX: usize = 64;
/// Plans in a row without waiting: a pod needs about ten from nothing to running.
const PLANS_IN_A_ROW_MAX: u32 = 100;

/// What the dispatcher tells a worker; newer replaces older.
#[derive(Clone)]
pub struct Inbox {
    pub pod: Arc<Pod>,
    /// The API object is gone.
    pub gone: bool,
    /// Counts what happened in the runtime.
    pub pokes: u64,
}

/// What the node server reads of a worker.
#[derive(Clone)]
pub struct Shown {
    pub pod: Arc<Pod>,
    pub seen: Arc<Observed>,
    pub status: core::PodStatus,
}

pub struct Worker {
    node: Arc<NodeContext>,
    inbox: watch::Receiver<Inbox>,
    shown: watch::Sender<Option<Shown>>,
    pod: Arc<Pod>,
    events: PodEvents,
    memory: Memory,
    seen: Arc<Observed>,
    keeper: Arc<Mutex<Keeper>>,
    volumes: Arc<Volumes>,
    messages: Messages,
    operations: JoinSet<Outcome>,
    /// Cancelled when the pod is to end.
    starting: CancellationToken,
    probes: HashMap<(String, probe::Kind), AbortHandle>,
    reports: (mpsc::Sender<probe::Report>, mpsc::Receiver<probe::Report>),
    writer: StatusWriter,
    /// The status as last published: what the API will say.
    told: Option<core::PodStatus>,
    /// Files of volumes are to be compared with their sources again.
    refresh_due: bool,
    refreshing: bool,
    adopted: bool,
    admission_asked: bool,
}

impl Worker {
    pub fn new(node: Arc<NodeContext>, inbox: watch::Receiver<Inbox>, shown: watch::Sender<Option<Shown>>) -> Worker {
        let pod = inbox.borrow().pod.clone();
        Worker {
            events: PodEvents::new(&node.recorder, &pod),
            writer: StatusWriter::start(node.client.clone()),
            inbox,
            shown,
            pod,
            memory: Memory { node_allocatable: node.allocatable.clone(), ..Memory::default() },
            node,
            seen: Arc::default(),
            keeper: Arc::default(),
            volumes: Arc::default(),
            messages: Messages::default(),
            operations: JoinSet::new(),
            starting: CancellationToken::new(),
            probes: HashMap::new(),
            reports: mpsc::channel(REPORTS_MAX),
            told: None,
            refresh_due: false,
            refreshing: false,
            adopted: false,
            admission_asked: false,
        }
    }

    /// Until the pod is gone from the API and from the node.
    pub async fn run(mut self) {
        let mut in_a_row = 0;
        loop {
            self.read_inbox();
            if let Err(status) = self.look().await {
                tracing::warn!(pod = %self.pod.key, error = status.message(), "the runtime does not answer");
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                continue;
            }
            let now = Timestamp::now();
            self.admit().await;
            let plan = plan::plan(&self.pod_as_told(), &self.seen, &self.memory, now);
            let immediate = plan.actions.iter().any(Action::changes_memory_only);
            for action in plan.actions {
                tracing::debug!(pod = %self.pod.key, ?action, "acting");
                self.act(action, now);
            }
            self.sync_probes();
            self.publish(now);
            if self.is_over() {
                self.remove_everything().await;
                return;
            }
            in_a_row = if immediate { in_a_row + 1 } else { 0 };
            if immediate && in_a_row < PLANS_IN_A_ROW_MAX {
                continue;
            }
            self.wait(plan.wake_at).await;
        }
    }

    fn read_inbox(&mut self) {
        let inbox = self.inbox.borrow_and_update().clone();
        if !Arc::ptr_eq(&inbox.pod, &self.pod) {
            self.refresh_due |= inbox.pod.metadata.labels != self.pod.metadata.labels
                || inbox.pod.metadata.annotations != self.pod.metadata.annotations;
            self.pod = inbox.pod;
        }
        let grace = jiff::SignedDuration::from_secs(self.pod.grace_seconds());
        let deletion_deadline = Timestamp::now() + grace;
        match &mut self.memory.stage {
            Stage::Running if inbox.gone => {
                self.terminate(Termination { why: Why::Deleted, deadline: deletion_deadline });
            }
            Stage::Terminating(t) if inbox.gone || self.pod.is_deleting() => {
                // Asked again with less patience. The object's deletion timestamp is when the grace ends.
                let asked = self.pod.metadata.deletion_timestamp.as_ref().map_or(deletion_deadline, |d| d.0);
                if asked < t.deadline {
                    t.deadline = asked;
                }
            }
            Stage::Running | Stage::Terminating(_) | Stage::Terminated(_) => {}
        }
    }

    fn terminate(&mut self, termination: Termination) {
        tracing::info!(pod = %self.pod.key, why = ?termination.why, "ending");
        self.starting.cancel();
        self.memory.stage = Stage::Terminating(termination);
    }

    async fn look(&mut self) -> Result<(), tonic::Status> {
        let mut seen = observed::observe(&self.node.cri, &self.pod.uid).await?;
        self.messages.fill(&mut seen);
        self.seen = Arc::new(seen);
        self.memory.probes.retain(|id, _| self.seen.by_id(id).is_some());
        self.memory.resized.retain(|id, _| self.seen.by_id(id).is_some());
        self.memory.resizing.retain(|id, _| self.seen.by_id(id).is_some());
        if !self.adopted {
            self.adopted = true;
            self.adopt();
        }
        Ok(())
    }

    /// Asked once: what was let in stays, whatever comes later.
    async fn admit(&mut self) {
        if self.admission_asked || !matches!(self.memory.stage, Stage::Running) || self.pod.phase_is_terminal() {
            return;
        }
        self.admission_asked = true;
        if !self.seen.sandboxes.is_empty() {
            return self.node.room.keep(&self.pod);
        }
        let cached = self.node.node_object.view().get(NODES, "", &self.node.node_name).map(|n| n.value().clone());
        let mut asked = self.ask(&cached.unwrap_or_default());
        // The scheduler may have acted on a change of the Node that has not come here yet.
        if asked.as_ref().is_err_and(Refusal::is_about_the_node)
            && let Ok(node) = self.node.client.get(NODES, "", &self.node.node_name).await
        {
            asked = self.ask(&node);
        }
        if let Err(refusal) = asked {
            self.events.warning(None, &refusal.reason, &refusal.message);
            self.memory.refusal = Some(refusal);
        }
    }

    fn ask(&self, node: &serde_json::Value) -> Result<(), Refusal> {
        let allocatable = serde_json::to_value(&self.node.allocatable).unwrap_or_default();
        match admission::refusal(&self.pod) {
            Some(refusal) => Err(refusal),
            None => self.node.room.enter(&self.pod, node, &allocatable),
        }
    }

    /// Containers that ran before this kubelet did keep their probe results, so that a restart of the kubelet does
    /// not take pods out of their Services.
    fn adopt(&mut self) {
        let told = self.pod.api_status.container_statuses.iter().chain(&self.pod.api_status.init_container_statuses);
        for status in told.flatten() {
            let id = status.container_id.as_deref().and_then(|id| id.split_once("://")).map(|(_, id)| id.to_string());
            let Some(id) = id.filter(|id| self.seen.by_id(id).is_some()) else { continue };
            let success = |yes: bool| yes.then_some(crate::memory::Verdict::Success);
            let results = crate::memory::ProbeResults {
                startup: success(status.started == Some(true)),
                liveness: None,
                readiness: success(status.ready),
            };
            self.memory.probes.insert(id, results);
        }
    }

    /// The pod with what this kubelet last told: the API's copy may lag behind by an event.
    fn pod_as_told(&self) -> Pod {
        let mut pod = Pod::clone(&self.pod);
        if let Some(told) = &self.told {
            pod.api_status = status::newest(&pod.api_status, told);
        }
        pod
    }

    fn publish(&mut self, now: Timestamp) {
        let pod = self.pod_as_told();
        let inputs = status::Inputs {
            pod: &pod,
            seen: &self.seen,
            memory: &self.memory,
            host_ip: self.node.node_ip,
            runtime_name: &self.node.runtime_name,
            now,
        };
        let status = status::pod_status(&inputs);
        // The scheduler gives its room away as soon as it hears of the end: it must be free here before.
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
            || matches!(self.memory.stage, Stage::Terminated(_))
            || self.inbox.borrow().gone
        {
            self.node.room.leave(&self.pod.uid);
        }
        self.writer.publish(&self.pod, status.clone());
        self.shown.send_replace(Some(Shown { pod: self.pod.clone(), seen: self.seen.clone(), status: status.clone() }));
        self.told = Some(status);
    }

    fn is_over(&self) -> bool {
        matches!(self.memory.stage, Stage::Terminated(_)) && self.inbox.borrow().gone
    }

    async fn wait(&mut self, wake_at: Option<Timestamp>) {
        // Before waiting, not after: what made it due may be all that happens for a long time.
        if self.refresh_due && self.volumes_ready() && !self.refreshing {
            self.refresh_volumes();
        }
        let refresh_at = self.keeper.try_lock().ok().and_then(|k| k.refresh_at());
        let wake_at = wake_at.into_iter().chain(refresh_at.filter(|_| self.volumes_ready())).min();
        let sleep: Duration = match wake_at {
            Some(at) => at.duration_since(Timestamp::now()).try_into().unwrap_or_default(),
            None => Duration::MAX,
        };
        let keeper_changed = self.keeper.try_lock().ok().map(|k| k.changed());
        let sources_matter = self.volumes_ready() || matches!(self.memory.volumes, VolumesState::Failed { .. });
        tokio::select! {
            changed = self.inbox.changed() => {
                if changed.is_err() {
                    // The dispatcher is gone: the kubelet ends, and the pod lives on.
                    std::future::pending::<()>().await;
                }
            }
            Some(done) = self.operations.join_next() => match done {
                Ok(outcome) => self.finished(outcome),
                Err(error) => tracing::error!(pod = %self.pod.key, %error, "an operation panicked"),
            },
            Some(report) = self.reports.1.recv() => self.report(report),
            () = async { keeper_changed.expect("guarded").await }, if keeper_changed.is_some() && sources_matter => self.sources_changed(),
            () = sleep_for(sleep) => self.refresh_due |= refresh_at.is_some_and(|at| at <= Timestamp::now()),
        }
    }

    fn volumes_ready(&self) -> bool {
        self.memory.volumes == VolumesState::Ready
    }

    /// Something the pod refers to changed: files follow, and what failed for want of it is tried at once.
    fn sources_changed(&mut self) {
        let now = Timestamp::now();
        self.refresh_due = true;
        if let VolumesState::Failed { retry_at } = &mut self.memory.volumes {
            *retry_at = now;
        }
        for container in self.memory.containers.values_mut() {
            if let Some(failure) = container.failure.as_mut().filter(|f| f.kind == crate::memory::FailureKind::Config) {
                failure.at = Timestamp::UNIX_EPOCH;
            }
        }
    }

    fn report(&mut self, report: probe::Report) {
        let results = self.memory.probes.entry(report.container_id).or_default();
        match report.kind {
            probe::Kind::Startup => results.startup = Some(report.verdict),
            probe::Kind::Liveness => results.liveness = Some(report.verdict),
            probe::Kind::Readiness => results.readiness = Some(report.verdict),
        }
    }
}

async fn sleep_for(duration: Duration) {
    match duration {
        Duration::MAX => std::future::pending().await,
        duration => tokio::time::sleep(duration).await,
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        for (_, probe) in self.probes.drain() {
            probe.abort();
        }
    }
}
