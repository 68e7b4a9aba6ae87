//! Starting shims and speaking with them.
//!
//! Owns: this side of a shim's socket.
//! Called by: containers and execs.
//! Never: keeps a shim's process as a child that matters: a shim outlives the runtime.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use minik_shim::protocol::{Frame, HEADER, PAYLOAD_MAX, Request};
use minik_shim::{Ready, SOCKET_FILE};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Command;

use crate::error::{Error, io_error};

/// Making a container takes 10 ms; on a machine that thrashes it may take long, but not for ever.
const READY_WITHIN: Duration = Duration::from_secs(120);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

pub(crate) struct Started {
    pub pid: i32,
    pub started_at: i64,
}

/// `verb` is `run`, `exec` or `pause`.
pub(crate) async fn start(exe: &Path, verb: &'static str, dir: &Path) -> Result<Started, Error> {
    let failed = |message: String| Error::Shim { verb: said(verb), message };
    let mut child = Command::new(exe)
        .arg("shim")
        .arg(verb)
        .arg(dir)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(false)
        .spawn()
        .map_err(|e| failed(format!("could not start {} shim: {e}", exe.display())))?;
    let stdout = child.stdout.take().expect("stdout is piped");
    // Somebody must take the shim's status while this process is its parent; later PID 1 does.
    tokio::spawn(async move { child.wait().await });
    let mut line = String::new();
    let mut reader = BufReader::new(stdout);
    match tokio::time::timeout(READY_WITHIN, reader.read_line(&mut line)).await {
        Err(_) => return Err(failed(format!("no answer within {} s", READY_WITHIN.as_secs()))),
        Ok(Err(e)) => return Err(failed(e.to_string())),
        Ok(Ok(_)) => {}
    }
    match serde_json::from_str(&line) {
        Ok(Ready::Started { pid, started_at }) => Ok(Started { pid, started_at }),
        Ok(Ready::Failed { message }) => Err(failed(message)),
        Err(_) => Err(failed("the shim ended without saying why".into())),
    }
}

/// The words that pod events have with other runtimes.
fn said(verb: &'static str) -> &'static str {
    match verb {
        "run" => "failed to create containerd task: failed to create shim task: OCI runtime create failed",
        "exec" => "OCI runtime exec failed: exec failed",
        _ => "failed to start the sandbox's first process",
    }
}

pub(crate) struct Reader(OwnedReadHalf);
pub(crate) struct Writer(OwnedWriteHalf);

/// Connects to the shim of `dir` and says what for.
pub(crate) async fn connect(dir: &Path, request: &Request) -> std::io::Result<(Reader, Writer)> {
    let (read, write) = UnixStream::connect(dir.join(SOCKET_FILE)).await?.into_split();
    let mut writer = Writer(write);
    writer.send(&Frame::request(request)).await?;
    Ok((Reader(read), writer))
}

/// A request that is answered with `Done`.
pub(crate) async fn call(dir: &Path, request: &Request) -> Result<(), Error> {
    let what = || "could not reach the container's shim";
    let answer = async {
        let (mut reader, _writer) = connect(dir, request).await?;
        reader.next().await
    };
    let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await;
    let answer = answer.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    match answer.map_err(io_error(what()))? {
        Some(Frame::Done(error)) if error.is_empty() => Ok(()),
        Some(Frame::Done(message)) => Err(Error::Shim { verb: "the shim refused", message }),
        _ => Err(io_error(what())(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

impl Reader {
    /// The next frame; none when the shim has gone.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<Frame>> {
        let mut header = [0; HEADER];
        match self.0.read_exact(&mut header).await {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        };
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if length > PAYLOAD_MAX {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await?;
        Frame::from_parts(header[0], payload).map(Some).map_err(std::io::Error::other)
    }
}

impl Writer {
    pub(crate) async fn send(&mut self, frame: &Frame) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.0.write_all(&bytes).await
    }
}
