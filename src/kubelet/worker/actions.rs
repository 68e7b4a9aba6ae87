//! Carrying out what the plan asks for, and remembering what came of it.
//!
//! Owns: the operations of one pod: each is a task whose outcome comes back to the worker.
//! Called by: the pod worker.
//! Never: waits: the worker must stay able to hear that the pod is to end.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1 as core;

use crate::backoff::go_duration;
use crate::memory::{ContainerOp, Failure, FailureKind, Resizing, SandboxOp, Stage, Volumes as VolumesState, Why};
use crate::observed::State;
use crate::plan::{Action, BackOff, Kill, Start};
use crate::pod;
use crate::resize;
use crate::sandbox_config::{self, sandbox_config};
use crate::volumes::{self, SetUpError, VolumeError, Volumes};
use crate::{start, stop};

use super::Worker;

/// A sandbox that could not be made; upstream's worker comes around about as often.
const SANDBOX_RETRY: SignedDuration = SignedDuration::from_secs(2);
const RESIZE_RETRY: SignedDuration = SignedDuration::from_secs(5);
const VOLUMES_RETRY: SignedDuration = SignedDuration::from_secs(1);
/// A source that was there before and is missing now: what is mounted stays as it is.
const REFRESH_RETRY: Duration = Duration::from_secs(10);
/// Ended runs of a container that are kept beside the one that runs: for `lastState` and `kubectl logs --previous`.
const ENDED_RUNS_KEPT: usize = 1;

pub enum Outcome {
    VolumesSetUp(Result<Volumes, SetUpError>),
    VolumesTornDown(Result<(), VolumeError>),
    Refreshed,
    SandboxStarted(Result<(), String>),
    SandboxesStopped(Result<(), tonic::Status>),
    Started {
        container: String,
        result: Result<(), Failure>,
    },
    Stopped {
        container: String,
        id: String,
    },
    Resized {
        id: String,
        to: core::ResourceRequirements,
        result: Result<(), tonic::Status>,
    },
    /// Garbage was removed, or an operation left nothing to remember.
    Nothing,
}

impl Action {
    /// Done at once: the next plan follows without waiting.
    pub fn changes_memory_only(&self) -> bool {
        match self {
            Action::Terminate(_) | Action::Finish | Action::ShowBackOff { .. } => true,
            Action::SetUpVolumes
            | Action::StartSandbox { .. }
            | Action::Start(_)
            | Action::Kill(_)
            | Action::Resize { .. }
            | Action::StopSandboxes { .. }
            | Action::TearDownVolumes
            | Action::DeleteFromApi => false,
        }
    }
}

impl Worker {
    pub(super) fn act(&mut self, action: Action, now: Timestamp) {
        match action {
            Action::SetUpVolumes => self.set_up_volumes(),
            Action::StartSandbox { attempt, replaces } => self.start_sandbox(attempt, replaces),
            Action::Start(start) => self.start_container(start, now),
            Action::Kill(kill) => self.kill(kill),
            Action::Resize { id, container } => self.resize(id, &container),
            Action::ShowBackOff { container, what, .. } => self.show_back_off(&container, what, now),
            Action::Terminate(termination) => {
                if let Why::Failed { reason, message } = &termination.why {
                    self.events.normal(None, reason, message);
                }
                self.terminate(termination);
            }
            Action::StopSandboxes { ids } => self.stop_sandboxes(ids),
            Action::TearDownVolumes => self.tear_down_volumes(),
            Action::Finish => {
                let Some(termination) = self.memory.stage.termination().cloned() else { return };
                self.memory.stage = Stage::Terminated(termination);
            }
            Action::DeleteFromApi => self.writer.delete(),
        }
    }

    fn set_up_volumes(&mut self) {
        self.memory.volumes = VolumesState::SettingUp;
        let (context, pod, keeper) = (self.node.volumes(), self.pod.clone(), self.keeper.clone());
        let around = self.node.around(&self.seen);
        self.operations.spawn(async move {
            let mut keeper = keeper.lock().await;
            Outcome::VolumesSetUp(volumes::set_up(&context, &pod, &around, &mut keeper).await)
        });
    }

