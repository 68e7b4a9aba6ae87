//! Looking after one extension API server.
//!
//! Owns: when it is checked (at once when its APIService, its Service or its endpoints change or its condition is lost, and
//! from time to time, because a server can fail without an object changing), and what follows: the condition, what it
//! publishes.
//! Called by: `follow`, one task a backend.
//! Never: decides who is asked for what; that is the relay's.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use minik_api::{ResourceId, resources};
use minik_store::Watch;
use tokio::sync::watch;

use super::ask::{AskError, Session};
use super::availability::{Verdict, prospect};
use super::backend::{Backend, Target, leads_to};
use super::follow::PATH;
use super::published::{self, Published};
use crate::call::now;
use crate::objects::Loopback;
use crate::server::Core;

/// Upstream's resync of APIServices.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// After a failed check, doubled with each further one up to [`CHECK_EVERY`].
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Endpoints that are tried before the server counts as unreachable.
const ATTEMPTS: usize = 5;
/// A conflict means that somebody else wrote the status; more of them in a row mean a fight.
const WRITES_MAX: usize = 5;

pub async fn attend(core: Arc<Core>, mut changes: watch::Receiver<Arc<Backend>>) {
    let mut pause = RETRY_AFTER;
    loop {
        let backend = changes.borrow_and_update().clone();
        let mut news = News::of(&core, &backend.target);
        let verdict = check(&core, &backend).await;
        report(&core, &backend.name, Some(&backend.target), &verdict).await;
        let next = match verdict {
            Verdict::Failed { reason: "FailedDiscoveryCheck", .. } => {
                pause = (pause * 2).min(CHECK_EVERY);
                pause
            }
            _ => {
                pause = RETRY_AFTER;
                CHECK_EVERY
            }
        };
        tokio::select! {
            () = core.stopping.cancelled() => return,
            changed = changes.changed() => match changed {
                Ok(()) => pause = RETRY_AFTER,
                // The APIService is gone.
                Err(_) => return,
            },
            () = news.wait() => pause = RETRY_AFTER,
            () = tokio::time::sleep(next) => {}
        }
    }
}

/// Changes of the Service and of its endpoints.
struct News {
    service: Option<Watch>,
    slices: Option<Watch>,
    name: String,
}

impl News {
    fn of(core: &Core, target: &Target) -> Self {
        let table = core.catalog.now();
        let key = |id: ResourceId, name: &str| table.by_id(id).map(|s| s.key(&target.namespace, name));
        let watch = |key: Option<String>| key.and_then(|k| core.store.watch(&k, core.store.revision()).ok());
        Self {
            service: watch(key(resources::SERVICES, &target.service)),
            slices: watch(key(resources::ENDPOINTSLICES, "")),
            name: target.service.clone(),
        }
    }

    async fn wait(&mut self) {
        let (Some(service), Some(slices)) = (&mut self.service, &mut self.slices) else {
            return std::future::pending().await;
        };
        let ours = async {
            // A watch that fell behind may have missed something.
            while let Ok(batch) = slices.next().await {
                let concerned = |value| leads_to(&crate::stored::decode_bytes(value), &self.name);
                if batch.events.iter().any(|e| concerned(&e.entry.value)) {
                    return;
                }
            }
        };
        tokio::select! {
            _ = service.next() => {}
            () = ours => {}
        }
    }
}

async fn check(core: &Arc<Core>, backend: &Backend) -> Verdict {
    if let Err(verdict) = prospect(core.objects.as_ref(), &backend.target) {
        grow_stale(backend);
        return verdict;
    }
    match answering(core, backend).await {
        Ok(mut session) => {
            match published::ask(&mut session, backend).await {
                Ok(published) => backend.published.store(Some(Arc::new(published))),
                Err(error) => {
                    tracing::debug!(apiservice = %backend.name, %error, "discovery failed");
                    grow_stale(backend);
                }
            }
            Verdict::Passed
        }
        Err(error) => {
            grow_stale(backend);
            Verdict::unanswered(error.to_string())
        }
    }
}

/// A session with a server that answers; another endpoint may where one does not.
async fn answering(core: &Arc<Core>, backend: &Backend) -> Result<Session, AskError> {
    let first = match probe(core, backend).await {
        Ok(session) => return Ok(session),
        Err(error) => error,
    };
    let others = (1..ATTEMPTS).map(|_| Box::pin(probe(core, backend)));
    futures::future::select_ok(others).await.map(|(session, _)| session).map_err(|_| first)
}

async fn probe(core: &Arc<Core>, backend: &Backend) -> Result<Session, AskError> {
    let path = format!("/apis/{}/{}", backend.group, backend.version);
    let mut session = Session::open(core.objects.as_ref(), backend).await?;
    let answer = session.get(&path, "application/json").await?;
    if (200..300).contains(&answer.code) {
        return Ok(session);
    }
    let url = session.url(&path);
    Err(AskError::Failed { why: format!("bad status from {url}: {}", answer.code), url })
}

fn grow_stale(backend: &Backend) {
    let last = backend.published.load_full();
    let last = last.as_deref().cloned().unwrap_or_default();
    backend.published.store(Some(Arc::new(Published { stale: true, ..last })));
}

/// Writes the condition where it says something else; `target` is what was checked.
pub async fn report(core: &Arc<Core>, name: &str, target: Option<&Target>, verdict: &Verdict) {
    for _ in 0..WRITES_MAX {
        let Some(service) = core.objects.get(resources::APISERVICES, "", name) else { return };
        if Target::of(&service).as_ref() != target {
            return;
        }
        let wanted = verdict.written_into(&service, &now());
        if wanted == *service {
            return;
        }
        match core.call(Method::PUT, &format!("{PATH}/{name}/status"), Some(&wanted)).await {
            Ok(_) => return tracing::info!(apiservice = name, ?verdict, "the availability of an API changed"),
            Err(status) if status.is_conflict() => {}
            Err(status) if status.is_not_found() => return,
            Err(status) => return tracing::warn!(apiservice = name, error = %status, "a condition was not written"),
        }
    }
}
