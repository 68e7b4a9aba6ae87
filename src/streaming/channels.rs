//! Streams as channels of one WebSocket: the first byte of each message is the channel's number.
//!
//! Owns: channel numbers, the base64 form, and closing single channels (v5).
//! Called by: `negotiate`.
//! Never: lets one message grow beyond the socket's limit.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::command::{CommandSession, Ends, Exit, PIPE_BYTES, RESIZES_MAX, TerminalSize};
use crate::forward::{Forward, ForwardSession};
use crate::negotiate::Version;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5: the next byte is the number of the channel the client has finished with.
const CLOSE: u8 = 255;
const CHUNK_BYTES: usize = 32 << 10;
const MESSAGES_WAITING_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Binary,
    /// Text messages: the channel as an ASCII digit, then base64.
    Base64,
}

impl Encoding {
    fn message(self, channel: u8, bytes: &[u8]) -> Message {
        match self {
            Encoding::Binary => Message::binary([&[channel], bytes].concat()),
            Encoding::Base64 => Message::text(format!("{}{}", char::from(b'0' + channel), STANDARD.encode(bytes))),
        }
    }

    /// Channel and bytes of a data message; `None` for what is neither.
    fn parse(self, message: &Message) -> Option<(u8, Vec<u8>)> {
        let raw: &[u8] = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.as_bytes(),
            _ => return None,
        };
        let (first, rest) = raw.split_first()?;
        match self {
            Encoding::Binary => Some((*first, rest.to_vec())),
            Encoding::Base64 => Some((first.checked_sub(b'0')?, STANDARD.decode(rest).ok()?)),
        }
    }
}

/// Exec or attach. The first message is an empty one on the lowest channel we write, as clients wait for it.
pub fn command<S>(socket: WebSocketStream<S>, version: Version, encoding: Encoding, ends: Ends) -> CommandSession
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sink, mut incoming) = socket.split();
    let (messages, waiting) = mpsc::channel(MESSAGES_WAITING_MAX);
    tokio::spawn(write_messages(sink, waiting));
    let mut pumps = JoinSet::new();
    let first = if ends.stdout {
        STDOUT
    } else if ends.stderr {
        STDERR
    } else {
        ERROR
    };
    let hello = messages.clone();
    let mut output = |wanted: bool, channel: u8| {
        wanted.then(|| {
            let (mine, theirs) = tokio::io::duplex(PIPE_BYTES);
            let greeting = (channel == first).then(|| encoding.message(channel, &[]));
            pumps.spawn(pump(theirs, channel, encoding, messages.clone(), greeting));
            mine
        })
    };
    let stdout = output(ends.stdout, STDOUT);
    let stderr = output(ends.stderr && !ends.tty, STDERR);
    if first == ERROR {
        pumps.spawn(async move { drop(hello.send(encoding.message(ERROR, &[])).await) });
    }
    let (resize_in, resize) = mpsc::channel(RESIZES_MAX);
    let (stdin, mut typed) = match ends.stdin.then(|| tokio::io::duplex(PIPE_BYTES)) {
        Some((mine, theirs)) => (Some(mine), Some(theirs)),
        None => (None, None),
    };
    let (exit, ended) = oneshot::channel();
    tokio::spawn(async move {
        let read = async {
            while let Some(Ok(message)) = incoming.next().await {
                let Some((channel, bytes)) = encoding.parse(&message) else { continue };
                match channel {
                    STDIN => {
                        if let Some(to) = &mut typed {
                            // The command no longer reads; it may still write.
                            if to.write_all(&bytes).await.is_err() {
                                typed = None;
                            }
                        }
                    }
                    RESIZE => {
                        if let Ok(size) = serde_json::from_slice::<TerminalSize>(&bytes) {
                            let _ = resize_in.try_send(size);
                        }
                    }
                    CLOSE if version == Version::V5 && bytes.first() == Some(&STDIN) => typed = None,
                    _ => {}
                }
            }
        };
        let finish = async {
            let exit = ended.await.unwrap_or_else(|_| Exit::Failed("the runtime gave up".into()));
            while pumps.join_next().await.is_some() {}
            let body = exit.body(version);
            if version != Version::V1 || !body.is_empty() {
                let _ = messages.send(encoding.message(ERROR, &body)).await;
            }
        };
        // When the client has gone nobody is left to tell the end to: dropping `ended` tells the runtime so.
        tokio::select! {
            () = read => {}
            () = finish => {}
        }
    });
    CommandSession { stdin, stdout, stderr, resize, exit }
}

/// Sends until every sender is gone, then says goodbye.
async fn write_messages<S>(mut sink: SplitSink<WebSocketStream<S>, Message>, mut waiting: mpsc::Receiver<Message>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = waiting.recv().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    let _ = sink.send(goodbye()).await;
    let _ = sink.close().await;
}

/// kubectl takes any other end than a normal closure, also one without a code, for a broken connection.
pub(crate) fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))
}

async fn pump(
    mut from: DuplexStream,
    channel: u8,
    encoding: Encoding,
    messages: mpsc::Sender<Message>,
    greeting: Option<Message>,
) {
    if let Some(greeting) = greeting {
        let _ = messages.send(greeting).await;
    }
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        if messages.send(encoding.message(channel, &chunk[..n])).await.is_err() {
            return;
        }
    }
}

