//! The CRI socket, for `crictl`, validation suites and other kubelets.
//!
//! Owns: listening on a unix socket that only root may open.
//! Called by: whoever wires a node.
//! Never: serves anything the in-process kubelet does not get.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_cri::v1::image_service_server::ImageServiceServer;
use k8s_cri::v1::runtime_service_server::RuntimeServiceServer;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;

use crate::runtime::Runtime;

/// Lists of many containers with long annotations outgrow tonic's 4 MiB; containerd's number.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("could not listen on {path}")]
    Listen { path: String, source: std::io::Error },
    #[error("the CRI server ended")]
    Serve(#[from] tonic::transport::Error),
}

impl Runtime {
    /// The two services, for a caller in the same process or a server.
    pub fn services(&self) -> (RuntimeServiceServer<Runtime>, ImageServiceServer<Runtime>) {
        let runtime = RuntimeServiceServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let images = ImageServiceServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        (runtime, images)
    }

    /// Serves on `socket` until cancelled. A socket left by a former process is replaced.
    pub async fn serve(&self, socket: &Path, cancel: CancellationToken) -> Result<(), ServeError> {
        let failed = |source| ServeError::Listen { path: socket.display().to_string(), source };
        let _ = fs::remove_file(socket);
        let listener = UnixListener::bind(socket).map_err(failed)?;
        fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let (runtime, images) = self.services();
        tonic::transport::Server::builder()
            .add_service(runtime)
            .add_service(images)
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), cancel.cancelled_owned())
            .await?;
        Ok(())
    }
}
