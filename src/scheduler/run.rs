//! The scheduler's loop: changes in, bindings out.
//!
//! Owns: what a change means for the picture and the queue; binding, of volumes too; the PodScheduled condition and its
//! Events.
//! Called by: whoever wires a control plane.
//! Never: waits for one binding before choosing for the next Pod.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use minik_api::resources::{
    CSIDRIVERS, CSINODES, CSISTORAGECAPACITIES, NAMESPACES, NODES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES,
    PODDISRUPTIONBUDGETS, PODS, REPLICASETS, REPLICATIONCONTROLLERS, SERVICES, STATEFULSETS, STORAGECLASSES,
    VOLUMEATTACHMENTS,
};
use minik_api::volume_binding::SELECTED_NODE;
use minik_api::{ObjectKey, ResourceId, object};
use minik_client::{Cache, Change, Client, DeleteParams, EventRecorder, EventType, Object, Patch, Tasks};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::choose::{Choice, Misfit, choose};
use crate::cluster::{Cluster, NodeChange};
use crate::pod::{Pod, is_pending};
use crate::preempt::{Budget, Preemption, ineligible, preempt};
use crate::queue::{Happened, Queue};
use crate::volumes::{Bindings, PodVolumes, Progress, progress};

/// Bindings in flight; each waits for one durable write, which the API server groups.
const BINDINGS_MAX: usize = 64;
/// How long a Pod's volumes may take to be bound or provisioned; upstream's number.
const VOLUMES_WAIT_MAX: Duration = Duration::from_secs(600);
const WATCHED: [ResourceId; 15] = [
    PODDISRUPTIONBUDGETS,
    PODS,
    NODES,
    NAMESPACES,
    SERVICES,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    STATEFULSETS,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    STORAGECLASSES,
    CSINODES,
    CSIDRIVERS,
    CSISTORAGECAPACITIES,
    VOLUMEATTACHMENTS,
];

pub struct Config {
    pub client: Client,
    /// Pods with this `spec.schedulerName` are ours.
    pub scheduler_name: String,
    /// Seed of the tie-break between equal Nodes: the same seed and cluster give the same choice.
    pub seed: u64,
}

impl Config {
    pub fn new(client: Client) -> Config {
        Config { client, scheduler_name: "default-scheduler".into(), seed: rand::random() }
    }
}

/// Runs until cancelled.
pub async fn run(config: Config, cancel: CancellationToken) {
    let tasks = Tasks::new(cancel.clone());
    let builder = WATCHED.into_iter().fold(Cache::builder(config.client.clone()), |b, r| b.watch(r));
    let cache = builder.start(&tasks);
    let recorder = EventRecorder::new(config.client.clone(), &config.scheduler_name, "", &tasks);
    let (done, results) = mpsc::channel(BINDINGS_MAX);
    let scheduler = Scheduler {
        random: SmallRng::seed_from_u64(config.seed),
        config,
        cluster: Cluster::default(),
        queue: Queue::default(),
        recorder,
        start: 0,
        done,
        binding: 0,
        budgets: HashMap::new(),
        volumes: HashMap::new(),
        cache: cache.clone(),
    };
    cancel.run_until_cancelled(scheduler.run(results)).await;
    tasks.drained(std::time::Duration::from_secs(5)).await;
}

/// How something that was written for a Pod ended.
enum Done {
    /// Its binding; the error says why not.
    Bound { uid: String, error: Option<String> },
    /// What its volumes need, as it was written.
    VolumesAsked { uid: String, result: Result<Bindings, String> },
}

/// A Pod whose Node is chosen and whose volumes are being bound or provisioned.
struct AwaitsVolumes {
    pod: Arc<Pod>,
    node: String,
    /// What is promised to it while it waits.
    promised: Bindings,
    /// As the API server answered; None until then.
    written: Option<Bindings>,
    until: Instant,
}

struct Scheduler {
    config: Config,
    cluster: Cluster,
    queue: Queue,
    recorder: EventRecorder,
    random: SmallRng,
    start: usize,
    done: mpsc::Sender<Done>,
    binding: usize,
    budgets: HashMap<ObjectKey, Budget>,
    /// By uid of the Pod.
    volumes: HashMap<String, AwaitsVolumes>,
    cache: Cache,
}

impl Scheduler {
    async fn run(mut self, mut results: mpsc::Receiver<Done>) {
        let mut changes = self.cache.changes();
        self.cache.synced().await;
        info!("scheduling");
        loop {
            while let Some(change) = changes.try_recv() {
                self.observe(&change);
            }
            if self.binding < BINDINGS_MAX
                && let Some((uid, pod)) = self.queue.pop()
            {
                self.schedule(&uid, pod);
                // So that answers and changes are taken in between two Pods however many wait.
                tokio::task::yield_now().await;
                while let Ok(result) = results.try_recv() {
                    self.finished(result);
                }
                continue;
            }
            let wake = self.queue.next_wake().into_iter().chain(self.volumes.values().map(|w| w.until)).min();
            tokio::select! {
                change = changes.recv() => self.observe(&change),
                Some(result) = results.recv() => self.finished(result),
                () = sleep_until(wake) => {
                    self.queue.wake(Instant::now());
                    self.look_at_volumes(|_| true);
                }
            }
        }
    }

