//! ServiceAccount: every pod has one, and its token where programs look for it.
//!
//! Owns: the default service account, the projected token volume, pull secrets, and what a mirror pod may not have.
//! Called by: the admission chain for pods.
//! Never: makes a token; the kubelet asks for it when it mounts the volume.

use std::time::Duration;

use futures::StreamExt;
use minik_api::{Status, object, resources};
use rand::Rng;
use serde_json::{Value, json};

use super::plugin::{Plugin, World};
use super::{Operation, Review};
use crate::authz::node_graph::{self, Kind};
use crate::objects::Change;

const DEFAULT: &str = "default";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// A little more than an hour marks the token as one that programs of old do not renew (see TokenRequest).
const TOKEN_SECONDS: i64 = 3607;
/// The controller that makes the default service account needs a moment after its namespace was made.
const DEFAULT_WAIT: Duration = Duration::from_secs(2);

pub struct ServiceAccount;

/// The first pod of a new namespace waits for the namespace's default service account.
pub async fn wait_for_default(review: &Review, world: &World) {
    if review.operation != Operation::Create || !review.is("", "pods", "") || is_mirror(&review.object) {
        return;
    }
    let name = review.object["spec"]["serviceAccountName"].as_str().filter(|n| !n.is_empty()).unwrap_or(DEFAULT);
    let there = || world.objects.get(resources::SERVICEACCOUNTS, &review.namespace, DEFAULT).is_some();
    if name != DEFAULT || there() {
        return;
    }
    let mut follow = world.objects.follow(resources::SERVICEACCOUNTS);
    if there() {
        return;
    }
    let appears = async {
        while let Some(change) = follow.changes.next().await {
            if let Change::Put(account) = change
                && object::name(&account) == DEFAULT
                && object::namespace(&account) == review.namespace
            {
                return;
            }
        }
    };
    // When it does not come, the plugin says so.
    let _ = tokio::time::timeout(DEFAULT_WAIT, appears).await;
}

impl Plugin for ServiceAccount {
    fn mutate(&self, review: &mut Review, world: &World) -> Result<(), Status> {
        if review.operation != Operation::Create || !review.is("", "pods", "") {
            return Ok(());
        }
        if is_mirror(&review.object) {
            return check_mirror(review);
        }
        if review.object["spec"]["serviceAccountName"].as_str().unwrap_or("").is_empty() {
            review.object["spec"]["serviceAccountName"] = DEFAULT.into();
            review.object["spec"]["serviceAccount"] = DEFAULT.into();
        }
        let account = account_of(review, world)?;
        let spec = &review.object["spec"];
        let mounts = spec["automountServiceAccountToken"].as_bool();
        if mounts.or(account["automountServiceAccountToken"].as_bool()).unwrap_or(true) {
            mount_token(&mut review.object["spec"]);
        }
        let pull = &account["imagePullSecrets"];
        let own = review.object["spec"]["imagePullSecrets"].as_array().is_some_and(|s| !s.is_empty());
        if !own && pull.as_array().is_some_and(|s| !s.is_empty()) {
            review.object["spec"]["imagePullSecrets"] = pull.clone();
        }
        Ok(())
    }

    fn validate(&self, review: &Review, world: &World) -> Result<(), Status> {
        let created = review.operation == Operation::Create && review.is("", "pods", "");
        let debugged = review.operation == Operation::Update && review.is("", "pods", "ephemeralcontainers");
        if !created && !debugged {
            return Ok(());
        }
        if created && is_mirror(&review.object) {
            return check_mirror(review);
        }
        if review.object["spec"]["serviceAccountName"].as_str().unwrap_or("").is_empty() {
            let (namespace, name) = (&review.namespace, object::name(&review.object));
            return Err(review.forbid(&format!("no service account specified for pod {namespace}/{name}")));
        }
        let account = account_of(review, world)?;
        const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
        if object::annotation(&account, ENFORCE)
            .is_some_and(|v| matches!(v, "1" | "t" | "T" | "true" | "TRUE" | "True"))
        {
            check_secrets(review, &account, debugged)?;
        }
        Ok(())
    }
}

