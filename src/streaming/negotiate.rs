//! Chooses the protocol of an upgrade request and answers `101 Switching Protocols`.
//!
//! Owns: the subprotocol names, in the order Kubernetes prefers them.
//! Called by: the runtime's streaming server.
//! Never: reads a byte of the upgraded connection before the answer is sent.

use std::future::Future;

use base64::Engine;
use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::channels::{self, Encoding};
use crate::command::{self, CommandSession, Ends};
use crate::forward::{self, ForwardSession};
use crate::{spdy, tunnel};

const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
const SPDY: &str = "spdy/3.1";
/// RFC 6455, section 1.3.
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// kubectl's WebSocket writer sends at most 32 KiB; a peer that sends more than this is broken or hostile.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

const COMMAND_WEBSOCKET: &[(&str, Version, Encoding)] = &[
    ("v5.channel.k8s.io", Version::V5, Encoding::Binary),
    ("v4.channel.k8s.io", Version::V4, Encoding::Binary),
    ("v4.base64.channel.k8s.io", Version::V4, Encoding::Base64),
    ("channel.k8s.io", Version::V1, Encoding::Binary),
    ("base64.channel.k8s.io", Version::V1, Encoding::Base64),
];
const COMMAND_SPDY: &[(&str, Version)] = &[
    ("v4.channel.k8s.io", Version::V4),
    ("v3.channel.k8s.io", Version::V1),
    ("v2.channel.k8s.io", Version::V1),
    ("channel.k8s.io", Version::V1),
];
const FORWARD_SPDY: &str = "portforward.k8s.io";
const FORWARD_TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const FORWARD_WEBSOCKET: &[(&str, Encoding)] =
    &[("v4.channel.k8s.io", Encoding::Binary), ("v4.base64.channel.k8s.io", Encoding::Base64)];

/// What the error stream carries and whether stdin can be half-closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The error stream is plain text.
    V1,
    /// The error stream is a `metav1.Status` as JSON.
    V4,
    /// As V4, and the client may close single channels.
    V5,
}

/// Why a request was not upgraded; answer with its code and text.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("Upgrade request required")]
    NoUpgrade,
    #[error("unable to upgrade: none of the offered protocols {offered:?} is supported")]
    Protocol { offered: Vec<String> },
    #[error("unable to upgrade: Sec-WebSocket-Key is missing")]
    NoKey,
}

impl Refusal {
    pub fn code(&self) -> StatusCode {
        match self {
            Refusal::NoUpgrade | Refusal::NoKey => StatusCode::BAD_REQUEST,
            Refusal::Protocol { .. } => StatusCode::FORBIDDEN,
        }
    }
}

type Answer = Response<Full<Bytes>>;

/// Exec and attach. The future gives the session once the client has the answer; spawn it.
pub fn upgrade_command<B>(
    mut request: Request<B>,
    ends: Ends,
) -> Result<(Answer, impl Future<Output = Option<CommandSession>> + Send + 'static), Refusal> {
    enum Chosen {
        WebSocket(Version, Encoding),
        Spdy(Version),
    }
    let headers = request.headers();
    let (answer, chosen) = match asked(headers) {
        Asked::WebSocket => {
            let offered = offered(headers, SEC_WEBSOCKET_PROTOCOL.as_str());
            // A client that offers nothing speaks the first version.
            let found = if offered.is_empty() {
                Some(("", Version::V1, Encoding::Binary))
            } else {
                offered.iter().find_map(|o| COMMAND_WEBSOCKET.iter().find(|(n, ..)| n == o).copied())
            };
            let (name, version, encoding) = found.ok_or(Refusal::Protocol { offered })?;
            (switch_websocket(headers, name)?, Chosen::WebSocket(version, encoding))
        }
        Asked::Spdy => {
            let offered = offered(headers, STREAM_PROTOCOL);
            let found = if offered.is_empty() {
                Some(("", Version::V1))
            } else {
                COMMAND_SPDY.iter().find(|(n, _)| offered.iter().any(|o| o == n)).copied()
            };
            let (name, version) = found.ok_or(Refusal::Protocol { offered })?;
            (switch_spdy(name), Chosen::Spdy(version))
        }
        Asked::Nothing => return Err(Refusal::NoUpgrade),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let session = async move {
        let io = TokioIo::new(upgrade.await.inspect_err(|e| tracing::debug!(error = %e, "no upgrade")).ok()?);
        match chosen {
            Chosen::WebSocket(version, encoding) => {
                let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config())).await;
                Some(channels::command(socket, version, encoding, ends))
            }
            Chosen::Spdy(version) => command::over_spdy(spdy::serve(io), version, ends).await,
        }
    };
    Ok((answer, session))
}

