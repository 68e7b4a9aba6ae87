//! The gRPC health check (grpc.health.v1.Health/Check), spoken by hand: two tiny messages need no generated code.
//!
//! Owns: their encoding.
//! Called by: gRPC probes.
//! Never: uses TLS; upstream's probe does not either.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::http::{Answer, connect_error};

const ANSWER_BYTES_MAX: usize = 4 << 10;
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u8 = 1;

pub async fn check(address: SocketAddr, service: &str, timeout: Duration) -> Answer {
    match tokio::time::timeout(timeout, ask(address, service)).await {
        Ok(Ok(SERVING)) => Answer::Success,
        Ok(Ok(status)) => Answer::Failure(format!(
            "service unhealthy (responded with {:?})",
            ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"].get(status as usize).unwrap_or(&"UNKNOWN")
        )),
        Ok(Err(why)) => Answer::Failure(why),
        Err(_) => Answer::Failure(format!("timeout: health rpc did not complete within {}s", timeout.as_secs())),
    }
}

async fn ask(address: SocketAddr, service: &str) -> Result<u8, String> {
    let dial = |e: &std::io::Error| {
        format!("timeout: failed to connect service \"{address}\" within 1s: {}", connect_error(e))
    };
    let stream = tokio::net::TcpStream::connect(address).await.map_err(|e| dial(&e))?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(request_frame(service)))
        .map_err(|e| e.to_string())?;
    let result = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let head = response.headers().clone();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|e| e.to_string())?;
        let trailers = body.trailers().cloned().unwrap_or(head);
        match trailers.get("grpc-status").and_then(|v| v.to_str().ok()) {
            Some("0") | None => Ok(serving_status(&body.to_bytes())),
            Some(code) => {
                let message = trailers.get("grpc-message").and_then(|v| v.to_str().ok()).unwrap_or("");
                Err(format!("health rpc failed: rpc error: code = {code} desc = {message}"))
            }
        }
    };
    let result = result.await;
    connection.abort();
    result
}

/// Uncompressed, length-prefixed; field 1 is the service name.
fn request_frame(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put(message);
    frame.freeze()
}

/// Field 1 as a varint, behind the five bytes of the frame; absent means UNKNOWN.
fn serving_status(frame: &[u8]) -> u8 {
    match frame.get(5..7) {
        Some([0x08, status]) => *status,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_the_health_protocol() {
        assert_eq!(&request_frame("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request_frame("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), SERVING);
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), 0);
    }
}
