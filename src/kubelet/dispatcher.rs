//! Gives every pod bound to this node its worker.
//!
//! Owns: the workers, by pod uid; what arrives for them from the API and from the runtime.
//! Called by: `run`; the node server reads who is here.
//! Never: looks into a pod.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_cri::v1 as cri;
use minik_api::resources::PODS;
use minik_client::{Cache, Change, Tasks};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::context::NodeContext;
use crate::gc;
use crate::names;
use crate::pod::Pod;
use crate::worker::{Inbox, Shown, Worker};

/// Everything is looked at this often even when no event says so, in case one was lost.
const RELIST_EVERY: Duration = Duration::from_secs(120);
/// Upstream's relist period, for runtimes that tell nothing by themselves.
const LOOK_WITHOUT_EVENTS_EVERY: Duration = Duration::from_secs(1);
const RECONNECT_AFTER: Duration = Duration::from_millis(500);

struct Handle {
    inbox: watch::Sender<Inbox>,
    shown: watch::Receiver<Option<Shown>>,
}

#[derive(Clone, Default)]
pub struct Pods(Arc<Mutex<HashMap<String, Handle>>>);

impl Pods {
    /// The pod of that name as its worker last saw it. One that the API server has no more is still being ended here, but
    /// its name belongs to whoever comes next.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Shown> {
        let is_named = |s: &&Shown| s.pod.namespace() == namespace && s.pod.name() == name;
        let all = self.0.lock();
        let mut there = all.values().filter(|h| !h.inbox.borrow().gone);
        there.find_map(|h| h.shown.borrow().as_ref().filter(is_named).cloned())
    }

    /// What the worker of that pod sees, as it changes.
    pub fn follow(&self, uid: &str) -> Option<watch::Receiver<Option<Shown>>> {
        self.0.lock().get(uid).map(|h| h.shown.clone())
    }

    pub fn all(&self) -> Vec<Shown> {
        self.0.lock().values().filter_map(|h| h.shown.borrow().clone()).collect()
    }

    fn poke(&self, uid: &str) {
        if let Some(handle) = self.0.lock().get(uid) {
            handle.inbox.send_modify(|inbox| inbox.pokes += 1);
        }
    }

    fn poke_all(&self) {
        for handle in self.0.lock().values() {
            handle.inbox.send_modify(|inbox| inbox.pokes += 1);
        }
    }
}

/// Follows the cache, which holds the pods of this node and nothing else.
pub async fn run(node: Arc<NodeContext>, cache: Cache, pods: Pods, tasks: Tasks) {
    let mut changes = cache.changes();
    cache.synced().await;
    let known: HashSet<String> = cache.view().list(PODS, "").map(|p| minik_api::object::uid(p).to_string()).collect();
    // Before any worker asks for a place: those that have one.
    let running = |p: &Pod| p.api_status.phase.as_deref() == Some("Running");
    for pod in cache.view().list(PODS, "").filter_map(|p| Pod::parse(p.value()).ok()).filter(running) {
        if !pod.is_mirror() {
            node.room.keep(&pod);
        }
    }
    let orphans = node.clone();
    tasks.spawn(async move {
        if let Err(status) = gc::remove_orphans(&orphans, &known).await {
            tracing::warn!(error = status.message(), "orphaned pods were not looked for");
        }
    });
    tasks.spawn(follow_runtime(node.clone(), pods.clone()));
    loop {
        let change = changes.recv().await;
        changed(&node, &pods, &tasks, &change);
    }
}

fn changed(node: &Arc<NodeContext>, pods: &Pods, tasks: &Tasks, change: &Change) {
    let uid = |o: &Option<Arc<minik_client::Object>>| {
        o.as_ref().map(|o| minik_api::object::uid(o.value()).to_string()).unwrap_or_default()
    };
    let (old, new) = (uid(&change.old), uid(&change.new));
    if !old.is_empty() && old != new {
        let object = change.old.as_ref().expect("it has a uid");
        gone(pods, &old, object.value());
    }
    let Some(object) = &change.new else { return };
    match Pod::parse(object.value()) {
        Ok(pod) if pod.is_mirror() => {}
        Ok(pod) => arrived(node, pods, tasks, pod),
        Err(error) => {
            let why = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(pod = %change.key, %error, why, "cannot run it");
        }
    }
}

