//! A byte stream inside binary WebSocket messages: how kubectl carries SPDY through proxies that only know WebSocket.
//!
//! Owns: the pump between messages and bytes.
//! Called by: `negotiate`.
//! Never: looks at the bytes.

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const PIPE_BYTES: usize = 64 << 10;

/// The other end of the returned pipe is the WebSocket.
pub fn bytes<S>(socket: WebSocketStream<S>) -> DuplexStream
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (theirs, mine) = tokio::io::duplex(PIPE_BYTES);
    let (mut pipe_out, mut pipe_in) = tokio::io::split(mine);
    let (mut messages, mut incoming) = socket.split();
    tokio::spawn(async move {
        while let Some(Ok(message)) = incoming.next().await {
            match message {
                Message::Binary(bytes) if pipe_in.write_all(&bytes).await.is_err() => return,
                Message::Close(_) => break,
                _ => {}
            }
        }
        let _ = pipe_in.shutdown().await;
    });
    tokio::spawn(async move {
        let mut chunk = vec![0; PIPE_BYTES];
        while let Ok(n @ 1..) = pipe_out.read(&mut chunk).await {
            if messages.send(Message::binary(chunk[..n].to_vec())).await.is_err() {
                return;
            }
        }
        let _ = messages.send(crate::channels::goodbye()).await;
        let _ = messages.close().await;
    });
    theirs
}
