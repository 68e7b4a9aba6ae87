//! Starting one container: image, environment, mounts, create, start, postStart.
//!
//! Owns: the order of these steps and what each failure is called.
//! Called by: the pod worker, one start a pod at a time.
//! Never: decides whether to try again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1 as core;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::container_config::{self, container_config};
use crate::context::NodeContext;
use crate::env::{self, Environment, Sources};
use crate::events::PodEvents;
use crate::hooks;
use crate::images::{self, Image};
use crate::memory::{Failure, FailureKind};
use crate::mounts;
use crate::observed::Observed;
use crate::plan::Start;
use crate::pod::{self, Pod};
use crate::sandbox_config;
use crate::volumes::{Keeper, Volumes};

/// Everything one start needs, owned so that it can run on its own.
pub struct Job {
    pub node: Arc<NodeContext>,
    pub pod: Arc<Pod>,
    pub start: Start,
    pub seen: Arc<Observed>,
    pub volumes: Arc<Volumes>,
    pub keeper: Arc<Mutex<Keeper>>,
    pub events: PodEvents,
    /// The pod is to end: what has not been made yet need not be.
    pub cancel: CancellationToken,
}

type Result<T> = std::result::Result<T, Failure>;

impl Job {
    fn fail(&self, kind: FailureKind, reason: &str, message: impl Into<String>) -> Failure {
        Failure { kind, reason: reason.into(), message: message.into(), at: Timestamp::now() }
    }
    /// A failure the user is told of by an event, too.
    fn fail_told(&self, kind: FailureKind, reason: &str, message: &str) -> Failure {
        self.events.warning(Some(self.field_path()), "Failed", &format!("Error: {message}"));
        self.fail(kind, reason, message)
    }
    fn field_path(&self) -> String {
        pod::field_path(self.start.kind, &self.start.container)
    }
    fn pod_ip(&self) -> Option<IpAddr> {
        self.node.pod_ip(&self.pod, &self.seen)
    }
}

pub async fn start(job: &Job) -> Result<()> {
    let Some((_, container)) = job.pod.container(&job.start.container) else { return Ok(()) };
    let Some(sandbox) = job.seen.sandbox() else { return Ok(()) };
    let sandbox_config = sandbox_config(job, sandbox.attempt)?;
    let prepared = job.cancel.run_until_cancelled(prepare(job, container, &sandbox_config)).await;
    let Some(config) = prepared.transpose()? else { return Ok(()) };

    let request = cri::CreateContainerRequest {
        pod_sandbox_id: sandbox.id.clone(),
        config: Some(config),
        sandbox_config: Some(sandbox_config),
    };
    let mut runtime = job.node.cri.runtime();
    let created = runtime.create_container(request).await;
    let created = created.map_err(|s| job.fail_told(FailureKind::Config, "CreateContainerError", s.message()))?;
    let container_id = created.into_inner().container_id;
    job.events.normal(Some(job.field_path()), "Created", "Container created");

    let request = cri::StartContainerRequest { container_id: container_id.clone() };
    let started = runtime.start_container(request).await;
    started.map_err(|s| job.fail_told(FailureKind::Run, "RunContainerError", s.message()))?;
    job.events.normal(Some(job.field_path()), "Started", "Container started");
    post_start(job, container, &container_id).await
}

fn sandbox_config(job: &Job, attempt: u32) -> Result<cri::PodSandboxConfig> {
    let resolv_conf = job.node.resolv_conf();
    let node = sandbox_config::Node { log_dir: &job.node.log_dir, dns: &job.node.dns, resolv_conf: &resolv_conf };
    let names = job.node.names(&job.pod);
    let names = names.map_err(|e| job.fail_told(FailureKind::Config, "CreateContainerConfigError", &e.to_string()))?;
    Ok(sandbox_config::sandbox_config(&job.pod, attempt, &node, &names))
}

/// Image, environment and mounts: whatever fails here leaves nothing in the runtime.
async fn prepare(
    job: &Job,
    container: &core::Container,
    sandbox: &cri::PodSandboxConfig,
) -> Result<cri::ContainerConfig> {
    let image = image(job, container, sandbox).await?;
    let config_error = |message: String| job.fail_told(FailureKind::Config, "CreateContainerConfigError", &message);
    let environment = environment(job, container).await.map_err(config_error)?;
    for skipped in &environment.skipped {
        job.events.warning(Some(job.field_path()), "InvalidEnvironmentVariableNames", skipped);
    }
    let place = mounts::Place {
        node: &job.node,
        pod: &job.pod,
        volumes: &job.volumes,
        environment: &environment,
        attempt: job.start.attempt,
        pod_ips: job.seen.sandbox().map_or(&[][..], |s| &s.ips),
        image_volumes: image_volumes(job, container, sandbox).await?,
    };
    let made = mounts::mounts(&place, container).map_err(config_error)?;
    let inputs = container_config::Inputs {
        attempt: job.start.attempt,
        environment: &environment,
        image_ref: &image.reference,
        image_user: &image.user,
        mounts: made.mounts,
        devices: vec![],
        volume_groups: &made.groups,
        target: target(job),
        termination_message_file: made.termination_message_file.display().to_string(),
        kernel: &job.node.kernel,
    };
    container_config(&job.pod, container, inputs).map_err(|e| config_error(e.to_string()))
}