/// Port-forward; `ports` are those of the query, which only the old WebSocket form uses.
pub fn upgrade_forward<B>(
    mut request: Request<B>,
    ports: Vec<u16>,
) -> Result<(Answer, impl Future<Output = Option<ForwardSession>> + Send + 'static), Refusal> {
    enum Chosen {
        Tunnel,
        Channels(Encoding),
        Spdy,
    }
    let headers = request.headers();
    let (answer, chosen) = match asked(headers) {
        Asked::WebSocket => {
            let offered = offered(headers, SEC_WEBSOCKET_PROTOCOL.as_str());
            let legacy = || offered.iter().find_map(|o| FORWARD_WEBSOCKET.iter().find(|(n, _)| n == o).copied());
            if offered.iter().any(|o| o == FORWARD_TUNNEL) {
                (switch_websocket(headers, FORWARD_TUNNEL)?, Chosen::Tunnel)
            } else if let Some((name, encoding)) = legacy() {
                (switch_websocket(headers, name)?, Chosen::Channels(encoding))
            } else if offered.is_empty() {
                (switch_websocket(headers, "")?, Chosen::Channels(Encoding::Binary))
            } else {
                return Err(Refusal::Protocol { offered });
            }
        }
        Asked::Spdy => {
            let offered = offered(headers, STREAM_PROTOCOL);
            if !offered.is_empty() && !offered.iter().any(|o| o == FORWARD_SPDY) {
                return Err(Refusal::Protocol { offered });
            }
            (switch_spdy(FORWARD_SPDY), Chosen::Spdy)
        }
        Asked::Nothing => return Err(Refusal::NoUpgrade),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let session = async move {
        let io = TokioIo::new(upgrade.await.inspect_err(|e| tracing::debug!(error = %e, "no upgrade")).ok()?);
        match chosen {
            Chosen::Spdy => Some(forward::over_spdy(spdy::serve(io))),
            Chosen::Tunnel => {
                let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config())).await;
                Some(forward::over_spdy(spdy::serve(tunnel::bytes(socket))))
            }
            Chosen::Channels(encoding) => {
                let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config())).await;
                Some(channels::forward(socket, encoding, &ports))
            }
        }
    };
    Ok((answer, session))
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX))
}

enum Asked {
    WebSocket,
    Spdy,
    Nothing,
}

fn asked(headers: &HeaderMap) -> Asked {
    let upgrade = headers.get(UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or("").to_ascii_lowercase();
    match upgrade.as_str() {
        "websocket" => Asked::WebSocket,
        SPDY => Asked::Spdy,
        _ => Asked::Nothing,
    }
}

/// Repeated headers and comma-separated lists alike.
fn offered(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(|v| v.trim().to_string()).filter(|v| !v.is_empty()).collect()
}

fn switching(upgrade: &'static str) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static(upgrade));
    answer
}

fn switch_spdy(protocol: &'static str) -> Answer {
    let mut answer = switching("SPDY/3.1");
    if !protocol.is_empty() {
        answer.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    }
    answer
}

fn switch_websocket(headers: &HeaderMap, protocol: &'static str) -> Result<Answer, Refusal> {
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(Refusal::NoKey)?;
    let mut digest = sha1_smol::Sha1::new();
    digest.update(key.as_bytes());
    digest.update(WEBSOCKET_GUID.as_bytes());
    let accept = base64::engine::general_purpose::STANDARD.encode(digest.digest().bytes());
    let mut answer = switching("websocket");
    let accept = HeaderValue::from_str(&accept).expect("base64 is a valid header value");
    answer.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    if !protocol.is_empty() {
        answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok(answer)
}
