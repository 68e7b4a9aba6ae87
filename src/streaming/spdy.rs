//! SPDY/3.1 over any byte stream, as far as Kubernetes' clients use it: streams that the client opens.
//!
//! Owns: frames, stream numbers and half-closing.
//! Called by: `negotiate`, on an upgraded connection or a tunnel.
//! Never: does flow control: neither kubectl nor the kubelet does, so a full pipe holds the connection back.

use std::collections::HashMap;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, ReadHalf};
use tokio::sync::mpsc;

use crate::headers::{HeaderError, Reader, Writer};

/// Room for what a stream's reader has not taken yet.
const STREAM_BYTES: usize = 256 << 10;
/// kubectl writes at most 64 KiB at a time; the format allows 16 MiB.
const FRAME_BYTES_MAX: usize = 4 << 20;
const STREAMS_MAX: usize = 4096;
const CHUNK_BYTES: usize = 32 << 10;
const FRAMES_WAITING_MAX: usize = 64;

const CONTROL: u8 = 0x80;
const VERSION: u8 = 3;
const FLAG_FIN: u8 = 1;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

#[derive(Debug, thiserror::Error)]
enum SpdyError {
    #[error("connection")]
    Io(#[from] io::Error),
    #[error("headers")]
    Headers(#[from] HeaderError),
    #[error("a frame of {0} bytes")]
    TooLarge(usize),
    #[error("a frame is shorter than its type allows")]
    Short,
    #[error("more than {STREAMS_MAX} streams")]
    TooMany,
}

/// A stream the client has opened. Reading ends when the client half-closes; shutting down our side closes the other.
pub struct Stream {
    pub id: u32,
    headers: Vec<(String, String)>,
    pub io: DuplexStream,
}

impl Stream {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

pub struct Connection {
    streams: mpsc::Receiver<Stream>,
    frames: mpsc::Sender<Frame>,
}

impl Connection {
    /// The next stream; `None` when the connection has ended.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// Takes no more streams, and closes the connection once the open ones have been written out.
    pub async fn finish(self) {
        let _ = self.frames.send(Frame::Finish).await;
    }
}

enum Frame {
    Reply(u32),
    Data(u32, Vec<u8>),
    Fin(u32),
    Ping([u8; 4]),
    /// After every stream has sent its `Fin`.
    Finish,
}

/// Starts to speak; the tasks end with the connection.
pub fn serve(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Connection {
    let (read, write) = tokio::io::split(io);
    let (stream_in, streams) = mpsc::channel(FRAMES_WAITING_MAX);
    let (frames, frames_out) = mpsc::channel(FRAMES_WAITING_MAX);
    let replies = frames.clone();
    let writer = tokio::spawn(async move {
        if let Err(e) = write_frames(write, frames_out).await {
            tracing::debug!(error = %e, "spdy writer ended");
        }
    });
    tokio::spawn(async move {
        // The writer has closed the connection: nothing that is still read has a receiver.
        tokio::select! {
            result = read_frames(BufReader::new(read), stream_in, replies) => {
                if let Err(e) = result {
                    tracing::debug!(error = %e, "spdy reader ended");
                }
            }
            _ = writer => {}
        }
    });
    Connection { streams, frames }
}

async fn write_frames<W: AsyncWrite + Unpin>(mut to: W, mut frames: mpsc::Receiver<Frame>) -> io::Result<()> {
    let mut headers = Writer::new();
    let mut open = std::collections::HashSet::new();
    let mut finishing = false;
    while let Some(frame) = frames.recv().await {
        match frame {
            Frame::Reply(id) => {
                open.insert(id);
                let block = headers.write(&[]);
                let mut body = id.to_be_bytes().to_vec();
                body.extend(block);
                control(&mut to, SYN_REPLY, &body).await?;
            }
            Frame::Data(id, bytes) => data(&mut to, id, 0, &bytes).await?,
            Frame::Fin(id) => {
                open.remove(&id);
                data(&mut to, id, FLAG_FIN, &[]).await?;
            }
            Frame::Ping(id) => control(&mut to, PING, &id).await?,
            Frame::Finish => finishing = true,
        }
        if finishing && open.is_empty() {
            break;
        }
        if frames.is_empty() {
            to.flush().await?;
        }
    }
    to.shutdown().await
}

async fn control<W: AsyncWrite + Unpin>(to: &mut W, kind: u16, body: &[u8]) -> io::Result<()> {
    let [high, low] = kind.to_be_bytes();
    let length = u32::try_from(body.len()).expect("our control frames are short").to_be_bytes();
    to.write_all(&[CONTROL, VERSION, high, low, 0, length[1], length[2], length[3]]).await?;
    to.write_all(body).await
}

async fn data<W: AsyncWrite + Unpin>(to: &mut W, id: u32, flags: u8, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).expect("a chunk is shorter than CHUNK_BYTES").to_be_bytes();
    let mut head = [0; 8];
    head[..4].copy_from_slice(&id.to_be_bytes());
    head[4..].copy_from_slice(&[flags, length[1], length[2], length[3]]);
    to.write_all(&head).await?;
    to.write_all(bytes).await
}

/// Where the client's bytes of a stream go, until it half-closes.
type Inbound = HashMap<u32, tokio::io::WriteHalf<DuplexStream>>;

async fn read_frames<R: AsyncRead + Unpin>(
    mut from: R,
    streams: mpsc::Sender<Stream>,
    frames: mpsc::Sender<Frame>,
) -> Result<(), SpdyError> {
    let mut headers = Reader::new();
    let mut inbound = Inbound::new();
    loop {
        let mut head = [0; 8];
        match from.read_exact(&mut head).await {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        let (flags, length) = (head[4], u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize);
        if length > FRAME_BYTES_MAX {
            return Err(SpdyError::TooLarge(length));
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body).await?;
        if head[0] & CONTROL == 0 {
            let id = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            if let Some(to) = inbound.get_mut(&id) {
                // The stream's owner has gone; its bytes have nowhere to go.
                let failed = to.write_all(&body).await.is_err();
                if failed || flags & FLAG_FIN != 0 {
                    let _ = to.shutdown().await;
                    inbound.remove(&id);
                }
            }
            continue;
        }
        match u16::from_be_bytes([head[2], head[3]]) {
            SYN_STREAM => {
                let id = stream_id(&body)?;
                let named = headers.read(body.get(10..).ok_or(SpdyError::Short)?)?;
                if inbound.len() >= STREAMS_MAX {
                    return Err(SpdyError::TooMany);
                }
                let (mine, theirs) = tokio::io::duplex(STREAM_BYTES);
                let (outbound, mut to) = tokio::io::split(mine);
                // The reply goes first: clients wait for it before they write.
                let _ = frames.send(Frame::Reply(id)).await;
                tokio::spawn(send_stream(id, outbound, frames.clone()));
                if flags & FLAG_FIN == 0 {
                    inbound.insert(id, to);
                } else {
                    let _ = to.shutdown().await;
                }
                if streams.send(Stream { id, headers: named, io: theirs }).await.is_err() {
                    tracing::debug!(id, "a stream after the session was complete");
                }
            }
            RST_STREAM => {
                if let Some(mut to) = inbound.remove(&stream_id(&body)?) {
                    let _ = to.shutdown().await;
                }
            }
            PING => {
                let id = body.first_chunk::<4>().ok_or(SpdyError::Short)?;
                let _ = frames.send(Frame::Ping(*id)).await;
            }
            GOAWAY => return Ok(()),
            // SETTINGS, HEADERS, WINDOW_UPDATE and what is yet unknown ask nothing of us.
            _ => {}
        }
    }
}

fn stream_id(body: &[u8]) -> Result<u32, SpdyError> {
    let id = body.first_chunk::<4>().ok_or(SpdyError::Short)?;
    Ok(u32::from_be_bytes(*id) & 0x7fff_ffff)
}

/// Carries what our side writes until it shuts down, then half-closes.
async fn send_stream(id: u32, mut from: ReadHalf<DuplexStream>, frames: mpsc::Sender<Frame>) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        if frames.send(Frame::Data(id, chunk[..n].to_vec())).await.is_err() {
            return;
        }
    }
    let _ = frames.send(Frame::Fin(id)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client in a few lines: opens one stream and reads frames back.
    async fn open(client: &mut DuplexStream, headers: &mut Writer, id: u32, kind: &str) {
        let mut body = id.to_be_bytes().to_vec();
        body.extend([0; 6]);
        body.extend(headers.write(&[("streamType", kind)]));
        control(client, SYN_STREAM, &body).await.unwrap();
    }

    async fn frame(client: &mut DuplexStream) -> ([u8; 8], Vec<u8>) {
        let mut head = [0; 8];
        client.read_exact(&mut head).await.unwrap();
        let mut body = vec![0; u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize];
        client.read_exact(&mut body).await.unwrap();
        (head, body)
    }

    #[tokio::test]
    async fn a_stream_is_replied_to_echoed_and_half_closed() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut connection = serve(server);
        let mut headers = Writer::new();
        open(&mut client, &mut headers, 1, "stdin").await;
        let mut stream = connection.accept().await.unwrap();
        assert_eq!(stream.header("streamtype"), Some("stdin"));
        let (head, _) = frame(&mut client).await;
        assert_eq!(head[..4], [0x80, 3, 0, 2]);
        data(&mut client, 1, FLAG_FIN, b"hello").await.unwrap();
        let mut text = String::new();
        stream.io.read_to_string(&mut text).await.unwrap();
        stream.io.write_all(text.to_uppercase().as_bytes()).await.unwrap();
        stream.io.shutdown().await.unwrap();
        assert_eq!(frame(&mut client).await.1, b"HELLO");
        assert_eq!(frame(&mut client).await.0[4], FLAG_FIN);
        connection.finish().await;
    }

    #[tokio::test]
    async fn garbage_ends_the_connection() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut connection = serve(server);
        client.write_all(&[0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0]).await.unwrap();
        assert!(connection.accept().await.is_none());
    }
}
