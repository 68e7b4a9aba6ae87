//! A WebSocket on which only the server speaks: browsers, which cannot read an answer piece by piece otherwise, get logs
//! and watches so.
//!
//! Owns: the handshake's answer, the messages of a body, and the end of the conversation.
//! Called by: the log of a Pod; watches; errors of the streams that have channels.
//! Never: heeds what such a client sends, but for pings and its goodbye.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{Sink, SinkExt, Stream, StreamExt};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::headers::{is_websocket, listed};
use crate::body::{self, Body};
use crate::server::Core;

/// What a client says is not heeded, so nothing long is waited for.
const HEARD_BYTES_MAX: usize = 1 << 20;

/// The answer to a handshake.
pub fn accepted(headers: &HeaderMap, protocol: Option<&HeaderValue>) -> Response<Body> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map_or(&[][..], HeaderValue::as_bytes);
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::from_str(&derive_accept_key(key)).expect("base64 is plain ASCII");
    let answer = response.headers_mut();
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        answer.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol.clone());
    }
    response
}

/// How the bytes of a plain stream become messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// No protocol was asked for: the bytes as they are.
    Plain,
    Binary,
    Base64,
}

impl Protocol {
    fn name(self) -> Option<&'static str> {
        match self {
            Protocol::Plain => None,
            Protocol::Binary => Some("binary.k8s.io"),
            Protocol::Base64 => Some("base64.binary.k8s.io"),
        }
    }

    fn message(self, bytes: &[u8]) -> Message {
        match self {
            Protocol::Plain | Protocol::Binary => Message::binary(bytes.to_vec()),
            Protocol::Base64 => Message::text(STANDARD.encode(bytes)),
        }
    }
}

/// How the client wants a stream of bytes; `None` when it wants no WebSocket, or only protocols there are not.
pub fn asked(headers: &HeaderMap) -> Option<Protocol> {
    if !is_websocket(headers) || !headers.contains_key(header::SEC_WEBSOCKET_KEY) {
        return None;
    }
    let offered = listed(headers, &header::SEC_WEBSOCKET_PROTOCOL);
    if offered.is_empty() {
        return Some(Protocol::Plain);
    }
    [Protocol::Binary, Protocol::Base64]
        .into_iter()
        .find(|known| offered.iter().any(|o| Some(o.as_str()) == known.name()))
}

/// Accepts the WebSocket and hands on the body, a message a piece, until one of both ends.
pub fn tell(
    core: &Arc<Core>,
    client: OnUpgrade,
    headers: &HeaderMap,
    protocol: Protocol,
    body: Body,
) -> Response<Body> {
    speak(core, client, messages(protocol, body));
    accepted(headers, protocol.name().map(HeaderValue::from_static).as_ref())
}

fn messages(protocol: Protocol, body: Body) -> impl Stream<Item = Message> + Send + 'static {
    // As upstream's: a first empty message tells the client that the stream is open.
    let hello = futures::stream::iter([protocol.message(&[])]);
    let pieces = futures::stream::unfold(body, move |mut body| async move {
        loop {
            if let Ok(bytes) = body.frame().await?.ok()?.into_data() {
                return Some((protocol.message(&bytes), body));
            }
        }
    });
    hello.chain(pieces)
}

/// Sends the messages once the connection is a WebSocket, then says goodbye; ends with its client or with the server.
pub fn speak(core: &Arc<Core>, client: OnUpgrade, messages: impl Stream<Item = Message> + Send + 'static) {
    let stopping = core.stopping.clone();
    core.tasks.spawn(async move {
        let Ok(client) = client.await else { return };
        let config = WebSocketConfig::default().max_message_size(Some(HEARD_BYTES_MAX));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(client), Role::Server, Some(config)).await;
        let (sink, mut heard) = socket.split();
        // Reading answers pings and the client's goodbye.
        let gone = async { while let Some(Ok(_)) = heard.next().await {} };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = gone => {}
            () = say(messages, sink) => {}
        }
    });
}

async fn say(messages: impl Stream<Item = Message>, mut sink: impl Sink<Message> + Unpin) {
    let mut messages = std::pin::pin!(messages);
    while let Some(message) = messages.next().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    let goodbye = CloseFrame { code: CloseCode::Normal, reason: Default::default() };
    if sink.send(Message::Close(Some(goodbye))).await.is_ok() {
        let _ = sink.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(protocols: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        if !protocols.is_empty() {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocols));
        }
        headers
    }

    #[test]
    fn the_handshake_is_that_of_the_standard() {
        let answer = accepted(&offer(""), None);
        assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!answer.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn a_client_chooses_the_form_of_its_messages() {
        assert_eq!(asked(&offer("")), Some(Protocol::Plain));
        assert_eq!(asked(&offer("binary.k8s.io")), Some(Protocol::Binary));
        assert_eq!(asked(&offer("v5.channel.k8s.io, base64.binary.k8s.io")), Some(Protocol::Base64));
        assert_eq!(asked(&offer("v5.channel.k8s.io")), None);
        assert_eq!(asked(&HeaderMap::new()), None);
        assert_eq!(Protocol::Base64.message(b"hi"), Message::text("aGk="));
        assert_eq!(Protocol::Binary.message(b"hi"), Message::binary(b"hi".to_vec()));
    }

    #[tokio::test]
    async fn a_body_follows_an_empty_message() {
        let told: Vec<Message> = messages(Protocol::Base64, body::full("hi")).collect().await;
        assert_eq!(told, [Message::text(""), Message::text("aGk=")]);
    }

    #[tokio::test]
    async fn the_last_message_is_a_normal_closure() {
        let (sink, told) = futures::channel::mpsc::unbounded();
        say(futures::stream::iter([Message::text("a")]), sink).await;
        let told: Vec<Message> = told.collect().await;
        let closure = CloseFrame { code: CloseCode::Normal, reason: Default::default() };
        assert_eq!(told, [Message::text("a"), Message::Close(Some(closure))]);
    }
}
