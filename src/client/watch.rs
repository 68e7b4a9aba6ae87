//! A watch as it comes over the wire: one JSON object a line.
//!
//! Owns: cutting the byte stream into events.
//! Called by: the reflector, and components that watch one thing for a while.
//! Never: reconnects.

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use minik_api::Status;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{DecodeError, Error, TransportError};
use crate::transport::Body;

/// One event; objects of 1.5 MB are the API server's limit, a watch line may hold one and its escapes.
const LINE_BYTES_MAX: usize = 16 << 20;

#[derive(Clone, Debug)]
pub enum WatchEvent {
    Added(Value),
    Modified(Value),
    Deleted(Value),
    /// Nothing older than this version will follow. `initial_end`: the current state is now complete (WatchList).
    Bookmark {
        resource_version: String,
        initial_end: bool,
    },
}

pub struct WatchStream {
    body: Body,
    buffer: BytesMut,
    /// How much of `buffer` is known to hold no line end.
    scanned: usize,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

impl WatchStream {
    pub fn new(body: Body) -> WatchStream {
        WatchStream { body, buffer: BytesMut::new(), scanned: 0 }
    }

    /// The next event; `None` when the server ended the watch, which it does regularly.
    /// An event of type ERROR is returned as the `Status` it carries.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, Error>> {
        loop {
            if let Some(event) = self.next_buffered() {
                return Some(event);
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Some(Err(DecodeError::TooLarge { limit: LINE_BYTES_MAX }.into()));
            }
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Err(source) => return Some(Err(TransportError::Receive { source }.into())),
            }
        }
    }

    /// An event that has already arrived whole, without waiting.
    pub fn next_buffered(&mut self) -> Option<Result<WatchEvent, Error>> {
        loop {
            let end = self.scanned
                + self.buffer[self.scanned..].iter().position(|b| *b == b'\n').or_else(|| {
                    self.scanned = self.buffer.len();
                    None
                })?;
            let line = self.buffer.split_to(end);
            self.buffer.advance(1);
            self.scanned = 0;
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Some(decode(&line));
            }
        }
    }
}

fn decode(line: &[u8]) -> Result<WatchEvent, Error> {
    let Line { kind, object } = serde_json::from_slice(line).map_err(DecodeError::from)?;
    match kind.as_str() {
        "ADDED" => Ok(WatchEvent::Added(object)),
        "MODIFIED" => Ok(WatchEvent::Modified(object)),
        "DELETED" => Ok(WatchEvent::Deleted(object)),
        "BOOKMARK" => {
            let version = minik_api::object::resource_version(&object).to_string();
            let initial_end = minik_api::object::annotation(&object, "k8s.io/initial-events-end") == Some("true");
            Ok(WatchEvent::Bookmark { resource_version: version, initial_end })
        }
        "ERROR" => Err(serde_json::from_value::<Status>(object).map_err(DecodeError::from)?.into()),
        _ => Err(DecodeError::EventType { kind }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::body_from_bytes;

    async fn events(text: &str) -> Vec<String> {
        let mut stream = WatchStream::new(body_from_bytes(text.to_string()));
        let mut seen = Vec::new();
        while let Some(event) = stream.next().await {
            seen.push(match event {
                Ok(WatchEvent::Added(o)) => format!("added {}", minik_api::object::name(&o)),
                Ok(WatchEvent::Modified(o)) => format!("modified {}", minik_api::object::name(&o)),
                Ok(WatchEvent::Deleted(o)) => format!("deleted {}", minik_api::object::name(&o)),
                Ok(WatchEvent::Bookmark { resource_version, initial_end }) => {
                    format!("bookmark {resource_version} {initial_end}")
                }
                Err(e) => format!("error {}", e.status().map_or(0, |s| s.code)),
            });
        }
        seen
    }

    #[tokio::test]
    async fn each_line_is_an_event_and_half_a_line_is_none() {
        let text = concat!(
            r#"{"type":"ADDED","object":{"metadata":{"name":"a"}}}"#,
            "\n\n",
            r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
            "\n",
            r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#,
            "\n",
            r#"{"type":"DELETED","object"#,
        );
        assert_eq!(events(text).await, ["added a", "bookmark 9 true", "error 410"]);
    }
}
