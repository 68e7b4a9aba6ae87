//! From APIServices to who serves what.
//!
//! Owns: following them: which group versions are other servers', an attendant for each of those, and keeping the
//! APIServices of this server's own groups.
//! Called by: `ApiServer::build`.
//! Never: calls another server; attendants and the relay do.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use http::Method;
use minik_api::{Status, object, resources};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::availability::{self, Verdict};
use super::backend::Backend;
use super::local::{self, Care, Step};
use super::{Backends, attend};
use crate::objects::{Change, Follow, Loopback};
use crate::server::Core;

pub const PATH: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

type Services = BTreeMap<String, Arc<Value>>;
/// Who looks after a backend, told by this of every change; gone with it.
type Attendants = BTreeMap<String, watch::Sender<Arc<Backend>>>;

/// The APIServices of the built-in groups, when the server starts.
pub async fn register(core: &Arc<Core>) -> Result<(), Status> {
    let existing = core.objects.list(resources::APISERVICES, "");
    let existing: Services = existing.into_iter().map(|s| (object::name(&s).to_string(), s)).collect();
    mend(core, &existing, Care::AtStart).await
}

/// Whatever is recorded is in force when this returns.
pub fn start(core: &Arc<Core>) {
    let follow = core.objects.follow(resources::APISERVICES);
    let (services, attendants) = begin(core, &follow, Attendants::new());
    let (core, tasks) = (core.clone(), core.tasks.clone());
    tasks.spawn(async move { run(core, follow, services, attendants).await });
}

fn begin(core: &Arc<Core>, follow: &Follow, mut attendants: Attendants) -> (Services, Attendants) {
    let named = |s: &Arc<Value>| (object::name(s).to_string(), s.clone());
    let services: Services = follow.initial.iter().map(named).collect();
    settle(core, &services, &mut attendants);
    (services, attendants)
}

async fn run(core: Arc<Core>, mut follow: Follow, mut services: Services, mut attendants: Attendants) {
    loop {
        for service in services.values().filter(|s| availability::lacks_local(s)) {
            attend::report(&core, object::name(service), None, &Verdict::Local).await;
        }
        if let Err(status) = mend(&core, &services, Care::Always).await {
            tracing::warn!(error = %status, "the APIService of a custom resource could not be written");
        }
        let change = tokio::select! {
            () = core.stopping.cancelled() => return,
            () = core.aggregation.catalog_changed.notified() => continue,
            change = follow.changes.next() => change,
        };
        match change {
            Some(Change::Put(service)) => drop(services.insert(object::name(&service).to_string(), service)),
            Some(Change::Delete(service)) => drop(services.remove(object::name(&service))),
            None => {
                // The history was forgotten before it was read: begin anew.
                follow = core.objects.follow(resources::APISERVICES);
                (services, attendants) = begin(&core, &follow, attendants);
                continue;
            }
        }
        settle(&core, &services, &mut attendants);
    }
}

/// Brings the backends and their attendants into line with the APIServices.
fn settle(core: &Arc<Core>, services: &Services, attendants: &mut Attendants) {
    let before = core.aggregation.backends();
    let identity = core.aggregation.identity.as_ref();
    let known = |name: &str| before.values().find(|b| b.name == name).map(Arc::as_ref);
    let all = services.iter().filter_map(|(name, service)| Backend::of(service, known(name), identity));
    let backends: Backends = all.map(|b| ((b.group.clone(), b.version.clone()), Arc::new(b))).collect();
    attendants.retain(|name, _| backends.values().any(|b| b.name == *name));
    for backend in backends.values() {
        match attendants.get(&backend.name) {
            Some(attendant) => {
                attendant.send_if_modified(|known| {
                    let changed = known.target != backend.target || !backend.judged;
                    *known = backend.clone();
                    changed
                });
            }
            None => {
                let (sender, receiver) = watch::channel(backend.clone());
                attendants.insert(backend.name.clone(), sender);
                core.tasks.spawn(attend::attend(core.clone(), receiver));
            }
        }
    }
    core.aggregation.backends.store(Arc::new(backends));
}

/// Creates, mends and deletes APIServices of this server's own groups.
async fn mend(core: &Arc<Core>, existing: &Services, care: Care) -> Result<(), Status> {
    let wanted = local::wanted(&core.catalog.now());
    let mut names: Vec<&String> = existing.keys().chain(wanted.keys()).collect();
    names.sort();
    names.dedup();
    // All at once, so that they wait for one commit.
    let steps = names.into_iter().map(|name| {
        let step = local::plan(care, existing.get(name).map(Arc::as_ref), wanted.get(name));
        take(core, name, existing.get(name), step)
    });
    futures::future::try_join_all(steps).await.map(drop)
}

async fn take(core: &Arc<Core>, name: &str, existing: Option<&Arc<Value>>, step: Step) -> Result<(), Status> {
    let path = format!("{PATH}/{name}");
    let outcome = match step {
        Step::Keep => return Ok(()),
        Step::Create(service) => core.call(Method::POST, PATH, Some(&service)).await,
        Step::Update(service) => core.call(Method::PUT, &path, Some(&service)).await,
        Step::Delete => {
            let uid = existing.map_or("", |s| object::uid(s));
            core.call(Method::DELETE, &path, Some(&json!({"preconditions": {"uid": uid}}))).await
        }
    };
    match outcome {
        // Somebody was faster; the change is on its way here.
        Err(s) if s.is_already_exists() || s.is_conflict() || s.is_not_found() => Ok(()),
        outcome => outcome.map(drop),
    }
}
