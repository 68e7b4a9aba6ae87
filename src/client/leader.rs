//! Leader election: of several copies of a component, one works.
//!
//! Owns: the Lease, its renewal, and ending the work when it is lost.
//! Called by: scheduler and controllers when they are asked to elect.
//! Never: lets two work at once, as far as clocks advance alike.

use std::future::Future;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use minik_api::{ResourceId, object};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::error::Error;
use crate::verbs::Client;

const LEASES: ResourceId = ResourceId::new("coordination.k8s.io", "v1", "leases");

#[derive(Clone, Debug)]
pub struct LeaderConfig {
    pub namespace: String,
    pub name: String,
    /// Unique to this process.
    pub identity: String,
    /// How long others wait for a silent leader.
    pub lease: Duration,
    /// A leader that could not renew for so long stops; shorter than `lease`.
    pub renew_deadline: Duration,
    pub retry: Duration,
}

impl LeaderConfig {
    /// Upstream's times: 15 s, 10 s, 2 s.
    pub fn new(namespace: &str, name: &str, identity: &str) -> LeaderConfig {
        LeaderConfig {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// When this process last saw the Lease change: others' clocks are not compared with ours.
#[derive(Default)]
struct Observed {
    version: String,
    at: Option<Instant>,
}

/// Waits to become leader, runs `work` with a token that ends when leadership is lost, and returns.
pub async fn lead<F, W>(client: Client, config: LeaderConfig, cancel: CancellationToken, work: W)
where
    W: FnOnce(CancellationToken) -> F,
    F: Future<Output = ()>,
{
    let mut observed = Observed::default();
    while !try_once(&client, &config, &mut observed).await.unwrap_or(false) {
        if cancel.run_until_cancelled(tokio::time::sleep(config.retry)).await.is_none() {
            return;
        }
    }
    info!(lease = config.name, identity = config.identity, "became leader");
    let working = cancel.child_token();
    let renewing = async {
        let mut renewed = Instant::now();
        while renewed.elapsed() < config.renew_deadline {
            if cancel.run_until_cancelled(tokio::time::sleep(config.retry)).await.is_none() {
                break;
            }
            match try_once(&client, &config, &mut observed).await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => break,
                Err(e) => warn!(error = %e.chain(), "the leader lease could not be renewed"),
            }
        }
        working.cancel();
    };
    tokio::join!(renewing, work(working.clone()));
    if cancel.is_cancelled() {
        release(&client, &config).await;
    } else {
        warn!(lease = config.name, "lost the leader lease");
    }
}

/// True if the Lease is ours now.
async fn try_once(client: &Client, config: &LeaderConfig, observed: &mut Observed) -> Result<bool, Error> {
    let now = Timestamp::now();
    let lease = match client.get(LEASES, &config.namespace, &config.name).await {
        Ok(lease) => lease,
        Err(e) if e.is_not_found() => {
            let body = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"namespace": config.namespace, "name": config.name},
                "spec": claim(config, &Value::Null, now),
            });
            return settled(client.create(LEASES, &config.namespace, &body).await);
        }
        Err(e) => return Err(e),
    };
    if observed.version != object::resource_version(&lease) {
        *observed = Observed { version: object::resource_version(&lease).into(), at: Some(Instant::now()) };
    }
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or("");
    let expired = observed.at.is_some_and(|at| at.elapsed() > config.lease);
    if !holder.is_empty() && holder != config.identity && !expired {
        return Ok(false);
    }
    let mut body = lease.clone();
    body["spec"] = claim(config, &lease["spec"], now);
    settled(client.update(LEASES, &config.namespace, &config.name, &body).await)
}

/// Losing a race is an answer, not an error.
fn settled(result: Result<Value, Error>) -> Result<bool, Error> {
    match result {
        Ok(_) => Ok(true),
        Err(e) if e.is_conflict() || e.is_already_exists() => Ok(false),
        Err(e) => Err(e),
    }
}

fn claim(config: &LeaderConfig, old: &Value, now: Timestamp) -> Value {
    let mine = old["holderIdentity"].as_str() == Some(config.identity.as_str());
    let now = Value::from(now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string());
    let transitions = old["leaseTransitions"].as_i64().unwrap_or(0);
    json!({
        "holderIdentity": config.identity,
        "leaseDurationSeconds": config.lease.as_secs(),
        "acquireTime": if mine { old["acquireTime"].clone() } else { now.clone() },
        "renewTime": now,
        "leaseTransitions": if mine || old.is_null() { transitions } else { transitions + 1 },
    })
}

/// Lets the next one begin at once.
async fn release(client: &Client, config: &LeaderConfig) {
    let Ok(mut lease) = client.get(LEASES, &config.namespace, &config.name).await else {
        return;
    };
    if lease["spec"]["holderIdentity"].as_str() == Some(config.identity.as_str()) {
        lease["spec"]["holderIdentity"] = "".into();
        lease["spec"]["leaseDurationSeconds"] = 1.into();
        if let Err(e) = client.update(LEASES, &config.namespace, &config.name, &lease).await {
            warn!(error = %e.chain(), "the leader lease could not be released");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_keeps_the_time_of_acquisition_and_a_takeover_counts_a_transition() {
        let config = LeaderConfig::new("kube-system", "x", "me");
        let now = Timestamp::from_second(100).unwrap();
        let mine = json!({"holderIdentity": "me", "acquireTime": "then", "leaseTransitions": 2});
        assert_eq!(claim(&config, &mine, now)["acquireTime"], "then");
        assert_eq!(claim(&config, &mine, now)["leaseTransitions"], 2);
        let theirs = json!({"holderIdentity": "them", "acquireTime": "then", "leaseTransitions": 2});
        assert_eq!(claim(&config, &theirs, now)["acquireTime"], "1970-01-01T00:01:40.000000Z");
        assert_eq!(claim(&config, &theirs, now)["leaseTransitions"], 3);
    }
}
