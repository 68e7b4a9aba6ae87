//! `/containerLogs`: what `kubectl logs` reads.
//!
//! Owns: finding the log of the run that was asked for, and the options of the request.
//! Called by: the node server.
//! Never: reads the file itself.

use std::path::PathBuf;

use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use minik_client::Body;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::follow::{self, Reading};
use super::log_line::{Format, Options, Streams};
use super::{Server, query, text};
use crate::machine::mirror;
use crate::observed::State;
use crate::worker::Shown;

/// Chunks waiting for a slow client.
const CHUNKS_MAX: usize = 4;

#[derive(Debug, Default, PartialEq)]
struct Asked {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail_lines: Option<u64>,
    limit_bytes: Option<u64>,
    since: Option<Timestamp>,
    streams: Option<Streams>,
}

fn parse(pairs: &[(String, String)], now: Timestamp) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let flag = |v: &str| matches!(v, "true" | "1" | "");
    for (name, value) in pairs {
        let bad = || format!("invalid value {value:?} for {name}");
        match name.as_str() {
            "follow" => asked.follow = flag(value),
            "previous" => asked.previous = flag(value),
            "timestamps" => asked.timestamps = flag(value),
            "tailLines" => asked.tail_lines = Some(value.parse().map_err(|_| bad())?),
            "limitBytes" => asked.limit_bytes = Some(value.parse().map_err(|_| bad())?),
            "sinceSeconds" => {
                let seconds: i64 = value.parse().map_err(|_| bad())?;
                asked.since = Some(now.checked_sub(SignedDuration::from_secs(seconds)).map_err(|_| bad())?);
            }
            "sinceTime" => asked.since = Some(value.parse().map_err(|_| bad())?),
            "stream" => {
                asked.streams = Some(match value.as_str() {
                    "Stdout" => Streams::Stdout,
                    "Stderr" => Streams::Stderr,
                    "All" | "" => Streams::All,
                    _ => return Err(bad()),
                });
            }
            _ => {}
        }
    }
    Ok(asked)
}

pub async fn serve(server: &Server, namespace: &str, pod: &str, container: &str, q: Option<&str>) -> Response<Body> {
    let asked = match parse(&query(q), Timestamp::now()) {
        Ok(asked) => asked,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let component = server.components.iter().find(|c| {
        namespace == mirror::NAMESPACE
            && mirror::pod_name(&c.name, &server.node.node_name) == pod
            && c.name == container
    });
    if let Some(component) = component {
        // A component lives as long as its node: its log never ends.
        let writing = asked.follow.then(endless);
        return stream(component.log_file.clone(), Format::Plain, asked, writing);
    }
    let Some(shown) = server.pods.find(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, format!("pod {pod:?} does not exist"));
    };
    match locate(&shown, pod, container, asked.previous) {
        Ok(found) => {
            let writing = asked.follow.then(|| writing(server, &shown, &found.id));
            stream(found.path, Format::Cri, asked, writing)
        }
        Err((status, message)) => text(status, message),
    }
}

struct Found {
    id: String,
    path: PathBuf,
}

fn locate(shown: &Shown, pod: &str, container: &str, previous: bool) -> Result<Found, (StatusCode, String)> {
    if shown.pod.container(container).is_none() {
        return Err((StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {pod:?}")));
    }
    let latest = shown.seen.latest(container);
    let run = if previous {
        shown.seen.previous(container)
    } else {
        // A run that was made and not started has nothing to say; the one before may.
        latest.filter(|c| c.state != State::Created).or_else(|| shown.seen.previous(container))
    };
    if let Some(run) = run.filter(|r| !r.log_path.is_empty()) {
        return Ok(Found { id: run.id.clone(), path: run.log_path.clone().into() });
    }
    if previous {
        let message = format!("previous terminated container {container:?} in pod {pod:?} not found");
        return Err((StatusCode::BAD_REQUEST, message));
    }
    let statuses = shown.status.init_container_statuses.iter().chain(&shown.status.container_statuses);
    let status = statuses.chain(&shown.status.ephemeral_container_statuses).flatten().find(|s| s.name == container);
    let reason = status.and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.clone()).unwrap_or_default();
    let why = match reason.as_str() {
        "ErrImagePull" | "ImagePullBackOff" => "trying and failing to pull image",
        reason => reason,
    };
    Err((StatusCode::BAD_REQUEST, format!("container {container:?} in pod {pod:?} is waiting to start: {why}")))
}

fn endless() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(true);
    tokio::spawn(async move { sender.closed().await });
    receiver
}

/// True while the container runs, as its worker sees it.
fn writing(server: &Server, shown: &Shown, container_id: &str) -> watch::Receiver<bool> {
    let runs = |shown: &Option<Shown>, id: &str| {
        shown.as_ref().and_then(|s| s.seen.by_id(id).map(|c| c.state == State::Running)).unwrap_or(false)
    };
    let Some(mut pod) = server.pods.follow(&shown.pod.uid) else { return watch::channel(false).1 };
    let now = runs(&pod.borrow(), container_id);
    let (sender, receiver) = watch::channel(now);
    let id = container_id.to_string();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sender.closed() => return,
                changed = pod.changed() => {
                    let running = changed.is_ok() && runs(&pod.borrow_and_update(), &id);
                    sender.send_replace(running);
                    if !running {
                        return;
                    }
                }
            }
        }
    });
    receiver
}

fn stream(path: PathBuf, format: Format, asked: Asked, writing: Option<watch::Receiver<bool>>) -> Response<Body> {
    if let Err(error) = std::fs::metadata(&path) {
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("failed to open log file {:?}: {error}", path.display().to_string()),
        );
    }
    let options = Options {
        format,
        since: asked.since,
        timestamps: asked.timestamps,
        streams: asked.streams.unwrap_or(Streams::All),
    };
    let (out, chunks) = mpsc::channel(CHUNKS_MAX);
    let reading = Reading { path, options, tail_lines: asked.tail_lines, limit_bytes: asked.limit_bytes, writing };
    tokio::spawn(follow::read(reading, out));
    let frames = ReceiverStream::new(chunks).map(|chunk| chunk.map(Frame::data).map_err(minik_client::BoxError::from));
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_nonsense_is_refused() {
        let now = Timestamp::from_second(1000).expect("in range");
        let asked = parse(&query(Some("follow=true&tailLines=5&sinceSeconds=10&timestamps=1&stream=Stderr")), now);
        assert_eq!(
            asked,
            Ok(Asked {
                follow: true,
                timestamps: true,
                tail_lines: Some(5),
                since: Some(Timestamp::from_second(990).expect("in range")),
                streams: Some(Streams::Stderr),
                ..Asked::default()
            })
        );
        assert_eq!(parse(&query(Some("tailLines=-1")), now), Err("invalid value \"-1\" for tailLines".into()));
    }
}
