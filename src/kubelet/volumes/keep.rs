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
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ServiceAccountTokenProjection;
use minik_api::ResourceId;
use minik_api::resources::{CONFIGMAPS, SECRETS};
use serde_json::Value;

use super::atomic_writer;
use super::credential::{Credential, Issued, Owner};
use super::token::{self, Token};
use super::{Context, SetUpError, VolumeError, ownership, payload};
use crate::downward::Around;
use crate::pod::Pod;
use crate::sources::{Found, Held};

/// A token that could not be had; what is left of the old one's life has room for many tries.
const TOKEN_RETRY: SignedDuration = SignedDuration::from_secs(10);

/// A pod's hold on everything its volumes are made from.
#[derive(Default)]
pub struct Keeper {
    held: HashMap<(ResourceId, String), Held>,
    /// By volume and index of the source.
    tokens: BTreeMap<(String, usize), Token>,
    credentials: BTreeMap<(String, usize), Credential>,
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

    pub(super) async fn object(
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

    /// The objects of cluster scope that a field selector finds.
    pub(super) async fn selected(
        &mut self,
        context: &Context,
        resource: ResourceId,
        fields: &str,
    ) -> Result<Found, VolumeError> {
        let key = (resource, fields.to_string());
        let source = self.held.entry(key).or_insert_with(|| context.sources.hold_selected(resource, "", fields));
        Ok(source.all(fields).await?)
    }

    /// The credential of one source of one projected volume, renewed when its time has come.
    pub(super) async fn credential(
        &mut self,
        owner: &Owner<'_>,
        volume: &str,
        index: usize,
    ) -> Result<&Issued, VolumeError> {
        let credential = self.credentials.entry((volume.to_string(), index)).or_default();
        credential.advance(owner).await?;
        credential.current()
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
        match (token::request(context, pod, source).await, self.tokens.get_mut(&key)) {
            (Ok(token), _) => {
                let text = token.text.clone();
                self.tokens.insert(key, token);
                Ok(text)
            }
            // A fifth of its life is left to try again in.
            (Err(error), Some(old)) => {
                tracing::warn!(pod = %pod.key, %error, "could not refresh a service account token; will retry");
                old.refresh_at = Timestamp::now() + TOKEN_RETRY;
                Ok(old.text.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    pub fn written(&mut self, volume: &str, path: PathBuf) {
        self.files.insert(volume.into(), path);
    }

    /// When the first token or certificate must be asked for again.
    pub fn refresh_at(&self) -> Option<Timestamp> {
        let tokens = self.tokens.values().map(|t| t.refresh_at);
        tokens.chain(self.credentials.values().filter_map(Credential::wake_at)).min()
    }

    /// Resolves when an object behind a volume changed.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let requests = self.credentials.values().filter_map(Credential::request);
        let held: Vec<Held> = self.held.values().chain(requests).cloned().collect();
        async move {
            let mut changes: FuturesUnordered<_> = held.into_iter().map(Held::changed).collect();
            if changes.next().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Writes the files of all volumes again, each only if its content differs. One that fails holds back no other.
    pub async fn refresh(&mut self, context: &Context, pod: &Pod, around: &Around) -> Result<(), SetUpError> {
        let mut result = Ok(());
        for volume in pod.spec.volumes.iter().flatten() {
            let Some(path) = self.files.get(&volume.name).cloned() else { continue };
            let written = match payload(context, pod, around, volume, self).await {
                Ok(payload) => atomic_writer::write(&path, &payload, ownership::fs_group(pod)).map(|_| ()),
                Err(error) => Err(error),
            };
            result = result.and(written.map_err(|source| SetUpError { volume: volume.name.clone(), source }));
        }
        result
    }
}
