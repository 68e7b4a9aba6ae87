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
        let result = match &mut version {
            None => relist(&client, &cache, resource, &selection).await.map(|listed| version = Some(listed)),
            Some(at) => {
                let result = follow(&client, &cache, resource, &selection, at).await;
                if began.elapsed() >= WATCH_HEALTHY_AFTER {
                    backoff.reset();
                    failing = false;
                }
                result
            }
        };
        let wait = backoff.next_random();
        let Err(error) = result else {
            // What usually works at the first try (list, then watch) does not wait; repeated in short order it does.
            if wait > BACKOFF_FIRST * 2 {
                tokio::time::sleep(wait).await;
            }
            continue;
        };
        if error.status().is_some() {
            // The server has answered and will not go on from here: 410, or a version from before its store was lost.
            version = None;
        }
        if error.is_not_found() {
            // Not served (any more): there are none, and nobody should wait for them.
            cache.replace(resource, Vec::new(), 0);
        }
        // Once an outage: the tries after the first say nothing new.
        if error.is_gone() || std::mem::replace(&mut failing, true) {
            debug!(resource = %resource.qualified(), error = %error.chain(), "list or watch broke off");
        } else {
            warn!(resource = %resource.qualified(), error = %error.chain(), "list or watch failed; will retry");
        }
        client.back_off(wait).await;
    }
}

async fn relist(client: &Client, cache: &Cache, r: ResourceId, selection: &Selection) -> Result<String, Error> {
    let params = ListParams {
        label_selector: selection.label_selector.clone(),
        field_selector: selection.field_selector.clone(),
        ..ListParams::default()
    };
    let mut items: Vec<Value> = Vec::new();
    let keep = |page| items.extend(page);
    let version = client.list_pages(r, &selection.namespace, params, selection.metadata_only, keep).await?;
    debug!(resource = %r.qualified(), items = items.len(), %version, "listed");
    cache.replace(r, items, version.parse().unwrap_or(0));
    Ok(version)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Wait;
    use crate::tasks::Tasks;
    use crate::transport::{Body, Transport, body_from_bytes};
    use crate::{TransportError, View};
    use bytes::Bytes;
    use futures::future::BoxFuture;
    use minik_api::object;
    use parking_lot::Mutex;
    use std::collections::VecDeque;
    use std::sync::Arc;
    use tokio_util::sync::CancellationToken;

    const PODS: ResourceId = ResourceId::new("", "v1", "pods");

    /// Answers in order, then never again; keeps what was asked.
    struct Script {
        answers: Mutex<VecDeque<(u16, String)>>,
        asked: Mutex<Vec<String>>,
    }
    impl Transport for Script {
        fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>, TransportError>> {
            let query = request.uri().query().unwrap_or("");
            let interesting = |p: &&str| p.starts_with("watch=") || p.starts_with("resourceVersion=");
            self.asked.lock().push(query.split('&').filter(interesting).collect::<Vec<_>>().join("&"));
            let answer = self.answers.lock().pop_front();
            Box::pin(async move {
                let Some((code, text)) = answer else { return std::future::pending().await };
                Ok(http::Response::builder().status(code).body(body_from_bytes(text)).expect("a plain answer"))
            })
        }
    }
    fn pod(name: &str, version: u64) -> String {
        format!(r#"{{"metadata":{{"name":"{name}","uid":"{name}","resourceVersion":"{version}"}}}}"#)
    }
    fn list(version: u64, pods: &[String]) -> (u16, String) {
        (200, format!(r#"{{"metadata":{{"resourceVersion":"{version}"}},"items":[{}]}}"#, pods.join(",")))
    }
    fn watch(events: &[(&str, String)]) -> (u16, String) {
        let line = |(kind, object): &(&str, String)| format!(r#"{{"type":"{kind}","object":{object}}}"#) + "\n";
        (200, events.iter().map(line).collect())
    }
    fn text(view: &View) -> String {
        let show = |o: &Arc<crate::Object>| format!("{}@{}", object::name(o), object::resource_version(o));
        view.list(PODS, "").map(show).collect::<Vec<_>>().join(" ")
    }
    /// What was asked until the cache holds `wanted`.
    async fn check(answers: Vec<(u16, String)>, wanted: &str) -> Vec<String> {
        let script = Arc::new(Script { answers: Mutex::new(answers.into()), asked: Mutex::default() });
        let cancel = CancellationToken::new();
        let tasks = Tasks::new(cancel.clone());
        let cache = Cache::builder(Client::new(script.clone())).watch(PODS).start(&tasks);
        let limit = Duration::from_secs(20);
        let met = cache.wait_for(limit, |view| text(view) == wanted && script.answers.lock().is_empty()).await;
        assert_eq!(met, Wait::Met, "the cache holds {:?}", text(&cache.view()));
        cancel.cancel();
        assert!(tasks.drained(limit).await);
        script.asked.lock().clone()
    }

    #[tokio::test]
    async fn a_watch_that_ended_goes_on_where_it_was_and_one_too_old_is_listed_again() {
        let gone = r#"{"kind":"Status","code":410,"reason":"Expired","message":"too old"}"#.to_string();
        let answers = vec![
            list(5, &[pod("a", 3), pod("b", 4)]),
            watch(&[("MODIFIED", pod("a", 6)), ("BOOKMARK", r#"{"metadata":{"resourceVersion":"8"}}"#.into())]),
            watch(&[("ERROR", gone)]),
            list(10, &[pod("a", 6), pod("c", 9)]),
        ];
        let asked = check(answers, "a@6 c@9").await;
        assert_eq!(asked[..4], ["", "watch=true&resourceVersion=5", "watch=true&resourceVersion=8", ""]);
    }

    #[tokio::test]
    async fn a_resource_that_is_not_served_has_no_objects() {
        let missing = (404, r#"{"kind":"Status","code":404,"reason":"NotFound","message":"no"}"#.to_string());
        let answers = vec![list(5, &[pod("a", 3)]), missing];
        check(answers, "").await;
    }
}
