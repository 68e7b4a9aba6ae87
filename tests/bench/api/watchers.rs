//! Many watches on one kind, and how long an update takes to reach them.
//!
//! Owns: the watches, the steady rate of updates, and the clock that goes into each update.
//! Called by: `main`.
//! Never: counts the time of an update that was not sent when it was due as anybody's but the server's.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http_body_util::BodyExt;
use minik_client::Client;
use serde_json::json;
use tokio::task::JoinSet;

use crate::load::{CONFIG_MAPS, JSON, percentile, send};

/// What one watcher sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One object, as a kubelet its own.
    Own,
    Everything,
}

pub struct Fan {
    pub scope: Scope,
    pub watchers: usize,
    pub updates: usize,
    pub per_second: usize,
}

/// Deliveries that never come must not hold the bench.
const LIMIT: Duration = Duration::from_secs(60);
/// Updates that may be on their way at once when the server falls behind.
const LATE_MAX: usize = 512;
const SENT: &[u8] = br#""sent":""#;

/// The 99th percentile, in milliseconds, from the moment an update is due until a watcher has read it.
pub async fn delivery(client: &Client, names: &[String], fan: &Fan) -> Result<f64> {
    ensure!(names.len() >= fan.watchers.min(fan.updates), "too few objects to watch");
    let names = &names[..fan.watchers.min(names.len())];
    let begun = Instant::now();
    let mut watchers = JoinSet::new();
    for name in names.iter().cycle().take(fan.watchers) {
        let (selector, expected) = match fan.scope {
            Scope::Own => (format!("&fieldSelector=metadata.name%3D{name}"), fan.updates / fan.watchers),
            Scope::Everything => (String::new(), fan.updates),
        };
        let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={}{selector}", newest(client).await?);
        let body = open(client, &path).await?;
        watchers.spawn(read(body, begun, expected));
    }
    update(client, names, fan, begun).await?;
    let mut times = Vec::new();
    let finished = tokio::time::timeout(LIMIT, async {
        while let Some(seen) = watchers.join_next().await {
            times.extend(seen??);
        }
        Ok::<_, anyhow::Error>(())
    });
    finished.await.context("updates were not delivered in time")??;
    Ok(percentile(times, 99))
}

async fn newest(client: &Client) -> Result<String> {
    let page = send(client, "GET", &format!("{CONFIG_MAPS}?limit=1"), JSON, Bytes::new()).await?;
    let page: serde_json::Value = serde_json::from_slice(&page)?;
    Ok(page["metadata"]["resourceVersion"].as_str().context("a list has one")?.to_string())
}

async fn open(client: &Client, path: &str) -> Result<minik_client::Body> {
    let response = client.request(http::Request::get(path).header("accept", JSON).body(Bytes::new())?).await?;
    ensure!(response.status().is_success(), "GET {path}: {}", response.status());
    Ok(response.into_body())
}

/// How old each of so many events was when it was read.
async fn read(mut body: minik_client::Body, begun: Instant, expected: usize) -> Result<Vec<Duration>> {
    let (mut buffer, mut ages) = (BytesMut::new(), Vec::with_capacity(expected));
    while ages.len() < expected {
        let frame = body.frame().await.context("the watch ended")?.map_err(|e| anyhow::anyhow!("{e}"))?;
        let Ok(data) = frame.into_data() else { continue };
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line = buffer.split_to(end + 1);
            let at = line.windows(SENT.len()).position(|w| w == SENT).context("an event of somebody else")?;
            let digits = line[at + SENT.len()..].split(|b| *b == b'"').next().unwrap_or_default();
            let sent = Duration::from_micros(std::str::from_utf8(digits)?.parse()?);
            ages.push(begun.elapsed().saturating_sub(sent));
        }
    }
    Ok(ages)
}

/// Sends the updates at their rate, each when it is due.
async fn update(client: &Client, names: &[String], fan: &Fan, begun: Instant) -> Result<()> {
    let start = begun.elapsed();
    let step = Duration::from_secs(1) / fan.per_second as u32;
    let due = |index: usize| start + step * index as u32;
    let paced = futures::stream::iter(0..fan.updates).then(|index| async move {
        let wait = due(index).saturating_sub(begun.elapsed());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        index
    });
    let requests = paced.map(|index| async move {
        let (name, sent) = (&names[index % names.len()], due(index).as_micros().to_string());
        let body = json!({"metadata": {"name": name}, "data": {"sent": sent}}).to_string();
        send(client, "PUT", &format!("{CONFIG_MAPS}/{name}"), JSON, body.into()).await
    });
    let mut answers = std::pin::pin!(requests.buffer_unordered(LATE_MAX));
    while let Some(answer) = answers.next().await {
        answer?;
    }
    Ok(())
}
