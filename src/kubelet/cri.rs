//! The container runtime as the kubelet sees it: CRI v1 and nothing else.
//!
//! Owns: the two clients, and where their requests go: a service of this process or a unix socket.
//! Called by: everything here that touches sandboxes, containers or images.
//! Never: knows which runtime answers.

use std::path::Path;

use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// gRPC over whatever carries it.
pub type Transport = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, TransportError>;

/// A named type: with a boxed error in its place futures over these clients are not provably Send.
#[derive(Debug, thiserror::Error)]
#[error("the container runtime cannot be reached")]
pub struct TransportError(#[source] BoxError);

pub type RuntimeClient = RuntimeServiceClient<Transport>;
pub type ImageClient = ImageServiceClient<Transport>;

/// Lists of many containers with long annotations outgrow tonic's 4 MiB; containerd and the upstream kubelet use 16.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

#[derive(Clone)]
pub struct Cri {
    runtime: RuntimeClient,
    images: ImageClient,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot reach the container runtime at {endpoint}")]
pub struct ConnectError {
    endpoint: String,
    #[source]
    source: tonic::transport::Error,
}

impl Cri {
    /// Services of this process: `RuntimeServiceServer<T>` and `ImageServiceServer<T>`.
    pub fn from_services<R, I, RB, IB>(runtime: R, images: I) -> Cri
    where
        R: Service<http::Request<Body>, Response = http::Response<RB>> + Clone + Send + Sync + 'static,
        R::Error: Into<BoxError>,
        R::Future: Send + 'static,
        RB: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        RB::Error: Into<BoxError>,
        I: Service<http::Request<Body>, Response = http::Response<IB>> + Clone + Send + Sync + 'static,
        I::Error: Into<BoxError>,
        I::Future: Send + 'static,
        IB: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        IB::Error: Into<BoxError>,
    {
        Self::over(boxed(runtime), boxed(images))
    }

    /// A runtime behind a unix socket: minik's own at `/run/minik/cri.sock`, containerd's or CRI-O's.
    pub async fn connect(socket: &Path) -> Result<Cri, ConnectError> {
        let endpoint = format!("unix://{}", socket.display());
        let failed = |source| ConnectError { endpoint: endpoint.clone(), source };
        let channel = tonic::transport::Endpoint::from_shared(endpoint.clone())
            .map_err(failed)?
            .connect()
            .await
            .map_err(failed)?;
        Ok(Self::over(boxed(channel.clone()), boxed(channel)))
    }

    fn over(runtime: Transport, images: Transport) -> Cri {
        Cri {
            runtime: RuntimeServiceClient::new(runtime)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            images: ImageServiceClient::new(images)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        }
    }

    /// A client of its own for one call chain; cloning is cheap.
    pub fn runtime(&self) -> RuntimeClient {
        self.runtime.clone()
    }

    pub fn images(&self) -> ImageClient {
        self.images.clone()
    }
}

fn boxed<S, B>(service: S) -> Transport
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    BoxCloneSyncService::new(service.map_response(|r| r.map(Body::new)).map_err(|e| TransportError(e.into())))
}
