//! Keeps one resource of a cache equal to the API server's: list, watch, and again from where it broke off.
//!
//! Owns: resuming by resource version, relisting after 410, and how often to try.
//! Called by: `Cache`, one task a resource.
//! Never: ends by itself.

use std::time::{Duration, Instant};

use minik_api::ResourceId;
use serde_json::Value;
use tracing::{debug, warn};

use crate::backoff::Backoff;
use crate::cache::{Cache, Fed, Selection};
use crate::error::Error;
use crate::params::{ListParams, WatchParams};
use crate::verbs::Client;
use crate::watch::{WatchEvent, WatchStream};

/// What client-go's pager asks for: keeps one answer in the tens of megabytes.
const PAGE_ITEMS: u32 = 500;
/// As client-go: a watch is renewed by the client every 5 to 10 minutes, spread so that not all renew at once.
const WATCH_SECONDS_MIN: u32 = 300;
/// Beyond the server's own limit, after which a silent connection is taken for dead.
const WATCH_GRACE_SECONDS: u64 = 30;
/// A restarting API server is back within seconds; waiting longer would only make recovery slow.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(5);
/// A watch that ends sooner counts as a failure, so that a server which ends them at once is not hammered.
const WATCH_HEALTHY_AFTER: Duration = Duration::from_secs(1);
/// Events taken in under one lock.
const BATCH_EVENTS_MAX: usize = 500;

pub(crate) async fn run(client: Client, cache: Cache, resource: ResourceId, selection: Selection) {
    let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_CAP);
    let mut version: Option<String> = None;
    let mut failing = false;
    loop {
        let began = Instant::now();
        let result = match &version {
            None => relist(&client, &cache, resource, &selection).await.map(|listed| version = Some(listed)),
            Some(from) => {
                let mut at = from.clone();
                let result = follow(&client, &cache, resource, &selection, &mut at).await;
                version = Some(at);
                result
            }
        };
        let listed_only = began.elapsed() < WATCH_HEALTHY_AFTER;
        match result {
            Ok(()) if version.is_some() && !listed_only => backoff.reset(),
            Ok(()) => continue_soon(&mut backoff).await,
            Err(e) if e.is_gone() => {
                debug!(resource = %resource.qualified(), "the watch fell behind; listing again");
                version = None;
                continue_soon(&mut backoff).await;
            }
            Err(e) => {
                let wait = backoff.next_random();
                // Once an outage: the tries after the first say nothing new.
                if std::mem::replace(&mut failing, true) {
                    debug!(resource = %resource.qualified(), error = %e.chain(), "list or watch failed again");
                } else {
                    warn!(resource = %resource.qualified(), error = %e.chain(), "list or watch failed; will retry");
                }
                client.back_off(wait).await;
                continue;
            }
        }
        failing = false;
    }
}

/// The step that usually works on the first try (list, then watch) does not wait; repeated in short order it does.
async fn continue_soon(backoff: &mut Backoff) {
    let wait = backoff.next_random();
    if wait > BACKOFF_FIRST * 2 {
        tokio::time::sleep(wait).await;
    }
}

async fn relist(client: &Client, cache: &Cache, r: ResourceId, selection: &Selection) -> Result<String, Error> {
    let mut params = ListParams {
        label_selector: selection.label_selector.clone(),
        field_selector: selection.field_selector.clone(),
        limit: PAGE_ITEMS,
        ..ListParams::default()
    };
    let mut items: Vec<Value> = Vec::new();
    loop {
        let page = if selection.metadata_only {
            client.list_metadata(r, &selection.namespace, &params).await?
        } else {
            client.list(r, &selection.namespace, &params).await?
        };
        items.extend(page.items);
        if page.continue_token.is_empty() {
            debug!(resource = %r.qualified(), items = items.len(), version = %page.resource_version, "listed");
            cache.replace(r, items, page.resource_version.parse().unwrap_or(0));
            return Ok(page.resource_version);
        }
        params.continue_token = page.continue_token;
    }
}

/// Watches from `at` and keeps it at the last version seen; ends when the server ends the watch.
async fn follow(
    client: &Client,
    cache: &Cache,
    r: ResourceId,
    selection: &Selection,
    at: &mut String,
) -> Result<(), Error> {
    let seconds = WATCH_SECONDS_MIN + rand::random_range(0..WATCH_SECONDS_MIN);
    let params = WatchParams {
        label_selector: selection.label_selector.clone(),
        field_selector: selection.field_selector.clone(),
        resource_version: at.clone(),
        bookmarks: true,
        send_initial_events: false,
        timeout_seconds: seconds,
        metadata_only: selection.metadata_only,
    };
    let mut stream = client.watch(r, &selection.namespace, &params).await?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(u64::from(seconds) + WATCH_GRACE_SECONDS);
    loop {
        let Ok(event) = tokio::time::timeout_at(deadline, stream.next()).await else {
            return Ok(());
        };
        let Some(event) = event else { return Ok(()) };
        let mut batch = Vec::new();
        let ended = gather(event, &mut stream, &mut batch, at);
        cache.feed(r, batch);
        ended?;
    }
}

/// The event and those that arrived with it. An error ends the batch, which is still taken in.
fn gather(
    first: Result<WatchEvent, Error>,
    stream: &mut WatchStream,
    batch: &mut Vec<Fed>,
    at: &mut String,
) -> Result<(), Error> {
    let mut event = Some(first);
    while let Some(next) = event {
        let (fed, version) = match next? {
            WatchEvent::Added(o) | WatchEvent::Modified(o) => {
                let version = minik_api::object::resource_version(&o).to_string();
                (Fed::Set(o), version)
            }
            WatchEvent::Deleted(o) => {
                let version = minik_api::object::resource_version(&o).to_string();
                (Fed::Gone(o), version)
            }
            WatchEvent::Bookmark { resource_version, .. } => {
                (Fed::Bookmark(resource_version.parse().unwrap_or(0)), resource_version)
            }
        };
        if !version.is_empty() {
            *at = version;
        }
        batch.push(fed);
        event = if batch.len() < BATCH_EVENTS_MAX { stream.next_buffered() } else { None };
    }
    Ok(())
}
