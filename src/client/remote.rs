//! The API server over the network: HTTP/2 on TLS, HTTP/1.1 where a request upgrades the connection.
//!
//! Owns: connections, their number, their death, and the credentials on every request.
//! Called by: `Client` through `Transport`.
//! Never: tries a request again that may have reached the server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, Uri, header, uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use crate::error::{ConfigError, TransportError};
use crate::http2::{Connection, Failure, Stream};
use crate::kubeconfig::{Credentials, Endpoint};
use crate::transport::{Body, BoxError, Transport};

const CONNECT_SECONDS_MAX: u64 = 10;
/// Streams on one connection before another is opened. Go's servers allow 250 and, behind some proxies, 100; watches
/// hold theirs for minutes, so staying below keeps ordinary requests from queueing behind them.
const STREAMS_PER_CONNECTION: usize = 90;
/// What is read from the socket at once; TLS by itself asks for 4 KiB at a time, and a long list is thousands of times that.
const READ_BYTES: usize = 64 << 10;
/// As client-go re-reads token files.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(60);

/// A connection to one API server.
pub struct Remote {
    scheme: uri::Scheme,
    authority: uri::Authority,
    /// Path in front of every request, without a slash at its end.
    prefix: String,
    tls: Option<Tls>,
    token: Token,
    connections: Mutex<Vec<Connection>>,
    /// One dials at a time, so that a reconnect of many waiting requests opens one connection.
    dialing: Semaphore,
}

struct Tls {
    name: ServerName<'static>,
    h2: TlsConnector,
    http1: TlsConnector,
}

enum Token {
    None,
    Fixed(HeaderValue),
    File { path: PathBuf, read: Mutex<Option<(Instant, HeaderValue)>> },
}

impl Remote {
    pub fn new(endpoint: Endpoint) -> Result<Remote, ConfigError> {
        let bad = || ConfigError::Server { server: endpoint.server.clone() };
        let server: Uri = endpoint.server.parse().map_err(|_| bad())?;
        let prefix = server.path().trim_end_matches('/').to_string();
        let parts = server.into_parts();
        let (scheme, authority) = (parts.scheme.ok_or_else(bad)?, parts.authority.ok_or_else(bad)?);
        let tls = if scheme == uri::Scheme::HTTPS { Some(Tls::new(&endpoint, authority.host())?) } else { None };
        let token = match endpoint.credentials {
            Credentials::Token(token) => Token::Fixed(bearer(&token).ok_or(ConfigError::Pem { field: "token" })?),
            Credentials::TokenFile(path) => Token::File { path, read: Mutex::new(None) },
            Credentials::None | Credentials::ClientCertificate { .. } => Token::None,
        };
        Ok(Remote { scheme, authority, prefix, tls, token, connections: Mutex::default(), dialing: Semaphore::new(1) })
    }

    fn address(&self) -> String {
        let default = if self.tls.is_some() { 443 } else { 80 };
        let host = self.authority.host();
        format!("{host}:{}", self.authority.port_u16().unwrap_or(default))
    }

    async fn connect(&self) -> Result<TcpStream, TransportError> {
        let address = self.address();
        let connecting = TcpStream::connect(address.as_str());
        let limit = Duration::from_secs(CONNECT_SECONDS_MAX);
        let stream = match tokio::time::timeout(limit, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => {
                return Err(TransportError::Connect { address, source: e.into() });
            }
            Err(_) => {
                return Err(TransportError::Timeout { seconds: CONNECT_SECONDS_MAX });
            }
        };
        // Requests are small and answers awaited: Nagle's delay would only add 40 ms to some of them.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    async fn handshake(
        &self,
        tls: &Tls,
        connector: &TlsConnector,
    ) -> Result<tokio_rustls::client::TlsStream<BufReader<TcpStream>>, TransportError> {
        let stream = BufReader::with_capacity(READ_BYTES, self.connect().await?);
        let limit = Duration::from_secs(CONNECT_SECONDS_MAX);
        match tokio::time::timeout(limit, connector.connect(tls.name.clone(), stream)).await {
            Ok(result) => result.map_err(|source| TransportError::Tls { address: self.address(), source }),
            Err(_) => Err(TransportError::Timeout { seconds: CONNECT_SECONDS_MAX }),
        }
    }

    /// A stream on a living connection that has room for one more.
    fn existing(&self) -> Option<Stream> {
        let mut connections = self.connections.lock();
        connections.retain(|c| !c.is_closed());
        connections.iter().find(|c| c.streams() < STREAMS_PER_CONNECTION).map(Connection::stream)
    }

