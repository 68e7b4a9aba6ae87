//! One port-forward session: any number of connections to ports of one pod.
//!
//! Owns: pairing the data and error streams of a connection.
//! Called by: `negotiate`.
//! Never: dials; the runtime does.

use std::collections::HashMap;

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use crate::spdy;

/// Connections that may wait for the runtime to dial.
pub(crate) const FORWARDS_WAITING_MAX: usize = 64;
/// Half-opened pairs a client may leave behind.
const HALVES_MAX: usize = 1024;

/// One connection to forward. `error` takes a sentence if dialling or copying fails; drop both to end it.
pub struct Forward {
    pub port: u16,
    pub data: DuplexStream,
    pub error: DuplexStream,
}

pub struct ForwardSession {
    pub(crate) forwards: mpsc::Receiver<Forward>,
}

impl ForwardSession {
    /// The next connection; `None` when the client has gone.
    pub async fn accept(&mut self) -> Option<Forward> {
        self.forwards.recv().await
    }
}

/// kubectl opens an error and a data stream per connection, tied by `requestid`; old clients send none and open
/// both on neighbouring stream ids.
pub(crate) fn over_spdy(mut connection: spdy::Connection) -> ForwardSession {
    let (send, forwards) = mpsc::channel(FORWARDS_WAITING_MAX);
    tokio::spawn(async move {
        let mut halves: HashMap<String, spdy::Stream> = HashMap::new();
        while let Some(stream) = connection.accept().await {
            let is_data = stream.header("streamtype") == Some("data");
            let pair = match stream.header("requestid") {
                Some(id) => id.to_string(),
                // The error stream is opened first, two below the data stream.
                None if is_data => (stream.id - 2).to_string(),
                None => stream.id.to_string(),
            };
            let Some(port) = stream.header("port").and_then(|p| p.parse::<u16>().ok()).filter(|p| *p > 0) else {
                tracing::debug!(stream = stream.id, "a forward without a port");
                continue;
            };
            let Some(other) = halves.remove(&pair) else {
                if halves.len() < HALVES_MAX {
                    halves.insert(pair, stream);
                }
                continue;
            };
            let (data, error) = if is_data { (stream.io, other.io) } else { (other.io, stream.io) };
            if send.send(Forward { port, data, error }).await.is_err() {
                return;
            }
        }
    });
    ForwardSession { forwards }
}
