//! A watch over a WebSocket: a message an event.
//!
//! Owns: the handshake, which is that of Go's own WebSocket server and not the one that logs have: any protocol will do,
//! but only one, and the client says where it comes from.
//! Called by: watch.
//! Never: knows what an event is.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::body::{self, Body};
use crate::call::Call;
use crate::connect::headers::{is_websocket, listed};
use crate::connect::websocket;
use crate::server::Core;

const VERSION: HeaderValue = HeaderValue::from_static("13");

/// How the client wants to be told.
pub enum Asked {
    Stream,
    Socket(Socket),
    Refused(Response<Body>),
}

/// A handshake to accept.
pub struct Socket {
    client: OnUpgrade,
    headers: HeaderMap,
    protocol: Option<HeaderValue>,
}

pub fn asked(call: &Call) -> Asked {
    if !is_websocket(&call.headers) {
        return Asked::Stream;
    }
    // Only a connection that carries nothing else can become another protocol's.
    let Some(client) = call.upgrade.lock().take() else { return Asked::Stream };
    match protocol(&call.headers) {
        Ok(protocol) => Asked::Socket(Socket { client, headers: call.headers.clone(), protocol }),
        Err(refusal) => Asked::Refused(refusal.answer()),
    }
}

#[derive(Debug, PartialEq)]
enum Refusal {
    NoKey,
    Version,
    NoOrigin,
    Protocols,
}

impl Refusal {
    fn answer(&self) -> Response<Body> {
        let (code, text) = match self {
            Refusal::NoKey => (StatusCode::BAD_REQUEST, "mismatch challenge/response"),
            Refusal::Version => (StatusCode::BAD_REQUEST, "missing or bad WebSocket Version"),
            Refusal::NoOrigin => (StatusCode::FORBIDDEN, ""),
            Refusal::Protocols => (StatusCode::BAD_REQUEST, ""),
        };
        let mut response = Response::new(body::full(text));
        *response.status_mut() = code;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        if *self == Refusal::Version {
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, VERSION);
        }
        response
    }
}

/// The one protocol that is offered, or none.
fn protocol(headers: &HeaderMap) -> Result<Option<HeaderValue>, Refusal> {
    if headers.get(header::SEC_WEBSOCKET_KEY).is_none_or(HeaderValue::is_empty) {
        return Err(Refusal::NoKey);
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        return Err(Refusal::Version);
    }
    let origin = headers.get(header::ORIGIN).and_then(|v| v.to_str().ok()).unwrap_or("");
    // A page without an origin of its own says "null".
    let known = origin.starts_with('/') || origin.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some());
    if !known {
        return Err(Refusal::NoOrigin);
    }
    match listed(headers, &header::SEC_WEBSOCKET_PROTOCOL).as_slice() {
        [] => Ok(None),
        [one] => Ok(HeaderValue::from_str(one).ok()),
        _ => Err(Refusal::Protocols),
    }
}

impl Socket {
    /// Accepts, and sends each event in a message of its own.
    pub fn tell(
        self,
        core: &Arc<Core>,
        is_text: bool,
        events: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Response<Body> {
        websocket::speak(core, self.client, events.map(move |event| message(is_text, event)));
        websocket::accepted(&self.headers, self.protocol.as_ref())
    }
}

fn message(is_text: bool, event: Bytes) -> Message {
    if !is_text {
        return Message::Binary(event);
    }
    Utf8Bytes::try_from(event.clone()).map_or(Message::Binary(event), Message::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&'static str, &'static str)]) -> Result<Option<HeaderValue>, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("k"));
        headers.insert(header::SEC_WEBSOCKET_VERSION, VERSION);
        headers.insert(header::ORIGIN, HeaderValue::from_static("https://a.example"));
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        protocol(&headers)
    }

    #[test]
    fn any_one_protocol_is_taken() {
        assert_eq!(check(&[]), Ok(None));
        assert_eq!(check(&[("sec-websocket-protocol", "odd")]), Ok(Some(HeaderValue::from_static("odd"))));
        assert_eq!(check(&[("sec-websocket-protocol", "a, b")]), Err(Refusal::Protocols));
    }

    #[test]
    fn a_handshake_is_complete() {
        assert_eq!(check(&[("sec-websocket-key", "")]), Err(Refusal::NoKey));
        assert_eq!(check(&[("sec-websocket-version", "8")]), Err(Refusal::Version));
        assert_eq!(check(&[("origin", "")]), Err(Refusal::NoOrigin));
        assert_eq!(check(&[("origin", "null")]), Err(Refusal::NoOrigin));
    }
}
