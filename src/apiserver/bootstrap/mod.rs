//! What a new cluster is born with, as far as it is about rights and priorities.
//!
//! Owns: the embedded manifests and bringing the store into line with them at every start.
//! Called by: the API server once, before it serves.
//! Never: takes away what an administrator added, or touches an object marked `autoupdate: "false"`.

mod policy;
mod reconcile;

pub use policy::{node_rules, priority_classes, rbac};

use http::Method;
use minik_api::{ObjectKey, ResourceId, Status, object, resources};
use serde_json::Value;

use self::reconcile::Step;
use crate::objects::{Loopback, Objects};

/// Creates and mends all default roles, bindings and priority classes.
pub async fn ensure(objects: &dyn Objects, loopback: &dyn Loopback) -> Result<(), Status> {
    // All at once: they wait for one commit together, and no object needs another.
    let roles = rbac().into_iter().map(|wanted| async move {
        let resource = rbac_resource(&wanted);
        let key = ObjectKey::of(&wanted);
        let existing = objects.get(resource, &key.namespace, &key.name);
        apply(loopback, resource, &key, reconcile::plan(existing.as_deref(), wanted)).await
    });
    let classes = priority_classes().into_iter().map(|wanted| async move {
        let key = ObjectKey::of(&wanted);
        let existing = objects.get(resources::PRIORITYCLASSES, "", &key.name);
        let step = if existing.is_some() { Step::Keep } else { Step::Create(wanted) };
        apply(loopback, resources::PRIORITYCLASSES, &key, step).await
    });
    futures::future::try_join(
        futures::future::try_join_all(roles),
        futures::future::try_join_all(classes),
    )
    .await?;
    Ok(())
}

fn rbac_resource(object: &Value) -> ResourceId {
    match object["kind"].as_str().unwrap_or("") {
        "Role" => resources::ROLES,
        "RoleBinding" => resources::ROLEBINDINGS,
        "ClusterRole" => resources::CLUSTERROLES,
        _ => resources::CLUSTERROLEBINDINGS,
    }
}

async fn apply(loopback: &dyn Loopback, resource: ResourceId, key: &ObjectKey, step: Step) -> Result<(), Status> {
    let namespace = if key.namespace.is_empty() { String::new() } else { format!("/namespaces/{}", key.namespace) };
    let root = if resource.group.is_empty() { "api".to_string() } else { format!("apis/{}", resource.group) };
    let all = format!("/{root}/{}{namespace}/{}", resource.version, resource.plural);
    let one = format!("{all}/{}", key.name);
    let create = async |wanted: &Value| match loopback.call(Method::POST, &all, Some(wanted)).await {
        // Another server of the same cluster was faster.
        Err(status) if status.is_already_exists() => Ok(()),
        other => other.map(|_| ()),
    };
    match step {
        Step::Keep => Ok(()),
        Step::Create(wanted) => create(&wanted).await,
        Step::Update(wanted) => {
            tracing::info!(kind = resource.plural, name = object::name(&wanted), "default policy mended");
            loopback.call(Method::PUT, &one, Some(&wanted)).await.map(|_| ())
        }
        Step::Recreate(wanted) => {
            loopback.call(Method::DELETE, &one, None).await?;
            create(&wanted).await
        }
    }
}
