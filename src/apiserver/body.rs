//! Bodies of requests and answers.
//!
//! Owns: the one body type, and the limit on what a client may send.
//! Called by: every handler.
//! Never: decodes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use minik_api::Status;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// Upstream's limit on a request that is decoded.
pub const REQUEST_BYTES_MAX: usize = 3 << 20;
/// Upstream's `--request-timeout`.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn empty() -> Body {
    full(Bytes::new())
}

/// Chunks as they come.
pub fn stream(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    use futures::StreamExt;
    StreamBody::new(chunks.map(|bytes| Ok::<_, BoxError>(Frame::data(bytes)))).boxed_unsync()
}

/// All of a request's body, which must be complete in upstream's time for a whole request.
pub async fn read(body: Body) -> Result<Bytes, Status> {
    match tokio::time::timeout(REQUEST_TIME_MAX, collect(body, REQUEST_BYTES_MAX)).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let message = "Timeout: request did not complete within requested timeout - context deadline exceeded";
            Err(Status::new(504, "Timeout", message))
        }
    }
}

/// All of an answer that this server gave itself.
pub async fn read_all(body: Body) -> Result<Bytes, Status> {
    collect(body, usize::MAX).await
}

async fn collect(mut body: Body, length_max: usize) -> Result<Bytes, Status> {
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Status::bad_request(format!("the request's body could not be read: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > length_max {
            let message = format!("Request entity too large: limit is {REQUEST_BYTES_MAX}");
            return Err(Status::new(413, "RequestEntityTooLarge", message));
        }
        match &first {
            // Most bodies come in one piece, which then needs no copy.
            None if all.is_empty() => first = Some(data),
            _ => {
                if let Some(first) = first.take() {
                    all.extend_from_slice(&first);
                }
                all.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
}
