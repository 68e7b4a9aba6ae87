//! Webhooks: programs outside that complete or judge writes.
//!
//! Owns: which webhooks a write goes to, in which order, and what happens when one cannot be reached.
//! Called by: the admission chain, after the built-in plugins of each phase.
//! Never: calls a webhook about the configuration of webhooks.

pub mod client;
mod exchange;

use std::sync::Arc;

use minik_api::{Status, object, resources};
use serde_json::Value;

pub use self::exchange::request;

use self::exchange::Answer;
use super::Review;
use super::expression::{Facts, Params, conditions_hold};
use super::plugin::World;
use super::rules;

const TIMEOUT_SECONDS_DEFAULT: i64 = 10;

/// One webhook of a configuration.
struct Webhook {
    configuration: Arc<Value>,
    index: usize,
}

impl Webhook {
    fn field(&self, name: &str) -> &Value {
        &self.configuration["webhooks"][self.index][name]
    }
    fn name(&self) -> &str {
        self.field("name").as_str().unwrap_or("")
    }
    fn whole(&self) -> &Value {
        &self.configuration["webhooks"][self.index]
    }
    fn ignores_failure(&self) -> bool {
        self.field("failurePolicy") == "Ignore"
    }
}

/// All webhooks whose rules and selectors include the write, by the name of their configuration.
fn selected(mut configurations: Vec<Arc<Value>>, review: &Review, world: &World) -> Vec<Webhook> {
    if rules::is_exempt(review) {
        return Vec::new();
    }
    configurations.sort_by(|a, b| object::name(a).cmp(object::name(b)));
    let mut found = Vec::new();
    for configuration in configurations {
        let count = configuration["webhooks"].as_array().map_or(0, Vec::len);
        for index in 0..count {
            let webhook = Webhook { configuration: configuration.clone(), index };
            let ruled = webhook.field("rules").as_array().into_iter().flatten();
            let of = webhook.whole();
            if ruled.into_iter().any(|rule| rules::rule_matches(rule, review))
                && rules::namespace_selected(of, review, world)
                && rules::object_selected(of, review)
            {
                found.push(webhook);
            }
        }
    }
    found
}

/// `None`: the webhook is not asked, or cannot be and does not mind.
async fn ask(webhook: &Webhook, review: &Review, world: &World) -> Result<Option<Answer>, Status> {
    let name = webhook.name();
    let failed = |what: String| {
        let message = format!("failed calling webhook {name:?}: {what}");
        if webhook.ignores_failure() {
            tracing::warn!(webhook = name, %message, "failing open");
            return Ok(None);
        }
        Err(Status::internal(message))
    };
    if webhook.field("matchConditions").as_array().is_some_and(|c| !c.is_empty()) {
        let facts = Facts::of(review, world);
        match conditions_hold(webhook.whole(), Params::None, &facts.scope(&review.object, None)) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(_) if webhook.ignores_failure() => return Ok(None),
            Err(error) => return Err(Status::forbidden("", "", &error)),
        }
    }
    let harmless = matches!(webhook.field("sideEffects").as_str(), Some("None" | "NoneOnDryRun"));
    if review.dry_run && !harmless {
        return Err(Status::bad_request(format!("admission webhook {name:?} does not support dry run")));
    }
    let uid = uuid::Uuid::new_v4().to_string();
    let body = exchange::admission_review(exchange::request(review, &uid));
    let seconds = webhook.field("timeoutSeconds").as_i64().unwrap_or(TIMEOUT_SECONDS_DEFAULT);
    let answer = match client::call(webhook.field("clientConfig"), world.objects.as_ref(), Some(seconds), &body).await {
        Ok(answer) => answer,
        Err(error) => return failed(format!("failed to call webhook: {error}")),
    };
    match Answer::read(&answer, &uid) {
        Ok(answer) => {
            for warning in &answer.warnings {
                review.warn(warning.clone());
            }
            Ok(Some(answer))
        }
        Err(what) => failed(what),
    }
}

/// Remembers how the object looked when each webhook had seen it last.
#[derive(Default)]
pub struct Rounds(Vec<(String, Value)>);

impl Rounds {
    fn key(webhook: &Webhook) -> String {
        format!("{}/{}", object::name(&webhook.configuration), webhook.index)
    }
    /// In the second round only those are asked that want to be, about objects that changed since.
    fn wants(&self, webhook: &Webhook, object: &Value) -> bool {
        match self.0.iter().find(|(key, _)| *key == Self::key(webhook)) {
            None => true,
            Some((_, seen)) => webhook.field("reinvocationPolicy") == "IfNeeded" && seen != object,
        }
    }
    fn saw(&mut self, webhook: &Webhook, object: &Value) {
        let key = Self::key(webhook);
        self.0.retain(|(known, _)| *known != key);
        self.0.push((key, object.clone()));
    }
}

/// One round of mutating webhooks, one after the other. Answers whether the object changed.
pub async fn mutate(review: &mut Review, world: &World, rounds: &mut Rounds) -> Result<bool, Status> {
    let configurations = world.objects.list(resources::MUTATINGWEBHOOKCONFIGURATIONS, "");
    if configurations.is_empty() {
        return Ok(false);
    }
    let mut changed = false;
    for webhook in selected(configurations, review, world) {
        if !rounds.wants(&webhook, &review.object) {
            continue;
        }
        let Some(answer) = ask(&webhook, review, world).await? else { continue };
        if !answer.allowed {
            return Err(answer.refusal(webhook.name()));
        }
        if let Some(patch) = answer.patch.filter(|_| !review.object.is_null()) {
            let patched = exchange::patched(&review.object, &patch).map_err(Status::internal)?;
            changed |= patched != review.object;
            review.object = patched;
        }
        rounds.saw(&webhook, &review.object);
    }
    Ok(changed)
}

/// All validating webhooks at once; the first refusal in their order counts.
pub async fn validate(review: &Review, world: &World) -> Result<(), Status> {
    let configurations = world.objects.list(resources::VALIDATINGWEBHOOKCONFIGURATIONS, "");
    if configurations.is_empty() {
        return Ok(());
    }
    let webhooks = selected(configurations, review, world);
    let answers = futures::future::join_all(webhooks.iter().map(|webhook| ask(webhook, review, world))).await;
    for (webhook, answer) in webhooks.iter().zip(answers) {
        if let Some(answer) = answer?.filter(|answer| !answer.allowed) {
            return Err(answer.refusal(webhook.name()));
        }
    }
    Ok(())
}
