//! Lifecycle hooks: what a container wants done after its start and before its end.
//!
//! Owns: carrying out one handler.
//! Called by: the start and the stop of a container.
//! Never: decides what a failed hook means.

use std::net::IpAddr;
use std::time::Duration;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1 as core;

use crate::cri::Cri;
use crate::probe::{Answer, HttpGet, Scheme, http_get};

/// An HTTP hook without an answer must not hold a pod forever; a stop ends it sooner by its grace.
const HTTP_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Hook<'a> {
    pub cri: &'a Cri,
    pub container: &'a core::Container,
    pub container_id: &'a str,
    pub pod_ip: Option<IpAddr>,
}

/// The error is the text for the event.
pub async fn run(hook: &Hook<'_>, handler: &core::LifecycleHandler) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        return command(hook, exec.command.clone().unwrap_or_default()).await;
    }
    if let Some(get) = &handler.http_get {
        let request = HttpGet::of(get, hook.container, hook.pod_ip)?;
        return match http_get(&request, HTTP_TIMEOUT).await {
            Answer::Success => Ok(()),
            // Upstream falls back to plain HTTP when a server on an HTTPS hook does not speak TLS.
            Answer::Failure(_) if request.scheme == Scheme::Https => {
                let plain = HttpGet { scheme: Scheme::Http, ..request };
                match http_get(&plain, HTTP_TIMEOUT).await {
                    Answer::Success => Ok(()),
                    Answer::Failure(why) => Err(why),
                }
            }
            Answer::Failure(why) => Err(why),
        };
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
        return Ok(());
    }
    Err("invalid handler".into())
}

async fn command(hook: &Hook<'_>, cmd: Vec<String>) -> Result<(), String> {
    // Timeout 0: the hook may take as long as it likes; its caller drops it when the grace is over.
    let request = cri::ExecSyncRequest { container_id: hook.container_id.into(), cmd: cmd.clone(), timeout: 0 };
    let shown = cmd.join(" ");
    match hook.cri.runtime().exec_sync(request).await.map(tonic::Response::into_inner) {
        Ok(answer) if answer.exit_code == 0 => Ok(()),
        Ok(answer) => {
            let output = String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).into_owned();
            Err(format!("command '{shown}' exited with {}: {output}", answer.exit_code))
        }
        Err(status) => Err(format!("command '{shown}': {}", status.message())),
    }
}
