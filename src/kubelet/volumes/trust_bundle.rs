//! clusterTrustBundle sources: the trust anchors of one bundle, or of all bundles of a signer that carry some labels.
//!
//! Owns: which bundles are meant, and putting their anchors together, each once.
//! Called by: projected volumes, at set-up and whenever a bundle changed.
//! Never: asks the API server itself.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;
use minik_api::resources::CLUSTERTRUSTBUNDLES;
use minik_api::selector::LabelSelector;
use serde_json::Value;

use super::{Context, Keeper, VolumeError, pem};

pub async fn text(
    context: &Context,
    source: &ClusterTrustBundleProjection,
    keeper: &mut Keeper,
) -> Result<String, VolumeError> {
    let optional = source.optional.unwrap_or(false);
    if let Some(name) = &source.name {
        return match keeper.object(context, CLUSTERTRUSTBUNDLES, "", name).await? {
            Some(bundle) => Ok(anchors([&*bundle])),
            None if optional => Ok(String::new()),
            None => Err(VolumeError::TrustBundle(format!(
                "while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io {name:?} not found"
            ))),
        };
    }
    let signer = source.signer_name.as_deref().unwrap_or_default();
    let selector = selector(source)?;
    let bundles = keeper.selected(context, CLUSTERTRUSTBUNDLES, &format!("spec.signerName={signer}")).await?;
    let meant: Vec<_> = bundles.values().filter(|b| selector.matches(&b["metadata"]["labels"])).collect();
    if meant.is_empty() && !optional {
        let why = "combination of signerName and labelSelector matched zero ClusterTrustBundles";
        return Err(VolumeError::TrustBundle(why.into()));
    }
    Ok(anchors(meant.into_iter().map(|b| &**b)))
}

/// None selects nothing; an empty one selects everything.
fn selector(source: &ClusterTrustBundleProjection) -> Result<LabelSelector, VolumeError> {
    let Some(selector) = &source.label_selector else { return Ok(LabelSelector::nothing()) };
    let tree = serde_json::to_value(selector).unwrap_or_default();
    LabelSelector::from_object(&tree)
        .map_err(|why| VolumeError::TrustBundle(format!("while parsing label selector: {why}")))
}

/// Sorted, so that the same anchors are the same file whatever bundles they came in.
fn anchors<'a>(bundles: impl IntoIterator<Item = &'a Value>) -> String {
    let texts = bundles.into_iter().map(|b| b["spec"]["trustBundle"].as_str().unwrap_or_default());
    let anchors: BTreeSet<Vec<u8>> = texts.flat_map(pem::certificates).collect();
    anchors.iter().map(|der| pem::encode("CERTIFICATE", der)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_anchor_in_several_bundles_is_written_once_and_without_comments() {
        let (a, b) = (pem::encode("CERTIFICATE", b"a"), pem::encode("CERTIFICATE", b"b"));
        let bundle = |text: &str| json!({"spec": {"trustBundle": text}});
        let (one, two) = (bundle(&format!("# mine\n{b}{a}")), bundle(&format!("{a}\n\n{b}")));
        assert_eq!(anchors([&one, &two]), format!("{a}{b}"));
        assert_eq!(anchors([&two, &one]), format!("{a}{b}"));
    }

    #[test]
    fn no_selector_selects_nothing_and_an_empty_one_everything() {
        let source = |selector| ClusterTrustBundleProjection { label_selector: selector, ..Default::default() };
        let labels = json!({"live": "yes"});
        assert!(!selector(&source(None)).expect("parsed").matches(&labels));
        assert!(selector(&source(Some(Default::default()))).expect("parsed").matches(&labels));
    }
}
