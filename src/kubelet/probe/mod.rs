//! Probes: asking a container whether it has started, lives, and can serve.
//!
//! Owns: when a probe runs and what its results add up to.
//! Called by: the pod worker, which starts one task for each probe of each running container.
//! Never: restarts a container; the plan does, from the verdict.

mod action;
mod grpc;
mod http;
mod thresholds;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use tokio::sync::mpsc;

pub use action::port_number;
pub use http::{Answer, HttpGet, Scheme, http_get};
pub use thresholds::{Outcome, Thresholds};

use crate::cri::Cri;
use crate::events::PodEvents;
use crate::memory::Verdict;
use crate::pod::{self, ContainerKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }
    pub fn of(self, container: &core::Container) -> Option<&core::Probe> {
        match self {
            Kind::Startup => container.startup_probe.as_ref(),
            Kind::Liveness => container.liveness_probe.as_ref(),
            Kind::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// A verdict that changed, on its way to the pod worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub container_id: String,
    pub kind: Kind,
    pub verdict: Verdict,
}

/// One probe of one container run.
pub struct Target {
    pub kind: Kind,
    pub container: core::Container,
    pub container_kind: ContainerKind,
    pub container_id: String,
    pub started_at: Timestamp,
    pub pod_ip: Option<IpAddr>,
    pub cri: Cri,
    pub events: Arc<PodEvents>,
}

/// Errors of the prober itself are tried again at once this often, as upstream does.
const TRIES_MAX: u32 = 3;

/// Probes until a verdict that ends it, or until dropped.
pub async fn run(target: Target, reports: mpsc::Sender<Report>) {
    let Some(probe) = target.kind.of(&target.container).cloned() else { return };
    let period = seconds(probe.period_seconds, 10);
    let delay = Duration::from_secs(probe.initial_delay_seconds.unwrap_or(0).max(0) as u64);
    let running: Duration = Timestamp::now().duration_since(target.started_at).try_into().unwrap_or_default();
    tokio::time::sleep(delay.saturating_sub(running)).await;

    let mut thresholds = Thresholds::new(
        probe.success_threshold.unwrap_or(1).max(1) as u32,
        probe.failure_threshold.unwrap_or(3).max(1) as u32,
    );
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let outcome = probe_once(&target, &probe).await;
        let Some(verdict) = thresholds.record(outcome) else { continue };
        let report = Report { container_id: target.container_id.clone(), kind: target.kind, verdict };
        if reports.send(report).await.is_err() || ends(target.kind, verdict) {
            return;
        }
    }
}

/// After these the container is started, or about to be killed.
fn ends(kind: Kind, verdict: Verdict) -> bool {
    match (kind, verdict) {
        (Kind::Startup, _) | (Kind::Liveness, Verdict::Failure) => true,
        (Kind::Liveness, Verdict::Success) | (Kind::Readiness, _) => false,
    }
}

async fn probe_once(target: &Target, probe: &core::Probe) -> Outcome {
    let timeout = seconds(probe.timeout_seconds, 1);
    let mut last_error = String::new();
    for _ in 0..TRIES_MAX {
        match action::perform(target, probe, timeout).await {
            Ok(Answer::Success) => return Outcome::Success,
            Ok(Answer::Failure(output)) => {
                tell(target, &format!("{} probe failed: {output}", target.kind.as_str()));
                return Outcome::Failure;
            }
            Err(error) => last_error = error,
        }
    }
    tell(target, &format!("{} probe errored: {last_error}", target.kind.as_str()));
    Outcome::Unknown
}

fn tell(target: &Target, message: &str) {
    let path = pod::field_path(target.container_kind, &target.container.name);
    target.events.warning(Some(path), "Unhealthy", message);
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.filter(|v| *v > 0).map_or(default, |v| v as u64))
}
