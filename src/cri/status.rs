//! What CRI shows of sandboxes and containers, and which of them a filter means.
//!
//! Owns: the translation of records into CRI messages, and events.
//! Called by: the CRI RuntimeService.
//! Never: changes a record.

use std::collections::HashMap;

use k8s_cri::v1;

use crate::record::{ContainerRecord, Ended, SandboxRecord, State, now};
use crate::runtime::Runtime;
use crate::sandbox::options_of;

type Labels = HashMap<String, String>;

fn labels_match(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn sandbox_state(record: &SandboxRecord) -> i32 {
    let state = if record.ready { v1::PodSandboxState::SandboxReady } else { v1::PodSandboxState::SandboxNotready };
    state as i32
}

pub(crate) fn sandbox_status(record: &SandboxRecord) -> v1::PodSandboxStatus {
    let ip = record.ip.filter(|_| record.ready).map(|ip| ip.to_string()).unwrap_or_default();
    v1::PodSandboxStatus {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: sandbox_state(record),
        created_at: record.created_at,
        network: Some(v1::PodSandboxNetworkStatus { ip, additional_ips: Vec::new() }),
        linux: Some(v1::LinuxPodSandboxStatus {
            namespaces: Some(v1::Namespace { options: Some(options_of(&record.config)) }),
        }),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.runtime_handler.clone(),
    }
}

pub(crate) fn sandbox_item(record: &SandboxRecord) -> v1::PodSandbox {
    v1::PodSandbox {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: sandbox_state(record),
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.runtime_handler.clone(),
    }
}

pub(crate) fn sandbox_matches(filter: &v1::PodSandboxFilter, record: &SandboxRecord) -> bool {
    record.id.starts_with(&filter.id)
        && filter.state.as_ref().is_none_or(|s| s.state == sandbox_state(record))
        && labels_match(&filter.label_selector, &record.config.labels)
}

pub(crate) fn container_item(record: &ContainerRecord) -> v1::Container {
    v1::Container {
        id: record.id.clone(),
        pod_sandbox_id: record.sandbox.clone(),
        metadata: record.config.metadata.clone(),
        image: record.config.image.clone(),
        image_ref: record.image_ref.clone(),
        state: record.state.cri() as i32,
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        image_id: record.image_id.clone(),
    }
}

pub(crate) fn container_matches(filter: &v1::ContainerFilter, record: &ContainerRecord) -> bool {
    record.id.starts_with(&filter.id)
        && record.sandbox.starts_with(&filter.pod_sandbox_id)
        && filter.state.as_ref().is_none_or(|s| s.state == record.state.cri() as i32)
        && labels_match(&filter.label_selector, &record.config.labels)
}

pub(crate) fn stats_match(filter: &v1::ContainerStatsFilter, record: &ContainerRecord) -> bool {
    record.id.starts_with(&filter.id)
        && record.sandbox.starts_with(&filter.pod_sandbox_id)
        && labels_match(&filter.label_selector, &record.config.labels)
}

pub(crate) fn sandbox_stats_match(filter: &v1::PodSandboxStatsFilter, record: &SandboxRecord) -> bool {
    record.id.starts_with(&filter.id) && labels_match(&filter.label_selector, &record.config.labels)
}

pub(crate) fn container_status(record: &ContainerRecord) -> v1::ContainerStatus {
    let none = Ended { started_at: 0, finished_at: 0, code: 0, reason: String::new(), message: String::new() };
    let (started_at, ended) = match &record.state {
        State::Created => (0, none),
        State::Running { started_at, .. } => (*started_at, none),
        State::Exited(ended) => (ended.started_at, ended.clone()),
    };
    let linux = record.config.linux.as_ref().and_then(|l| l.resources.clone());
    let supplemental = [vec![record.user.gid], record.user.groups.clone()].concat();
    v1::ContainerStatus {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: record.state.cri() as i32,
        created_at: record.created_at,
        started_at,
        finished_at: ended.finished_at,
        exit_code: ended.code,
        image: record.config.image.clone(),
        image_ref: record.image_ref.clone(),
        reason: ended.reason,
        message: ended.message,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        mounts: record.config.mounts.clone(),
        log_path: record.log_path.clone(),
        resources: Some(v1::ContainerResources { linux, windows: None }),
        image_id: record.image_id.clone(),
        user: Some(v1::ContainerUser {
            linux: Some(v1::LinuxContainerUser {
                uid: record.user.uid.into(),
                gid: record.user.gid.into(),
                supplemental_groups: supplemental.into_iter().map(i64::from).collect(),
            }),
        }),
    }
}

impl Runtime {
    /// Tells whoever listens that something happened to a container or sandbox.
    pub(crate) fn announce(&self, sandbox: &str, id: &str, kind: v1::ContainerEventType) {
        if self.0.events.receiver_count() == 0 {
            return;
        }
        let statuses = self.containers_of(sandbox).iter().map(|c| container_status(&c.record.lock())).collect();
        let pod = self.sandbox(sandbox).ok().map(|s| sandbox_status(&s.record.lock()));
        // Nobody listening any more is no error.
        let _ = self.0.events.send(v1::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind as i32,
            created_at: now(),
            pod_sandbox_status: pod,
            containers_statuses: statuses,
        });
    }
}