    pub(super) fn refresh_volumes(&mut self) {
        self.refresh_due = false;
        self.refreshing = true;
        let (context, pod, keeper) = (self.node.volumes(), self.pod.clone(), self.keeper.clone());
        let around = self.node.around(&self.seen);
        self.operations.spawn(async move {
            let refreshed = keeper.lock().await.refresh(&context, &pod, &around).await;
            if let Err(error) = refreshed {
                tracing::info!(pod = %pod.key, %error, "volume not refreshed");
                tokio::time::sleep(REFRESH_RETRY).await;
            }
            Outcome::Refreshed
        });
    }

    fn tear_down_volumes(&mut self) {
        self.memory.volumes = VolumesState::TearingDown;
        let (context, uid) = (self.node.volumes(), self.pod.uid.clone());
        self.operations.spawn(async move {
            let torn_down = tokio::task::spawn_blocking(move || volumes::tear_down(&context, &uid)).await;
            Outcome::VolumesTornDown(torn_down.expect("tear-down does not panic"))
        });
    }

    fn start_sandbox(&mut self, attempt: u32, replaces: Option<String>) {
        self.memory.sandbox = SandboxOp::Busy;
        if replaces.is_some() {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.events.normal(None, "SandboxChanged", message);
        }
        let (node, pod, cancel) = (self.node.clone(), self.pod.clone(), self.starting.clone());
        self.operations.spawn(async move {
            if !pod.host_network() {
                let mut ready = node.network_ready.clone();
                let waited = cancel.run_until_cancelled(ready.wait_for(|up| *up)).await;
                if !matches!(waited, Some(Ok(_))) {
                    return Outcome::SandboxStarted(Ok(()));
                }
            }
            let made = async {
                let mut runtime = node.cri.runtime();
                if let Some(pod_sandbox_id) = replaces {
                    let stopped = runtime.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id }).await;
                    stopped.map_err(|s| s.message().to_string())?;
                }
                let runtime_handler = runtime_handler(&node, &pod).await?;
                let resolv_conf = node.resolv_conf();
                let place = sandbox_config::Node { log_dir: &node.log_dir, dns: &node.dns, resolv_conf: &resolv_conf };
                let names = node.names(&pod).map_err(|e| e.to_string())?;
                let config = sandbox_config(&pod, attempt, &place, &names);
                let logs = std::path::Path::new(&config.log_directory);
                std::fs::create_dir_all(logs).map_err(|e| format!("{}: {e}", logs.display()))?;
                let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler };
                runtime.run_pod_sandbox(request).await.map(|_| ()).map_err(|s| s.message().to_string())
            };
            Outcome::SandboxStarted(made.await)
        });
    }

    fn stop_sandboxes(&mut self, ids: Vec<String>) {
        self.memory.sandbox = SandboxOp::Busy;
        let node = self.node.clone();
        self.operations.spawn(async move {
            let mut result = Ok(());
            for pod_sandbox_id in ids {
                let stopped = node.cri.runtime().stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id }).await;
                result = result.and(stopped.map(|_| ()));
            }
            Outcome::SandboxesStopped(result)
        });
    }

    fn start_container(&mut self, start: Start, now: Timestamp) {
        let container = start.container.clone();
        let memory = self.memory.container(&container);
        memory.op = ContainerOp::Starting;
        if let Some(failed_at) = start.failed_at {
            memory.crash.tried(failed_at, now);
        }
        let job = start::Job {
            node: self.node.clone(),
            pod: self.pod.clone(),
            start,
            seen: self.seen.clone(),
            volumes: self.volumes.clone(),
            keeper: self.keeper.clone(),
            events: self.events.clone(),
            cancel: self.starting.clone(),
        };
        self.operations.spawn(async move {
            let result = start::start(&job).await;
            Outcome::Started { container, result }
        });
    }

    fn kill(&mut self, kill: Kill) {
        let memory = self.memory.container(&kill.container);
        let hurry = matches!(memory.op, ContainerOp::Stopping { .. });
        memory.op = ContainerOp::Stopping { id: kill.id.clone(), deadline: kill.deadline };
        let (container, id) = (kill.container.clone(), kill.id.clone());
        let job = stop::Job {
            node: self.node.clone(),
            pod: self.pod.clone(),
            kill,
            pod_ip: self.node.pod_ip(&self.pod, &self.seen),
            events: self.events.clone(),
            hurry,
        };
        self.operations.spawn(async move {
            stop::stop(&job).await;
            Outcome::Stopped { container, id }
        });
    }

    fn resize(&mut self, id: String, name: &str) {
        let Some((_, spec)) = self.pod.container(name) else { return };
        self.memory.resizing.insert(id.clone(), Resizing::UnderWay);
        let to = spec.resources.clone().unwrap_or_default();
        let linux = Some(crate::resources::linux_resources(&self.pod, spec, &self.node.kernel));
        let mut runtime = self.node.cri.runtime();
        self.operations.spawn(async move {
            let request =
                cri::UpdateContainerResourcesRequest { container_id: id.clone(), linux, ..Default::default() };
            let result = runtime.update_container_resources(request).await.map(|_| ());
            Outcome::Resized { id, to, result }
        });
    }

    fn show_back_off(&mut self, name: &str, what: BackOff, now: Timestamp) {
        let Some((kind, spec)) = self.pod.container(name) else { return };
        let (path, image) = (pod::field_path(kind, name), spec.image.clone().unwrap_or_default());
        let full_name = self.pod.full_name();
        let memory = self.memory.container(name);
        match what {
            BackOff::Pull => {
                let message = format!("Back-off pulling image {image:?}");
                self.events.normal(Some(path.clone()), "BackOff", &message);
                self.events.warning(Some(path), "Failed", "Error: ImagePullBackOff");
                let Some(failure) = &mut memory.failure else { return };
                failure.message = format!("{message}: ErrImagePull: {}", failure.message);
                failure.reason = what.reason().into();
            }
            BackOff::Crash => {
                let message = format!("Back-off restarting failed container {name} in pod {full_name}");
                self.events.warning(Some(path), "BackOff", &message);
                let delay = go_duration(memory.crash.delay());
                memory.failure = Some(Failure {
                    kind: FailureKind::CrashLoop,
                    reason: what.reason().into(),
                    message: format!("back-off {delay} restarting failed container={name} pod={full_name}"),
                    at: now,
                });
            }
        }
    }

    pub(super) fn finished(&mut self, outcome: Outcome) {
        let now = Timestamp::now();
        match outcome {
            Outcome::VolumesSetUp(Ok(volumes)) => {
                self.volumes = volumes.into();
                self.memory.volumes = VolumesState::Ready;
            }
            Outcome::VolumesSetUp(Err(error)) => {
                tracing::info!(pod = %self.pod.key, %error, "volumes are not ready");
                self.events.warning(None, "FailedMount", &error.to_string());
                self.memory.volumes = VolumesState::Failed { retry_at: now + VOLUMES_RETRY };
            }
            Outcome::VolumesTornDown(Ok(())) => self.memory.volumes = VolumesState::TornDown,
            Outcome::VolumesTornDown(Err(error)) => {
                tracing::warn!(pod = %self.pod.key, %error, "volumes could not be removed; will retry");
                self.memory.volumes = VolumesState::Failed { retry_at: now + VOLUMES_RETRY };
            }
            Outcome::Refreshed => self.refreshing = false,
            Outcome::SandboxStarted(Ok(())) => self.memory.sandbox = SandboxOp::Idle,
            Outcome::SandboxStarted(Err(why)) => {
                self.events.warning(None, "FailedCreatePodSandBox", &format!("Failed to create pod sandbox: {why}"));
                self.memory.sandbox = SandboxOp::Failed { retry_at: now + SANDBOX_RETRY };
            }
            Outcome::SandboxesStopped(Ok(())) => self.memory.sandbox = SandboxOp::Idle,
            Outcome::SandboxesStopped(Err(status)) => {
                self.events.warning(None, "FailedKillPod", &format!("error killing pod: {}", status.message()));
                self.memory.sandbox = SandboxOp::Failed { retry_at: now + SANDBOX_RETRY };
            }
            Outcome::Started { container, result } => self.started(&container, result, now),
            Outcome::Stopped { container, id } => {
                let memory = self.memory.container(&container);
                if matches!(&memory.op, ContainerOp::Stopping { id: stopping, .. } if *stopping == id) {
                    memory.op = ContainerOp::Idle;
                }
            }
            Outcome::Resized { id, to, result: Ok(()) } => {
                self.memory.resizing.remove(&id);
                self.memory.resized.insert(id, to);
                if !resize::progress(&self.pod, &self.seen, &self.memory).1 {
                    self.events.normal(None, "ResizeCompleted", &resize::completed_message(&self.pod));
                }
            }
            Outcome::Resized { id, result: Err(status), .. } => {
                tracing::warn!(pod = %self.pod.key, error = status.message(), "resize failed; will retry");
                let message = status.message().to_string();
                self.memory.resizing.insert(id, Resizing::Failed { retry_at: now + RESIZE_RETRY, message });
            }
            Outcome::Nothing => {}
        }
    }

    fn started(&mut self, container: &str, result: Result<(), Failure>, now: Timestamp) {
        let memory = self.memory.container(container);
        memory.op = ContainerOp::Idle;
        match result {
            Ok(()) => {
                memory.failure = None;
                memory.pull = Default::default();
                self.remove_old_runs(container);
            }
            Err(failure) => {
                if failure.kind == FailureKind::Pull {
                    memory.pull.tried(failure.at, now);
                }
                memory.failure = Some(failure);
            }
        }
    }

    /// Removes ended runs beyond those kept, with their logs, and sandboxes that hold nothing any more.
    fn remove_old_runs(&mut self, name: &str) {
        let (node, seen) = (self.node.clone(), self.seen.clone());
        // The run that just began may or may not have been seen yet, so only ended ones count.
        let ended = seen.containers.iter().filter(|c| c.name == name && c.state == State::Exited);
        let old: Vec<_> = ended.skip(ENDED_RUNS_KEPT).map(|c| (c.id.clone(), c.log_path.clone())).collect();
        let in_use = |s: &&crate::observed::Sandbox| {
            seen.containers.iter().any(|c| c.sandbox_id == s.id && !old.iter().any(|(id, _)| *id == c.id))
        };
        let empty: Vec<_> =
            seen.sandboxes.iter().skip(1).filter(|s| !s.ready && !in_use(s)).map(|s| s.id.clone()).collect();
        if old.is_empty() && empty.is_empty() {
            return;
        }
        self.operations.spawn(async move {
            let mut runtime = node.cri.runtime();
            for (container_id, log) in old {
                if runtime.remove_container(cri::RemoveContainerRequest { container_id }).await.is_ok() {
                    crate::log_rotation::remove(std::path::Path::new(&log));
                }
            }
            for pod_sandbox_id in empty {
                let _ = runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id }).await;
            }
            Outcome::Nothing
        });
    }

    /// After the API object is gone: nothing of the pod stays on the node.
    pub(super) async fn remove_everything(&mut self) {
        let ids = self.seen.sandboxes.iter().map(|s| s.id.clone()).collect();
        crate::gc::remove_pod(&self.node, ids).await;
        let logs = self.node.pod_log_dir(&self.pod);
        if let Err(error) = std::fs::remove_dir_all(&logs)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(pod = %self.pod.key, %error, "log directory stays");
        }
    }
}

async fn runtime_handler(node: &crate::context::NodeContext, pod: &crate::pod::Pod) -> Result<String, String> {
    let Some(name) = pod.spec.runtime_class_name.as_deref().filter(|n| !n.is_empty()) else {
        return Ok(String::new());
    };
    let class = node.client.get(minik_api::resources::RUNTIMECLASSES, "", name).await;
    let class = class.map_err(|e| format!("failed to get RuntimeClass {name:?}: {}", e.chain()))?;
    Ok(class["handler"].as_str().unwrap_or_default().to_string())
}
