//! An error told over a WebSocket: such a client reads errors from a channel, not from the answer to its handshake.
//!
//! Owns: the handshake and the one message after it.
//! Called by: the streams, when a kubelet has refused.
//! Never: carries a stream.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use minik_api::Status;
use ring::digest;
use tokio::io::AsyncWriteExt;

use super::headers::{is_websocket, listed};
use crate::body::{self, Body};
use crate::server::Core;

/// Those in which channel 3 carries a `Status`, the newest first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const ERROR_CHANNEL: u8 = 3;
/// RFC 6455, section 1.3.
const HANDSHAKE_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const NORMAL_CLOSURE: u16 = 1000;

fn protocol(headers: &HeaderMap) -> Option<&'static str> {
    let offered = listed(headers, &header::SEC_WEBSOCKET_PROTOCOL);
    PROTOCOLS.into_iter().find(|p| offered.iter().any(|o| o == p))
}

pub fn speaks_channels(headers: &HeaderMap) -> bool {
    is_websocket(headers) && headers.contains_key(header::SEC_WEBSOCKET_KEY) && protocol(headers).is_some()
}

fn accept(key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(HANDSHAKE_GUID.as_bytes());
    STANDARD.encode(context.finish())
}

/// A frame from server to client, which is not masked.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![opcode];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => out.push(length),
        (_, Ok(length)) => {
            out.push(126);
            out.extend(length.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

fn message(status: &Status) -> Vec<u8> {
    let mut payload = vec![ERROR_CHANNEL];
    payload.extend(status.to_json().to_string().bytes());
    let mut bytes = frame(BINARY, &payload);
    bytes.extend(frame(CLOSE, &NORMAL_CLOSURE.to_be_bytes()));
    bytes
}

/// Accepts the WebSocket, tells the error and closes.
pub fn tell(core: &Arc<Core>, client: OnUpgrade, headers: &HeaderMap, status: &Status) -> Response<Body> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map_or(&[][..], HeaderValue::as_bytes);
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept(key)).expect("base64 is plain ASCII"));
    if let Some(protocol) = protocol(headers) {
        answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
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
    fn the_handshake_is_that_of_the_standard() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn the_status_comes_on_the_error_channel_and_then_the_end() {
        let bytes = message(&Status::bad_request("no"));
        assert_eq!(bytes[0], BINARY);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("\u{3}{") && text.contains(r#""message":"no""#), "{text}");
        assert_eq!(bytes[bytes.len() - 4..], [CLOSE, 2, 0x03, 0xe8]);
    }

    #[test]
    fn long_messages_carry_their_length_in_two_bytes() {
        assert_eq!(frame(BINARY, &[7; 300])[..4], [BINARY, 126, 1, 44]);
        assert_eq!(frame(BINARY, &[7; 5])[..2], [BINARY, 5]);
    }
}
