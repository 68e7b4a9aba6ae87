//! Eviction: a deletion that asks PodDisruptionBudgets first.
//!
//! Owns: that question, and the budget that a permitted eviction uses up.
//! Called by: `rest`, for `pods/eviction`.
//! Never: computes a budget; the disruption controller does.

use std::sync::Arc;

use http::Response;
use minik_api::selector::LabelSelector;
use minik_api::status::{Cause, Details};
use minik_api::{Status, object};
use minik_store::{Entry, Error, Range};
use serde_json::Value;

use crate::admission::{Operation, Options};
use crate::body::Body;
use crate::call::{Call, now};
use crate::rest::admit::{self, Subject};
use crate::rest::create::store_failure;
use crate::rest::delete::{self, DeleteOptions};
use crate::server::Core;
use crate::{decode, reply, stored};

const ATTEMPTS_MAX: usize = 16;
const DISRUPTION: &str = "DisruptionTarget";
/// Upstream's limit on evictions that are under way for one budget.
const DISRUPTED_PODS_MAX: usize = 2000;

pub async fn create(core: &Arc<Core>, call: &Call) -> Result<Response<Body>, Status> {
    let options = crate::call::WriteOptions::of(call, "CreateOptions")?;
    let mut eviction = decode::body(call, &call.kind(), options.validation)?;
    decode::check_namespace(&mut eviction, &call.info.namespace)?;
    crate::rest::update::check_name(call, &mut eviction)?;
    let mut review = admit::review(
        call,
        Subject {
            operation: Operation::Create,
            kind: call.kind(),
            name: call.info.name.clone(),
            object: eviction,
            old: Arc::new(Value::Null),
            options: Options::Write(options.clone()),
            dry_run: options.dry_run,
        },
    );
    admit::mutate(core, call, &mut review).await?;
    admit::validate(core, call, &review).await?;
    let asked = review.object["deleteOptions"].take();
    let mut deletion = DeleteOptions::from_tree(if asked.is_object() { asked } else { serde_json::json!({}) })?;
    deletion.dry_run |= options.dry_run;
    let key = call.served.key(&call.info.namespace, &call.info.name);
    let pod = stored::decode(&core.store.get(&key).ok_or_else(|| call.not_found())?);
    if !ends_anyway(&pod) {
        spend(core, &pod, deletion.dry_run).await?;
    }
    if !deletion.dry_run {
        tell_why(core, &key, &mut deletion).await?;
    }
    delete::remove(core, call, &call.info.namespace, &call.info.name, &deletion).await?;
    Ok(reply::success(&call.accept, 201, None))
}

/// The condition that tells a disruption from a failure: a Job's failure policy may ask for it once the Pod has ended.
///
/// What the deletion demands of the Pod is kept: where it does not hold, the deletion itself says so.
async fn tell_why(core: &Core, key: &str, deletion: &mut DeleteOptions) -> Result<(), Status> {
    for _ in 0..ATTEMPTS_MAX {
        let Some(entry) = core.store.get(key) else { return Ok(()) };
        let mut pod = stored::decode(&entry);
        let is_over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let other = |demanded: &str, actual: &str| !demanded.is_empty() && demanded != actual;
        let version = object::resource_version(&pod);
        let unwanted = other(&deletion.uid, object::uid(&pod)) || other(&deletion.resource_version, version);
        if is_over || unwanted || object::is_deleting(&pod) {
            return Ok(());
        }
        let condition = serde_json::json!({
            "type": DISRUPTION, "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
            "lastProbeTime": null, "lastTransitionTime": now(),
        });
        let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|c| c["type"] != DISRUPTION);
        conditions.push(condition);
        pod["status"]["conditions"] = conditions.into();
        match core.store.update(&entry.key, entry.modified, stored::encode(&pod)).await {
            Ok(written) => {
                if !deletion.resource_version.is_empty() {
                    deletion.resource_version = object::resource_version(&stored::decode(&written)).into();
                }
                return Ok(());
            }
            Err(Error::NotFound { .. }) => return Ok(()),
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(store_failure(&error)),
        }
    }
    Err(Status::internal("the Pod changes too fast to be evicted"))
}

