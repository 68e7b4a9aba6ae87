//! CRI's RuntimeService.
//!
//! Owns: the translation between gRPC messages and the runtime's own functions, nothing more.
//! Called by: the kubelet in process, and anyone on the CRI socket.
//! Never: decides.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_cri::v1::runtime_service_server::RuntimeService;
use k8s_cri::v1::*;
use minik_network::Ipv4Cidr;
use minik_streaming::Ends;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use crate::container;
use crate::create;
use crate::error::Error;
use crate::exec;
use crate::namespaces::NET;
use crate::runtime::Runtime;
use crate::sandbox::{self, is_node, options_of};
use crate::stats;
use crate::status;
use crate::stream_server::Purpose;
use crate::update;

const VERSION: &str = env!("CARGO_PKG_VERSION");

type Answer<T> = Result<Response<T>, Status>;

fn ok<T>(value: T) -> Answer<T> {
    Ok(Response::new(value))
}

fn needed<T>(value: Option<T>, what: &str) -> Result<T, Error> {
    value.ok_or_else(|| Error::Invalid(format!("{what} is required")))
}

/// Stopping or removing what is not there is done already.
fn known<T>(found: Result<T, Error>) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn condition(kind: &str, reason: &str, message: &str) -> RuntimeCondition {
    let status = reason.is_empty();
    RuntimeCondition { r#type: kind.into(), status, reason: reason.into(), message: message.into() }
}

#[tonic::async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        ok(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "minik".into(),
            runtime_version: VERSION.into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = needed(request.config, "config")?;
        // Cancelling the call must not leave half a sandbox: the work goes on, and the next scan finds it whole.
        let runtime = self.clone();
        let work = tokio::spawn(async move { sandbox::run(&runtime, config, request.runtime_handler).await });
        ok(RunPodSandboxResponse { pod_sandbox_id: work.await.map_err(Error::from)?? })
    }

    async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        if let Some(found) = known(self.sandbox(&request.into_inner().pod_sandbox_id))? {
            let runtime = self.clone();
            let work = tokio::spawn(async move { sandbox::stop(&runtime, &found).await });
            work.await.map_err(Error::from)??;
        }
        ok(StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(&self, request: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        if let Some(found) = known(self.sandbox(&request.into_inner().pod_sandbox_id))? {
            let runtime = self.clone();
            let work = tokio::spawn(async move { sandbox::remove(&runtime, &found).await });
            work.await.map_err(Error::from)??;
        }
        ok(RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(&self, request: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        let found = self.sandbox(&request.into_inner().pod_sandbox_id)?;
        let record = found.record.lock().clone();
        let containers = self.containers_of(&record.id);
        ok(PodSandboxStatusResponse {
            status: Some(status::sandbox_status(&record)),
            info: Default::default(),
            containers_statuses: containers.iter().map(|c| status::container_status(&c.record.lock())).collect(),
            timestamp: crate::record::now(),
        })
    }

    async fn list_pod_sandbox(&self, request: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let mut items = Vec::new();
        for sandbox in self.sandboxes() {
            let record = sandbox.record.lock();
            if status::sandbox_matches(&filter, &record) {
                items.push(status::sandbox_item(&record));
            }
        }
        ok(ListPodSandboxResponse { items })
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let config = needed(request.config, "config")?;
        let runtime = self.clone();
        let work = tokio::spawn(async move {
            create::create(&runtime, &request.pod_sandbox_id, config, request.sandbox_config).await
        });
        ok(CreateContainerResponse { container_id: work.await.map_err(Error::from)?? })
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        let found = self.container(&request.into_inner().container_id)?;
        let runtime = self.clone();
        let work = tokio::spawn(async move { container::start(&runtime, &found).await });
        work.await.map_err(Error::from)??;
        ok(StartContainerResponse {})
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        if let Some(found) = known(self.container(&request.container_id))? {
            container::stop(self, &found, request.timeout).await?;
        }
        ok(StopContainerResponse {})
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        if let Some(found) = known(self.container(&request.into_inner().container_id))? {
            let runtime = self.clone();
            let work = tokio::spawn(async move { container::remove(&runtime, &found).await });
            work.await.map_err(Error::from)??;
        }
        ok(RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let mut containers = Vec::new();
        for container in self.containers() {
            let record = container.record.lock();
            if status::container_matches(&filter, &record) {
                containers.push(status::container_item(&record));
            }
        }
        ok(ListContainersResponse { containers })
    }

    async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        let found = self.container(&request.into_inner().container_id)?;
        let status = status::container_status(&found.record.lock());
        ok(ContainerStatusResponse { status: Some(status), info: Default::default() })
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let found = self.container(&request.container_id)?;
        let wanted = request.linux.unwrap_or_default();
        let _work = found.work.lock().await;
        self.update(&found, &wanted)?;
        ok(UpdateContainerResourcesResponse {})
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        let found = self.container(&request.into_inner().container_id)?;
        container::reopen_log(self, &found).await?;
        ok(ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let request = request.into_inner();
        let found = self.container(&request.container_id)?;
        let timeout = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        let output = exec::sync(self, &found, &request.cmd, timeout).await?;
        ok(ExecSyncResponse { stdout: output.stdout, stderr: output.stderr, exit_code: output.code })
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        let r = request.into_inner();
        let container = self.container(&r.container_id)?;
        container::pid_of(&container)?;
        let ends = Ends { stdin: r.stdin, stdout: r.stdout, stderr: r.stderr && !r.tty, tty: r.tty };
        ok(ExecResponse { url: self.0.streaming.url(Purpose::Exec { container, command: r.cmd, ends })? })
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        let r = request.into_inner();
        let container = self.container(&r.container_id)?;
        container::pid_of(&container)?;
        let ends = Ends { stdin: r.stdin, stdout: r.stdout, stderr: r.stderr && !r.tty, tty: r.tty };
        ok(AttachResponse { url: self.0.streaming.url(Purpose::Attach { container, ends })? })
    }

    async fn port_forward(&self, request: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        let request = request.into_inner();
        let record = self.sandbox(&request.pod_sandbox_id)?.record.lock().clone();
        if !record.ready {
            return Err(Error::Precondition(format!("sandbox container {:?} is not running", record.id)).into());
        }
        let own = !is_node(options_of(&record.config).network);
        let namespace = own.then(|| self.0.config.sandbox(&record.id).join("ns").join(NET));
        let ports = request.port.iter().filter_map(|p| u16::try_from(*p).ok()).collect();
        ok(PortForwardResponse {
            url: self.0.streaming.url(Purpose::PortForward { sandbox: record.id, namespace, ports })?,
        })
    }

    async fn container_stats(&self, request: Request<ContainerStatsRequest>) -> Answer<ContainerStatsResponse> {
        let found = self.container(&request.into_inner().container_id)?;
        let runtime = self.clone();
        let stats = tokio::task::spawn_blocking(move || stats::container(&runtime, &found)).await;
        ok(ContainerStatsResponse { stats: Some(stats.map_err(Error::from)?) })
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let runtime = self.clone();
        let stats = tokio::task::spawn_blocking(move || {
            let running = |r: &crate::record::ContainerRecord| matches!(r.state, crate::record::State::Running { .. });
            let wanted = |r: &crate::record::ContainerRecord| running(r) && status::stats_match(&filter, r);
            let all = runtime.containers();
            all.iter().filter(|c| wanted(&c.record.lock())).map(|c| stats::container(&runtime, c)).collect()
        });
        ok(ListContainerStatsResponse { stats: stats.await.map_err(Error::from)? })
    }

    async fn pod_sandbox_stats(&self, request: Request<PodSandboxStatsRequest>) -> Answer<PodSandboxStatsResponse> {
        let found = self.sandbox(&request.into_inner().pod_sandbox_id)?;
        let runtime = self.clone();
        let stats = tokio::task::spawn_blocking(move || stats::sandbox(&runtime, &found)).await;
        ok(PodSandboxStatsResponse { stats: Some(stats.map_err(Error::from)?) })
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let runtime = self.clone();
        let stats = tokio::task::spawn_blocking(move || {
            let wanted = |r: &crate::record::SandboxRecord| r.ready && status::sandbox_stats_match(&filter, r);
            let all = runtime.sandboxes();
            all.iter().filter(|s| wanted(&s.record.lock())).map(|s| stats::sandbox(&runtime, s)).collect()
        });
        ok(ListPodSandboxStatsResponse { stats: stats.await.map_err(Error::from)? })
    }

    async fn update_runtime_config(
        &self,
        request: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        let config = request.into_inner().runtime_config.and_then(|c| c.network_config).unwrap_or_default();
        // A dual-stack cluster sends a list; the first IPv4 one is ours.
        let cidrs = config.pod_cidr.split(',').map(str::trim).filter(|c| !c.is_empty());
        if let Some(cidr) = cidrs.clone().find_map(|c| c.parse::<Ipv4Cidr>().ok()) {
            self.0.network.set_cidr(cidr);
        } else if cidrs.count() > 0 {
            return Err(Error::Invalid(format!("{:?} has no IPv4 CIDR", config.pod_cidr)).into());
        }
        ok(UpdateRuntimeConfigResponse {})
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        let network = match self.0.network.cidr() {
            Some(_) => condition("NetworkReady", "", ""),
            None => {
                let message = "container runtime network not ready: the node has no pod CIDR yet";
                condition("NetworkReady", "NetworkPluginNotReady", message)
            }
        };
        let mut info = std::collections::HashMap::new();
        if request.into_inner().verbose {
            info.insert("config".into(), format!("{:?}", self.0.config));
        }
        let features = RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false };
        ok(StatusResponse {
            status: Some(RuntimeStatus { conditions: vec![condition("RuntimeReady", "", ""), network] }),
            info,
            runtime_handlers: ["", "minik", "runc"]
                .map(|name| RuntimeHandler { name: name.into(), features: Some(features) })
                .to_vec(),
            features: Some(RuntimeFeatures { supplemental_groups_policy: true }),
        })
    }

    async fn checkpoint_container(
        &self,
        _: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        Err(Status::unimplemented("checkpoints are not supported by this runtime"))
    }

    type GetContainerEventsStream = Pin<Box<dyn Stream<Item = Result<ContainerEventResponse, Status>> + Send>>;

    async fn get_container_events(&self, _: Request<GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        let events = BroadcastStream::new(self.0.events.subscribe());
        let events = events.map(|e| e.map_err(|_| Status::data_loss("the listener fell behind; list anew")));
        ok(Box::pin(events))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<ListMetricDescriptorsResponse> {
        ok(ListMetricDescriptorsResponse { descriptors: Vec::new() })
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<ListPodSandboxMetricsResponse> {
        ok(ListPodSandboxMetricsResponse { pod_metrics: Vec::new() })
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        ok(RuntimeConfigResponse {
            linux: Some(LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs as i32 }),
        })
    }
}

impl Runtime {
    fn update(
        &self,
        container: &Arc<crate::runtime::Container>,
        wanted: &LinuxContainerResources,
    ) -> Result<(), Error> {
        let mut record = container.record.lock();
        match record.state {
            crate::record::State::Running { .. } => update::apply(self.0.cgroups, &record.cgroup, wanted)?,
            // Its cgroup does not exist yet; its specification does.
            crate::record::State::Created => create::rewrite_resources(self, &record, wanted)?,
            crate::record::State::Exited(_) => {
                return Err(Error::Precondition("container is not running or created".into()));
            }
        }
        let linux = record.config.linux.get_or_insert_default();
        linux.resources = Some(update::merge(&linux.resources.clone().unwrap_or_default(), wanted));
        crate::record::save(&self.0.config.container(&record.id), &*record)
    }
}
