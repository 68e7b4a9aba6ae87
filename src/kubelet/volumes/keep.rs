//! Keeping a pod's volumes current while it runs.
//!
//! Owns: the watches of what its volumes came from, its tokens, and when to look again.
//! Called by: the pod worker, which asks when something may have changed and has the files written again.
//! Never: writes a file itself.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccountTokenProjection;
use minik_api::ResourceId;
use minik_api::resources::{CONFIGMAPS, SECRETS};
use serde_json::Value;

use super::atomic_writer;
use super::token::{self, Token};
use super::{Context, SetUpError, VolumeError, ownership, payload};
use crate::downward::Around;
use crate::pod::Pod;
use crate::sources::Held;

/// A pod's hold on everything its volumes are made from.
#[derive(Default)]
pub struct Keeper {
    held: HashMap<(ResourceId, String), Held>,
    tokens: BTreeMap<(String, usize), Token>,
    /// Volumes of files, by name.
    files: BTreeMap<String, PathBuf>,
}

impl Keeper {
    pub async fn config_map(&mut self, c: &Context, ns: &str, name: &str) -> Result<Option<Arc<Value>>, VolumeError> {
        self.object(c, CONFIGMAPS, ns, name).await
    }
    pub async fn secret(&mut self, c: &Context, ns: &str, name: &str) -> Result<Option<Arc<Value>>, VolumeError> {
        self.object(c, SECRETS, ns, name).await
    }

    async fn object(
        &mut self,
        context: &Context,
        resource: ResourceId,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Value>>, VolumeError> {
        let key = (resource, name.to_string());
        let source = self.held.entry(key).or_insert_with(|| context.sources.hold(resource, namespace, name));
        Ok(source.get(name).await?)
    }

    /// The token of one source of one projected volume, asked for again when its time has come.
    pub async fn token(
        &mut self,
        context: &Context,
        pod: &Pod,
        volume: &str,
        index: usize,
        source: &ServiceAccountTokenProjection,
    ) -> Result<String, VolumeError> {
        let key = (volume.to_string(), index);
        if let Some(token) = self.tokens.get(&key).filter(|t| t.refresh_at > Timestamp::now()) {
            return Ok(token.text.clone());
        }
        match (token::request(context, pod, source).await, self.tokens.get(&key)) {
            (Ok(token), _) => {
                let text = token.text.clone();
                self.tokens.insert(key, token);
                Ok(text)
            }
            // A fifth of its life is left to try again in.
            (Err(error), Some(old)) => {
                tracing::warn!(pod = %pod.key, %error, "could not refresh a service account token");
                Ok(old.text.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    pub fn written(&mut self, volume: &str, path: PathBuf) {
        self.files.insert(volume.into(), path);
    }

    /// When the first token must be asked for again.
    pub fn refresh_at(&self) -> Option<Timestamp> {
        self.tokens.values().map(|t| t.refresh_at).min()
    }

    /// Resolves when an object behind a volume changed.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let held: Vec<Held> = self.held.values().cloned().collect();
        async move {
            let mut changes: FuturesUnordered<_> = held.into_iter().map(Held::changed).collect();
            if changes.next().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Writes the files of all volumes again, each only if its content differs.
    pub async fn refresh(&mut self, context: &Context, pod: &Pod, around: &Around) -> Result<(), SetUpError> {
        for volume in pod.spec.volumes.iter().flatten() {
            let Some(path) = self.files.get(&volume.name).cloned() else { continue };
            let failed = |source| SetUpError { volume: volume.name.clone(), source };
            let payload = payload(context, pod, around, volume, self).await.map_err(failed)?;
            atomic_writer::write(&path, &payload, ownership::fs_group(pod)).map_err(failed)?;
        }
        Ok(())
    }
}
