//! Projected volumes: several sources in one directory.
//!
//! Owns: putting their files together; a later source wins over an earlier one at the same path.
//! Called by: volume set-up and refresh.
//! Never: writes the files itself.

use k8s_openapi::api::core::v1 as core;

use super::atomic_writer::{File, Payload};
use super::{
    Context, Keeper, VolumeError, config_map, credential, downward_api, mode, ownership, secret, trust_bundle,
};
use crate::downward::Around;
use crate::pod::Pod;

pub async fn payload(
    context: &Context,
    pod: &Pod,
    around: &Around,
    volume: &str,
    source: &core::ProjectedVolumeSource,
    keeper: &mut Keeper,
) -> Result<Payload, VolumeError> {
    let mut all = Payload::new();
    let default_mode = mode(source.default_mode);
    for (index, part) in source.sources.iter().flatten().enumerate() {
        if let Some(map) = &part.config_map {
            let object = keeper.config_map(context, pod.namespace(), &map.name).await?;
            all.extend(config_map::payload(
                object.as_deref(),
                &options(&map.name, &map.items, default_mode, map.optional),
            )?);
        }
        if let Some(part) = &part.secret {
            let object = keeper.secret(context, pod.namespace(), &part.name).await?;
            all.extend(secret::payload(
                object.as_deref(),
                &options(&part.name, &part.items, default_mode, part.optional),
            )?);
        }
        if let Some(downward) = &part.downward_api {
            let items = downward.items.as_deref().unwrap_or_default();
            all.extend(downward_api::payload(pod, around, items, default_mode)?);
        }
        if let Some(token) = &part.service_account_token {
            let text = keeper.token(context, pod, volume, index, token).await?;
            all.insert(token.path.clone(), owned_file(pod, text, default_mode));
        }
        if let Some(bundle) = &part.cluster_trust_bundle {
            let text = trust_bundle::text(context, bundle, keeper).await?;
            all.insert(bundle.path.clone(), owned_file(pod, text, default_mode));
        }
        if let Some(source) = &part.pod_certificate {
            let owner = credential::Owner { context, pod, source };
            let issued = keeper.credential(&owner, volume, index).await?;
            all.extend(
                credential_files(source, issued).map(|(path, text)| (path, owned_file(pod, text, default_mode))),
            );
        }
    }
    Ok(all)
}

fn options<'a>(
    name: &'a str,
    items: &'a Option<Vec<core::KeyToPath>>,
    mode: u32,
    optional: Option<bool>,
) -> config_map::Options<'a> {
    config_map::Options { name, items: items.as_deref(), mode, optional: optional.unwrap_or(false) }
}

/// Readable by its one user, or by the pod's group, and only otherwise by all.
fn owned_file(pod: &Pod, text: String, default_mode: u32) -> File {
    let uid = ownership::only_user(pod);
    let mode = if uid.is_some() || ownership::fs_group(pod).is_some() { 0o600 } else { default_mode };
    File { data: text.into_bytes(), mode, uid }
}

/// One file with everything, or the key and the chain apart, or all three.
fn credential_files(
    source: &core::PodCertificateProjection,
    issued: &credential::Issued,
) -> impl Iterator<Item = (String, String)> {
    let (key, chain) = (issued.key.clone(), issued.chain.clone());
    let files = [
        (&source.credential_bundle_path, format!("{key}{chain}")),
        (&source.key_path, key),
        (&source.certificate_chain_path, chain),
    ];
    files.into_iter().filter_map(|(path, text)| Some((path.clone().filter(|p| !p.is_empty())?, text)))
}
