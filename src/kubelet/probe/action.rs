//! What a probe does: run a command, ask over HTTP or gRPC, open a connection.
//!
//! Owns: choosing the handler and naming its target.
//! Called by: the probe task; lifecycle hooks share the port lookup.
//! Never: counts results.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::http::{Answer, HttpGet, http_get};
use super::{Target, grpc};

/// Longer output says nothing more in an event.
const OUTPUT_BYTES_MAX: usize = 10 << 10;

pub async fn perform(target: &Target, probe: &core::Probe, timeout: Duration) -> Result<Answer, String> {
    if let Some(exec) = &probe.exec {
        return run_command(target, exec.command.clone().unwrap_or_default(), timeout).await;
    }
    let pod_ip = || target.pod_ip.ok_or_else(|| "the pod has no IP yet".to_string());
    if let Some(get) = &probe.http_get {
        let request = HttpGet::of(get, &target.container, target.pod_ip)?;
        return Ok(http_get(&request, timeout).await);
    }
    if let Some(tcp) = &probe.tcp_socket {
        let port = port_number(&tcp.port, &target.container)?;
        let host = match tcp.host.as_deref().filter(|h| !h.is_empty()) {
            Some(host) => host.to_string(),
            None => pod_ip()?.to_string(),
        };
        return Ok(connect(&host, port, timeout).await);
    }
    if let Some(check) = &probe.grpc {
        let address = SocketAddr::new(pod_ip()?, check.port as u16);
        return Ok(grpc::check(address, check.service.as_deref().unwrap_or(""), timeout).await);
    }
    Err("missing probe handler".into())
}

/// A port by number, or by its name among the container's ports.
pub fn port_number(port: &IntOrString, container: &core::Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => match name.parse() {
            Ok(number) => Some(number),
            Err(_) => {
                container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port)
            }
        },
    };
    let named = || match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    match number {
        Some(number) if (1..=65535).contains(&number) => Ok(number as u16),
        Some(number) => Err(format!("invalid port number: {number}")),
        None => Err(format!("couldn't find port: {}", named())),
    }
}

async fn run_command(target: &Target, cmd: Vec<String>, timeout: Duration) -> Result<Answer, String> {
    let request = cri::ExecSyncRequest {
        container_id: target.container_id.clone(),
        cmd: cmd.clone(),
        timeout: timeout.as_secs() as i64,
    };
    match target.cri.runtime().exec_sync(request).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            if answer.exit_code == 0 {
                return Ok(Answer::Success);
            }
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            output.truncate(OUTPUT_BYTES_MAX);
            Ok(Answer::Failure(String::from_utf8_lossy(&output).into_owned()))
        }
        Err(status) if status.code() == tonic::Code::DeadlineExceeded => Ok(Answer::Failure(format!(
            "command timed out: {:?} timed out after {}s",
            cmd.join(" "),
            timeout.as_secs()
        ))),
        Err(status) => Err(status.message().to_string()),
    }
}

async fn connect(host: &str, port: u16, timeout: Duration) -> Answer {
    let address = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    match tokio::time::timeout(timeout, tokio::net::TcpStream::connect(&address)).await {
        Ok(Ok(_)) => Answer::Success,
        Ok(Err(error)) => Answer::Failure(format!("dial tcp {address}: {}", super::http::connect_error(&error))),
        Err(_) => Answer::Failure(format!("dial tcp {address}: i/o timeout")),
    }
}