    async fn http2(&self, tls: &Tls) -> Result<Stream, TransportError> {
        if let Some(found) = self.existing() {
            return Ok(found);
        }
        let _turn = self.dialing.acquire().await.expect("the semaphore is never closed");
        if let Some(found) = self.existing() {
            return Ok(found);
        }
        let failed = |e: h2::Error| TransportError::Connect { address: self.address(), source: e.into() };
        let connection = Connection::start(self.handshake(tls, &tls.h2).await?).await.map_err(failed)?;
        let stream = connection.stream();
        self.connections.lock().push(connection);
        Ok(stream)
    }

    fn authorize(&self, request: &mut Request<Bytes>) -> Result<(), TransportError> {
        if request.headers().contains_key(header::AUTHORIZATION) {
            return Ok(());
        }
        let value = match &self.token {
            Token::None => return Ok(()),
            Token::Fixed(value) => value.clone(),
            Token::File { path, read } => read_token(path, read)?,
        };
        request.headers_mut().insert(header::AUTHORIZATION, value);
        Ok(())
    }

    async fn send_http2(&self, tls: &Tls, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        // A connection may be found dead only when it is used: what was never sent may go to a new one.
        const TRIES_MAX: u32 = 3;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.http2(tls).await?.send(request.clone()).await {
                Ok(response) => return Ok(response.map(BodyExt::boxed_unsync)),
                Err(Failure::Ended(_)) if tries < TRIES_MAX => {}
                Err(Failure::Ended(e) | Failure::Other(e)) => return Err(TransportError::Send { source: e.into() }),
            }
        }
    }

    async fn send_http1(&self, mut request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let host = HeaderValue::from_str(self.authority.as_str()).map_err(http::Error::from)?;
        request.headers_mut().insert(header::HOST, host);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        match &self.tls {
            Some(tls) => speak_http1(self.handshake(tls, &tls.http1).await?, request).await,
            None => speak_http1(self.connect().await?, request).await,
        }
    }
}

/// One request on a connection of its own, which the answer may take over (101 Switching Protocols).
async fn speak_http1<S>(stream: S, request: Request<Bytes>) -> Result<Response<Body>, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |e: hyper::Error| TransportError::Send { source: e.into() };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request.map(Full::new)).await.map_err(failed)?;
    Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
}

impl Transport for Remote {
    fn send(&self, mut request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, TransportError>> {
        Box::pin(async move {
            self.authorize(&mut request)?;
            let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
            let uri = Uri::builder()
                .scheme(self.scheme.clone())
                .authority(self.authority.clone())
                .path_and_query(format!("{}{path}", self.prefix))
                .build()?;
            *request.uri_mut() = uri;
            match &self.tls {
                Some(tls) if !request.headers().contains_key(header::UPGRADE) => self.send_http2(tls, request).await,
                _ => self.send_http1(request).await,
            }
        })
    }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn read_token(path: &PathBuf, read: &Mutex<Option<(Instant, HeaderValue)>>) -> Result<HeaderValue, TransportError> {
    let mut read = read.lock();
    if let Some((at, value)) = &*read
        && at.elapsed() < TOKEN_AGE_MAX
    {
        return Ok(value.clone());
    }
    let failed = |source| TransportError::Token { path: path.display().to_string(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let value = bearer(&text).ok_or_else(|| failed(std::io::ErrorKind::InvalidData.into()))?;
    *read = Some((Instant::now(), value.clone()));
    Ok(value)
}

impl Tls {
    fn new(endpoint: &Endpoint, host: &str) -> Result<Tls, ConfigError> {
        let mut config = client_config(endpoint)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http1 = TlsConnector::from(Arc::new(config.clone()));
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = endpoint.tls_server_name.as_deref().unwrap_or(host.trim_matches(['[', ']']));
        let name = ServerName::try_from(name.to_string())
            .map_err(|_| ConfigError::Server { server: endpoint.server.clone() })?;
        Ok(Tls { name, h2: TlsConnector::from(Arc::new(config)), http1 })
    }
}

fn client_config(endpoint: &Endpoint) -> Result<rustls::ClientConfig, ConfigError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = if endpoint.insecure_skip_tls_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnyone(provider)))
    } else {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&endpoint.ca_pem) {
            roots.add(certificate.map_err(|_| ConfigError::Pem { field: "certificate-authority-data" })?)?;
        }
        builder.with_root_certificates(roots)
    };
    let Credentials::ClientCertificate { certificate_pem, key_pem } = &endpoint.credentials else {
        return Ok(builder.with_no_client_auth());
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate_pem).collect();
    let chain = chain.map_err(|_| ConfigError::Pem { field: "client-certificate-data" })?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| ConfigError::Pem { field: "client-key-data" })?;
    Ok(builder.with_client_auth_cert(chain, key)?)
}

/// `insecure-skip-tls-verify`: the kubeconfig's owner asked for it by name.
#[derive(Debug)]
struct TrustAnyone(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
