//! `status.typeChecking` of ValidatingAdmissionPolicies: what does not fit the types a policy is about.
//!
//! Owns: finding those types, and keeping the status in line with the policy's generation.
//! Called by: `ApiServer::build`, which starts it as a task.
//! Never: keeps a policy from being evaluated; these are warnings.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use http::Method;
use minik_api::schema::{Form, Type as Schema};
use minik_api::{object, resources};
use minik_cel::Type;
use minik_cel::types::{Fields, ObjectField, ObjectType};
use serde_json::{Value, json};

use crate::admission::{Types, policy_warnings};
use crate::catalog::{Served, Source};
use crate::objects::{Change, Loopback};
use crate::server::Core;

const PATH: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
/// Upstream checks against no more kinds than this.
const KINDS_MAX: usize = 10;
/// Schemas that contain themselves are followed so far.
const DEPTH_MAX: usize = 12;

/// Checks what is there, then follows changes until the server stops.
pub fn start(core: &Arc<Core>) {
    let (core, tasks) = (core.clone(), core.tasks.clone());
    tasks.spawn(async move {
        let follow = core.objects.follow(resources::VALIDATINGADMISSIONPOLICIES);
        for policy in follow.initial {
            settle(&core, &policy).await;
        }
        let mut changes = follow.changes;
        while let Some(change) = changes.next().await {
            if let Change::Put(policy) = change {
                settle(&core, &policy).await;
            }
        }
    });
}

async fn settle(core: &Arc<Core>, policy: &Value) {
    let generation = &policy["metadata"]["generation"];
    if policy["status"]["observedGeneration"] == *generation && policy["status"]["typeChecking"].is_object() {
        return;
    }
    let kinds = kinds(core, policy);
    let params = params(core, policy);
    let types: Vec<(String, Types)> =
        kinds.into_iter().map(|(kind, object)| (kind, Types { object, params: params.clone() })).collect();
    let warnings = policy_warnings(policy, &types);
    let mut checked = json!({});
    if !warnings.is_empty() {
        checked["expressionWarnings"] = warnings.into();
    }
    let mut wanted = policy.clone();
    wanted["status"]["observedGeneration"] = generation.clone();
    wanted["status"]["typeChecking"] = checked;
    let name = object::name(policy);
    // A conflict means that a newer state is on its way here.
    match core.call(Method::PUT, &format!("{PATH}/{name}/status"), Some(&wanted)).await {
        Err(status) if !status.is_conflict() && !status.is_not_found() => {
            tracing::warn!(policy = name, error = %status, "the status of a policy could not be written");
        }
        _ => {}
    }
}

/// The kinds that the policy's rules name without wildcards, as messages name them.
fn kinds(core: &Core, policy: &Value) -> BTreeMap<String, Type> {
    let mut found = BTreeMap::new();
    let catalog = core.catalog.now();
    let rules = policy["spec"]["matchConstraints"]["resourceRules"].as_array();
    for rule in rules.into_iter().flatten() {
        let has = |field: &str, wanted: &str| {
            rule[field].as_array().into_iter().flatten().any(|value| value.as_str() == Some(wanted))
        };
        let named = |served: &&Arc<Served>| {
            let row = &served.row;
            has("apiGroups", &row.group) && has("apiVersions", &row.version) && has("resources", &row.plural)
        };
        for served in catalog.served().iter().filter(named).take(KINDS_MAX) {
            if let Some(of) = type_of(served) {
                found.insert(format!("{}, Kind={}", served.row.api_version(), served.row.kind), of);
            }
        }
    }
    found
}

fn params(core: &Core, policy: &Value) -> Type {
    let kind = &policy["spec"]["paramKind"];
    let catalog = core.catalog.now();
    let is = |served: &&Arc<Served>| {
        kind["kind"] == *served.row.kind && kind["apiVersion"].as_str() == Some(served.row.api_version().as_ref())
    };
    catalog.served().iter().find(is).and_then(|served| type_of(served)).unwrap_or(Type::Dyn)
}

fn type_of(served: &Served) -> Option<Type> {
    match &served.source {
        Source::Custom(custom) => custom.cel_type(),
        Source::BuiltIn(Some(schema)) => Some(of_object(*schema, DEPTH_MAX)),
        Source::BuiltIn(None) => None,
    }
}

fn of_object(schema: Schema, depth: usize) -> Type {
    let fields = schema.fields().iter().map(|field| {
        let json = field.name().to_string();
        let name = crate::custom::escape(&json).unwrap_or_else(|| json.clone());
        (name, ObjectField { json, of: of_form(field.form(), depth) })
    });
    Type::Object(Arc::new(ObjectType { name: schema.openapi_name(), fields: Fields::Declared(fields.collect()) }))
}

fn of_form(form: Form, depth: usize) -> Type {
    if depth == 0 {
        return Type::Dyn;
    }
    match form {
        Form::String => Type::String,
        Form::Bool => Type::Bool,
        Form::Int32 | Form::Int64 => Type::Int,
        Form::Float64 => Type::Double,
        Form::Bytes => Type::Bytes,
        Form::Time | Form::MicroTime => Type::Timestamp,
        Form::Object(schema) => of_object(schema, depth - 1),
        Form::List(element) | Form::Items(element) => Type::list(of_form(element.form(), depth - 1)),
        Form::Map(value) => Type::map(Type::String, of_form(value.form(), depth - 1)),
        _ => Type::Dyn,
    }
}
