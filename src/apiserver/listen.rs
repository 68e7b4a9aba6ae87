//! Connections: TLS, HTTP/1.1 and HTTP/2, and an orderly end.
//!
//! Owns: the listener's loop, handshakes, and draining.
//! Called by: `ApiServer::serve`.
//! Never: looks into a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinError;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authn::x509::AskForCertificate;
use crate::authn::{Authenticators, Peer};
use crate::body::{Body, BoxError};
use crate::config::Tls;
use crate::linger::{Linger, Pace, Requests};
use crate::server::{BuildError, Core};
use crate::streams::{Begun, Together};
use crate::{pipeline, streams};

/// A peer that does not finish its handshake is not a client.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers must be complete by then.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests may go on once the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that went away without a word is found out by not answering, on HTTP/2 and below it; until then its watches
/// hold what they hold.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
const PROBES_UNANSWERED: u32 = 4;
/// After a failed accept, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// As TLS names it; who does not ask for it by this name speaks HTTP/1.1.
const HTTP2: &[u8] = b"h2";
/// Upstream's limit per HTTP/2 connection is 100 by default; in-process benchmarks and many informers want more.
const HTTP2_STREAMS_MAX: u32 = 1000;
/// What TLS takes in one piece: a chunk of a long answer with its frame's header. By default it is 64 KiB, which would
/// leave the last few bytes of each chunk to a record and a packet of their own.
const TLS_BUFFER_BYTES: usize = 128 << 10;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the listener has no address")]
    Listener(#[source] std::io::Error),
}

pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, BuildError> {
    let found: Result<Vec<_>, _> = rustls_pemfile::certs(&mut pem.as_bytes()).collect();
    found.map_err(|e| BuildError::Certificate(e.to_string()))
}

pub fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, BuildError> {
    rustls_pemfile::private_key(&mut pem.as_bytes())
        .map_err(|e| BuildError::Certificate(e.to_string()))?
        .ok_or_else(|| BuildError::Certificate("there is no private key".into()))
}

pub fn acceptor(tls: &Tls, authenticators: &Authenticators) -> Result<TlsAcceptor, BuildError> {
    let wrong = |e: rustls::Error| BuildError::Certificate(e.to_string());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(ciphers()))
        .with_safe_default_protocol_versions()
        .map_err(wrong)?;
    let builder = match authenticators.authorities().as_slice() {
        [] => builder.with_no_client_auth(),
        // Optional: who comes without a certificate may have a token.
        authorities => builder.with_client_cert_verifier(AskForCertificate::new(authorities)),
    };
    let chain = certificates(&tls.serving.certificate)?;
    let mut config = builder.with_single_cert(chain, private_key(&tls.serving.key)?).map_err(wrong)?;
    config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// AES with 128 bits first, as Go's servers choose it: a long list is mostly encryption, and 256 bits cost a quarter more.
fn ciphers() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

pub async fn serve(
    core: Arc<Core>,
    tls: Option<TlsAcceptor>,
    listener: TcpListener,
    cancel: CancellationToken,
) -> Result<(), ServeError> {
    listener.local_addr().map_err(ServeError::Listener)?;
    let (connections, requests) = (TaskTracker::new(), Requests::default());
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let connection = connect(core.clone(), tls.clone(), stream, address, requests.clone(), cancel.clone());
                connections.spawn(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // Watches end at once, so that their clients go elsewhere; other requests get their time.
    core.stopping.cancel();
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "connections were still open when the time to drain was over");
    }
    Ok(())
}

async fn connect(
    core: Arc<Core>,
    tls: Option<TlsAcceptor>,
    stream: TcpStream,
    address: SocketAddr,
    requests: Requests,
    cancel: CancellationToken,
) {
    // Small answers must not wait for more data to fill a packet.
    let _ = stream.set_nodelay(true);
    probe(&stream);
    let mut peer = Peer { address: Some(address), ..Peer::default() };
    let Some(acceptor) = tls else { return converse_http1(core, stream, requests, peer, cancel).await };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(mut stream)) => {
            stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            peer.certificates = Arc::new(certificates.iter().map(|c| c.to_vec()).collect());
            if stream.get_ref().1.alpn_protocol() == Some(HTTP2) {
                // The only worker would keep everybody waiting, and a single processor its client.
                let workers = tokio::runtime::Handle::current().metrics().num_workers();
                let linger = if workers > 1 { Linger::new(stream.get_ref().0, requests) } else { None };
                converse_http2(core, stream, linger, peer, cancel).await;
            } else {
                converse_http1(core, stream, requests, peer, cancel).await;
            }
        }
        Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
    }
}

/// Asks the kernel to probe a silent connection. One that cannot be probed is served all the same.
fn probe(stream: &TcpStream) {
    use rustix::net::sockopt;
    let asked = sockopt::set_socket_keepalive(stream, true)
        .and_then(|()| sockopt::set_tcp_keepidle(stream, PING_INTERVAL))
        .and_then(|()| sockopt::set_tcp_keepintvl(stream, PING_TIMEOUT))
        .and_then(|()| sockopt::set_tcp_keepcnt(stream, PROBES_UNANSWERED));
    if let Err(error) = asked {
        tracing::debug!(%error, "a connection cannot be probed");
    }
}

fn service(
    core: Arc<Core>,
    peer: Peer,
    pace: Pace,
) -> impl Service<http::Request<Incoming>, Response = http::Response<Body>, Error = JoinError, Future: Send> {
    let peer = Arc::new(peer);
    service_fn(move |request: http::Request<Incoming>| {
        let (core, peer) = (core.clone(), peer.clone());
        let request = request.map(|b| b.map_err(|e| Box::new(e) as BoxError).boxed_unsync());
        streams::apart(async move { pipeline::handle(&core, request, &peer).await }, pace.clone())
    })
}

async fn converse_http1<S>(core: Arc<Core>, stream: S, requests: Requests, peer: Peer, cancel: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let answers = service(core, peer, Pace::default());
    let counted = service_fn(move |request| {
        requests.begin(1);
        answers.call(request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), counted).with_upgrades();
    to_its_end(Box::pin(connection), |connection| connection.as_mut().graceful_shutdown(), cancel).await;
}

async fn converse_http2<S>(core: Arc<Core>, stream: S, linger: Option<Linger>, peer: Peer, cancel: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = Begun::default();
    let mut builder = http2::Builder::new(begun.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let pace = linger.as_ref().map(Linger::pace).unwrap_or_default();
    let connection = Box::pin(builder.serve_connection(TokioIo::new(stream), service(core, peer, pace)));
    let together = Together::new(connection, begun, linger);
    to_its_end(together, |together| together.connection().as_mut().graceful_shutdown(), cancel).await;
}

/// Once the server stops, a connection gets no more requests and answers those that it has.
async fn to_its_end<C, E>(mut connection: C, stop: impl FnOnce(&mut C), cancel: CancellationToken)
where
    C: Future<Output = Result<(), E>> + Unpin,
    E: std::error::Error,
{
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = cancel.cancelled() => {
            stop(&mut connection);
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}
