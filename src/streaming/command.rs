//! One exec or attach, whatever protocol carries it.
//!
//! Owns: the session the runtime sees, the exit status as the error stream carries it, and the SPDY form.
//! Called by: `negotiate`.
//! Never: interprets what the command reads or writes.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};

use crate::negotiate::Version;
use crate::spdy;

/// How long a client may take to open its streams; the kubelet's own limit.
const STREAMS_WITHIN: Duration = Duration::from_secs(30);
/// Terminal sizes a client may send ahead.
pub(crate) const RESIZES_MAX: usize = 16;
/// Between the protocol and the command, in each direction.
pub(crate) const PIPE_BYTES: usize = 64 << 10;

/// Which standard streams the caller asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    #[serde(alias = "width")]
    pub width: u16,
    #[serde(alias = "height")]
    pub height: u16,
}

/// Reads give what the client typed, until it closes; writes reach the client.
pub struct CommandSession {
    pub stdin: Option<DuplexStream>,
    pub stdout: Option<DuplexStream>,
    pub stderr: Option<DuplexStream>,
    pub resize: mpsc::Receiver<TerminalSize>,
    /// Drop (or shut down) `stdout` and `stderr` first: the status is sent after the last of their bytes.
    pub exit: oneshot::Sender<Exit>,
}

/// How the command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    /// It did not run, or its end is unknown.
    Failed(String),
}

impl Exit {
    pub(crate) fn body(&self, version: Version) -> Vec<u8> {
        if version == Version::V1 {
            return match self {
                Exit::Code(0) => Vec::new(),
                Exit::Code(code) => format!("command terminated with exit code {code}").into_bytes(),
                Exit::Failed(why) => why.clone().into_bytes(),
            };
        }
        let status = match self {
            Exit::Code(0) => json!({"metadata": {}, "status": "Success"}),
            Exit::Code(code) => json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Exit::Failed(why) => {
                json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": why, "code": 500})
            }
        };
        status.to_string().into_bytes()
    }
}

/// Waits for the client to open the streams it announced, then connects them.
pub(crate) async fn over_spdy(
    mut connection: spdy::Connection,
    version: Version,
    ends: Ends,
) -> Option<CommandSession> {
    let mut wanted = vec!["error"];
    for (asked, name) in [(ends.stdin, "stdin"), (ends.stdout, "stdout"), (ends.stderr && !ends.tty, "stderr")] {
        if asked {
            wanted.push(name);
        }
    }
    if ends.tty && version != Version::V1 {
        wanted.push("resize");
    }
    let mut open: HashMap<String, spdy::Stream> = HashMap::new();
    let all = async {
        while !wanted.iter().all(|w| open.contains_key(*w)) {
            let stream = connection.accept().await?;
            let kind = stream.header("streamtype").unwrap_or("").to_string();
            open.insert(kind, stream);
        }
        Some(())
    };
    tokio::time::timeout(STREAMS_WITHIN, all).await.ok().flatten()?;
    let (resize_in, resize) = mpsc::channel(RESIZES_MAX);
    if let Some(stream) = open.remove("resize") {
        tokio::spawn(read_sizes(stream.io, resize_in));
    }
    let (exit, ended) = oneshot::channel();
    let mut take = |name: &str| open.remove(name).map(|s| s.io);
    let mut pumps = tokio::task::JoinSet::new();
    let mut output = |to: Option<DuplexStream>| {
        let mut to = to?;
        let (mine, mut from) = tokio::io::duplex(PIPE_BYTES);
        pumps.spawn(async move {
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
        Some(mine)
    };
    let (stdin, stdout, stderr) = (take("stdin"), output(take("stdout")), output(take("stderr")));
    let error = take("error");
    tokio::spawn(async move {
        let gone = async { while connection.accept().await.is_some() {} };
        let exit = tokio::select! {
            exit = ended => exit.unwrap_or_else(|_| Exit::Failed("the runtime gave up".into())),
            // Nobody is left to tell the end to: dropping `ended` tells the runtime so.
            () = gone => return,
        };
        while pumps.join_next().await.is_some() {}
        if let Some(mut error) = error {
            let _ = error.write_all(&exit.body(version)).await;
            let _ = error.shutdown().await;
        }
        connection.finish().await;
    });
    Some(CommandSession { stdin, stdout, stderr, resize, exit })
}

/// A stream of JSON objects, one after the other without a separator.
async fn read_sizes(mut stream: DuplexStream, sizes: mpsc::Sender<TerminalSize>) {
    const OBJECT_BYTES_MAX: usize = 4096;
    let mut pending = Vec::new();
    let mut chunk = [0; 256];
    while let Ok(n @ 1..) = stream.read(&mut chunk).await {
        pending.extend_from_slice(&chunk[..n]);
        let mut objects = serde_json::Deserializer::from_slice(&pending).into_iter::<TerminalSize>();
        let mut read = 0;
        while let Some(Ok(size)) = objects.next() {
            read = objects.byte_offset();
            if sizes.send(size).await.is_err() {
                return;
            }
        }
        pending.drain(..read);
        if pending.len() > OBJECT_BYTES_MAX {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonzero_exit_is_a_status_with_the_code_as_cause() {
        let body: serde_json::Value = serde_json::from_slice(&Exit::Code(7).body(Version::V4)).unwrap();
        assert_eq!(body["reason"], "NonZeroExitCode");
        assert_eq!(body["details"]["causes"][0]["message"], "7");
        assert_eq!(Exit::Code(0).body(Version::V1), b"");
    }

    #[tokio::test]
    async fn sizes_are_read_though_cut_anywhere() {
        let (mut there, here) = tokio::io::duplex(64);
        let (send, mut sizes) = mpsc::channel(4);
        tokio::spawn(read_sizes(here, send));
        for part in [r#"{"Width":80,"#, r#""Height":24}{"Width":1"#, r#"20,"Height":50}"#] {
            there.write_all(part.as_bytes()).await.unwrap();
        }
        assert_eq!(sizes.recv().await, Some(TerminalSize { width: 80, height: 24 }));
        assert_eq!(sizes.recv().await, Some(TerminalSize { width: 120, height: 50 }));
    }
}
