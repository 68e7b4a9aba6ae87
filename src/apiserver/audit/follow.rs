//! Following one request through the pipeline.
//!
//! Owns: when the stages of its trail are told, and reading the answer's body where the policy wants it.
//! Called by: the pipeline.
//! Never: changes an answer.

use std::sync::Arc;

use http::{HeaderValue, Response, header};
use http_body_util::BodyExt;
use parking_lot::Mutex;

use super::{Stage, Trail};
use crate::body::{self, Body};

/// The trail of a request that may have none: nobody audits, or the policy wants nothing of it.
#[derive(Default)]
pub struct Followed(Mutex<Option<Arc<Trail>>>);

impl Followed {
    pub fn set(&self, trail: Option<Arc<Trail>>) {
        *self.0.lock() = trail;
    }
    pub fn trail(&self) -> Option<Arc<Trail>> {
        self.0.lock().clone()
    }

    /// Tells what the answer was, at its end when that is later.
    pub async fn answered(&self, response: Response<Body>, lasts: bool) -> Response<Body> {
        let Some(trail) = self.trail() else { return response };
        let code = response.status().as_u16();
        if lasts {
            trail.tell(Stage::ResponseStarted, Some(code));
            let end = End { trail, code };
            return response.map(|body| {
                body.map_frame(move |frame| {
                    let _told_when_dropped = &end;
                    frame
                })
                .boxed_unsync()
            });
        }
        let response = if trail.wants_response() { read(&trail, response).await } else { response };
        trail.tell(Stage::ResponseComplete, Some(code));
        response
    }
}

/// Tells the end of an answer that goes on for long.
struct End {
    trail: Arc<Trail>,
    code: u16,
}

impl Drop for End {
    fn drop(&mut self) {
        self.trail.tell(Stage::ResponseComplete, Some(self.code));
    }
}

async fn read(trail: &Trail, response: Response<Body>) -> Response<Body> {
    let (parts, content) = response.into_parts();
    let Ok(bytes) = body::read_all(content).await else {
        return Response::from_parts(parts, body::empty());
    };
    let text = |name| parts.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or("");
    if text(header::CONTENT_ENCODING).is_empty() {
        trail.response(&bytes, text(header::CONTENT_TYPE).split(';').next().unwrap_or(""));
    }
    Response::from_parts(parts, body::full(bytes))
}
