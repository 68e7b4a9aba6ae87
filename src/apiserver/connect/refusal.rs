//! An error told over a WebSocket: such a client reads errors from a channel, not from the answer to its handshake.
//!
//! Owns: which clients read errors so, and the one message they get.
//! Called by: the streams, when a kubelet has refused.
//! Never: carries a stream.

use std::sync::Arc;

use http::Response;
use http::header::{self, HeaderMap};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use minik_api::Status;
use tokio::io::AsyncWriteExt;

use super::headers::{is_websocket, listed};
use super::websocket::{self, BINARY, frame, goodbye};
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

fn message(status: &Status) -> Vec<u8> {
    let mut payload = vec![ERROR_CHANNEL];
    payload.extend(status.to_json().to_string().bytes());
    let mut bytes = frame(BINARY, &payload);
    bytes.extend(goodbye());
    bytes
}

/// Accepts the WebSocket, tells the error and closes.
pub fn tell(core: &Arc<Core>, client: OnUpgrade, headers: &HeaderMap, status: &Status) -> Response<Body> {
    let response = websocket::accepted(headers, protocol(headers));
    let bytes = message(status);
    core.tasks.spawn(async move {
        let Ok(client) = client.await else { return };
        let mut client = TokioIo::new(client);
        if client.write_all(&bytes).await.is_ok() {
            let _ = client.shutdown().await;
        }
    });
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_comes_on_the_error_channel_and_then_the_end() {
        let bytes = message(&Status::bad_request("no"));
        assert_eq!(bytes[0], BINARY);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("\u{3}{") && text.contains(r#""message":"no""#), "{text}");
        assert_eq!(bytes[bytes.len() - 4..], [0x88, 2, 0x03, 0xe8]);
    }

    #[test]
    fn long_messages_carry_their_length_in_two_bytes() {
        assert_eq!(frame(BINARY, &[7; 300])[..4], [BINARY, 126, 1, 44]);
        assert_eq!(frame(BINARY, &[7; 5])[..2], [BINARY, 5]);
    }
}
