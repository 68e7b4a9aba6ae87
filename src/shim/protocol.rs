//! What is said over a shim's socket: frames of a kind, a length and a payload.
//!
//! Owns: the frame format and the messages inside.
//! Called by: the shim's event loop and `cri`'s side of the socket.
//! Never: reads or writes a socket itself.

use serde::{Deserialize, Serialize};

use crate::config::Exit;

/// Kind (1 byte) and payload length (4 bytes, big endian).
pub const HEADER: usize = 5;
/// Longer payloads are refused: no peer of ours sends them.
pub const PAYLOAD_MAX: usize = 1 << 20;

/// First line of a shim's standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    Started { pid: i32, started_at: i64 },
    Failed { message: String },
}

/// The first frame of a connection, and those that may follow it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// From here on output frames come, and stdin frames are taken.
    Attach {
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    /// Answered when the process has ended and its output is written down.
    Wait,
    /// The log file was renamed: open it anew. Answered with `Done`.
    ReopenLog,
    /// `all`: every process of the container's cgroup. Answered with `Done`.
    Signal {
        signal: i32,
        all: bool,
    },
    Resize {
        width: u16,
        height: u16,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Stdin(Vec<u8>),
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    CloseStdin,
    Request(String),
    /// The answer to a request that has one; an error text, or empty.
    Done(String),
    Exit(Exit),
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("unknown frame kind {0}")]
    Kind(u8),
    #[error("a frame of {0} bytes is too long")]
    Length(usize),
    #[error("a frame's payload is not what its kind says")]
    Payload,
}

impl Frame {
    pub fn request(request: &Request) -> Frame {
        Frame::Request(serde_json::to_string(request).expect("a request has no map with foreign keys"))
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        let exit;
        let (kind, payload): (u8, &[u8]) = match self {
            Frame::Stdin(b) => (0, b),
            Frame::Stdout(b) => (1, b),
            Frame::Stderr(b) => (2, b),
            Frame::CloseStdin => (3, &[]),
            Frame::Request(text) => (4, text.as_bytes()),
            Frame::Done(text) => (5, text.as_bytes()),
            Frame::Exit(e) => {
                exit = serde_json::to_vec(e).expect("an exit has no map with foreign keys");
                (6, &exit)
            }
        };
        out.push(kind);
        out.extend_from_slice(&u32::try_from(payload.len()).expect("frames are short").to_be_bytes());
        out.extend_from_slice(payload);
    }

    /// Takes one whole frame off the front of `buffer`, if there is one.
    pub fn decode(buffer: &mut Vec<u8>) -> Result<Option<Frame>, FrameError> {
        if buffer.len() < HEADER {
            return Ok(None);
        }
        let length = u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize;
        if length > PAYLOAD_MAX {
            return Err(FrameError::Length(length));
        }
        if buffer.len() < HEADER + length {
            return Ok(None);
        }
        let kind = buffer[0];
        let payload: Vec<u8> = buffer.drain(..HEADER + length).skip(HEADER).collect();
        Frame::from_parts(kind, payload).map(Some)
    }

    pub fn from_parts(kind: u8, payload: Vec<u8>) -> Result<Frame, FrameError> {
        let text = |payload| String::from_utf8(payload).map_err(|_| FrameError::Payload);
        Ok(match kind {
            0 => Frame::Stdin(payload),
            1 => Frame::Stdout(payload),
            2 => Frame::Stderr(payload),
            3 => Frame::CloseStdin,
            4 => Frame::Request(text(payload)?),
            5 => Frame::Done(text(payload)?),
            6 => Frame::Exit(serde_json::from_slice(&payload).map_err(|_| FrameError::Payload)?),
            other => return Err(FrameError::Kind(other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_out_only_when_its_last_byte_is_in() {
        let frames = [
            Frame::Stdout(b"hello".to_vec()),
            Frame::CloseStdin,
            Frame::request(&Request::Resize { width: 80, height: 24 }),
            Frame::Exit(Exit { code: 137, finished_at: 5, oom_killed: true }),
        ];
        let mut wire = Vec::new();
        for frame in &frames {
            frame.encode(&mut wire);
        }
        let (mut buffer, mut seen) = (Vec::new(), Vec::new());
        for byte in wire {
            buffer.push(byte);
            while let Some(frame) = Frame::decode(&mut buffer).unwrap() {
                seen.push(frame);
            }
        }
        assert_eq!(seen, frames);
    }

    #[test]
    fn a_frame_longer_than_the_limit_is_refused_before_it_is_read() {
        assert!(matches!(Frame::decode(&mut vec![0, 0xff, 0, 0, 0]), Err(FrameError::Length(_))));
        assert!(matches!(Frame::decode(&mut vec![9, 0, 0, 0, 0]), Err(FrameError::Kind(9))));
    }
}
