//! An HTTP GET as probes and hooks make it.
//!
//! Owns: the request's headers, redirects, and which answers are good.
//! Called by: HTTP probes and lifecycle hooks.
//! Never: verifies a certificate: the container being probed has nobody to vouch for it.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1 as core;
use tokio::io::{AsyncRead, AsyncWrite};

use super::port_number;

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Success,
    Failure(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HttpGet {
    pub scheme: Scheme,
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub path: String,
    pub headers: Vec<(String, String)>,
}

const USER_AGENT: &str = "kube-probe/1.37";
const REDIRECTS_MAX: u32 = 10;
const BODY_BYTES_MAX: usize = 10 << 10;

impl HttpGet {
    pub fn of(get: &core::HTTPGetAction, container: &core::Container, pod_ip: Option<IpAddr>) -> Result<Self, String> {
        let host = match get.host.as_deref().filter(|h| !h.is_empty()) {
            Some(host) => host.to_string(),
            None => pod_ip.ok_or("the pod has no IP yet")?.to_string(),
        };
        let path = get.path.as_deref().unwrap_or("");
        Ok(HttpGet {
            scheme: if get.scheme.as_deref() == Some("HTTPS") { Scheme::Https } else { Scheme::Http },
            host,
            port: port_number(&get.port, container)?,
            path: if path.starts_with('/') { path.into() } else { format!("/{path}") },
            headers: get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
        })
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }

    fn url(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }
}

/// 200 to 399 is success; a redirect to another host counts as such without being followed.
pub async fn http_get(get: &HttpGet, timeout: Duration) -> Answer {
    match tokio::time::timeout(timeout, follow(get.clone())).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => Answer::Failure(format!("Get {:?}: {why}", get.url())),
        Err(_) => Answer::Failure(format!(
            "Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            get.url()
        )),
    }
}

async fn follow(mut get: HttpGet) -> Result<Answer, String> {
    for _ in 0..REDIRECTS_MAX {
        let response = send(&get).await?;
        let code = response.status.as_u16();
        if !response.status.is_redirection() {
            return Ok(match code {
                200..400 => Answer::Success,
                _ => Answer::Failure(format!("HTTP probe failed with statuscode: {code}")),
            });
        }
        let Some(location) = response.location else { return Ok(Answer::Success) };
        match local_redirect(&get, &location) {
            Some(next) => get = next,
            None => return Ok(Answer::Success),
        }
    }
    Err(format!("stopped after {REDIRECTS_MAX} redirects"))
}

/// Where a redirect leads, unless to another host.
fn local_redirect(from: &HttpGet, location: &str) -> Option<HttpGet> {
    let uri: http::Uri = location.parse().ok()?;
    let mut next = from.clone();
    if let Some(authority) = uri.authority() {
        if authority.host().trim_matches(['[', ']']) != from.host {
            return None;
        }
        next.scheme = if uri.scheme_str() == Some("https") { Scheme::Https } else { Scheme::Http };
        next.port = authority.port_u16().unwrap_or(if next.scheme == Scheme::Https { 443 } else { 80 });
    }
    next.path = uri.path_and_query().map_or("/".into(), |p| p.as_str().to_string());
    Some(next)
}

struct Response {
    status: http::StatusCode,
    location: Option<String>,
}

async fn send(get: &HttpGet) -> Result<Response, String> {
    let address = get.authority();
    let stream = tokio::net::TcpStream::connect(&address)
        .await
        .map_err(|e| format!("dial tcp {address}: {}", connect_error(&e)))?;
    match get.scheme {
        Scheme::Http => exchange(stream, get).await,
        Scheme::Https => {
            let name = rustls::pki_types::ServerName::try_from(get.host.clone()).map_err(|e| e.to_string())?;
            let tls = tokio_rustls::TlsConnector::from(UNVERIFIED.clone());
            exchange(tls.connect(name, stream).await.map_err(|e| e.to_string())?, get).await
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    get: &HttpGet,
) -> Result<Response, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let exchange = async {
        let mut request = http::Request::get(&get.path);
        let has = |name: &str| get.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        for (name, value) in &get.headers {
            request = request.header(name, value);
        }
        for (name, value) in [("host", get.authority().as_str()), ("user-agent", USER_AGENT), ("accept", "*/*")] {
            if !has(name) {
                request = request.header(name, value);
            }
        }
        let request = request.header("connection", "close").body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let location = response.headers().get("location").and_then(|v| v.to_str().ok()).map(String::from);
        let status = response.status();
        // Read, so that a server that writes its answer slowly is not cut off in the middle; a large one is.
        let _ = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        Ok(Response { status, location })
    };
    tokio::pin!(exchange);
    tokio::pin!(connection);
    tokio::select! {
        result = &mut exchange => result,
        _ = &mut connection => exchange.await,
    }
}

/// Go's words for what the kernel answered.
pub fn connect_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        std::io::ErrorKind::TimedOut => "i/o timeout".into(),
        _ => error.to_string(),
    }
}

static UNVERIFIED: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for the default protocol versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    Arc::new(config)
});

/// Accepts every certificate, as upstream's prober does.
#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Answers one connection after the other with these texts.
    async fn server(answers: Vec<String>) -> HttpGet {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        HttpGet { scheme: Scheme::Http, host: "127.0.0.1".into(), port, path: "/healthz".into(), headers: vec![] }
    }

    async fn check(answers: &[&str], expected: Answer) {
        let get = server(answers.iter().map(|a| a.to_string()).collect()).await;
        assert_eq!(http_get(&get, Duration::from_secs(5)).await, expected);
    }

    #[tokio::test]
    async fn codes_from_200_to_399_are_success() {
        check(&["HTTP/1.1 204 No Content\r\n\r\n"], Answer::Success).await;
        let failed = Answer::Failure("HTTP probe failed with statuscode: 503".into());
        check(&["HTTP/1.1 503 Nope\r\ncontent-length: 0\r\n\r\n"], failed).await;
    }

    #[tokio::test]
    async fn a_redirect_on_the_same_host_is_followed_and_to_another_trusted() {
        let failed = Answer::Failure("HTTP probe failed with statuscode: 500".into());
        check(
            &[
                "HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n",
                "HTTP/1.1 500 E\r\ncontent-length: 0\r\n\r\n",
            ],
            failed,
        )
        .await;
        let away = "HTTP/1.1 302 Found\r\nlocation: http://example.com/\r\ncontent-length: 0\r\n\r\n";
        check(&[away], Answer::Success).await;
    }

    #[tokio::test]
    async fn a_refused_connection_reads_as_go_says_it() {
        let mut get = server(vec![]).await;
        get.port = 1;
        let Answer::Failure(text) = http_get(&get, Duration::from_secs(5)).await else { panic!("port 1 answers") };
        assert_eq!(text, "Get \"http://127.0.0.1:1/healthz\": dial tcp 127.0.0.1:1: connect: connection refused");
    }
}