    fn observe(&mut self, change: &Change) {
        match change.resource {
            PODS => self.observe_pod(change),
            NODES => match &change.new {
                Some(node) => {
                    if self.cluster.observe_node(node) == NodeChange::Relevant {
                        self.queue.happened(Happened::NodeChanged, Instant::now());
                    }
                }
                None => self.cluster.forget_node(&change.key.name),
            },
            NAMESPACES => {
                let labels = change.new.as_ref().map(|n| &n["metadata"]["labels"]);
                self.cluster.observe_namespace(&change.key.name, labels);
            }
            PODDISRUPTIONBUDGETS => match &change.new {
                Some(budget) => drop(self.budgets.insert(change.key.clone(), Budget::new(budget))),
                None => drop(self.budgets.remove(&change.key)),
            },
            PERSISTENTVOLUMECLAIMS => {
                self.queue.claim_changed(&change.key);
                let key = &change.key;
                self.look_at_volumes(|pod| pod.claim_keys().any(|k| k == *key));
            }
            PERSISTENTVOLUMES => {
                self.queue.happened(Happened::StorageChanged, Instant::now());
                self.look_at_volumes(|_| true);
            }
            STORAGECLASSES | CSINODES | CSIDRIVERS | CSISTORAGECAPACITIES | VOLUMEATTACHMENTS => {
                self.queue.happened(Happened::StorageChanged, Instant::now());
            }
            SERVICES => match (&change.old, &change.new) {
                (_, Some(service)) => self.cluster.selectors.observe_service(service),
                (Some(service), None) => self.cluster.selectors.forget_service(service),
                (None, None) => {}
            },
            _ => match (&change.old, &change.new) {
                (_, Some(owner)) => self.cluster.selectors.observe_owner(owner),
                (Some(owner), None) => self.cluster.selectors.forget_owner(owner),
                (None, None) => {}
            },
        }
    }

    fn observe_pod(&mut self, change: &Change) {
        let now = Instant::now();
        let new_uid = change.new.as_ref().map_or("", |p| object::uid(p));
        if let Some(old) = &change.old
            && object::uid(old) != new_uid
        {
            self.queue.remove(object::uid(old));
            self.cluster.denominate(object::uid(old));
            self.forget_volumes(object::uid(old));
            if self.cluster.forget_pod(object::uid(old)) {
                self.queue.happened(Happened::RoomFreed, now);
            }
        }
        let Some(pod) = &change.new else { return };
        if is_pending(pod, &self.config.scheduler_name) {
            // Ours and on its way: the binding's answer or the next change decides.
            if !self.cluster.is_placed(new_uid) {
                self.queue.set(new_uid, pod.clone());
            }
            return;
        }
        self.queue.remove(new_uid);
        self.cluster.denominate(new_uid);
        let known = self.cluster.is_placed(new_uid);
        if self.cluster.observe_pod(pod) {
            self.queue.happened(Happened::RoomFreed, now);
        } else if !known && self.cluster.is_placed(new_uid) {
            self.queue.happened(Happened::PodPlaced, now);
        }
    }

    fn schedule(&mut self, uid: &str, object: Arc<Object>) {
        let pod = Arc::new(Pod::new(object));
        self.cluster.storage.view = self.cache.view();
        match choose(&pod, &self.cluster, &mut self.start, &mut self.random) {
            Choice::Node(node) => {
                debug!(pod = %pod.key, node, "chosen");
                self.cluster.denominate(uid);
                self.cluster.assume(pod.clone(), &node);
                self.queue.happened(Happened::PodPlaced, Instant::now());
                self.bind_with_volumes(pod, node);
            }
            Choice::Nowhere(misfit) => self.nowhere(uid, &pod, &misfit),
        }
    }

    fn nowhere(&mut self, uid: &str, pod: &Arc<Pod>, misfit: &Misfit) {
        let mut message = misfit.sentence();
        let mut nominated = None;
        if let Some(why) = ineligible(pod, &self.cluster) {
            message = format!("{message} preemption: {why}");
        } else if misfit.nodes > 0 {
            let budgets: Vec<Budget> = self.budgets.values().cloned().collect();
            match preempt(pod, &mut self.cluster, misfit, &budgets) {
                Some(preemption) => {
                    self.cluster.nominate(pod.clone(), &preemption.node);
                    nominated = Some(preemption.node.clone());
                    let (client, recorder) = (self.config.client.clone(), self.recorder.clone());
                    let name = self.config.scheduler_name.clone();
                    tokio::spawn(make_room(client, recorder, name, pod.clone(), preemption));
                }
                None => message = format!("{message} {}", misfit.preemption_sentence()),
            }
        }
        self.queue.unschedulable(uid, misfit.filters(), Instant::now());
        self.recorder.event(&pod.object, EventType::Warning, "FailedScheduling", &message);
        tokio::spawn(report(self.config.client.clone(), pod.object.clone(), message, nominated));
    }

