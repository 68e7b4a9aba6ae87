//! A body told over a WebSocket: browsers, which cannot read an answer piece by piece otherwise, get logs so.
//!
//! Owns: the handshake, the frames from server to client, and the two protocols a plain stream has.
//! Called by: the log of a Pod; errors of the streams that have channels.
//! Never: reads what such a client sends, but for its end.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use ring::digest;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::headers::{is_websocket, listed};
use crate::body::{self, Body};
use crate::server::Core;

/// RFC 6455, section 1.3.
const HANDSHAKE_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
pub const BINARY: u8 = 0x82;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const NORMAL_CLOSURE: u16 = 1000;

fn accept(key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(HANDSHAKE_GUID.as_bytes());
    STANDARD.encode(context.finish())
}

/// A frame from server to client, which is not masked.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
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

pub fn goodbye() -> Vec<u8> {
    frame(CLOSE, &NORMAL_CLOSURE.to_be_bytes())
}

/// The answer to a handshake.
pub fn accepted(headers: &HeaderMap, protocol: Option<&'static str>) -> Response<Body> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map_or(&[][..], HeaderValue::as_bytes);
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept(key)).expect("base64 is plain ASCII"));
    if let Some(protocol) = protocol {
        answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    response
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    name: Option<&'static str>,
    opcode: u8,
}

/// How the client wants a stream of bytes; `None` when it wants no WebSocket, or only protocols there are not.
pub fn asked(headers: &HeaderMap) -> Option<Protocol> {
    const KNOWN: [Protocol; 2] = [
        Protocol { name: Some("binary.k8s.io"), opcode: BINARY },
        Protocol { name: Some("base64.binary.k8s.io"), opcode: TEXT },
    ];
    if !is_websocket(headers) || !headers.contains_key(header::SEC_WEBSOCKET_KEY) {
        return None;
    }
    let offered = listed(headers, &header::SEC_WEBSOCKET_PROTOCOL);
    if offered.is_empty() {
        return Some(Protocol { name: None, opcode: BINARY });
    }
    KNOWN.into_iter().find(|known| offered.iter().any(|o| Some(o.as_str()) == known.name))
}

impl Protocol {
    fn message(self, bytes: &[u8]) -> Vec<u8> {
        if self.opcode == TEXT { frame(TEXT, STANDARD.encode(bytes).as_bytes()) } else { frame(BINARY, bytes) }
    }
}

/// Accepts the WebSocket and hands on the body, a message a piece, until one of both ends.
pub fn tell(
    core: &Arc<Core>,
    client: OnUpgrade,
    headers: &HeaderMap,
    protocol: Protocol,
    body: Body,
) -> Response<Body> {
    let stopping = core.stopping.clone();
    core.tasks.spawn(async move {
        let Ok(client) = client.await else { return };
        let (mut reader, writer) = tokio::io::split(TokioIo::new(client));
        // Whatever it says, a client that is gone shows here.
        let gone = async {
            let mut ignored = [0; 512];
            while reader.read(&mut ignored).await.is_ok_and(|n| n > 0) {}
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = gone => {}
            () = pump(body, protocol, writer) => {}
        }
    });
    accepted(headers, protocol.name)
}

async fn pump(mut body: Body, protocol: Protocol, mut to: impl AsyncWrite + Unpin) {
    // As upstream's: a first empty message tells the client that the stream is open.
    if to.write_all(&protocol.message(&[])).await.is_err() {
        return;
    }
    while let Some(Ok(piece)) = body.frame().await {
        let Ok(bytes) = piece.into_data() else { continue };
        if to.write_all(&protocol.message(&bytes)).await.is_err() {
            return;
        }
    }
    if to.write_all(&goodbye()).await.is_ok() {
        let _ = to.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_that_of_the_standard() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn a_body_becomes_messages_in_the_form_that_was_asked_for() {
        let headers = |protocol: &str| {
            let mut headers = HeaderMap::new();
            for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "k")] {
                headers.insert(name, HeaderValue::from_static(value));
            }
            headers.insert("sec-websocket-protocol", HeaderValue::from_str(protocol).expect("a header"));
            headers
        };
        let told = async |protocol: &str| {
            let mut out = Vec::new();
            pump(body::full("hi"), asked(&headers(protocol)).expect("known"), &mut out).await;
            out
        };
        assert_eq!(told("binary.k8s.io").await, b"\x82\x00\x82\x02hi\x88\x02\x03\xe8");
        assert_eq!(told("base64.binary.k8s.io").await, b"\x81\x00\x81\x04aGk=\x88\x02\x03\xe8");
        assert_eq!(asked(&headers("v5.channel.k8s.io")), None);
        assert_eq!(asked(&HeaderMap::new()), None);
    }
}
