//! A runtime whose containers run until a test says otherwise.
//!
//! Owns: sandboxes and containers in memory, container events, and a record of the calls.
//! Called by: this crate's tests.
//! Never: starts a process.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use k8s_cri::v1::image_service_server::{ImageService, ImageServiceServer};
use k8s_cri::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use k8s_cri::v1::*;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status};

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, PodSandboxStatus>,
    /// With the sandbox each is in.
    containers: BTreeMap<String, (String, ContainerStatus)>,
    configs: BTreeMap<String, ContainerConfig>,
    calls: Vec<String>,
    next: u32,
    /// Images that can be pulled or are there.
    images: Vec<String>,
}

#[derive(Clone)]
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<ContainerEventResponse>,
}

fn now() -> i64 {
    jiff::Timestamp::now().as_nanosecond() as i64
}

impl FakeRuntime {
    pub fn new(images: &[&str]) -> FakeRuntime {
        let state = State { images: images.iter().map(|i| i.to_string()).collect(), ..State::default() };
        FakeRuntime { state: Arc::new(Mutex::new(state)), events: broadcast::channel(1024).0 }
    }

    pub fn cri(&self) -> crate::Cri {
        crate::Cri::from_services(RuntimeServiceServer::new(self.clone()), ImageServiceServer::new(self.clone()))
    }

    /// Ends the newest container of that name.
    pub fn exit(&self, name: &str, code: i32) {
        let id = self.newest(name);
        self.end(&id, code);
    }

    /// The node lost power: nothing runs, everything is remembered.
    pub fn lose_power(&self) {
        let mut state = self.state.lock();
        for sandbox in state.sandboxes.values_mut() {
            sandbox.state = PodSandboxState::SandboxNotready as i32;
        }
        let ids: Vec<String> = state.containers.keys().cloned().collect();
        drop(state);
        for id in ids {
            self.end(&id, 137);
        }
    }

