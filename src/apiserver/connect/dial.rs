//! Connections to kubelets, Pods and endpoints of Services.
//!
//! Owns: TLS towards them, time limits, and failures in the words clients know.
//! Called by: the relays.
//! Never: sends a request.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::KubeletClient;
use crate::server::BuildError;
use crate::{listen, trust};

/// Upstream's limit on reaching a node or a Pod.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

pub type Connection = Box<dyn Duplex>;

/// Reads as Go's dialer would say it; kubectl shows it to the user.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("dial tcp {address}: {why}")]
    Tcp { address: String, why: String },
    #[error("tls: {0}")]
    Tls(String),
    #[error("this API server has no identity that kubelets accept")]
    NoIdentity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    Plain,
    /// A kubelet proves who it is and learns who calls.
    Kubelet,
    /// Encrypted only: whoever is behind an address of a Pod has no certificate for it.
    Unverified,
}

pub struct Dialer {
    kubelet: Option<TlsConnector>,
    unverified: TlsConnector,
}

impl Dialer {
    pub fn new(kubelet: Option<&KubeletClient>) -> Result<Self, BuildError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unverified = builder(&provider)
            .dangerous()
            .with_custom_certificate_verifier(trust::any_certificate())
            .with_no_client_auth();
        let kubelet = kubelet.filter(|k| !k.ca.is_empty()).map(|k| kubelet_config(&provider, k)).transpose()?;
        Ok(Self { kubelet: kubelet.map(connector), unverified: connector(unverified) })
    }

    /// `host` without brackets.
    pub async fn open(&self, security: Security, host: &str, port: u16) -> Result<Connection, DialError> {
        let stream = tcp(host, port).await?;
        let connector = match security {
            Security::Plain => return Ok(Box::new(stream)),
            Security::Unverified => &self.unverified,
            Security::Kubelet => self.kubelet.as_ref().ok_or(DialError::NoIdentity)?,
        };
        handshake(connector, host, stream).await
    }
}

/// To a server that is known by another name than the address it is reached at.
pub async fn open_named(tls: &Arc<ClientConfig>, name: &str, host: &str, port: u16) -> Result<Connection, DialError> {
    let stream = tcp(host, port).await?;
    handshake(&TlsConnector::from(tls.clone()), name, stream).await
}

async fn handshake(connector: &TlsConnector, name: &str, stream: TcpStream) -> Result<Connection, DialError> {
    let name = ServerName::try_from(name.to_string()).map_err(|e| DialError::Tls(e.to_string()))?;
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, connector.connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(DialError::Tls(error.to_string())),
        Err(_) => Err(DialError::Tls("handshake timeout".into())),
    }
}

fn builder(provider: &Arc<CryptoProvider>) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for the default protocol versions")
}

fn connector(mut config: ClientConfig) -> TlsConnector {
    // Upgrades to SPDY and WebSocket are HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

fn kubelet_config(provider: &Arc<CryptoProvider>, kubelet: &KubeletClient) -> Result<ClientConfig, BuildError> {
    let builder = builder(provider).with_root_certificates(roots(&kubelet.ca)?);
    if kubelet.identity.certificate.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let chain = listen::certificates(&kubelet.identity.certificate)?;
    let key = listen::private_key(&kubelet.identity.key)?;
    builder.with_client_auth_cert(chain, key).map_err(|e| BuildError::Certificate(e.to_string()))
}

fn roots(pem: &str) -> Result<rustls::RootCertStore, BuildError> {
    let mut store = rustls::RootCertStore::empty();
    for certificate in listen::certificates(pem)? {
        store.add(certificate).map_err(|e| BuildError::Certificate(e.to_string()))?;
    }
    Ok(store)
}

pub fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let failed = |why: String| DialError::Tcp { address: join(host, port), why };
    match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => {
            // Keystrokes must not wait for more of them.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => Err(failed(words(&error))),
        Err(_) => Err(failed("i/o timeout".into())),
    }
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        io::ErrorKind::TimedOut => "connect: connection timed out".into(),
        _ => error.to_string(),
    }
}
