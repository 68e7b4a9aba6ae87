//! Events live for an hour.
//!
//! Owns: which Events are due, and their deletion.
//! Called by: `ApiServer::build`, which starts it as a task.
//! Never: looks at an Event: an hour after its last write it goes, as etcd's leases have it upstream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use minik_store::{Error, EventKind, Range, Revision, Store, Watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::server::Core;

const PREFIX: &str = "events/";
/// Upstream's `--event-ttl`.
const TIME_TO_LIVE: Duration = Duration::from_secs(3600);

/// All live equally long, so they fall due in the order they were written.
type Due = VecDeque<(Instant, Arc<str>, Revision)>;

pub fn start(core: &Arc<Core>) {
    let (store, stopping) = (core.store.clone(), core.stopping.clone());
    core.tasks.spawn(async move { run(store, stopping).await });
}

async fn run(store: Store, stopping: CancellationToken) {
    while !stopping.is_cancelled() {
        let Ok(page) = store.range(&Range { prefix: PREFIX, ..Range::default() }) else { return };
        let until = Instant::now() + TIME_TO_LIVE;
        let due: Due = page.entries.iter().map(|e| (until, e.key.clone(), e.modified)).collect();
        let Ok(watch) = store.watch(PREFIX, page.revision) else { continue };
        tokio::select! {
            () = stopping.cancelled() => return,
            // It fell behind the history: what there is gets a new hour.
            () = expire(&store, due, watch) => {}
        }
    }
}

async fn expire(store: &Store, mut due: Due, mut watch: Watch) {
    loop {
        let next = due.front().map(|(at, ..)| *at);
        tokio::select! {
            batch = watch.next() => {
                let Ok(batch) = batch else { return };
                let until = Instant::now() + TIME_TO_LIVE;
                let written = batch.events.iter().filter(|e| e.kind != EventKind::Delete);
                due.extend(written.map(|e| (until, e.entry.key.clone(), e.revision())));
            }
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                let Some((_, key, revision)) = due.pop_front() else { continue };
                match store.delete(&key, Some(revision)).await {
                    // Written since, or gone already.
                    Ok(_) | Err(Error::Conflict { .. } | Error::NotFound { .. }) => {}
                    Err(error) => {
                        tracing::warn!(%error, "an Event could not be deleted");
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik_store::Encode;

    #[tokio::test(start_paused = true)]
    async fn an_event_goes_an_hour_after_its_last_write() {
        let (store, stopping) = (Store::memory(), CancellationToken::new());
        store.create("events/d/a", Encode::plain("1")).await.expect("created");
        let b = store.create("events/d/b", Encode::plain("1")).await.expect("created");
        store.create("pods/d/a", Encode::plain("1")).await.expect("created");
        let task = tokio::spawn(run(store.clone(), stopping.clone()));
        let mut watch = store.watch("events/", store.revision()).expect("now");
        tokio::time::sleep(TIME_TO_LIVE / 2).await;
        store.update("events/d/b", b.modified, Encode::plain("2")).await.expect("updated");
        let mut gone = Vec::new();
        while gone.len() < 2 {
            for event in watch.next().await.expect("an event").events.iter().filter(|e| e.kind == EventKind::Delete) {
                gone.push((event.entry.key.to_string(), Instant::now()));
            }
        }
        assert_eq!((gone[0].0.as_str(), gone[1].0.as_str()), ("events/d/a", "events/d/b"));
        assert!(gone[1].1 - gone[0].1 >= TIME_TO_LIVE / 3, "the second was written later");
        assert!(store.get("pods/d/a").is_some());
        stopping.cancel();
        task.await.expect("it ends");
    }
}
