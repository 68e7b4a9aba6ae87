//! An error told over a WebSocket: such a client reads errors from a channel, not from the answer to its handshake.
//!
//! Owns: which clients read errors so, and the one message they get.
//! Called by: the streams, when a kubelet has refused.
//! Never: carries a stream.

use std::sync::Arc;

use http::Response;
use http::header::{self, HeaderMap, HeaderValue};
use hyper::upgrade::OnUpgrade;
use minik_api::Status;
use tokio_tungstenite::tungstenite::Message;

use super::headers::{is_websocket, listed};
use super::websocket;
use crate::body::Body;
use crate::server::Core;

/// Those in which channel 3 carries a `Status`, the newest first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const ERROR_CHANNEL: u8 = 3;

fn protocol(headers: &HeaderMap) -> Option<&'static str> {
    let offered = listed(headers, &header::SEC_WEBSOCKET_PROTOCOL);
    PROTOCOLS.into_iter().find(|p| offered.iter().any(|o| o == p))
}

pub fn speaks_channels(headers: &HeaderMap) -> bool {
    is_websocket(headers) && headers.contains_key(header::SEC_WEBSOCKET_KEY) && protocol(headers).is_some()
}

fn message(status: &Status) -> Message {
    let mut payload = vec![ERROR_CHANNEL];
    payload.extend(status.to_json().to_string().bytes());
    Message::binary(payload)
}

/// Accepts the WebSocket, tells the error and closes.
pub fn tell(core: &Arc<Core>, client: OnUpgrade, headers: &HeaderMap, status: &Status) -> Response<Body> {
    websocket::speak(core, client, futures::stream::iter([message(status)]));
    websocket::accepted(headers, protocol(headers).map(HeaderValue::from_static).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_comes_on_the_error_channel() {
        let text = message(&Status::bad_request("no")).into_data();
        let text = String::from_utf8_lossy(&text);
        assert!(text.starts_with("\u{3}{") && text.contains(r#""message":"no""#), "{text}");
    }
}
