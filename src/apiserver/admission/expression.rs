//! CEL expressions of webhooks and policies.
//!
//! Owns: the facts of one write behind the names that such an expression may use, conditions, budgets.
//! Called by: webhooks' match conditions, admission policies.
//! Never: lets an expression do anything but look.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use minik_api::resources;
pub use minik_cel::admission::{Compiled, Params};
use minik_cel::admission::{NAMESPACE, REQUEST, compile, environment};
use minik_cel::{Failure, Meter, Program, Scope, Type, Value as Cel};
use parking_lot::Mutex;
use serde_json::Value;

use super::Review;
use super::asking::Asking;
use super::plugin::World;
use super::webhook::request;

/// Compiled conditions are kept by their text; this many, then all are forgotten.
const PROGRAMS_MAX: usize = 1024;
/// What one evaluation, all expressions of a policy under one binding, and all conditions may cost.
const CALL_COST_MAX: u64 = 1_000_000;
pub const POLICY_COST_MAX: u64 = 10_000_000;
pub const CONDITIONS_COST_MAX: u64 = 2_500_000;

/// A condition, compiled once.
pub fn condition(text: &str, params: Params) -> Arc<Compiled> {
    type Known = HashMap<(String, bool), Arc<Compiled>>;
    static PROGRAMS: OnceLock<Mutex<Known>> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(Mutex::default);
    let key = (text.to_string(), params == Params::Known);
    if let Some(known) = programs.lock().get(&key) {
        return known.clone();
    }
    let compiled = Arc::new(compile(&environment(params), text, &[Type::Bool]));
    let mut programs = programs.lock();
    if programs.len() >= PROGRAMS_MAX {
        programs.clear();
    }
    programs.insert(key, compiled.clone());
    compiled
}

/// What expressions see of one write.
pub struct Facts<'r> {
    review: &'r Review,
    request: Value,
    namespace: Option<Arc<Value>>,
    authorizer: Arc<Asking>,
    own: Arc<Asking>,
}

impl<'r> Facts<'r> {
    pub fn of(review: &'r Review, world: &World) -> Self {
        let mut request = request(review, "");
        if let Some(fields) = request.as_object_mut() {
            fields.remove("object");
            fields.remove("oldObject");
        }
        let asking = Asking::of(review, world.authorizer.clone());
        let is_namespace = review.is("", "namespaces", "");
        let namespaced = !review.namespace.is_empty() && !is_namespace;
        Self {
            review,
            request,
            namespace: namespaced.then(|| world.objects.get(resources::NAMESPACES, "", &review.namespace)).flatten(),
            own: Arc::new(asking.about_the_write()),
            authorizer: Arc::new(asking),
        }
    }

    /// `params` is the parameter's object, where the policy has one.
    pub fn scope<'f>(&'f self, object: &'f Value, params: Option<&'f Value>) -> Scope<'f> {
        let namespace = self.namespace.as_deref().map_or(Cel::Null, |n| Cel::typed(n, &NAMESPACE));
        Scope::default()
            .with("object", Cel::plain(object))
            .with("oldObject", Cel::plain(&self.review.old))
            .with("request", Cel::typed(&self.request, &REQUEST))
            .with("namespaceObject", namespace)
            .with("authorizer", Cel::Host(self.authorizer.clone()))
            .with("authorizer.requestResource", Cel::Host(self.own.clone()))
            .with("params", params.map_or(Cel::Null, Cel::plain))
    }
}

/// What evaluations may still cost.
pub struct Budget(u64);

impl Budget {
    pub fn new(limit: u64) -> Self {
        Self(limit)
    }

    pub fn evaluate<'a>(&mut self, program: &Program, scope: &Scope<'a>) -> Result<Cel<'a>, Failure> {
        let mut meter = Meter::new(CALL_COST_MAX.min(self.0));
        let outcome = program.evaluate(scope, &mut meter);
        if meter.spent() > self.0 {
            let why = "validation failed due to running out of cost budget, no further validation rules will be run";
            return Err(Failure::new(why));
        }
        self.0 -= meter.spent();
        outcome
    }
}

/// Whether all conditions of `of` hold; a fault in one counts only when none is false.
pub fn conditions_hold(of: &Value, params: Params, scope: &Scope<'_>) -> Result<bool, String> {
    let mut faults = Vec::new();
    let mut budget = Budget::new(CONDITIONS_COST_MAX);
    for stated in of["matchConditions"].as_array().into_iter().flatten() {
        let text = stated["expression"].as_str().unwrap_or("");
        let compiled = condition(text, params);
        let outcome = match compiled.as_ref() {
            Ok(program) => budget.evaluate(program, scope).map_err(|failure| failure.to_string()),
            Err(error) => Err(format!("compilation error: {error}")),
        };
        match outcome {
            Ok(Cel::Bool(true)) => {}
            Ok(Cel::Bool(false)) => return Ok(false),
            Ok(_) => faults.push(format!("expression '{text}' did not return a bool")),
            Err(error) => faults.push(format!("expression '{text}' resulted in error: {error}")),
        }
    }
    if faults.is_empty() { Ok(true) } else { Err(faults.join(", ")) }
}
