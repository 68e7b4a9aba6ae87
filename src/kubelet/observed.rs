//! What the runtime has of one pod: its sandboxes and containers, dead ones included.
//!
//! Owns: reading it over CRI and the shape the pure parts see.
//! Called by: the pod worker before every plan; garbage collection.
//! Never: changes anything in the runtime.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_cri::v1 as cri;

use crate::cri::Cri;
use crate::names;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Newest first, of all sandboxes of the pod.
    pub containers: Vec<Container>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub ips: Vec<String>,
    pub created_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    pub attempt: u32,
    pub state: State,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    /// As the user named it.
    pub image: String,
    pub image_ref: String,
    pub hash: String,
    pub restart_count: i32,
    pub log_path: String,
    pub termination_message_file: String,
    pub termination_message_policy: String,
    pub user: Option<cri::LinuxContainerUser>,
    /// Resources of its spec when it started, JSON.
    pub resources_asked: String,
}

impl Observed {
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first()
    }

    /// The newest container of that name, whichever sandbox it is in.
    pub fn latest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The one before the newest: what `lastState` tells of.
    pub fn previous(&self, name: &str) -> Option<&Container> {
        self.containers.iter().filter(|c| c.name == name).nth(1)
    }

    pub fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|c| c.state == State::Running)
    }

    pub fn by_id(&self, id: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.id == id)
    }
}

/// Reads all the runtime knows of the pod with this uid.
pub async fn observe(cri: &Cri, pod_uid: &str) -> Result<Observed, tonic::Status> {
    let label_selector = HashMap::from([(names::POD_UID.to_string(), pod_uid.to_string())]);
    let mut runtime = cri.runtime();
    let filter = cri::PodSandboxFilter { label_selector: label_selector.clone(), ..Default::default() };
    let listed = runtime.list_pod_sandbox(cri::ListPodSandboxRequest { filter: Some(filter) }).await?.into_inner();
    let mut sandboxes = Vec::with_capacity(listed.items.len());
    for item in listed.items {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: item.id, verbose: false };
        match runtime.pod_sandbox_status(request).await {
            Ok(answer) => sandboxes.extend(answer.into_inner().status.map(sandbox_from)),
            // Removed between the list and this call.
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => return Err(status),
        }
    }
    sandboxes.sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created_at)));

    let filter = cri::ContainerFilter { label_selector, ..Default::default() };
    let listed = runtime.list_containers(cri::ListContainersRequest { filter: Some(filter) }).await?.into_inner();
    let mut containers = Vec::with_capacity(listed.containers.len());
    for item in listed.containers {
        let request = cri::ContainerStatusRequest { container_id: item.id, verbose: false };
        match runtime.container_status(request).await {
            Ok(answer) => containers.extend(answer.into_inner().status.map(|s| container_from(item.pod_sandbox_id, s))),
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => return Err(status),
        }
    }
    containers.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
    Ok(Observed { sandboxes, containers })
}

/// CRI counts nanoseconds since the epoch, zero for "not yet".
pub fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0).then(|| Timestamp::from_nanosecond(nanoseconds.into()).ok()).flatten()
}

fn sandbox_from(status: cri::PodSandboxStatus) -> Sandbox {
    let network = status.network.unwrap_or_default();
    let ips = std::iter::once(network.ip)
        .chain(network.additional_ips.into_iter().map(|ip| ip.ip))
        .filter(|ip| !ip.is_empty())
        .collect();
    Sandbox {
        ready: status.state == cri::PodSandboxState::SandboxReady as i32,
        attempt: status.metadata.map_or(0, |m| m.attempt),
        created_at: timestamp(status.created_at).unwrap_or_default(),
        ips,
        id: status.id,
    }
}

pub fn container_from(sandbox_id: String, status: cri::ContainerStatus) -> Container {
    let metadata = status.metadata.unwrap_or_default();
    let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let state = match cri::ContainerState::try_from(status.state) {
        Ok(cri::ContainerState::ContainerCreated) => State::Created,
        Ok(cri::ContainerState::ContainerRunning) => State::Running,
        Ok(cri::ContainerState::ContainerExited) => State::Exited,
        Ok(cri::ContainerState::ContainerUnknown) | Err(_) => State::Unknown,
    };
    Container {
        sandbox_id,
        state,
        hash: annotation(names::CONTAINER_HASH),
        resources_asked: annotation(names::RESOURCES),
        restart_count: annotation(names::RESTART_COUNT).parse().unwrap_or(metadata.attempt as i32),
        termination_message_file: annotation(names::TERMINATION_MESSAGE_FILE),
        termination_message_policy: annotation(names::TERMINATION_MESSAGE_POLICY),
        name: status.labels.get(names::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        attempt: metadata.attempt,
        created_at: timestamp(status.created_at).unwrap_or_default(),
        started_at: timestamp(status.started_at),
        finished_at: timestamp(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: status
            .image
            .map(|i| if i.user_specified_image.is_empty() { i.image } else { i.user_specified_image })
            .unwrap_or_default(),
        image_ref: if status.image_ref.is_empty() { status.image_id } else { status.image_ref },
        log_path: status.log_path,
        user: status.user.and_then(|u| u.linux),
        id: status.id,
    }
}