    pub fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }
    pub fn config(&self, name: &str) -> ContainerConfig {
        let id = self.newest(name);
        self.state.lock().configs[&id].clone()
    }
    pub fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.sandboxes.is_empty() && state.containers.is_empty()
    }

    fn newest(&self, name: &str) -> String {
        let state = self.state.lock();
        let of_name = state.containers.iter().filter(|(_, (_, c))| c.metadata.as_ref().is_some_and(|m| m.name == name));
        of_name.max_by_key(|(_, (_, c))| c.metadata.as_ref().map(|m| m.attempt)).expect("such a container").0.clone()
    }

    fn end(&self, id: &str, code: i32) {
        let mut state = self.state.lock();
        let Some((sandbox, container)) = state.containers.get_mut(id) else { return };
        if container.state != ContainerState::ContainerRunning as i32 {
            return;
        }
        container.state = ContainerState::ContainerExited as i32;
        container.finished_at = now();
        container.exit_code = code;
        container.reason = if code == 0 { "Completed".into() } else { "Error".into() };
        let sandbox = sandbox.clone();
        drop(state);
        self.tell(id, &sandbox);
    }

    fn tell(&self, container_id: &str, sandbox: &str) {
        let pod_sandbox_status = self.state.lock().sandboxes.get(sandbox).cloned();
        let event =
            ContainerEventResponse { container_id: container_id.into(), pod_sandbox_status, ..Default::default() };
        let _ = self.events.send(event);
    }

    fn called(&self, what: String) {
        self.state.lock().calls.push(what);
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn ok<T>(value: T) -> Answer<T> {
    Ok(Response::new(value))
}

macro_rules! not_served {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        $(
            fn $name<'a, 'b>(&'a self, _: Request<$request>)
                -> Pin<Box<dyn Future<Output = Answer<$response>> + Send + 'b>> where 'a: 'b, Self: 'b {
                Box::pin(async { Err(Status::unimplemented(stringify!($name))) })
            }
        )*
    };
}

#[tonic::async_trait]
impl RuntimeService for FakeRuntime {
    type GetContainerEventsStream = Pin<Box<dyn futures::Stream<Item = Result<ContainerEventResponse, Status>> + Send>>;

    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        ok(VersionResponse { runtime_name: "fake".into(), runtime_version: "1".into(), ..Default::default() })
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let condition = |kind: &str| RuntimeCondition { r#type: kind.into(), status: true, ..Default::default() };
        let conditions = vec![condition("RuntimeReady"), condition("NetworkReady")];
        ok(StatusResponse { status: Some(RuntimeStatus { conditions }), ..Default::default() })
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let config = request.into_inner().config.expect("a config");
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("sandbox{}", state.next);
        let ip = format!("10.0.0.{}", state.next);
        state.calls.push(format!("run sandbox {}", config.metadata.as_ref().expect("metadata").attempt));
        let status = PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata,
            state: PodSandboxState::SandboxReady as i32,
            created_at: now(),
            network: Some(PodSandboxNetworkStatus { ip, additional_ips: vec![] }),
            labels: config.labels,
            annotations: config.annotations,
            ..Default::default()
        };
        state.sandboxes.insert(id.clone(), status);
        ok(RunPodSandboxResponse { pod_sandbox_id: id })
    }

    async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        self.called("stop sandbox".into());
        if let Some(sandbox) = self.state.lock().sandboxes.get_mut(&id) {
            sandbox.state = PodSandboxState::SandboxNotready as i32;
        }
        ok(StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(&self, request: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.state.lock();
        state.calls.push("remove sandbox".into());
        state.sandboxes.remove(&id);
        state.containers.retain(|_, (sandbox, _)| *sandbox != id);
        ok(RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(&self, request: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let status = self.state.lock().sandboxes.get(&id).cloned();
        let status = Some(status.ok_or_else(|| Status::not_found(id))?);
        ok(PodSandboxStatusResponse { status, ..Default::default() })
    }

    async fn list_pod_sandbox(&self, request: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        let wanted = request.into_inner().filter.unwrap_or_default().label_selector;
        let state = self.state.lock();
        let matching = state.sandboxes.values().filter(|s| wanted.iter().all(|(k, v)| s.labels.get(k) == Some(v)));
        let items = matching.map(|s| PodSandbox {
            id: s.id.clone(),
            metadata: s.metadata.clone(),
            state: s.state,
            labels: s.labels.clone(),
            ..Default::default()
        });
        ok(ListPodSandboxResponse { items: items.collect() })
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.expect("a config");
        let metadata = config.metadata.clone().expect("metadata");
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("c{}", state.next);
        state.configs.insert(id.clone(), config.clone());
        let status = ContainerStatus {
            id: id.clone(),
            metadata: Some(metadata),
            state: ContainerState::ContainerCreated as i32,
            created_at: now(),
            image_ref: config.image.as_ref().map(|i| i.image.clone()).unwrap_or_default(),
            image: config.image,
            labels: config.labels,
            annotations: config.annotations,
            ..Default::default()
        };
        state.containers.insert(id.clone(), (request.pod_sandbox_id, status));
        ok(CreateContainerResponse { container_id: id })
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        let id = request.into_inner().container_id;
        let mut state = self.state.lock();
        let (sandbox, container) = state.containers.get_mut(&id).ok_or_else(|| Status::not_found(&id))?;
        container.state = ContainerState::ContainerRunning as i32;
        container.started_at = now();
        let sandbox = sandbox.clone();
        let metadata = container.metadata.clone().expect("metadata");
        state.calls.push(format!("start {} {}", metadata.name, metadata.attempt));
        drop(state);
        self.tell(&id, &sandbox);
        ok(StartContainerResponse {})
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let id = request.into_inner().container_id;
        let name = self.state.lock().containers.get(&id).and_then(|(_, c)| c.metadata.clone()).unwrap_or_default().name;
        self.called(format!("stop {name}"));
        self.end(&id, 143);
        ok(StopContainerResponse {})
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        self.state.lock().containers.remove(&request.into_inner().container_id);
        ok(RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let wanted = request.into_inner().filter.unwrap_or_default().label_selector;
        let state = self.state.lock();
        let matching =
            state.containers.values().filter(|(_, c)| wanted.iter().all(|(k, v)| c.labels.get(k) == Some(v)));
        let containers = matching.map(|(sandbox, c)| Container {
            id: c.id.clone(),
            pod_sandbox_id: sandbox.clone(),
            metadata: c.metadata.clone(),
            state: c.state,
            labels: c.labels.clone(),
            ..Default::default()
        });
        ok(ListContainersResponse { containers: containers.collect() })
    }

    async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        let id = request.into_inner().container_id;
        let status = self.state.lock().containers.get(&id).map(|(_, c)| c.clone());
        let status = Some(status.ok_or_else(|| Status::not_found(id))?);
        ok(ContainerStatusResponse { status, ..Default::default() })
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        self.called(format!("resize to {}", request.linux.unwrap_or_default().memory_limit_in_bytes));
        ok(UpdateContainerResourcesResponse {})
    }

    /// The command is the exit code.
    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let request = request.into_inner();
        self.called(format!("exec {}", request.cmd.join(" ")));
        let exit_code = request.cmd.last().and_then(|c| c.parse().ok()).unwrap_or(0);
        ok(ExecSyncResponse { exit_code, ..Default::default() })
    }

    async fn get_container_events(&self, _: Request<GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        let events = tokio_stream::wrappers::BroadcastStream::new(self.events.subscribe());
        Ok(Response::new(Box::pin(events.filter_map(|e| e.ok().map(Ok)))))
    }

    not_served! {
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
        exec(ExecRequest) -> ExecResponse;
        attach(AttachRequest) -> AttachResponse;
        port_forward(PortForwardRequest) -> PortForwardResponse;
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
        update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
        checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
        list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
        list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
        runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
    }
}

#[tonic::async_trait]
impl ImageService for FakeRuntime {
    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let known = self.state.lock().images.contains(&name);
        let image = known.then(|| Image { id: format!("sha256:{name}"), ..Default::default() });
        ok(ImageStatusResponse { image, ..Default::default() })
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        self.called(format!("pull {name}"));
        Err(Status::not_found(format!("{name}: not found")))
    }

    not_served! {
        list_images(ListImagesRequest) -> ListImagesResponse;
        remove_image(RemoveImageRequest) -> RemoveImageResponse;
        image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse;
    }
}
