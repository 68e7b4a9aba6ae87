//! CRI's ImageService.
//!
//! Owns: the translation between gRPC messages and the image store.
//! Called by: the kubelet in process, and anyone on the CRI socket.
//! Never: blocks the async threads: the store's work is file work.

use k8s_cri::v1::image_service_server::ImageService;
use k8s_cri::v1::*;
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::images::{Auth, Image as Stored, ImageError, ImageStore};
use crate::record::now;
use crate::runtime::Runtime;

type Answer<T> = Result<Response<T>, Status>;

fn image(stored: Stored) -> Image {
    let user = stored.config.user.split(':').next().unwrap_or_default().to_owned();
    let uid = user.parse().ok().map(|value| Int64Value { value });
    Image {
        id: stored.id.clone(),
        repo_tags: stored.tags,
        repo_digests: stored.digests,
        size: stored.size,
        // A numeric user tells the kubelet whether runAsNonRoot can be kept; an empty one is root.
        username: if uid.is_some() { String::new() } else { user },
        uid,
        spec: Some(ImageSpec { image: stored.id, ..Default::default() }),
        pinned: false,
    }
}

impl Runtime {
    async fn with_images<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ImageStore) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, Error> {
        let store = self.0.images.clone();
        Ok(tokio::task::spawn_blocking(move || work(&store)).await??)
    }
}

fn auth(from: AuthConfig) -> Auth {
    use base64::Engine;
    // `auth` is base64 of user:password, as in a Docker configuration file.
    let decoded = base64::engine::general_purpose::STANDARD.decode(from.auth.trim()).ok();
    let pair = decoded.and_then(|b| String::from_utf8(b).ok()).and_then(|t| {
        t.split_once(':').map(|(user, password)| (user.to_owned(), password.trim_end_matches('\0').to_owned()))
    });
    let (username, password) = match pair {
        Some(pair) if from.username.is_empty() => pair,
        _ => (from.username, from.password),
    };
    Auth { username, password, registry_token: from.registry_token }
}

#[tonic::async_trait]
impl ImageService for Runtime {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let wanted = request.into_inner().filter.and_then(|f| f.image).map(|i| i.image).unwrap_or_default();
        let images = self
            .with_images(move |store| {
                if wanted.is_empty() { store.list() } else { Ok(store.resolve(&wanted)?.into_iter().collect()) }
            })
            .await?;
        Ok(Response::new(ListImagesResponse { images: images.into_iter().map(image).collect() }))
    }

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let wanted = request.into_inner().image.unwrap_or_default().image;
        let found = self.with_images(move |store| store.resolve(&wanted)).await?;
        Ok(Response::new(ImageStatusResponse { image: found.map(image), info: Default::default() }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let request = request.into_inner();
        let wanted = request.image.unwrap_or_default().image;
        let auth = request.auth.map(auth);
        // A pull that its caller gave up on goes on: the next attempt finds what it brought.
        let store = self.0.images.clone();
        let pulled = tokio::spawn(async move { store.pull(&wanted, auth).await });
        let pulled = pulled.await.map_err(Error::from)?.map_err(Error::from)?;
        Ok(Response::new(PullImageResponse { image_ref: pulled.id }))
    }

    async fn remove_image(&self, request: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        let wanted = request.into_inner().image.unwrap_or_default().image;
        self.with_images(move |store| store.remove(&wanted)).await?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Answer<ImageFsInfoResponse> {
        let used = self.with_images(ImageStore::bytes_used).await?;
        let usage = |path: &std::path::Path, used: Option<u64>| FilesystemUsage {
            timestamp: now(),
            fs_id: Some(FilesystemIdentifier { mountpoint: path.to_string_lossy().into_owned() }),
            used_bytes: used.map(|value| UInt64Value { value }),
            inodes_used: None,
        };
        let config = &self.0.config;
        let layers = config.state.join("layers");
        let writable = tokio::task::spawn_blocking(move || crate::stats::disk_usage(&layers).0).await;
        let writable = writable.map_err(Error::from)?;
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![usage(&config.images, Some(used))],
            container_filesystems: vec![usage(&config.state, Some(writable))],
        }))
    }
}
