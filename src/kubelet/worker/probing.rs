//! Which probes run for a pod right now.
//!
//! Owns: starting and ending probe tasks as containers come and go.
//! Called by: the pod worker after every look at the runtime.
//! Never: reads a probe's result.

use std::sync::Arc;

use crate::lifecycle;
use crate::memory::Stage;
use crate::observed::State;
use crate::pod::ContainerKind;
use crate::probe::{self, Kind};

use super::Worker;

impl Worker {
    pub(super) fn sync_probes(&mut self) {
        let seen = self.seen.clone();
        let pod = self.pod.clone();
        let runs = |id: &str| seen.by_id(id).is_some_and(|c| c.state == State::Running);
        let ending = self.memory.stage != Stage::Running;
        self.probes.retain(|(id, kind), task| {
            // While a pod ends it may still tell that it is not ready; being killed for liveness is over.
            let keep = runs(id) && (!ending || *kind == Kind::Readiness);
            if !keep {
                task.abort();
            }
            keep
        });
        if ending {
            return;
        }
        for container in seen.running() {
            let Some((kind, spec)) = pod.container(&container.name) else { continue };
            if !matches!(kind, ContainerKind::App | ContainerKind::Sidecar)
                || *self.memory.op(&container.name) == crate::memory::ContainerOp::Starting
            {
                continue;
            }
            let wanted = match lifecycle::started(spec, container, &self.memory) {
                true => &[Kind::Liveness, Kind::Readiness][..],
                false => &[Kind::Startup][..],
            };
            for probe in wanted.iter().filter(|k| k.of(spec).is_some()) {
                let key = (container.id.clone(), *probe);
                if self.probes.contains_key(&key) {
                    continue;
                }
                let target = probe::Target {
                    kind: *probe,
                    container: spec.clone(),
                    container_kind: kind,
                    container_id: container.id.clone(),
                    started_at: container.started_at.unwrap_or(container.created_at),
                    pod_ip: self.node.pod_ip(&pod, &seen),
                    cri: self.node.cri.clone(),
                    events: Arc::new(self.events.clone()),
                };
                let task = tokio::spawn(probe::run(target, self.reports.0.clone()));
                self.probes.insert(key, task.abort_handle());
            }
        }
    }
}