    /// Binds the Pod, after its volumes if there is anything to do about them.
    fn bind_with_volumes(&mut self, pod: Arc<Pod>, node: String) {
        let bindings = self.bindings(&pod, &node);
        if bindings.is_empty() {
            self.bind(pod, node);
            return;
        }
        self.cluster.storage.promise(&bindings, &node);
        self.binding += 1;
        tokio::spawn(ask(
            self.config.client.clone(),
            pod.uid.clone(),
            node.clone(),
            bindings.clone(),
            self.done.clone(),
        ));
        let until = Instant::now() + VOLUMES_WAIT_MAX;
        let waits = AwaitsVolumes { pod: pod.clone(), node, promised: bindings, written: None, until };
        self.volumes.insert(pod.uid.clone(), waits);
    }

    fn bindings(&self, pod: &Pod, node: &str) -> Bindings {
        let storage = &self.cluster.storage;
        let volumes = PodVolumes::build(pod, storage).ok();
        let found =
            volumes.zip(self.cluster.node(node)).and_then(|(volumes, node)| volumes.bindings(node, storage).ok());
        found.unwrap_or_default()
    }

    fn bind(&mut self, pod: Arc<Pod>, node: String) {
        self.binding += 1;
        tokio::spawn(bind(self.config.client.clone(), pod, node, self.recorder.clone(), self.done.clone()));
    }

    fn finished(&mut self, result: Done) {
        self.binding -= 1;
        match result {
            Done::Bound { uid, error: None } => self.queue.remove(&uid),
            Done::Bound { uid, error: Some(error) } => self.try_again(&uid, &error),
            Done::VolumesAsked { uid, result: Ok(written) } => {
                if let Some(waits) = self.volumes.get_mut(&uid) {
                    waits.written = Some(written);
                }
                self.look_at_volumes(|pod| pod.uid == uid);
            }
            Done::VolumesAsked { uid, result: Err(error) } => self.volumes_failed(&uid, &error),
        }
    }

    fn try_again(&mut self, uid: &str, error: &str) {
        if self.queue.contains(uid) {
            warn!(uid, error, "a Pod could not be bound; it will be tried again");
            self.cluster.unassume(uid);
            self.queue.retry(uid, Instant::now());
            self.queue.happened(Happened::RoomFreed, Instant::now());
        }
    }

    /// Binds those Pods whose volumes are ready, and gives up on those whose volumes will not be.
    fn look_at_volumes(&mut self, concerned: impl Fn(&Pod) -> bool) {
        if self.volumes.is_empty() {
            return;
        }
        let (view, now) = (self.cache.view(), Instant::now());
        let mut ended = Vec::new();
        for (uid, waits) in self.volumes.iter().filter(|(_, waits)| concerned(&waits.pod)) {
            let Some(written) = &waits.written else { continue };
            let progress = match self.cluster.node(&waits.node) {
                Some(node) => progress(written, node, &view),
                None => Progress::Failed(format!("failed to get node {:?}", waits.node)),
            };
            match progress {
                Progress::Waiting if waits.until > now => {}
                Progress::Waiting => ended.push((uid.clone(), Some("context deadline exceeded".to_string()))),
                Progress::Bound => ended.push((uid.clone(), None)),
                Progress::Failed(error) => ended.push((uid.clone(), Some(error))),
            }
        }
        for (uid, error) in ended {
            match error {
                Some(error) => self.volumes_failed(&uid, &format!("binding volumes: {error}")),
                None => {
                    let Some(waits) = self.forget_volumes(&uid) else { continue };
                    self.bind(waits.pod, waits.node);
                }
            }
        }
    }

    fn volumes_failed(&mut self, uid: &str, error: &str) {
        let Some(waits) = self.forget_volumes(uid) else { return };
        let message = format!("running PreBind plugin \"VolumeBinding\": {error}");
        self.recorder.event(&waits.pod.object, EventType::Warning, "FailedScheduling", &message);
        self.try_again(uid, &message);
    }

    fn forget_volumes(&mut self, uid: &str) -> Option<AwaitsVolumes> {
        let waits = self.volumes.remove(uid)?;
        self.cluster.storage.settle(&waits.promised);
        Some(waits)
    }
}

