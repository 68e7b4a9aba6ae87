//! The floor of an answer, through the same TLS and HTTP/2 to the same client: of a list, as many bytes out of memory; of a
//! write, its bytes in a file and on the disk.
//!
//! Owns: a server that knows nothing of Kubernetes, in this process.
//! Called by: `main`, beside each list.
//! Never: looks at what it is sent; the bytes of its answers are all the same.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use minik_apiserver::linger::{Linger, Requests};
use minik_apiserver::streams::{Begun, CHUNK_BYTES, Together};
use minik_client::{Body, BoxError, Client, Credentials, Endpoint, Remote};
use rustix::fs::OFlags;
use rustix::thread::{sched_getaffinity, sched_setaffinity};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

const CHUNK: Bytes = Bytes::from_static(&[b'x'; CHUNK_BYTES]);

/// The file is written full of zeros before, as a journal is: to overwrite a block is cheaper than to be given one.
const FILE_BYTES: usize = 1 << 20;
const BLOCK_BYTES: usize = 4096;

pub struct Floor {
    pub client: Client,
    /// A thread of its own, as another process would have; two would wait for each other.
    runtime: Option<Runtime>,
}

/// Not on the client's processor, if there is another.
fn leave_the_first() {
    let Ok(mut rest) = sched_getaffinity(None) else { return };
    rest.unset(0);
    let _ = sched_setaffinity(None, &rest);
}

impl Floor {
    pub fn start() -> Result<Self> {
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".into()])?.self_signed(&key)?;
        let acceptor = acceptor(&certificate, &key)?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let endpoint = Endpoint {
            server: format!("https://{}", listener.local_addr()?),
            ca_pem: certificate.pem().into_bytes(),
            insecure_skip_tls_verify: false,
            tls_server_name: None,
            credentials: Credentials::None,
        };
        let client = Client::new(Arc::new(Remote::new(endpoint)?));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(leave_the_first)
            .enable_all()
            .build()?;
        let journal = Arc::new(Journal::new()?);
        runtime.spawn(async move { serve(TcpListener::from_std(listener)?, acceptor, journal).await });
        Ok(Self { client, runtime: Some(runtime) })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// With the cipher that both servers choose.
fn acceptor(certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> Result<TlsAcceptor> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256];
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .context("a certificate made for it")?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Where writes go, one after the other and over again: whole blocks, past the kernel's cache, as the store's journal.
struct Journal {
    file: File,
    end: AtomicUsize,
    room: Mutex<Vec<u8>>,
}

impl Journal {
    fn new() -> Result<Self> {
        let mut named = tempfile::NamedTempFile::new()?;
        named.write_all(&vec![0; FILE_BYTES])?;
        named.as_file().sync_all()?;
        let flags = (OFlags::DIRECT | OFlags::DSYNC).bits() as i32;
        let file = OpenOptions::new().write(true).custom_flags(flags).open(named.path());
        let file = file.context("the folder of temporary files lies on a file system without direct writes")?;
        Ok(Self { file, end: AtomicUsize::new(0), room: Mutex::default() })
    }

    /// On the caller's thread, as a quick disk is waited for.
    fn append(&self, bytes: &[u8]) -> std::io::Result<()> {
        let at = self.end.fetch_add(bytes.len(), Ordering::Relaxed) % (FILE_BYTES - bytes.len() - BLOCK_BYTES);
        let (start, length) = (at - at % BLOCK_BYTES, (at % BLOCK_BYTES + bytes.len()).next_multiple_of(BLOCK_BYTES));
        let mut room = self.room.lock().expect("nobody fails while holding it");
        room.resize(length + BLOCK_BYTES, b'x');
        let aligned = room.as_ptr().align_offset(BLOCK_BYTES);
        self.file.write_all_at(&room[aligned..aligned + length], start as u64)
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, journal: Arc<Journal>) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        let Ok(mut stream) = acceptor.accept(stream).await else { continue };
        stream.get_mut().1.set_buffer_limit(Some(2 * CHUNK_BYTES));
        let (begun, journal) = (Begun::default(), journal.clone());
        let linger = Linger::new(stream.get_ref().0, Requests::default());
        let answered = http2::Builder::new(begun.clone())
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service_fn(move |request| answer(request, journal.clone())));
        tokio::spawn(Together::new(Box::pin(answered), begun, linger));
    }
}

/// What is posted is written, and answered with as many bytes; `/N` is answered with N bytes.
async fn answer(request: http::Request<Incoming>, journal: Arc<Journal>) -> Result<http::Response<Body>, BoxError> {
    let mut bytes: usize = request.uri().path().trim_start_matches('/').parse().unwrap_or(0);
    if request.method() == http::Method::POST {
        let body = request.into_body().collect().await?.to_bytes();
        journal.append(&body)?;
        bytes = body.len();
    }
    let chunks = (0..bytes)
        .step_by(CHUNK_BYTES)
        .map(move |start| Ok::<_, BoxError>(Frame::data(CHUNK.slice(..CHUNK_BYTES.min(bytes - start)))));
    let body = StreamBody::new(futures::stream::iter(chunks)).boxed_unsync();
    Ok(http::Response::new(body))
}