fn target(job: &Job) -> Option<&str> {
    let target = job.pod.target_of(&job.start.container)?;
    Some(job.seen.latest(target)?.id.as_str())
}

async fn image(job: &Job, container: &core::Container, sandbox: &cri::PodSandboxConfig) -> Result<Image> {
    let pull_secrets = pull_secrets(job).await;
    let request = images::Request {
        cri: &job.node.cri,
        container,
        field_path: job.field_path(),
        events: &job.events,
        pull_secrets: &pull_secrets,
        sandbox_config: sandbox,
    };
    images::ensure(&request).await.map_err(|e| job.fail(e.kind, e.reason, e.message))
}

/// The images that the container mounts as volumes, pulled like its own.
async fn image_volumes(
    job: &Job,
    container: &core::Container,
    sandbox: &cri::PodSandboxConfig,
) -> Result<BTreeMap<String, String>> {
    let mut references = BTreeMap::new();
    for mount in container.volume_mounts.iter().flatten() {
        let Some(source) = job.volumes.get(&mount.name).and_then(|v| v.image.as_ref()) else { continue };
        let as_container = core::Container {
            name: container.name.clone(),
            image: source.reference.clone(),
            image_pull_policy: source.pull_policy.clone(),
            ..Default::default()
        };
        references.insert(mount.name.clone(), image(job, &as_container, sandbox).await?.reference);
    }
    Ok(references)
}

async fn pull_secrets(job: &Job) -> Vec<Arc<serde_json::Value>> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for reference in job.pod.spec.image_pull_secrets.iter().flatten() {
        let context = job.node.volumes();
        match job.keeper.lock().await.secret(&context, job.pod.namespace(), &reference.name).await {
            Ok(Some(secret)) => found.push(secret),
            Ok(None) | Err(_) => missing.push(reference.name.as_str()),
        }
    }
    if !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        job.events.warning(None, "FailedToRetrieveImagePullSecret", &message);
    }
    found
}

async fn environment(job: &Job, container: &core::Container) -> std::result::Result<Environment, String> {
    let (config_maps, secrets) = env::references(container);
    let context = job.node.volumes();
    let mut sources = Sources::default();
    let mut keeper = job.keeper.lock().await;
    for name in config_maps {
        let map = keeper.config_map(&context, job.pod.namespace(), &name).await.map_err(|e| e.to_string())?;
        sources.config_maps.insert(name, map);
    }
    for name in secrets {
        let secret = keeper.secret(&context, job.pod.namespace(), &name).await.map_err(|e| e.to_string())?;
        sources.secrets.insert(name, secret);
    }
    drop(keeper);
    let services = job.node.service_variables(&job.pod).await;
    let around = job.node.around(&job.seen);
    env::environment(&job.pod, container, &around, &sources, &services).map_err(|e| e.to_string())
}

/// The container counts as started when its hook has ended; a failed hook ends the container.
async fn post_start(job: &Job, container: &core::Container, container_id: &str) -> Result<()> {
    let Some(handler) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else { return Ok(()) };
    let hook = hooks::Hook { cri: &job.node.cri, container, container_id, pod_ip: job.pod_ip() };
    let Some(result) = job.cancel.run_until_cancelled(hooks::run(&hook, handler)).await else { return Ok(()) };
    let Err(why) = result else { return Ok(()) };
    tracing::info!(pod = %job.pod.key, container = container.name, why, "postStart hook failed");
    job.events.warning(Some(job.field_path()), "FailedPostStartHook", "PostStartHook failed");
    job.events.normal(Some(job.field_path()), "Killing", "FailedPostStartHook");
    let timeout = job.pod.spec.termination_grace_period_seconds.unwrap_or(30);
    let request = cri::StopContainerRequest { container_id: container_id.into(), timeout };
    if let Err(status) = job.node.cri.runtime().stop_container(request).await {
        tracing::warn!(pod = %job.pod.key, error = status.message(), "container with a failed hook did not stop");
    }
    Err(job.fail(FailureKind::Run, "PostStartHookError", why))
}

/// Where a container's termination message lies on the node.
pub fn termination_message_file(node: &NodeContext, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
    node.pod_dir(&pod.uid).join("containers").join(container).join(format!("{attempt}.message"))
}
