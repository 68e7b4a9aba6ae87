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
use serde_json::{Map, Value, json};

use self::reconcile::Step;
use crate::objects::{Loopback, Objects};

/// `extension-apiserver-authentication` in kube-system: by it extension servers know whom to believe.
pub fn authentication_settings(client_ca: Option<&str>, front_proxy_ca: Option<&str>) -> Value {
    let mut data = Map::new();
    if let Some(ca) = client_ca {
        data.insert("client-ca-file".into(), ca.into());
    }
    if let Some(ca) = front_proxy_ca {
        data.insert("requestheader-client-ca-file".into(), ca.into());
        for (key, list) in [
            ("allowed-names", r#"["front-proxy-client"]"#),
            ("extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
            ("group-headers", r#"["X-Remote-Group"]"#),
            ("uid-headers", r#"["X-Remote-Uid"]"#),
            ("username-headers", r#"["X-Remote-User"]"#),
        ] {
            data.insert(format!("requestheader-{key}"), list.into());
        }
    }
    let metadata = json!({"name": "extension-apiserver-authentication", "namespace": "kube-system"});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
}

/// Creates and mends all default roles, bindings and priority classes, and the settings of authentication.
pub async fn ensure(objects: &dyn Objects, loopback: &dyn Loopback, authentication: Value) -> Result<(), Status> {
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
    let settings = async {
        let key = ObjectKey::of(&authentication);
        let step = match objects.get(resources::CONFIGMAPS, &key.namespace, &key.name) {
            None => Step::Create(authentication),
            Some(existing) if existing["data"] == authentication["data"] => Step::Keep,
            Some(existing) => {
                let mut changed = existing.as_ref().clone();
                changed["data"] = authentication["data"].clone();
                Step::Update(changed)
            }
        };
        apply(loopback, resources::CONFIGMAPS, &key, step).await
    };
    let (roles, classes) = (futures::future::try_join_all(roles), futures::future::try_join_all(classes));
    futures::future::try_join3(roles, classes, settings).await.map(|_| ())
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
