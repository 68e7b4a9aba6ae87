//! PersistentVolumeClaimResize: a claim may grow where its class allows it.
//!
//! Owns: that rule.
//! Called by: the admission chain for changed claims.
//! Never: grows a volume.

use minik_api::quantity::Quantity;
use minik_api::{Status, object, resources};
use serde_json::Value;

use super::plugin::{Plugin, World};
use super::{Operation, Review};

pub struct PersistentVolumeClaimResize;

impl Plugin for PersistentVolumeClaimResize {
    fn validate(&self, review: &Review, world: &World) -> Result<(), Status> {
        if review.operation != Operation::Update || !review.is("", "persistentvolumeclaims", "") {
            return Ok(());
        }
        let size = |claim: &Value| {
            Quantity::from_json(&claim["spec"]["resources"]["requests"]["storage"]).unwrap_or(Quantity::ZERO)
        };
        if size(&review.object) <= size(&review.old) {
            return Ok(());
        }
        if review.old["status"]["phase"] != "Bound" {
            return Err(review.forbid("Only bound persistent volume claims can be expanded"));
        }
        let (new, old) = (class(&review.object), class(&review.old));
        let found =
            (!new.is_empty() && new == old).then(|| world.objects.get(resources::STORAGECLASSES, "", new)).flatten();
        if found.is_some_and(|class| class["allowVolumeExpansion"] == true) {
            return Ok(());
        }
        Err(review.forbid(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ))
    }
}

fn class(claim: &Value) -> &str {
    object::annotation(claim, "volume.beta.kubernetes.io/storage-class")
        .or(claim["spec"]["storageClassName"].as_str())
        .unwrap_or("")
}