/// Reserves the volumes, and asks for those to be provisioned by naming the Node on their claims.
async fn ask(client: Client, uid: String, node: String, bindings: Bindings, done: mpsc::Sender<Done>) {
    let result = write(&client, &node, bindings).await.map_err(|e| e.chain());
    // Closed only when the scheduler has ended.
    let _ = done.send(Done::VolumesAsked { uid, result }).await;
}

async fn write(client: &Client, node: &str, bindings: Bindings) -> Result<Bindings, minik_client::Error> {
    let mut written = Bindings::default();
    for (volume, claim) in &bindings.volumes {
        let answer = client.update(PERSISTENTVOLUMES, "", object::name(volume), volume).await?;
        written.volumes.push((Arc::new(answer.into()), claim.clone()));
    }
    for claim in &bindings.claims {
        let mut body = claim.value().clone();
        body["metadata"]["annotations"][SELECTED_NODE] = node.into();
        let (namespace, name) = (object::namespace(claim), object::name(claim));
        let answer = client.update(PERSISTENTVOLUMECLAIMS, namespace, name, &body).await?;
        written.claims.push(Arc::new(answer.into()));
    }
    Ok(written)
}

async fn bind(client: Client, pod: Arc<Pod>, node: String, recorder: EventRecorder, done: mpsc::Sender<Done>) {
    let (namespace, name) = (pod.key.namespace.as_str(), pod.key.name.as_str());
    let body = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"namespace": namespace, "name": name, "uid": pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let result = client.create_sub(PODS, namespace, name, "binding", &body).await;
    let error = result.err().map(|e| e.chain());
    if error.is_none() {
        let message = format!("Successfully assigned {namespace}/{name} to {node}");
        recorder.event(&pod.object, EventType::Normal, "Scheduled", &message);
    }
    // Closed only when the scheduler has ended.
    let _ = done.send(Done::Bound { uid: pod.uid.clone(), error }).await;
}

/// Removes the victims; the Pod they make room for is tried again when they are gone.
async fn make_room(client: Client, recorder: EventRecorder, name: String, pod: Arc<Pod>, preemption: Preemption) {
    for victim in preemption.victims {
        let (namespace, victim_name) = (victim.key.namespace.as_str(), victim.key.name.as_str());
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{name}: preempting to accommodate a higher priority pod"),
            "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        let patch = json!({"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}});
        let marked = client.patch(PODS, namespace, victim_name, "status", &Patch::Strategic(patch)).await;
        let params = DeleteParams::of_uid(victim.uid.as_str());
        let deleted = match marked {
            Ok(_) => client.delete(PODS, namespace, victim_name, &params).await,
            Err(e) => Err(e),
        };
        match deleted {
            Ok(_) => {
                let message = format!("Preempted by pod {} on node {}", pod.uid, preemption.node);
                recorder.event(&victim.object, EventType::Normal, "Preempted", &message);
            }
            Err(e) if e.is_not_found() => {}
            Err(e) => warn!(pod = %victim.key, error = %e.chain(), "a Pod could not be preempted"),
        }
    }
}

/// Sets PodScheduled to False and the Node that room is made on, if it does not say so already.
async fn report(client: Client, pod: Arc<Object>, message: String, nominated: Option<String>) {
    let condition = unschedulable_condition(&pod, &message, Timestamp::now());
    let mut status = serde_json::Map::new();
    status.extend(condition.map(|c| ("conditions".to_string(), json!([c]))));
    let known = pod["status"]["nominatedNodeName"].as_str();
    if nominated.is_some() && nominated.as_deref() != known {
        status.insert("nominatedNodeName".into(), nominated.into());
    }
    if status.is_empty() {
        return;
    }
    let patch = json!({"metadata": {"uid": object::uid(&pod)}, "status": status});
    let (namespace, name) = (object::namespace(&pod), object::name(&pod));
    if let Err(e) = client.patch(PODS, namespace, name, "status", &Patch::Strategic(patch)).await
        && !e.is_not_found()
    {
        warn!(pod = %pod.key(), error = %e.chain(), "the condition PodScheduled could not be written");
    }
}

fn unschedulable_condition(pod: &Value, message: &str, now: Timestamp) -> Option<Value> {
    let conditions = pod["status"]["conditions"].as_array();
    let old = conditions.into_iter().flatten().find(|c| c["type"] == "PodScheduled");
    let same = |c: &Value| c["status"] == "False" && c["reason"] == "Unschedulable" && c["message"] == message;
    if old.is_some_and(same) {
        return None;
    }
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let since = old.filter(|c| c["status"] == "False").map(|c| c["lastTransitionTime"].clone());
    let mut condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastProbeTime": null, "lastTransitionTime": since.unwrap_or_else(|| now.into()),
    });
    if let Some(generation) = pod["metadata"]["generation"].as_i64() {
        condition["observedGeneration"] = generation.into();
    }
    Some(condition)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