/// The old port-forward: port number `i` of the query has data channel `2i` and error channel `2i + 1`, and each
/// begins with the port as two little-endian bytes.
pub fn forward<S>(socket: WebSocketStream<S>, encoding: Encoding, ports: &[u16]) -> ForwardSession
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    /// Channel numbers are one byte.
    const PORTS_MAX: usize = 127;
    let (sink, mut incoming) = socket.split();
    let (messages, waiting) = mpsc::channel(MESSAGES_WAITING_MAX);
    tokio::spawn(write_messages(sink, waiting));
    let (send, forwards) = mpsc::channel(PORTS_MAX);
    let mut inputs = Vec::new();
    for (index, port) in ports.iter().take(PORTS_MAX).enumerate() {
        let channel = u8::try_from(index * 2).expect("PORTS_MAX keeps it in a byte");
        let mut pipe = |channel: u8| {
            let (mine, theirs) = tokio::io::duplex(PIPE_BYTES);
            let (from, to) = tokio::io::split(theirs);
            tokio::spawn(pump_half(from, channel, encoding, messages.clone(), *port));
            inputs.push(Some(to));
            mine
        };
        let (data, error) = (pipe(channel), pipe(channel + 1));
        let _ = send.try_send(Forward { port: *port, data, error });
    }
    tokio::spawn(async move {
        while let Some(Ok(message)) = incoming.next().await {
            let Some((channel, bytes)) = encoding.parse(&message) else { continue };
            if let Some(slot) = inputs.get_mut(usize::from(channel)) {
                let failed = match slot {
                    Some(to) => to.write_all(&bytes).await.is_err(),
                    None => false,
                };
                if failed {
                    *slot = None;
                }
            }
        }
        for mut to in inputs.into_iter().flatten() {
            let _ = to.shutdown().await;
        }
        // Held until here: the session lasts as long as the client, though no port can be added to it.
        drop(send);
    });
    ForwardSession { forwards }
}

async fn pump_half(
    mut from: tokio::io::ReadHalf<DuplexStream>,
    channel: u8,
    encoding: Encoding,
    messages: mpsc::Sender<Message>,
    port: u16,
) {
    let _ = messages.send(encoding.message(channel, &port.to_le_bytes())).await;
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        if messages.send(encoding.message(channel, &chunk[..n])).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::protocol::Role;

    async fn pair(version: Version, ends: Ends) -> (WebSocketStream<DuplexStream>, CommandSession) {
        let (client, server) = tokio::io::duplex(1 << 16);
        let server = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
        let client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        (client, command(server, version, Encoding::Binary, ends))
    }

    #[tokio::test]
    async fn stdin_is_half_closed_by_v5_and_the_status_comes_last() {
        let ends = Ends { stdin: true, stdout: true, ..Ends::default() };
        let (mut client, session) = pair(Version::V5, ends).await;
        assert_eq!(client.next().await.unwrap().unwrap().into_data().as_ref(), [STDOUT]);
        client.send(Message::binary(b"\0abc".to_vec())).await.unwrap();
        client.send(Message::binary(vec![CLOSE, STDIN])).await.unwrap();
        let mut typed = String::new();
        session.stdin.unwrap().read_to_string(&mut typed).await.unwrap();
        assert_eq!(typed, "abc");
        let mut stdout = session.stdout.unwrap();
        stdout.write_all(b"out").await.unwrap();
        session.exit.send(Exit::Code(3)).unwrap();
        drop(stdout);
        assert_eq!(client.next().await.unwrap().unwrap().into_data().as_ref(), b"\x01out");
        let status = client.next().await.unwrap().unwrap().into_data();
        assert_eq!(status[0], ERROR);
        assert!(String::from_utf8_lossy(&status).contains("exit status 3"));
        // Regression: without the code 1000 kubectl reported a lost connection instead of the command's exit code.
        let Message::Close(Some(frame)) = client.next().await.unwrap().unwrap() else { panic!("no close frame") };
        assert_eq!(frame.code, CloseCode::Normal);
    }

    #[tokio::test]
    async fn a_client_that_goes_away_is_noticed_while_the_command_is_silent() {
        let ends = Ends { stdout: true, ..Ends::default() };
        let (client, mut session) = pair(Version::V5, ends).await;
        drop(client);
        session.exit.closed().await;
    }

    #[tokio::test]
    async fn a_forward_session_lasts_as_long_as_its_client() {
        let (client, server) = tokio::io::duplex(1 << 16);
        let server = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
        let mut session = forward(server, Encoding::Binary, &[80]);
        assert_eq!(session.accept().await.map(|f| f.port), Some(80));
        let next = tokio::spawn(async move { session.accept().await.is_none() });
        tokio::task::yield_now().await;
        assert!(!next.is_finished());
        drop(client);
        assert!(next.await.unwrap());
    }

    #[test]
    fn base64_channels_are_digits() {
        let message = Encoding::Base64.message(STDOUT, b"hi");
        assert_eq!(message.to_text().unwrap(), "1aGk=");
        assert_eq!(Encoding::Base64.parse(&message), Some((STDOUT, b"hi".to_vec())));
        assert_eq!(Encoding::Base64.parse(&Message::text("1***")), None);
    }
}
