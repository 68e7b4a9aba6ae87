//! The programs of a policy.
//!
//! Owns: compiling a policy's expressions in the order they may use each other, and remembering the outcome.
//! Called by: the evaluation of policies; the check of new ones; the type check that their status tells of.
//! Never: evaluates.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use minik_api::object;
use minik_cel::types::{Fields, ObjectField, ObjectType};
use minik_cel::{Environment, Messages, Program, Type};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::super::expression::{Compiled, Params, compile, environment};

/// Policies whose programs are remembered; then all are forgotten.
const POLICIES_MAX: usize = 1024;

/// Everything of a policy that is compiled, in the order of its lists.
pub struct Programs {
    pub variables: Vec<(String, Program)>,
    /// Names of variables that are no programs, and why.
    pub broken: Vec<(String, String)>,
    pub validations: Vec<Compiled>,
    pub messages: Vec<Option<Compiled>>,
    pub annotations: Vec<Compiled>,
    pub mutations: Vec<Compiled>,
}

/// How `object` and `params` are typed.
pub struct Types {
    pub object: Type,
    pub params: Type,
}

impl Default for Types {
    fn default() -> Self {
        Self { object: Type::Dyn, params: Type::Dyn }
    }
}

impl Programs {
    /// Remembered by what changes with every write of the policy.
    pub fn of(policy: &Value) -> Arc<Self> {
        /// By uid and resource version of the policy.
        type Known = Mutex<HashMap<(String, String), Arc<Programs>>>;
        static KNOWN: OnceLock<Known> = OnceLock::new();
        let version = object::resource_version(policy);
        if version.is_empty() {
            return Arc::new(Self::compile(policy, &Types::default()));
        }
        let known = KNOWN.get_or_init(Mutex::default);
        let key = (object::uid(policy).to_string(), version.to_string());
        if let Some(programs) = known.lock().get(&key) {
            return programs.clone();
        }
        let programs = Arc::new(Self::compile(policy, &Types::default()));
        let mut known = known.lock();
        if known.len() >= POLICIES_MAX {
            known.clear();
        }
        known.insert(key, programs.clone());
        programs
    }

    pub fn compile(policy: &Value, types: &Types) -> Self {
        let spec = &policy["spec"];
        let params = if spec["paramKind"].is_object() { Params::Known } else { Params::None };
        let mut names =
            environment(params).with("object", types.object.clone()).with("oldObject", types.object.clone());
        if params == Params::Known {
            names.declare("params", types.params.clone());
        }
        let list = |field: &str| spec[field].as_array().map_or(&[][..], Vec::as_slice);
        let text = |of: &Value, field: &str| of[field].as_str().unwrap_or("").to_string();
        let is_mutating = spec["mutations"].is_array();
        if is_mutating {
            names = names.with_messages(Messages::Mutations);
        }
        let (mut variables, mut broken) = (Vec::new(), Vec::new());
        let mut known = Vec::new();
        // Upstream composes variables only where there may be some.
        if is_mutating || !list("variables").is_empty() {
            names.declare("variables", of_variables(&known));
        }
        for variable in list("variables") {
            let name = text(variable, "name");
            match compile(&names, &text(variable, "expression"), &[Type::Dyn]) {
                Ok(program) => {
                    known.push((name.clone(), program.result().clone()));
                    variables.push((name, program));
                    names.declare("variables", of_variables(&known));
                }
                Err(error) => broken.push((name, error)),
            }
        }
        let message = |rule: &Value| {
            let given = rule["messageExpression"].as_str().filter(|text| !text.trim().is_empty())?;
            Some(compile(&names, given, &[Type::String]))
        };
        Self {
            variables,
            broken,
            validations: list("validations")
                .iter()
                .map(|rule| compile(&names, &text(rule, "expression"), &[Type::Bool]))
                .collect(),
            messages: list("validations").iter().map(message).collect(),
            annotations: list("auditAnnotations")
                .iter()
                .map(|rule| compile(&names, &text(rule, "valueExpression"), &[Type::String, Type::Null]))
                .collect(),
            mutations: list("mutations").iter().map(|mutation| compile_mutation(&names, mutation)).collect(),
        }
    }
}

fn compile_mutation(names: &Environment, mutation: &Value) -> Compiled {
    let (field, wanted) = match mutation["patchType"].as_str() {
        Some("JSONPatch") => ("jsonPatch", "list(JSONPatch)"),
        _ => ("applyConfiguration", "Object"),
    };
    let text = mutation[field]["expression"].as_str().unwrap_or("");
    let program = compile(names, text, &[Type::Dyn])?;
    let found = program.result().to_string();
    // An empty list of patches is a list of anything.
    let fits = found == wanted || (field == "jsonPatch" && found == "list(dyn)");
    if fits {
        Ok(program)
    } else {
        Err(format!("must evaluate to {}", if field == "jsonPatch" { "list" } else { wanted }))
    }
}

fn of_variables(known: &[(String, Type)]) -> Type {
    let fields = known.iter().map(|(name, of)| (name.clone(), ObjectField { json: name.clone(), of: of.clone() }));
    let fields = Fields::Declared(fields.collect());
    Type::Object(Arc::new(ObjectType { name: "kubernetes.variables".into(), fields }))
}

/// `status.typeChecking.expressionWarnings`: what does not fit the types that the policy is about, though it may run.
/// `types` names each kind as upstream's messages do: `apps/v1, Kind=Deployment`.
pub fn warnings(policy: &Value, types: &[(String, Types)]) -> Vec<Value> {
    let checked: Vec<(&String, Programs)> =
        types.iter().map(|(kind, types)| (kind, Programs::compile(policy, types))).collect();
    let mut found = Vec::new();
    let mut tell = |field: String, of: &dyn Fn(&Programs) -> Option<String>| {
        let told: Vec<String> = checked
            .iter()
            .filter_map(|(kind, programs)| of(programs).map(|error| format!("{kind}: {error}\n")))
            .collect();
        if !told.is_empty() {
            found.push(json!({"fieldRef": field, "warning": told.join("\n")}));
        }
    };
    for index in 0..policy["spec"]["validations"].as_array().map_or(0, Vec::len) {
        tell(format!("spec.validations[{index}].expression"), &|p| p.validations[index].as_ref().err().cloned());
        tell(format!("spec.validations[{index}].messageExpression"), &|p| {
            p.messages[index].as_ref().and_then(|message| message.as_ref().err().cloned())
        });
    }
    found
}
