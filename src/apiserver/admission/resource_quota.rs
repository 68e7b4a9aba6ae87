//! ResourceQuota: what a namespace may use in all.
//!
//! Owns: checking a write against the quotas of its namespace and charging them before the write happens.
//! Called by: the admission chain, last, because what is charged should not be refused by others afterwards.
//! Never: gives back; the quota controller counts anew when objects go or change.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use http::Method;
use jiff::Timestamp;
use minik_api::pod_resources::{self, Amounts};
use minik_api::quantity::Quantity;
use minik_api::{Status, object, quota, resources};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::plugin::World;
use super::{Operation, Review};
use crate::objects::Loopback;

/// How often a charge is tried when the controller writes the same quota at the same time.
const ATTEMPTS_MAX: usize = 10;

#[derive(Default)]
pub struct ResourceQuota {
    /// Charges of one namespace go one after the other; otherwise they would only meet in conflicts.
    turns: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl ResourceQuota {
    pub async fn validate(
        &self,
        review: &Review,
        world: &World,
        loopback: Option<&Arc<dyn Loopback>>,
    ) -> Result<(), Status> {
        if review.namespace.is_empty() || !applies(review) {
            return Ok(());
        }
        // Most namespaces have none.
        if world.objects.list(resources::RESOURCEQUOTAS, &review.namespace).is_empty() {
            return Ok(());
        }
        let turn = self.turn(&review.namespace);
        let _mine = turn.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            let quotas = world.objects.list(resources::RESOURCEQUOTAS, &review.namespace);
            let charged = charge(review, &quotas, Timestamp::now())?;
            let Some(loopback) = loopback.filter(|_| !review.dry_run) else { return Ok(()) };
            match write(loopback.as_ref(), &review.namespace, &charged).await {
                Err(status) if status.is_conflict() => {}
                outcome => return outcome,
            }
        }
        Err(Status::internal("resource quota evaluation timed out"))
    }

    fn turn(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        if let Some(turn) = turns.get(namespace).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(tokio::sync::Mutex::default());
        turns.insert(namespace.into(), Arc::downgrade(&turn));
        turn
    }
}

fn applies(review: &Review) -> bool {
    let core = review.group.is_empty();
    match (review.operation, review.resource.as_str(), review.subresource.as_str()) {
        (Operation::Create, _, "") => true,
        (Operation::Update, "pods", "") if core => {
            quota::is_terminating(&review.object) != quota::is_terminating(&review.old)
        }
        (Operation::Update, "pods", "resize") => core,
        (Operation::Update, "services" | "persistentvolumeclaims", "") => core,
        _ => false,
    }
}

/// The quotas with the write charged, those alone that changed.
fn charge(review: &Review, quotas: &[Arc<Value>], now: Timestamp) -> Result<Vec<Value>, Status> {
    let (group, resource) = (review.group.as_str(), review.resource.as_str());
    let used = quota::usage(group, resource, &review.object, now);
    if let Some(names) = negative(&used) {
        return Err(review.forbid(&format!("quota usage is negative for resource(s): {names}")));
    }
    let mut charged = Vec::new();
    for quota in quotas {
        let hard = pod_resources::amounts(&quota["status"]["hard"]);
        let names = quota::names_of(group, resource, hard.keys().map(String::as_str));
        if names.is_empty() || !quota::in_scope(group, resource, quota, &review.object) {
            continue;
        }
        let quota_name = object::name(quota);
        if resource == "pods"
            && group.is_empty()
            && let Some(why) = quota::missing_requests(&names, &review.object)
        {
            return Err(review.forbid(&format!("failed quota: {quota_name}: {why}")));
        }
        let held = pod_resources::amounts(&quota["status"]["used"]);
        if names.iter().any(|name| !held.contains_key(*name)) {
            let names = names.join(",");
            return Err(review.forbid(&format!("status unknown for quota: {quota_name}, resources: {names}")));
        }
        let delta = delta(review, quota, &used, &names, now);
        if delta.is_empty() {
            continue;
        }
        let mut total = held.clone();
        pod_resources::add(&mut total, &delta);
        check(review, quota_name, &delta, &held, &total, &hard)?;
        let mut changed = quota.as_ref().clone();
        for (name, amount) in total.iter().filter(|(name, _)| delta.contains_key(*name)) {
            changed["status"]["used"][name.as_str()] = json!(amount.to_string());
        }
        charged.push(changed);
    }
    Ok(charged)
}