/// A Pod that is over, was never placed or is going already costs no budget.
fn ends_anyway(pod: &Value) -> bool {
    let phase = pod["status"]["phase"].as_str().unwrap_or("");
    matches!(phase, "Succeeded" | "Failed" | "Pending") || object::is_deleting(pod)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn budgets_of(core: &Core, pod: &Value) -> Vec<Entry> {
    let prefix = format!("poddisruptionbudgets.policy/{}/", object::namespace(pod));
    let page = core.store.range(&Range { prefix: &prefix, ..Range::default() });
    let labels = &pod["metadata"]["labels"];
    let means = |entry: &Entry| {
        let budget = stored::decode(entry);
        LabelSelector::from_object(&budget["spec"]["selector"]).is_ok_and(|s| s.matches(labels))
    };
    page.map_or_else(|_| Vec::new(), |p| p.entries).into_iter().filter(means).collect()
}

/// Takes one disruption from the Pod's budget, or refuses.
async fn spend(core: &Core, pod: &Value, dry_run: bool) -> Result<(), Status> {
    for _ in 0..ATTEMPTS_MAX {
        let budgets = budgets_of(core, pod);
        let entry = match budgets.as_slice() {
            [] => return Ok(()),
            [one] => one,
            _ => {
                let message =
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(Status::new(500, "", message));
            }
        };
        let mut budget = stored::decode(entry);
        if needs_no_permission(&budget, pod) {
            return Ok(());
        }
        permit(&budget)?;
        if dry_run {
            return Ok(());
        }
        let allowed = budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
        budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
        budget["status"]["disruptedPods"][object::name(pod)] = now().into();
        match core.store.update(&entry.key, entry.modified, stored::encode(&budget)).await {
            Ok(_) => return Ok(()),
            Err(Error::Conflict { .. } | Error::NotFound { .. }) => {}
            Err(error) => return Err(store_failure(&error)),
        }
    }
    Err(too_many("the budget changes too fast; try again", Vec::new()))
}

/// A Pod that is not ready disrupts nothing, when the budget says so or has enough others.
fn needs_no_permission(budget: &Value, pod: &Value) -> bool {
    if is_ready(pod) {
        return false;
    }
    let status = &budget["status"];
    let (healthy, desired) =
        (status["currentHealthy"].as_i64().unwrap_or(0), status["desiredHealthy"].as_i64().unwrap_or(0));
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || (healthy >= desired && desired > 0)
}

fn too_many(message: &str, causes: Vec<Cause>) -> Status {
    let details = Details { causes, ..Details::default() };
    Status { details: Some(details), ..Status::new(429, "TooManyRequests", message) }
}

fn permit(budget: &Value) -> Result<(), Status> {
    const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
    let (status, name) = (&budget["status"], object::name(budget));
    let cause = |message: String| vec![Cause { reason: "DisruptionBudget".into(), message, field: String::new() }];
    if status["observedGeneration"].as_i64().unwrap_or(0) < object::generation(budget) {
        let message = format!("The disruption budget {name} is still being processed by the server.");
        let mut refused = too_many(REFUSED, cause(message));
        // Upstream asks to come back when the controller has had time to look.
        refused.details.get_or_insert_default().retry_after_seconds = 10;
        return Err(refused);
    }
    if status["disruptedPods"].as_object().map_or(0, serde_json::Map::len) > DISRUPTED_PODS_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden("poddisruptionbudgets.policy", name, why));
    }
    if status["disruptionsAllowed"].as_i64().unwrap_or(0) > 0 {
        return Ok(());
    }
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    let message = format!(
        "The disruption budget {name} needs {} healthy pods and has {} currently",
        number("desiredHealthy"),
        number("currentHealthy")
    );
    Err(too_many(REFUSED, cause(message)))
}