fn gone(pods: &Pods, uid: &str, last: &serde_json::Value) {
    let all = pods.0.lock();
    let Some(handle) = all.get(uid) else { return };
    handle.inbox.send_modify(|inbox| {
        inbox.gone = true;
        if let Ok(pod) = Pod::parse(last) {
            inbox.pod = pod.into();
        }
    });
}

fn arrived(node: &Arc<NodeContext>, pods: &Pods, tasks: &Tasks, pod: Pod) {
    let mut all = pods.0.lock();
    let uid = pod.uid.clone();
    let pod = Arc::new(pod);
    if let Some(handle) = all.get(&uid) {
        handle.inbox.send_modify(|inbox| inbox.pod = pod);
        return;
    }
    tracing::info!(pod = %pod.key, uid, "pod arrived");
    let (inbox, incoming) = watch::channel(Inbox { pod, gone: false, pokes: 0 });
    let (shown, latest) = watch::channel(None);
    all.insert(uid.clone(), Handle { inbox, shown: latest });
    let worker = Worker::new(node.clone(), incoming, shown);
    let pods = pods.clone();
    tasks.spawn(async move {
        worker.run().await;
        tracing::info!(uid, "pod gone");
        pods.0.lock().remove(&uid);
    });
}

/// Exits and starts as the runtime tells them.
async fn follow_runtime(node: Arc<NodeContext>, pods: Pods) {
    loop {
        let pause = match follow_events(&node, &pods).await {
            // containerd before 1.7 and others: the only way is to look.
            Err(status) if status.code() == tonic::Code::Unimplemented => LOOK_WITHOUT_EVENTS_EVERY,
            Err(status) => {
                tracing::warn!(error = status.message(), "the runtime's event stream broke");
                RECONNECT_AFTER
            }
            Ok(()) => RECONNECT_AFTER,
        };
        tokio::time::sleep(pause).await;
        pods.poke_all();
    }
}

async fn follow_events(node: &NodeContext, pods: &Pods) -> Result<(), tonic::Status> {
    let mut events = node.cri.runtime().get_container_events(cri::GetEventsRequest {}).await?.into_inner();
    // What happened before the stream was open.
    pods.poke_all();
    let mut relist = tokio::time::interval(RELIST_EVERY);
    loop {
        tokio::select! {
            event = events.message() => match event? {
                Some(event) => match uid_of(&event) {
                    Some(uid) => pods.poke(&uid),
                    None => pods.poke_all(),
                },
                None => return Ok(()),
            },
            _ = relist.tick() => pods.poke_all(),
        }
    }
}

fn uid_of(event: &cri::ContainerEventResponse) -> Option<String> {
    let of_sandbox = event.pod_sandbox_status.as_ref().and_then(|s| s.metadata.as_ref()).map(|m| m.uid.clone());
    let of_container = || event.containers_statuses.iter().find_map(|c| c.labels.get(names::POD_UID).cloned());
    of_sandbox.filter(|uid| !uid.is_empty()).or_else(of_container)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::observed::Observed;

    fn put(pods: &Pods, uid: &str, gone: bool) {
        let metadata =
            json!({"name": "db-0", "namespace": "default", "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"});
        let pod = json!({"metadata": metadata, "spec": {"containers": [{"name": "db", "image": "box:1"}]}});
        let pod = Arc::new(Pod::parse(&pod).expect("a pod"));
        let (inbox, _) = watch::channel(Inbox { pod: pod.clone(), gone, pokes: 0 });
        let shown = Shown { pod, seen: Arc::new(Observed::default()), status: Default::default() };
        let (_, shown) = watch::channel(Some(shown));
        pods.0.lock().insert(uid.into(), Handle { inbox, shown });
    }

    /// Regression: `kubectl exec` reached the Pod that was deleted, not the one of its name made within the same second.
    #[test]
    fn a_name_belongs_to_the_pod_that_the_api_server_has() {
        let pods = Pods::default();
        let found = || pods.find("default", "db-0").map(|s| s.pod.uid.clone());
        (0..20).for_each(|n| put(&pods, &format!("old-{n}"), true));
        assert_eq!(found(), None);
        put(&pods, "new", false);
        assert_eq!(found().as_deref(), Some("new"));
    }
}