/// What the write adds; an update adds the difference only, when the quota was about the old object as well.
fn delta(review: &Review, quota: &Value, used: &Amounts, names: &[&str], now: Timestamp) -> Amounts {
    let (group, resource) = (review.group.as_str(), review.resource.as_str());
    let counted = review.operation == Operation::Update
        && !object::resource_version(&review.old).is_empty()
        && quota::in_scope(group, resource, quota, &review.old);
    let before = if counted { quota::usage(group, resource, &review.old, now) } else { Amounts::new() };
    let mut delta = Amounts::new();
    for (name, amount) in used.iter().filter(|(name, _)| names.contains(&name.as_str())) {
        let more = amount.sub(before.get(name).copied().unwrap_or(Quantity::ZERO));
        if more.signum() > 0 {
            delta.insert(name.clone(), more);
        }
    }
    delta
}

fn check(
    review: &Review,
    quota: &str,
    delta: &Amounts,
    held: &Amounts,
    total: &Amounts,
    hard: &Amounts,
) -> Result<(), Status> {
    let exceeded: Vec<&String> =
        delta.keys().filter(|name| total.get(*name) > hard.get(*name) && hard.contains_key(*name)).collect();
    if exceeded.is_empty() {
        return Ok(());
    }
    let show = |amounts: &Amounts| {
        let texts: Vec<String> = exceeded.iter().filter_map(|n| Some(format!("{n}={}", amounts.get(*n)?))).collect();
        texts.join(",")
    };
    let (requested, used, limited) = (show(delta), show(held), show(hard));
    Err(review.forbid(&format!("exceeded quota: {quota}, requested: {requested}, used: {used}, limited: {limited}")))
}

fn negative(used: &Amounts) -> Option<String> {
    let names: Vec<&str> = used.iter().filter(|(_, a)| a.signum() < 0).map(|(n, _)| n.as_str()).collect();
    (!names.is_empty()).then(|| names.join(","))
}

async fn write(loopback: &dyn Loopback, namespace: &str, quotas: &[Value]) -> Result<(), Status> {
    for quota in quotas {
        let path = format!("/api/v1/namespaces/{namespace}/resourcequotas/{}/status", object::name(quota));
        loopback.call(Method::PUT, &path, Some(quota)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::review;
    use super::*;

    fn quota(hard: Value, used: Value) -> Arc<Value> {
        Arc::new(json!({"kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "a"}, "spec": {"hard": hard},
            "status": {"hard": hard, "used": used}}))
    }

    fn pod(cpu: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
    }

    fn check(quota: Arc<Value>, object: Value) -> Result<Value, String> {
        let review = review(Operation::Create, object);
        let now = "2026-01-01T00:00:00Z".parse().expect("test");
        let charged = charge(&review, &[quota], now).map_err(|s| s.message)?;
        Ok(charged.first().map_or(Value::Null, |q| q["status"]["used"].clone()))
    }

    #[test]
    fn a_pod_is_charged_and_one_too_many_is_refused() {
        let hard = json!({"pods": "2", "requests.cpu": "1"});
        assert_eq!(
            check(quota(hard.clone(), json!({"pods": "1", "requests.cpu": "500m"})), pod("250m")),
            Ok(json!({"pods": "2", "requests.cpu": "750m"}))
        );
        assert_eq!(
            check(quota(hard, json!({"pods": "2", "requests.cpu": "500m"})), pod("600m")),
            Err(r#"pods "p" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=600m, used: pods=2,requests.cpu=500m, limited: pods=2,requests.cpu=1"#.into())
        );
    }

    #[test]
    fn a_quota_on_memory_makes_pods_name_theirs() {
        assert_eq!(
            check(quota(json!({"limits.memory": "1Gi"}), json!({"limits.memory": "0"})), pod("1")),
            Err(r#"pods "p" is forbidden: failed quota: q: must specify limits.memory for: c"#.into())
        );
    }

    #[test]
    fn a_quota_that_nobody_has_counted_yet_refuses() {
        assert_eq!(
            check(quota(json!({"pods": "1"}), json!({})), pod("1")),
            Err(r#"pods "p" is forbidden: status unknown for quota: q, resources: pods"#.into())
        );
    }

    #[test]
    fn objects_are_counted_by_name_and_an_update_pays_the_difference() {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "a"}});
        assert_eq!(
            check(quota(json!({"count/configmaps": "3"}), json!({"count/configmaps": "1"})), map),
            Ok(json!({"count/configmaps": "2"}))
        );
        let claim = |size: &str| {
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "a", "resourceVersion": "1"},
                "spec": {"resources": {"requests": {"storage": size}}}})
        };
        let mut grown = review(Operation::Update, claim("3Gi"));
        grown.old = Arc::new(claim("1Gi"));
        let now = "2026-01-01T00:00:00Z".parse().expect("test");
        let quotas = [quota(json!({"requests.storage": "5Gi"}), json!({"requests.storage": "1Gi"}))];
        let charged = charge(&grown, &quotas, now).expect("fits");
        assert_eq!(charged[0]["status"]["used"], json!({"requests.storage": "3Gi"}));
    }
}
