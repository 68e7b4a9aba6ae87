//! The loopback server behind the URLs that Exec, Attach and PortForward answer with.
//!
//! Owns: the tokens in these URLs: each works once, and not for long.
//! Called by: the CRI RuntimeService (hands out URLs), the kubelet (relays a client's upgraded connection to one).
//! Never: is reachable from another machine; who may do what was decided before a URL was handed out.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use minik_streaming::{Ends, upgrade_command, upgrade_forward};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::error::Error;
use crate::exec;
use crate::port_forward;
use crate::runtime::{Container, Runtime};

/// containerd's and CRI-O's numbers.
const TOKEN_LIVES: Duration = Duration::from_secs(60);
const TOKENS_MAX: usize = 1000;

/// What a URL stands for.
pub(crate) enum Purpose {
    Exec {
        container: Arc<Container>,
        command: Vec<String>,
        ends: Ends,
    },
    Attach {
        container: Arc<Container>,
        ends: Ends,
    },
    /// The network namespace; none for the node's own.
    PortForward {
        sandbox: String,
        namespace: Option<PathBuf>,
        ports: Vec<u16>,
    },
}

pub(crate) struct StreamServer {
    address: SocketAddr,
    listener: Mutex<Option<TcpListener>>,
    tokens: Arc<Mutex<HashMap<String, (Instant, Purpose)>>>,
}

impl StreamServer {
    pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<StreamServer> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(StreamServer { address, listener: Mutex::new(Some(listener)), tokens: Arc::default() })
    }

    pub(crate) fn url(&self, purpose: Purpose) -> Result<String, Error> {
        let verb = match purpose {
            Purpose::Exec { .. } => "exec",
            Purpose::Attach { .. } => "attach",
            Purpose::PortForward { .. } => "portforward",
        };
        let token = uuid::Uuid::new_v4().simple().to_string();
        let mut tokens = self.tokens.lock();
        tokens.retain(|_, (made, _)| made.elapsed() < TOKEN_LIVES);
        if tokens.len() >= TOKENS_MAX {
            return Err(Error::Precondition("maximum number of in-flight requests exceeded".into()));
        }
        tokens.insert(token.clone(), (Instant::now(), purpose));
        Ok(format!("http://{}/{verb}/{token}", self.address))
    }

    /// Accepts connections for as long as the process lives.
    pub(crate) fn serve(&self, runtime: &Runtime) {
        let Some(listener) = self.listener.lock().take() else { return };
        let runtime = runtime.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of descriptors: others will be closed; meanwhile do not spin.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let _ = stream.set_nodelay(true);
                let runtime = runtime.clone();
                let service = hyper::service::service_fn(move |request| {
                    let runtime = runtime.clone();
                    async move { Ok::<_, std::convert::Infallible>(answer(&runtime, request)) }
                });
                tokio::spawn(async move {
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades();
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "streaming connection ended");
                    }
                });
            }
        });
    }

    fn redeem(&self, path: &str) -> Option<Purpose> {
        let (verb, token) = path.strip_prefix('/')?.split_once('/')?;
        let (made, purpose) = self.tokens.lock().remove(token)?;
        let fits = matches!(
            (verb, &purpose),
            ("exec", Purpose::Exec { .. })
                | ("attach", Purpose::Attach { .. })
                | ("portforward", Purpose::PortForward { .. })
        );
        (fits && made.elapsed() < TOKEN_LIVES).then_some(purpose)
    }
}

type Answer = Response<Full<Bytes>>;

fn refuse(code: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = code;
    answer
}

fn answer(runtime: &Runtime, request: Request<Incoming>) -> Answer {
    let Some(purpose) = runtime.0.streaming.redeem(request.uri().path()) else {
        return refuse(StatusCode::NOT_FOUND, "404 page not found\n".into());
    };
    let runtime = runtime.clone();
    match purpose {
        Purpose::Exec { container, command, ends } => match upgrade_command(request, ends) {
            Ok((answer, session)) => {
                tokio::spawn(async move {
                    if let Some(session) = session.await {
                        exec::stream(&runtime, &container, &command, ends, session).await;
                    }
                });
                answer
            }
            Err(refusal) => refuse(refusal.code(), refusal.to_string()),
        },
        Purpose::Attach { container, ends } => match upgrade_command(request, ends) {
            Ok((answer, session)) => {
                tokio::spawn(async move {
                    if let Some(session) = session.await {
                        exec::attach(&runtime, &container, ends, session).await;
                    }
                });
                answer
            }
            Err(refusal) => refuse(refusal.code(), refusal.to_string()),
        },
        Purpose::PortForward { sandbox, namespace, ports } => match upgrade_forward(request, ports) {
            Ok((answer, session)) => {
                tokio::spawn(async move {
                    if let Some(session) = session.await {
                        port_forward::serve(session, &sandbox, namespace).await;
                    }
                });
                answer
            }
            Err(refusal) => refuse(refusal.code(), refusal.to_string()),
        },
    }
}