fn is_mirror(pod: &Value) -> bool {
    object::annotation(pod, minik_api::pod_annotations::MIRROR).is_some()
}

fn account_of(review: &Review, world: &World) -> Result<std::sync::Arc<Value>, Status> {
    let name = review.object["spec"]["serviceAccountName"].as_str().unwrap_or("");
    world.objects.get(resources::SERVICEACCOUNTS, &review.namespace, name).ok_or_else(|| {
        let why = format!("serviceaccount {name:?} not found");
        review.forbid(&format!("error looking up service account {}/{name}: {why}", review.namespace))
    })
}

fn check_mirror(review: &Review) -> Result<(), Status> {
    let spec = &review.object["spec"];
    if !spec["serviceAccountName"].as_str().unwrap_or("").is_empty() {
        return Err(review.forbid("a mirror pod may not reference service accounts"));
    }
    // What a pod needs is empty for a mirror pod, so the annotation is looked past.
    let mut plain = review.object.clone();
    plain["metadata"]["annotations"] = Value::Null;
    if node_graph::needs(&plain).iter().any(|(kind, _)| *kind == Kind::Secret) {
        return Err(review.forbid("a mirror pod may not reference secrets"));
    }
    let projected = items(&spec["volumes"]).flat_map(|v| items(&v["projected"]["sources"]));
    if projected.into_iter().any(|source| source["serviceAccountToken"].is_object()) {
        return Err(review.forbid("a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn mount_token(spec: &mut Value) {
    let existing = items(&spec["volumes"]).filter_map(|v| v["name"].as_str()).find(|n| n.starts_with(VOLUME_PREFIX));
    let existing = existing.map(str::to_string);
    let name = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", random_suffix()));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if items(&container["volumeMounts"]).any(|m| m["mountPath"] == MOUNT_PATH) {
                continue;
            }
            needed = true;
            push(container, "volumeMounts", json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
        }
    }
    if needed && existing.is_none() {
        push(spec, "volumes", json!({"name": name, "projected": token_projection()}));
    }
}

fn token_projection() -> Value {
    let namespace = json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    json!({"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]})
}

fn push(owner: &mut Value, list: &str, item: Value) {
    if let Some(items) = owner[list].as_array_mut() {
        items.push(item);
    } else {
        owner[list] = json!([item]);
    }
}

/// Letters and digits without vowels and without those that look like others, as Kubernetes' generated names have.
fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    (0..5).map(|_| ALPHABET[random.random_range(0..ALPHABET.len())] as char).collect()
}

fn check_secrets(review: &Review, account: &Value, ephemeral_only: bool) -> Result<(), Status> {
    let allowed: Vec<&str> = items(&account["secrets"]).filter_map(|s| s["name"].as_str()).collect();
    let owner = object::name(account);
    let tail = format!("is not allowed because service account {owner} does not reference that secret");
    let spec = &review.object["spec"];
    let lists: &[(&str, &str)] = if ephemeral_only {
        &[("ephemeralContainers", "ephemeral container")]
    } else {
        &[("initContainers", "init container"), ("containers", "container")]
    };
    if !ephemeral_only {
        for volume in items(&spec["volumes"]) {
            if let Some(name) = volume["secret"]["secretName"].as_str().filter(|n| !allowed.contains(n)) {
                return Err(review.forbid(&format!("volume with secret.secretName=\"{name}\" {tail}")));
            }
        }
    }
    for (list, word) in lists {
        for container in items(&spec[*list]) {
            let of = container["name"].as_str().unwrap_or("");
            for variable in items(&container["env"]) {
                let name = variable["valueFrom"]["secretKeyRef"]["name"].as_str();
                if let Some(name) = name.filter(|n| !allowed.contains(n)) {
                    let key = variable["name"].as_str().unwrap_or("");
                    let what = format!("{word} {of} with envVar {key} referencing secret.secretName=\"{name}\"");
                    return Err(review.forbid(&format!("{what} {tail}")));
                }
            }
            for source in items(&container["envFrom"]) {
                if let Some(name) = source["secretRef"]["name"].as_str().filter(|n| !allowed.contains(n)) {
                    let what = format!("{word} {of} with envFrom referencing secret.secretName=\"{name}\"");
                    return Err(review.forbid(&format!("{what} {tail}")));
                }
            }
        }
    }
    if ephemeral_only {
        return Ok(());
    }
    let pull: Vec<&str> = items(&account["imagePullSecrets"]).filter_map(|s| s["name"].as_str()).collect();
    for (at, reference) in items(&spec["imagePullSecrets"]).enumerate() {
        let name = reference["name"].as_str().unwrap_or("");
        if !pull.contains(&name) {
            return Err(review.forbid(&format!(
                "imagePullSecrets[{at}].name=\"{name}\" is not allowed because service account {owner} does not reference that imagePullSecret"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{review, world};
    use super::*;

    fn check(account: Value, spec: Value) -> Result<Value, String> {
        let mut account = account;
        account["kind"] = "ServiceAccount".into();
        account["metadata"]["namespace"] = "a".into();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}, "spec": spec});
        let mut review = review(Operation::Create, pod);
        let world = world(vec![account]);
        ServiceAccount.mutate(&mut review, &world).map_err(|s| s.message)?;
        ServiceAccount.validate(&review, &world).map_err(|s| s.message)?;
        Ok(review.object["spec"].take())
    }

    #[test]
    fn a_pod_gets_the_default_account_its_token_and_its_pull_secrets() {
        let account = json!({"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "registry"}]});
        let spec = check(account, json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}))
            .expect("admitted");
        assert_eq!(spec["serviceAccountName"], "default");
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "registry"}]));
        let volume = spec["volumes"][0]["name"].as_str().expect("a volume");
        assert!(volume.starts_with("kube-api-access-") && volume.len() == "kube-api-access-".len() + 5);
        for list in ["containers", "initContainers"] {
            let mount = json!([{"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}]);
            assert_eq!(spec[list][0]["volumeMounts"], mount);
        }
        assert_eq!(spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
    }

    #[test]
    fn no_token_where_pod_or_account_says_so_or_something_is_mounted_there_already() {
        let account = |mount: Value| json!({"metadata": {"name": "default"}, "automountServiceAccountToken": mount});
        let plain = json!({"containers": [{"name": "c"}]});
        assert!(check(account(json!(false)), plain.clone()).expect("admitted")["volumes"].is_null());
        let asks = json!({"automountServiceAccountToken": true, "containers": [{"name": "c"}]});
        assert!(check(account(json!(false)), asks).expect("admitted")["volumes"].is_array());
        let own = json!({"containers": [{"name": "c", "volumeMounts": [{"name": "x", "mountPath": MOUNT_PATH}]}]});
        assert!(check(account(json!(true)), own).expect("admitted")["volumes"].is_null());
    }

    #[test]
    fn a_missing_account_is_named() {
        let account = json!({"metadata": {"name": "default"}});
        assert_eq!(
            check(account, json!({"serviceAccountName": "x", "containers": []})),
            Err(r#"pods "p" is forbidden: error looking up service account a/x: serviceaccount "x" not found"#.into())
        );
    }

    #[test]
    fn an_account_may_limit_its_pods_to_its_own_secrets() {
        let account = json!({"metadata": {"name": "default", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}});
        let spec = json!({"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}]});
        assert_eq!(
            check(account, spec),
            Err(r#"pods "p" is forbidden: container c with envFrom referencing secret.secretName="s" is not allowed because service account default does not reference that secret"#.into())
        );
    }
}
